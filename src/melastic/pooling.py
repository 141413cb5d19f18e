"""Tokens to one vector for each clip."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melastic.config import AttentionPooling, ClassTokenPooling, MeanPooling, PoolingConfig
from melastic.encoders.attention import AttentionPool
from melastic.errors import InputError
from melastic.patches.batch import Layout


class ClassTokenPool(nn.Module):
    """The mean of each clip's leading tokens: class token, or class and distillation token."""

    def __init__(self, config: ClassTokenPooling) -> None:
        """Remember how many lead."""
        super().__init__()
        self.tokens = config.tokens

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips dim"]:
        """One vector for each clip."""
        return torch.cat([clips[:, : self.tokens].mean(1) for clips in layout.split(x)])


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
