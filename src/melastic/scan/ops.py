"""The scan and the convolution as operators of torch: one for each, whatever the device.

``torch.compile`` and ``torch.export`` see one node; the kernel is chosen when it runs: compiled C++
on a CPU, Triton on CUDA, plain torch where neither is there or the numbers are float64.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from melastic.native import scan as native
from melastic.native.calls import serves
from melastic.scan import chunked, convolution
from melastic.scan.operands import Gradients, Operands, check_borders


@cache
def _has_triton() -> bool:
    """Whether Triton is installed, as it is beside torch for CUDA on Linux."""
    return find_spec("triton") is not None


def _for_triton(x: Tensor) -> bool:
    """Whether Triton's kernels take a tensor; they know no float64."""
    return x.device.type == "cuda" and x.dtype != torch.float64 and _has_triton()


def _triton() -> Any:
    """Kernels for CUDA; only there is Triton needed."""
    from melastic.scan import triton_scan

    return triton_scan


@torch.library.custom_op("melastic::selective_scan", mutates_args=())
def scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    A_back: Tensor | None,
    cu_seqlens: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Output of a scan, and states that spare the backward pass work; none where they do not.

    Arguments as :class:`Operands` says; the last one: whether such states are wanted.
    """
    operands = Operands(
        u, delta, A, B, C, D, z, delta_bias, A_back, cu_seqlens, delta_softplus, reverse
    )
    if _for_triton(u):
        return _laid_out(_triton().forward(operands), u), u.new_empty(0)
    if not serves(u, delta, B, C, z):
        check_borders(cu_seqlens, *u.shape[:2])
        return _laid_out(chunked.forward(operands), u), u.new_empty(0)
    if not keep_states:
        return native.forward(operands), u.new_empty(0)
    starts = native.new_starts(operands)
    return native.forward(operands, starts=starts), starts


@scan_op.register_fake
def _(u: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    operands, keep_states = Operands(u, *inputs[:-1]), inputs[-1]
    served = serves(u, operands.delta, operands.B, operands.C, operands.z)
    if not (served and keep_states):
        return torch.empty_like(u), u.new_empty(0)
    return torch.empty_like(u), native.new_starts(operands)


@torch.library.custom_op("melastic::selective_scan_backward", mutates_args=())
def scan_backward_op(
    dy: Tensor,
    starts: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    A_back: Tensor | None,
    cu_seqlens: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of a scan's inputs, those that are absent left out."""
    operands = Operands(
        u, delta, A, B, C, D, z, delta_bias, A_back, cu_seqlens, delta_softplus, reverse
    )
    if serves(dy, u, delta, B, C, z):
        found: Gradients = native.backward(dy, operands, starts if len(starts) else None)
        return [gradient for gradient in found if gradient is not None]
    scan = _triton() if _for_triton(u) else chunked
    found = scan.backward(dy, operands)
    inputs = (u, delta, A, B, C, D, z, delta_bias, A_back)
    pairs = zip(found, inputs, strict=True)
    return [_laid_out(g, x) for g, x in pairs if g is not None and x is not None]


def _laid_out(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient in the memory order of its input, which the operator promises."""
    place = torch.empty_like(like, device="meta")
    if gradient.stride() == place.stride():
        return gradient
    return torch.empty_like(like).copy_(gradient)


@scan_backward_op.register_fake
def _(_dy: Tensor, _starts: Tensor, *inputs: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x in inputs[: len(Gradients._fields)] if x is not None]


def _scan_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the inputs, and states from chunk to chunk; those in between are computed again."""
    ctx.save_for_backward(*inputs[:10], output[1])
    ctx.delta_softplus, ctx.reverse = inputs[10:12]


def _scan_gradients(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients in the order of the inputs."""
    *tensors, starts = ctx.saved_tensors
    found = iter(scan_backward_op(dy, starts, *tensors, ctx.delta_softplus, ctx.reverse))
    kept = [None if x is None else next(found) for x in tensors[: len(Gradients._fields)]]
    return (*kept, None, None, None, None)


scan_op.register_autograd(_scan_gradients, setup_context=_scan_context)


class ScanFunction(torch.autograd.Function):
    """The same as the operator's own gradients, with less in between: a millisecond counts here."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Output of a scan."""
        output = scan_op(*inputs, any(ctx.needs_input_grad))
        _scan_context(ctx, inputs, output)
        return output[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the inputs."""
        return _scan_gradients(ctx, dy, dy)[:-1]


@torch.library.custom_op("melastic::causal_convolution", mutates_args=())
def convolution_op(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor | None, reverse: bool
) -> Tensor:
    """Convolution and SiLU; arguments as :func:`melastic.scan.selective.causal_convolution`."""
    if _for_triton(x):
        from melastic.scan import triton_conv

        return triton_conv.forward(x, weight, bias, cu_seqlens, reverse)
    if serves(x) and weight.shape[1] <= native.WIDEST:
        return native.convolve(x, weight, bias, cu_seqlens, reverse)
    check_borders(cu_seqlens, *x.shape[:2])
    return convolution.forward(x, weight, bias, cu_seqlens, reverse)


@convolution_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("melastic::causal_convolution_backward", mutates_args=())
def convolution_backward_op(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    cu_seqlens: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, taps and bias."""
    if _for_triton(x):
        from melastic.scan import triton_conv

        return triton_conv.backward(dy, x, weight, bias, cu_seqlens, reverse)
    if serves(dy, x) and weight.shape[1] <= native.WIDEST:
        return native.convolve_backward(dy, x, weight, bias, cu_seqlens, reverse)
    return convolution.backward(dy, x, weight, bias, cu_seqlens, reverse)


@convolution_backward_op.register_fake
def _(_dy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in inputs[:3])


def _convolution_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    """Keep the inputs; what goes into SiLU is computed again."""
    ctx.save_for_backward(*inputs[:4])
    ctx.reverse = inputs[4]


def _convolution_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients in the order of the inputs."""
    return (*convolution_backward_op(dy, *ctx.saved_tensors, ctx.reverse), None, None)


convolution_op.register_autograd(_convolution_gradients, setup_context=_convolution_context)


class ConvolutionFunction(torch.autograd.Function):
    """The same as the operator's own gradients, with less in between."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Convolution and SiLU."""
        y: Tensor = convolution_op(*inputs)
        _convolution_context(ctx, inputs, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the inputs."""
        return _convolution_gradients(ctx, dy)


MACS, MACS_BACKWARD = 3, 6
"""Multiply-adds of a scan for each channel, number of the state and direction: decay, input and
output; of its gradients twice as many, states that are computed again not counted."""


def _scan_flops(u: Any, A: Any, A_back: Any, macs: int) -> int:
    """Floating-point operations of a scan, two for each multiply-add."""
    batch, length, dim = u
    return 2 * macs * batch * length * dim * A[1] * (1 if A_back is None else 2)


@register_flop_formula(torch.ops.melastic.selective_scan)
def _(u: Any, _delta: Any, A: Any, *shapes: Any, **_: Any) -> int:
    return _scan_flops(u, A, shapes[5], MACS)


@register_flop_formula(torch.ops.melastic.selective_scan_backward)
def _(_dy: Any, _starts: Any, u: Any, _delta: Any, A: Any, *shapes: Any, **_: Any) -> int:
    return _scan_flops(u, A, shapes[5], MACS_BACKWARD)


@register_flop_formula(torch.ops.melastic.causal_convolution)
def _(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * x[2] * weight[1]


@register_flop_formula(torch.ops.melastic.causal_convolution_backward)
def _(_dy: Any, x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * 2 * x[0] * x[1] * x[2] * weight[1]
