"""The selective scan on CUDA, in Triton: one pass forward, two backward.

Forward, a program runs through one clip with the states of its channels in registers. Backward, the
states that enter each chunk of steps are computed first, those of the scan and those of its adjoint,
which runs from the other end; then each chunk stands by itself, and both directions of a chunk are
differentiated together. Sums over channels, chunks and clips go through float32 buffers in a fixed
order, so that results are the same on every run.

Checked in Triton's interpreter and compiled for an H100, which it has not run on yet.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from melastic.scan import triton_adjoint
from melastic.scan.operands import Gradients, Operands
from melastic.scan.triton_tiles import (
    LOG2_E,
    bounds,
    channels_of,
    clip_count,
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


@triton.jit
@no_type_check
def _forward(
    x, partial, y,
    DIRECTION: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Output of one clip and block of channels, added to that of the other direction."""
    row, begin, end = bounds(x.clips, tl.program_id(1), x.length)
    channels = channels_of(K, E)
    decays = decays_of(x, channels, DIRECTION, N) * LOG2_E
    state = tl.zeros((K, N, E), tl.float32)
    count = tl.cdiv(end - begin, T).to(tl.int32)
    steps = tl.arange(0, T)[:, None, None]
    for index in tl.range(0, count, num_stages=2):
        first = begin + (count - 1 - index if REVERSE else index) * T
        u, _, size, inside = inputs_at(x, row, first, end, channels, T, SOFTPLUS)
        B = vectors(x.B, row, first, end, x.state, T, N)
        C = vectors(x.C, row, first, end, x.state, T, N)
        decay = tl.exp2(size[:, :, None, :] * decays[None])
        drive = (size * u)[:, :, None, :] * B
        held, state = entering(decay, drive, state, T, REVERSE, False)
        out = tl.sum((decay * held + drive) * C, axis=2)
        if partial is not None:
            out += load(partial, row, first, steps, channels[None], inside)
        if x.D is not None:
            out += parameter(x.D, channels, x.dim) * u
        if x.z is not None:
            gate = load(x.z, row, first, steps, channels[None], inside)
            out *= gate * sigmoid(gate)
        store(y, row, first, steps, channels[None], inside, out)


def forward(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Output of the scan, in the number format of u.

    Args:
        operands: on CUDA, or on the CPU in Triton's interpreter; float32, bfloat16 or float16.

    Raises:
        InputError: float64.
    """
    x, tile = inputs_of(operands), tile_of(operands, 32)
    grid = (
        triton.cdiv(x.dim, tile.K * tile.E),
        clip_count(operands.u, operands.cu_seqlens),
    )
    y = torch.empty(operands.u.shape, dtype=operands.u.dtype, device=operands.u.device)
    options = {"SOFTPLUS": operands.delta_softplus, **tile._asdict()}
    partial = None
    if operands.A_back is not None:
        partial = view(torch.empty(y.shape, dtype=torch.float32, device=y.device))
        launch(
            _forward, grid, y.device, x=x._replace(z=None, D=None), partial=None, y=partial,
            DIRECTION=1, REVERSE=not operands.reverse, **options,
        )  # fmt: skip
    launch(
        _forward, grid, y.device, x=x, partial=partial, y=view(y),
        DIRECTION=0, REVERSE=operands.reverse, **options,
    )  # fmt: skip
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
