"""Whole models: Audio Mamba beside AST of the same name, over the length of a clip.

``python -m benchmarks.bench_mamba lengths`` writes ``mamba-lengths.md`` and ``mamba.png``,
``ratios`` writes ``mamba-ratios.md``, without a word both are written. Time is the fastest of
several passes that take turns; memory is the growth of a process of its own.
``python -m benchmarks.bench_mamba operations`` prints multiply-adds alone.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch.nn import functional

import melastic
from benchmarks.bench_scan import reference
from benchmarks.report import in_turn, need_kernels, peak_mb, write
from melastic.evaluation.cost import gmacs
from melastic.patches.grid import FreqTime
from melastic.scan.operands import Operands
from melastic.scan.selective import scan_kernel

MELS, PATCH = 128, 16
ROWS = MELS // PATCH
LENGTHS = {
    "tiny": (128, 256, 512, 1000, 2000, 4000, 8000, 16000),
    "small": (128, 256, 512, 1000, 2000, 4000, 8000),
    "base": (128, 512, 1000, 2000, 4000),
}
"""Tokens of a clip for each size; 512 are 10.24 s."""
LONG = 2000
"""Tokens from which two rounds must do, and memory is measured: that of shorter clips is lost in
what a process holds anyway."""
SHORT_CLIPS = (32, 48)
"""Clips of a training step, and tokens of each."""


def model_of(name: str, tokens: int) -> melastic.Classifier:
    """A model with random weights whose positions span the clip."""
    torch.manual_seed(0)
    size = (MELS, tokens // ROWS * PATCH)
    return melastic.create_model(name, num_classes=527, input_size=size).eval()


def clip_of(tokens: int, clips: int = 1) -> torch.Tensor:
    """Spectrograms of that many tokens each."""
    return torch.randn(clips, MELS, tokens // ROWS * PATCH)


def forward(
    model: melastic.Classifier, x: torch.Tensor, *, half: bool = False
) -> Callable[[], object]:
    """A forward pass without gradients."""

    def run() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model(x)

    return run


def step(name: str) -> Callable[[], object]:
    """A training step on short clips."""
    clips, tokens = SHORT_CLIPS
    model, x = model_of(name, tokens).train(), clip_of(tokens, clips)
    labels, optimiser = torch.randint(527, (clips,)), torch.optim.AdamW(model.parameters())

    def run() -> object:
        functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
        return optimiser.zero_grad()

    return run


def official_scan(operands: Operands) -> torch.Tensor:
    """The published reference, and once more from the other end."""
    y = reference(operands)
    if operands.A_back is None:
        return y
    turned = {name: getattr(operands, name).flip(1) for name in ("u", "delta", "B", "C", "z")}
    return y + reference(operands._replace(A=operands.A_back, **turned)).flip(1)


def with_official_scan(run: Callable[[], object]) -> Callable[[], object]:
    """The same pass with the published reference in place of the kernel."""
    from melastic.scan import loop

    def swapped() -> object:
        kernel, loop.scan = loop.scan, official_scan
        try:
            with scan_kernel("loop"):
                return run()
        finally:
            loop.scan = kernel

    return swapped


def grown(name: str, tokens: int) -> float:
    """Memory (MB) that a forward pass adds to a process that holds the model."""
    words = [sys.executable, "-m", "benchmarks.bench_mamba", name, str(tokens)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout)


def report_growth(name: str, tokens: int) -> None:
    """Print what :func:`grown` reads."""
    model, x = model_of(name, tokens), clip_of(tokens)
    forward(model, clip_of(ROWS))()
    before = peak_mb()
    forward(model, x)()
    print(peak_mb() - before)


def over_length(size: str) -> list[tuple[int, float, float, float, float]]:
    """Tokens, and seconds and MB of AST and of Audio Mamba."""
    rows = []
    for tokens in LENGTHS[size]:
        names, x = (f"ast-{size}", f"aum-{size}"), clip_of(tokens)
        passes = {name: forward(model_of(name, tokens), x) for name in names}
        seconds = in_turn(passes, rounds=2 if tokens >= LONG else 7)
        ast, aum = (min(seconds[name]) for name in names)
        memory = [grown(name, tokens) if tokens >= LONG else math.nan for name in names]
        rows.append((tokens, ast, aum, memory[0], memory[1]))
        print(size, rows[-1], flush=True)
    return rows


def crossing(rows: list[tuple[int, float, float, float, float]]) -> float | None:
    """Tokens from which Audio Mamba is faster, between two that were measured."""
    for (a, *before), (b, *after) in pairwise(rows):
        early, late = before[1] / before[0], after[1] / after[0]
        if early > 1 >= late:
            return a * (b / a) ** ((early - 1) / (early - late))
    return None


def draw(measured: dict[str, list[tuple[int, float, float, float, float]]]) -> None:
    """``mamba.png``: time and memory over length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    colours = dict(zip(measured, ("tab:blue", "tab:orange", "tab:green"), strict=False))
    for size, rows in measured.items():
        tokens = [row[0] for row in rows]
        for column, (kind, style) in enumerate((("AST", "--"), ("AuM", "-")), start=1):
            look = {"color": colours[size], "linestyle": style, "marker": "o", "markersize": 3}
            axes[0].plot(tokens, [row[column] for row in rows], label=f"{kind}-{size}", **look)
            axes[1].plot(tokens, [row[column + 2] for row in rows], **look)
        cross = crossing(rows)
        if cross is not None:
            axes[0].axvline(cross, color=colours[size], linewidth=0.8, alpha=0.5)
            axes[0].annotate(f"{cross:.0f}", (cross, axes[0].get_ylim()[0]), fontsize=7)
    for axis, label in zip(axes, ("seconds, forward", "MB, forward"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="tokens of a clip", ylabel=label)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(Path(__file__).with_name("mamba.png"), dpi=130)


def report_ratios() -> None:
    """Write ratios that do not belong to a length."""
    base = {name: model_of(name, 512) for name in ("ast-base", "aum-base")}
    x = clip_of(512)
    runs = {name: forward(model, x) for name, model in base.items()}
    runs["aum-base, bf16"] = forward(base["aum-base"], x, half=True)
    runs["ast-base, bf16"] = forward(base["ast-base"], x, half=True)
    runs["aum-base, official scan"] = with_official_scan(runs["aum-base"])
    a, b = torch.randn(512, 768), torch.randn(768, 3072)
    half = a.bfloat16(), b.bfloat16()
    runs |= {"product": lambda: a @ b, "product, bf16": lambda: half[0] @ half[1]}
    best = {name: min(values) for name, values in in_turn(runs, rounds=7).items()}
    steps = {name: step(name) for name in ("ast-tiny", "aum-tiny")}
    training = {name: min(values) for name, values in in_turn(steps, rounds=7).items()}
    print({name: f"{value:.3f} s" for name, value in (best | training).items()}, flush=True)
    pairs = [
        ("AuM-Base / AST-Base, 512 tokens", best["aum-base"] / best["ast-base"]),
        ("AuM-Base bf16 / float32", best["aum-base, bf16"] / best["aum-base"]),
        (
            "one product of AuM-Base's projections, 512 x 768 x 3072, bf16 / float32",
            best["product, bf16"] / best["product"],
        ),
        ("AST-Base bf16 / float32", best["ast-base, bf16"] / best["ast-base"]),
        (
            "AuM-Base with the official scan / ours",
            best["aum-base, official scan"] / best["aum-base"],
        ),
        ("AuM-Tiny / AST-Tiny, training step, 32 clips of 48 tokens",
         training["aum-tiny"] / training["ast-tiny"]),
    ]  # fmt: skip
    note = (
        "One clip, forward, float32 unless told otherwise. What bf16 is worth depends on the "
        "machine: see how long one product takes."
    )
    rows = [[name, f"{value:.2f}"] for name, value in pairs]
    title = "Audio Mamba beside AST and other scans"
    write("mamba", title, ["ratio of times", ""], rows, note, part="ratios")


def report_operations() -> None:
    """Print how many times the multiply-adds of AST Audio Mamba has, over length."""
    for size, lengths in LENGTHS.items():
        for tokens in lengths:
            seen = FreqTime(MELS, tokens // ROWS * PATCH)
            ast, aum = (
                gmacs(model_of(f"{kind}-{size}", tokens).config, seen) for kind in ("ast", "aum")
            )
            print(f"{size} {tokens:,} tokens: {aum / ast:.2f}")


def report_lengths() -> None:
    """Write time and memory over length."""
    measured = {size: over_length(size) for size in LENGTHS}
    draw(measured)
    rows = [
        [
            size,
            f"{tokens:,}",
            f"{ast:.3f}",
            f"{aum:.3f}",
            f"{aum / ast:.2f}",
            "" if math.isnan(a) else f"{a:.0f}",
            "" if math.isnan(m) else f"{m:.0f}",
        ]
        for size, found in measured.items()
        for tokens, ast, aum, a, m in found
    ]
    crosses = {size: crossing(found) for size, found in measured.items()}
    said = ", ".join(f"{size} {value:,.0f}" for size, value in crosses.items() if value)
    note = (
        "One clip, forward, float32; memory is what the pass adds to the process. AuM has twice as "
        "many blocks as the AST\nof the same name and no MLP. It is faster from about so many "
        f"tokens on: {said or 'none of these'}.\n\n![Time and memory over length](mamba.png)"
    )
    header = ["size", "tokens", "AST s", "AuM s", "AuM / AST", "AST MB", "AuM MB"]
    write("mamba", "Audio Mamba beside AST", header, rows, note, part="lengths")


REPORTS = {"ratios": report_ratios, "lengths": report_lengths, "operations": report_operations}


def main() -> None:
    """Measure what is asked for, or all; or report the memory of one pass."""
    need_kernels()
    words = sys.argv[1:]
    if len(words) == 2:
        report_growth(words[0], int(words[1]))
        return
    for name in words or ("ratios", "lengths"):
        REPORTS[name]()


if __name__ == "__main__":
    main()
