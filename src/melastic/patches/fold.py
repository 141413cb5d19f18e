"""Spectrograms folded into nearly square images, for encoders that attend in windows.

Source: HTS-AT (arXiv:2202.00874; RetroCirce/HTS-Audio-Transformer, ``htsat.py``).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.errors import InputError, unknown_name
from melastic.patches.grid import FreqTime, PatchGrid

FoldRule = Literal["bands", "stretch", "tile"]
"""How clips of any length become images of bands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Consecutive bands of a spectrogram, stacked along frequency: nearly square images.

    Source: HTS-AT (arXiv:2202.00874; RetroCirce/HTS-Audio-Transformer, ``reshape_wav2img``).
    """

    frames: int = 256
    """Frames of a band."""
    bands: int = 4
    """Bands of a stretched clip; other clips have as many as they need."""
    merges: int = 3
    """Halvings of the grid in the encoder, which each band has to survive."""
    rule: FoldRule = "bands"
    """As many bands as the clip needs, the last one padded with zeros (ours: any length, nothing
    stretched or lost); the clip stretched to all bands, and read in overlapping pieces where it is
    longer (official); the clip repeated as often as it fits, then stretched (official too)."""

    def __post_init__(self) -> None:
        """Refuse sizes that give no image, and unknown rules."""
        if self.rule not in get_args(FoldRule):
            raise unknown_name("fold rule", str(self.rule), get_args(FoldRule))
        if self.frames < 1 or self.bands < 1 or self.merges < 0:
            raise InputError(
                f"a fold has frames and bands of at least 1 and merges of at least 0, got "
                f"{self.frames}, {self.bands} and {self.merges}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedGrid(PatchGrid):
    """Patches of the images that a clip becomes; ``size`` and ``shape`` are those of one image."""

    frames: int
    """Frames of the clip."""
    images: int
    """Images of the clip."""
    bands: int
    """Bands of an image."""
    used: int
    """Columns of patches, band after band, in which some of the clip lies."""

    @property
    def num_patches(self) -> int:
        """Patches of all images."""
        return self.images * self.shape.freq * self.shape.time


def folded_grid(size: FreqTime, patch: FreqTime, fold: Fold) -> FoldedGrid:
    """The images that a clip becomes, and their patches.

    Args:
        size: mel bins and frames of the clip.
        patch: size of the patches.
        fold: the rule.

    Raises:
        InputError: if the rule has no image for the clip.
    """
    band = _band(size, patch, fold)
    bands = fold.bands if fold.rule != "bands" else -(-size.time // band.time)
    used = bands * band.time if fold.rule != "bands" else size.time
    return FoldedGrid(
        size=FreqTime(bands * band.freq, band.time),
        patch=patch,
        stride=patch,
        frames=size.time,
        images=len(pieces(size.time, fold)),
        bands=bands,
        used=-(-used // patch.time),
    )


def _band(size: FreqTime, patch: FreqTime, fold: Fold) -> FreqTime:
    """Mel bins and frames of one band; each holds whole cells of the encoder's last grid."""
    cell = FreqTime(*(side * 2**fold.merges for side in patch))
    if fold.rule == "bands":
        frames = min(size.time, fold.frames)
        return FreqTime(_up(size.freq, cell.freq), _up(frames, cell.time))
    band = FreqTime(fold.frames // fold.bands, fold.frames)
    if band.freq % cell.freq or band.time % cell.time:
        raise InputError(
            f"patches of {patch} do not fill bands of {band} after {fold.merges} halvings; use "
            "smaller patches, or the fold rule 'bands'"
        )
    if size.freq > band.freq:
        raise InputError(
            f"a stretched clip has at most {band.freq} mel bins, got {size.freq}; use the fold "
            "rule 'bands'"
        )
    return band


def _up(size: int, cell: int) -> int:
    """The next whole number of cells."""
    return -(-size // cell) * cell


def pieces(frames: int, fold: Fold) -> list[range]:
    """The stretches of a clip that become an image each.

    Official stretching reads clips beyond its image in three overlapping halves, or two where the
    frames, less one, are a multiple of four: then the last quarter of the clip is not read.

    Args:
        frames: of the clip.
        fold: the rule.

    Raises:
        InputError: if the official rule fails for such a clip.
    """
    most = fold.frames * fold.bands
    if fold.rule == "bands" or frames <= most:
        return [range(frames)]
    half, step = (frames - 1) // 2, max(1, (frames - 1) // 4)
    if fold.rule == "tile" or half > most:
        longest = most if fold.rule == "tile" else 2 * most + 2
        raise InputError(
            f"the fold rule {fold.rule!r} takes clips of at most {longest} frames, got {frames}; "
            "use the fold rule 'bands' (convert with fold bands), or shorter stretches (seconds)"
        )
    return [range(first, first + half) for first in range(0, frames - half - 1, step)]


def folded(
    clips: Float[Tensor, "clips freq time"], patch: FreqTime, fold: Fold
) -> Float[Tensor, "images rows columns"]:
    """Images of clips of equal length, those of a clip in a row.

    Row ``band * bins + bin``, column ``frame`` of an image is a bin of a frame of that band.

    Args:
        clips: spectrograms.
        patch: size of the patches.
        fold: the rule.
    """
    size = FreqTime(*clips.shape[1:])
    band = _band(size, patch, fold)
    if fold.rule == "bands":
        frames = _up(size.time, band.time)
        laid = functional.pad(clips, (0, frames - size.time, 0, band.freq - size.freq))
        return rearrange(laid, "clips freq (band time) -> clips (band freq) time", time=band.time)
    long = FreqTime(band.freq, fold.frames * fold.bands)
    cut = [clips[:, :, p.start : p.stop] for p in pieces(size.time, fold)]
    if fold.rule == "tile":
        cut = [piece.repeat(1, 1, long.time // piece.shape[-1]) for piece in cut]
    laid = torch.stack([_stretched(piece, long) for piece in cut], dim=1)
    folding = "clips piece freq (band time) -> (clips piece) (band freq) time"
    return rearrange(laid, folding, band=fold.bands)


def _stretched(clips: Float[Tensor, "clips freq time"], to: FreqTime) -> Tensor:
    """Time, then frequency, resized bicubically with the outermost cells kept in place."""
    for size in (FreqTime(clips.shape[1], to.time), to):
        if tuple(clips.shape[1:]) != tuple(size):
            image = clips[:, None]
            clips = functional.interpolate(image, size, mode="bicubic", align_corners=True)[:, 0]
    return clips
