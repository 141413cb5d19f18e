"""What the chunked scan works on: blocks of rows and channels, and chunks of their steps.

What is computed of a chunk has its steps first and its channels last: a step is one piece of
memory, and torch's vector loops run along channels.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, log
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.scan.operands import Operands, working_dtype

BLOCK = 24_576
"""Numbers in the states that are worked on at a time."""
CHUNK = 2**20
"""Numbers in all the states of a chunk, about: at most half as many again."""
LONGEST = 64
"""Steps of a chunk, about: at most half as many again."""
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

    def steps(self) -> int:
        """Steps of a chunk; the last may lack as many as there are chunks."""
        rows, length, dim = self.u.shape
        numbers = min(BLOCK, max(1, rows * dim * self.B.shape[2]))
        most = max(1, min(LONGEST, CHUNK // numbers))
        return max(1, ceil(length / max(1, round(length / most))))


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


class Workspace:
    """Memory that a chunk of so many steps is computed in."""

    def __init__(self, buffers: list[Tensor], shape: torch.Size, count: int, way: Way) -> None:
        """Cut it out of buffers, and cut it into steps, in the order of the scan.

        Args:
            buffers: for decays, states and, where they are wanted, adjoints.
            shape: of a state, ``rows state channels``.
            count: steps.
            way: direction.
        """
        order = slice(None, None, -1 if way.reverse else 1)
        lengths = (count, count + 1, count)
        decays, states, *adjoints = (
            buffer[: steps * shape.numel()].view(steps, *shape)
            for buffer, steps in zip(buffers, lengths, strict=False)
        )
        self.decays, self.decay_steps = decays, decays.unbind()[order]
        self.previous, self.states = states[:-1], states[1:]
        if way.reverse:
            self.previous, self.states = self.states, self.previous
        self.state_steps = states.unbind()[order]
        """The first is the state before the chunk."""
        if adjoints:
            (self.adjoints,) = adjoints
            self.adjoint_steps = self.adjoints.unbind()[order]


class Strip:
    """A block in one direction, cut into chunks."""

    def __init__(self, inputs: Inputs, way: Way, block: Block) -> None:
        """Cut it.

        Args:
            inputs: of the scan.
            way: direction.
            block: rows and channels.
        """
        self.inputs, self.way, self.block, self.steps = inputs, way, block, inputs.steps()
        self.A = way.A[block.channels].T.contiguous()
        self.rates = self.A / log(2)
        self.delta, self.drive = self.wide(inputs.delta), self.wide(inputs.drive)
        self.B, self.C = self.narrow(inputs.B), self.narrow(inputs.C)
        self.shape = torch.Size((self.B[0].shape[1], *self.A.shape))
        self.slow = self._slow()

    def wide(self, x: Float[Tensor, "rows length dim"]) -> tuple[Tensor, ...]:
        """Chunks of what channels have, ``steps rows 1 channels``."""
        part = x[self.block.rows, :, self.block.channels]
        return part.transpose(0, 1)[:, :, None].split(self.steps)

    def narrow(self, x: Float[Tensor, "rows length state"]) -> tuple[Tensor, ...]:
        """Chunks of what all channels share, ``steps rows state 1``."""
        return x[self.block.rows].transpose(0, 1)[..., None].split(self.steps)

    def _slow(self) -> list[bool]:
        """Whether all decays of a chunk are slow."""
        if self.A.is_meta or self.A.dtype == torch.float64:
            return [False] * len(self.delta)
        delta = self.inputs.delta[self.block.rows, :, self.block.channels].abs()
        delta = functional.pad(delta, (0, 0, 0, -delta.shape[1] % self.steps))
        over = delta.unflatten(1, (-1, self.steps)).sum(2).amax(0)
        slow: list[bool] = ((over * self.A.abs().amax(0)).amax(1) < SLOW).tolist()
        return slow

    def before(self) -> Float[Tensor, "rows state channels"]:
        """The state before the first step."""
        return self.A.new_zeros(self.shape)

    def chunks(self, *, adjoints: bool = False) -> "Iterator[Chunk]":
        """Its chunks, one at a time, for they share their workspace.

        Args:
            adjoints: whether these find room too; chunks then come from the scan's end.
        """
        numbers = (self.steps + 1) * self.shape.numel()
        buffers = [self.A.new_empty(numbers) for _ in range(3 if adjoints else 2)]
        counts = [len(part) for part in self.delta]
        workspaces = {n: Workspace(buffers, self.shape, n, self.way) for n in set(counts)}
        places = range(len(counts))
        for at in reversed(places) if self.way.reverse != adjoints else places:
            yield Chunk(self, at, workspaces[counts[at]])


class Chunk:
    """A stretch of steps: its part of the inputs, and what is computed of them.

    Decays, states and adjoints (gradients of states) are ``steps rows state channels``, a state
    before or after them is ``rows state channels``. They are found in the order of the methods, for
    one chunk after the other.
    """

    def __init__(self, strip: Strip, at: int, workspace: Workspace) -> None:
        """Take its part.

        Args:
            strip: that it is a part of.
            at: its place there.
            workspace: for what is computed.
        """
        self.strip, self.at, self.workspace = strip, at, workspace
        self.delta, self.drive = strip.delta[at], strip.drive[at]
        self.B, self.C = strip.B[at], strip.C[at]
        count, reverse = len(self.delta), strip.way.reverse
        places = (clip[reverse] - at * strip.steps for clip in strip.inputs.clips)
        found = {count - 1 - t if reverse else t for t in places}
        self.firsts = found.intersection(range(count))
        """At which of its steps, in the order of the scan, states begin anew."""
        self.expm1: Tensor | None = None

    def find_decays(self) -> None:
        """Decay of each state at each step.

        Where all are slow, ``expm1`` are decays less 1, not rounded at 1 as decays are: added up
        over thousands of steps, that rounding is all of a scan's error in float32.
        """
        torch.mul(self.delta, self.strip.rates, out=self.workspace.decays).exp2_()
        if self.strip.slow[self.at] and not self.firsts:
            self.expm1 = torch.expm1(self.delta * self.strip.A)

    def find_states(self, before: Tensor) -> Tensor:
        """State after each step, from the one before all; gives a view of the last."""
        states, steps, expm1 = self.workspace.states, self.workspace.state_steps, self.expm1
        before = steps[0].copy_(before)
        torch.mul(self.drive, self.B, out=states)
        if expm1 is not None:
            states.addcmul_(expm1, before)
        anew = self.firsts if expm1 is None else {0}
        for t, (decay, last, state) in enumerate(
            zip(self.workspace.decay_steps, steps, steps[1:], strict=False)
        ):
            if t not in anew:
                state.addcmul_(decay, last)
        if expm1 is not None:
            states.add_(before)
        return steps[-1]

    def find_adjoints(self, dy: Tensor, after: Tensor) -> None:
        """Gradient of the state after each step; ``after`` is what later chunks add to the last."""
        adjoints, steps, expm1 = self.workspace.adjoints, self.workspace.adjoint_steps, self.expm1
        torch.mul(dy, self.C, out=adjoints)
        if expm1 is None:
            steps[-1].add_(after)
        elif self.strip.way.reverse:
            adjoints[1:].addcmul_(expm1[:-1], after)
        else:
            adjoints[:-1].addcmul_(expm1[1:], after)
        decays = self.workspace.decay_steps
        for t in range(len(steps) - 1, 0, -1):
            if t not in self.firsts:
                steps[t - 1].addcmul_(decays[t], steps[t])
        if expm1 is not None:
            adjoints.add_(after)

    def find_exponents(self) -> Tensor:
        """Put gradients of the decays' exponents in place of the decays.

        Gives what is added to the adjoint of the state before all.
        """
        decays, steps = self.workspace.decays, self.workspace.decay_steps
        decays.mul_(self.workspace.adjoints)
        gets = torch.zeros_like(steps[0]) if 0 in self.firsts else steps[0].clone()
        decays.mul_(self.workspace.previous)
        for t in self.firsts:
            steps[t].zero_()
        return gets


def add_across_states(total: Tensor, weights: Tensor, states: Tensor) -> None:
    """Add a sum over the numbers of a state.

    Args:
        total: added to, ``steps rows 1 channels``.
        weights: of each number, ``steps rows state 1``.
        states: summed, ``steps rows state channels``.
    """
    _add_product(total, weights, states)


def add_across_channels(total: Tensor, values: Tensor, states: Tensor) -> None:
    """Add a sum over channels.

    Args:
        total: added to, ``steps rows state 1``.
        values: of each channel, ``steps rows 1 channels``.
        states: summed, ``steps rows state channels``.
    """
    _add_product(total, values, states.transpose(2, 3))


def _add_product(total: Tensor, vectors: Tensor, matrices: Tensor) -> None:
    """Add each vector times its matrix; in place and with ``out=`` autocast keeps away.

    Into a part of a tensor, other devices may add to a copy.
    """
    steps, rows, _, width = matrices.shape
    vectors, matrices = vectors.reshape(steps * rows, 1, -1), matrices.flatten(0, 1)
    if rows == 1 and total.device.type == "cpu" and total.is_contiguous():
        total.view(steps, 1, width).baddbmm_(vectors, matrices)
    else:
        out = vectors.new_empty(steps * rows, 1, width)
        total.add_(torch.bmm(vectors, matrices, out=out).view(total.shape))
