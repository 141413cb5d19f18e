"""Scores on held-out clips while training, over one process or several."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from melastic.classifier import Classifier
from melastic.data.loader import Batch, ClipDataset
from melastic.errors import DivergedError
from melastic.evaluation.evaluate import Outputs, required, run
from melastic.training.config import TrainConfig
from melastic.training.reading import workers_of


def gathered_outputs(
    accelerator: Accelerator,
    model: Classifier,
    dataset: ClipDataset,
    config: TrainConfig,
    forward: Callable[[Batch], Tensor] | None = None,
) -> Outputs:
    """Logits of all clips of a data set, shared out among the processes; each gets them all.

    Args:
        accelerator: of the run.
        model: its classifier.
        dataset: the clips.
        config: the run's settings.
        forward: what is computed of a batch in place of logits; None: logits.

    Raises:
        DivergedError: if they are not finite.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    outputs = run(
        model,
        dataset,
        range(rank, len(dataset.targets), world),
        batch_tokens=config.optim.batch_tokens,
        workers=workers_of(config, dataset.features),
        max_unreadable=config.data.max_unreadable,
        autocast=accelerator.autocast,
        forward=forward,
    )
    if world == 1:
        return _finite(required(outputs, config.data.max_unreadable))
    gathered: list[Outputs] = gather_object([outputs])
    unreadable = tuple(line for part in gathered for line in part.unreadable)
    parts = [part for part in gathered if part.frames] or gathered[:1]
    return _finite(required(_joined(parts, unreadable), config.data.max_unreadable))


def _finite(outputs: Outputs) -> Outputs:
    """Outputs that are numbers; those of weights that have left them are not."""
    if not torch.isfinite(outputs.logits).all():
        raise DivergedError(
            "what a model says of held-out or test clips must be finite, it is not; lower optim.lr"
        )
    return outputs


def _joined(parts: Sequence[Outputs], unreadable: tuple[str, ...]) -> Outputs:
    """The outputs of several processes."""
    return Outputs(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.targets for part in parts]),
        tuple(frames for part in parts for frames in part.frames),
        unreadable,
    )


def is_better(
    metrics: object, best: float | None, choose_by: Literal["accuracy", "mAP", "loss"]
) -> bool:
    """Whether scores beat the best so far."""
    score: float = getattr(metrics, choose_by)
    if best is None or math.isnan(best):
        return True
    return score < best if choose_by == "loss" else score > best
