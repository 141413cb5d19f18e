"""ImageNet weights of ViT and DeiT (timm) as a start for an AST; the head is new.

Source: YuanGongND/ast 31088be, ``src/models/ast_models.py``, for how images become spectrograms:
    the kernel is summed over colours, and the square grid of positions is cropped at its middle
    or interpolated (bilinear, antialias off), first along time, then along frequency.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.architecture import position_grid
from melastic.checkpoints.convert.common import (
    AttentionFacts,
    assemble,
    new_head,
    read_frontend,
    read_labels,
    read_task,
)
from melastic.checkpoints.convert.tensors import OfficialState, take_encoder, timm_names
from melastic.classifier import Classifier
from melastic.config import ClassTokenPooling, LearnedGrid, ModelConfig, PatchConfig
from melastic.errors import InputError
from melastic.patches.grid import FreqTime, PatchGrid, freq_time

UNUSED = ("head.", "head_dist.", "pre_logits.")
"""Classifiers of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VitFacts(AttentionFacts):
    """What the model shall be; ``num_classes`` or ``labels`` are needed."""

    input_size: tuple[int, int] = (128, 1024)
    """Mel bins and frames that the positions shall cover."""
    stride: int | tuple[int, int] | None = None
    """Mel bins and frames from one patch to the next; None: the patch size."""
    fixed_frames: int | None = None
    """Audio is cut or zero-padded to this many frames; None: keep every frame."""


def convert(state: OfficialState, facts: VitFacts) -> Classifier:
    """An AST that starts from a model of images; its head is drawn from torch's global generator.

    Raises:
        InputError: if tensors are missing or unknown, or the facts do not fit.
    """
    state.drop(*UNUSED)
    names = [name for name in ("cls_token", "dist_token") if name == "cls_token" or name in state]
    leading = [state.take(name, 1, 1, None)[0] for name in names]
    dim, count = leading[0].shape[1], len(leading)
    rows = state.take("pos_embed", 1, None, dim)[0]
    patch = state.take_linear("patch_embed.proj", "patch", dim, None, None, None)
    encoder, tensors = take_encoder(state, timm_names(), dim, facts.num_heads, norm_eps=1e-6)
    state.finish()
    kernel = _summed(patch["patch.weight"])
    state.absorb("the kernel is summed over the colours of images")
    state.absorb("the square of positions is cropped or interpolated to the spectrogram's grid")
    state.absorb("each leading token's own position is added to it")
    size, kernel_size = freq_time(facts.input_size), FreqTime(*kernel.shape[1:])
    stride = kernel_size if facts.stride is None else freq_time(facts.stride)
    grid = PatchGrid(size=size, patch=kernel_size, stride=stride).shape
    tensors |= {
        "patch_embed.kernel": kernel,
        "patch_embed.bias": patch["patch.bias"],
        "positions.table": fit_positions(square(rows[count:]), grid),
        "class_tokens": torch.cat(leading) + rows[:count],
    }
    config = ModelConfig(
        name=state.origin,
        labels=read_labels(facts, None),
        task=read_task(facts),
        frontend=read_frontend(facts, size.freq, facts.fixed_frames),
        patches=PatchConfig(patch=kernel_size, stride=stride, remainder="crop"),
        positions=position_grid(LearnedGrid, grid, stride, facts.hop_ms),
        encoder=encoder,
        pooling=ClassTokenPooling(tokens=count),
    )
    return assemble(config, tensors | new_head(config))


def fit_positions(
    table: Float[Tensor, "rows columns dim"], grid: FreqTime
) -> Float[Tensor, "{grid.freq} {grid.time} dim"]:
    """Positions of one grid of patches for another, by AST's rule, axis by axis.

    Where the new grid has fewer patches, those at the middle are kept; where it has more, positions
    are interpolated (bilinear, antialias off). Time goes first.
    """
    image = table.permute(2, 0, 1)[None]
    rows, columns = table.shape[:2]
    if grid.time <= columns:
        image = image.narrow(3, columns // 2 - grid.time // 2, grid.time)
    else:
        image = functional.interpolate(image, size=(rows, grid.time), mode="bilinear")
    if grid.freq <= rows:
        image = image.narrow(2, rows // 2 - grid.freq // 2, grid.freq)
    else:
        image = functional.interpolate(image, size=tuple(grid), mode="bilinear")
    return image[0].permute(1, 2, 0).contiguous()


def _summed(kernel: Float[Tensor, "dim colours freq time"]) -> Float[Tensor, "dim freq time"]:
    """A kernel for one channel that answers as the official one does to a grey image."""
    if kernel.shape[1] not in (1, 3):
        raise InputError(
            f"a patch kernel has 1 or 3 input channels, got {kernel.shape[1]}; use weights for "
            "RGB images"
        )
    return kernel.sum(1)


def square(rows: Float[Tensor, "cells dim"]) -> Float[Tensor, "side side dim"]:
    """Positions as the square grid of patches that they were learned on.

    Raises:
        InputError: if they fill none.
    """
    side = math.isqrt(len(rows))
    if side * side != len(rows) or not side:
        raise InputError(
            f"positions of an image model fill a square, got {len(rows)}; use weights that were "
            "trained on square images, with a position for each leading token"
        )
    return rows.reshape(side, side, -1)
