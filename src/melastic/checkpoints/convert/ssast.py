"""SSAST: an AST trained on audio without labels, then fine-tuned.

Source: YuanGongND/ssast a1a3eec, ``src/models/ast_models.py``; SSAST (arXiv:2110.09784).

Two kinds of file. A fine-tuned one (it has a head) is a classifier. One of pre-training is a start:
its positions are cropped or interpolated to the new grid and its head is new.

Absorbed here: two leading tokens take part in attention and are not in the mean that stands for the
clip; each has a position row of its own; heads of the pre-training tasks are left out.
"""

from dataclasses import dataclass

from melastic.architecture import position_grid
from melastic.checkpoints.convert.ast import (
    NAMES,
    UNUSED,
    AstFacts,
    Body,
    build,
    take_body,
    take_head,
    with_distillation,
)
from melastic.checkpoints.convert.common import (
    assemble,
    new_head,
    read_frontend,
    read_labels,
    read_task,
)
from melastic.checkpoints.convert.tensors import OfficialState
from melastic.checkpoints.convert.vit import fit_positions
from melastic.classifier import Classifier
from melastic.config import (
    ClassTokenPooling,
    LearnedGrid,
    MeanPooling,
    ModelConfig,
    PatchConfig,
)
from melastic.errors import InputError, unknown_name
from melastic.patches.grid import FreqTime, PatchGrid, freq_time

PRETRAINING = ("mask_embed", "cpredlayer.", "gpredlayer.")
"""The mask token, and the heads of the two tasks."""
MELS, FRAMES = "p_input_fdim", "p_input_tdim"
"""Size of the input of pre-training, which only its own files hold."""
POOLINGS = ("mean", "class")


@dataclass(frozen=True, slots=True, kw_only=True)
class SsastFacts(AstFacts):
    """What an SSAST file does not hold; a start also needs ``num_classes`` or ``labels``."""

    pooling: str = "mean"
    """What stands for a clip: "mean" of its patches' tokens, or of the leading ones ("class")."""


def convert(state: OfficialState, facts: SsastFacts) -> Classifier:
    """An SSAST classifier, or a start for one from a file of pre-training.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    state.drop(*UNUSED)
    names = with_distillation(NAMES, state)
    if MELS in state:
        return _start(state, facts, take_body(state, names, facts.num_heads, norm_eps=1e-6))
    body = take_body(state, names, facts.num_heads, norm_eps=1e-6)
    pooling = _pooling(state, facts, body.leading)
    head = take_head(state, names, body.encoder.dim)
    return build(state, body, head, facts, stride=facts.stride, pooling=pooling)


def _pooling(
    state: OfficialState, facts: SsastFacts, leading: int
) -> ClassTokenPooling | MeanPooling:
    """What stands for a clip."""
    if facts.pooling == "mean":
        state.absorb("leading tokens take part in attention and not in the mean")
        return MeanPooling(leading=leading)
    if facts.pooling == "class":
        return ClassTokenPooling(tokens=leading)
    raise unknown_name("pooling", str(facts.pooling), POOLINGS)


def _start(state: OfficialState, facts: SsastFacts, body: Body) -> Classifier:
    """A classifier that starts from pre-training; its head is drawn from torch's generator.

    Input size and stride are those of pre-training where the facts do not say others.
    """
    trained = FreqTime(*(int(state.take(name)) for name in (MELS, FRAMES)))
    state.drop(*PRETRAINING)
    state.finish()
    size = trained if facts.input_size is None else freq_time(facts.input_size)
    stride = body.patch if facts.stride is None else freq_time(facts.stride)
    learned = PatchGrid(size=trained, patch=body.patch, stride=body.patch).shape
    if learned.freq * learned.time != len(body.cells):
        raise InputError(
            f"patches of {body.patch} fill {trained} in {learned}, the file has positions for "
            f"{len(body.cells)}; it is damaged, fetch it again"
        )
    grid = PatchGrid(size=size, patch=body.patch, stride=stride).shape
    table = fit_positions(body.cells.reshape(*learned, -1), grid)
    state.absorb(f"positions of {learned} patches are cropped or interpolated to {grid}")
    frames = size.time if facts.fixed_frames == "input" else facts.fixed_frames
    config = ModelConfig(
        name=state.origin,
        labels=read_labels(facts, None),
        task=read_task(facts),
        frontend=read_frontend(facts, size.freq, frames),
        patches=PatchConfig(patch=body.patch, stride=stride, remainder="crop"),
        positions=position_grid(LearnedGrid, grid, stride, facts.hop_ms),
        encoder=body.encoder,
        pooling=_pooling(state, facts, body.leading),
    )
    return assemble(config, body.tensors | {"positions.table": table} | new_head(config))
