"""The selective scan: ours beside the official reference and mamba.py's parallel scan.

``OMP_WAIT_POLICY=passive python -m benchmarks.bench_scan``. mamba.py is the package ``mambapy``;
its rows are missing where that is not installed.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.report import in_turn, need_kernels, peak_mb, ratio, write
from melastic.native.library import kernels
from melastic.randomness import generator
from melastic.scan import chunked, plain
from melastic.scan.operands import Gradients, Operands
from melastic.scan.selective import scan

Method = Callable[[Operands], Tensor]
STATE, ROUNDS, CALLS = 16, 7, 10
YARDSTICK = "compiled kernel"
"""What the others are compared with."""


class Case(NamedTuple):
    """What is timed: a size, and whether with gradients."""

    batch: int
    dim: int
    length: int
    backward: bool = False
    without: tuple[str, ...] = ()
    """Methods that would take too long, or too much memory."""


REFERENCE, PSCAN = "official reference", "mamba.py"
CHUNKED, COMPILED = "plain torch, chunk by chunk", "plain torch, torch.compile"
CASES = (
    Case(1, 384, 65, without=(COMPILED,)),
    Case(1, 384, 513, without=(COMPILED,)),
    Case(1, 1536, 513),
    Case(12, 384, 513, without=(COMPILED,)),
    Case(1, 384, 65, backward=True, without=(COMPILED,)),
    Case(1, 384, 513, backward=True, without=(COMPILED, REFERENCE)),
    Case(1, 1536, 513, backward=True, without=(REFERENCE, COMPILED)),
)
"""Each compilation takes a minute, and gradients of the reference are quadratic in the length."""
LONG = (1, 1536, 8193)
"""Size at which memory is measured."""
THREADS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, asleep between operators": {
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",
    },
    "two threads, as torch comes": {"OMP_NUM_THREADS": "2"},
}
"""Environments: torch's operators are many and short here, and a thread is slow to wake."""


def operands_of(case: Case) -> Operands:
    """Inputs as a model would give them: with step bias, softplus, skip and gate."""
    draw = generator(0, "scan", str(case))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    wide, narrow = (case.batch, case.length, case.dim), (case.batch, case.length, STATE)
    return Operands(
        u=noise(*wide),
        delta=noise(*wide) - 3,
        A=-torch.arange(1, STATE + 1).float().expand(case.dim, -1).contiguous(),
        B=noise(*narrow),
        C=noise(*narrow),
        D=noise(case.dim),
        z=noise(*wide),
        delta_bias=0.1 * noise(case.dim),
        delta_softplus=True,
    )


def optional(operands: Operands) -> tuple[Tensor, Tensor, Tensor]:
    """Step bias, skip and gate, which every scan here has."""
    bias, skip, gate = operands.delta_bias, operands.D, operands.z
    if bias is None or skip is None or gate is None:
        raise TypeError("benchmarks scan with step bias, skip and gate")
    return bias, skip, gate


def reference(operands: Operands) -> Tensor:
    """``selective_scan_ref`` of mamba_ssm, which is transformers' slow path too."""
    bias, skip, gate = optional(operands)
    u, delta, z, B, C = (
        x.mT.contiguous() for x in (operands.u, operands.delta, gate, operands.B, operands.C)
    )
    delta = functional.softplus(delta + bias[:, None])
    decays = torch.exp(torch.einsum("bdl,dn->bdln", delta, operands.A))
    enters = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state, y = torch.zeros_like(decays[:, :, 0]), []
    for t in range(u.shape[2]):
        state = decays[:, :, t] * state + enters[:, :, t]
        y.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
    out = torch.stack(y, 2) + u * skip[:, None]
    return (out * functional.silu(z)).mT


def parallel(pscan: Callable[[Tensor, Tensor], Tensor]) -> Method:
    """``MambaBlock.selective_scan`` of mamba.py around its parallel scan."""

    def run(operands: Operands) -> Tensor:
        bias, skip, gate = optional(operands)
        delta = functional.softplus(operands.delta + bias)
        decays = torch.exp(delta[..., None] * operands.A)
        enters = delta[..., None] * operands.B[:, :, None] * operands.u[..., None]
        y = (pscan(decays, enters) @ operands.C[..., None]).squeeze(3) + skip * operands.u
        return y * functional.silu(gate)

    return run


def methods() -> dict[str, Method]:
    """Each way of computing a scan."""
    found: dict[str, Method] = {
        YARDSTICK: scan,
        CHUNKED: chunked.scan,
        COMPILED: torch.compile(plain.scan, fullgraph=True, dynamic=False),
        REFERENCE: reference,
    }
    try:
        found[PSCAN] = parallel(importlib.import_module("mambapy.pscan").pscan)
    except ImportError:
        print("mambapy is not installed: pip install mambapy")
    return found


def call(method: Method, operands: Operands, *, backward: bool) -> Callable[[], list[Tensor]]:
    """One pass; gives the output, and the gradients where they are asked for."""
    if not backward:
        return lambda: [method(operands)]
    names = [name for name in Gradients._fields if getattr(operands, name) is not None]
    leaves = {name: getattr(operands, name).clone().requires_grad_() for name in names}
    inputs, weights = operands._replace(**leaves), torch.ones_like(operands.u)

    def run() -> list[Tensor]:
        y = method(inputs)
        return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), weights)]

    return run


def timed(case: Case, ways: dict[str, Method]) -> list[list[str]]:
    """Rows of the table for one case; all methods must agree."""
    operands = operands_of(case)
    calls = {
        name: call(method, operands, backward=case.backward)
        for name, method in ways.items()
        if name not in case.without
    }
    expected = calls[YARDSTICK]()
    for name, run in calls.items():
        for a, b in zip(run(), expected, strict=True):
            if not (a - b).abs().max() < 1e-4 * b.abs().max():
                raise ArithmeticError(f"{name} gives other numbers than {YARDSTICK}")
    seconds = in_turn(calls, ROUNDS, calls=CALLS)
    shape = f"{case.batch}x{case.dim}x{case.length}"
    what = "forward + backward" if case.backward else "forward"
    return [
        [shape, what, name, f"{1000 * min(times):.2f}", f"{ratio(times, seconds[YARDSTICK]):.2f}"]
        for name, times in seconds.items()
    ]


def best_of(run: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    return min(in_turn({"": run}, ROUNDS, calls=CALLS)[""])


def of_the_kernel() -> list[list[str]]:
    """What only the compiled kernel has: instruction sets, both directions, formats, memory."""
    case, rows = Case(1, 1536, 513), []
    operands = operands_of(case)
    elements, threads = case.dim * case.length * STATE, torch.get_num_threads()
    for name in kernels().supported():
        kernels().use(name)
        torch.set_num_threads(1)
        for what, backward in (("", False), (", forward + backward", True)):
            single = best_of(call(scan, operands, backward=backward))
            speed = f"{elements / single / 1e9:.2f} G elements/s"
            rows.append([f"{name}, one thread{what}", speed])
        torch.set_num_threads(threads)
    kernels().use(kernels().supported()[0])
    both = operands._replace(A_back=1.1 * operands.A)
    half = {name: getattr(operands, name).bfloat16() for name in ("u", "delta", "B", "C", "z")}
    ways = {
        "one": lambda: scan(operands),
        "both": lambda: scan(both),
        "half": lambda: scan(operands._replace(**half)),
    }
    seconds = in_turn(ways, ROUNDS, calls=CALLS)
    rows.append(["both directions / one", f"{ratio(seconds['both'], seconds['one']):.2f}"])
    rows.append(["bfloat16 / float32", f"{ratio(seconds['half'], seconds['one']):.2f}"])
    rows += [by_layout(operands, backward=backward) for backward in (False, True)]
    grown = in_a_process("memory", dict(os.environ))
    shape = "x".join(map(str, LONG))
    return [*rows, [f"memory of a forward pass at {shape}, output included", f"{grown} MB"]]


def by_layout(operands: Operands, *, backward: bool) -> list[str]:
    """A row: inputs as mamba_ssm has them, batch dim length, in place of ours, batch length dim."""
    turned = {name: getattr(operands, name).mT.contiguous().mT for name in ("u", "delta", "z")}
    ways = {
        "ours": call(scan, operands, backward=backward),
        "theirs": call(scan, operands._replace(**turned), backward=backward),
    }
    seconds = in_turn(ways, ROUNDS, calls=CALLS)
    what = "forward + backward" if backward else "forward"
    name = f"batch dim length (mamba_ssm's layout) / batch length dim, {what}"
    return [name, f"{ratio(seconds['theirs'], seconds['ours']):.2f}"]


def in_a_process(word: str, environment: dict[str, str]) -> str:
    """What this program prints if called with this word."""
    command = [sys.executable, "-m", "benchmarks.bench_scan", word]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return run.stdout.strip()


def by_threads() -> list[str]:
    """A table: plain torch and mamba.py with gradients, by how torch's threads wait."""
    lines = ["", "| with gradients | mamba.py / plain torch, 384 channels | 1,536 channels |"]
    lines.append("|---|---|---|")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    for name, environment in THREADS.items():
        ratios = in_a_process("fallback", kept | environment).split()
        lines.append(f"| {name} | {' | '.join(ratios)} |")
    return lines


def report_fallback() -> None:
    """Print time of mamba.py / time of plain torch, with gradients, for each size."""
    ways = methods()
    for dim in (384, 1536):
        operands = operands_of(Case(1, dim, 513))
        both = {name: call(ways[name], operands, backward=True) for name in (CHUNKED, PSCAN)}
        seconds = in_turn(both, ROUNDS, calls=CALLS)
        print(f"{ratio(seconds[PSCAN], seconds[CHUNKED]):.1f}")


def report_growth() -> None:
    """Print the memory that a long scan adds to the process."""
    operands = operands_of(Case(*LONG))
    scan(operands_of(Case(1, 64, 65)))
    before = peak_mb()
    y = scan(operands)
    print(round(peak_mb() - before))
    del y


def main() -> None:
    """Time all methods, or report the memory of one pass."""
    need_kernels()
    if sys.argv[1:] == ["memory"]:
        return report_growth()
    if sys.argv[1:] == ["fallback"]:
        return report_fallback()
    kernel = of_the_kernel()
    ways = methods()
    rows = [row for case in CASES for row in timed(case, ways)]
    header = ["batch x dim x length", "pass", "method", "ms"]
    lines = ["", "| the compiled kernel, 1x1536x513 | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in kernel]
    lines += by_threads() if PSCAN in ways else []
    note = (
        f"float32, {STATE} numbers per state, with step bias, softplus, skip and gate; all methods "
        "agree to 1e-4 of the largest number.\n"
        f"Fastest call of {ROUNDS} turns of {CALLS} calls each.\n"
        "The official reference is `selective_scan_ref` of "
        "mamba_ssm, which costs the same as transformers' slow path.\n`torch.compile` is given a "
        "formulation of its own, chunks side by side.\n"
    )
    write("scan", "Selective scan", [*header, "time / kernel"], rows, note + "\n".join(lines))
    return None


if __name__ == "__main__":
    main()
