"""The model of masked pretraining: a classifier's encoder, and what is asked of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from melastic.classifier import Classifier
from melastic.errors import InputError
from melastic.inputs import Hops, Spectrograms, checked, one_hop_each, stacked
from melastic.patches.batch import Hidden
from melastic.patches.grid import FreqTime
from melastic.pooling import without_class_tokens
from melastic.training.masked_losses import drawn_error, told_apart
from melastic.training.masks import Masking


class Outcome(NamedTuple):
    """How both tasks went, for each clip."""

    loss: Float[Tensor, " clips"]
    """Weighted sum of the two that follow."""
    discriminative: Float[Tensor, " clips"]
    """InfoNCE."""
    generative: Float[Tensor, " clips"]
    """Mean squared error."""
    accuracy: Float[Tensor, " clips"]
    """Share of the hidden patches that were told apart."""


class MaskedModel(nn.Module):
    """Patch tokens, some of them hidden, through the encoder; two heads predict the hidden patches.

    One pass with one mask serves both tasks (ours: it costs half; the official code passes twice,
    with masks drawn apart). Class tokens take part and are not asked. The pooling and the head of
    the classifier have no part in it.

    Source: SSAST (arXiv:2110.09784; YuanGongND/ssast, ``src/models/ast_models.py``).
    """

    def __init__(self, classifier: Classifier, masking: Masking) -> None:
        """Put a mask token and two heads, drawn from torch's global generator, around an encoder.

        Raises:
            InputError: if patches overlap or clips are folded, so that hidden ones could be read
                off their neighbours.
        """
        super().__init__()
        patches = classifier.config.patches
        if patches.stride != patches.patch or patches.fold is not None:
            raise InputError(
                "masked pretraining needs patches that neither overlap nor are folded, got patches "
                f"of {patches.patch} every {patches.stride}"
                f"{' of folded clips' if patches.fold else ''}; use a plain transformer or Audio "
                "Mamba, with model.stride left out"
            )
        self.masking, self.classifier = masking, classifier
        dim, pixels = classifier.config.encoder.dim, patches.patch.freq * patches.patch.time
        self.mask_token = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.tell = task_head(dim, pixels)
        self.draw = task_head(dim, pixels)
        classifier.pool.requires_grad_(requires_grad=False)

    def forward(
        self,
        spectrograms: Spectrograms,
        hidden: Sequence[Int[Tensor, " _"]],
        hop_ms: Hops = None,
    ) -> Outcome:
        """How well hidden patches are predicted.

        Args:
            spectrograms: normalised log-mels, ``freq time`` each.
            hidden: numbers of the hidden patches of each clip; as many in clips of equal length.
            hop_ms: frame shift (ms), one for all or one for each clip; None: the model's own.
        """
        model = self.classifier
        config = model.config
        clips = checked(spectrograms, config.frontend.num_mels)
        hops_ms = one_hop_each(hop_ms, len(clips), config.frontend.hop_ms)
        batch, order = model.tokens(
            clips, config.patches.patch, hops_ms, hidden=Hidden(self.mask_token, hidden)
        )
        encoded = batch.layout.split(model.encoder(batch.values, batch.layout))
        found, first = [], 0
        for run in encoded:
            members = order[first : first + len(run)]
            first += len(run)
            places = torch.stack([hidden[i].to(run.device) for i in members])[..., None]
            seen = without_class_tokens(run, config.pooling)
            answers = seen.gather(1, places.expand(-1, -1, seen.shape[-1])).float()
            pixels = self._pixels([clips[i] for i in members])
            asked = pixels.gather(1, places.expand(-1, -1, pixels.shape[-1])).float()
            found.append(self._outcome(answers, asked.detach()))
        back = torch.tensor(order, device=batch.values.device).argsort()
        return Outcome(*(torch.cat(part)[back] for part in zip(*found, strict=True)))

    def _pixels(
        self, clips: Sequence[Float[Tensor, "freq _"]]
    ) -> Float[Tensor, "clips tokens pixels"]:
        """What the patches of clips with equally many hold."""
        embed = self.classifier.patch_embed
        grid = embed.config.grid(FreqTime(*clips[0].shape))
        return embed.pixels(stacked(clips, grid.covered.time))

    def _outcome(
        self,
        answers: Float[Tensor, "clips hidden dim"],
        asked: Float[Tensor, "clips hidden pixels"],
    ) -> Outcome:
        """Both tasks, in full precision."""
        weights = self.masking
        with torch.autocast(answers.device.type, enabled=False):
            told = told_apart(self.tell(answers), asked, weights.over)
            error = drawn_error(self.draw(answers), asked)
        loss = weights.discriminative * told.loss + weights.generative * error
        return Outcome(loss, told.loss, error, told.accuracy)


def task_head(dim: int, pixels: int) -> nn.Sequential:
    """Two layers from a token to the pixels of a patch."""
    head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, pixels))
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return head
