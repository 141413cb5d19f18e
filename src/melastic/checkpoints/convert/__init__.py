"""Official weights to ours: one file for each origin; their quirks end here."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

from melastic.checkpoints.convert import (
    ast,
    aum,
    elasticast,
    flexiast,
    hf_ast,
    htsat,
    ssast,
    vim,
    vit,
)
from melastic.checkpoints.convert.common import Facts
from melastic.checkpoints.convert.tensors import OfficialState
from melastic.classifier import Classifier
from melastic.errors import unknown_name

ORIGINS: dict[str, Callable[[OfficialState, Any], Classifier]] = {
    "ast": ast.convert,
    "hf-ast": hf_ast.convert,
    "vit": vit.convert,
    "flexiast": flexiast.convert,
    "elasticast": elasticast.convert,
    "ssast": ssast.convert,
    "aum": aum.convert,
    "vim": vim.convert,
    "htsat": htsat.convert,
}
"""Where weights come from, and what reads them. Its second parameter says which facts it takes."""


def from_official(state_dict: Mapping[str, Any], *, origin: str, **facts: Any) -> Classifier:
    """A classifier with the numbers of an official checkpoint.

    Called with spectrograms ``clips freq time`` it gives the logits of the official code, whose
    spectrograms are ``clips time freq``. What can be read off the shapes is read off.

    Args:
        state_dict: tensors by name, as ``torch.load(path, weights_only=True)`` gives them; a
            ``module.`` in front of every name, or a dict around it (``model``, ``state_dict``,
            ``model_state``), is taken off.
        origin: ``"ast"`` (YuanGongND/ast, and the AST in the repositories of FlexiAST, AuM and
            ElasticAST), ``"hf-ast"`` (transformers' ``ASTForAudioClassification``), ``"vit"``
            (timm's ImageNet ViT and DeiT, as a start for training), ``"flexiast"`` (call the model
            with ``patch=`` for other patch sizes), ``"elasticast"`` (clips of any length, best a
            multiple of the patch), ``"ssast"`` (fine-tuned; or, from a file of pre-training, a
            start whose head is new), ``"aum"`` (Audio Mamba, in whichever directions), ``"vim"``
            (Vision Mamba's ImageNet weights, as a start for an Audio Mamba), ``"htsat"``
            (RetroCirce/HTS-Audio-Transformer, whose spectrograms are log-mels in dB).
        **facts: what the file does not hold. For every origin:

            ``labels``: names of the classes; default "0", "1", ….
            ``num_classes``: their number; where the head is new this or ``labels`` is needed.
            ``task``: "single-label" (default), or "multi-label" for weights such as AudioSet's.
            ``num_heads``: attention heads; default width / 64 (not aum, vim); for htsat those of
            each group, which are read off.
            ``sample_rate`` (Hz), ``hop_ms`` (ms), ``mean``, ``std``: front end; default AudioSet's
            (htsat: 32 kHz, decibels).
            ``input_size``: (mel bins, frames) that the positions were learned on (ast, hf-ast,
            flexiast, fine-tuned ssast; needed. aum; default 128 mel bins and the frames that they
            fill), or shall cover (vit, vim, default (128, 1024); pre-trained ssast, default its
            own); elasticast's is read off.
            ``fixed_frames``: cut or zero-pad audio to so many frames; default the frames of
            ``input_size`` (ast, hf-ast, flexiast, ssast, aum), or None for no change.

            ``stride``: (mel bins, frames) from patch to patch, one number means both; default: read
            off the number of positions (ast, hf-ast, fine-tuned ssast, aum), or the patch size
            (vit, vim, pre-trained ssast).
            ``norm_eps``: added to the variance in every LayerNorm (hf-ast; default 1e-12).
            ``pooling``: what stands for a clip. elasticast: "attention" (default) or "mean"; ssast:
            "mean" (default; of the patches' tokens) or "class" (of the two leading ones).
            ``patch``: (mel bins, frames) of a patch, one number means both (elasticast; default
            square, or what ``input_size`` says).
            ``class_token``: where it stands (aum, vim): "first", "middle" (default), "last", "both"
            (one at each end) or "none" (the mean of all tokens); the last two are read off.
            ``spec_size``: side of the image (htsat; default read off the masks, or 256);
            ``window_size`` and ``num_mels`` are read off; ``low_hz``, ``high_hz`` of the mel
            filters (default 50 and 14000); ``fold``: what becomes of clips of other lengths:
            "stretch" (default, official), "tile" (official inference) or "bands" (ours).

    Raises:
        InputError: if the origin or a fact is unknown, a fact is missing or contradicted, or
            tensors are missing, unknown or of another shape.
    """
    kind = facts_of(origin)
    known = [field.name for field in dataclasses.fields(kind)]
    for name in facts:
        if name not in known:
            raise unknown_name(f"fact of {origin} weights:", name, known)
    return ORIGINS[origin](OfficialState(state_dict, origin), kind(**facts))


def facts_of(origin: str) -> type[Facts]:
    """The dataclass of what has to be said about weights of an origin.

    Raises:
        InputError: if the origin is unknown.
    """
    if origin not in ORIGINS:
        raise unknown_name("origin", str(origin), ORIGINS)
    kind: type[Facts] = typing.get_type_hints(ORIGINS[origin])["facts"]
    return kind
