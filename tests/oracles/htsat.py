"""State dicts with the names and shapes that HTS-AT gives them."""

import torch

from tests.oracles.fill import filled

CLASSES = 3


def block(name, dim, heads, side):
    return {
        f"{name}norm1.weight": (dim,),
        f"{name}norm1.bias": (dim,),
        f"{name}attn.relative_position_bias_table": ((2 * side - 1) ** 2, heads),
        f"{name}attn.qkv.weight": (3 * dim, dim),
        f"{name}attn.qkv.bias": (3 * dim,),
        f"{name}attn.proj.weight": (dim, dim),
        f"{name}attn.proj.bias": (dim,),
        f"{name}norm2.weight": (dim,),
        f"{name}norm2.bias": (dim,),
        f"{name}mlp.fc1.weight": (4 * dim, dim),
        f"{name}mlp.fc1.bias": (4 * dim,),
        f"{name}mlp.fc2.weight": (dim, 4 * dim),
        f"{name}mlp.fc2.bias": (dim,),
    }


def head(dim, rows, semantic):
    if not semantic:
        return {"head.weight": (CLASSES, dim), "head.bias": (CLASSES,)}
    return {
        "tscam_conv.weight": (CLASSES, dim, rows, 3),
        "tscam_conv.bias": (CLASSES,),
        "head.weight": (CLASSES, CLASSES),
        "head.bias": (CLASSES,),
    }


def htsat_state(
    spec_size=64, mels=16, dim=4, depths=(1, 2), heads=(1, 2), window=4, patch=4, semantic=True
):
    """Parameters, statistics, and the masks and indices of shifted blocks."""
    shapes = {
        "bn0.weight": (mels,),
        "bn0.bias": (mels,),
        "patch_embed.proj.weight": (dim, 1, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "patch_embed.norm.weight": (dim,),
        "patch_embed.norm.bias": (dim,),
    }
    buffers = {
        "bn0.running_mean": torch.linspace(-30, -20, mels),
        "bn0.running_var": torch.linspace(50, 150, mels),
        "bn0.num_batches_tracked": torch.tensor(7),
    }
    grid = spec_size // patch
    for i, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        width, side = dim * 2**i, min(window, grid)
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}."
            shapes |= block(name, width, count, side)
            tokens = side * side
            index = torch.zeros(tokens, tokens, dtype=torch.long)
            buffers[f"{name}attn.relative_position_index"] = index
            if j % 2 and grid > window:
                buffers[f"{name}attn_mask"] = torch.zeros((grid // side) ** 2, tokens, tokens)
        if i + 1 < len(depths):
            shapes[f"layers.{i}.downsample.norm.weight"] = (4 * width,)
            shapes[f"layers.{i}.downsample.norm.bias"] = (4 * width,)
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * width, 4 * width)
            grid //= 2
    rows = grid // (spec_size // mels)
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), **head(width, rows, semantic)}
    return filled(shapes, seed=3) | buffers
