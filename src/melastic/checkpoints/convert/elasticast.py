"""ElasticAST: clips of any length, packed in rows; no class token, positions by row and column.

Source: JiuFengSC/ElasticAST da75493, described without its code; ElasticAST (arXiv:2407.08691).

Absorbed here: attention is not divided by the square root of the head's width, neither in the
encoder nor in the pooling, so that queries are multiplied by it; the kernel is a linear layer;
queries lie apart from keys and values; a model that averages tokens still holds the pooling that it
does not use. Official clips have a multiple of 16 frames; the last patch of others is padded.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from melastic.architecture import position_grid
from melastic.checkpoints.convert.common import (
    AttentionFacts,
    assemble,
    read_frontend,
    read_labels,
    read_task,
)
from melastic.checkpoints.convert.tensors import EncoderNames, OfficialState, take_encoder
from melastic.classifier import Classifier
from melastic.config import (
    AttentionPooling,
    FactorisedGrid,
    FrontendConfig,
    MeanPooling,
    ModelConfig,
    PatchConfig,
)
from melastic.errors import InputError, unknown_name
from melastic.patches.grid import FreqTime, freq_time

NAMES = EncoderNames(
    block="blocks.modules_list.{}.",
    norm1="norm1",
    qkv=("attn.to_q", "attn.to_kv"),
    out="attn.proj",
    norm2="norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    norm="norm",
)
POOLINGS = ("attention", "mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticAstFacts(AttentionFacts):
    """What an ElasticAST file does not hold."""

    pooling: str = "attention"
    """What stands for a clip: a learned query's "attention", or the "mean" of its tokens."""
    patch: int | tuple[int, int] | None = None
    """Mel bins and frames of a patch; None: square, or what ``input_size`` says."""
    input_size: tuple[int, int] | None = None
    """Mel bins and frames that the position tables span; None: read off them."""
    fixed_frames: int | None = None
    """Audio is cut or zero-padded to this many frames; None: keep every frame, as trained."""


def convert(state: OfficialState, facts: ElasticAstFacts) -> Classifier:
    """An ElasticAST with the official numbers.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is contradicted.
    """
    rows = state.take("pos_embed_freq", None, None)
    dim = rows.shape[1]
    columns = state.take("pos_embed_time", None, dim)
    grid = FreqTime(len(rows), len(columns))
    linear = state.take_linear("patch_embed.0", "patch", dim, None)
    patch = _patch(facts, grid, linear["patch.weight"].shape[1])
    encoder, tensors = take_encoder(state, NAMES, dim, facts.num_heads, norm_eps=1e-6)
    scale = math.sqrt(dim / encoder.num_heads)
    _scale_queries(tensors, dim, scale)
    state.absorb(f"attention is not divided by {scale:g}: queries are multiplied by it")
    pooling, pooled = _take_pooling(state, facts, dim, encoder.num_heads, scale)
    tensors |= pooled
    tensors |= state.take_linear("mlp_norm", "head.norm", dim)
    tensors |= state.take_linear("head", "head.linear", None, dim)
    state.finish()
    tensors |= {
        "patch_embed.kernel": linear["patch.weight"].reshape(dim, *patch),
        "patch_embed.bias": linear["patch.bias"],
        "positions.freq": rows,
        "positions.time": columns,
    }
    config = ModelConfig(
        name=state.origin,
        labels=read_labels(facts, len(tensors["head.linear.weight"])),
        task=read_task(facts),
        frontend=read_frontend(facts, grid.freq * patch.freq, facts.fixed_frames),
        patches=PatchConfig(patch=patch, stride=patch),
        positions=position_grid(FactorisedGrid, grid, patch, facts.hop_ms, reading="index"),
        encoder=encoder,
        pooling=pooling,
        head_norm_eps=1e-6,
    )
    return assemble(config, tensors)


def _scale_queries(tensors: dict[str, Tensor], dim: int, scale: float) -> None:
    """Multiply the queries of every block, weights and biases, in place."""
    for name, value in tensors.items():
        if ".attention.qkv." in name:
            value[:dim] *= scale


def _take_pooling(
    state: OfficialState, facts: ElasticAstFacts, dim: int, num_heads: int, scale: float
) -> tuple[AttentionPooling | MeanPooling, dict[str, Tensor]]:
    """What stands for a clip, and its tensors."""
    if facts.pooling == "mean":
        state.drop("attn_pool")
        return MeanPooling(), {}
    if facts.pooling != "attention":
        raise unknown_name("pooling", str(facts.pooling), POOLINGS)
    ours = {"pool.query": state.take("attn_pool_queries", dim)}
    ours |= state.take_linear("attn_pool.to_q", "pool.to_q", dim, dim)
    ours |= state.take_linear("attn_pool.to_kv", "pool.to_kv", 2 * dim, dim)
    ours |= state.take_linear("attn_pool.proj", "pool.out", dim, dim)
    for kind in ("weight", "bias"):
        ours[f"pool.to_q.{kind}"] *= scale
    return AttentionPooling(num_heads=num_heads), ours


def _patch(facts: ElasticAstFacts, grid: FreqTime, pixels: int) -> FreqTime:
    """Mel bins and frames of a patch.

    Args:
        facts: may say the patch, or the input that all patches together fill.
        grid: rows and columns of patches.
        pixels: cells of the spectrogram in one patch.

    Raises:
        InputError: if what is said contradicts the file, or too little is said.
    """
    size = None if facts.input_size is None else freq_time(facts.input_size)
    if facts.patch is not None:
        patch = freq_time(facts.patch)
    elif size is not None:
        patch = FreqTime(max(1, size.freq // grid.freq), max(1, size.time // grid.time))
    else:
        patch = _square(grid, pixels)
    spanned = FreqTime(grid.freq * patch.freq, grid.time * patch.time)
    if patch.freq * patch.time != pixels or size not in (None, spanned):
        said = f"patch {patch}" if size is None else f"input_size {size}"
        raise InputError(
            f"the file has positions for {grid} patches of {pixels} pixels, which do not make "
            f"{said}; leave it out, or correct it"
        )
    return patch


def _square(grid: FreqTime, pixels: int) -> FreqTime:
    """The patch where it is square and as many as there are rows fill the usual mel bins."""
    side, mels = math.isqrt(pixels), FrontendConfig().num_mels
    if side * side != pixels or grid.freq * side != mels:
        raise InputError(
            f"the patch size is read off where patches are square and fill {mels} mel bins, got "
            f"{pixels} pixels in {grid.freq} rows; give patch=(mel bins, frames)"
        )
    return FreqTime(side, side)
