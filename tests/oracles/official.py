"""State dicts with the names and shapes that official code gives them."""

import inspect

import torch

import melastic
from tests.oracles.fill import filled

CLASSES = 5
UNCHECKED = inspect.unwrap(melastic.from_official)
"""As users call it: without the type checker of the test suite."""


def timm_shapes(dim, patch, cells, prefix, colours=1, depth=2, hidden=None):
    """Names and shapes of a ViT; two leading tokens where it is distilled."""
    hidden = hidden or 4 * dim
    blocks = {}
    for i in range(depth):
        blocks |= {
            f"blocks.{i}.norm1.weight": (dim,),
            f"blocks.{i}.norm1.bias": (dim,),
            f"blocks.{i}.attn.qkv.weight": (3 * dim, dim),
            f"blocks.{i}.attn.qkv.bias": (3 * dim,),
            f"blocks.{i}.attn.proj.weight": (dim, dim),
            f"blocks.{i}.attn.proj.bias": (dim,),
            f"blocks.{i}.norm2.weight": (dim,),
            f"blocks.{i}.norm2.bias": (dim,),
            f"blocks.{i}.mlp.fc1.weight": (hidden, dim),
            f"blocks.{i}.mlp.fc1.bias": (hidden,),
            f"blocks.{i}.mlp.fc2.weight": (dim, hidden),
            f"blocks.{i}.mlp.fc2.bias": (dim,),
        }
    return {
        "cls_token": (1, 1, dim),
        **({"dist_token": (1, 1, dim)} if prefix == 2 else {}),
        "pos_embed": (1, prefix + cells, dim),
        "patch_embed.proj.weight": (dim, colours, *patch),
        "patch_embed.proj.bias": (dim,),
        **blocks,
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (1000, dim),
        "head.bias": (1000,),
        **({"head_dist.weight": (1000, dim), "head_dist.bias": (1000,)} if prefix == 2 else {}),
    }


def ast_state(size=(32, 64), patch=(16, 16), stride=(16, 16), prefix=2, dim=24, **sizes):
    rows, columns = ((n - p) // s + 1 for n, p, s in zip(size, patch, stride, strict=True))
    shapes = timm_shapes(dim, patch, rows * columns, prefix, **sizes)
    head = {"0.weight": (dim,), "0.bias": (dim,), "1.weight": (CLASSES, dim), "1.bias": (CLASSES,)}
    vit = {f"v.{name}": shape for name, shape in shapes.items()}
    return filled(vit | {f"mlp_head.{name}": shape for name, shape in head.items()})


def vit_state(side=4, prefix=1, colours=3, dim=24, patch=(16, 16)):
    return filled(timm_shapes(dim, patch, side * side, prefix, colours))


def logits_of(model, spectrograms):
    with torch.no_grad():
        return model(spectrograms.transpose(1, 2))
