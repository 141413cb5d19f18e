"""How a spectrogram becomes tokens with positions. Each default stands here once, with its unit."""

from dataclasses import dataclass
from typing import Literal

from melastic.errors import InputError, check_choices
from melastic.patches.fold import Fold, folded_grid
from melastic.patches.grid import FreqTime, PatchGrid, Remainder

LONGEST_PATCH = 10_000
"""Frames of the longest patch: kernels of more would not fit in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelResize:
    """How the patch kernel is read at other patch sizes than its own."""

    method: Literal["pi", "bilinear"] = "pi"
    """Pseudo-inverse of the patch's resizing (FlexiViT), or the kernel resized as an image."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """What resizes the patch: bilinear (FlexiAST, FlexiViT), or bicubic (timm)."""
    antialias: bool = False
    """Whether it smooths before reducing: off in FlexiAST, on in FlexiViT and timm."""

    def __post_init__(self) -> None:
        """Refuse unknown ways."""
        check_choices("resize", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchConfig:
    """Spectrogram to patches."""

    patch: FreqTime = FreqTime(16, 16)
    """Mel bins and frames of one patch, and of the stored kernel."""
    stride: FreqTime = FreqTime(16, 16)
    """Mel bins and frames from one patch to the next; smaller than the patch: they overlap."""
    remainder: Remainder = "pad"
    """Cells that fill no whole patch: padded with the mean (ours), or cropped (official code)."""
    resize: KernelResize = KernelResize()
    fold: Fold | None = None
    """Stack stretches of time along frequency, for window encoders; None: clips as they are."""
    bin_scale: bool = False
    """Whether each mel bin is scaled and shifted by learned numbers first (HTS-AT)."""
    norm_eps: float | None = None
    """Added to the variance in a LayerNorm of the patches' vectors; None: there is none."""

    def __post_init__(self) -> None:
        """Refuse overlapping patches on folded spectrograms."""
        if self.fold is not None and self.stride != self.patch:
            raise InputError(
                f"patches of a folded spectrogram do not overlap, got patch {self.patch} and "
                f"stride {self.stride}; make them equal"
            )

    def grid(self, size: FreqTime, patch: FreqTime | None = None) -> PatchGrid:
        """Where the patches of a spectrogram lie.

        Args:
            size: mel bins and frames of the spectrogram.
            patch: size of the patches; None: their own. Strides keep their share of a patch.

        Raises:
            InputError: if a patch is higher than the spectrogram, or none fits.
        """
        if patch is None or patch == self.patch:
            patch, stride = self.patch, self.stride
        else:
            shares = zip(self.stride, patch, self.patch, strict=True)
            stride = FreqTime(*(max(1, round(step * new / own)) for step, new, own in shares))
        if patch.freq > size.freq:
            raise InputError(
                f"a patch spans at most the {size.freq} mel bins, got {patch.freq}; try "
                f"{size.freq} or fewer"
            )
        if patch.time > LONGEST_PATCH:
            raise InputError(
                f"a patch spans at most {LONGEST_PATCH} frames, got {patch.time}; try 16"
            )
        if self.fold is not None:
            return folded_grid(size, patch, self.fold)
        return PatchGrid(size=size, patch=patch, stride=stride, remainder=self.remainder)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedGrid:
    """One learned vector for each cell of a grid over frequency and time.

    A cell stands for a place. A clip that reaches beyond the grid has the whole grid stretched
    over it, so that no clip is too long.
    """

    grid: FreqTime = FreqTime(8, 64)
    """Cells along each axis."""
    cell_mels: float = 16.0
    """Mel bins from one cell to the next."""
    cell_ms: float = 160.0
    """Time from one cell to the next (ms)."""
    reading: Literal["place", "stretch", "index"] = "place"
    """Which cells a patch reads: those where its centre lies (ours); the cells of the model's own
    patches, spread evenly over the clip's patches (FlexiAST, which resizes the grid); the cell with
    its own number, whatever its size (ElasticAST)."""
    antialias: bool = True
    """Average over cells that large patches would step over."""
    init: Literal["normal", "sincos"] = "normal"
    """What a new table holds: small normal numbers (ViT), or sines and cosines of the place, as
    strong as the patches themselves, so that places count from the first step."""

    @property
    def extent(self) -> tuple[float, float]:
        """Mel bins and seconds that the grid spans."""
        return self.grid.freq * self.cell_mels, self.grid.time * self.cell_ms / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorisedGrid(LearnedGrid):
    """One learned vector for each row plus one for each column of such a grid.

    Source: ElasticAST (arXiv:2407.08691).
    """


PositionConfig = LearnedGrid | FactorisedGrid
