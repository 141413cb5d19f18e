"""The selective scan as its definition says it, step by step: the oracle of the others."""

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
    y = torch.cat([_one(operands, row, clip, dtype)[0] for row, clip in clips_of(operands)])
    return y.unflatten(0, operands.u.shape[:2]).to(operands.u.dtype)


def scan_from(
    operands: Operands, state: Float[Tensor, "dim state"]
) -> tuple[Float[Tensor, "1 length dim"], Float[Tensor, "dim state"]]:
    """Output of one clip that goes on from a state, and the state behind it; one way, ahead.

    Args:
        operands: inputs, a batch of 1.
        state: in front of the clip.
    """
    whole = slice(0, operands.u.shape[1])
    y, state = _one(operands, 0, whole, working_dtype(operands), state)
    return y[None].to(operands.u.dtype), state


def _one(
    operands: Operands,
    row: int,
    clip: slice,
    dtype: torch.dtype,
    state: Float[Tensor, "dim state"] | None = None,
) -> tuple[Float[Tensor, "length dim"], Float[Tensor, "dim state"]]:
    """Output of one clip, and the state behind it."""
    u, delta, B, C = (
        getattr(operands, name)[row, clip].to(dtype) for name in ("u", "delta", "B", "C")
    )
    if operands.delta_bias is not None:
        delta = delta + operands.delta_bias.to(dtype)
    if operands.delta_softplus:
        delta = functional.softplus(delta)
    A = operands.A.to(dtype)
    state = torch.zeros_like(A) if state is None else state.to(dtype)
    y, state = _recurrence(u, delta, A, B, C, state, reverse=operands.reverse)
    skip = torch.zeros_like(u) if operands.D is None else operands.D.to(dtype) * u
    y = y + skip
    if operands.A_back is not None:
        back, empty = operands.A_back.to(dtype), torch.zeros_like(A)
        y = y + _recurrence(u, delta, back, B, C, empty, reverse=not operands.reverse)[0] + skip
    if operands.z is not None:
        y = y * functional.silu(operands.z[row, clip].to(dtype))
    return y, state


def _recurrence(
    u: Float[Tensor, "length dim"],
    delta: Float[Tensor, "length dim"],
    A: Float[Tensor, "dim state"],
    B: Float[Tensor, "length state"],
    C: Float[Tensor, "length state"],
    state: Float[Tensor, "dim state"],
    *,
    reverse: bool,
) -> tuple[Float[Tensor, "length dim"], Float[Tensor, "dim state"]]:
    """What is read off the state at each step, and the last state."""
    outputs, steps = [], range(len(u))
    for t in reversed(steps) if reverse else steps:
        state = torch.exp(delta[t, :, None] * A) * state + (delta[t] * u[t])[:, None] * B[t]
        outputs.append(state @ C[t])
    if not outputs:
        return torch.zeros_like(u), state
    return torch.stack(outputs[::-1] if reverse else outputs), state
