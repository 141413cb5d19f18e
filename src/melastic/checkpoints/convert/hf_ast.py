"""AST as Hugging Face transformers keeps it: ``ASTForAudioClassification``, ``MIT/ast-*``.

Source: huggingface/transformers v5.23,
    ``models/audio_spectrogram_transformer/modeling_audio_spectrogram_transformer.py``.

Absorbed here: queries, keys and values are three layers; every LayerNorm, the head's too, adds
1e-12; files on the Hub use the names of version 4, ``state_dict()`` of version 5 has others.
"""

import dataclasses
from dataclasses import dataclass

from melastic.checkpoints.convert.ast import AstFacts, AstNames, build, take_body, take_head
from melastic.checkpoints.convert.tensors import EncoderNames, OfficialState
from melastic.classifier import Classifier

BODY = "audio_spectrogram_transformer."


@dataclass(frozen=True, slots=True, kw_only=True)
class HfAstFacts(AstFacts):
    """What such a file does not hold; most of it stands in the ``config.json`` beside it."""

    norm_eps: float = 1e-12
    """What each LayerNorm adds to the variance (``layer_norm_eps``)."""


FILE_NAMES = AstNames(
    tokens=(f"{BODY}embeddings.cls_token", f"{BODY}embeddings.distillation_token"),
    positions=f"{BODY}embeddings.position_embeddings",
    patch=f"{BODY}embeddings.patch_embeddings.projection",
    encoder=EncoderNames(
        block=f"{BODY}encoder.layer.{{}}.",
        norm1="layernorm_before",
        qkv=tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
        out="attention.output.dense",
        norm2="layernorm_after",
        fc1="intermediate.dense",
        fc2="output.dense",
        norm=f"{BODY}layernorm",
    ),
    head_norm="classifier.layernorm",
    head_linear="classifier.dense",
)
"""Names in the files, and in memory up to version 4."""
MEMORY_NAMES = dataclasses.replace(
    FILE_NAMES,
    encoder=dataclasses.replace(
        FILE_NAMES.encoder,
        block=f"{BODY}layers.{{}}.",
        qkv=tuple(f"attention.{part}_proj" for part in ("q", "k", "v")),
        out="attention.o_proj",
        fc1="mlp.fc1",
        fc2="mlp.fc2",
    ),
)
"""Names in memory from version 5 on."""


def convert(state: OfficialState, facts: HfAstFacts) -> Classifier:
    """An AST with the numbers of transformers.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    names = MEMORY_NAMES if state.count(MEMORY_NAMES.encoder.block) else FILE_NAMES
    eps = facts.norm_eps
    state.absorb("queries, keys and values are one layer")
    body = take_body(state, names, facts.num_heads, eps)
    head = take_head(state, names, body.encoder.dim)
    return build(state, body, head, facts, stride=facts.stride, head_norm_eps=eps)
