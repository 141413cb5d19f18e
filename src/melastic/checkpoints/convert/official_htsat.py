"""The official maths of HTS-AT once more, to check a conversion against.

Plain functions that share nothing with the model: images are rolled, every window is cut out and
looked at by itself, regions that must not see each other are told apart by number.

Source: RetroCirce/HTS-Audio-Transformer 2e29471; HTS-AT (arXiv:2202.00874); as its paper and notes
    on its code describe it, not copied.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.checkpoints.convert.official import Tensors

EPS = 1e-5
"""Added to the variance in all norms."""
APART = -100.0
"""Added to the score of two tokens that do not belong together."""


def htsat_logits(
    tensors: Tensors,
    log_mels: Float[Tensor, "clips freq time"],
    spec_size: int,
    rule: str = "stretch",
) -> Float[Tensor, "clips classes"]:
    """HTS-AT, for clips of any length that the official code takes.

    Args:
        tensors: by their official names.
        log_mels: in decibels.
        spec_size: side of the image.
        rule: "stretch" (training and tests), or "tile" (inference of short clips).
    """
    mean = tensors.get("bn0.running_mean", torch.zeros(log_mels.shape[1]))
    var = tensors.get("bn0.running_var", torch.ones(log_mels.shape[1]))
    weight, bias = tensors["bn0.weight"], tensors["bn0.bias"]
    turned = functional.batch_norm(log_mels.transpose(1, 2).flatten(0, 1), mean, var, weight, bias)
    x = turned.unflatten(0, (len(log_mels), -1)).transpose(1, 2)
    frames, most = x.shape[2], spec_size * (spec_size // x.shape[1])
    if frames <= most:
        x = x.repeat(1, 1, most // frames) if rule == "tile" else x
        return _image_logits(tensors, x, spec_size)
    half, step = (frames - 1) // 2, (frames - 1) // 4
    starts = range(0, frames - half - 1, step)
    crops = [_image_logits(tensors, x[:, :, i : i + half], spec_size) for i in starts]
    return torch.stack(crops).mean(0)


def _image_logits(tensors: Tensors, x: Float[Tensor, "clips freq time"], side: int) -> Tensor:
    """Logits of clips that fit one image each."""
    bands = side // x.shape[1]
    for size in ((x.shape[1], side * bands), (side // bands, side * bands)):
        if x.shape[1:] != torch.Size(size):
            x = functional.interpolate(x[:, None], size, mode="bicubic", align_corners=True)[:, 0]
    image = torch.cat([x[:, :, band * side : (band + 1) * side] for band in range(bands)], dim=1)
    kernel, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    grid = functional.conv2d(image[:, None], kernel, bias, kernel.shape[2:]).permute(0, 2, 3, 1)
    grid = _norm(tensors, "patch_embed.norm", grid)
    group = 0
    while f"layers.{group}.blocks.0.norm1.weight" in tensors:
        grid = _group(tensors, f"layers.{group}.", grid)
        group += 1
    grid = _norm(tensors, "norm", grid)
    if "tscam_conv.weight" not in tensors:
        return _linear(tensors, "head", grid.mean((1, 2)))
    rows = grid.shape[1] // bands
    line = torch.cat([grid[:, band * rows : (band + 1) * rows] for band in range(bands)], dim=2)
    weight, bias = tensors["tscam_conv.weight"], tensors["tscam_conv.bias"]
    evidence = functional.conv2d(line.permute(0, 3, 1, 2), weight, bias, padding=(0, 1))
    return evidence.flatten(2).mean(2)


def _group(tensors: Tensors, name: str, x: Float[Tensor, "clips rows columns dim"]) -> Tensor:
    """Blocks, every second one shifted, and the merge behind them."""
    block = 0
    while f"{name}blocks.{block}.norm1.weight" in tensors:
        here = f"{name}blocks.{block}."
        x = x + _attention(tensors, f"{here}attn.", _norm(tensors, f"{here}norm1", x), block % 2)
        hidden = functional.gelu(
            _linear(tensors, f"{here}mlp.fc1", _norm(tensors, f"{here}norm2", x))
        )
        x = x + _linear(tensors, f"{here}mlp.fc2", hidden)
        block += 1
    if f"{name}downsample.reduction.weight" not in tensors:
        return x
    even, odd = slice(0, None, 2), slice(1, None, 2)
    four = [x[:, even, even], x[:, odd, even], x[:, even, odd], x[:, odd, odd]]
    merged = _norm(tensors, f"{name}downsample.norm", torch.cat(four, dim=-1))
    return merged @ tensors[f"{name}downsample.reduction.weight"].T


def _attention(
    tensors: Tensors, name: str, x: Float[Tensor, "clips rows columns dim"], odd: int
) -> Tensor:
    """Window by window, pair by pair."""
    table = tensors[f"{name}relative_position_bias_table"]
    side, (rows, columns) = (math.isqrt(len(table)) + 1) // 2, x.shape[1:3]
    shift = side // 2 if odd and min(rows, columns) > side else 0
    region = _region(rows, side, shift)[:, None] * 3 + _region(columns, side, shift)
    x = x.roll((-shift, -shift), (1, 2))
    found = torch.zeros_like(x)
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    apart = place[:, None] - place[None] + side - 1
    bias = table[apart[..., 0] * (2 * side - 1) + apart[..., 1]].permute(2, 0, 1)
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            here = (slice(top, top + side), slice(left, left + side))
            known = region[here].flatten()
            hidden = torch.where(known[:, None] == known, 0.0, APART)
            window = x[:, here[0], here[1]].flatten(1, 2)
            parts = _linear(tensors, f"{name}qkv", window).unflatten(-1, (3, table.shape[1], -1))
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias + hidden
            seen = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            found[:, here[0], here[1]] = seen.unflatten(1, (side, side))
    return _linear(tensors, f"{name}proj", found.roll((shift, shift), (1, 2)))


def _region(size: int, side: int, shift: int) -> Tensor:
    """Number of the part that a row or column belongs to, after rolling."""
    if shift == 0:
        return torch.zeros(size, dtype=torch.long)
    place = torch.arange(size)
    return (place >= size - side).long() + (place >= size - shift).long()


def _linear(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    """A linear layer."""
    return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    """A LayerNorm."""
    return functional.layer_norm(
        x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], EPS
    )
