"""Position tables: what a token learns from its place in frequency and time."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from melastic.config import FactorisedGrid, PositionConfig
from melastic.patches.grid import FreqTime


class PositionTable(nn.Module):
    """Vectors for places in frequency and time.

    The table is full (one vector for each cell, AST) or the sum of two (one for each row, one for
    each column, ElasticAST). Reading is the same: a place between cells is interpolated.
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

    def places(
        self, shape: FreqTime, *, step_mels: float, step_ms: float
    ) -> Float[Tensor, "tokens 2"]:
        """Where the patches of one clip lie, in cells of the table, frequency-major.

        Args:
            shape: patches along each axis.
            step_mels: mel bins from one patch to the next.
            step_ms: time from one patch to the next (ms).
        """
        config = self.config
        return _places(shape, config.grid, step_mels / config.cell_mels, step_ms / config.cell_ms)

    def forward(self, places: Float[Tensor, "tokens 2"]) -> Float[Tensor, "tokens dim"]:
        """Read the table at places given in cells (on the CPU, where they are made)."""
        low = places.floor()
        weight = places - low
        low = low.long()
        high = torch.minimum(low + 1, torch.tensor(self.config.grid) - 1)
        if isinstance(self.config, FactorisedGrid):
            along = zip((self.freq, self.time), low.T, high.T, weight.T, strict=True)
            rows, columns = (_read(table, a, b, w) for table, a, b, w in along)
            return rows + columns
        table, width = self.table.flatten(0, 1), self.config.grid.time
        near, far = (
            _read(table, row * width + low[:, 1], row * width + high[:, 1], weight[:, 1])
            for row in (low[:, 0], high[:, 0])
        )
        if not weight[:, 0].any():
            return near
        return torch.lerp(near, far, weight[:, :1].to(near))


def _read(
    table: Float[Tensor, "cells dim"],
    low: Int[Tensor, " tokens"],
    high: Int[Tensor, " tokens"],
    weight: Float[Tensor, " tokens"],
) -> Float[Tensor, "tokens dim"]:
    """Vectors between two cells; exactly those of the first where all weights are zero."""
    start = functional.embedding(low.to(table.device), table)
    if not weight.any():
        return start
    end = functional.embedding(high.to(table.device), table)
    return torch.lerp(start, end, weight[:, None].to(start))


@lru_cache(maxsize=1024)
def _places(
    shape: FreqTime, cells: FreqTime, rows_per_patch: float, columns_per_patch: float
) -> Float[Tensor, "tokens 2"]:
    """Places of a grid of patches in a grid of cells."""
    freq = _squeezed(shape.freq, cells.freq, rows_per_patch)
    time = _squeezed(shape.time, cells.time, columns_per_patch)
    return torch.cartesian_prod(freq, time).reshape(-1, 2)


def _squeezed(count: int, cells: int, step: float) -> Float[Tensor, " count"]:
    """Places along one axis; pressed together where the last would lie beyond the last cell."""
    last = (count - 1) * step
    if last > cells - 1:
        step *= (cells - 1) / last
    return (torch.arange(count, dtype=torch.float64) * step).clamp_max(cells - 1)
