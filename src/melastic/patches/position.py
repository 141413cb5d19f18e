"""Position tables: what a token learns from its place in frequency and time."""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melastic.patches.batch import Grid
from melastic.patches.config import FactorisedGrid, PatchConfig, PositionConfig
from melastic.patches.fold import FoldedGrid
from melastic.patches.grid import FreqTime, PatchGrid, count_patches
from melastic.patches.resize import reading_matrix


class Ruler(NamedTuple):
    """Evenly spaced places along one axis of a table."""

    scale: float
    """Cells from one patch to the next."""
    offset: float
    """Place of the first patch, in cells from the first cell."""


class Placement(NamedTuple):
    """Where the patches of a clip lie, in the clip and in a position table."""

    shape: FreqTime
    """Patches along each axis."""
    frames: int
    """Frames that they span; more or fewer than the clip has."""
    freq: Ruler
    time: Ruler
    grid: Grid | None = None
    """Images that the clip is folded into; None: it is not, and ``shape`` is the clip's."""

    @property
    def tokens(self) -> int:
        """Patches in all."""
        images = 1 if self.grid is None else self.grid.images
        return images * self.shape.freq * self.shape.time


@lru_cache(maxsize=8192)
def placement(
    positions: PositionConfig | None,
    patches: PatchConfig,
    grid: PatchGrid,
    *,
    hop_ms: float,
    own_hop_ms: float,
) -> Placement:
    """Where the patches of a clip lie, by the table's rule of reading.

    Args:
        positions: the table; its first cell stands for the first of the model's own patches. None:
            there is none.
        patches: the model's own patches.
        grid: the clip's patches.
        hop_ms: frame shift of the clip (ms).
        own_hop_ms: frame shift of the model (ms).
    """
    if positions is None:
        nowhere = Ruler(0.0, 0.0)
        if isinstance(grid, FoldedGrid):
            laid = Grid(grid.images, grid.bands, grid.shape, grid.used)
            return Placement(grid.shape, grid.frames, nowhere, nowhere, laid)
        return Placement(grid.shape, grid.covered.time, nowhere, nowhere)
    freq = _ruler(positions, patches, grid, 0, unit=1.0, own_unit=1.0)
    time = _ruler(positions, patches, grid, 1, unit=hop_ms, own_unit=own_hop_ms)
    return Placement(grid.shape, grid.covered.time, freq, time)


def _ruler(
    positions: PositionConfig,
    patches: PatchConfig,
    grid: PatchGrid,
    axis: int,
    *,
    unit: float,
    own_unit: float,
) -> Ruler:
    """Places along one axis.

    Args:
        positions: the table.
        patches: the model's own patches.
        grid: the clip's patches.
        axis: 0 for frequency, 1 for time.
        unit: size of a cell of the clip's spectrogram (mel bins, or ms).
        own_unit: size of a cell of the spectrograms that the model is made for.
    """
    own, step, cells = patches.patch[axis], patches.stride[axis], positions.grid[axis]
    count, covered = grid.shape[axis], min(grid.size[axis], grid.covered[axis])
    if positions.reading == "index":
        return Ruler(1.0, 0.0) if count <= cells else _stretched(cells, count)
    if positions.reading == "stretch":
        frames = round(grid.size[axis] * unit / own_unit)
        native = max(1, count_patches(frames, own, step, grid.remainder))
        return _stretched(min(native, cells), count)
    cell = (positions.cell_mels, positions.cell_ms)[axis]
    longer = grid.patch[axis] * unit - own * own_unit
    extent = (cells - 1) * cell + own * own_unit
    if covered * unit > extent * (1 + 1e-9):
        return _stretched(cells, count)
    return Ruler(grid.stride[axis] * unit / cell, longer / 2 / cell)


def _stretched(cells: int, count: int) -> Ruler:
    """Places that spread a number of patches evenly over a number of cells."""
    return Ruler(cells / count, (cells / count - 1) / 2)


class PositionTable(nn.Module):
    """Vectors for places in frequency and time.

    The table is full (one vector for each cell, AST) or the sum of two (one for each row, one for
    each column, ElasticAST). Reading is the same: linear between cells, and the mean over cells
    that would be stepped over.
    """

    def __init__(self, config: PositionConfig, dim: int) -> None:
        """Make a table of random vectors."""
        super().__init__()
        self.config = config
        freq, time = config.grid
        if isinstance(config, FactorisedGrid):
            self.freq = nn.Parameter(torch.empty(freq, dim))
            self.time = nn.Parameter(torch.empty(time, dim))
        else:
            self.table = nn.Parameter(torch.empty(freq, time, dim))
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=0.02)
        if config.init == "sincos":
            self._add_sines(FreqTime(freq, time), dim)

    @torch.no_grad()
    def _add_sines(self, cells: FreqTime, dim: int) -> None:
        """Add sines and cosines of the row to one half of the channels, of the column to the other.

        Source: Transformer (arXiv:1706.03762), section 3.5, along each axis, with wavelengths that
            fit the table.
        """
        rows = torch.zeros(cells.freq, dim)
        columns = torch.zeros(cells.time, dim)
        rows[:, : dim // 2] = _sines(cells.freq, dim // 2)
        columns[:, dim // 2 :] = _sines(cells.time, dim - dim // 2)
        if isinstance(self.config, FactorisedGrid):
            self.freq.add_(rows)
            self.time.add_(columns)
        else:
            self.table.add_(rows[:, None] + columns)

    def forward(self, places: Placement) -> Float[Tensor, "freq time dim"]:
        """Vectors of the patches of a clip."""
        shape = places.shape
        if isinstance(self.config, FactorisedGrid):
            rows = self._along(self.freq, shape.freq, places.freq)
            columns = self._along(self.time, shape.time, places.time)
            return rows[:, None] + columns
        cells = self.table.shape[1:]
        rows = self._along(self.table.flatten(1), shape.freq, places.freq).unflatten(1, cells)
        turned = rows.transpose(0, 1)
        columns = self._along(turned.flatten(1), shape.time, places.time)
        return columns.unflatten(1, turned.shape[1:]).transpose(0, 1)

    def _along(
        self, table: Float[Tensor, "cells values"], count: int, ruler: Ruler
    ) -> Float[Tensor, "{count} values"]:
        """Read along one axis; exactly the cells themselves where places are cells."""
        if ruler == Ruler(1.0, 0.0) and count <= len(table):
            return table[:count].clone()  # views of parameters upset hooks on modules
        matrix = reading_matrix(
            count,
            len(table),
            scale=ruler.scale,
            offset=ruler.offset,
            antialias=self.config.antialias,
        )
        return matrix.to(table) @ table


def _sines(cells: int, channels: int) -> Float[Tensor, "{cells} {channels}"]:
    """Sines and cosines whose lengths reach from two cells to twice the table."""
    pairs = (channels + 1) // 2
    lengths = 2 * max(2, cells) ** torch.linspace(0, 1, pairs)
    phase = 2 * torch.pi * torch.arange(cells)[:, None] / lengths
    return torch.cat([phase.sin(), phase.cos()], dim=1)[:, :channels]
