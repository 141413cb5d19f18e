"""What is hidden of a clip as a whole and asked of one token: a patch, or a cell of several.

A window encoder merges patches, so that a token that leaves stands for a cell of several: the cell
is hidden with all its patches, and its pixels are asked of the token.

Source: SSAST (arXiv:2110.09784) for patches; SimMIM (arXiv:2111.09886) for merged ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from melastic.config import ModelConfig
from melastic.errors import InputError
from melastic.patches.embed import cut
from melastic.patches.fold import FoldedGrid
from melastic.patches.grid import FreqTime


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one clip, numbered row by row, those of a row in order of time."""

    shape: FreqTime
    """Units along each axis of the clip."""
    size: FreqTime
    """Mel bins and frames of one."""
    columns: int
    """Units along time in an image; as many as the clip has where it is not folded."""
    side: int = 1
    """Patches of a unit along each axis."""

    def tokens(self, chosen: Int[Tensor, " some"]) -> Int[Tensor, " some"]:
        """Which of the tokens that leave the encoder stand for some units."""
        return self._numbers(chosen, 1)[:, 0]

    def patches(self, chosen: Int[Tensor, " some"]) -> Int[Tensor, " _"]:
        """Which of the patches that enter make up some units."""
        return self._numbers(chosen, self.side).flatten()

    def cut(self, spectrogram: Float[Tensor, "freq time"]) -> Float[Tensor, "units pixels"]:
        """What the units hold: the clip, cropped or padded with the mean to whole units."""
        freq, time = (n * side for n, side in zip(self.shape, self.size, strict=True))
        size = spectrogram.shape
        fitted = functional.pad(spectrogram, (0, time - size[1], 0, freq - size[0]))
        return cut(fitted[None], self.size)

    def _numbers(self, chosen: Int[Tensor, " some"], side: int) -> Int[Tensor, "some _"]:
        """Numbers of the cells of a grid that is finer than that of the units by a factor."""
        row, time = chosen // self.shape.time, chosen % self.shape.time
        band, column = time // self.columns, time % self.columns
        step = torch.arange(side, device=chosen.device)
        rows = (band * self.shape.freq + row)[:, None] * side + step
        columns = column[:, None] * side + step
        return (rows[:, :, None] * (self.columns * side) + columns[:, None]).flatten(1)


def units_of(config: ModelConfig, frames: int) -> Units:
    """The units of a clip.

    Args:
        config: the model.
        frames: of the clip.
    """
    grid = config.patches.grid(FreqTime(config.frontend.num_mels, frames))
    if not isinstance(grid, FoldedGrid):
        return Units(grid.shape, grid.patch, grid.shape.time)
    side = 2**config.encoder.merges
    rows, columns = (n // side for n in grid.shape)
    used = -(-grid.used // side)
    return Units(FreqTime(rows // grid.bands, used), unit_size(config), columns, side)


def unit_size(config: ModelConfig) -> FreqTime:
    """Mel bins and frames of a unit of a model's clips.

    Args:
        config: the model.
    """
    patch, side = config.patches.patch, 2**config.encoder.merges
    return FreqTime(patch.freq * side, patch.time * side)


def check_units(config: ModelConfig) -> None:
    """Refuse models in which what is hidden could be read off something else.

    Raises:
        InputError: if patches overlap, or clips are stretched.
    """
    patches = config.patches
    if patches.stride != patches.patch:
        raise InputError(
            f"masked pretraining needs patches that do not overlap, got patches of {patches.patch} "
            f"every {patches.stride}; leave model.stride out"
        )
    if patches.fold is not None and patches.fold.rule != "bands":
        raise InputError(
            f"masked pretraining asks for pixels as they are, the fold rule {patches.fold.rule!r} "
            "stretches clips; use the fold rule 'bands'"
        )
