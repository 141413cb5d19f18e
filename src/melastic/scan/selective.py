"""The selective scan for callers: one function, whatever the device and the lengths."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melastic.errors import InputError, unknown_name
from melastic.native import scan as native
from melastic.native.calls import serves
from melastic.scan import convolution, loop
from melastic.scan.operands import Operands, check_borders
from melastic.scan.ops import ConvolutionFunction, ScanFunction, scan_op

Kernel = Literal["best", "loop", "chunked", "mamba_ssm"]
"""``best``: the compiled kernel of the device; ``loop``: the definition; ``chunked``: plain torch,
which compilers and exporters see as such; ``mamba_ssm``: the package of that name, where it is
installed."""


class _Chosen(threading.local):
    """What the scans of a thread use."""

    kernel: Kernel = "best"


_chosen = _Chosen()


@contextmanager
def scan_kernel(kernel: Kernel) -> Iterator[None]:
    """Use another implementation than the best one for this thread's scans within.

    Args:
        kernel: which.

    Raises:
        InputError: if there is no such implementation.
    """
    if kernel not in get_args(Kernel):
        raise unknown_name("scan kernel", kernel, get_args(Kernel))
    before, _chosen.kernel = _chosen.kernel, kernel
    try:
        yield
    finally:
        _chosen.kernel = before


def selective_scan(
    u: Float[Tensor, "batch dim length"],
    delta: Float[Tensor, "batch dim length"],
    A: Float[Tensor, "dim state"],
    B: Float[Tensor, "batch state length"] | Float[Tensor, "batch 1 state length"],
    C: Float[Tensor, "batch state length"] | Float[Tensor, "batch 1 state length"],
    D: Float[Tensor, " dim"] | None = None,
    z: Float[Tensor, "batch dim length"] | None = None,
    delta_bias: Float[Tensor, " dim"] | None = None,
    delta_softplus: bool = False,
    *,
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None = None,
    reverse: bool = False,
) -> Float[Tensor, "batch dim length"]:
    """The state space recurrence of Mamba whose step size, input and output weights vary in time.

    ``h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]``; ``y[t] = (C[t] h[t] + D u[t]) SiLU(z)``.
    The state is float32 (float64 for float64 inputs); the output has the format of ``u``. Axes are
    those of ``mamba_ssm``; inputs are read in place, whatever their strides.

    Source: Mamba (arXiv:2312.00752), algorithm 2.

    Args:
        u: input.
        delta: step size.
        A: decay of each state, negative in a stable model.
        B: how the input enters the state.
        C: how the state is read.
        D: how the input goes past the state.
        z: gate; the output is multiplied by its SiLU.
        delta_bias: added to the step size.
        delta_softplus: whether the step size goes through softplus, after its bias.
        cu_seqlens: clips lie one behind the other and the state starts anew in each: where each
            begins, and where the last ends; the batch is 1.
        reverse: whether the scan starts at the end of each clip.

    Raises:
        InputError: if shapes, formats or borders do not fit together.
    """
    _check_tensors(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    B, C = (x.squeeze(1) if x.ndim == 4 and x.shape[1] == 1 else x for x in (B, C))
    _check(u, delta, A, B, C, D, z, delta_bias, cu_seqlens)
    operands = Operands(
        u=u.mT,
        delta=delta.mT,
        A=A,
        B=B.mT,
        C=C.mT,
        D=D,
        z=None if z is None else z.mT,
        delta_bias=delta_bias,
        cu_seqlens=cu_seqlens,
        delta_softplus=delta_softplus,
        reverse=reverse,
    )
    return scan(operands).mT


def scan(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Output of a scan, channels last; nothing is checked.

    Args:
        operands: inputs.
    """
    kernel = _chosen.kernel
    if kernel == "loop":
        return loop.scan(operands)
    if kernel == "chunked":
        return _in_torch(operands)
    if kernel == "mamba_ssm":
        from melastic.scan import mamba_ssm

        return mamba_ssm.scan(operands)
    if not torch.is_grad_enabled():  # parameters ask for gradients all the same
        found: Tensor = scan_op(*operands, False)[0]
        return found
    y: Tensor = ScanFunction.apply(*operands)  # type: ignore[no-untyped-call]
    return y


def _in_torch(operands: Operands) -> Float[Tensor, "batch length dim"]:
    """Output of a scan by operators of torch alone; compilers can take them apart."""
    if torch.compiler.is_exporting() and operands.cu_seqlens is None:
        from melastic.scan import exported

        return exported.scan(operands)
    if torch.compiler.is_compiling():
        from melastic.scan import plain

        return plain.scan(operands)
    from melastic.scan import chunked

    return chunked.scan(operands)


@torch.no_grad()
def scan_from(
    operands: Operands, state: Float[Tensor, "dim state"]
) -> tuple[Float[Tensor, "1 length dim"], Float[Tensor, "dim state"]]:
    """Output of one clip that goes on from a state, and the state behind it; one way, ahead.

    Only the compiled kernel and the definition can.

    Args:
        operands: inputs, a batch of 1.
        state: in front of the clip.
    """
    if _chosen.kernel != "best" or not serves(
        operands.u, operands.delta, operands.B, operands.C, operands.z
    ):
        return loop.scan_from(operands, state)
    before = state.to(torch.float32).contiguous()[None]
    behind = torch.empty_like(before)
    return native.forward(operands, state_in=before, state_out=behind), behind[0]


def causal_convolution(
    x: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "dim width"],
    bias: Float[Tensor, " dim"],
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None = None,
    *,
    reverse: bool = False,
) -> Float[Tensor, "batch length dim"]:
    """Short convolution along time, in front of the scan; it stops at clip borders.

    ``SiLU(bias + sum_k weight[k] x[t - (width - 1) + k])``, zero in front of each clip.

    Source: Mamba (arXiv:2312.00752), section 3.4.

    Args:
        x: input; any strides.
        weight: taps of each channel, the last one of the present step.
        bias: of each channel.
        cu_seqlens: where clips begin and end, batch 1; None: each row is one clip.
        reverse: whether the taps reach into the future instead: ``x[t + (width - 1) - k]``.
    """
    if _chosen.kernel == "chunked" and torch.compiler.is_compiling():
        return convolution.forward(x, weight, bias, cu_seqlens, reverse)
    y: Tensor = ConvolutionFunction.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, cu_seqlens, reverse
    )
    return y


def _check_tensors(**operands: Tensor | None) -> None:
    """Refuse what is no tensor, as arrays and numbers are none."""
    for name, value in operands.items():
        absent = value is None and name in ("D", "z", "delta_bias")
        if not absent and not isinstance(value, Tensor):
            raise InputError(
                f"{name} is a tensor, got {type(value).__name__}; try torch.as_tensor(…)"
            )


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    """Refuse inputs that do not fit together."""
    if u.ndim != 3 or A.ndim != 2 or 0 in u.shape or 0 in A.shape:
        raise InputError(
            f"u has the axes (batch, dim, length) and A (dim, state), none empty, got "
            f"{tuple(u.shape)} and {tuple(A.shape)}"
        )
    batch, dim, length = u.shape
    state = A.shape[1]
    wanted = {
        "u": (u, (batch, dim, length)),
        "delta": (delta, (batch, dim, length)),
        "A": (A, (dim, state)),
        "B": (B, (batch, state, length)),
        "C": (C, (batch, state, length)),
        "D": (D, (dim,)),
        "z": (z, (batch, dim, length)),
        "delta_bias": (delta_bias, (dim,)),
    }
    for name, (value, shape) in wanted.items():
        if value is None:
            continue
        if tuple(value.shape) != shape:
            raise InputError(f"{name} must have the shape {shape}, got {tuple(value.shape)}")
        if not value.is_floating_point() or value.device != u.device:
            raise InputError(
                f"{name} must hold real numbers on the device of u ({u.device}), got "
                f"{value.dtype} on {value.device}"
            )
    if not torch.compiler.is_compiling():
        check_borders(cu_seqlens, batch, length)
