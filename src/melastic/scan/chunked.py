"""The selective scan in plain torch, a chunk of steps at a time: needs no compiler.

A chunk's decays are one exponential over a buffer, each step is one multiply-add in place, and a
chunk's outputs are one small product. The backward pass is written by hand and works chunk by chunk
from the end: it keeps the state before each chunk and computes those in between once more. Clips of
different lengths are one row in which states begin anew.
"""

from math import ceil
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.scan.chunk import (
    Inputs,
    Strip,
    Way,
    add_across_channels,
    add_across_states,
    inputs_of,
    step_size,
)
from melastic.scan.operands import Gradients, Operands

TENSORS = Operands._fields.index("cu_seqlens") + 1
"""Operands that are tensors or None; the others are flags."""


def scan(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Run the scan; its gradients are those of :func:`backward`.

    Args:
        operands: inputs.
    """
    if not torch.is_grad_enabled():
        return forward(operands)
    return _Scan.apply(*operands)  # type: ignore[no-untyped-call]


def forward(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Output of the scan, in u's number format.

    Args:
        operands: inputs.
    """
    return _forward(operands, keep=False)[0]


@torch.no_grad()
def backward(
    dy: Float[Tensor, "batch length dim"], operands: Operands, kept: list[Tensor] | None = None
) -> Gradients:
    """Gradients of the scan's inputs, each in its input's number format.

    Args:
        dy: gradient of the output.
        operands: inputs.
        kept: states before each chunk, for each direction; None: they are computed once more.
    """
    kept = kept or _forward(operands, keep=True)[1]
    inputs = inputs_of(operands)
    dtype, shape, u = inputs.u.dtype, inputs.u.shape, inputs.u
    dy, read, dz, dD = dy.to(dtype).reshape(shape), None, None, None
    if operands.z is not None:
        z, dy_gated = operands.z.to(dtype).reshape(shape), dy
        read, dy = _past_the_state(operands, inputs), dy * functional.silu(z)
    drive, delta, dB, dC = (torch.zeros_like(x) for x in (u, u, inputs.B, inputs.C))
    sums = _Sums(drive, delta, dB, dC, read)
    dA = [_backward_way(inputs, *each, dy, sums) for each in zip(inputs.ways, kept, strict=True)]
    if read is not None:
        dz = torch.ops.aten.silu_backward(dy_gated * read, z)
    du, ddelta = drive * inputs.delta, delta.addcmul_(drive, u)
    if operands.D is not None:
        du.addcmul_(dy, operands.D.to(dtype), value=len(dA))
        dD = len(dA) * (dy * u).sum((0, 1))
    if operands.delta_softplus:
        before = step_size(operands).reshape(shape)
        ddelta = torch.ops.aten.softplus_backward(ddelta, before, 1, 20)
    dbias, dA_back = ddelta.sum((0, 1)), dA[1] if len(dA) > 1 else None
    found = (du, ddelta, dA[0], dB, dC, dD, dz, dbias, dA_back)
    return Gradients(*map(_like, found, operands))


def _like(gradient: Tensor | None, operand: Any) -> Any:
    """A gradient in its operand's shape and number format; None where there is no operand."""
    if gradient is None or operand is None:
        return None
    return gradient.reshape(operand.shape).to(operand.dtype)


class _Scan(torch.autograd.Function):
    """Ties the two passes."""

    @staticmethod
    def forward(ctx: Any, *values: Any) -> Tensor:
        y, kept = _forward(Operands(*values), keep=any(ctx.needs_input_grad))
        ctx.save_for_backward(*values[:TENSORS], *kept)
        ctx.flags = values[TENSORS:]
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # checkpoints give them once
        operands = Operands(*saved[:TENSORS], *ctx.flags)
        gradients = backward(dy, operands, list(saved[TENSORS:]))
        return *gradients, *[None] * (len(Operands._fields) - len(gradients))


@torch.no_grad()
def _forward(operands: Operands, *, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """Output; and the states before each chunk of each direction, if they are to be kept."""
    inputs = inputs_of(operands)
    y, kept = _past_the_state(operands, inputs), []
    count = ceil(y.shape[1] / inputs.steps()) if keep else 0
    for way in inputs.ways:
        states = y.new_empty(count, len(y), way.A.shape[1], y.shape[2])
        for block in inputs.blocks():
            _forward_block(Strip(inputs, way, block), y, states)
        kept.append(states)
    y = y.view(operands.u.shape)
    if operands.z is not None:
        y.mul_(functional.silu(operands.z.to(y.dtype)))
    return y.to(operands.u.dtype), kept if keep else []


def _past_the_state(operands: Operands, inputs: Inputs) -> Float[Tensor, "rows length dim"]:
    """What of u reaches the output directly, once for each direction."""
    if operands.D is None:
        return torch.zeros_like(inputs.u)
    return inputs.u * (len(inputs.ways) * operands.D.to(inputs.u.dtype))


def _forward_block(
    strip: Strip,
    y: Float[Tensor, "rows length dim"],
    kept: Float[Tensor, "chunks rows state dim"],
) -> None:
    """Add what is read off the states to ``y``."""
    before, outputs, block = strip.before(), strip.wide(y), strip.block
    for chunk in strip.chunks():
        if len(kept):
            kept[chunk.at, block.rows, :, block.channels] = before
        chunk.find_decays()
        before = chunk.find_states(before)
        add_across_states(outputs[chunk.at], chunk.C, chunk.workspace.states)


class _Sums(NamedTuple):
    """Gradients that every direction and block adds to."""

    drive: Float[Tensor, "rows length dim"]
    delta: Float[Tensor, "rows length dim"]
    """By way of the decays only."""
    B: Float[Tensor, "rows length state"]
    C: Float[Tensor, "rows length state"]
    read: Float[Tensor, "rows length dim"] | None
    """Not a gradient: the output before its gate, where there is a gate."""


def _backward_way(
    inputs: Inputs,
    way: Way,
    kept: Float[Tensor, "chunks rows state dim"],
    dy: Float[Tensor, "rows length dim"],
    sums: _Sums,
) -> Float[Tensor, "dim state"]:
    """Add one direction's share to ``sums``; gives the gradient of its A."""
    dA = torch.zeros_like(way.A)
    for block in inputs.blocks():
        dA[block.channels] += _backward_block(Strip(inputs, way, block), kept, dy, sums).T
    return dA


def _backward_block(
    strip: Strip,
    kept: Float[Tensor, "chunks rows state dim"],
    dy: Float[Tensor, "rows length dim"],
    sums: _Sums,
) -> Float[Tensor, "state channels"]:
    """Add one block's share to ``sums``; gives the gradient of its part of A."""
    A, after, block = strip.A, strip.before(), strip.block
    drive, delta, dy_parts = map(strip.wide, (sums.drive, sums.delta, dy))
    B, C = strip.narrow(sums.B), strip.narrow(sums.C)
    read = None if sums.read is None else strip.wide(sums.read)
    dA = A.new_zeros(strip.steps, *strip.shape)
    for chunk in strip.chunks(adjoints=True):
        at, workspace, dy_part = chunk.at, chunk.workspace, dy_parts[chunk.at]
        chunk.find_decays()
        chunk.find_states(kept[at, block.rows, :, block.channels])
        chunk.find_adjoints(dy_part, after)
        if read is not None:
            add_across_states(read[at], chunk.C, workspace.states)
        add_across_channels(C[at], dy_part, workspace.states)
        add_across_channels(B[at], chunk.drive, workspace.adjoints)
        add_across_states(drive[at], chunk.B, workspace.adjoints)
        after = chunk.find_exponents()
        exponents, rest = workspace.decays, workspace.adjoints
        delta[at].add_(torch.mul(exponents, A, out=rest).sum(2, keepdim=True))
        dA[: len(exponents)].addcmul_(exponents, chunk.delta)
    return dA.sum((0, 1))
