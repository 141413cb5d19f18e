"""Named models. A paper is a combination of parts, about ten lines each."""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from melastic.architecture import Architecture, model_config
from melastic.classifier import Classifier
from melastic.errors import InputError, unknown_name
from melastic.serialize import from_json, plain, to_json

SIZES = {
    "nano": Architecture(dim=128, depth=6, num_heads=2),
    "tiny": Architecture(dim=192, depth=12, num_heads=3),
    "small": Architecture(dim=384, depth=12, num_heads=6),
    "base": Architecture(dim=768, depth=12, num_heads=12),
}
"""Widths and depths; tiny, small and base are DeiT's (arXiv:2012.12877)."""

FAMILIES: dict[str, Callable[[Architecture], Architecture]] = {
    "ast": lambda size: size,
    "flexiast": lambda size: replace(size, reading="stretch", position_init="sincos"),
    "elasticast": lambda size: replace(
        size, positions="factorised", position_init="sincos", pooling="attention"
    ),
    "melastic": lambda size: replace(size, position_init="sincos", pooling="attention"),
}
"""What a paper changes about a plain transformer of some size. FlexiAST and ElasticAST differ from
AST in training above all; ``melastic`` is the model that all dials are trained for."""


def audio_mamba(size: Architecture) -> Architecture:
    """Audio Mamba of a transformer's width: twice as many blocks, which have no MLP.

    Source: Audio Mamba (arXiv:2406.03344).

    Args:
        size: the transformer.
    """
    return replace(
        size,
        encoder="mamba",
        depth=2 * size.depth,
        reading="stretch",
        pooling="class",
        class_token="middle",
        class_position=True,
        head_norm=False,
    )


ANY_LENGTH = ("elasticast", "elasticaum", "melastic", "melasticaum")
"""Families whose clips keep their own lengths, whatever model they start from."""

MAMBAS: dict[str, Callable[[Architecture], Architecture]] = {
    "aum": audio_mamba,
    "flexiaum": lambda size: replace(audio_mamba(size), position_init="sincos"),
    "elasticaum": lambda size: replace(
        audio_mamba(size),
        positions="factorised",
        position_init="sincos",
        reading="place",
        pooling="attention",
        head_norm=True,
    ),
    "melasticaum": lambda size: replace(
        audio_mamba(size), position_init="sincos", reading="place", pooling="mean"
    ),
}
"""Audio Mamba, and what FlexiAST, ElasticAST and all dials together change about it."""


def htsat(dim: int, depths: tuple[int, ...], num_heads: int) -> Architecture:
    """HTS-AT: windows, a token-semantic head, and librosa's log-mels at 32 kHz.

    Source: HTS-AT (arXiv:2202.00874; RetroCirce/HTS-Audio-Transformer).

    Args:
        dim: width of a token in the first group.
        depths: blocks of each group.
        num_heads: attention heads of the first group.
    """
    return Architecture(
        encoder="windows",
        dim=dim,
        depths=depths,
        num_heads=num_heads,
        patch=4,
        input_size=(64, 1024),
        positions="none",
        pooling="token-semantic",
        head_norm=False,
        sample_rate=32_000,
        mel="slaney",
        window_ms=32.0,
    )


WINDOWS = {
    "htsat-nano": htsat(48, (1, 1, 2, 1), 2),
    "htsat-tiny": htsat(96, (2, 2, 6, 2), 4),
}
"""HTS-AT as published, 30 million parameters, and a small one."""

PRESETS = {
    f"{family}-{size}": change(base)
    for family, change in (FAMILIES | MAMBAS).items()
    for size, base in SIZES.items()
} | WINDOWS


def list_models(pattern: str = "*") -> list[str]:
    """Names of presets and of bundled weights.

    Args:
        pattern: shell-style, such as ``"ast-*"``.
    """
    from melastic.checkpoints.store import bundled

    return sorted(name for name in {*PRESETS, *bundled()} if fnmatch.fnmatch(name, pattern))


def create_model(name: str, *, num_classes: int | None = None, **overrides: Any) -> Classifier:
    """A model with random weights, drawn from torch's global generator.

    Args:
        name: a preset, such as ``"ast-tiny"``.
        num_classes: how many classes; may be left out where ``labels`` are given.
        **overrides: fields of :class:`Architecture`, and ``labels``, ``task``, ``mean``, ``std``,
            ``fixed_frames``; ``class_token="none"`` pools by the mean, where neither the preset
            nor ``pooling`` says otherwise.

    Raises:
        InputError: if the name or an override is unknown, or sizes do not fit.
    """
    overrides = {name: plain(value) for name, value in overrides.items()}
    num_classes, given = plain(num_classes), overrides.pop("labels", None)
    if given is not None and (isinstance(given, str) or not isinstance(given, Iterable)):
        raise InputError(f"labels are names in a sequence, got {given!r}; try ('dog', 'cat')")
    labels = () if given is None else tuple(given)
    if not all(isinstance(label, str) for label in labels):
        raise InputError(f"labels are names in a sequence, got {given!r}; try ('dog', 'cat')")
    if given is None:
        if not isinstance(num_classes, int) or num_classes < 1:
            raise InputError(f"num_classes must be at least 1, got {num_classes!r}; try 10")
        labels = tuple(str(i) for i in range(num_classes))
    elif num_classes not in (None, len(labels)):
        raise InputError(
            f"num_classes is {num_classes} and there are {len(labels)} labels; leave it out"
        )
    task = overrides.pop("task", "single-label")
    statistics = {k: overrides.pop(k) for k in ("mean", "std", "fixed_frames") if k in overrides}
    architecture = architecture_of(name, **overrides)
    return Classifier(model_config(architecture, name=name, labels=labels, task=task, **statistics))


def architecture_of(name: str, **overrides: Any) -> Architecture:
    """A preset with some fields changed.

    Raises:
        InputError: if the preset or a field is unknown, or a value is of another type.
    """
    if name not in PRESETS:
        raise unknown_name("model", name, PRESETS)
    fields = [field.name for field in dataclasses.fields(Architecture)]
    for key in overrides:
        if key not in fields:
            raise unknown_name("override", key, fields)
    if overrides.get("class_token") == "none" and PRESETS[name].pooling.startswith("class"):
        overrides.setdefault("pooling", "mean")
    changed = replace(PRESETS[name], **overrides)
    return from_json(Architecture, to_json(changed), name) if overrides else changed
