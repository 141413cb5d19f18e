"""Masked pretraining: what is hidden of a clip, and what is asked about it.

Source: SSAST (arXiv:2110.09784; YuanGongND/ssast, ``src/models/ast_models.py``). The official way
    of drawing masks is not reproduced: it never hides the first patch, its clusters grow only
    towards later and higher patches and run over the end of a row into the next, it keeps the
    patches with the smallest numbers, and it does not end where nearly all shall be hidden.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from melastic.errors import InputError
from melastic.patches.grid import FreqTime
from melastic.randomness import uniform

Over = Literal["patches", "predictions"]
"""What competes in the discriminative task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """What masked pretraining hides, and how its two tasks are weighed.

    Source: SSAST (arXiv:2110.09784), for the values.
    """

    share: float = 400 / 512
    """Share of a clip's patches that is hidden; so it follows lengths, patch sizes and phases."""
    clusters: Literal["auto", "always", "never"] = "auto"
    """Whether neighbours are hidden together; auto: where patches do not span all mel bins."""
    cluster_mels: tuple[float, float] = (48.0, 80.0)
    """Least and greatest height of a cluster (mel bins); whole patches between them are drawn for
    each clip, equally likely."""
    cluster_s: tuple[float, float] = (0.48, 0.8)
    """Least and greatest length of a cluster (s), by the same draw."""
    over: Over = "patches"
    """What the discriminative softmax is over: the hidden patches, of which a prediction shall find
    its own (the paper); the predictions (the official code)."""
    discriminative: float = 1.0
    """Weight of telling the hidden patches of a clip apart."""
    generative: float = 10.0
    """Weight of the mean squared error of what is drawn in their place."""

    def __post_init__(self) -> None:
        """Refuse shares, clusters and weights that mean nothing."""
        if not 0 < self.share < 1:
            raise InputError(f"masking.share is in (0, 1), got {self.share}; try 0.78")
        for name in ("cluster_mels", "cluster_s"):
            least, greatest = getattr(self, name)
            if not 0 < least <= greatest < float("inf"):
                raise InputError(
                    f"masking.{name} are a least and a greatest size above 0, got {least} and "
                    f"{greatest}; with masking.clusters never patches are hidden one by one"
                )
        weights = (self.discriminative, self.generative)
        if not (min(weights) >= 0 and 0 < max(weights) < float("inf")):
            raise InputError(
                "masking.discriminative and masking.generative are at least 0 and not both 0, got "
                f"{self.discriminative} and {self.generative}; try 1 and 10"
            )

    def hidden(self, units: int) -> int:
        """How many of a clip's patches are hidden: at least one, and not all where there are two.

        Args:
            units: patches of the clip, or cells of a window encoder.
        """
        return max(1, min(units - 1, round(self.share * units)))

    def draw(
        self, shape: FreqTime, patch: FreqTime, step_ms: float, draw: torch.Generator
    ) -> Int[Tensor, " hidden"]:
        """Numbers of the patches of one clip that are hidden, in order.

        Args:
            shape: patches along each axis.
            patch: mel bins and frames of one.
            step_ms: time from one frame to the next (ms).
            draw: the generator of this clip.
        """
        size = FreqTime(1, 1)
        if self.clusters == "always" or (self.clusters == "auto" and shape.freq > 1):
            place = uniform(0, 1, draw)
            cells = (patch.freq, patch.time * step_ms / 1000)
            bounds = zip((self.cluster_mels, self.cluster_s), cells, shape, strict=True)
            size = FreqTime(*(_side(place, *bound) for bound in bounds))
        return clustered(shape, size, self.hidden(shape.freq * shape.time), draw)


def _side(place: float, bounds: tuple[float, float], cell: float, count: int) -> int:
    """Patches of a cluster along one axis: every number between the bounds is equally likely."""
    least, greatest = (round(bound / cell) for bound in bounds)
    return max(1, min(count, least + int(place * (greatest - least + 1))))


def clustered(
    shape: FreqTime, size: FreqTime, count: int, draw: torch.Generator
) -> Int[Tensor, " {count}"]:
    """Some patches in clusters, each equally likely, in order.

    Clusters are drawn one after the other, wherever in the grid, until enough are covered; what
    sticks out at one edge comes in at the opposite one of the same axis, so that no place is
    special. Of the last one patches are chosen at random.

    Args:
        shape: patches along each axis.
        size: patches of a cluster along each axis; 1 x 1: patches one by one.
        count: how many.
        draw: a generator.
    """
    first = torch.randperm(shape.freq * shape.time, generator=draw).reshape(shape)
    for axis, side in enumerate(size):
        first = torch.stack([first.roll(i, axis) for i in range(side)]).amin(0)
    order = first.flatten() + torch.rand(first.numel(), generator=draw, dtype=torch.float64)
    return order.argsort()[:count].sort().values
