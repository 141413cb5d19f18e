"""The selective scan on CUDA, and training of Audio Mamba beside AST of the same name.

``python -m benchmarks.bench_scan_gpu`` writes ``scan_gpu.md``. ``mamba_ssm`` takes part where it is
installed; it is given its own layout, channels first, before the clock starts.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

import melastic
from benchmarks.report import write
from melastic.scan import plain
from melastic.scan.operands import Operands
from melastic.scan.selective import scan

SHAPES = ((12, 513, 1536), (12, 513, 768), (32, 49, 384), (1, 4097, 1536))
"""Clips, steps and channels."""
STATE = 16
ROUNDS, CALLS = 15, 10
TRAININGS = ((512, 16), (1024, 8), (4096, 2))
"""Tokens of a clip, and clips of a training step."""
MELS, PATCH, STEPS = 128, 16, 8

Call = Callable[[], object]


def milliseconds(candidates: Mapping[str, Call]) -> dict[str, float]:
    """Median time of each; they take turns, and each is called several times in a row."""
    for call in candidates.values():
        for _ in range(3):
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, call in candidates.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(CALLS):
                call()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end) / CALLS)
    return {name: median(values) for name, values in times.items()}


def operands_of(clips: int, steps: int, dim: int, dtype: torch.dtype, *, both: bool) -> Operands:
    """Operands as in a model: z, B and C are slices of wider tensors."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=dtype)

    def parameter(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda")

    wide, narrow = noise(clips, steps, 2 * dim), noise(clips, steps, 2 * STATE + dim // 16)
    decay = -torch.arange(1.0, STATE + 1, device="cuda").repeat(dim, 1)
    return Operands(
        u=noise(clips, steps, dim),
        delta=noise(clips, steps, dim),
        A=decay,
        B=narrow[..., -2 * STATE : -STATE],
        C=narrow[..., -STATE:],
        D=parameter(dim),
        z=wide[..., dim:],
        delta_bias=parameter(dim) - 4,
        A_back=1.1 * decay if both else None,
        delta_softplus=True,
    )


def official() -> Callable[..., Tensor] | None:
    """The operator of ``mamba_ssm``; None where it is not installed."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return None
    return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn


def calls_of(run: Callable[[], Tensor], leaves: list[Tensor]) -> tuple[Call, Call]:
    """A forward pass without gradients, and a backward pass alone."""

    def forward() -> object:
        with torch.no_grad():
            return run()

    y = run()
    dy = torch.randn_like(y)
    return forward, lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def runs_of(operands: Operands) -> dict[str, tuple[Call, Call]]:
    """Each way of running a scan: forward and backward."""
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "A_back")
    given = {name: getattr(operands, name) for name in names}
    given = {name: x.detach().requires_grad_() for name, x in given.items() if x is not None}
    ours = operands._replace(**given)
    compiled = torch.compile(plain.scan)
    found = {
        "melastic": calls_of(lambda: scan(ours), list(given.values())),
        "torch, compiled": calls_of(lambda: compiled(ours), list(given.values())),
    }
    function = official()
    if function is not None and operands.A_back is None:
        first = {
            name: (x.mT.contiguous() if x.ndim == 3 else x).detach().requires_grad_()
            for name, x in given.items()
        }
        found["mamba_ssm"] = calls_of(
            lambda: function(**first, delta_softplus=True), list(first.values())
        )
    return found


def scans() -> list[list[str]]:
    """Rows of the table of scans."""
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SHAPES:
            for both in (False, True):
                runs = runs_of(operands_of(*shape, dtype, both=both))
                forward = milliseconds({name: calls[0] for name, calls in runs.items()})
                backward = milliseconds({name: calls[1] for name, calls in runs.items()})
                size = " x ".join(map(str, shape))
                directions = "both" if both else "one"
                kind = str(dtype).removeprefix("torch.")
                for name in runs:
                    times = (f"{forward[name]:.3f}", f"{backward[name]:.3f}")
                    rows.append([size, kind, directions, name, *times])
    return rows


def training(name: str, tokens: int, clips: int) -> list[str]:
    """Clips per second and memory of training steps in bfloat16."""
    torch.manual_seed(0)
    frames = tokens * PATCH * PATCH // MELS
    model = melastic.create_model(name, num_classes=527, input_size=(MELS, frames)).cuda().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    x = torch.randn(clips, MELS, frames, device="cuda")
    torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).float().logsumexp(1).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(STEPS):
        step()
    end.record()
    torch.cuda.synchronize()
    rate = 1000 * STEPS * clips / start.elapsed_time(end)
    memory = torch.cuda.max_memory_allocated() / 2**30
    return [name, str(tokens), str(clips), f"{rate:.1f}", f"{memory:.1f}"]


def main() -> None:
    if not torch.cuda.is_available():
        print("bench_scan_gpu needs a CUDA device; there is none here, nothing was measured")
        return
    torch.manual_seed(0)
    rows = scans()
    header = ["clips x steps x channels", "format", "directions", "scan", "forward, ms"]
    header.append("backward, ms")
    table = ["| model | tokens | clips a step | clips per second | memory, GiB |"]
    table.append("|---|---|---|---|---|")
    for tokens, clips in TRAININGS:
        for name in ("aum-base", "ast-base"):
            table.append("| " + " | ".join(training(name, tokens, clips)) + " |")
    note = "\n".join(
        [
            f"{STATE} states, softplus, skip and gate; median of {ROUNDS} rounds of {CALLS} calls.",
            "",
            "Training steps in bfloat16 (autocast), AdamW:",
            "",
            *table,
        ]
    )
    write("scan_gpu", "Selective scan and Audio Mamba on a GPU", header, rows, note)


if __name__ == "__main__":
    main()
