"""The gradients of a selective scan on CUDA, in Triton.

First the states that enter each chunk of steps, those of the scan and those of its adjoint, which runs
from the other end. Then each chunk stands by itself, and both directions of a chunk are differentiated
together. Sums over channels, chunks and clips go through float32 buffers in a fixed order, so that
results are the same on every run.
"""

from functools import partial
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from melastic.scan.operands import Gradients, Operands
from melastic.scan.triton_tiles import (
    LOG2_E,
    View,
    bounds,
    channels_of,
    clip_count,
    clip_of,
    decays_of,
    entering,
    inputs_at,
    inputs_of,
    launch,
    load,
    parameter,
    sigmoid,
    store,
    tile_of,
    vectors,
    view,
)

SPAN = 4
"""Chunks of a group, whose gradients of A, D and the bias one program adds up."""


class Outputs(NamedTuple):
    """Gradients as the second kernel writes them; ``groups`` of chunks, ``blocks`` of channels."""

    u: View
    delta: View
    z: View | None
    B: View
    """Of each block, in place of the batch: (blocks, batch * length, state)."""
    C: View
    A: Tensor
    """Of each group: (groups, directions, dim, state)."""
    D: Tensor
    """Of each group: (groups, dim)."""
    bias: Tensor


@triton.jit
@no_type_check
def _gated(x, dy, row, first, channels, inside, T: tl.constexpr):
    """Gradient of the output before and after its way back through the gate, and the gate."""
    steps = tl.arange(0, T)[:, None, None]
    outer = load(dy, row, first, steps, channels[None], inside)
    inner = outer
    gate = outer
    if x.z is not None:
        gate = load(x.z, row, first, steps, channels[None], inside)
        inner = outer * gate * sigmoid(gate)
    return outer, inner, gate


@triton.jit
@no_type_check
def _sweep(
    x, dy, edges, slots,
    DIRECTION: tl.constexpr, ADJOINT: tl.constexpr, BACK: tl.constexpr, SOFTPLUS: tl.constexpr,
    SPAN: tl.constexpr, T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """States that enter each chunk of one clip, of a scan or of its adjoint."""
    row, begin, end = bounds(x.clips, tl.program_id(1), x.length)
    channels = channels_of(K, E)
    decays = decays_of(x, channels, DIRECTION, N) * LOG2_E
    state = tl.zeros((K, N, E), tl.float32)
    count = tl.cdiv(end - begin, T).to(tl.int32)
    base = tl.program_id(1) * tl.cdiv(count, SPAN)
    if x.clips is not None:
        base = (begin // (T * SPAN)).to(tl.int32) + tl.program_id(1)
    line = tl.cast(DIRECTION * 2 + ADJOINT, tl.int64) * slots + base * SPAN
    states = tl.arange(0, N)[None, :, None]
    for index in tl.range(0, count, num_stages=2):
        chunk = count - 1 - index if BACK else index
        first = begin + chunk * T
        where = edges + (line + chunk) * N * x.dim
        tl.store(where + states * x.dim + channels[:, None, :], state,
                 mask=channels[:, None, :] < x.dim)  # fmt: skip
        u, _, size, inside = inputs_at(x, row, first, end, channels, T, SOFTPLUS)
        if ADJOINT:
            _, inner, _ = _gated(x, dy, row, first, channels, inside, T)
            drive = inner[:, :, None, :] * vectors(x.C, row, first, end, x.state, T, N)
        else:
            drive = (size * u)[:, :, None, :] * vectors(x.B, row, first, end, x.state, T, N)
        decay = tl.exp2(size[:, :, None, :] * decays[None])
        _, state = entering(decay, drive, state, T, BACK, ADJOINT)


@triton.jit
@no_type_check
def _edges(
    x, dy, edges, slots,
    DIRECTIONS: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, SPAN: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """All sweeps side by side: of each direction the scan, then the adjoint, from the other end."""
    for kind in tl.static_range(2 * DIRECTIONS):
        if tl.program_id(2) == kind:
            back = (REVERSE + kind // 2 + kind % 2) % 2 == 1
            _sweep(x, dy, edges, slots, kind // 2, kind % 2, back, SOFTPLUS, SPAN, T, K, N, E)


@triton.jit
@no_type_check
def _direction(
    A, edge, size, u, inner, B, C, channels, dim, line,
    BACK: tl.constexpr, T: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """What one direction of a chunk adds to each gradient.

    Returns:
        Output; gradients of size * u, of the size by way of the decay, of B, of C, of A.
    """
    states = tl.arange(0, N)[None, :, None]
    channel = channels[:, None, :]
    where = edge + states * dim + channel
    state = tl.load(where, mask=channel < dim, other=0.0)
    adjoint = tl.load(where + line, mask=channel < dim, other=0.0)
    size, drive, inner = size[:, :, None, :], (size * u)[:, :, None, :], inner[:, :, None, :]
    decay = tl.exp2(size * (A * LOG2_E)[None])
    before, _ = entering(decay, drive * B, state, T, BACK, False)
    after, _ = entering(decay, inner * C, adjoint, T, not BACK, True)
    held = decay * before + drive * B
    pull = after + inner * C
    through = decay * pull * before
    to_B = tl.sum(tl.sum(pull * drive, axis=1), axis=2)
    to_C = tl.sum(tl.sum(held * inner, axis=1), axis=2)
    to_A = tl.sum(through * size, axis=0)
    out = tl.sum(held * C, axis=2)
    return out, tl.sum(pull * B, axis=2), tl.sum(through * A[None], axis=2), to_B, to_C, to_A


@triton.jit
@no_type_check
def _elementwise(
    x, out, y, to_x, to_size, u, raw, size, outer, inner, gate, row, first, channels, inside,
    T: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of u, delta and z; sums over steps of those of D and the bias."""
    steps = tl.arange(0, T)[:, None, None]
    to_u = to_x * size
    if x.D is not None:
        skip = parameter(x.D, channels, x.dim)
        to_u += skip * inner
        y += skip * u
    store(out.u, row, first, steps, channels[None], inside, to_u)
    to_delta = tl.where(inside, to_size + to_x * u, 0.0)
    if SOFTPLUS:
        to_delta *= sigmoid(raw)
    store(out.delta, row, first, steps, channels[None], inside, to_delta)
    if x.z is not None:
        open_ = sigmoid(gate)
        to_z = outer * y * open_ * (1.0 + gate * (1.0 - open_))
        store(out.z, row, first, steps, channels[None], inside, to_z)
    return tl.sum(inner * u, axis=0), tl.sum(to_delta, axis=0)


@triton.jit
@no_type_check
def _add_up(x, data, line, channels, value, N: tl.constexpr):
    """Write the gradient of A in one group of chunks."""
    states = tl.arange(0, N)[None, :, None]
    channel = channels[:, None, :]
    where = (tl.cast(line, tl.int64) * x.dim + channel) * x.state + states
    tl.store(data + where, value, mask=(channel < x.dim) & (states < x.state))


@triton.jit
@no_type_check
def _gradients(
    x, dy, edges, slots, out, clips, each,
    DIRECTIONS: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, SPAN: tl.constexpr,
    CLIPS: tl.constexpr, T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """All gradients of one group of chunks and block of channels."""
    block, slot = tl.program_id(0), tl.program_id(1)
    clip, group = clip_of(x.clips, slot, clips, each, T * SPAN, CLIPS)
    row, begin, end = bounds(x.clips, clip, x.length)
    channels = channels_of(K, E)
    count = tl.minimum(tl.cdiv(end - begin, T).to(tl.int32) - group * SPAN, SPAN)
    line = tl.cast(slots, tl.int64) * N * x.dim
    A = decays_of(x, channels, 0, N)
    A_back = decays_of(x, channels, DIRECTIONS - 1, N)
    steps, states = tl.arange(0, T), tl.arange(0, N)
    to_A = tl.zeros((K, N, E), tl.float32)
    to_A_back = tl.zeros((K, N, E), tl.float32)
    to_D = tl.zeros((K, E), tl.float32)
    to_bias = tl.zeros((K, E), tl.float32)
    for index in tl.range(0, count, num_stages=2):
        first = begin + (group * SPAN + index) * T
        edge = edges + tl.cast(slot * SPAN + index, tl.int64) * N * x.dim
        u, raw, size, inside = inputs_at(x, row, first, end, channels, T, SOFTPLUS)
        outer, inner, gate = _gated(x, dy, row, first, channels, inside, T)
        B = vectors(x.B, row, first, end, x.state, T, N)
        C = vectors(x.C, row, first, end, x.state, T, N)
        y, to_x, to_size, to_B, to_C, add = _direction(
            A, edge, size, u, inner, B, C, channels, x.dim, line, REVERSE, T, N
        )
        to_A += add
        if DIRECTIONS == 2:
            y_2, to_x_2, to_size_2, to_B_2, to_C_2, add = _direction(
                A_back, edge + 2 * line, size, u, inner, B, C, channels, x.dim, line,
                not REVERSE, T, N,
            )  # fmt: skip
            y, to_x, to_size = y + y_2, to_x + to_x_2, to_size + to_size_2
            to_B, to_C, to_A_back = to_B + to_B_2, to_C + to_C_2, to_A_back + add
        add_D, add_bias = _elementwise(
            x, out, y, to_x, to_size, u, raw, size, outer, inner, gate, row, first, channels,
            inside, T, SOFTPLUS,
        )  # fmt: skip
        to_D += add_D
        to_bias += add_bias
        rows, inside = steps[:, None], (first + steps[:, None] < end) & (states[None] < x.state)
        store(out.B, block, row * x.length + first, rows, states[None], inside, to_B)
        store(out.C, block, row * x.length + first, rows, states[None], inside, to_C)
    _add_up(x, out.A, slot * DIRECTIONS, channels, to_A, N)
    if DIRECTIONS == 2:
        _add_up(x, out.A, slot * DIRECTIONS + 1, channels, to_A_back, N)
    tl.store(out.D + slot * x.dim + channels, to_D, mask=channels < x.dim)
    tl.store(out.bias + slot * x.dim + channels, to_bias, mask=channels < x.dim)


def gradients(dy: Tensor, operands: Operands) -> Gradients:
    """Gradients of the scan's inputs, each in the number format of its input.

    Args:
        dy: gradient of the output.
        operands: what the output was made of.

    Raises:
        InputError: float64.
    """
    x, tile = inputs_of(operands), tile_of(operands, 64)
    batch, length, dim = operands.u.shape
    clips = clip_count(dy, operands.cu_seqlens)
    each = triton.cdiv(length, tile.T * SPAN)
    groups = batch * each if x.clips is None else length // (tile.T * SPAN) + clips
    blocks = triton.cdiv(dim, tile.K * tile.E)
    directions = x.A.shape[0]
    new = partial(torch.empty, dtype=torch.float32, device=dy.device)
    edges = new(2 * directions, groups * SPAN, tile.N, dim)
    B, C = new(2, blocks, batch * length, x.state)
    A, D, bias = new(groups, directions, dim, x.state), new(groups, dim), new(groups, dim)
    u, delta, z = (_like(like) for like in (operands.u, operands.delta, operands.z))
    out = Outputs(view(u), view(delta), view(z), view(B), view(C), A, D, bias)
    shared = {
        "x": x, "dy": view(dy), "edges": edges, "slots": groups * SPAN, "SPAN": SPAN,
        "DIRECTIONS": directions, "REVERSE": operands.reverse, "SOFTPLUS": operands.delta_softplus,
        **tile._asdict(),
    }  # fmt: skip
    launch(_edges, (blocks, clips, 2 * directions), dy.device, **shared)
    launch(
        _gradients, (blocks, groups), dy.device, out=out, clips=clips, each=each,
        CLIPS=triton.next_power_of_2(clips), **shared,
    )  # fmt: skip
    shape = (batch, length, x.state)
    to_A = A.sum(0)
    return Gradients(
        u=u,
        delta=delta,
        A=to_A[0].to(operands.A.dtype),
        B=B.sum(0).view(shape).to(operands.B.dtype),
        C=C.sum(0).view(shape).to(operands.C.dtype),
        D=_as(operands.D, directions * D.sum(0)),
        z=z,
        delta_bias=_as(operands.delta_bias, bias.sum(0)),
        A_back=_as(operands.A_back, to_A[-1]),
    )


def _as(like: Tensor | None, total: Tensor) -> Tensor | None:
    """A gradient in the number format of its input; None where there is no input."""
    return None if like is None else total.to(like.dtype)


def _like(x: Tensor | None) -> Tensor | None:
    """Room for the gradient of a sequence."""
    return None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
