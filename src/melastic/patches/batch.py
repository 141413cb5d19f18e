"""Ragged batches: the tokens of several clips, one clip behind the other, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from melastic.errors import InputError
from melastic.patches.grid import FreqTime

T = TypeVar("T")


def runs_of(entries: Sequence[T]) -> list[tuple[int, T]]:
    """Neighbours that are equal, as (how many, what).

    Not ``itertools.groupby``, which ``torch.compile`` cannot follow.

    Args:
        entries: in order.
    """
    runs: list[tuple[int, T]] = []
    for entry in entries:
        if runs and runs[-1][1] == entry:
            runs[-1] = (runs[-1][0] + 1, entry)
        else:
            runs.append((1, entry))
    return runs


class Grid(NamedTuple):
    """How the tokens of a clip lie in images; those of an image row by row."""

    images: int
    """Images of the clip."""
    bands: int
    """Bands of an image, which follow each other in time."""
    shape: FreqTime
    """Rows and columns of an image, all bands together."""
    used: int
    """Columns, band after band, in which some of the clip lies."""

    def halved(self) -> "Grid":
        """The grid after every four neighbours have become one."""
        rows, columns = self.shape
        shape = FreqTime(rows // 2, columns // 2)
        return self._replace(shape=shape, used=-(-self.used // 2))


@dataclass(frozen=True)
class Layout:
    """Which stretch of a ragged batch belongs to which clip."""

    lengths: tuple[int, ...]
    """Tokens of each clip, in batch order."""
    grids: tuple[Grid, ...] = ()
    """How they lie in images, where clips are folded; nothing once tokens were left out."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all clips."""
        return sum(self.lengths)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Neighbouring clips of equal length, as (clips, length)."""
        return runs_of(self.lengths)

    def cu_seqlens(self, device: torch.device) -> Int[Tensor, " clips_plus_one"]:
        """Where each clip begins, and where the last ends: what variable-length kernels take."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=device)

    def split(self, x: Shaped[Tensor, "tokens ..."]) -> list[Shaped[Tensor, "_ _ ..."]]:
        """One dense tensor ``clips length …`` for each run of equal lengths; no copies.

        ``torch.split`` and not slices: each slice's backward pass fills a tensor of full size.
        """
        runs = self.runs
        pieces = torch.split(x, [clips * length for clips, length in runs])
        return [piece.unflatten(0, run) for piece, run in zip(pieces, runs, strict=True)]

    def join(self, pieces: list[Shaped[Tensor, "_ _ ..."]]) -> Shaped[Tensor, "tokens ..."]:
        """The inverse of :meth:`split`."""
        flat = [piece.flatten(0, 1) for piece in pieces]
        return flat[0] if len(flat) == 1 else torch.cat(flat)

    @property
    def images(self) -> list[tuple[int, FreqTime]]:
        """Neighbouring images of equal shape, as (images, shape)."""
        shapes = [grid.shape for grid in self.grids for _ in range(grid.images)]
        return runs_of(shapes)

    def halved(self) -> "Layout":
        """The layout after every four neighbours of an image have become one token."""
        lengths = tuple(length // 4 for length in self.lengths)
        return Layout(lengths, tuple(grid.halved() for grid in self.grids))

    def extended(self, by: int) -> "Layout":
        """The layout after every clip has got some more tokens."""
        return Layout(tuple(length + by for length in self.lengths))


class TokenBatch(NamedTuple):
    """What an encoder works on."""

    values: Float[Tensor, "tokens dim"]
    layout: Layout


class Hidden(NamedTuple):
    """Patches of which an encoder sees nothing but where they are."""

    token: Float[Tensor, " dim"]
    """What stands in their place."""
    patches: Sequence[Int[Tensor, " _"]]
    """Their numbers, for each clip."""

    def put(
        self, tokens: Float[Tensor, "clips length dim"], clips: Sequence[int]
    ) -> Float[Tensor, "clips length dim"]:
        """Replace them.

        Args:
            tokens: of clips of equal length, before positions are added.
            clips: which clips these are.
        """
        hide = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        for row, clip in enumerate(clips):
            hide[row, self.patches[clip].cpu()] = True
        hide = hide.to(tokens.device, non_blocking=True)[..., None]
        return torch.where(hide, self.token.to(tokens.dtype), tokens)


def keep_tokens(
    batch: TokenBatch, order: Sequence[int], kept: Sequence[Int[Tensor, " _"]]
) -> tuple[TokenBatch, list[int]]:
    """Only some tokens of each clip, the clips in order of how many they are.

    Args:
        batch: tokens of all patches.
        order: which clip each stretch of it is.
        kept: for each clip, which of its patches are used.

    Raises:
        InputError: if ``kept`` names other patches.
    """
    if len(kept) != len(order):
        raise InputError(f"kept must name the patches of {len(order)} clips, got {len(kept)}")
    first, chosen = 0, []
    for length, clip in zip(batch.layout.lengths, order, strict=True):
        index = torch.as_tensor(kept[clip])
        counted = not (index.is_floating_point() or index.dtype == torch.bool)
        index = index.long()
        inside = len(index) and 0 <= int(index.min()) <= int(index.max()) < length
        if not (counted and inside and len(index.unique()) == len(index)):
            raise InputError(
                f"kept must name some of a clip's {length} patches by number, each once, from 0 on"
            )
        chosen.append((clip, index + first))
        first += length
    chosen.sort(key=lambda entry: len(entry[1]))
    layout = Layout(tuple(len(index) for _, index in chosen))
    places = torch.cat([index for _, index in chosen]).to(batch.values.device)
    return TokenBatch(batch.values[places], layout), [clip for clip, _ in chosen]
