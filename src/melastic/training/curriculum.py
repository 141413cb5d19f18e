"""What changes while training: the view of each step and of each clip, drawn from a seed.

Whatever is drawn is a pure function of (seed, step) or of (seed, epoch, clip), so that a resumed
run, a second process and a test see the same.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from melastic.errors import InputError
from melastic.evaluation.cost import kept_tokens
from melastic.options import HopList, PatchSizes, PoolingList
from melastic.patches.dials import check_hop, check_length
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import View
from melastic.randomness import generator, integer, uniform

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Views drawn in training, on top of the run's ``view``; what is empty is not drawn.

    A value that is listed twice is drawn twice as often.
    """

    patches: PatchSizes = ()
    """Patch sizes (mel bins, frames): one for each step, as in FlexiAST."""
    hops_ms: HopList = ()
    """Frame shifts (ms): one for each clip, as in ElasticAST's resolution mode."""
    poolings: PoolingList = ()
    """Temporal poolings of the spectrogram: one for each clip."""
    seconds: tuple[float, float] | None = None
    """Shortest and longest stretch that is cut from a clip, all ratios equally likely (s)."""
    keep: tuple[float, float] | None = None
    """Smallest and largest share of a clip's tokens that is kept."""
    ramp_epochs: int = 0
    """Epochs over which drawn views come in: at first every view is the run's own, and the share of
    drawn ones rises evenly to ``share``."""
    ramp_from: int = 0
    """Epochs of these that are over when training begins, as in the phases before."""
    share: float = 1.0
    """Share of steps (for patch sizes), of clips (for frame shift, pooling and length together) and
    of clips (for tokens kept) for which views are drawn; the others have the run's own."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if min(self.ramp_epochs, self.ramp_from) < 0:
            raise InputError(
                "draws.ramp_epochs and draws.ramp_from are at least 0, got "
                f"{self.ramp_epochs} and {self.ramp_from}"
            )
        if not 0 < self.share <= 1:
            raise InputError(f"draws.share is in (0, 1], got {self.share}; try 0.7")
        for patch in self.patches:
            freq_time(patch)
        for hop_ms in self.hops_ms:
            check_hop(hop_ms)
        for seconds in self.seconds or ():
            check_length(seconds)
        if self.seconds is not None and not self.seconds[0] <= self.seconds[1]:
            raise InputError(
                f"draws.seconds are a shortest and a longest stretch, got {self.seconds}; try 0.5 5"
            )
        if self.keep is not None and not 0 < self.keep[0] <= self.keep[1] <= 1:
            raise InputError(
                f"draws.keep are a smallest and a largest share in (0, 1], got {self.keep}; try "
                "0.8 1"
            )


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Which view each step and each clip of a run has.

    Source: FlexiAST (arXiv:2307.09286) for patch sizes drawn per step; ElasticAST
        (arXiv:2407.08691) for frame shifts and lengths drawn per clip and for token dropping.
    """

    view: View
    """What is not drawn."""
    draws: Draws
    seed: int

    @property
    def needs_waveforms(self) -> bool:
        """Whether clips are seen at several time resolutions."""
        return bool(self.draws.hops_ms or self.draws.poolings)

    @property
    def most_kept(self) -> float:
        """Largest share of a clip's tokens that may be kept."""
        if self.draws.keep is None:
            return self.view.keep
        always = self.draws.share == 1 and not self.draws.ramp_epochs
        return self.draws.keep[1] if always else max(self.view.keep, self.draws.keep[1])

    def patch(self, epoch: int, step: int) -> FreqTime | None:
        """Patch size of a step, the same on every process; None: the model's own."""
        draw = generator(self.seed, "patch", step)
        if self.draws.patches and self._comes_in(epoch, draw):
            return freq_time(_one_of(self.draws.patches, draw))
        return None if self.view.patch is None else freq_time(self.view.patch)

    def clip(self, epoch: int, index: int) -> View:
        """Frame shift, pooling and length of a clip in an epoch."""
        draws, view = self.draws, self.view
        draw = generator(self.seed, "view", epoch, index)
        if not self._comes_in(epoch, draw):
            return view
        if draws.hops_ms:
            view = replace(view, hop_ms=_one_of(draws.hops_ms, draw))
        if draws.poolings:
            view = replace(view, pooling=_one_of(draws.poolings, draw))
        if draws.seconds is not None:
            shortest, longest = draws.seconds
            seconds = shortest * (longest / shortest) ** uniform(0, 1, draw)
            view = replace(view, seconds=seconds)
        return view

    def kept(self, epoch: int, step: int, index: int, tokens: int) -> Int[Tensor, " _"] | None:
        """Which of a clip's tokens are used in a step; None: all."""
        draws, share = self.draws, self.view.keep
        draw = generator(self.seed, "keep", step, index)
        if draws.keep is not None and self._comes_in(epoch, draw):
            share = uniform(*draws.keep, draw)
        if share == 1:
            return None
        order = torch.randperm(tokens, generator=draw)
        return order[: kept_tokens(tokens, share)].sort().values

    def _comes_in(self, epoch: int, draw: torch.Generator) -> bool:
        """Whether a view is drawn rather than the run's own."""
        ramp, share = self.draws.ramp_epochs, self.draws.share
        passed = epoch + self.draws.ramp_from
        if passed < ramp:
            share *= passed / ramp
        return share == 1 or uniform(0, 1, draw) < share


def _one_of(values: tuple[T, ...], draw: torch.Generator) -> T:
    """One value, all equally likely."""
    return values[integer(len(values), draw)]
