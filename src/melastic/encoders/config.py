"""Sizes of encoders. Each default stands here once, with its unit."""

import math
from dataclasses import dataclass
from typing import Literal

from melastic.errors import InputError

Variant = Literal["fo-fo", "fo-bi", "bi-bi"]
"""Directions of a state space encoder."""


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

    @property
    def embed_dim(self) -> int:
        """Width of a token that enters."""
        return self.dim

    @property
    def merges(self) -> int:
        """Halvings of a clip's grid: none."""
        return 0

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if min(self.dim, self.depth, self.num_heads) < 1 or not 0 < self.mlp_ratio < math.inf:
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
    def embed_dim(self) -> int:
        """Width of a token that enters."""
        return self.dim

    @property
    def merges(self) -> int:
        """Halvings of a clip's grid: none."""
        return 0

    @property
    def width(self) -> int:
        """Channels of the state space."""
        return self.expand * self.dim

    @property
    def step_rank(self) -> int:
        """Numbers that the step sizes of all channels are made of."""
        return -(-self.dim // 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """Attention in windows of a clip's grid; from group to group four tokens become one.

    Source: Swin Transformer (arXiv:2103.14030) as HTS-AT (arXiv:2202.00874) uses it.
    """

    embed_dim: int = 96
    """Width of a token in the first group; it doubles from group to group."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each group; every second one has its windows shifted by half a window."""
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    """Attention heads of each group."""
    windows: tuple[int, ...] = (8, 8, 8, 8)
    """Side of a window in each group (tokens)."""
    mlp_ratio: float = 4.0
    """Width of the hidden layer of a block's MLP, in units of the token's."""
    norm_eps: float = 1e-5
    """Added to the variance in each LayerNorm."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        sizes = (self.depths, self.num_heads, self.windows)
        if len({len(s) for s in sizes}) > 1 or not self.depths or min(map(min, sizes)) < 1:
            raise InputError(
                f"depths, num_heads and windows have one positive number for each group, got "
                f"{self.depths}, {self.num_heads}, {self.windows}"
            )
        if not 0 < self.mlp_ratio < math.inf:
            raise InputError(f"mlp_ratio must be positive, got {self.mlp_ratio}; try 4")
        for heads, dim in zip(self.num_heads, self.dims, strict=True):
            if self.embed_dim < 1 or dim % heads:
                raise InputError(
                    f"the heads of a group must divide its width, got {heads} and {dim}; try "
                    f"num_heads={max(1, dim // 24)}"
                )

    @property
    def merges(self) -> int:
        """Halvings of a clip's grid."""
        return len(self.depths) - 1

    @property
    def dims(self) -> tuple[int, ...]:
        """Width of a token in each group."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    @property
    def dim(self) -> int:
        """Width of a token that leaves."""
        return self.dims[-1]


EncoderConfig = TransformerConfig | MambaConfig | WindowConfig
