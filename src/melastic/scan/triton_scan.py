"""The selective scan on CUDA, in Triton.

A program runs through one clip with the states of its channels in registers, a tile of steps at a
time, while the next tile is on its way; a second direction is a second run, whose output the first
adds to its own. The gradients are in :mod:`melastic.scan.triton_adjoint`.

Checked in Triton's interpreter, and compiled for an H100, on which it has not run yet.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from melastic.scan import triton_adjoint
from melastic.scan.operands import Gradients, Operands
from melastic.scan.triton_math import LOG2_E, decayed, power_of_2, sigmoid
from melastic.scan.triton_tiles import (
    arguments_of,
    bounds,
    channels_of,
    clip_count,
    decays_of,
    entering,
    launch,
    load,
    parameter,
    sizes_at,
    store,
    tile_of,
    vectors_at,
    view,
)

ELEMENTS = 64
"""Of a tile in each lane; twice as many registers are in use."""


@triton.jit(do_not_specialize=("length",))
@no_type_check
def _forward(
    u, delta, B, C, z, x, length, partial, y,
    DIRECTION: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Output of one clip and block of channels, added to that of the other direction."""
    row, begin, end = bounds(x.clips, tl.program_id(1), length)
    channels = channels_of(K, E)
    decays = decays_of(x, channels, DIRECTION, N) * LOG2_E
    skip, bias = parameter(x.D, channels, x.dim), parameter(x.bias, channels, x.dim)
    state = tl.zeros((K, N, E), tl.float32)
    count = tl.cdiv(end - begin, T).to(tl.int32)
    steps = tl.arange(0, T)[:, None, None]
    EXACT: tl.constexpr = u.data.dtype.element_ty == tl.float32
    for index in tl.range(0, count, num_stages=2):
        first = begin + (count - 1 - index if REVERSE else index) * T
        given, _, size, inside = sizes_at(
            u, delta, x, bias, row, first, end, channels, T, SOFTPLUS
        )  # fmt: skip
        write = vectors_at(B, x, row, first, end, T, N)
        read = vectors_at(C, x, row, first, end, T, N)
        scale, part = power_of_2(size[:, :, None, :] * decays[None], EXACT)
        drive = (size * given)[:, :, None, :] * write
        held, state = entering(scale, part, drive, state, T, REVERSE, False, EXACT)
        out = tl.sum(decayed(held, scale, part, drive, EXACT) * read, axis=2) + skip * given
        if partial is not None:
            out += load(partial, row, first, steps, channels[None], inside)
        if z is not None:
            gate = load(z, row, first, steps, channels[None], inside)
            out *= gate * sigmoid(gate)
        store(y, row, first, steps, channels[None], inside, out)


def forward(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Output of the scan, in the number format of u.

    Args:
        operands: on CUDA, or on the CPU in Triton's interpreter; float32, bfloat16 or float16.

    Raises:
        InputError: float64.
    """
    given, tile = arguments_of(operands), tile_of(operands, ELEMENTS)
    y = torch.empty_like(operands.u)
    clips = clip_count(y, operands.cu_seqlens)
    grid = (triton.cdiv(y.shape[2], tile.K * tile.E), clips)
    given |= tile._asdict() | {"partial": None}
    if operands.A_back is not None:
        other = view(torch.empty(y.shape, dtype=torch.float32, device=y.device))
        ungated = given | {"z": None, "x": given["x"]._replace(D=None), "y": other}
        reverse = not operands.reverse
        launch(_forward, grid, y.device, **ungated, DIRECTION=1, REVERSE=reverse)
        given["partial"] = other
    given["y"] = view(y)
    launch(_forward, grid, y.device, **given, DIRECTION=0, REVERSE=operands.reverse)
    return y


def backward(dy: Float[Tensor, "batch length dim"], operands: Operands) -> Gradients:
    """Gradients of the scan's inputs, each in the number format of its input.

    Args:
        dy: gradient of the output.
        operands: what the output was made of.

    Raises:
        InputError: float64.
    """
    return triton_adjoint.gradients(dy, operands)
