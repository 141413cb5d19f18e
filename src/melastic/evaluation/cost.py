"""What a clip costs: tokens and multiply-adds, from the geometry alone."""

from melastic.config import AttentionPooling, ModelConfig
from melastic.patches.grid import FreqTime


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
    return patches + config.pooling.leading


def kept_tokens(tokens: int, keep: float) -> int:
    """Patches of a clip that are used: the nearest whole number, at least one."""
    return max(1, round(keep * tokens))


def gmacs(
    config: ModelConfig, size: FreqTime, *, patch: FreqTime | None = None, keep: float = 1.0
) -> float:
    """Multiply-adds (10^9) of a model for one clip: every matrix product, and attention.

    Args:
        config: the model.
        size: mel bins and frames of the clip.
        patch: patch size; None: the model's own.
        keep: share of the patches that is used; all are embedded.

    Raises:
        InputError: if the clip holds no such patch.
    """
    encoder, grid = config.encoder, config.patches.grid(size, patch)
    dim, tokens = encoder.dim, tokens_of(config, size, patch=patch, keep=keep)
    hidden = int(dim * encoder.mlp_ratio)
    embed = grid.num_patches * grid.patch.freq * grid.patch.time * dim
    block = tokens * (4 * dim * dim + 2 * dim * hidden) + 2 * tokens * tokens * dim
    pool = 0
    if isinstance(config.pooling, AttentionPooling):
        pool = 2 * dim * dim + tokens * 2 * dim * dim + 2 * tokens * dim
    return (embed + encoder.depth * block + pool + dim * len(config.labels)) / 1e9
