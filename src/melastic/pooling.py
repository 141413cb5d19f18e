"""Tokens to one vector for each clip."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melastic.config import AttentionPooling, ClassTokenPooling, MeanPooling, PoolingConfig
from melastic.encoders.attention import AttentionPool
from melastic.errors import InputError
from melastic.patches.batch import Layout


def with_class_tokens(
    clips: Float[Tensor, "clips length dim"],
    tokens: Float[Tensor, "added dim"],
    config: PoolingConfig,
) -> Float[Tensor, "clips _ dim"]:
    """Put learned tokens where a pooling wants them.

    Args:
        clips: tokens of clips of equal length.
        tokens: the learned ones.
        config: of the pooling.
    """
    learned = tokens.to(clips.dtype).expand(len(clips), -1, -1)
    place = config.place if isinstance(config, ClassTokenPooling) else "first"
    if place == "both":
        return torch.cat([learned[:, :1], clips, learned[:, 1:]], dim=1)
    before = {"first": 0, "middle": clips.shape[1] // 2, "last": clips.shape[1]}[place]
    return torch.cat([clips[:, :before], learned, clips[:, before:]], dim=1)


class ClassTokenPool(nn.Module):
    """The mean of each clip's class tokens, wherever they stand."""

    def __init__(self, config: ClassTokenPooling) -> None:
        """Remember where they stand."""
        super().__init__()
        self.config = config

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips dim"]:
        """One vector for each clip."""
        return torch.cat([self._read(clips) for clips in layout.split(x)])

    def _read(self, clips: Float[Tensor, "clips length dim"]) -> Float[Tensor, "clips dim"]:
        """The vectors of clips of equal length."""
        place, length = self.config.place, clips.shape[1]
        if place == "both":
            return (clips[:, 0] + clips[:, -1]) / 2
        if place == "first":
            return clips[:, : self.config.tokens].mean(1)
        return clips[:, (length - 1) // 2 if place == "middle" else length - 1]


class MeanPool(nn.Module):
    """The mean of each clip's tokens, leading ones left out."""

    def __init__(self, config: MeanPooling) -> None:
        """Remember how many lead."""
        super().__init__()
        self.leading = config.leading

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips dim"]:
        """One vector for each clip."""
        return torch.cat([clips[:, self.leading :].mean(1) for clips in layout.split(x)])


def build_pool(config: PoolingConfig, dim: int) -> nn.Module:
    """The pooling that a configuration names.

    Raises:
        InputError: if the heads do not divide the width.
    """
    if isinstance(config, ClassTokenPooling):
        return ClassTokenPool(config)
    if isinstance(config, AttentionPooling):
        if dim % config.num_heads:
            raise InputError(
                f"pooling heads must divide dim, got {config.num_heads} and {dim}; "
                "use the encoder's number of heads"
            )
        return AttentionPool(dim, config.num_heads)
    return MeanPool(config)
