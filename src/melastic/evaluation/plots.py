"""Figures of a run: training curves and confusion matrix, as PNG."""

from pathlib import Path
from typing import Any

import numpy as np

from melastic.evaluation.evaluate import Outputs
from melastic.evaluation.metrics import confusion
from melastic.files import replacing

INK, MUTED, LINE = "#1f2933", "#7b8794", ("#2563eb", "#d97706", "#059669")


def plot_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss, held-out score and learning rate over the epochs of a run.

    Args:
        rows: of ``metrics.jsonl``.
        path: the PNG.
    """
    epochs = [row for row in rows if "loss" in row]
    if not epochs:
        return
    figure, (top, bottom) = _figure(2, 1, size=(7, 6))
    numbers = [row["epoch"] for row in epochs]
    top.plot(numbers, [row["loss"] for row in epochs], color=LINE[0], label="training loss")
    held = [row for row in epochs if "val" in row]
    if held:
        held_numbers = [row["epoch"] for row in held]
        losses = [row["val"]["loss"] for row in held]
        top.plot(held_numbers, losses, color=LINE[1], label="held-out loss")
        for line, name in enumerate(n for n in ("accuracy", "mAP") if n in held[0]["val"]):
            scores = [100 * row["val"][name] for row in held]
            bottom.plot(held_numbers, scores, color=LINE[line], label=f"held-out {name} (%)")
    for row in rows:
        if "test" in row:
            value = 100 * row["test"]["accuracy"]
            bottom.axhline(value, color=LINE[2], ls="--", label=f"test accuracy {value:.1f} %")
    rates = bottom.twinx()
    rates.plot(numbers, [row["lr"] for row in epochs], color=MUTED, lw=1, ls=":")
    rates.set_ylabel("learning rate (dotted)", color=MUTED)
    rates.spines[["top"]].set_visible(False)
    top.set_ylabel("loss")
    bottom.set_ylabel("%")
    bottom.set_xlabel("epoch")
    for axes in (top, bottom):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    save_figure(figure, path)


def plot_confusion(outputs: Outputs, labels: tuple[str, ...], path: Path) -> None:
    """Which classes are taken for which: rows are the truth, in per cent of the row.

    Args:
        outputs: logits and targets.
        labels: name of each class.
        path: the PNG.
    """
    counts = confusion(outputs.logits, outputs.targets).numpy()
    share = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = max(4.5, 0.22 * len(labels) + 2)
    figure, ((axes,),) = _figure(1, 1, size=(side, side))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    small = 9 if len(labels) <= 15 else 6
    names = [literal(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90, fontsize=small)
    axes.set_yticks(range(len(labels)), names, fontsize=small)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    if len(labels) <= 15:
        for row, column in zip(*np.nonzero(counts), strict=True):
            value = share[row, column]
            colour = "white" if value > 60 else INK
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7
            )
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the clips of a class")
    axes.set_title(f"{100 * np.trace(counts) / max(1, counts.sum()):.1f} % of {counts.sum()} clips")
    save_figure(figure, path)


def _figure(rows: int, columns: int, *, size: tuple[float, float]) -> Any:
    """A figure with a grid of axes, and these axes."""
    figure = blank_figure(size, dpi=120)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top"]].set_visible(False)
    return figure, grid[:, 0] if columns == 1 and rows > 1 else grid


def literal(words: str) -> str:
    """Words as a figure shows them, where dollars would begin a formula."""
    return words.replace("$", r"\$")


def blank_figure(size: tuple[float, float], *, dpi: int) -> Any:
    """A figure that needs no screen, without axes.

    Args:
        size: width and height (inches).
        dpi: pixels of an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with replacing(path) as part:
        figure.savefig(part, format="png")
