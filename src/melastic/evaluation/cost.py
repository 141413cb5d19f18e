"""What a clip costs: tokens and multiply-adds, from the geometry alone."""

from melastic.config import AttentionPooling, ClassTokenPooling, ModelConfig
from melastic.patches.grid import FreqTime, PatchGrid


def tokens_of(config: ModelConfig, size: FreqTime) -> int:
    """Tokens of the encoder for one clip, class tokens included.

    Args:
        config: the model.
        size: mel bins and frames of the clip.
    """
    leading = config.pooling.tokens if isinstance(config.pooling, ClassTokenPooling) else 0
    return _grid(config, size).num_patches + leading


def gmacs(config: ModelConfig, size: FreqTime) -> float:
    """Multiply-adds (10^9) of a model for one clip: every matrix product, and attention.

    Args:
        config: the model.
        size: mel bins and frames of the clip.
    """
    encoder, patches = config.encoder, config.patches
    dim, tokens = encoder.dim, tokens_of(config, size)
    hidden = int(dim * encoder.mlp_ratio)
    embed = _grid(config, size).num_patches * patches.patch.freq * patches.patch.time * dim
    block = tokens * (4 * dim * dim + 2 * dim * hidden) + 2 * tokens * tokens * dim
    pool = 0
    if isinstance(config.pooling, AttentionPooling):
        pool = 2 * dim * dim + tokens * 2 * dim * dim + 2 * tokens * dim
    return (embed + encoder.depth * block + pool + dim * len(config.labels)) / 1e9


def _grid(config: ModelConfig, size: FreqTime) -> PatchGrid:
    """The patches of a clip."""
    patches = config.patches
    return PatchGrid(
        size=size, patch=patches.patch, stride=patches.stride, remainder=patches.remainder
    )
