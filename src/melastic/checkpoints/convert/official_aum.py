"""The official maths of Audio Mamba once more, to check a conversion against.

Plain functions that share nothing with the model and its kernels: the scan goes token by token, the
direction back is flipped there and back again, class tokens are moved to the front for their
positions and back to their places.

Source: kaistmm/Audio-Mamba-AuM b0eb85d; Audio Mamba (arXiv:2406.03344); as its paper and notes on
    its code describe it, not copied.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.checkpoints.convert.official import Tensors, kernel_at, positions_at

EPS = 1e-5
"""Added to the mean square in each RMSNorm."""
AT_ONCE = 256
"""Tokens whose factors are computed in one go, so that memory stays small."""


class Inputs(NamedTuple):
    """What a scan works on."""

    u: Float[Tensor, "clips tokens width"]
    delta: Float[Tensor, "clips tokens width"]
    B: Float[Tensor, "clips tokens state"]
    C: Float[Tensor, "clips tokens state"]
    D: Float[Tensor, " width"]


def aum_logits(
    tensors: Tensors,
    spectrograms: Float[Tensor, "clips freq time"],
    grid: Sequence[int],
    patch: Sequence[int],
    stride: Sequence[int],
    place: Literal["first", "middle", "last", "both", "none"],
) -> Float[Tensor, "clips classes"]:
    """AuM at any patch size.

    Args:
        tensors: by their official names.
        spectrograms: the input, of the size that the positions were learned on.
        grid: rows and columns of the stored positions.
        patch: mel bins and frames of a patch.
        stride: mel bins and frames from one patch to the next.
        place: where the class tokens stand.
    """
    kernel = kernel_at(tensors["patch_embed.proj.weight"], patch)
    bias = tensors["patch_embed.proj.bias"]
    x = functional.conv2d(spectrograms[:, None], kernel, bias, tuple(stride))
    positions = positions_at(tensors["pos_embed.pos_embed"], grid, *x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    names = ("cls_token", "cls_token_head", "cls_token_tail")
    learned = [tensors[name].expand(len(x), 1, -1) for name in names if name in tensors]
    count, patches = len(learned), x.shape[1]
    x = torch.cat([*learned, x], dim=1) + positions
    last = patches + count - 1
    at = {"first": [0], "middle": [patches // 2], "last": [last], "both": [0, last], "none": []}
    waiting = iter(range(count, patches + count))
    order = [at[place].index(i) if i in at[place] else next(waiting) for i in range(last + 1)]
    x = _layers(tensors, x[:, order])
    pooled = x[:, at[place]].mean(1) if at[place] else x.mean(1)
    return functional.linear(pooled, tensors["head.weight"], tensors["head.bias"])


def _layers(
    tensors: Tensors, x: Float[Tensor, "clips tokens dim"]
) -> Float[Tensor, "clips tokens dim"]:
    """Add, norm, mixer, as often as there are layers; then the last addition and norm."""
    layer = 0
    while f"layers.{layer}.norm.weight" in tensors:
        normed = _norm(x, tensors[f"layers.{layer}.norm.weight"])
        x = x + _mixer(tensors, f"layers.{layer}.mixer.", normed)
        layer += 1
    return _norm(x, tensors["norm_f.weight"])


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm."""
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS) * weight


def _mixer(
    tensors: Tensors, name: str, x: Float[Tensor, "clips tokens dim"]
) -> Float[Tensor, "clips tokens dim"]:
    """One direction, both over the same input (summed), or each with its own weights (halved)."""
    x, z = (x @ tensors[f"{name}in_proj.weight"].T).chunk(2, dim=-1)
    inputs = _inputs(tensors, name, "", x)
    y = _scan(inputs, z, tensors[f"{name}A_log"])
    if f"{name}conv1d_b.weight" in tensors:
        inputs = _inputs(tensors, name, "_b", x.flip(1))
        y = (y + _scan(inputs, z.flip(1), tensors[f"{name}A_b_log"]).flip(1)) / 2
    elif f"{name}A_b_log" in tensors:
        u, delta, B, C, D = inputs
        flipped = Inputs(u.flip(1), delta.flip(1), B.flip(1), C.flip(1), D)
        y = y + _scan(flipped, z.flip(1), tensors[f"{name}A_b_log"]).flip(1)
    return y @ tensors[f"{name}out_proj.weight"].T


def _inputs(tensors: Tensors, name: str, end: str, x: Tensor) -> Inputs:
    """What the scan of one direction works on, from its convolution on."""
    taps, bias = tensors[f"{name}conv1d{end}.weight"], tensors[f"{name}conv1d{end}.bias"]
    before = functional.pad(x.transpose(1, 2), (taps.shape[2] - 1, 0))
    u = functional.conv1d(before, taps, bias, groups=len(taps)).transpose(1, 2)
    u = u * torch.sigmoid(u)
    rank = tensors[f"{name}dt_proj{end}.weight"].shape[1]
    small = u @ tensors[f"{name}x_proj{end}.weight"].T
    step, (B, C) = small[..., :rank], small[..., rank:].chunk(2, dim=-1)
    step = step @ tensors[f"{name}dt_proj{end}.weight"].T + tensors[f"{name}dt_proj{end}.bias"]
    return Inputs(u, functional.softplus(step), B, C, tensors[f"{name}D{end}"])


def _scan(
    inputs: Inputs,
    z: Float[Tensor, "clips tokens width"],
    log: Float[Tensor, "width state"],
) -> Float[Tensor, "clips tokens width"]:
    """Token by token; the skip and the gate belong to the direction."""
    u, delta, B, C, D = inputs
    h, outputs = torch.zeros(len(u), *log.shape), []
    for start in range(0, u.shape[1], AT_ONCE):
        now = slice(start, start + AT_ONCE)
        step = delta[:, now, :, None]
        kept = torch.exp(-step * torch.exp(log)).unbind(1)
        added = (step * u[:, now, :, None] * B[:, now, None, :]).unbind(1)
        states = []
        for keep, add in zip(kept, added, strict=True):
            h = keep * h + add
            states.append(h)
        outputs.append((torch.stack(states, dim=1) * C[:, now, None, :]).sum(-1))
    return (torch.cat(outputs, dim=1) + D * u) * z * torch.sigmoid(z)
