"""The model of masked pretraining: a classifier's encoder, and what is asked of it."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from melastic.classifier import Classifier
from melastic.config import KernelResize
from melastic.inputs import Hops, Spectrograms, checked, one_hop_each
from melastic.patches.batch import Hidden
from melastic.patches.grid import FreqTime
from melastic.patches.resize import resize_kernel
from melastic.pooling import without_class_tokens
from melastic.training.masked_losses import drawn_error, told_apart
from melastic.training.masks import Masking
from melastic.training.units import check_units, unit_size, units_of

PICTURE = KernelResize(method="bilinear", antialias=True)
"""How what is drawn is resized."""
LAST = "2."
"""The layer of a head that has an output for each pixel."""


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
    """Patch tokens, some of them hidden, through the encoder; two heads predict what is hidden.

    What is hidden as a whole are units (:mod:`melastic.training.units`): patches, or cells of a
    window encoder's last grid.

    One pass with one mask serves both tasks (ours: it costs half; the official code passes twice,
    with masks drawn apart). Class tokens take part and are not asked. The pooling and the head of
    the classifier have no part in it.

    Source: SSAST (arXiv:2110.09784; YuanGongND/ssast, ``src/models/ast_models.py``).
    """

    def __init__(self, classifier: Classifier, masking: Masking) -> None:
        """Put a mask token and two heads, drawn from torch's global generator, around an encoder.

        Raises:
            InputError: if patches overlap or clips are stretched, so that what is hidden could be
                read off something else.
        """
        super().__init__()
        check_units(classifier.config)
        self.masking, self.classifier = masking, classifier
        dim, pixels = classifier.config.encoder.dim, math.prod(unit_size(classifier.config))
        self.mask_token = nn.Parameter(torch.randn(classifier.config.encoder.embed_dim))
        nn.init.normal_(self.mask_token, std=len(self.mask_token) ** -0.5)
        self.tell = task_head(dim, pixels)
        self.draw = task_head(dim, pixels)
        classifier.pool.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def carry(self, weights: Mapping[str, Tensor], units: FreqTime) -> None:
        """Take over the mask token and both heads of another such model, whatever its units.

        What a head says of a unit has a number for each pixel. Telling units apart multiplies them
        by their pixels, so they are resized as a kernel is; what is drawn, as a picture is (ours).

        Args:
            weights: of the other model, by name.
            units: mel bins and frames of what it hides.
        """
        own, new = self.state_dict(), unit_size(self.classifier.config)
        rules = {"tell": self.classifier.config.patches.resize, "draw": PICTURE}
        for name, value in own.items():
            part, _, rest = name.partition(".")
            if part == "classifier":
                continue
            given = weights[name]
            if part in rules and rest.startswith(LAST):
                given = _per_pixel(given, units, new, rules[part])
            value.copy_(given)

    def forward(
        self,
        spectrograms: Spectrograms,
        hidden: Sequence[Int[Tensor, " _"]],
        hop_ms: Hops = None,
    ) -> Outcome:
        """How well hidden patches are predicted.

        Args:
            spectrograms: normalised log-mels, ``freq time`` each.
            hidden: numbers of the hidden units of each clip.
            hop_ms: frame shift (ms), one for all or one for each clip; None: the model's own.
        """
        model = self.classifier
        config = model.config
        clips = checked(spectrograms, config.frontend.num_mels, model.patch_embed.bias.dtype)
        hops_ms = one_hop_each(hop_ms, len(clips), config.frontend.hop_ms)
        units = [units_of(config, clip.shape[1]) for clip in clips]
        places = [u.patches(chosen) for u, chosen in zip(units, hidden, strict=True)]
        covered = Hidden(self.mask_token, places)
        batch, order = model.tokens(clips, config.patches.patch, hops_ms, hidden=covered)
        layout = batch.layout
        values = model.encoder(batch.values, layout)
        for _ in range(config.encoder.merges):
            layout = layout.halved()
        found, first = [], 0
        for run in layout.split(values):
            members = order[first : first + len(run)]
            first += len(run)
            seen = without_class_tokens(run, config.pooling)
            pairs = zip(members, seen, strict=True)
            for _, part in groupby(pairs, key=lambda pair: len(hidden[pair[0]])):
                answers, asked = [], []
                for i, tokens in part:
                    answers.append(tokens[units[i].tokens(hidden[i]).to(tokens.device)])
                    asked.append(units[i].cut(clips[i])[hidden[i].to(tokens.device)])
                found.append(self._outcome(torch.stack(answers), torch.stack(asked).detach()))
        back = torch.tensor(order, device=values.device).argsort()
        return Outcome(*(torch.cat(part)[back] for part in zip(*found, strict=True)))

    def _outcome(
        self,
        answers: Float[Tensor, "clips hidden dim"],
        asked: Float[Tensor, "clips hidden pixels"],
    ) -> Outcome:
        """Both tasks, in full precision."""
        answers, asked = answers.float(), asked.float()
        weights = self.masking
        with torch.autocast(answers.device.type, enabled=False):
            told = told_apart(self.tell(answers), asked, weights.over)
            error = drawn_error(self.draw(answers), asked)
        loss = weights.discriminative * told.loss + weights.generative * error
        return Outcome(loss, told.loss, error, told.accuracy)


def _per_pixel(
    layer: Float[Tensor, "pixels ..."], old: FreqTime, new: FreqTime, rule: KernelResize
) -> Float[Tensor, "new_pixels ..."]:
    """Weights or biases of a layer that has an output for each pixel, for another size."""
    maps = layer.reshape(*old, -1).permute(2, 0, 1)
    resized = resize_kernel(maps, new, rule).permute(1, 2, 0)
    return resized.reshape(math.prod(new), *layer.shape[1:])


def task_head(dim: int, pixels: int) -> nn.Sequential:
    """Two layers from a token to the pixels of a patch."""
    head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, pixels))
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return head
