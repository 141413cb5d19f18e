"""What a run has cost and reached, read from what it recorded."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from melastic.evaluation.course_plot import Course, Point
from melastic.patches.grid import freq_time
from melastic.training.config import TrainConfig
from melastic.training.ledger import clip_gmacs, macs_text
from melastic.training.record import read_metrics

SUMS = ("clips", "tokens", "train_gmacs", "data_s", "compute_s")
"""What is added up over epochs."""


def epochs_in(folder: Path) -> int:
    """Epochs that are recorded in a folder.

    Args:
        folder: of a run or a phase.
    """
    return max((int(row["epoch"]) for row in read_metrics(folder)), default=0)


def course_of(phases: Iterable[tuple[TrainConfig, Path]]) -> Course:
    """Held-out accuracy after each epoch that it was measured in, and what it had cost.

    Args:
        phases: settings and folder of each.
    """
    points: list[Point] = []
    switches: list[Point] = []
    epoch, gmacs, seconds = 0, 0.0, 0.0
    for _, own in phases:
        if epoch:
            switches.append(Point(epoch, gmacs, seconds))
        before = seconds
        for row in read_metrics(own):
            if "train_gmacs" not in row:
                continue
            epoch, gmacs = epoch + 1, gmacs + row["train_gmacs"]
            seconds = before + row["elapsed_s"]
            if "val" in row:
                points.append(Point(epoch, gmacs, seconds, row["val"]["accuracy"]))
    return Course(tuple(points), tuple(switches), Point(epoch, gmacs, seconds))


def summary_of(config: TrainConfig, phases: Sequence[tuple[TrainConfig, Path]]) -> dict[str, Any]:
    """What each phase of a finished run has cost, what all have, and what that saves.

    It is held to as many clips at the run's full resolution: what a clip of its phases at full
    resolution has cost; where there is none, what it would, by the geometry of a clip of the size
    that the model is made for, and then seconds are compared with nothing.

    Args:
        config: the whole run's.
        phases: settings and folder of each.
    """
    rows = [_phase_row(settings, own) for settings, own in phases]
    sums = ("epochs", *SUMS, "elapsed_s")
    total = {name: sum(row[name] for row in rows) for name in sums}
    factors = [phase.factor for phase in config.phases] or [1.0]
    full = [row for row, factor in zip(rows, factors, strict=True) if factor == 1]
    costs: dict[str, float | None] = {"train_gmacs": None, "elapsed_s": None}
    for name in costs:
        if full:
            each = sum(row[name] for row in full) / sum(row["clips"] for row in full)
            costs[name] = each * total["clips"]
    if not full:
        settings = phases[-1][0]
        ratio = clip_gmacs(config.model.architecture) / clip_gmacs(settings.model.architecture)
        each = rows[-1]["train_gmacs"] / rows[-1]["clips"]
        costs["train_gmacs"] = ratio * each * total["clips"]
    saved = {name: None if costs[name] is None else 1 - total[name] / costs[name] for name in costs}
    return {
        "phases": rows,
        **total,
        "peak_mb": max(row["peak_mb"] for row in rows),
        "full_resolution": "measured" if full else "reckoned",
        "saved_gmacs": saved["train_gmacs"],
        "saved_s": saved["elapsed_s"],
    }


def ledger_text(summary: dict[str, Any]) -> str:
    """A summary in one line.

    Args:
        summary: of :func:`summary_of`.
    """
    saved = 100 * summary["saved_gmacs"]
    return (
        f"training took {macs_text(summary['train_gmacs'])} over {len(summary['phases'])} phases, "
        f"{abs(saved):.0f} % {'fewer' if saved >= 0 else 'more'} than "
        f"{'' if summary['full_resolution'] == 'measured' else 'reckoned for '}"
        f"as many clips at full resolution ({summary['tokens']:,} tokens, "
        f"{summary['elapsed_s']:,.0f} s)"
    )


def _phase_row(settings: TrainConfig, own: Path) -> dict[str, Any]:
    """What one phase has cost."""
    found = [row for row in read_metrics(own) if "train_gmacs" in row]
    held = [row["val"]["accuracy"] for row in found if "val" in row]
    architecture = settings.model.architecture
    return {
        "folder": own.name,
        "epochs": len(found),
        "hop_ms": architecture.hop_ms,
        "pooling": str(settings.view.pooling),
        "patch": list(freq_time(architecture.patch)),
        **{name: sum(row[name] for row in found) for name in SUMS},
        "elapsed_s": found[-1]["elapsed_s"],
        "peak_mb": max(row["peak_mb"] for row in found),
        "held_out_accuracy": max(held, default=None),
    }
