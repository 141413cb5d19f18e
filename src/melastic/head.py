"""One vector for each clip to logits."""

from typing import Never

from jaxtyping import Float
from torch import Tensor, nn

from melastic.errors import InputError


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


class NoHead(nn.Module):
    """What stands in place of a head in a model that knows no classes."""

    def forward(self, *_: Tensor) -> Never:
        """There are no logits.

        Raises:
            InputError: always, with what to do.
        """
        raise InputError(
            "this model has no head, it was trained on clips without labels; fine-tune it first: "
            "melastic train RECIPE --init RUN"
        )


def build_head(dim: int, num_classes: int, norm_eps: float | None) -> Head | NoHead:
    """A head with random weights, or none where there are no classes.

    Args:
        dim: numbers that it reads for each clip.
        num_classes: logits.
        norm_eps: added to the variance in its LayerNorm; None: it has none.
    """
    return Head(dim, num_classes, norm_eps) if num_classes else NoHead()
