"""What the chunked scan works on: blocks of rows and channels, and chunks of their steps.

In the buffers channels come last, for torch's vector loops run along them.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.scan.operands import Operands, working_dtype

BLOCK = 24_576
"""Numbers in the states that are worked on at a time."""
CHUNK = 2**19
"""Numbers in all the states of a chunk: a few buffers of them fit in a core's caches."""
LONGEST = 64
"""Steps of a chunk, at most."""
SLOW = 4.0
"""Largest exponent of a decay over a chunk for which what states change by is added up apart."""


class Way(NamedTuple):
    """One direction."""

    A: Float[Tensor, "dim state"]
    reverse: bool


class Block(NamedTuple):
    """Rows and channels that are worked on together."""

    rows: slice
    channels: slice


class Inputs(NamedTuple):
    """Operands in the number format of the state: clips of equal length, or one row of all."""

    u: Float[Tensor, "rows length dim"]
    delta: Float[Tensor, "rows length dim"]
    """Step size, after bias and softplus."""
    drive: Float[Tensor, "rows length dim"]
    """What B carries into the state: delta u."""
    B: Float[Tensor, "rows length state"]
    C: Float[Tensor, "rows length state"]
    ways: list[Way]
    clips: list[tuple[int, int]]
    """First and last step of each clip of a row."""

    def blocks(self) -> Iterator[Block]:
        """Parts whose states are about ``BLOCK`` numbers."""
        rows, _, dim = self.u.shape
        state = self.B.shape[2]
        channels = ceil(dim / ceil(dim * state / BLOCK))
        together = max(1, BLOCK // (channels * state))
        for row in range(0, rows, together):
            for channel in range(0, dim, channels):
                yield Block(slice(row, row + together), slice(channel, channel + channels))

    def longest(self) -> int:
        """Steps of a chunk."""
        rows, length, dim = self.u.shape
        numbers = min(BLOCK, max(1, rows * dim * self.B.shape[2]))
        return max(1, min(LONGEST, CHUNK // numbers, length))

    def chunks(self, way: Way) -> list[slice]:
        """Stretches of steps, in the order of the scan."""
        length, count = self.u.shape[1], self.longest()
        chunks = [slice(t, min(t + count, length)) for t in range(0, length, count)]
        return chunks[::-1] if way.reverse else chunks

    def before(self, block: Block) -> Float[Tensor, "rows state channels"]:
        """The state before the first step."""
        rows, dim = self.u[block.rows, 0, block.channels].shape
        return self.u.new_zeros(rows, self.B.shape[2], dim)

    def buffers(self, block: Block, many: int) -> list[Float[Tensor, " numbers"]]:
        """Room for the states of any chunk, ``many`` times."""
        return list(self.u.new_empty(many, self.before(block).numel() * self.longest()))


def inputs_of(operands: Operands) -> Inputs:
    """Operands as the loops take them, contiguous.

    Args:
        operands: of a scan.
    """
    dtype, (batch, length) = working_dtype(operands), operands.u.shape[:2]
    ends = [0, length] if operands.cu_seqlens is None else operands.cu_seqlens.tolist()
    clips = [(start, end - 1) for start, end in pairwise(ends) if start < end]
    rows = batch
    if len({last - first for first, last in clips}) == 1:  # equal lengths are a dense batch
        rows, clips = batch * len(clips), clips[:1]

    def prepared(x: Tensor) -> Tensor:
        return x.to(dtype).contiguous().view(rows, batch * length // max(rows, 1), x.shape[2])

    u, delta = prepared(operands.u), step_size(operands)
    delta = prepared(functional.softplus(delta) if operands.delta_softplus else delta)
    ways = [Way(operands.A.to(dtype), operands.reverse)]
    if operands.A_back is not None:
        ways.append(Way(operands.A_back.to(dtype), not operands.reverse))
    return Inputs(u, delta, delta * u, prepared(operands.B), prepared(operands.C), ways, clips)


def step_size(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Step size before softplus.

    Args:
        operands: of a scan.
    """
    delta = operands.delta.to(working_dtype(operands))
    return delta if operands.delta_bias is None else delta + operands.delta_bias.to(delta.dtype)


class Chunk:
    """A stretch of steps of one block: its part of the inputs, and what is computed of them.

    Decays, states and adjoints (gradients of states) are ``rows steps state channels``, a state
    ``before`` or ``after`` them is ``rows state channels``.
    """

    def __init__(self, inputs: Inputs, way: Way, block: Block, steps: slice) -> None:
        """Cut it out.

        Args:
            inputs: of the scan.
            way: direction.
            block: rows and channels.
            steps: the stretch.
        """
        self.narrow, self.wide = (block.rows, steps), (block.rows, steps, block.channels)
        self.delta, self.drive = inputs.delta[self.wide], inputs.drive[self.wide]
        self.B, self.C = inputs.B[self.narrow], inputs.C[self.narrow]
        count = steps.stop - steps.start
        self.order = range(count - 1, -1, -1) if way.reverse else range(count)
        firsts = {clip[way.reverse] - steps.start for clip in inputs.clips}
        self.firsts = firsts.intersection(self.order)

    def within(self, buffers: list[Tensor]) -> list[Tensor]:
        """The part of each buffer that its states fill."""
        rows, count, dim = self.delta.shape
        shape = (rows, count, self.B.shape[2], dim)
        return [buffer[: prod(shape)].view(shape) for buffer in buffers]

    def decays(
        self,
        rates: Tensor,
        out: Tensor,
    ) -> None:
        """Decay of each state at each step; ``rates``, ``state channels``, are A over log 2."""
        torch.mul(self.delta[:, :, None], rates, out=out).exp2_()

    def losses(self, A: Tensor) -> Tensor | None:
        """Decays less 1, not rounded at 1 as decays are, where all are slow; None where not.

        Added up over thousands of steps, the rounding of decays near 1 is all of a scan's error in
        float32.

        Args:
            A: ``state channels``.
        """
        if self.firsts or A.is_meta or A.dtype == torch.float64:
            return None
        largest = (self.delta.abs().sum(1).amax(0) * A.abs().amax(0)).amax()
        return torch.expm1(self.delta[:, :, None] * A) if largest < SLOW else None

    def states(
        self,
        decays: Tensor,
        losses: Tensor | None,
        before: Tensor,
        out: Tensor,
    ) -> Tensor:
        """State after each step, from the one before all; gives a view of the last."""
        torch.mul(self.drive[:, :, None], self.B[..., None], out=out)
        decay, state, first = decays.unbind(1), out.unbind(1), self.order[0]
        if losses is not None:
            out.addcmul_(losses, before[:, None])
        elif first not in self.firsts:
            state[first].addcmul_(decay[first], before)
        for previous, t in pairwise(self.order):
            if t not in self.firsts:
                state[t].addcmul_(decay[t], state[previous])
        if losses is not None:
            out.add_(before[:, None])
        return state[self.order[-1]]

    def adjoints(
        self,
        dy: Tensor,
        decays: Tensor,
        losses: Tensor | None,
        after: Tensor,
        out: Tensor,
    ) -> None:
        """Gradient of the state after each step; ``after`` is what later chunks add to the last."""
        torch.mul(dy[:, :, None], self.C[..., None], out=out)
        decay, adjoint = decays.unbind(1), out.unbind(1)
        if losses is None:
            adjoint[self.order[-1]].add_(after)
        elif self.order[0] == 0:
            out[:, :-1].addcmul_(losses[:, 1:], after[:, None])
        else:
            out[:, 1:].addcmul_(losses[:, :-1], after[:, None])
        for following, t in pairwise(reversed(self.order)):
            if following not in self.firsts:
                adjoint[t].addcmul_(decay[following], adjoint[following])
        if losses is not None:
            out.add_(after[:, None])

    def exponents(
        self,
        decays: Tensor,
        adjoints: Tensor,
        states: Tensor,
        before: Tensor,
    ) -> Tensor:
        """Make gradients of the decays' exponents of them; gives what earlier chunks get."""
        first = self.order[0]
        decays.mul_(adjoints)
        gets = torch.zeros_like(before) if first in self.firsts else decays[:, first].clone()
        decays[:, first].mul_(before)
        if first == 0:
            decays[:, 1:].mul_(states[:, :-1])
        else:
            decays[:, :-1].mul_(states[:, 1:])
        for t in self.firsts:
            decays[:, t].zero_()
        return gets


def across_states(
    weights: Tensor,
    states: Tensor,
) -> Tensor:
    """Sum over the numbers of a state: ``rows steps channels``.

    Args:
        weights: of each number, ``rows steps state``.
        states: summed, ``rows steps state channels``.
    """
    return _product(weights, states)


def across_channels(
    values: Tensor,
    states: Tensor,
) -> Tensor:
    """Sum over channels: ``rows steps state``.

    Args:
        values: of each channel, ``rows steps channels``.
        states: summed, ``rows steps state channels``.
    """
    return _product(values, states.transpose(2, 3))


def _product(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Each vector times its matrix; ``out=`` keeps autocast away."""
    rows, steps, _, width = matrices.shape
    out = vectors.new_empty(rows * steps, 1, width)
    torch.bmm(vectors.reshape(rows * steps, 1, -1), matrices.flatten(0, 1), out=out)
    return out.view(rows, steps, width)
