"""What a preset fixes and a recipe or a call may change, and the configuration it stands for."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from melastic.config import (
    HEAD_NORM_EPS,
    AttentionPooling,
    ClassTokenPooling,
    EncoderConfig,
    FactorisedGrid,
    Fold,
    FrontendConfig,
    KernelResize,
    LearnedGrid,
    Level,
    MambaConfig,
    MeanPooling,
    ModelConfig,
    PatchConfig,
    PoolingConfig,
    SlaneyMel,
    Standing,
    Task,
    TokenSemanticPooling,
    TransformerConfig,
    Variant,
    WindowConfig,
)
from melastic.errors import InputError, check_choices, unknown_name
from melastic.options import LevelOf, PatchSize, SizeOf
from melastic.patches.grid import FreqTime, Remainder, freq_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a preset fixes and a recipe or a call may change."""

    encoder: Literal["transformer", "mamba", "windows"] = "transformer"
    """Attention among all tokens of a clip, a state space along them, or attention in windows of a
    folded clip."""
    dim: int = 192
    """Width of a token."""
    depth: int = 12
    """Blocks; window encoders have ``depths``."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each group of a window encoder; width and heads double from group to group."""
    window: int = 8
    """Side of a window (tokens)."""
    bands: int = 4
    """Bands that ``input_size`` fills where clips are folded for a window encoder."""
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
    positions: Literal["learned", "factorised", "none"] = "learned"
    """One vector for each cell of the grid, or for each row and each column, or none."""
    pooling: Literal["class", "class+distillation", "mean", "attention", "token-semantic"] = "class"
    """What stands for a clip."""
    class_token: Standing = "first"
    """Where the class token stands among a clip's tokens; both: one at each end; none: there is
    none, as where clips are pooled by the mean or by attention."""
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
    mel: Literal["kaldi", "slaney"] = "kaldi"
    """Log-mels as Kaldi (AST) or librosa (HTS-AT) defines them."""
    mel_hz: tuple[float, float] | None = None
    """Edges of librosa's filters (Hz); None: 50 to 14000, or half the sample rate."""
    window_ms: float = 25.0
    """Analysis window (ms)."""
    level: LevelOf = None
    """Take each clip's level off, with a floor this far below it (dB); None: keep it."""

    def __post_init__(self) -> None:
        """Refuse unknown choices, and numbers in place of parts."""
        check_choices("model", self)
        if not isinstance(self.level, Level | None):
            raise InputError(f"level is a Level, got {self.level!r}; try Level(floor_db=60)")
        if not isinstance(self.resize, KernelResize):
            raise InputError(f"resize is a KernelResize, got {self.resize!r}; try KernelResize()")


def model_config(
    architecture: Architecture,
    *,
    name: str,
    labels: tuple[str, ...],
    task: Task = "single-label",
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
    windows = architecture.encoder == "windows"
    patches = PatchConfig(
        patch=patch,
        stride=stride,
        remainder=architecture.remainder,
        resize=architecture.resize,
        fold=_fold(architecture) if windows else None,
        bin_scale=windows,
        norm_eps=WindowConfig().norm_eps if windows else None,
    )
    return ModelConfig(
        name=name,
        labels=labels,
        task=task,
        frontend=frontend_config(architecture, **statistics),
        patches=patches,
        positions=_positions(architecture, patches, size),
        encoder=_encoder(architecture),
        pooling=_pooling(architecture),
        head_norm_eps=HEAD_NORM_EPS if architecture.head_norm else None,
    )


def without_effect(architecture: Architecture, base: Architecture) -> list[str]:
    """Fields that differ from another architecture's and change nothing, since no part uses them.

    Args:
        architecture: as it was asked for.
        base: what it was made of.
    """
    changed = [
        field.name
        for field in fields(Architecture)
        if getattr(architecture, field.name) != getattr(base, field.name)
    ]
    return [name for name in changed if not _matters(architecture, name, getattr(base, name))]


def _matters(architecture: Architecture, name: str, value: Any) -> bool:
    """Whether another value of a field would give another model, or none."""
    other = replace(architecture, **{name: value})
    try:
        return model_config(other, name="", labels=()) != model_config(
            architecture, name="", labels=()
        )
    except InputError:
        return True


def frontend_config(architecture: Architecture, **statistics: Any) -> FrontendConfig:
    """The front end of an architecture.

    Args:
        architecture: sizes and choices of parts.
        **statistics: ``mean``, ``std`` and ``fixed_frames``.
    """
    return FrontendConfig(
        sample_rate=architecture.sample_rate,
        num_mels=freq_time(architecture.input_size).freq,
        hop_ms=architecture.hop_ms,
        window_ms=architecture.window_ms,
        slaney=_slaney(architecture),
        level=architecture.level,
        **statistics,
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


def _slaney(architecture: Architecture) -> SlaneyMel | None:
    """Filters of librosa where they are wanted, none of them above half the sample rate."""
    if architecture.mel == "kaldi":
        return None
    if architecture.mel != "slaney":
        raise unknown_name("mel", str(architecture.mel), ("kaldi", "slaney"))
    if architecture.mel_hz is not None:
        return SlaneyMel(low_hz=architecture.mel_hz[0], high_hz=architecture.mel_hz[1])
    return SlaneyMel(high_hz=min(SlaneyMel().high_hz, architecture.sample_rate / 2))


def _fold(architecture: Architecture) -> Fold:
    """How clips are folded for a window encoder: bands as long as those of its input size."""
    size = freq_time(architecture.input_size)
    frames = max(1, size.time // max(1, architecture.bands))
    merges = len(architecture.depths) - 1
    return Fold(frames=frames, bands=architecture.bands, merges=merges)


def _positions(
    architecture: Architecture, patches: PatchConfig, size: FreqTime
) -> LearnedGrid | None:
    """The position table that an architecture names."""
    if architecture.positions == "none":
        return None
    return position_grid(
        FactorisedGrid if architecture.positions == "factorised" else LearnedGrid,
        patches.grid(size).shape,
        patches.stride,
        architecture.hop_ms,
        reading=architecture.reading,
        init=architecture.position_init,
    )


def _encoder(architecture: Architecture) -> EncoderConfig:
    """The encoder that an architecture names."""
    a = architecture
    if a.encoder == "windows":
        groups = range(len(a.depths))
        return WindowConfig(
            embed_dim=a.dim,
            depths=a.depths,
            num_heads=tuple(a.num_heads * 2**i for i in groups),
            windows=tuple(a.window for _ in groups),
            mlp_ratio=a.mlp_ratio,
        )
    if a.encoder == "mamba":
        if a.variant not in get_args(Variant):
            raise unknown_name("variant", str(a.variant), get_args(Variant))
        return MambaConfig(dim=a.dim, depth=a.depth, variant=a.variant, state=a.state)
    if a.encoder != "transformer":
        raise unknown_name("encoder", str(a.encoder), ("transformer", "mamba", "windows"))
    return TransformerConfig(dim=a.dim, depth=a.depth, num_heads=a.num_heads, mlp_ratio=a.mlp_ratio)


def _pooling(architecture: Architecture) -> PoolingConfig:
    """The pooling that an architecture names."""
    a = architecture
    if a.pooling == "mean":
        return MeanPooling()
    if a.pooling == "attention":
        return AttentionPooling(num_heads=a.num_heads)
    if a.pooling == "token-semantic":
        bins = freq_time(a.patch).freq * 2 ** (len(a.depths) - 1)
        return TokenSemanticPooling(rows=max(1, -(-freq_time(a.input_size).freq // bins)))
    if a.pooling not in ("class", "class+distillation"):
        known = ("class", "class+distillation", "mean", "attention", "token-semantic")
        raise unknown_name("pooling", str(a.pooling), known)
    if a.class_token == "none":
        raise InputError(
            f"pooling by {a.pooling!r} needs a class token, got class_token='none'; use "
            "pooling='mean' or 'attention', or a place for it"
        )
    tokens = 2 if a.pooling == "class+distillation" or a.class_token == "both" else 1
    return ClassTokenPooling(tokens=tokens, place=a.class_token, positioned=a.class_position)
