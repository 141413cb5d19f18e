"""The scan of the package ``mamba_ssm``, for who asks for it: CUDA only, clip by clip."""

import importlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.errors import InputError
from melastic.scan.operands import Operands, clips_of


def scan(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Run ``mamba_ssm``'s operator on each clip and in each direction.

    Args:
        operands: inputs, on CUDA.

    Raises:
        InputError: if the package is not there.
    """
    try:
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError:
        raise InputError(
            "the scan of mamba_ssm needs that package; install mamba-ssm, or leave the choice to "
            "melastic"
        ) from None
    if operands.cu_seqlens is None:
        return _rows(interface.selective_scan_fn, operands)
    pieces = []
    for row, clip in clips_of(operands):
        parts: dict[str, Any] = {
            name: None if (value := getattr(operands, name)) is None else value[row : row + 1, clip]
            for name in ("u", "delta", "B", "C", "z")
        }
        pieces.append(_rows(interface.selective_scan_fn, operands._replace(**parts)))
    return torch.cat(pieces, dim=1)


def _rows(function: Any, operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Output of clips of equal length, one for each row."""
    y = _one_way(function, operands, operands.A, reverse=operands.reverse)
    if operands.A_back is not None:
        y = y + _one_way(function, operands, operands.A_back, reverse=not operands.reverse)
    return y


def _one_way(
    function: Any, operands: Operands, A: Tensor, *, reverse: bool
) -> Float[Tensor, "batch length dim"]:
    """Output of one direction."""

    def turned(x: Tensor | None) -> Tensor | None:
        """Channels first, and the end first where the scan starts there."""
        if x is None:
            return None
        return (x.flip(1) if reverse else x).mT.contiguous()

    o = operands
    u, delta, B, C, z = (turned(x) for x in (o.u, o.delta, o.B, o.C, o.z))
    D, bias = (None if x is None else x.float() for x in (o.D, o.delta_bias))
    y: Tensor = function(u, delta, A.float(), B, C, D, z, bias, o.delta_softplus)
    return y.mT.flip(1) if reverse else y.mT
