"""One vector for each clip to logits."""

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module):
    """LayerNorm, if there is one, and a linear layer: vectors to logits."""

    def __init__(self, dim: int, num_classes: int, norm_eps: float | None) -> None:
        """Make a head with random weights."""
        super().__init__()
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)
        self.linear = nn.Linear(dim, num_classes)

    def forward(self, x: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """Vectors to logits."""
        return self.linear(self.norm(x))
