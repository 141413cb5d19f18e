"""The dials of a view: what each may be, and its words."""

import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from melastic.errors import InputError, check_choices
from melastic.patches.grid import Size, freq_time

LONGEST_S = 86_400
"""Longest stretch, and longest frame shift, of a view (s)."""
MOST_FRAMES = 1_000_000
"""Most frames that pooling makes one of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Lower the time resolution of a finished spectrogram."""

    kind: Literal["mean", "max"] = "mean"
    """What stands for several frames: their mean or their maximum."""
    factor: int = 1
    """Frames that become one."""

    def __post_init__(self) -> None:
        """Refuse unknown kinds, and factors that are no number of frames."""
        check_choices("pooling", self)
        if not isinstance(self.factor, Integral) or not 1 <= self.factor <= MOST_FRAMES:
            raise InputError(
                f"a pooling factor is 1 to {MOST_FRAMES:,} whole frames, got {self.factor!r}; 1 "
                "keeps every frame"
            )

    def __str__(self) -> str:
        """Such as ``none``, ``mean2`` or ``max4``."""
        return "none" if self.factor == 1 else f"{self.kind}{self.factor}"


def check_hop(hop_ms: float) -> None:
    """Refuse a frame shift that is not a positive number of milliseconds."""
    if not isinstance(hop_ms, Real) or not 0 < hop_ms <= LONGEST_S * 1000:
        raise InputError(
            f"a hop, a day at most, is a positive number of milliseconds, got {hop_ms!r}; try 10"
        )


def check_length(seconds: float) -> None:
    """Refuse a length that is not a positive number of seconds."""
    if not isinstance(seconds, Real) or not 0 < seconds <= LONGEST_S:
        raise InputError(
            f"a length, a day at most, is a positive number of seconds, got {seconds!r}; try 1"
        )


def check_share(keep: float) -> None:
    """Refuse a share of tokens that is none."""
    if not isinstance(keep, Real) or not 0 < keep <= 1:
        raise InputError(f"the share of tokens kept is in (0, 1], got {keep!r}; try 0.9")


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
