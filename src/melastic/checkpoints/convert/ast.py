"""Audio Spectrogram Transformer: original (two leading tokens) and as its successors train it.

Source: YuanGongND/ast 31088be, ``src/models/ast_models.py``; the same names in the AST of FlexiAST
    (74a6ee8), Audio-Mamba-AuM (b0eb85d) and ElasticAST (da75493) with class tokens.

Absorbed here: each leading token has a position row of its own, which is added to it for good;
heads for ImageNet stay in the file unused; stride and input size are not stored.
"""

import dataclasses
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from melastic.checkpoints.convert.common import (
    Facts,
    assemble,
    read_frontend,
    read_labels,
    read_task,
)
from melastic.checkpoints.convert.tensors import (
    EncoderNames,
    OfficialState,
    take_encoder,
    timm_names,
)
from melastic.classifier import Classifier
from melastic.config import ClassTokenPooling, LearnedGrid, ModelConfig, PatchConfig
from melastic.errors import InputError
from melastic.patches.grid import FreqTime, PatchGrid, Size, freq_time
from melastic.presets import position_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class AstFacts(Facts):
    """What an AST file does not hold."""

    input_size: tuple[int, int] | None = None
    """Mel bins and frames that the positions were learned on; (128, 1024) for AudioSet. Needed."""
    stride: int | tuple[int, int] | None = None
    """Mel bins and frames from one patch to the next; None: read off the number of positions."""
    fixed_frames: int | Literal["input"] | None = "input"
    """Audio is cut or zero-padded to this many frames; "input": to those of ``input_size``, as AST
    was trained; None: keep every frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AstNames:
    """How a file calls the parts of an AST."""

    tokens: tuple[str, ...]
    """Class token, and distillation token where there is one."""
    positions: str
    patch: str
    encoder: EncoderNames
    head_norm: str
    head_linear: str


NAMES = AstNames(
    tokens=("v.cls_token",),
    positions="v.pos_embed",
    patch="v.patch_embed.proj",
    encoder=timm_names("v."),
    head_norm="mlp_head.0",
    head_linear="mlp_head.1",
)
DISTILLATION = "v.dist_token"
UNUSED = ("v.head.", "v.head_dist.", "v.f_pos_embed", "v.t_pos_embed")
"""ImageNet heads, and the factorised tables that ElasticAST's AST creates but never reads."""


def convert(state: OfficialState, facts: AstFacts) -> Classifier:
    """An AST with the official numbers.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    state.drop(*UNUSED)
    names = NAMES
    if DISTILLATION in state:
        names = dataclasses.replace(NAMES, tokens=(*NAMES.tokens, DISTILLATION))
    return build(state, names, facts, norm_eps=1e-6, head_norm_eps=1e-5)


def build(
    state: OfficialState,
    names: AstNames,
    facts: AstFacts,
    *,
    norm_eps: float,
    head_norm_eps: float,
) -> Classifier:
    """An AST from a file with any naming.

    Args:
        state: its tensors.
        names: how they are called.
        facts: what the file does not hold.
        norm_eps: what its encoder's LayerNorms add to the variance.
        head_norm_eps: what its head's LayerNorm adds to the variance.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    leading = [state.take(name, 1, 1, None)[0] for name in names.tokens]
    dim, count = leading[0].shape[1], len(leading)
    rows = state.take(names.positions, 1, None, dim)[0]
    patch = state.take_linear(names.patch, "patch", dim, 1, None, None)
    encoder, tensors = take_encoder(state, names.encoder, dim, facts.num_heads, norm_eps)
    tensors |= state.take_linear(names.head_norm, "head.norm", dim)
    tensors |= state.take_linear(names.head_linear, "head.linear", None, dim)
    state.finish()
    size = _input_size(facts)
    kernel = patch["patch.weight"][:, 0]
    patches = _patches(size, FreqTime(*kernel.shape[1:]), len(rows) - count, facts.stride)
    grid = PatchGrid(size=size, patch=patches.patch, stride=patches.stride).shape
    tensors |= {
        "patch_embed.kernel": kernel,
        "patch_embed.bias": patch["patch.bias"],
        "positions.table": rows[count:].reshape(*grid, dim),
        "class_tokens": torch.cat(leading) + rows[:count],
    }
    frames = size.time if facts.fixed_frames == "input" else facts.fixed_frames
    config = ModelConfig(
        name=state.origin,
        labels=read_labels(facts, _classes(tensors)),
        task=read_task(facts),
        frontend=read_frontend(facts, size.freq, frames),
        patches=patches,
        positions=position_grid(LearnedGrid, grid, patches.stride, facts.hop_ms),
        encoder=encoder,
        pooling=ClassTokenPooling(tokens=count),
        head_norm_eps=head_norm_eps,
    )
    return assemble(config, tensors)


def _input_size(facts: AstFacts) -> FreqTime:
    """Mel bins and frames that the positions were learned on."""
    if facts.input_size is None:
        raise InputError(
            "an AST file does not say what its positions stand for; give input_size="
            "(mel bins, frames), (128, 1024) for models trained on AudioSet"
        )
    return freq_time(facts.input_size)


def _classes(tensors: dict[str, Tensor]) -> int:
    """Rows of the head."""
    return len(tensors["head.linear.weight"])


def _patches(size: FreqTime, patch: FreqTime, cells: int, stride: Size | None) -> PatchConfig:
    """Patches of a kernel's size; cells that fill no whole patch are left out, as a convolution."""
    chosen = _read_stride(size, patch, cells) if stride is None else freq_time(stride)
    grid = PatchGrid(size=size, patch=patch, stride=chosen)
    if grid.num_patches != cells:
        raise InputError(
            f"stride {chosen.freq} x {chosen.time} gives {grid.shape.freq} x {grid.shape.time} = "
            f"{grid.num_patches} patches in {size.freq} x {size.time}, the file has positions for "
            f"{cells}; leave stride out, or correct input_size"
        )
    return PatchConfig(patch=patch, stride=chosen, remainder="crop")


def _read_stride(size: FreqTime, patch: FreqTime, cells: int) -> FreqTime:
    """The stride that gives as many patches as there are positions.

    Patches side by side are tried first (the four papers on AST use them), then the same step along
    both axes (the original), then any step up to the patch size.
    """
    smaller = product(range(1, patch.freq + 1), range(1, patch.time + 1))
    fitting = [
        stride
        for stride in (FreqTime(*pair) for pair in smaller)
        if PatchGrid(size=size, patch=patch, stride=stride).num_patches == cells
    ]
    if patch in fitting:
        return patch
    square = [stride for stride in fitting if stride.freq == stride.time]
    found = square or fitting
    where = f"{size.freq} x {size.time} with patches of {patch.freq} x {patch.time}"
    if not found:
        raise InputError(
            f"input_size {where} gives {cells} positions under no stride up to the patch size; "
            "correct input_size, or give stride"
        )
    if len(found) > 1:
        strides = " or ".join(f"{stride.freq} x {stride.time}" for stride in found[:3])
        raise InputError(
            f"several strides give {cells} positions for {where}, such as {strides}; give stride"
        )
    return found[0]
