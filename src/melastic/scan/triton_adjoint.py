"""The gradients of a selective scan on CUDA, in Triton.

First the states that enter each chunk of steps, those of the scan and those of its adjoint, which
runs from the other end. Then each group of chunks stands by itself, and both directions of a chunk
are differentiated together. Sums over channels, groups and clips go through float32 buffers in a
fixed order, so that results are the same on every run.

Checked in Triton's interpreter, and compiled for an H100, on which it has not run yet.
"""

from functools import partial
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from melastic.scan.operands import Gradients, Operands
from melastic.scan.triton_math import LOG2_E, decayed, power_of_2, sigmoid
from melastic.scan.triton_tiles import (
    arguments_of,
    bounds,
    channels_of,
    clip_count,
    clip_of,
    decays_of,
    entering,
    first_group,
    launch,
    load,
    once,
    parameter,
    sizes_at,
    store,
    tile_of,
    vectors_at,
    view,
)

ELEMENTS = 32
"""Of a tile in each lane; nearly eight times as many registers are in use."""
SPAN = 8
"""Chunks of a group, whose gradients of A, D and the bias one program adds up."""


@triton.jit
@no_type_check
def _gated(dy, z, row, first, channels, inside, T: tl.constexpr):
    """Gradient of the output before and after its way back through the gate, and the gate."""
    steps = tl.arange(0, T)[:, None, None]
    outer = load(dy, row, first, steps, channels[None], inside)
    inner, gate = outer, outer
    if z is not None:
        gate = load(z, row, first, steps, channels[None], inside)
        inner = once(outer * gate * sigmoid(gate))
    return outer, inner, gate


@triton.jit
@no_type_check
def _edge(edges, slot, channels, dim, N: tl.constexpr):
    """Where the states at the edge of a chunk are, (group, state, lane)."""
    states = tl.arange(0, N)[None, :, None]
    return edges + tl.cast(slot, tl.int64) * N * dim + states * dim + channels[:, None, :]


@triton.jit
@no_type_check
def _sweep(
    u, delta, B, C, z, x, length, dy, few, many, groups,
    DIRECTION: tl.constexpr, ADJOINT: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr,
    SPAN: tl.constexpr, T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """States that enter each chunk of one clip, of a scan or of its adjoint.

    Where it runs as the first scan does, only those that enter the first chunk of each group.
    """
    row, begin, end = bounds(x.clips, tl.program_id(1), length)
    channels = channels_of(K, E)
    there = channels[:, None, :] < x.dim
    decays = decays_of(x, channels, DIRECTION, N) * LOG2_E
    bias = parameter(x.bias, channels, x.dim)
    state = tl.zeros((K, N, E), tl.float32)
    count = tl.cdiv(end - begin, T).to(tl.int32)
    EXACT: tl.constexpr = u.data.dtype.element_ty == tl.float32
    ALONG: tl.constexpr = (DIRECTION + ADJOINT) % 2 == 0
    BACK: tl.constexpr = REVERSE == ALONG
    group = DIRECTION * groups + first_group(x.clips, tl.program_id(1), begin, length, T * SPAN)
    for step in tl.range(0, count, num_stages=2):
        index = step if ALONG else count - 1 - step
        if not ALONG:
            tl.store(_edge(many, group * SPAN + index, channels, x.dim, N), state, mask=there)
        elif index % SPAN == 0:
            tl.store(_edge(few, group + index // SPAN, channels, x.dim, N), state, mask=there)
        first = begin + (count - 1 - index if REVERSE else index) * T
        given, _, size, inside = sizes_at(
            u, delta, x, bias, row, first, end, channels, T, SOFTPLUS
        )  # fmt: skip
        if ADJOINT:
            _, inner, _ = _gated(dy, z, row, first, channels, inside, T)
            drive = inner[:, :, None, :] * vectors_at(C, x, row, first, end, T, N)
        else:
            drive = (size * given)[:, :, None, :] * vectors_at(B, x, row, first, end, T, N)
        scale, part = power_of_2(size[:, :, None, :] * decays[None], EXACT)
        _, state = entering(scale, part, drive, state, T, BACK, ADJOINT, EXACT)


@triton.jit(do_not_specialize=("length", "groups"))
@no_type_check
def _edges(
    u, delta, B, C, z, x, length, dy, few, many, groups,
    DIRECTIONS: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, SPAN: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """All sweeps side by side: of each direction the scan, then the adjoint, from the other end."""
    for kind in tl.static_range(2 * DIRECTIONS):
        if tl.program_id(2) == kind:
            _sweep(
                u, delta, B, C, z, x, length, dy, few, many, groups,
                kind // 2, kind % 2, REVERSE, SOFTPLUS, SPAN, T, K, N, E,
            )  # fmt: skip


@triton.jit
@no_type_check
def _direction(
    A, state, adjoint, size, drive, pulled,
    BACK: tl.constexpr, EXACT: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """One direction of a chunk, of what drives its states and what pulls at them.

    Returns:
        States that leave it, of the scan and of the adjoint; of each step the state and its
        gradient; gradients of the step size by way of the decay, and of A.
    """
    scale, part = power_of_2(size * (A * LOG2_E)[None], EXACT)
    before, state = entering(scale, part, drive, state, T, BACK, False, EXACT)
    after, adjoint = entering(scale, part, pulled, adjoint, T, not BACK, True, EXACT)
    pull = after + pulled
    through = decayed(pull, scale, part, 0.0, EXACT) * before
    held = decayed(before, scale, part, drive, EXACT)
    to_size, to_A = tl.sum(through * A[None], axis=2), tl.sum(through * size, axis=0)
    return state, adjoint, held, pull, to_size, to_A


@triton.jit
@no_type_check
def _elementwise(
    du, ddelta, dz, out, to_drive, to_size, given, raw, size, outer, inner, gate, skip,
    row, first, channels, inside, T: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of u, delta and z; sums over steps of those of D and the bias.

    Outside the clip all are 0: there either no state arrives or no gradient.
    """
    steps = tl.arange(0, T)[:, None, None]
    store(du, row, first, steps, channels[None], inside, to_drive * size + skip * inner)
    to_delta = to_size + to_drive * given
    if SOFTPLUS:
        to_delta *= sigmoid(raw)
    store(ddelta, row, first, steps, channels[None], inside, to_delta)
    if dz is not None:
        ajar = sigmoid(gate)
        to_z = outer * (out + skip * given) * ajar * (1.0 + gate * (1.0 - ajar))
        store(dz, row, first, steps, channels[None], inside, to_z)
    return tl.sum(inner * given, axis=0), tl.sum(to_delta, axis=0)


@triton.jit
@no_type_check
def _state_at(edges, slot, channels, x, used, N: tl.constexpr):
    """States at the edge of a chunk, 0 where it is not used."""
    used = used & (channels[:, None, :] < x.dim)
    return tl.load(_edge(edges, slot, channels, x.dim, N), mask=used, other=0.0)


@triton.jit
@no_type_check
def _write_vectors(data, x, first, left, shares, T: tl.constexpr, N: tl.constexpr):
    """Write this block's share of the gradient of B or C: the sum of its channels'."""
    value = tl.sum(tl.sum(shares, axis=1), axis=2)
    steps, states = tl.arange(0, T)[:, None], tl.arange(0, N)[None, :]
    inside = (steps < left) & (states < x.state)
    store(data, tl.program_id(0), first, steps, states, inside, value)


@triton.jit
@no_type_check
def _write_decays(dA, x, line, channels, value, N: tl.constexpr):
    """Write the gradient of A in one group of chunks."""
    states = tl.arange(0, N)[None, :, None]
    channel = channels[:, None, :]
    where = (tl.cast(line, tl.int64) * x.dim + channel) * x.state + states
    tl.store(dA + where, value, mask=(channel < x.dim) & (states < x.state))


@triton.jit(do_not_specialize=("length", "groups", "count"))
@no_type_check
def _gradients(
    u, delta, B, C, z, x, length, dy, few, many, groups, count,
    du, ddelta, dz, dB, dC, dA, dD, dbias,
    DIRECTIONS: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, SPAN: tl.constexpr,
    CLIPS: tl.constexpr, T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """All gradients of one group of chunks and block of channels, in the first scan's order."""
    group = tl.program_id(1)
    clip = clip_of(x.clips, group, count, length, T * SPAN, CLIPS)
    row, begin, end = bounds(x.clips, clip, length)
    channels = channels_of(K, E)
    chunks = tl.cdiv(end - begin, T).to(tl.int32)
    number = (group - first_group(x.clips, clip, begin, length, T * SPAN)) * SPAN
    skip, bias = parameter(x.D, channels, x.dim), parameter(x.bias, channels, x.dim)
    A, A_back = decays_of(x, channels, 0, N), decays_of(x, channels, DIRECTIONS - 1, N)
    EXACT: tl.constexpr = u.data.dtype.element_ty == tl.float32
    sum_A, sum_A_back = tl.zeros((K, N, E), tl.float32), tl.zeros((K, N, E), tl.float32)
    sum_D, sum_bias = tl.zeros((K, E), tl.float32), tl.zeros((K, E), tl.float32)
    state = once(_state_at(few, group, channels, x, number < chunks, N))
    adjoint_2 = state
    if DIRECTIONS == 2:
        adjoint_2 = once(_state_at(few, group + groups, channels, x, number < chunks, N))
    for step in tl.range(0, tl.minimum(chunks - number, SPAN), num_stages=2):
        index = number + step
        first = begin + (chunks - 1 - index if REVERSE else index) * T
        given, raw, size, inside = sizes_at(
            u, delta, x, bias, row, first, end, channels, T, SOFTPLUS
        )  # fmt: skip
        outer, inner, gate = _gated(dy, z, row, first, channels, inside, T)
        write = vectors_at(B, x, row, first, end, T, N)
        read = vectors_at(C, x, row, first, end, T, N)
        long, pulls = size[:, :, None, :], inner[:, :, None, :]
        drives = (size * given)[:, :, None, :]
        adjoint = _state_at(many, group * SPAN + step, channels, x, True, N)
        state, _, held, pull, to_size, to_A = _direction(
            A, state, adjoint, long, drives * write, pulls * read, REVERSE, EXACT, T
        )
        sum_A += to_A
        if DIRECTIONS == 2:
            state_2 = _state_at(many, (groups + group) * SPAN + step, channels, x, True, N)
            _, adjoint_2, held_2, pull_2, to_size_2, to_A = _direction(
                A_back, state_2, adjoint_2, long, drives * write, pulls * read,
                not REVERSE, EXACT, T,
            )  # fmt: skip
            held, pull, to_size = held + held_2, pull + pull_2, to_size + to_size_2
            sum_A_back += to_A
        out, to_drive = tl.sum(held * read, axis=2), tl.sum(pull * write, axis=2)
        to_D, to_bias = _elementwise(
            du, ddelta, dz, out, to_drive, to_size, given, raw, size, outer, inner, gate, skip,
            row, first, channels, inside, T, SOFTPLUS,
        )  # fmt: skip
        sum_D, sum_bias = sum_D + to_D, sum_bias + to_bias
        _write_vectors(dB, x, row * length + first, end - first, pull * drives, T, N)
        _write_vectors(dC, x, row * length + first, end - first, held * pulls, T, N)
    _write_decays(dA, x, group * DIRECTIONS, channels, sum_A, N)
    if DIRECTIONS == 2:
        _write_decays(dA, x, group * DIRECTIONS + 1, channels, sum_A_back, N)
    tl.store(dD + group * x.dim + channels, sum_D, mask=channels < x.dim)
    tl.store(dbias + group * x.dim + channels, sum_bias, mask=channels < x.dim)


def gradients(dy: Tensor, operands: Operands) -> Gradients:
    """Gradients of the scan's inputs, each in the number format of its input.

    Args:
        dy: gradient of the output.
        operands: what the output was made of.

    Raises:
        InputError: float64.
    """
    given, tile = arguments_of(operands), tile_of(operands, ELEMENTS)
    (batch, length, dim), state = operands.u.shape, operands.A.shape[1]
    clips, whole = clip_count(dy, operands.cu_seqlens), operands.cu_seqlens is None
    span = tile.T * SPAN
    groups = batch * triton.cdiv(length, span) if whole else length // span + clips
    blocks = triton.cdiv(dim, tile.K * tile.E)
    directions = 1 if operands.A_back is None else 2
    new = partial(torch.empty, dtype=torch.float32, device=dy.device)
    few, many = (new(directions, n, tile.N, dim) for n in (groups, groups * SPAN))
    dB, dC = new(2, blocks, batch * length, state)
    dA, dD, dbias = new(groups, directions, dim, state), new(groups, dim), new(groups, dim)
    du, ddelta = torch.empty_like(operands.u), torch.empty_like(operands.delta)
    dz = None if operands.z is None else torch.empty_like(operands.z)
    given |= tile._asdict() | {
        "dy": view(dy), "few": few, "many": many, "groups": groups, "DIRECTIONS": directions,
        "REVERSE": operands.reverse, "SPAN": SPAN,
    }  # fmt: skip
    launch(_edges, (blocks, clips, 2 * directions), dy.device, **given)
    launch(
        _gradients, (blocks, groups), dy.device, **given, du=view(du), ddelta=view(ddelta),
        dz=view(dz), dB=view(dB), dC=view(dC), dA=dA, dD=dD, dbias=dbias, count=clips,
        CLIPS=triton.next_power_of_2(clips),
    )  # fmt: skip
    to_A = dA.sum(0)
    return Gradients(
        u=du,
        delta=ddelta,
        A=to_A[0].to(operands.A.dtype),
        B=dB.sum(0).view(batch, length, state).to(operands.B.dtype),
        C=dC.sum(0).view(batch, length, state).to(operands.C.dtype),
        D=_as(operands.D, directions * dD.sum(0)),
        z=dz,
        delta_bias=_as(operands.delta_bias, dbias.sum(0)),
        A_back=_as(operands.A_back, to_A[-1]),
    )


def _as(like: Tensor | None, total: Tensor) -> Tensor | None:
    """A gradient in the number format of its input; None where there is no input."""
    return None if like is None else total.to(like.dtype)
