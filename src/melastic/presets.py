"""Named models. A paper is a combination of parts, about ten lines each."""

import dataclasses
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from melastic.classifier import Classifier
from melastic.config import (
    HEAD_NORM_EPS,
    AttentionPooling,
    ClassTokenPooling,
    EncoderConfig,
    FactorisedGrid,
    FrontendConfig,
    KernelResize,
    LearnedGrid,
    Level,
    MambaConfig,
    MeanPooling,
    ModelConfig,
    PatchConfig,
    Place,
    PoolingConfig,
    TransformerConfig,
    Variant,
)
from melastic.errors import InputError, unknown_name
from melastic.options import PatchSize, SizeOf
from melastic.patches.grid import FreqTime, Remainder, freq_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a preset fixes and a recipe or a call may change."""

    encoder: Literal["transformer", "mamba"] = "transformer"
    """Attention among all tokens of a clip, or a state space along them."""
    dim: int = 192
    """Width of a token."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 3
    """Attention heads, of the encoder and of pooling by attention."""
    mlp_ratio: float = 4.0
    """Width of a transformer block's MLP, in units of ``dim``."""
    variant: Variant = "fo-bi"
    """Directions of a state space: forward, both over one input, both with weights of their own."""
    state: int = 16
    """Numbers that each channel of a state space remembers."""
    patch: SizeOf = 16
    """Mel bins and frames of one patch; one number means square."""
    stride: PatchSize = None
    """Mel bins and frames from one patch to the next; None: the patch size, so none overlap."""
    input_size: SizeOf = (128, 1024)
    """Mel bins and frames that the position table covers; longer clips are squeezed into it."""
    positions: Literal["learned", "factorised"] = "learned"
    """One vector for each cell of the grid, or for each row and each column."""
    pooling: Literal["class", "class+distillation", "mean", "attention"] = "class"
    """What stands for a clip."""
    class_token: Place = "first"
    """Where the class token stands among a clip's tokens; both: one at each end."""
    class_position: bool = False
    """Whether the class token has a learned position too."""
    head_norm: bool = True
    """Whether the head has a LayerNorm in front of its linear layer."""
    reading: Literal["place", "stretch", "index"] = "place"
    """Which cells of the table a patch reads: by its place, stretched over the clip, or counted."""
    position_init: Literal["normal", "sincos"] = "normal"
    """What a new position table holds."""
    remainder: Remainder = "pad"
    """Cells that fill no whole patch: padded or cropped."""
    resize: KernelResize = KernelResize()
    """How the patch kernel is read at other patch sizes."""
    sample_rate: int = 16_000
    """Samples per second (Hz)."""
    hop_ms: float = 10.0
    """Step between frames (ms)."""
    level: Level | None = None
    """Take each clip's level off; None: log-mels of the waveform as it is."""


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
}
"""Audio Mamba, and what FlexiAST and ElasticAST change about it."""

PRESETS = {
    f"{family}-{size}": change(base)
    for family, change in (FAMILIES | MAMBAS).items()
    for size, base in SIZES.items()
}


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
            ``fixed_frames``.

    Raises:
        InputError: if the name or an override is unknown, or sizes do not fit.
    """
    labels = overrides.pop("labels", None)
    if labels is None:
        if num_classes is None or num_classes < 1:
            raise InputError(f"num_classes must be at least 1, got {num_classes}; try 10")
        labels = tuple(str(i) for i in range(num_classes))
    elif num_classes not in (None, len(labels)):
        raise InputError(f"num_classes is {num_classes} and there are {len(labels)} labels")
    task = overrides.pop("task", "single-label")
    statistics = {k: overrides.pop(k) for k in ("mean", "std", "fixed_frames") if k in overrides}
    architecture = architecture_of(name, **overrides)
    return Classifier(
        model_config(architecture, name=name, labels=tuple(labels), task=task, **statistics)
    )


def architecture_of(name: str, **overrides: Any) -> Architecture:
    """A preset with some fields changed.

    Raises:
        InputError: if the preset or a field is unknown.
    """
    if name not in PRESETS:
        raise unknown_name("model", name, PRESETS)
    fields = [field.name for field in dataclasses.fields(Architecture)]
    for key in overrides:
        if key not in fields:
            raise unknown_name("override", key, fields)
    return replace(PRESETS[name], **overrides)


def model_config(
    architecture: Architecture,
    *,
    name: str,
    labels: tuple[str, ...],
    task: Literal["single-label", "multi-label"] = "single-label",
    **statistics: Any,
) -> ModelConfig:
    """The full configuration of an architecture.

    Args:
        architecture: sizes and choices of parts.
        name: preset it came from.
        labels: name of each class.
        task: whether a clip has one label or several.
        **statistics: ``mean``, ``std`` and ``fixed_frames`` of the front end.
    """
    size, patch = freq_time(architecture.input_size), freq_time(architecture.patch)
    stride = patch if architecture.stride is None else freq_time(architecture.stride)
    patches = PatchConfig(
        patch=patch,
        stride=stride,
        remainder=architecture.remainder,
        resize=architecture.resize,
    )
    table = FactorisedGrid if architecture.positions == "factorised" else LearnedGrid
    return ModelConfig(
        name=name,
        labels=labels,
        task=task,
        frontend=FrontendConfig(
            sample_rate=architecture.sample_rate,
            num_mels=size.freq,
            hop_ms=architecture.hop_ms,
            level=architecture.level,
            **statistics,
        ),
        patches=patches,
        positions=position_grid(
            table,
            patches.grid(size).shape,
            stride,
            architecture.hop_ms,
            reading=architecture.reading,
            init=architecture.position_init,
        ),
        encoder=_encoder(architecture),
        pooling=_pooling(architecture),
        head_norm_eps=HEAD_NORM_EPS if architecture.head_norm else None,
    )


def position_grid(
    table: type[LearnedGrid],
    shape: FreqTime,
    stride: FreqTime,
    hop_ms: float,
    **rules: Any,
) -> LearnedGrid:
    """A position table with one cell for each patch.

    Args:
        table: full, or rows and columns.
        shape: patches along each axis.
        stride: mel bins and frames from one patch to the next.
        hop_ms: frame shift (ms).
        **rules: further fields of the table.
    """
    return table(grid=shape, cell_mels=float(stride.freq), cell_ms=stride.time * hop_ms, **rules)


def _encoder(architecture: Architecture) -> EncoderConfig:
    """The encoder that an architecture names."""
    a = architecture
    choices: dict[str, EncoderConfig] = {
        "transformer": TransformerConfig(
            dim=a.dim, depth=a.depth, num_heads=a.num_heads, mlp_ratio=a.mlp_ratio
        ),
        "mamba": MambaConfig(dim=a.dim, depth=a.depth, variant=a.variant, state=a.state),
    }
    if a.encoder not in choices:
        raise unknown_name("encoder", str(a.encoder), choices)
    return choices[a.encoder]


def _pooling(architecture: Architecture) -> PoolingConfig:
    """The pooling that an architecture names."""
    a = architecture
    if a.pooling == "mean":
        return MeanPooling()
    if a.pooling == "attention":
        return AttentionPooling(num_heads=a.num_heads)
    if a.pooling not in ("class", "class+distillation"):
        known = ("class", "class+distillation", "mean", "attention")
        raise unknown_name("pooling", str(a.pooling), known)
    if a.class_token not in get_args(Place):
        raise unknown_name("place of the class token:", str(a.class_token), get_args(Place))
    tokens = 2 if a.pooling == "class+distillation" or a.class_token == "both" else 1
    return ClassTokenPooling(tokens=tokens, place=a.class_token, positioned=a.class_position)
