"""State dicts with the names and shapes that Audio Mamba and Vision Mamba give them."""

import torch

from tests.oracles.fill import filled
from tests.oracles.official import CLASSES

LEARNED = {
    "first": ("cls_token",),
    "middle": ("cls_token",),
    "last": ("cls_token",),
    "both": ("cls_token_head", "cls_token_tail"),
    "none": (),
}


def direction(name, end, dim, width, numbers, taps):
    rank = -(-dim // 16)
    return {
        f"{name}conv1d{end}.weight": (width, 1, taps),
        f"{name}conv1d{end}.bias": (width,),
        f"{name}x_proj{end}.weight": (rank + 2 * numbers, width),
        f"{name}dt_proj{end}.weight": (width, rank),
        f"{name}dt_proj{end}.bias": (width,),
        f"{name}D{end}": (width,),
    }


def layer(name, variant, dim, width, numbers, taps):
    shapes = {
        f"{name}norm.weight": (dim,),
        f"{name}mixer.in_proj.weight": (2 * width, dim),
        f"{name}mixer.out_proj.weight": (dim, width),
        f"{name}mixer.A_log": (width, numbers),
        **direction(f"{name}mixer.", "", dim, width, numbers, taps),
    }
    if variant != "fo-fo":
        shapes[f"{name}mixer.A_b_log"] = (width, numbers)
    if variant == "bi-bi":
        shapes |= direction(f"{name}mixer.", "_b", dim, width, numbers, taps)
    return shapes


def aum_shapes(
    variant="fo-bi",
    place="middle",
    grid=(2, 4),
    patch=(16, 16),
    dim=24,
    depth=2,
    numbers=16,
    expand=2,
    taps=4,
    classes=CLASSES,
    colours=1,
):
    layers = {}
    for i in range(depth):
        layers |= layer(f"layers.{i}.", variant, dim, expand * dim, numbers, taps)
    return {
        **dict.fromkeys(LEARNED[place], (1, 1, dim)),
        "patch_embed.proj.weight": (dim, colours, *patch),
        "patch_embed.proj.bias": (dim,),
        "pos_embed.pos_embed": (1, len(LEARNED[place]) + grid[0] * grid[1], dim),
        **layers,
        "norm_f.weight": (dim,),
        "head.weight": (classes, dim),
        "head.bias": (classes,),
    }


def aum_state(variant="fo-bi", place="middle", **sizes):
    return filled(aum_shapes(variant, place, **sizes))


def vim_state(variant="bi-bi", place="middle", side=4, **sizes):
    """As Vision Mamba saves it: positions of class tokens where these stand, tables of rotation."""
    sizes = {"classes": 1000, "colours": 3, **sizes}
    state = aum_state(variant, place, grid=(side, side), **sizes)
    state["pos_embed"] = state.pop("pos_embed.pos_embed")
    tables = {f"rope.freqs_{part}": torch.zeros(side * side, 12) for part in ("cos", "sin")}
    return state | tables
