"""The selective scan for exported programs: one operator of torch that becomes ONNX's ``Scan``.

It is the only form in which the length may vary in ONNX; other runtimes need no kernel of ours.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch._higher_order_ops import scan as scan_operator

from melastic.errors import InputError
from melastic.scan.operands import Operands
from melastic.scan.plain import every_way


def scan(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Run the scan, for ``torch.export`` and ``torch.onnx.export(dynamo=True)`` with any length.

    ONNX knows no upper case in the names of inputs: give those of a program that takes A and a
    different ones.

    Args:
        operands: inputs, of one clip or of clips of equal length.

    Raises:
        InputError: if clips lie one behind the other.
    """
    if operands.cu_seqlens is not None:
        raise InputError("an exported scan takes clips of one length, got cu_seqlens; use a batch")
    return every_way(operands, _one_way)


def _one_way(
    A: Float[Tensor, "dim state"], sequences: Sequence[Tensor], reverse: bool
) -> Float[Tensor, "batch length dim"]:
    """What is read off the states; sequences are step size, drive, B and C."""

    def step(state: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        delta, drive, B, C = inputs
        state = torch.exp(delta[..., None] * A) * state + drive[..., None] * B[:, None]
        return state, (state @ C[..., None]).squeeze(-1)

    A = A.contiguous()  # states must have the strides of the first
    empty = A.new_zeros(sequences[0].shape[0], *A.shape)
    time_first = tuple(x.movedim(1, 0).contiguous() for x in sequences)
    _, y = scan_operator(step, empty, time_first, reverse=reverse)
    return y.movedim(0, 1)
