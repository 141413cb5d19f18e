"""Pre-norm transformer encoder on ragged batches."""

from jaxtyping import Float
from torch import Tensor, nn

from melastic.config import TransformerConfig
from melastic.encoders.attention import SelfAttention
from melastic.patches.batch import Layout


class Block(nn.Module):
    """Attention within each clip, then an MLP on each token; both added to their input."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make a block with random weights."""
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = SelfAttention(config.dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, hidden), nn.GELU(), nn.Linear(hidden, config.dim)
        )

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Tokens to tokens."""
        x = x + self.attention(self.norm1(x), layout)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A stack of blocks and a final LayerNorm.

    Source: ViT (arXiv:2010.11929), as AST (arXiv:2104.01778) uses it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make a stack with random weights."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Tokens to tokens."""
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)
