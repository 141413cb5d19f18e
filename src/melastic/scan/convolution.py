"""The causal convolution with SiLU in plain torch: where there is no kernel, and for exporters."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
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
    mixed = _mixed(x, weight, bias, cu_seqlens, reverse)
    gate = mixed.sigmoid()
    g = dy.to(mixed.dtype) * gate * (1 + mixed * (1 - gate))
    wide, taps = x.to(mixed.dtype), weight.to(mixed.dtype)
    dx, dweight = torch.zeros_like(wide), torch.empty_like(taps)
    for tap, (taken, inside) in enumerate(_taps(x, weight, cu_seqlens, reverse)):
        own = torch.where(inside[:, None], g, 0)
        dx.index_add_(1, taken, own * taps[:, tap])
        dweight[:, tap] = (own * torch.where(inside[:, None], wide[:, taken], 0)).sum((0, 1))
    return dx.to(x.dtype), dweight.to(weight.dtype), g.sum((0, 1)).to(bias.dtype)


def _mixed(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor | None, reverse: bool
) -> Float[Tensor, "batch length dim"]:
    """What goes into SiLU, in float32 or better."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    total = bias.expand_as(x)
    for tap, (taken, inside) in enumerate(_taps(x, weight, cu_seqlens, reverse)):
        total = total + torch.where(inside[:, None], x[:, taken], 0) * weight[:, tap]
    return total


def _taps(
    x: Tensor, weight: Tensor, cu_seqlens: Tensor | None, reverse: bool
) -> Iterator[tuple[Int[Tensor, " length"], Bool[Tensor, " length"]]]:
    """For each tap, the step that each step takes, and whether that lies in its clip."""
    length, width = x.shape[1], weight.shape[1]
    steps = torch.arange(length, device=x.device)
    if cu_seqlens is None:
        first, last = torch.zeros_like(steps), torch.full_like(steps, length - 1)
    else:
        clip = torch.searchsorted(cu_seqlens[1:].long(), steps, right=True)
        first, last = cu_seqlens[clip].long(), cu_seqlens[clip + 1].long() - 1
    for tap in range(width):
        reach = width - 1 - tap
        taken = steps + reach if reverse else steps - reach
        yield taken.clamp(0, length - 1), (taken >= first) & (taken <= last)
