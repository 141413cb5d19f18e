"""The selective scan as a pure function of tensors, for compilers.

Nothing is written in place and no loop depends on data. Chunks are scanned side by side, each from
an empty state; then the state before each is found, and each is scanned once more from there.
Uncompiled, this needs memory for the states of all steps.
"""

from collections.abc import Callable, Sequence
from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from melastic.scan.chunk import step_size
from melastic.scan.operands import Operands, working_dtype

STEPS = 16
"""Steps of a chunk: these and the chunks are loops that a compiler unrolls."""


def scan(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Run the scan; autograd gives the gradients.

    Args:
        operands: inputs.
    """

    def one_way(
        A: Float[Tensor, "dim state"], sequences: Sequence[Tensor], reverse: bool
    ) -> Float[Tensor, "batch length dim"]:
        firsts = _firsts(operands, reverse=reverse)
        if not reverse:
            return _from_the_left(A, firsts, *sequences)
        flipped = (x.flip(1) for x in sequences)
        return _from_the_left(A, None if firsts is None else firsts.flip(0), *flipped).flip(1)

    return every_way(operands, one_way)


def every_way(
    operands: Operands, one_way: Callable[[Tensor, Sequence[Tensor], bool], Tensor]
) -> Float[Tensor, "batch length dim"]:
    """All of a scan but its recurrence.

    Args:
        operands: inputs.
        one_way: what is read off the states, as a function of A, of step size, delta u, B and C
            and of whether the scan starts at the end.
    """
    dtype, delta = working_dtype(operands), step_size(operands)
    if operands.delta_softplus:
        delta = functional.softplus(delta)
    u, B, C = (x.to(dtype) for x in (operands.u, operands.B, operands.C))
    sequences = (delta, delta * u, B, C)
    y, ways = one_way(operands.A.to(dtype), sequences, operands.reverse), 1
    if operands.A_back is not None:
        back = one_way(operands.A_back.to(dtype), sequences, not operands.reverse)
        y, ways = y + back, 2
    if operands.D is not None:
        y = y + ways * operands.D.to(dtype) * u
    if operands.z is not None:
        y = y * functional.silu(operands.z.to(dtype))
    return y.to(operands.u.dtype)


def _firsts(operands: Operands, *, reverse: bool) -> Bool[Tensor, " length"] | None:
    """Steps at which states begin anew; None: only the first."""
    if operands.cu_seqlens is None:
        return None
    length, borders = operands.u.shape[1], operands.cu_seqlens.long()
    places = torch.zeros(length + 1, dtype=torch.bool, device=borders.device)
    places = places.index_fill(0, borders, True)
    return places[1:] if reverse else places[:-1]


def _from_the_left(
    A: Float[Tensor, "dim state"],
    firsts: Bool[Tensor, " length"] | None,
    delta: Float[Tensor, "batch length dim"],
    drive: Float[Tensor, "batch length dim"],
    B: Float[Tensor, "batch length state"],
    C: Float[Tensor, "batch length state"],
) -> Float[Tensor, "batch length dim"]:
    """The recurrence, chunks side by side; in a chunk's states the axes are batch, chunk, …."""
    length = delta.shape[1]
    delta, drive, B, C = (_in_chunks(x) for x in (delta, drive, B, C))
    # On some processors torch's exp is low by 2e-9 on average near 0, which long clips add up.
    decays = torch.exp2(delta[..., None] * (A / log(2)))
    # A product of decays would add up their rounding, and chunks that of a power near 1.
    over = delta.sum(2)[..., None]
    reach, loss = torch.exp2(over * (A / log(2))), torch.expm1(over * A)
    near = loss > -0.5
    if firsts is not None:
        anew = _in_chunks(firsts[None, :, None])
        goes_on = ~anew.any(2)[..., None]
        decays, reach, near = decays * ~anew[..., None], reach * goes_on, near & goes_on
    rest = torch.where(near, loss, reach)
    enters, read = drive[..., None] * B[..., None, :], C[..., None, :]
    state = enters[:, :, 0]
    for t in range(1, STEPS):
        state = decays[:, :, t] * state + enters[:, :, t]
    before = [torch.zeros_like(state[:, 0])]
    for chunk in range(state.shape[1] - 1):
        whole = torch.where(near[:, chunk], before[-1], 0)
        before.append(whole + (rest[:, chunk] * before[-1] + state[:, chunk]))
    state, y = torch.stack(before, 1), []
    for t in range(STEPS):
        state = decays[:, :, t] * state + enters[:, :, t]
        y.append((state * read[:, :, t]).sum(-1))
    return torch.stack(y, 2).flatten(1, 2)[:, :length]


def _in_chunks(x: Tensor) -> Tensor:
    """``batch length …`` as ``batch chunks STEPS …``, filled up with zeros."""
    return functional.pad(x, (0, 0, 0, -x.shape[1] % STEPS)).unflatten(1, (-1, STEPS))
