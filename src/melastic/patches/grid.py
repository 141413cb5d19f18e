"""Sizes on the two axes of a spectrogram. Integers only: no tensor is made here."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple

from melastic.errors import InputError

Remainder = Literal["crop", "pad"]


class FreqTime(NamedTuple):
    """Two sizes, always in this order: frequency, time."""

    freq: int
    time: int

    def __str__(self) -> str:
        """Such as ``16 x 8``."""
        return f"{self.freq} x {self.time}"


Size = int | tuple[int, int] | FreqTime


def freq_time(size: int | Sequence[int]) -> FreqTime:
    """Read a size as a pair; one number means square.

    Raises:
        InputError: if it is not one or two positive whole numbers.
    """
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, Integral) and n >= 1 for n in pair):
        raise InputError(
            f"a size is one positive whole number or a pair (freq, time), got {size!r}; try 16"
        )
    return FreqTime(*map(int, pair))


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchGrid:
    """How many patches a spectrogram gives, and where.

    Source: AST (arXiv:2104.01778), section 2.1, for overlapping patches; a convolution without
    padding gives the same counts under ``remainder="crop"``.
    """

    size: FreqTime
    """Mel bins and frames of the spectrogram."""
    patch: FreqTime
    """Mel bins and frames of one patch."""
    stride: FreqTime
    """Mel bins and frames from one patch to the next."""
    remainder: Remainder = "crop"
    """What becomes of cells that fill no whole patch: left out, or padded to a patch."""

    def __post_init__(self) -> None:
        """Refuse a grid without patches.

        Raises:
            InputError: if a size is not positive, or ``crop`` would leave no patch.
        """
        for name in ("size", "patch", "stride"):
            if min(getattr(self, name)) < 1:
                raise InputError(
                    f"{name} must be at least 1 on both axes, got {tuple(getattr(self, name))}; "
                    "give positive numbers"
                )
        if self.remainder == "crop" and min(self.shape) < 1:
            raise InputError(
                f"a spectrogram of {self.size.freq} mel bins x {self.size.time} frames holds no "
                f"whole patch of {self.patch.freq} x {self.patch.time}; give a longer clip or a "
                "smaller patch"
            )

    @property
    def shape(self) -> FreqTime:
        """Patches along each axis."""
        return FreqTime(
            *(
                count_patches(size, patch, stride, self.remainder)
                for size, patch, stride in zip(self.size, self.patch, self.stride, strict=True)
            )
        )

    @property
    def num_patches(self) -> int:
        """Patches in all."""
        return self.shape.freq * self.shape.time

    @property
    def covered(self) -> FreqTime:
        """Mel bins and frames that the patches span; under ``pad`` at least ``size``."""
        return FreqTime(
            *(
                (count - 1) * stride + patch
                for count, patch, stride in zip(self.shape, self.patch, self.stride, strict=True)
            )
        )


def count_patches(size: int, patch: int, stride: int, remainder: Remainder) -> int:
    """Patches along one axis; under ``crop`` there may be none."""
    beyond_first = size - patch
    if remainder == "crop":
        return beyond_first // stride + 1 if beyond_first >= 0 else 0
    return max(0, -(-beyond_first // stride)) + 1
