"""SSAST: an AST trained on audio without labels, then fine-tuned.

Source: YuanGongND/ssast a1a3eec, ``src/models/ast_models.py``; SSAST (arXiv:2110.09784).

Two kinds of file. A fine-tuned one (it has a head) is a classifier. One of pre-training is a start:
its positions are cropped or interpolated to the new grid and its head is new.

Absorbed here: two leading tokens take part in attention and are not in the mean that stands for the
clip; each has a position row of its own; heads of the pre-training tasks are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from melastic.training.masked import MaskedModel
from melastic.training.masks import Masking

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
        body = take_body(state, names, facts.num_heads, norm_eps=1e-6)
        return _start(state, facts, body, read_labels(facts, None))
    body = take_body(state, names, facts.num_heads, norm_eps=1e-6)
    pooling = _pooling(state, facts, body.leading)
    head = take_head(state, names, body.encoder.dim)
    return build(state, body, head, facts, stride=facts.stride, pooling=pooling)


def masked_model(
    state_dict: Mapping[str, Any], masking: Masking | None = None, **facts: Any
) -> MaskedModel:
    """The model of masked pretraining with the numbers of an official file of pre-training.

    Args:
        state_dict: tensors by name, as :func:`melastic.from_official` takes them.
        masking: what is asked; None: as the official code asks it.
        **facts: of a fine-tuned file, as there.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    state = OfficialState(state_dict, "ssast")
    tasks = {"mask_token": state.take("mask_embed", 1, 1, None).flatten()}
    for ours, theirs in (("tell", "cpredlayer"), ("draw", "gpredlayer")):
        for layer in (0, 2):
            tasks |= state.take_linear(f"{theirs}.{layer}", f"{ours}.{layer}", None, None)
    state.drop(*UNUSED)
    given = SsastFacts(**facts)
    body = take_body(state, with_distillation(NAMES, state), given.num_heads, norm_eps=1e-6)
    classifier = _start(state, given, body, ())
    model = MaskedModel(classifier, Masking(over="predictions") if masking is None else masking)
    own = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    model.load_state_dict(own | tasks)
    return model


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


def _start(
    state: OfficialState, facts: SsastFacts, body: Body, labels: tuple[str, ...]
) -> Classifier:
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
        labels=labels,
        task=read_task(facts),
        frontend=read_frontend(facts, size.freq, frames),
        patches=PatchConfig(patch=body.patch, stride=stride, remainder="crop"),
        positions=position_grid(LearnedGrid, grid, stride, facts.hop_ms),
        encoder=body.encoder,
        pooling=_pooling(state, facts, body.leading),
    )
    head = new_head(config) if labels else {}
    return assemble(config, body.tensors | {"positions.table": table} | head)
