"""What a classifier is made of. Each default stands here once, with its unit."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from melastic.encoders.config import (
    EncoderConfig,
    MambaConfig,
    TransformerConfig,
    Variant,
    WindowConfig,
)
from melastic.errors import InputError, unknown_name
from melastic.frontend.config import FrontendConfig, Level, SlaneyMel
from melastic.patches.config import (
    FactorisedGrid,
    KernelResize,
    LearnedGrid,
    PatchConfig,
    PositionConfig,
)
from melastic.patches.fold import Fold
from melastic.patches.view import View

__all__ = [
    "HEAD_NORM_EPS",
    "TAPS",
    "AttentionPooling",
    "ClassTokenPooling",
    "CurvePoint",
    "EncoderConfig",
    "FactorisedGrid",
    "Fold",
    "FrontendConfig",
    "KernelResize",
    "LearnedGrid",
    "Level",
    "MambaConfig",
    "MeanPooling",
    "ModelConfig",
    "PatchConfig",
    "Place",
    "PoolingConfig",
    "PositionConfig",
    "SlaneyMel",
    "Standing",
    "TokenSemanticPooling",
    "TransformerConfig",
    "Variant",
    "WindowConfig",
]

Task = Literal["single-label", "multi-label"]
TASKS: tuple[Task, ...] = get_args(Task)
"""Whether a clip has one label or several."""
Place = Literal["first", "middle", "last", "both"]
"""Where class tokens stand among the tokens of a clip."""
Standing = Literal[Place, "none"]
"""Where they stand, if there are any."""
HEAD_NORM_EPS = 1e-5
"""Added to the variance in a head's LayerNorm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTokenPooling:
    """Learned tokens among those of each clip; their mean after the encoder stands for the clip."""

    tokens: int = 1
    """1: class token. 2: class and distillation token (DeiT, original AST), or one at each end."""
    place: Place = "first"
    """Where they stand: in front; behind half of the clip's tokens (Audio Mamba); behind all; one
    at each end."""
    positioned: bool = False
    """Whether each has a learned position too, which is added to it (Audio Mamba)."""

    def __post_init__(self) -> None:
        """Refuse other counts."""
        wanted = {"first": (1, 2), "middle": (1,), "last": (1,), "both": (2,)}[self.place]
        if self.tokens not in wanted:
            raise InputError(
                f"class tokens whose place is {self.place!r} number {' or '.join(map(str, wanted))}"
                f", got {self.tokens}; choose another place or pooling"
            )

    @property
    def added(self) -> int:
        """Learned tokens among those of each clip."""
        return self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanPooling:
    """The mean of a clip's patch tokens stands for the clip."""

    leading: int = 0
    """Learned tokens in front of each clip that take part in attention and not in the mean (SSAST
    has 2)."""

    def __post_init__(self) -> None:
        """Refuse other counts."""
        if not 0 <= self.leading <= 2:
            raise InputError(f"0, 1 or 2 tokens lead a clip, got {self.leading}; 0 means none")

    @property
    def added(self) -> int:
        """Learned tokens among those of each clip."""
        return self.leading


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPooling:
    """One learned query attends to a clip's tokens.

    Source: ElasticAST (arXiv:2407.08691).
    """

    num_heads: int = 12
    """Attention heads."""

    @property
    def added(self) -> int:
        """Learned tokens among those of each clip: none."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSemanticPooling:
    """Each step in time has evidence for each class; their mean over the clip is its logits.

    Source: HTS-AT (arXiv:2202.00874), the token-semantic module.
    """

    rows: int = 2
    """Rows of a band's last grid that are weighed one by one."""

    @property
    def added(self) -> int:
        """Learned tokens among those of each clip: none."""
        return 0

    @property
    def parts(self) -> int:
        """Numbers that a head reads, in units of ``dim``."""
        return self.rows * TAPS


TAPS = 3
"""Steps that the evidence at a step is drawn from: itself and its neighbours."""
PoolingConfig = ClassTokenPooling | MeanPooling | AttentionPooling | TokenSemanticPooling


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """How well a model did on some clips through one view, and at what cost."""

    view: View
    """How the clips became tokens."""
    accuracy: float
    """Share of clips whose likeliest class was right."""
    gmacs_per_clip: float
    """Multiply-adds (10^9), mean over clips."""
    seconds_per_clip: float
    """Audio that was seen of a clip (s), mean over clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """All that is needed to build a classifier and to feed it."""

    name: str
    """Preset it was made from, or origin of its weights."""
    labels: tuple[str, ...]
    """Name of each class, in the order of the logits; none: an encoder without a head."""
    task: Task = "single-label"
    """Scores are a softmax over classes, or one sigmoid for each class."""
    frontend: FrontendConfig = FrontendConfig()
    patches: PatchConfig = PatchConfig()
    positions: PositionConfig | None = LearnedGrid()
    """What a token learns from its place; None: nothing but its window's (window encoders)."""
    encoder: EncoderConfig = TransformerConfig()
    pooling: PoolingConfig = ClassTokenPooling()
    head_norm_eps: float | None = HEAD_NORM_EPS
    """Added to the variance in the head's LayerNorm; None: the head has none."""
    curve: tuple[CurvePoint, ...] = ()
    """Views worth their cost, as measured by a sweep, cheapest first."""

    @property
    def head_inputs(self) -> int:
        """Numbers that the head reads for each clip."""
        parts = self.pooling.parts if isinstance(self.pooling, TokenSemanticPooling) else 1
        return self.encoder.dim * parts

    @property
    def extent(self) -> tuple[float, float]:
        """Mel bins and seconds that the model is made for; others are read too."""
        if self.positions is not None:
            return self.positions.extent
        fold = Fold() if self.patches.fold is None else self.patches.fold
        return self.frontend.num_mels, fold.frames * fold.bands * self.frontend.hop_ms / 1000

    def __post_init__(self) -> None:
        """Refuse unknown tasks, patches that no spectrogram can hold, and the same label twice."""
        if self.task not in TASKS:
            raise unknown_name("task", str(self.task), TASKS)
        bins, mels = self.patches.patch.freq, self.frontend.num_mels
        if bins > mels:
            raise InputError(
                f"a patch spans at most the {mels} mel bins, got {bins}; try {mels} or fewer"
            )
        self._check_fold()
        if len(set(self.labels)) < len(self.labels):
            twice = sorted(label for label, n in Counter(self.labels).items() if n > 1)
            raise InputError(f"labels must differ, {twice[0]} is there twice; rename one")

    def _check_fold(self) -> None:
        """Refuse folded spectrograms where no encoder attends in windows of them."""
        encoder, pooling = self.encoder, self.pooling
        folded = None if self.patches.fold is None else self.patches.fold.merges
        if folded != (encoder.merges if isinstance(encoder, WindowConfig) else None):
            raise InputError(
                "a window encoder, and no other, reads folded spectrograms with as many merges, "
                f"got {type(encoder).__name__} and fold {self.patches.fold}"
            )
        if folded is not None and self.positions is not None:
            raise InputError(
                "a window encoder learns places from its windows and has no position table, got "
                f"{type(self.positions).__name__}; set positions to none"
            )
        semantic = isinstance(pooling, TokenSemanticPooling)
        if semantic if folded is None else not (semantic or pooling == MeanPooling()):
            alone = "class, mean or attention" if folded is None else "mean or token-semantic"
            raise InputError(
                "token-semantic pooling needs a window encoder, whose only other pooling is the "
                f"mean; got {type(encoder).__name__} and {type(pooling).__name__}; try {alone}"
            )
