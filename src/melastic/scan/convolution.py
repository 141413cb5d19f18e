"""The causal convolution with SiLU in plain torch, where there is no kernel for it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def forward(
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None,
    reverse: bool,
) -> Float[Tensor, "batch length dim"]:
    """Convolution and SiLU: shifted, multiplied and added.

    Args:
        x: input.
        weight: taps of each channel.
        bias: of each channel.
        cu_seqlens: where clips begin and end; None: each row is one clip.
        reverse: whether the taps reach into the future.
    """
    return functional.silu(_mixed(x, weight, bias, cu_seqlens, reverse)).to(x.dtype)


def backward(
    dy: Float[Tensor, "batch length dim"],
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None,
    reverse: bool,
) -> tuple[Float[Tensor, "batch length dim"], Float[Tensor, "dim width"], Float[Tensor, " dim"]]:
    """Gradients of input, taps and bias in plain torch.

    Args:
        dy: gradient of the output.
        x: input.
        weight: taps of each channel.
        bias: of each channel.
        cu_seqlens: where clips begin and end; None: each row is one clip.
        reverse: whether the taps reach into the future.
    """
    given = (x, weight, bias)
    with torch.enable_grad():
        free = [value.detach().requires_grad_() for value in given]
        mixed = functional.silu(_mixed(free[0], free[1], free[2], cu_seqlens, reverse))
        found = torch.autograd.grad(mixed, free, dy.to(mixed.dtype))
    dx, dweight, dbias = (grad.to(value.dtype) for grad, value in zip(found, given, strict=True))
    return dx, dweight, dbias


def _mixed(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor | None, reverse: bool
) -> Float[Tensor, "batch length dim"]:
    """What goes into SiLU, in float32 or better."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    length, width = x.shape[1], weight.shape[1]
    steps = torch.arange(length, device=x.device)
    if cu_seqlens is None:
        first, last = torch.zeros_like(steps), torch.full_like(steps, length - 1)
    else:
        clip = torch.searchsorted(cu_seqlens[1:].long(), steps, right=True)
        first, last = cu_seqlens[clip].long(), cu_seqlens[clip + 1].long() - 1
    total = bias.expand_as(x)
    for tap in range(width):
        reach = width - 1 - tap
        taken = steps + reach if reverse else steps - reach
        inside = ((taken >= first) & (taken <= last)).to(dtype)[:, None]
        total = total + x[:, taken.clamp(0, length - 1)] * inside * weight[:, tap]
    return total
