"""A view: how a clip becomes tokens. Everything that is flexible is a field of it."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from melastic.errors import InputError
from melastic.patches.grid import Size, freq_time


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

    def __str__(self) -> str:
        """Such as ``none``, ``mean2`` or ``max4``."""
        return "none" if self.factor == 1 else f"{self.kind}{self.factor}"


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
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"a length is a positive number of seconds, got {self.seconds}; try 1")
        if not 0 < self.keep <= 1:
            raise InputError(f"the share of tokens kept is in (0, 1], got {self.keep}; try 0.9")

    def step_ms(self, hop_ms: float) -> float:
        """Time from one frame that the model sees to the next (ms).

        Args:
            hop_ms: the model's own frame shift (ms).
        """
        return (hop_ms if self.hop_ms is None else self.hop_ms) * self.pooling.factor

    def __str__(self) -> str:
        """Such as ``patch 16, hop 10 ms, pool mean2, 1 s, keep 0.5``; what is usual is left out."""
        words = [
            None if self.patch is None else f"patch {size_text(self.patch)}",
            None if self.hop_ms is None else f"hop {self.hop_ms:g} ms",
            None if self.pooling.factor == 1 else f"pool {self.pooling}",
            None if self.seconds is None else f"{self.seconds:g} s",
            None if self.keep == 1 else f"keep {self.keep:g}",
        ]
        return ", ".join(word for word in words if word) or "the model's own view"


def size_text(size: Size) -> str:
    """A patch size as commands take it: ``16``, or ``128x4`` (mel bins x frames)."""
    freq, time = freq_time(size)
    return f"{freq}" if freq == time else f"{freq}x{time}"


def plain_size(size: Size) -> int | tuple[int, int]:
    """A patch size as one number where it is a square, else as a pair."""
    freq, time = freq_time(size)
    return freq if freq == time else (freq, time)


def size_of(text: str) -> int | tuple[int, int]:
    """The patch size that such a text stands for: one number for a square.

    Raises:
        InputError: if it stands for none.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    freq, time = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(freq, time) < 1:
        raise InputError(
            f"a patch size reads N or FREQxTIME (mel bins x frames) from 1 on, got {text!r}; try "
            "16 or 128x4"
        )
    return plain_size((freq, time))


def pooling_of(text: str) -> Pooling:
    """The pooling that a text such as ``none``, ``mean2`` or ``max4`` stands for.

    Raises:
        InputError: if it stands for none.
    """
    match = re.fullmatch(r"(mean|max)([1-9]\d*)", text.strip())
    if match is None and text.strip() != "none":
        raise InputError(
            f"a pooling reads none, meanN or maxN (N frames become one), got {text!r}; try mean2"
        )
    if match is None or match[2] == "1":
        return Pooling()
    return Pooling(kind="max" if match[1] == "max" else "mean", factor=int(match[2]))
