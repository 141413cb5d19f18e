"""The selective scan as its definition says it, one step after the other: the oracle of the rest."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.scan.operands import Operands, clips_of, working_dtype


def scan(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Run the recurrence step by step; autograd gives the gradients.

    ``h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]``; ``y[t] = (C[t] h[t] + D u[t]) SiLU(z)``.

    Source: Mamba (arXiv:2312.00752), algorithm 2; Audio Mamba (arXiv:2406.03344) for both ways.

    Args:
        operands: inputs.
    """
    dtype = working_dtype(operands)
    y = torch.cat([_one(operands, row, clip, dtype) for row, clip in clips_of(operands)])
    return y.unflatten(0, operands.u.shape[:2]).to(operands.u.dtype)


def _one(
    operands: Operands, row: int, clip: slice, dtype: torch.dtype
) -> Float[Tensor, "length dim"]:
    """Output of one clip."""
    u, delta, B, C = (
        getattr(operands, name)[row, clip].to(dtype) for name in ("u", "delta", "B", "C")
    )
    if operands.delta_bias is not None:
        delta = delta + operands.delta_bias.to(dtype)
    if operands.delta_softplus:
        delta = functional.softplus(delta)
    y = _recurrence(u, delta, operands.A.to(dtype), B, C, reverse=operands.reverse)
    skip = torch.zeros_like(u) if operands.D is None else operands.D.to(dtype) * u
    y = y + skip
    if operands.A_back is not None:
        back = operands.A_back.to(dtype)
        y = y + _recurrence(u, delta, back, B, C, reverse=not operands.reverse) + skip
    if operands.z is not None:
        y = y * functional.silu(operands.z[row, clip].to(dtype))
    return y


def _recurrence(
    u: Float[Tensor, "length dim"],
    delta: Float[Tensor, "length dim"],
    A: Float[Tensor, "dim state"],
    B: Float[Tensor, "length state"],
    C: Float[Tensor, "length state"],
    *,
    reverse: bool,
) -> Float[Tensor, "length dim"]:
    """What is read off the state at each step."""
    state, outputs = torch.zeros_like(A), []
    steps = range(len(u))
    for t in reversed(steps) if reverse else steps:
        state = torch.exp(delta[t, :, None] * A) * state + (delta[t] * u[t])[:, None] * B[t]
        outputs.append(state @ C[t])
    return torch.stack(outputs[::-1] if reverse else outputs)
