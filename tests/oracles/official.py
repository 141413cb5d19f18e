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


def flexi_state(grid=(2, 4), patch=(16, 16), prefix=1, dim=24, **sizes):
    """With the kernel and the positions of the AST that it was trained from, which are stale."""
    size = tuple(n * p for n, p in zip(grid, patch, strict=True))
    shapes = {
        name: value.shape
        for name, value in ast_state(size, (8, 8), (8, 8), prefix, dim, **sizes).items()
    }
    live = {
        "patch_embed.proj.weight": (dim, 1, *patch),
        "patch_embed.proj.bias": (dim,),
        "pos_embed.pos_embed": (1, prefix + grid[0] * grid[1], dim),
    }
    return filled(shapes | live)


def ssast_state(pretrained=None, prefix=2, dim=24, **sizes):
    """Fine-tuned, or of pre-training on an input of the size that is given."""
    if pretrained is None:
        return ast_state(prefix=prefix, dim=dim, **sizes)
    state = ast_state(pretrained, prefix=prefix, dim=dim, **sizes)
    state = {name: value for name, value in state.items() if not name.startswith("mlp_head")}
    tasks = {"mask_embed": (1, 1, dim)}
    for head in ("cpredlayer", "gpredlayer"):
        tasks |= {f"{head}.0.weight": (dim, dim), f"{head}.0.bias": (dim,)}
        tasks |= {f"{head}.2.weight": (256, dim), f"{head}.2.bias": (256,)}
    mels, frames = (torch.tensor(n) for n in pretrained)
    return state | filled(tasks) | {"p_input_fdim": mels, "p_input_tdim": frames}


def elastic_state(grid=(8, 4), patch=(16, 16), dim=24, depth=2, classes=CLASSES):
    layers = {
        "patch_embed.0": (dim, patch[0] * patch[1]),
        "attn_pool.to_q": (dim, dim),
        "attn_pool.to_kv": (2 * dim, dim),
        "attn_pool.proj": (dim, dim),
        "head": (classes, dim),
    }
    norms = ["norm", "mlp_norm"]
    for i in range(depth):
        block = f"blocks.modules_list.{i}"
        norms += [f"{block}.norm1", f"{block}.norm2"]
        layers |= {
            f"{block}.attn.to_q": (dim, dim),
            f"{block}.attn.to_kv": (2 * dim, dim),
            f"{block}.attn.proj": (dim, dim),
            f"{block}.mlp.fc1": (4 * dim, dim),
            f"{block}.mlp.fc2": (dim, 4 * dim),
        }
    shapes = {
        "pos_embed_freq": (grid[0], dim),
        "pos_embed_time": (grid[1], dim),
        "attn_pool_queries": (dim,),
    }
    for name in norms:
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return filled(shapes)


def logits_of(model, spectrograms):
    with torch.no_grad():
        return model(spectrograms.transpose(1, 2))
