"""Operands of scans, drawn at random, and what the definition says of them."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from hypothesis import strategies as st

from melastic.scan import loop
from melastic.scan.operands import Gradients, Operands

STEP = 0.1
"""Mean step size, about that of a new model's larger ones."""
SEQUENCES = ("u", "delta", "B", "C", "z")


def draw(
    lengths: Sequence[int] = (11,),
    *,
    batch: int = 1,
    dim: int = 3,
    state: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    parameters: torch.dtype | None = None,
    device: str = "cpu",
    ragged: bool = False,
    strided: bool = False,
    skip: bool = False,
    gate: bool = False,
    bias: bool = False,
    softplus: bool = False,
    both: bool = False,
    reverse: bool = False,
    step: float = STEP,
    decay: float = 1.0,
    one_signed: bool = False,
) -> Operands:
    """Operands of a scan: the same numbers for the same arguments, in any number format.

    ``lengths`` are the steps of each clip; without ``ragged`` (cu_seqlens) there is one length, and
    ``batch`` clips. ``parameters`` is the format of A, D, delta_bias and A_back, ``dtype`` that of
    the others. ``strided``: views, none contiguous. ``step`` is the mean step size, after softplus
    where there is one; -A lies about ``decay`` times 1 to ``state``, as in a new model.
    ``one_signed``: u, B and C are positive, so that errors do not cancel. ``skip`` is D, ``gate``
    z, ``both`` A_back.
    """
    length = sum(lengths) if ragged else lengths[0]
    numbers = _numbers((batch, length, dim, state), seed, step, decay, one_signed=one_signed)
    if softplus:
        delta = numbers["delta"]
        numbers["delta"] = torch.where(delta > 20, delta, delta.expm1().log())
    dropped = {"D": not skip, "z": not gate, "delta_bias": not bias, "A_back": not both}
    places = {"u": 0, "delta": 1, "A": 0, "B": 2, "C": 1, "D": 2, "z": 2, "delta_bias": 2}
    kept: dict[str, torch.Tensor] = {}
    for name, values in numbers.items():
        kind = dtype if name in SEQUENCES else parameters or dtype
        values = values.to(kind).to(device)
        if not dropped.get(name):
            kept[name] = _strided(values, places.get(name, 1)) if strided else values
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    return Operands(
        **kept,
        cu_seqlens=ends if ragged else None,
        delta_softplus=softplus,
        reverse=reverse,
    )


def _numbers(
    shape: tuple[int, int, int, int], seed: int, step: float, decay: float, *, one_signed: bool
) -> dict[str, torch.Tensor]:
    """All operands in float64; shape is (batch, length, dim, state)."""
    batch, length, dim, state = shape
    source = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        values = torch.randn(*shape, generator=source, dtype=torch.float64)
        return values.abs() if one_signed else values

    def uniform(*shape: int) -> torch.Tensor:
        return 0.5 + torch.rand(*shape, generator=source, dtype=torch.float64)

    rates = -decay * torch.arange(1, state + 1)
    return {
        "u": noise(batch, length, dim),
        "z": noise(batch, length, dim),
        "B": noise(batch, length, state),
        "C": noise(batch, length, state),
        "delta": step * uniform(batch, length, dim),
        "delta_bias": step * (uniform(dim) - 0.5),
        "A": rates * uniform(dim, state),
        "A_back": rates * uniform(dim, state),
        "D": noise(dim),
    }


def _strided(values: torch.Tensor, turn: int) -> torch.Tensor:
    """The same numbers behind other strides: axes swapped, a slice of a wider one, every second."""
    if turn == 0:
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    wider = torch.full((*values.shape[:-1], 2 * values.shape[-1] + 1), float("nan"))
    wider = wider.to(values)
    view = wider[..., 1 : values.shape[-1] + 1] if turn == 1 else wider[..., 1::2]
    view.copy_(values)
    return view


@st.composite
def cases(draw_from: st.DrawFn, *, longest: int = 70, widest: int = 9) -> Operands:
    """Any scan there is, of small size, in float64: cast it with :func:`cast`.

    Args:
        draw_from: of hypothesis.
        longest: upper bound of a clip's steps.
        widest: upper bound of the channels.
    """
    flag, few = st.booleans(), st.integers(1, longest)
    ragged = draw_from(flag)
    many = st.lists(st.integers(1, 5), min_size=1, max_size=40)
    alike = st.builds(lambda n, times: [n] * times, few, st.integers(1, 4))
    lengths = draw_from(many | alike | st.lists(few, min_size=1, max_size=5)) if ragged else [1]
    return draw(
        lengths if ragged else [draw_from(few)],
        batch=1 if ragged else draw_from(st.integers(1, 4)),
        dim=draw_from(st.integers(1, widest)),
        state=draw_from(st.integers(1, 32)),
        seed=draw_from(st.integers(0, 2**16)),
        dtype=torch.float64,
        ragged=ragged,
        strided=draw_from(flag),
        skip=draw_from(flag),
        gate=draw_from(flag),
        bias=draw_from(flag),
        softplus=draw_from(flag),
        both=draw_from(flag),
        reverse=draw_from(flag),
        step=draw_from(st.sampled_from([1e-4, 0.1, 3.0, 50.0])),
    )


def cast(operands: Operands, dtype: torch.dtype, parameters: torch.dtype | None = None) -> Operands:
    """The same operands in another number format, their strides kept.

    Args:
        operands: of a scan.
        dtype: of u, delta, B, C and z.
        parameters: of A, D, delta_bias and A_back; None: ``dtype``.
    """
    formats = {
        name: dtype if name in SEQUENCES else parameters or dtype for name in Gradients._fields
    }
    values = {name: getattr(operands, name) for name in formats}
    return operands._replace(
        **{
            name: torch.empty_strided(x.shape, x.stride(), dtype=formats[name])
            .to(x.device)
            .copy_(x)
            for name, x in values.items()
            if x is not None
        }
    )


def by_autograd(
    scan: Callable[[Operands], torch.Tensor], operands: Operands, dy: torch.Tensor
) -> tuple[torch.Tensor, Gradients]:
    """Output of a scan and the gradients that autograd finds for it.

    Args:
        scan: any of them.
        operands: its inputs.
        dy: gradient of its output.
    """
    names = [name for name in Gradients._fields if getattr(operands, name) is not None]
    leaves = {name: getattr(operands, name).detach().requires_grad_() for name in names}
    y = scan(operands._replace(**leaves))
    found = torch.autograd.grad(y, list(leaves.values()), dy)
    gradients = dict.fromkeys(Gradients._fields) | dict(zip(names, found, strict=True))
    return y.detach(), Gradients(**gradients)


def oracle(operands: Operands, dy: torch.Tensor) -> tuple[torch.Tensor, Gradients]:
    """Output and gradients as the definition says, in float64, of these very numbers.

    Args:
        operands: inputs of a scan.
        dy: gradient of its output.
    """
    return by_autograd(loop.scan, cast(operands, torch.float64), dy.double())


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest number expected."""
    largest = expected.abs().max().clamp_min(1e-300)
    return float((found.double() - expected).abs().max() / largest)
