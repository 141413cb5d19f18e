"""Addition and RMSNorm by the compiled kernels."""

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.native.calls import DTYPES, call
from melastic.native.library import NormArguments


def forward(
    x: Float[Tensor, "tokens dim"],
    more: Float[Tensor, "tokens dim"] | None,
    weight: Float[Tensor, " dim"],
    eps: float,
) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "tokens dim"], Float[Tensor, " tokens"]]:
    """Sum, its norm in the format of ``more``, and one over the root mean square of each row.

    Args:
        x: float32, on the CPU.
        more: what is added; None: nothing, and the sum is ``x`` itself.
        weight: of each channel.
        eps: added to the mean square.
    """
    x, weight = x.contiguous(), weight.to(torch.float32).contiguous()
    rate = x.new_empty(len(x))
    arguments = _arguments(x, weight, eps)
    if more is None:
        total, normed = x, torch.empty_like(x)
    else:
        more = more.contiguous()
        total, normed = torch.empty_like(x), torch.empty_like(more)
        arguments.more, arguments.dtype = more.data_ptr(), DTYPES[more.dtype]
    arguments.sum, arguments.normed = total.data_ptr(), normed.data_ptr()
    arguments.rate = rate.data_ptr()
    call("melastic_norm_forward", arguments)
    return total, normed, rate


def backward(
    dsum: Float[Tensor, "tokens dim"] | None,
    dnormed: Float[Tensor, "tokens dim"],
    x: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, " dim"],
    rate: Float[Tensor, " tokens"],
) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, " dim"]]:
    """Gradients of the sum and of the weight.

    Args:
        dsum: gradient of the sum as such; None: it has none.
        dnormed: gradient of its norm.
        x: the sum.
        weight: of each channel.
        rate: one over the root mean square of each row.
    """
    kept = weight.to(torch.float32).contiguous()
    dnormed = dnormed.contiguous()
    dsum = None if dsum is None else dsum.to(torch.float32).contiguous()
    dx, dweight = torch.empty_like(x), torch.zeros_like(kept)
    arguments = _arguments(x, kept, 0.0)
    arguments.dtype, arguments.normed = DTYPES[dnormed.dtype], dnormed.data_ptr()
    arguments.rate, arguments.dx = rate.data_ptr(), dx.data_ptr()
    arguments.dsum = None if dsum is None else dsum.data_ptr()
    arguments.dweight = dweight.data_ptr()
    call("melastic_norm_backward", arguments)
    return dx, dweight.to(weight.dtype)


def _arguments(x: Tensor, weight: Tensor, eps: float) -> NormArguments:
    """What both ways share."""
    arguments = NormArguments()
    arguments.rows, arguments.dim = x.shape
    arguments.threads, arguments.eps = torch.get_num_threads(), eps
    arguments.x, arguments.weight = x.data_ptr(), weight.data_ptr()
    return arguments
