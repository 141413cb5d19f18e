"""RMSNorm of a residual stream: the sum and its norm in one step."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from melastic.native import norm as native
from melastic.native.calls import serves


class AddNorm(nn.Module):
    """Add to a residual stream and take the norm of the sum.

    Source: RMSNorm (arXiv:1910.07467); added in front of the norm as in Mamba (arXiv:2312.00752).
    """

    def __init__(self, dim: int, eps: float) -> None:
        """Make one whose weights are 1."""
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(
        self, x: Float[Tensor, "tokens dim"], more: Float[Tensor, "tokens dim"] | None = None
    ) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "tokens dim"]]:
        """The sum, in the format of the stream, and its norm, in the format of what was added.

        Where nothing is added, the norm has the format of the weights.

        Args:
            x: the residual stream.
            more: what is added; None: nothing.
        """
        if (
            not torch.compiler.is_compiling()  # compilers join the steps themselves
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and serves(x if more is None else more)
        ):
            if more is None:
                return x, norm_op(x, None, self.weight, self.eps)[1].to(self.weight.dtype)
            total, normed, _ = norm_op(x, more, self.weight, self.eps)
            return total, normed
        total = x if more is None else x + more
        normed = functional.rms_norm(total, self.weight.shape, self.weight.to(x.dtype), self.eps)
        return total, normed.to(self.weight.dtype if more is None else more.dtype)


@torch.library.custom_op("melastic::add_norm", mutates_args=())
def norm_op(
    x: Tensor, more: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum (empty where nothing is added), norm, and one over each row's root mean square."""
    total, normed, rate = native.forward(x, more, weight, eps)
    return (total if more is not None else x.new_empty(0)), normed, rate


@norm_op.register_fake
def _(x: Tensor, more: Tensor | None, _weight: Tensor, _eps: float) -> tuple[Tensor, ...]:
    rate = x.new_empty(x.shape[0])
    if more is None:
        return x.new_empty(0), torch.empty_like(x), rate
    return x.new_empty(x.shape), more.new_empty(more.shape), rate


@torch.library.custom_op("melastic::add_norm_backward", mutates_args=())
def norm_backward_op(
    dsum: Tensor | None, dnormed: Tensor, total: Tensor, weight: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the sum and of the weight."""
    return native.backward(dsum, dnormed, total.contiguous(), weight, rate)


@norm_backward_op.register_fake
def _(_dsum: Tensor | None, _dn: Tensor, total: Tensor, weight: Tensor, _r: Tensor) -> Any:
    return total.new_empty(total.shape), torch.empty_like(weight)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep the sum."""
    x, more, weight, _ = inputs
    total, _, rate = output
    ctx.save_for_backward(x if more is None else total, weight, rate)
    ctx.format = None if more is None else more.dtype


def _gradients(ctx: Any, dsum: Tensor, dnormed: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients in the order of the inputs."""
    total, weight, rate = ctx.saved_tensors
    added = ctx.format is not None
    dx, dweight = norm_backward_op(dsum if added else None, dnormed, total, weight, rate)
    return dx, (dx.to(ctx.format) if added else None), dweight, None


norm_op.register_autograd(_gradients, setup_context=_context)
