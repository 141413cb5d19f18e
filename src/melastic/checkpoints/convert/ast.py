"""Audio Spectrogram Transformer: original (two leading tokens) and as its successors train it.

Source: YuanGongND/ast 31088be, ``src/models/ast_models.py``; the same names in the AST of FlexiAST
    (74a6ee8), Audio-Mamba-AuM (b0eb85d) and ElasticAST (da75493) with class tokens.

Absorbed here: each leading token has a position row of its own, which is added to it for good;
heads for ImageNet stay in the file unused; stride and input size are not stored.
"""

import dataclasses
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.architecture import position_grid
from melastic.checkpoints.convert.common import (
    AttentionFacts,
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
from melastic.config import (
    ClassTokenPooling,
    LearnedGrid,
    MeanPooling,
    ModelConfig,
    PatchConfig,
    TransformerConfig,
)
from melastic.errors import InputError
from melastic.patches.grid import FreqTime, PatchGrid, Size, freq_time


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts(AttentionFacts):
    """What a file with one position for each patch of an input of one size does not hold."""

    input_size: tuple[int, int] | None = None
    """Mel bins and frames that the positions were learned on; (128, 1024) for AudioSet. Needed."""
    fixed_frames: int | Literal["input"] | None = "input"
    """Audio is cut or zero-padded to this many frames; "input": to those of ``input_size``, as the
    official models were trained; None: keep every frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AstFacts(InputFacts):
    """What an AST file does not hold."""

    stride: int | tuple[int, int] | None = None
    """Mel bins and frames from one patch to the next; None: read off the number of positions."""


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


class Body(NamedTuple):
    """An AST without its head."""

    leading: int
    """Tokens in front of each clip."""
    patch: FreqTime
    """Mel bins and frames of the kernel."""
    cells: Float[Tensor, "patches dim"]
    """Positions of the patches."""
    encoder: TransformerConfig
    tensors: dict[str, Tensor]
    """All others, under the names of our classifier."""


def convert(state: OfficialState, facts: AstFacts) -> Classifier:
    """An AST with the official numbers.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    state.drop(*UNUSED)
    body = take_body(state, with_distillation(NAMES, state), facts.num_heads, norm_eps=1e-6)
    head = take_head(state, NAMES, body.encoder.dim)
    return build(state, body, head, facts, stride=facts.stride)


def with_distillation(names: AstNames, state: OfficialState) -> AstNames:
    """The names of a file, with those of a distillation token where it has one."""
    if DISTILLATION not in state:
        return names
    return dataclasses.replace(names, tokens=(*names.tokens, DISTILLATION))


def take_body(
    state: OfficialState, names: AstNames, num_heads: int | None, norm_eps: float
) -> Body:
    """Take everything but the head.

    Args:
        state: tensors of a file with any naming.
        names: how they are called.
        num_heads: attention heads; None: one for each 64 channels.
        norm_eps: what the encoder's LayerNorms add to the variance.

    Raises:
        InputError: if tensors are missing or of another shape.
    """
    tokens = [state.take(name, 1, 1, None)[0] for name in names.tokens]
    dim, leading = tokens[0].shape[1], len(tokens)
    rows = state.take(names.positions, 1, None, dim)[0]
    patch = state.take_linear(names.patch, "patch", dim, 1, None, None)
    encoder, tensors = take_encoder(state, names.encoder, dim, num_heads, norm_eps)
    kernel = patch["patch.weight"][:, 0]
    tensors |= {
        "patch_embed.kernel": kernel,
        "patch_embed.bias": patch["patch.bias"],
        "class_tokens": torch.cat(tokens) + rows[:leading],
    }
    state.absorb("each leading token's own position is added to it")
    return Body(leading, FreqTime(*kernel.shape[1:]), rows[leading:], encoder, tensors)


def take_head(state: OfficialState, names: AstNames, dim: int) -> dict[str, Tensor]:
    """Take the LayerNorm and the linear layer that make logits.

    Args:
        state: tensors of a file with any naming.
        names: how they are called.
        dim: width of a token.
    """
    norm = state.take_linear(names.head_norm, "head.norm", dim)
    return norm | state.take_linear(names.head_linear, "head.linear", None, dim)


def build(
    state: OfficialState,
    body: Body,
    head: dict[str, Tensor],
    facts: InputFacts,
    *,
    stride: Size | Literal["patch"] | None,
    reading: Literal["place", "stretch"] = "place",
    pooling: ClassTokenPooling | MeanPooling | None = None,
    head_norm_eps: float = 1e-5,
) -> Classifier:
    """An AST from its parts.

    Args:
        state: where they were taken from; nothing may be left in it.
        body: everything but the head.
        head: its tensors, under the names of our classifier.
        facts: what the file does not hold.
        stride: from patch to patch; "patch": they do not overlap; None: read off the positions.
        reading: which positions the patches of other inputs read.
        pooling: what stands for a clip; None: the mean of the leading tokens.
        head_norm_eps: what the head's LayerNorm adds to the variance.

    Raises:
        InputError: if tensors are left, or a fact is missing or contradicted.
    """
    state.finish()
    size = _input_size(facts, state.origin)
    patches = read_patches(size, body.patch, len(body.cells), stride)
    grid = PatchGrid(size=size, patch=patches.patch, stride=patches.stride).shape
    frames = size.time if facts.fixed_frames == "input" else facts.fixed_frames
    config = ModelConfig(
        name=state.origin,
        labels=read_labels(facts, len(head["head.linear.weight"])),
        task=read_task(facts),
        frontend=read_frontend(facts, size.freq, frames),
        patches=patches,
        positions=position_grid(LearnedGrid, grid, patches.stride, facts.hop_ms, reading=reading),
        encoder=body.encoder,
        pooling=ClassTokenPooling(tokens=body.leading) if pooling is None else pooling,
        head_norm_eps=head_norm_eps,
    )
    table = {"positions.table": body.cells.reshape(*grid, -1)}
    return assemble(config, body.tensors | head | table)


def _input_size(facts: InputFacts, origin: str) -> FreqTime:
    """Mel bins and frames that the positions were learned on."""
    if facts.input_size is None:
        raise InputError(
            f"{origin} weights do not say what their positions stand for; give input_size="
            "(mel bins, frames), (128, 1024) for models trained on AudioSet"
        )
    return freq_time(facts.input_size)


def read_patches(
    size: FreqTime, patch: FreqTime, cells: int, stride: Size | Literal["patch"] | None
) -> PatchConfig:
    """Patches of a kernel's size; cells that fill no whole patch are left out, as a convolution.

    Args:
        size: mel bins and frames that the positions were learned on.
        patch: size of the kernel.
        cells: positions.
        stride: from patch to patch; "patch": they do not overlap; None: read off the positions.

    Raises:
        InputError: if the positions do not fit.
    """
    if stride is None:
        chosen, remedy = _read_stride(size, patch, cells), ""
    elif stride == "patch":
        chosen, remedy = patch, "correct input_size"
    else:
        chosen, remedy = freq_time(stride), "leave stride out, or correct input_size"
    grid = PatchGrid(size=size, patch=patch, stride=chosen)
    if grid.num_patches != cells:
        raise InputError(
            f"stride {chosen} gives {grid.shape} = {grid.num_patches} patches in {size}, the file "
            f"has positions for {cells}; {remedy}"
        )
    return PatchConfig(patch=patch, stride=chosen, remainder="crop")


def _read_stride(size: FreqTime, patch: FreqTime, cells: int) -> FreqTime:
    """The stride that gives as many patches as there are positions.

    Patches side by side are tried first (the four papers on AST use them), then the same step along
    both axes (the original), then any step up to the patch size. An axis that one patch fills has
    no other step than the patch.
    """
    one_row, one_column = size.freq == patch.freq, size.time == patch.time
    smaller = product(
        range(patch.freq if one_row else 1, patch.freq + 1),
        range(patch.time if one_column else 1, patch.time + 1),
    )
    fitting = [
        stride
        for stride in (FreqTime(*pair) for pair in smaller)
        if PatchGrid(size=size, patch=patch, stride=stride).num_patches == cells
    ]
    if patch in fitting:
        return patch
    square = [stride for stride in fitting if stride.freq == stride.time]
    found = square or fitting
    where = f"{size} with patches of {patch}"
    if not found:
        raise InputError(
            f"input_size {where} gives {cells} positions under no stride up to the patch size; "
            "correct input_size, or give stride"
        )
    if len(found) > 1:
        strides = " or ".join(str(stride) for stride in found[:3])
        raise InputError(
            f"several strides give {cells} positions for {where}, such as {strides}; give stride"
        )
    return found[0]
