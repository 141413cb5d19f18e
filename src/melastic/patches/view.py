"""A view: how a clip becomes tokens. Everything that is flexible is a field of it."""

import math
from dataclasses import dataclass
from typing import Literal

from melastic.errors import InputError
from melastic.patches.grid import freq_time


def check_hop(hop_ms: float) -> None:
    """Refuse a frame shift that is not a positive number of milliseconds."""
    if not 0 < hop_ms < math.inf:
        raise InputError(f"a hop is a positive number of milliseconds, got {hop_ms}; try 10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Lower the time resolution of a finished spectrogram."""

    kind: Literal["mean", "max"] = "mean"
    """What stands for several frames: their mean or their maximum."""
    factor: int = 1
    """Frames that become one."""

    def __post_init__(self) -> None:
        """Refuse factors below one."""
        if self.factor < 1:
            raise InputError(
                f"a pooling factor is at least 1 frame, got {self.factor}; 1 keeps every frame"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a clip becomes tokens; ``None`` leaves a choice to the model."""

    patch: int | tuple[int, int] | None = None
    """Patch size (mel bins, frames); one number means square."""
    hop_ms: float | None = None
    """Step between frames (ms)."""
    pooling: Pooling = Pooling()
    """Temporal pooling of the spectrogram."""
    seconds: float | None = None
    """Longest stretch that is cut from the clip (s)."""
    keep: float = 1.0
    """Share of the tokens that is kept."""

    def __post_init__(self) -> None:
        """Refuse what no clip could be seen through."""
        if self.patch is not None:
            freq_time(self.patch)
        if self.hop_ms is not None:
            check_hop(self.hop_ms)
        if self.seconds is not None and self.seconds <= 0:
            raise InputError(f"a length is positive, got {self.seconds} s; try 1")
        if not 0 < self.keep <= 1:
            raise InputError(f"the share of tokens kept is in (0, 1], got {self.keep}; try 0.9")

    def step_ms(self, hop_ms: float) -> float:
        """Time from one frame that the model sees to the next (ms).

        Args:
            hop_ms: the model's own frame shift (ms).
        """
        return (hop_ms if self.hop_ms is None else self.hop_ms) * self.pooling.factor
