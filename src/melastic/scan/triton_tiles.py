"""What the Triton kernels share: clips, tiles, and a recurrence over the rows of a tile.

A program is one warp and works on a tile of (step, group, state, lane) for the channels
``8 group + lane``: its lanes lie 8 along the channels and 4 along the states, so that sums over
either cross few of them, and all steps of a state are in the registers of one. Steps outside the
clip have step size 0 and input 0 and leave the state as it is.
"""

from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from melastic.errors import InputError
from melastic.scan.operands import Operands
from melastic.scan.triton_math import decayed, softplus

LANES = 8
"""Channels side by side in a warp, 4 times over: its lanes lie along the states too."""
PROGRAMS = 1024
"""As many are wanted, two for each of an H100's schedulers, before each gets more channels."""


class View(NamedTuple):
    """A channels-last tensor of any strides, as a kernel takes it."""

    data: Tensor
    row: int
    """From one row of the batch to the next, as all of these in elements."""
    step: int
    channel: int


def view(x: Tensor | None) -> View | None:
    """Strides beside the tensor; None stays None.

    Args:
        x: batch, length, channels.
    """
    return None if x is None else View(x, *x.stride())


def small(x: Tensor | None) -> Tensor | None:
    """A parameter as the kernels read it: float32, contiguous.

    Args:
        x: of any shape; None stays None.
    """
    return None if x is None else x.to(torch.float32).contiguous()


def borders(cu_seqlens: Tensor | None, x: Tensor) -> Tensor | None:
    """Borders of clips as the kernels read them: on the device of the input, contiguous.

    Args:
        cu_seqlens: where clips begin and end; None stays None.
        x: the input.
    """
    return None if cu_seqlens is None else cu_seqlens.to(x.device).contiguous()


def no_float64(x: Tensor) -> None:
    """Refuse what the kernels would round.

    Args:
        x: an input.

    Raises:
        InputError: it is in float64.
    """
    if x.dtype == torch.float64:
        raise InputError("Triton kernels compute in float32; convert float64 inputs with .float()")


def clip_count(x: Tensor, cu_seqlens: Tensor | None) -> int:
    """How many clips there are.

    Args:
        x: batch, length, channels.
        cu_seqlens: where each begins; None: one in each row.
    """
    return x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


class Shared(NamedTuple):
    """What all kernels need beside the sequences and their length."""

    A: Tensor
    """Of each direction: (directions, dim, state)."""
    D: Tensor | None
    """Of all directions together."""
    bias: Tensor | None
    clips: Tensor | None
    dim: int
    state: int


class Tile(NamedTuple):
    """Shape of a tile; all but N are free, and change nothing but the speed."""

    T: int
    """Steps."""
    K: int
    """Groups of channels: each lane has one channel of each group."""
    N: int
    """States, padded to a power of two."""
    E: int
    """Channels of a group."""


def tile_of(operands: Operands, elements: int) -> Tile:
    """Shape of the tiles: wide where that leaves enough programs to fill a GPU.

    Args:
        operands: of the scan.
        elements: of a tile, in each lane; they lie in registers, several times over.
    """
    states = max(32 // LANES, triton.next_power_of_2(operands.A.shape[1]))
    clips = clip_count(operands.u, operands.cu_seqlens)
    groups = max(1, min(4, elements // states))
    while groups > 1 and clips * triton.cdiv(operands.u.shape[2], LANES * groups) < PROGRAMS:
        groups //= 2
    steps = max(1, min(16, elements * 32 // (groups * states * LANES)))
    return Tile(steps, groups, states, LANES)


def arguments_of(operands: Operands) -> dict[str, Any]:
    """Operands as the kernels take them: strides of the sequences, parameters in float32.

    The views are not put into one tuple: Triton 3.6 loses strides of 1 in a tuple of tuples.

    Args:
        operands: of the scan.

    Raises:
        InputError: float64.
    """
    no_float64(operands.u)
    A, back, D = operands.A.to(torch.float32), operands.A_back, small(operands.D)
    sequences = ("u", "delta", "B", "C", "z")
    return {name: view(getattr(operands, name)) for name in sequences} | {
        "x": Shared(
            A=A[None].contiguous() if back is None else torch.stack([A, back.to(torch.float32)]),
            D=D if D is None or back is None else 2 * D,
            bias=small(operands.delta_bias),
            clips=borders(operands.cu_seqlens, operands.u),
            dim=operands.u.shape[2],
            state=operands.A.shape[1],
        ),
        "length": operands.u.shape[1],
        "SOFTPLUS": operands.delta_softplus,
    }


def launch(kernel: Any, grid: tuple[int, ...], device: torch.device, **arguments: Any) -> None:
    """Run a kernel of one warp a program on the device of its tensors.

    Args:
        kernel: of this package.
        grid: programs; none are run where a side is 0.
        device: of the tensors.
        **arguments: of the kernel, by name.
    """
    if 0 in grid:
        return
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernel[grid](**arguments, num_warps=1)
    else:
        kernel[grid](**arguments)


@triton.jit
@no_type_check
def bounds(clips, clip, length):
    """Row of a clip, and where in it the clip begins and ends."""
    index = tl.cast(clip, tl.int64)
    if clips is None:
        row = index
        begin = index * 0
        end = begin + length
    else:
        row = index * 0
        begin = tl.load(clips + index).to(tl.int64)
        end = tl.load(clips + index + 1).to(tl.int64)
    return row, begin, end


@triton.jit
@no_type_check
def first_group(clips, clip, begin, length, SPAN: tl.constexpr):
    """Number of a clip's first group of SPAN steps; clips have at least as many as they need."""
    return clip * tl.cdiv(length, SPAN) if clips is None else (begin // SPAN).to(tl.int32) + clip


@triton.jit
@no_type_check
def clip_of(clips, group, count, length, SPAN: tl.constexpr, CLIPS: tl.constexpr):
    """Clip to which a group belongs, of so many clips, padded to CLIPS."""
    if clips is None:
        clip = group // tl.cdiv(length, SPAN)
    else:
        index = tl.arange(0, CLIPS)
        begins = tl.load(clips + index, mask=index < count, other=0).to(tl.int64)
        before = first_group(clips, index, begins, length, SPAN) <= group
        clip = tl.sum((before & (index < count)).to(tl.int32)) - 1
    return clip


@triton.jit
@no_type_check
def load(x, row, first, steps, channels, inside):
    """Elements of a view as float32, 0 outside."""
    origin = x.data + row * x.row + first * x.step
    where = steps * x.step + channels * x.channel
    return tl.load(origin + where, mask=inside, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def store(x, row, first, steps, channels, inside, value):
    """Write elements of a view in its own format."""
    origin = x.data + row * x.row + first * x.step
    where = steps * x.step + channels * x.channel
    tl.store(origin + where, value.to(x.data.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def once(x):
    """The same numbers, by a sum over an axis of one that layouts do not pass.

    Without it, what x is made of would be computed anew in each lane along the states.
    """
    return tl.sum(x[None], axis=0)


@triton.jit
@no_type_check
def entering(
    scale, part, drive, state,
    STEPS: tl.constexpr, BACK: tl.constexpr, ADJOINT: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """State that enters each step of a tile, and the one that leaves the last.

    ``state = decay * state + drive``; ADJOINT: ``decay * (state + drive)``; BACK: last step first;
    a decay is ``scale * (1 + part)``, and the part is 0 unless EXACT.
    A step is picked out of a tile by a sum of the bits of all steps, those of the others being 0: a
    lane holds all steps, so that the compiler turns the sum into the name of a register.
    """
    rows = tl.arange(0, STEPS)[:, None, None, None]
    held = tl.zeros(scale.shape, tl.float32)
    scale, part = scale.to(tl.int32, bitcast=True), part.to(tl.int32, bitcast=True)
    drive = drive.to(tl.int32, bitcast=True)
    for index in tl.static_range(STEPS):
        here = rows == (STEPS - 1 - index if BACK else index)
        held = tl.where(here, state[None], held)
        factor = tl.sum(tl.where(here, scale, 0), axis=0).to(tl.float32, bitcast=True)
        more = tl.sum(tl.where(here, part, 0), axis=0).to(tl.float32, bitcast=True)
        term = tl.sum(tl.where(here, drive, 0), axis=0).to(tl.float32, bitcast=True)
        if ADJOINT:
            state = decayed(state + term, factor, more, 0.0, EXACT)
        else:
            state = decayed(state, factor, more, term, EXACT)
    return held, state


@triton.jit
@no_type_check
def channels_of(K: tl.constexpr, E: tl.constexpr):
    """Channels of this program, (group, lane)."""
    groups = tl.program_id(0) * K + tl.arange(0, K)
    return groups[:, None] * E + tl.arange(0, E)[None, :]


@triton.jit
@no_type_check
def decays_of(x, channels, direction, N: tl.constexpr):
    """A of the program's channels, (group, state, lane)."""
    states = tl.arange(0, N)[None, :, None]
    channel = channels[:, None, :]
    where = (direction * x.dim + channel) * x.state + states
    return tl.load(x.A + where, mask=(channel < x.dim) & (states < x.state), other=0.0)


@triton.jit
@no_type_check
def parameter(data, channels, dim):
    """A parameter of each channel, (1, group, lane); 0 where there is none."""
    if data is None:
        values = tl.zeros(channels.shape, tl.float32)
    else:
        values = tl.load(data + channels, mask=channels < dim, other=0.0)
    return values[None]


@triton.jit
@no_type_check
def sizes_at(u, delta, x, bias, row, first, end, channels, T: tl.constexpr, SOFTPLUS: tl.constexpr):
    """Input, step size before and after its softplus, and what is inside: (step, group, lane)."""
    steps = tl.arange(0, T)[:, None, None]
    inside = (first + steps < end) & (channels < x.dim)[None]
    given = load(u, row, first, steps, channels[None], inside)
    raw = load(delta, row, first, steps, channels[None], inside) + bias
    size = softplus(raw) if SOFTPLUS else raw
    return given, raw, once(tl.where(inside, size, 0.0)), inside


@triton.jit
@no_type_check
def vectors_at(data, x, row, first, end, T: tl.constexpr, N: tl.constexpr):
    """B or C, (step, 1, state, 1)."""
    steps = tl.arange(0, T)[:, None]
    states = tl.arange(0, N)[None, :]
    inside = (first + steps < end) & (states < x.state)
    return load(data, row, first, steps, states, inside)[:, None, :, None]
