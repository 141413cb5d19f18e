"""Ragged batches: the tokens of several clips, one clip behind the other, without padding."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Which stretch of a ragged batch belongs to which clip."""

    lengths: tuple[int, ...]
    """Tokens of each clip, in batch order."""

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all clips."""
        return sum(self.lengths)

    @cached_property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Neighbouring clips of equal length, as (clips, length)."""
        return tuple((len(list(run)), length) for length, run in groupby(self.lengths))

    def cu_seqlens(self, device: torch.device) -> Int[Tensor, " clips_plus_one"]:
        """Where each clip begins, and where the last ends: what variable-length kernels take."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=device)

    def split(self, x: Shaped[Tensor, "tokens ..."]) -> list[Shaped[Tensor, "_ _ ..."]]:
        """One dense tensor ``clips length …`` for each run of equal lengths; no copies.

        ``torch.split`` and not slices: each slice's backward pass fills a tensor of full size.
        """
        pieces = torch.split(x, [clips * length for clips, length in self.runs])
        return [piece.unflatten(0, run) for piece, run in zip(pieces, self.runs, strict=True)]

    def join(self, pieces: list[Shaped[Tensor, "_ _ ..."]]) -> Shaped[Tensor, "tokens ..."]:
        """The inverse of :meth:`split`."""
        flat = [piece.flatten(0, 1) for piece in pieces]
        return flat[0] if len(flat) == 1 else torch.cat(flat)

    def extended(self, by: int) -> "Layout":
        """The layout after every clip has got some more tokens."""
        return Layout(tuple(length + by for length in self.lengths))


class TokenBatch(NamedTuple):
    """What an encoder works on."""

    values: Float[Tensor, "tokens dim"]
    layout: Layout
