"""What a clip costs: tokens and multiply-adds, from the geometry alone."""

from bisect import bisect_right
from typing import NamedTuple

from melastic.config import (
    AttentionPooling,
    MambaConfig,
    ModelConfig,
    TransformerConfig,
    WindowConfig,
)
from melastic.encoders.windows import Windows
from melastic.errors import InputError
from melastic.patches.fold import FoldedGrid
from melastic.patches.grid import FreqTime, PatchGrid


def tokens_of(
    config: ModelConfig, size: FreqTime, *, patch: FreqTime | None = None, keep: float = 1.0
) -> int:
    """Tokens of the encoder for one clip, class tokens included.

    Args:
        config: the model.
        size: mel bins and frames of the clip.
        patch: patch size; None: the model's own.
        keep: share of the patches that is used.

    Raises:
        InputError: if the clip holds no such patch.
    """
    patches = kept_tokens(config.patches.grid(size, patch).num_patches, keep)
    return patches + config.pooling.added


def longest_within(config: ModelConfig, tokens: int) -> int:
    """Most frames of a clip that has so few tokens, at least those of a patch.

    Where clips of every length have as many tokens, no clip is the longest: then a bound, a step of
    patches for each token.

    Args:
        config: the model.
        tokens: most tokens of the clip, class tokens included.
    """
    bins, first = config.frontend.num_mels, config.patches.patch.time
    counts = range(first, first + tokens * config.patches.stride.time + 1)
    fitting = bisect_right(counts, tokens, key=lambda n: tokens_of(config, FreqTime(bins, n)))
    return counts[max(1, fitting) - 1]


def kept_tokens(tokens: int, keep: float) -> int:
    """Patches of a clip that are used: the nearest whole number, at least one."""
    return max(1, round(keep * tokens))


def gmacs(
    config: ModelConfig, size: FreqTime, *, patch: FreqTime | None = None, keep: float = 1.0
) -> float:
    """Multiply-adds (10^9) of a model for one clip: matrix products, attention, scans.

    Args:
        config: the model.
        size: mel bins and frames of the clip.
        patch: patch size; None: the model's own.
        keep: share of the patches that is used; all are embedded.

    Raises:
        InputError: if the clip holds no such patch.
    """
    kept = kept_tokens(config.patches.grid(size, patch).num_patches, keep)
    return cost_of(config, size, patch=patch, kept=kept).gmacs


def gmacs_per_second(config: ModelConfig) -> float:
    """Multiply-adds (10^9) of a model for a clip of one second, seen its own way.

    Args:
        config: the model.
    """
    frames = max(1, round(1000 / config.frontend.hop_ms))
    return gmacs(config, FreqTime(config.frontend.num_mels, frames))


class Cost(NamedTuple):
    """What one clip costs in one forward pass."""

    tokens: int
    """Of the encoder, class tokens included."""
    embed: float
    """Multiply-adds (10^9) of the patch projection, whose input needs no gradient."""
    rest: float
    """Multiply-adds (10^9) of everything behind it."""

    @property
    def gmacs(self) -> float:
        """Multiply-adds (10^9)."""
        return self.embed + self.rest


def cost_of(
    config: ModelConfig, size: FreqTime, *, patch: FreqTime | None = None, kept: int | None = None
) -> Cost:
    """Tokens and multiply-adds of a model for one clip.

    Args:
        config: the model.
        size: mel bins and frames of the clip.
        patch: patch size; None: the model's own.
        kept: patches that are used; None: all.

    Raises:
        InputError: if the clip holds no such patch.
    """
    grid, dim = config.patches.grid(size, patch), config.encoder.dim
    if kept is not None and kept < grid.num_patches and isinstance(config.encoder, WindowConfig):
        raise InputError(
            f"a window encoder reads all {grid.num_patches} patches of a clip, got {kept}; use "
            "keep=1"
        )
    tokens = (grid.num_patches if kept is None else kept) + config.pooling.added
    embed = grid.num_patches * grid.patch.freq * grid.patch.time * config.encoder.embed_dim
    pool = 0
    if isinstance(config.pooling, AttentionPooling):
        pool = 2 * dim * dim + tokens * 2 * dim * dim + 2 * tokens * dim
    if isinstance(config.encoder, WindowConfig):
        encoder = _windows(config.encoder, grid)
    else:
        encoder = _encoder(config.encoder, tokens)
    rest = encoder + pool + config.head_inputs * len(config.labels)
    return Cost(tokens, embed / 1e9, rest / 1e9)


def _windows(encoder: WindowConfig, grid: PatchGrid) -> int:
    """Multiply-adds of a window encoder for one clip; windows are counted whole."""
    images, shape, total = grid.images if isinstance(grid, FoldedGrid) else 1, grid.shape, 0
    for i, (dim, depth) in enumerate(zip(encoder.dims, encoder.depths, strict=True)):
        if i:
            shape = FreqTime(shape.freq // 2, shape.time // 2)
            total += shape.freq * shape.time * 2 * dim * dim
        matrices = 4 * dim * dim + 2 * dim * int(dim * encoder.mlp_ratio)
        cut = Windows.of(shape, encoder.windows[i], shifted=False)
        pairs = cut.count.freq * cut.count.time * cut.length**2
        total += depth * (shape.freq * shape.time * matrices + 2 * pairs * dim)
    return images * total


def _encoder(encoder: TransformerConfig | MambaConfig, tokens: int) -> int:
    """Multiply-adds of an encoder for one clip.

    A scan has three for each channel, number of the state and direction: decay, input, output.
    """
    dim = encoder.dim
    if not isinstance(encoder, MambaConfig):
        hidden = int(dim * encoder.mlp_ratio)
        matrices = 4 * dim * dim + 2 * dim * hidden
        return encoder.depth * tokens * (matrices + 2 * tokens * dim)
    width, rank, state = encoder.width, encoder.step_rank, encoder.state
    branch = width * (encoder.taps + rank + 2 * state + rank)
    branches = 2 if encoder.variant == "bi-bi" else 1
    scans = (1 if encoder.variant == "fo-fo" else 2) * 3 * width * state
    return encoder.depth * tokens * (3 * dim * width + branches * branch + scans)
