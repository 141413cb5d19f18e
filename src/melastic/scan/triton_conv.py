"""Causal depthwise convolution and SiLU on CUDA, in Triton; it stops at the borders of clips.

A program reads its inputs once for each tap, from the cache after the first time, and writes what
it made of them; backward, what goes into SiLU is computed again. Sums over time go through float32
buffers in a fixed order, so that results are the same on every run.

Checked in Triton's interpreter, and compiled for an H100, on which it has not run yet.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from melastic.scan.triton_math import sigmoid
from melastic.scan.triton_tiles import (
    borders,
    bounds,
    clip_count,
    clip_of,
    first_group,
    launch,
    load,
    no_float64,
    small,
    store,
    view,
)

STEPS, CHANNELS = 16, 64
"""Of a tile."""
SPAN = 8
"""Tiles that one program works through."""


@triton.jit
@no_type_check
def _taps(x, weight, bias, row, first, begin, end, at, channels, there, SIGN: tl.constexpr,
          W: tl.constexpr):  # fmt: skip
    """What goes into SiLU, ``at`` steps after the first, (step, channel)."""
    total = tl.load(bias + channels, mask=there, other=0.0) + tl.zeros(at.shape, tl.float32)
    for k in tl.static_range(W):
        place = at + SIGN * (k - (W - 1))
        inside = (first + place >= begin) & (first + place < end) & there
        tap = tl.load(weight + channels * W + k, mask=there, other=0.0)
        total += tap * load(x, row, first, place, channels, inside)
    return total


@triton.jit(do_not_specialize=("length", "count"))
@no_type_check
def _forward(
    x, weight, bias, y, clips, length, dim, count,
    SIGN: tl.constexpr, W: tl.constexpr, SPAN: tl.constexpr, CLIPS: tl.constexpr,
    T: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Output of a few tiles of one clip."""
    group = tl.program_id(1)
    clip = clip_of(clips, group, count, length, T * SPAN, CLIPS)
    row, begin, end = bounds(clips, clip, length)
    begin_here = begin + (group - first_group(clips, clip, begin, length, T * SPAN)) * T * SPAN
    channels = tl.program_id(0) * E + tl.arange(0, E)[None, :]
    there, steps = channels < dim, tl.arange(0, T)[:, None]
    for index in tl.range(0, tl.minimum(tl.cdiv(end - begin_here, T), SPAN).to(tl.int32)):
        first = begin_here + index * T
        out = _taps(x, weight, bias, row, first, begin, end, steps, channels, there, SIGN, W)
        inside = (first + steps < end) & there
        store(y, row, first, steps, channels, inside, out * sigmoid(out))


@triton.jit(do_not_specialize=("length", "count"))
@no_type_check
def _backward(
    x, weight, bias, dy, dx, sums, clips, length, dim, count,
    SIGN: tl.constexpr, W: tl.constexpr, SPAN: tl.constexpr, CLIPS: tl.constexpr,
    T: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradient of the input of a few tiles; their share of those of the taps and the bias."""
    group = tl.program_id(1)
    clip = clip_of(clips, group, count, length, T * SPAN, CLIPS)
    row, begin, end = bounds(clips, clip, length)
    begin_here = begin + (group - first_group(clips, clip, begin, length, T * SPAN)) * T * SPAN
    channels = tl.program_id(0) * E + tl.arange(0, E)[None, :]
    there, steps = channels < dim, tl.arange(0, T)[:, None]
    rows, total = tl.arange(0, ROWS)[:, None], tl.zeros((ROWS, E), tl.float32)
    for index in tl.range(0, tl.minimum(tl.cdiv(end - begin_here, T), SPAN).to(tl.int32)):
        first = begin_here + index * T
        inside = (first + steps < end) & there
        given = load(x, row, first, steps, channels, inside)
        to_x = tl.zeros((T, E), tl.float32)
        for k in tl.static_range(W):
            at = steps - SIGN * (k - (W - 1))
            held = (first + at >= begin) & (first + at < end) & there
            pre = _taps(x, weight, bias, row, first, begin, end, at, channels, there, SIGN, W)
            ajar = sigmoid(pre)
            pull = load(dy, row, first, at, channels, held) * ajar * (1.0 + pre * (1.0 - ajar))
            to_x += tl.load(weight + channels * W + k, mask=there, other=0.0) * pull
            total += tl.where(rows == k, tl.sum(pull * given, axis=0)[None, :], 0.0)
            if k == W - 1:
                total += tl.where(rows == W, tl.sum(pull, axis=0)[None, :], 0.0)
        store(dx, row, first, steps, channels, inside, to_x)
    where = (tl.cast(group, tl.int64) * (W + 1) + rows) * dim + channels
    tl.store(sums + where, total, mask=(rows <= W) & there)


def forward(
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None = None,
    reverse: bool = False,
) -> Float[Tensor, "batch length dim"]:
    """``SiLU(bias + sum_k weight[k] x[t - (width - 1) + k])``, zero outside the clip.

    Args:
        x: input; any strides; float32, bfloat16 or float16.
        weight: taps of each channel, the last one of the present step.
        bias: of each channel.
        cu_seqlens: where clips begin and end, batch 1; None: each row is one clip.
        reverse: whether the taps reach into the future instead: ``x[t + (width - 1) - k]``.

    Raises:
        InputError: float64.
    """
    grid, arguments = _call(x, weight, bias, cu_seqlens, reverse)
    y = torch.empty_like(x)
    launch(_forward, grid, x.device, **arguments, y=view(y))
    return y


def backward(
    dy: Float[Tensor, "batch length dim"],
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "batch length dim"], Float[Tensor, "dim width"], Float[Tensor, " dim"]]:
    """Gradients of input, taps and bias, each in the number format of its input.

    Args:
        dy: gradient of the output.
        x: input.
        weight: taps of each channel.
        bias: of each channel.
        cu_seqlens: where clips begin and end; None: each row is one clip.
        reverse: whether the taps reach into the future.

    Raises:
        InputError: float64.
    """
    grid, arguments = _call(x, weight, bias, cu_seqlens, reverse)
    width, dx = weight.shape[1], torch.empty_like(x)
    sums = torch.empty(grid[1], width + 1, x.shape[2], dtype=torch.float32, device=x.device)
    rows = triton.next_power_of_2(width + 1)
    launch(
        _backward, grid, x.device, **arguments, dy=view(dy), dx=view(dx), sums=sums, ROWS=rows
    )  # fmt: skip
    total = sums.sum(0)
    return dx, total[:width].t().contiguous().to(weight.dtype), total[width].to(bias.dtype)


def _call(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor | None, reverse: bool
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs, and what both kernels are called with."""
    no_float64(x)
    (batch, length, dim), clips = x.shape, clip_count(x, cu_seqlens)
    span = STEPS * SPAN
    groups = batch * triton.cdiv(length, span) if cu_seqlens is None else length // span + clips
    return (triton.cdiv(dim, CHANNELS), groups), {
        "x": view(x), "weight": small(weight), "bias": small(bias), "clips": borders(cu_seqlens, x),
        "length": length, "dim": dim, "count": clips, "SIGN": -1 if reverse else 1,
        "W": weight.shape[1], "SPAN": SPAN, "CLIPS": triton.next_power_of_2(clips),
        "T": STEPS, "E": CHANNELS,
    }  # fmt: skip
