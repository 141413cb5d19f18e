"""What a selective scan works on, the same for every kernel."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melastic.errors import InputError


class Operands(NamedTuple):
    """Inputs of a scan, channels last; any strides, any floating-point format.

    With ``cu_seqlens`` the batch is 1 and its tokens are clips one behind the other; the state
    starts anew in each.
    """

    u: Float[Tensor, "batch length dim"]
    """Input."""
    delta: Float[Tensor, "batch length dim"]
    """Step size."""
    A: Float[Tensor, "dim state"]
    """Decay of each state, negative in a stable model."""
    B: Float[Tensor, "batch length state"]
    """How the input enters the state."""
    C: Float[Tensor, "batch length state"]
    """How the state is read."""
    D: Float[Tensor, " dim"] | None = None
    """How the input goes past the state; None: it does not."""
    z: Float[Tensor, "batch length dim"] | None = None
    """Gate: the output is multiplied by SiLU of it; None: no gate."""
    delta_bias: Float[Tensor, " dim"] | None = None
    """Added to the step size."""
    A_back: Float[Tensor, "dim state"] | None = None
    """Decay of a second scan from the other end, whose output, with its own share of D and of the
    gate, is added (Fo-Bi of Audio Mamba); None: one direction."""
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None = None
    """Where each clip begins, and where the last ends; None: each row is one clip."""
    delta_softplus: bool = False
    """Whether the step size goes through softplus, after its bias."""
    reverse: bool = False
    """Whether the scan starts at the end of each clip."""


class Gradients(NamedTuple):
    """Gradients of a scan's inputs, in the order of :class:`Operands`; None where it has none."""

    u: Float[Tensor, "batch length dim"]
    delta: Float[Tensor, "batch length dim"]
    A: Float[Tensor, "dim state"]
    B: Float[Tensor, "batch length state"]
    C: Float[Tensor, "batch length state"]
    D: Float[Tensor, " dim"] | None
    z: Float[Tensor, "batch length dim"] | None
    delta_bias: Float[Tensor, " dim"] | None
    A_back: Float[Tensor, "dim state"] | None


def clips_of(operands: Operands) -> list[tuple[int, slice]]:
    """Row and stretch of each clip.

    Args:
        operands: of a scan.
    """
    batch, length = operands.u.shape[:2]
    if operands.cu_seqlens is None:
        return [(row, slice(0, length)) for row in range(batch)]
    ends = operands.cu_seqlens.tolist()
    return [(0, slice(*pair)) for pair in pairwise(ends)]


def check_borders(cu_seqlens: Tensor | None, batch: int, length: int) -> None:
    """Refuse borders that are not those of clips one behind the other.

    Args:
        cu_seqlens: borders; None: each row is one clip.
        batch: rows.
        length: steps of a row.

    Raises:
        InputError: naming the borders.
    """
    if cu_seqlens is None:
        return
    if not isinstance(cu_seqlens, Tensor):
        raise InputError(f"cu_seqlens is a tensor, got {cu_seqlens!r}; try torch.tensor(…)")
    ends = cu_seqlens.tolist() if cu_seqlens.ndim == 1 else []
    rising = len(ends) > 1 and all(a < b for a, b in pairwise(ends))
    whole = rising and not cu_seqlens.is_floating_point() and (ends[0], ends[-1]) == (0, length)
    if batch != 1 or not whole:
        raise InputError(
            f"cu_seqlens rises from 0 to the length ({length}) in steps of at least 1, with a "
            f"batch of 1; got a batch of {batch} and {ends[:4]}…{ends[-1:]}"
        )


def working_dtype(operands: Operands) -> torch.dtype:
    """Number format of the state: float32, or float64 where the input is."""
    return torch.promote_types(operands.u.dtype, torch.float32)
