"""What a classifier is made of. Each default stands here once, with its unit."""

from dataclasses import dataclass
from typing import Literal

from melastic.errors import InputError
from melastic.patches.grid import FreqTime, PatchGrid, Remainder
from melastic.patches.view import View

Variant = Literal["fo-fo", "fo-bi", "bi-bi"]
"""Directions of a state space encoder."""
Place = Literal["first", "middle", "last", "both"]
"""Where class tokens stand among the tokens of a clip."""
HEAD_NORM_EPS = 1e-5
"""Added to the variance in a head's LayerNorm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Log-mels relative to the clip's own level, above a floor: microphones differ in both.

    The level is the mean log-energy of the louder quarter of the frames.
    """

    floor_db: float = 60.0
    """How far below the level a constant floor is added, in which fainter sounds drown (dB)."""

    def __post_init__(self) -> None:
        """Refuse a floor above the level."""
        if not self.floor_db > 0:
            raise InputError(f"floor_db is positive, got {self.floor_db}; try 60")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendConfig:
    """Waveform to normalised log-mel spectrogram: ``(log_mel - mean) / (2 * std)``.

    Source: AST (YuanGongND/ast, dataloader) for the rule; mean and std are AudioSet's there.
    """

    sample_rate: int = 16_000
    """Samples per second (Hz)."""
    num_mels: int = 128
    """Mel bins."""
    hop_ms: float = 10.0
    """Step between frames (ms)."""
    window_ms: float = 25.0
    """Analysis window (ms)."""
    mean: float = -4.2677393
    """Mean of the log-mels of the training set (natural log of power)."""
    std: float = 4.5689974
    """Standard deviation of the log-mels of the training set (natural log of power)."""
    level: Level | None = None
    """Take the clip's level off; None: log-mels of the waveform as it is, as AST has them."""
    fixed_frames: int | None = None
    """Cut or zero-pad to this many frames before normalising, as AST does; None keeps them all."""

    def __post_init__(self) -> None:
        """Refuse sizes that give no spectrogram."""
        for name in ("sample_rate", "num_mels", "hop_ms", "window_ms", "std"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.fixed_frames is not None and self.fixed_frames < 1:
            raise InputError(f"fixed_frames is at least 1, got {self.fixed_frames}; None keeps all")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelResize:
    """How the patch kernel is read at other patch sizes than its own."""

    method: Literal["pi", "bilinear"] = "pi"
    """Pseudo-inverse of the patch's resizing (FlexiViT), or the kernel resized as an image."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """What resizes the patch: bilinear (FlexiAST, FlexiViT), or bicubic (timm)."""
    antialias: bool = False
    """Whether it smooths before reducing: off in FlexiAST, on in FlexiViT and timm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchConfig:
    """Spectrogram to patches."""

    patch: FreqTime = FreqTime(16, 16)
    """Mel bins and frames of one patch, and of the stored kernel."""
    stride: FreqTime = FreqTime(16, 16)
    """Mel bins and frames from one patch to the next; smaller than the patch: they overlap."""
    remainder: Remainder = "pad"
    """Cells that fill no whole patch: padded with the mean (ours), or cropped (official code)."""
    resize: KernelResize = KernelResize()

    def grid(self, size: FreqTime, patch: FreqTime | None = None) -> PatchGrid:
        """Where the patches of a spectrogram lie.

        Args:
            size: mel bins and frames of the spectrogram.
            patch: size of the patches; None: their own. Strides keep their share of a patch.

        Raises:
            InputError: if a patch is higher than the spectrogram, or none fits.
        """
        if patch is None or patch == self.patch:
            patch, stride = self.patch, self.stride
        else:
            shares = zip(self.stride, patch, self.patch, strict=True)
            stride = FreqTime(*(max(1, round(step * new / own)) for step, new, own in shares))
        if patch.freq > size.freq:
            raise InputError(
                f"a patch spans at most the {size.freq} mel bins, got {patch.freq}; try "
                f"{size.freq} or fewer"
            )
        return PatchGrid(size=size, patch=patch, stride=stride, remainder=self.remainder)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedGrid:
    """One learned vector for each cell of a grid over frequency and time.

    A cell stands for a place. A clip that reaches beyond the grid has the whole grid stretched
    over it, so that no clip is too long.
    """

    grid: FreqTime = FreqTime(8, 64)
    """Cells along each axis."""
    cell_mels: float = 16.0
    """Mel bins from one cell to the next."""
    cell_ms: float = 160.0
    """Time from one cell to the next (ms)."""
    reading: Literal["place", "stretch", "index"] = "place"
    """Which cells a patch reads: those where its centre lies (ours); the cells of the model's own
    patches, spread evenly over the clip's patches (FlexiAST, which resizes the grid); the cell with
    its own number, whatever its size (ElasticAST)."""
    antialias: bool = True
    """Average over cells that large patches would step over."""
    init: Literal["normal", "sincos"] = "normal"
    """What a new table holds: small normal numbers (ViT), or sines and cosines of the place, as
    strong as the patches themselves, so that places count from the first step."""

    @property
    def extent(self) -> tuple[float, float]:
        """Mel bins and seconds that the grid spans."""
        return self.grid.freq * self.cell_mels, self.grid.time * self.cell_ms / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorisedGrid(LearnedGrid):
    """One learned vector for each row plus one for each column of such a grid.

    Source: ElasticAST (arXiv:2407.08691).
    """


PositionConfig = LearnedGrid | FactorisedGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Pre-norm transformer encoder.

    Source: ViT (arXiv:2010.11929) as AST uses it.
    """

    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 12
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Width of the hidden layer of a block's MLP, in units of ``dim``."""
    norm_eps: float = 1e-6
    """Added to the variance in each LayerNorm."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if min(self.dim, self.depth, self.num_heads) < 1 or self.mlp_ratio <= 0:
            raise InputError(
                f"dim, depth, num_heads and mlp_ratio are positive, got {self.dim}, {self.depth}, "
                f"{self.num_heads}, {self.mlp_ratio}"
            )
        if self.dim % self.num_heads:
            raise InputError(
                f"dim must be a multiple of num_heads, got {self.dim} and {self.num_heads}; "
                f"try dim={self.num_heads * max(1, round(self.dim / self.num_heads))}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaConfig:
    """State space encoder: each token is mixed with those before it, after it, or both.

    Source: Audio Mamba (arXiv:2406.03344).
    """

    dim: int = 768
    """Width of a token."""
    depth: int = 24
    """Blocks."""
    variant: Variant = "fo-bi"
    """Directions: forward; both over the same input, only decays differ; both with weights of
    their own."""
    state: int = 16
    """Numbers that each channel remembers."""
    expand: int = 2
    """Channels of the state space, in units of ``dim``."""
    taps: int = 4
    """Width of the convolution in front of the scan (tokens)."""
    norm_eps: float = 1e-5
    """Added to the mean square in each RMSNorm."""

    def __post_init__(self) -> None:
        """Refuse sizes that give no encoder."""
        for name in ("dim", "depth", "state", "expand", "taps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is at least 1, got {getattr(self, name)}")

    @property
    def width(self) -> int:
        """Channels of the state space."""
        return self.expand * self.dim

    @property
    def step_rank(self) -> int:
        """Numbers that the step sizes of all channels are made of."""
        return -(-self.dim // 16)


EncoderConfig = TransformerConfig | MambaConfig


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
                f", got {self.tokens}"
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


PoolingConfig = ClassTokenPooling | MeanPooling | AttentionPooling


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
    """Name of each class, in the order of the logits."""
    task: Literal["single-label", "multi-label"] = "single-label"
    """Scores are a softmax over classes, or one sigmoid for each class."""
    frontend: FrontendConfig = FrontendConfig()
    patches: PatchConfig = PatchConfig()
    positions: PositionConfig = LearnedGrid()
    encoder: EncoderConfig = TransformerConfig()
    pooling: PoolingConfig = ClassTokenPooling()
    head_norm_eps: float | None = HEAD_NORM_EPS
    """Added to the variance in the head's LayerNorm; None: the head has none."""
    curve: tuple[CurvePoint, ...] = ()
    """Views worth their cost, as measured by a sweep, cheapest first."""

    def __post_init__(self) -> None:
        """Refuse patches that no spectrogram can hold, no labels, and the same label twice."""
        bins, mels = self.patches.patch.freq, self.frontend.num_mels
        if bins > mels:
            raise InputError(
                f"a patch spans at most the {mels} mel bins, got {bins}; try {mels} or fewer"
            )
        if not self.labels:
            raise InputError("a classifier needs at least one label, got none")
        if len(set(self.labels)) < len(self.labels):
            twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
            raise InputError(f"labels must differ, {', '.join(twice[:3])} is there twice")
