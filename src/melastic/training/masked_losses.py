"""The two tasks of masked pretraining, on what was predicted in place of hidden patches.

Source: SSAST (arXiv:2110.09784; YuanGongND/ssast, ``src/models/ast_models.py``).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.training.masks import Over


class Told(NamedTuple):
    """How well the hidden patches of each clip were told apart."""

    loss: Float[Tensor, " clips"]
    """InfoNCE, mean over the clip's hidden patches."""
    accuracy: Float[Tensor, " clips"]
    """Share of predictions that fit their own patch best."""


def told_apart(
    predicted: Float[Tensor, "clips hidden pixels"],
    target: Float[Tensor, "clips hidden pixels"],
    over: Over,
) -> Told:
    """The discriminative task: find the patch that was hidden here among all hidden of the clip.

    Scores are products of targets and predictions, without temperature.

    Args:
        predicted: one vector for each hidden patch.
        target: its pixels.
        over: what competes. The paper's equation, and InfoNCE: the patches, for each prediction.
            The official code: the predictions, for each patch; its accuracy compares patches by
            what is left of their scores after that softmax.
    """
    scores = torch.einsum("cip,cjp->cij", target, predicted)
    shares = scores.log_softmax(1 if over == "patches" else 2)
    own = torch.arange(scores.shape[1], device=scores.device)
    right = shares.argmax(1) == own
    return Told(-shares.diagonal(dim1=1, dim2=2).mean(1), right.float().mean(1))


def drawn_error(
    predicted: Float[Tensor, "clips hidden pixels"], target: Float[Tensor, "clips hidden pixels"]
) -> Float[Tensor, " clips"]:
    """The generative task: mean squared error of the pixels of each clip's hidden patches."""
    return functional.mse_loss(predicted, target, reduction="none").mean((1, 2))
