"""How exact scans in float32 are over thousands of steps: ours, the official one and mamba.py's.

``python -m benchmarks.bench_scan_accuracy``. Nothing is timed. mamba.py is the package ``mambapy``;
its rows are missing where that is not installed.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_scan import COMPILED, STATE, call, methods
from benchmarks.report import need_kernels, write
from melastic.randomness import generator
from melastic.scan import loop
from melastic.scan.operands import Operands

LENGTH, DIM, DRAWS = 4097, 4, 3
STEPS = {
    "1e-4, each its own": (1e-4, 0.5),
    "1e-4, all alike": (1e-4, 0.0),
    "1e-3, all alike": (1e-3, 0.0),
    "5e-2, each its own": (5e-2, 0.5),
}
"""Mean step size, and how far a step may lie from it, as a share."""


def operands_of(mean: float, spread: float, number: int) -> Operands:
    """Inputs of one sign, so that errors do not cancel; skip and gate pass everything on."""
    draw = generator(number, "accuracy", f"{mean} {spread}")

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).abs()

    jitter = 2 * torch.rand(1, LENGTH, DIM, generator=draw) - 1
    return Operands(
        u=noise(1, LENGTH, DIM),
        delta=mean * (1 + spread * jitter),
        A=-torch.arange(1, STATE + 1).float().expand(DIM, -1).contiguous(),
        B=noise(1, LENGTH, STATE),
        C=noise(1, LENGTH, STATE),
        D=torch.zeros(DIM),
        z=torch.full((1, LENGTH, DIM), 50.0),
        delta_bias=torch.zeros(DIM),
        delta_softplus=True,
    )


def with_steps(operands: Operands) -> Operands:
    """The same, with the step sizes given as what softplus makes of them."""
    return operands._replace(delta=operands.delta.double().expm1().log().float())


def doubled(operands: Operands) -> Operands:
    """The same in float64."""
    values: list[Any] = [x.double() if isinstance(x, Tensor) else x for x in operands]
    return Operands(*values)


def errors(name: str) -> list[str]:
    """Cells of one method: largest relative error of the output and of any gradient."""
    method, cells = methods()[name], []
    for mean, spread in STEPS.values():
        forward, backward = 0.0, 0.0
        for number in range(DRAWS):
            operands = with_steps(operands_of(mean, spread, number))
            expected = call(loop.scan, doubled(operands), backward=True)()
            found = call(method, operands, backward=True)()
            gaps = [
                float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-300))
                for a, b in zip(found, expected, strict=True)
            ]
            forward, backward = max(forward, gaps[0]), max(backward, *gaps[1:])
        cells.append(f"{forward:.1e}, {backward:.1e}")
    return [name, *cells]


def main() -> None:
    """Measure all methods."""
    need_kernels()
    names = [name for name in methods() if name != COMPILED]
    write(
        "scan_accuracy",
        "What a scan of 4,097 steps loses in float32",
        ("method", *STEPS),
        [errors(name) for name in names],
        f"Largest difference from the loop in float64, as a share of the largest number: of the "
        f"output, of any gradient. Inputs of one sign, {STATE} numbers per state, {DRAWS} draws.",
    )


if __name__ == "__main__":
    main()
