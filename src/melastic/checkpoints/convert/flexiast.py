"""FlexiAST: an AST for many patch sizes.

Source: JiuFengSC/FlexiAST_INTERSPEECH23 74a6ee8; FlexiAST (arXiv:2307.09286).

Absorbed here: the kernel and positions of the AST that training started from are still in the file,
under almost the names of the flexible ones; each leading token has a position row of its own.
Kernels are resized by the pseudo-inverse without antialiasing, positions with it.
"""

import dataclasses
from dataclasses import dataclass

from melastic.checkpoints.convert.ast import (
    NAMES,
    InputFacts,
    build,
    take_body,
    take_head,
    with_distillation,
)
from melastic.checkpoints.convert.tensors import OfficialState
from melastic.classifier import Classifier

FLEXIBLE = dataclasses.replace(NAMES, positions="pos_embed.pos_embed", patch="patch_embed.proj")
STALE = ("v.patch_embed.", "v.pos_embed", "v.head.", "v.head_dist.")
"""Kernel, positions and ImageNet heads of the AST that training started from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexiAstFacts(InputFacts):
    """What a FlexiAST file does not hold; its patches never overlap."""


def convert(state: OfficialState, facts: FlexiAstFacts) -> Classifier:
    """A FlexiAST with the official numbers, for any patch size.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    state.drop(*STALE)
    state.absorb("the stale kernel and positions of the AST it was trained from are left out")
    names = with_distillation(FLEXIBLE, state)
    body = take_body(state, names, facts.num_heads, norm_eps=1e-6)
    head = take_head(state, names, body.encoder.dim)
    return build(state, body, head, facts, stride="patch", reading="stretch")
