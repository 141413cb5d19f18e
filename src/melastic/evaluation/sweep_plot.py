"""The figure of a sweep: accuracy against cost, and against each dial, one text column wide."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melastic.evaluation.curve import worth_their_cost
from melastic.evaluation.labels import place_labels
from melastic.evaluation.plots import INK, LINE, MUTED, blank_figure, literal, save_figure
from melastic.evaluation.sweep_dials import DIALS, Dial, label_of, some_of, usual_values
from melastic.evaluation.sweep_rows import Row
from melastic.patches.view import View

WIDTH, DPI = 3.5, 300
"""Inches of a text column, and pixels of an inch."""
STYLE: Any = {
    "font.size": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.0,
    "legend.handletextpad": 0.5,
    "legend.labelspacing": 0.3,
    "legend.borderaxespad": 0.2,
}
SHADES = ("#1e3a8a", "#2563eb", "#60a5fa", "#a5c8f5")
"""Lines for the values of a second dial, in their order."""
MARKERS = ("o", "s", "^", "D")
FIXED = (*LINE[1:], "#9333ea", "#be123c")
"""Baselines."""
ROOM = 24
"""Characters beside one another in the panel of a dial."""
CLOUD = "#b6c2d1"
"""Views that are not worth their cost."""


def plot_sweep(
    rows: Sequence[Row],
    path: Path,
    *,
    own: View,
    baselines: Mapping[str, Sequence[Row]] | None = None,
) -> None:
    """Accuracy against cost with its Pareto front, and against each dial that has several values.

    Args:
        rows: of a sweep.
        path: the PNG.
        own: the model's own view; other dials stay there while one is turned.
        baselines: rows of other sweeps by their names, drawn dashed.
    """
    import matplotlib as mpl

    baselines = baselines or {}
    values = [sorted({dial.of(row.view) for row in rows}, key=dial.order) for dial in DIALS]
    turned = [i for i, found in enumerate(values) if len(found) > 1]
    lines = -(-len(turned) // 2)
    with mpl.rc_context(STYLE):
        figure = blank_figure((WIDTH, 2.6 + 1.75 * lines), dpi=DPI)
        figure.get_layout_engine().set(h_pad=0.04, w_pad=0.02, hspace=0.03, wspace=0.03)
        grid = figure.add_gridspec(1 + lines, 2, height_ratios=[2.6, *[1.75] * lines])
        top = _axes(figure, grid[0, :])
        _draw_costs(top, rows, own, baselines)
        panels: list[Any] = []
        for number, i in enumerate(turned):
            line, column = 1 + number // 2, number % 2
            alone = column == 0 and number == len(turned) - 1
            cell = grid[line, :] if alone else grid[line, column]
            panel = _axes(figure, cell, panels[0] if panels else None, first=column == 0)
            panels.append(panel)
            _draw_dial(panel, i, rows, values, own, baselines)
        if len(turned) > 2:
            usual = usual_values(values, own)
            text = ", ".join(f"{DIALS[i].short} {DIALS[i].text(usual[i])}" for i in turned)
            text = textwrap.fill(f"While a dial is turned, the others stay at: {text}.", 90)
            figure.supxlabel(text, fontsize=5.5, color=MUTED, x=0.02, ha="left", ma="left")
        shown = [DIALS[i] for i in turned]
        place_labels(figure, top, _front(rows), [label_of(row.view, shown) for row in _front(rows)])
        save_figure(figure, path)


def _axes(figure: Any, cell: Any, beside: Any = None, *, first: bool = True) -> Any:
    """Axes with accuracy upwards; those of dials share its range."""
    axes = figure.add_subplot(cell, sharey=beside)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8ecf1", lw=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5)
    if first:
        axes.set_ylabel("accuracy (%)")
    else:
        axes.tick_params(labelleft=False)
    return axes


def _draw_costs(
    axes: Any, rows: Sequence[Row], own: View, baselines: Mapping[str, Sequence[Row]]
) -> None:
    """Every view as a dot, the front as a line."""
    front = _front(rows)
    rest = [row for row in rows if row not in front]
    if rest:
        axes.plot(*_points(rest), "o", color=CLOUD, ms=2.6, mew=0, label="view", zorder=2)
    axes.plot(*_points(front), "o-", color=LINE[0], label="best for its cost", zorder=4)
    owns = [row for row in rows if row.view == own]
    if owns and len(rows) > 1:
        ring = {"mfc": "none", "mec": INK, "mew": 0.8, "ms": 6.5}
        axes.plot(*_points(owns), "o", **ring, label="the model's own view", zorder=5)
    for colour, (name, others) in zip(_colours(len(baselines)), baselines.items(), strict=True):
        found = _front(others)
        axes.plot(
            *_points(found),
            "s--",
            color=colour,
            mfc="white",
            mew=0.9,
            label=literal(name),
            zorder=3,
        )
        if len(found) == 1:
            axes.axhline(100 * found[0].accuracy, color=colour, ls="--", lw=0.7, zorder=1)
    _cost_axis(axes, [row.gmacs_per_clip for part in (rows, *baselines.values()) for row in part])
    axes.margins(y=0.12)
    if len(rows) > 1 or baselines:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2 if baselines else 3)


def _cost_axis(axes: Any, costs: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers on it."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(costs) / 1.35, max(costs) * 1.35
    decades = math.log10(high / low)
    firsts: tuple[float, ...] = (1, 2, 5) if decades < 1.8 else (1, 3) if decades < 3 else (1,)
    if decades < 0.6:
        firsts = (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    steps = [m * 10.0**k for k in range(-9, 9) for m in firsts if low <= m * 10.0**k <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("cost of a clip (GMACs)")


def _draw_dial(
    axes: Any,
    i: int,
    rows: Sequence[Row],
    values: Sequence[Sequence[Any]],
    own: View,
    baselines: Mapping[str, Sequence[Row]],
) -> None:
    """Accuracy against one dial; a line for each value of a second one, the others at their own.

    Args:
        axes: where.
        i: number of the dial.
        rows: of the sweep.
        values: of each dial.
        own: the model's own view.
        baselines: other sweeps.
    """
    fixed = usual_values(values, own)
    second = next((j for j, found in enumerate(values) if j != i and len(found) > 1), None)
    drawn: list[Any] = [None]
    shades: tuple[str, ...] = LINE[:1]
    if second is not None:
        widest = max(len(DIALS[second].text(value)) for value in values[second])
        most = min(len(SHADES), max(2, ROOM // (widest + 3)))
        drawn, shades = some_of(values[second], fixed[second], most), SHADES
    for value, colour, marker in zip(drawn, shades, MARKERS, strict=False):
        at = list(fixed)
        label = None
        if second is not None:
            at[second], label = value, DIALS[second].text(value)
        line = _line(rows, i, at, values[i])
        axes.plot(*line, marker=marker, color=colour, label=label, zorder=3)
    for colour, others in zip(_colours(len(baselines)), baselines.values(), strict=True):
        places, scores = _line(others, i, fixed, values[i])
        axes.plot(places, scores, "s--", color=colour, mfc="white", mew=0.9, zorder=2)
        if len(scores) == 1:
            axes.axhline(scores[0], color=colour, ls="--", lw=0.7, zorder=1)
    _dial_axis(axes, DIALS[i], values[i])
    if second is not None:
        _legend(axes, DIALS[second].short, len(drawn))


def _dial_axis(axes: Any, dial: Dial, values: Sequence[Any]) -> None:
    """Values side by side, as many of them named as there is room for."""
    texts = [dial.text(value) for value in values]
    every = -(-sum(len(text) + 1 for text in texts) // (ROOM + 2))
    named = [text if place % every == 0 else "" for place, text in enumerate(texts)]
    axes.set_xticks(range(len(values)), named)
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.margins(y=0.1)
    axes.set_xlabel(dial.name)


def _legend(axes: Any, title: str, columns: int) -> None:
    """What the lines are, above the axes; a title keeps the place free."""
    axes.set_title(" \n ", fontsize=6.5, pad=3)
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        handlelength=0.9,
        columnspacing=0.7,
        handletextpad=0.25,
        title=title,
        alignment="left",
    )
    legend.set_in_layout(False)


def _line(
    rows: Sequence[Row], i: int, at: Sequence[Any], values: Sequence[Any]
) -> tuple[list[int], list[float]]:
    """Places on the axis of a dial, and accuracies (%), of the rows that agree in the others."""
    found: dict[Any, float] = {}
    for row in rows:
        seen = [dial.of(row.view) for dial in DIALS]
        if seen[:i] + seen[i + 1 :] == list(at[:i]) + list(at[i + 1 :]):
            found[seen[i]] = 100 * row.accuracy
    places = [place for place, value in enumerate(values) if value in found]
    return places, [found[values[place]] for place in places]


def _front(rows: Sequence[Row]) -> list[Row]:
    """Rows that are worth their cost, cheapest first."""
    costs, scores = [row.gmacs_per_clip for row in rows], [row.accuracy for row in rows]
    return [rows[i] for i in worth_their_cost(costs, scores)]


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Costs and accuracies (%)."""
    return [row.gmacs_per_clip for row in rows], [100 * row.accuracy for row in rows]


def _colours(count: int) -> list[str]:
    """A colour for each baseline."""
    return [FIXED[k % len(FIXED)] for k in range(count)]
