"""The selective scan and the convolution in front of it, by the compiled kernels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melastic.native.calls import DTYPES, call
from melastic.native.library import Clips, ConvArguments, ScanArguments, View
from melastic.scan.operands import Gradients, Operands

WIDEST = 8
"""Taps of a convolution at most."""
CHUNK = 16
"""Steps between two states that are kept: ``CHUNK`` of ``scan_forward.h``."""
TOGETHER = 16
"""Channels whose kept states lie together: ``TOGETHER`` of ``scan_forward.h``."""


def forward(
    operands: Operands,
    *,
    state_in: Float[Tensor, "clips dim state"] | None = None,
    state_out: Float[Tensor, "clips dim state"] | None = None,
    starts: Float[Tensor, "ways chunks blocks state together"] | None = None,
) -> Float[Tensor, "batch length dim"]:
    """Output of a scan; arguments as :class:`Operands` says.

    Args:
        operands: inputs, on the CPU.
        state_in: state in front of each clip; None: zero. One way only.
        state_out: the state behind each clip is written here (float32, contiguous).
        starts: the states in front of chunks are written here, see :func:`new_starts`.
    """
    y = torch.empty_like(operands.u)
    held: list[Tensor] = []
    arguments = _arguments(operands, held)
    arguments.y = _view(y)
    arguments.state_in = _table(state_in, held)
    arguments.state_out = None if state_out is None else state_out.data_ptr()
    arguments.starts = None if starts is None else starts.data_ptr()
    call("melastic_scan_forward", arguments)
    return y


def new_starts(operands: Operands) -> Float[Tensor, "ways chunks blocks state together"]:
    """Room for the states in front of chunks, which the backward pass needs not compute again.

    Args:
        operands: of a scan.
    """
    batch, length, dim = operands.u.shape
    ways = 1 if operands.A_back is None else 2
    chunks, state = batch * length // CHUNK + 2, operands.A.shape[1]  # never 1: export would fix it
    blocks = -(-dim // TOGETHER)
    shape = (ways, chunks, blocks, state, TOGETHER)
    fill = torch.zeros if dim % TOGETHER else torch.empty  # the kernel fills what blocks it has
    return fill(shape, dtype=torch.float32, device=operands.u.device)


def backward(
    dy: Float[Tensor, "batch length dim"],
    operands: Operands,
    starts: Float[Tensor, "ways chunks blocks state together"] | None = None,
) -> Gradients:
    """Gradients of a scan's inputs.

    Args:
        dy: gradient of the output.
        operands: inputs, on the CPU.
        starts: what the forward pass has written; None: it is computed again.
    """
    held: list[Tensor] = [dy]
    arguments = _arguments(operands, held)
    arguments.starts = None if starts is None else starts.data_ptr()
    u, z = operands.u, operands.z
    dim, state = operands.A.shape
    du, ddelta = torch.empty_like(u), torch.empty_like(operands.delta)
    dz = None if z is None else torch.empty_like(z)
    dB, dC = (_zeros(*u.shape[:2], state) for _ in range(2))
    dA, dA_back = (_zeros(dim, state) for _ in range(2))
    dD, dbias = (_zeros(dim) for _ in range(2))
    for name, value in (("y", dy), ("du", du), ("ddelta", ddelta), ("dz", dz)):
        if value is not None:
            setattr(arguments, name, _view(value))
    sums = {"dB": dB, "dC": dC, "dA": dA, "dA_back": dA_back, "dD": dD, "dbias": dbias}
    for name, value in sums.items():
        setattr(arguments, name, value.data_ptr())
    call("melastic_scan_backward", arguments)

    def like(gradient: Tensor, x: Tensor | None) -> Tensor | None:
        return None if x is None else _as(gradient, x)

    return Gradients(
        du,
        ddelta,
        _as(dA, operands.A),
        _as(dB, operands.B),
        _as(dC, operands.C),
        like(dD, operands.D),
        dz,
        like(dbias, operands.delta_bias),
        like(dA_back, operands.A_back),
    )


def convolve(
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None,
    reverse: bool,
) -> Float[Tensor, "batch length dim"]:
    """Causal depthwise convolution and SiLU, within each clip.

    Args:
        x: input, on the CPU.
        weight: taps of each channel, the last one of the present step.
        bias: of each channel.
        cu_seqlens: where clips begin and end; None: each row is one clip.
        reverse: whether the taps reach into the future.
    """
    y = torch.empty_like(x)
    held: list[Tensor] = []
    arguments = _conv_arguments(x, weight, bias, cu_seqlens, reverse, held)
    arguments.y = _view(y)
    call("melastic_convolve_forward", arguments)
    return y


def convolve_backward(
    dy: Float[Tensor, "batch length dim"],
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None,
    reverse: bool,
) -> tuple[Float[Tensor, "batch length dim"], Float[Tensor, "dim width"], Float[Tensor, " dim"]]:
    """Gradients of input, taps and bias.

    Args:
        dy: gradient of the output.
        x: input, on the CPU.
        weight: taps of each channel.
        bias: of each channel.
        cu_seqlens: where clips begin and end; None: each row is one clip.
        reverse: whether the taps reach into the future.
    """
    held: list[Tensor] = []
    arguments = _conv_arguments(x, weight, bias, cu_seqlens, reverse, held)
    dx = torch.empty_like(x)
    dweight, dbias = _zeros(*weight.shape), _zeros(*bias.shape)
    arguments.y, arguments.dx = _view(dy), _view(dx)
    arguments.dweight, arguments.dbias = dweight.data_ptr(), dbias.data_ptr()
    call("melastic_convolve_backward", arguments)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


def _zeros(*shape: int) -> Tensor:
    """What a kernel sums in, whatever the usual format and device are."""
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def _as(gradient: Tensor, x: Tensor) -> Tensor:
    """A gradient in the format and memory order of its input."""
    if gradient.dtype == x.dtype and x.is_contiguous():
        return gradient
    return torch.empty_like(x).copy_(gradient)


def _arguments(operands: Operands, held: list[Tensor]) -> ScanArguments:
    """What forward and backward share.

    Args:
        operands: inputs.
        held: tensors that must live until the kernel is done are put here.
    """
    arguments = ScanArguments()
    arguments.clips = _clips(operands.u, operands.cu_seqlens, held)
    arguments.dim, arguments.state = operands.A.shape
    for name in ("u", "delta", "B", "C", "z"):
        value = getattr(operands, name)
        if value is not None:
            setattr(arguments, name, _view(value))
    arguments.A = _table(operands.A, held)
    arguments.A_back = _table(operands.A_back, held)
    arguments.D = _table(operands.D, held)
    arguments.bias = _table(operands.delta_bias, held)
    arguments.softplus, arguments.reverse = operands.delta_softplus, operands.reverse
    arguments.threads = torch.get_num_threads()
    return arguments


def _conv_arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    cu_seqlens: Tensor | None,
    reverse: bool,
    held: list[Tensor],
) -> ConvArguments:
    """What both ways of the convolution share."""
    arguments = ConvArguments()
    arguments.clips = _clips(x, cu_seqlens, held)
    arguments.dim, arguments.width = weight.shape
    arguments.reverse, arguments.threads = reverse, torch.get_num_threads()
    arguments.x = _view(x)
    arguments.weight, arguments.bias = _table(weight, held), _table(bias, held)
    return arguments


def _clips(x: Tensor, cu_seqlens: Tensor | None, held: list[Tensor]) -> Clips:
    """Which stretches of a tensor are clips."""
    rows, length = x.shape[:2]
    if cu_seqlens is None:
        return Clips(rows, length, rows, None)
    held.append(cu_seqlens.to("cpu", torch.int32).contiguous())
    return Clips(rows, length, len(cu_seqlens) - 1, held[-1].data_ptr())


def _view(x: Tensor) -> View:
    """A tensor as the kernels see it; nothing is copied."""
    return View(x.data_ptr(), *x.stride(), DTYPES[x.dtype])


def _table(x: Tensor | None, held: list[Tensor]) -> int | None:
    """Address of a small contiguous float32 copy."""
    if x is None:
        return None
    if x.dtype != torch.float32 or not x.is_contiguous():
        x = x.detach().to(torch.float32).contiguous()
        held.append(x)
    return x.data_ptr()
