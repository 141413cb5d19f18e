"""Figures of what training has cost: held-out accuracy against operations and against seconds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from melastic.evaluation.plots import INK, LINE, MUTED, blank_figure, literal, save_figure
from melastic.evaluation.sweep_plot import STYLE

WIDTH, DPI = 7.0, 200
"""Inches of two text columns, and pixels of an inch."""
COLOURS = (*LINE, "#9333ea", "#be123c", "#0891b2", "#65a30d", "#525252")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p")
ROOM = 0.13
"""Part of the axis that the words of a phase take; a narrower one has its number alone."""
CEILING = 99.95
"""Accuracy (%) above which the axis goes no further."""
TICKS = (0, 20, 40, 60, 70, 80, 85, 90, 93, 95, 96, 97, 98, 99, 99.5, 99.9)


class Point(NamedTuple):
    """A moment of a run."""

    epoch: int
    """Epochs done, of all phases."""
    gmacs: float
    """Multiply-adds of training until then (10^9)."""
    seconds: float
    """Time of training until then (s), without evaluation."""
    accuracy: float | None = None
    """On the held-out clips; of the end on the test clips, where none were held out."""


@dataclass(frozen=True, slots=True)
class Course:
    """A run from its beginning to its end."""

    points: tuple[Point, ...]
    """Where accuracy was measured."""
    switches: tuple[Point, ...]
    """Where one phase ended and the next began."""
    end: Point
    """All epochs."""


def plot_ledger(course: Course, path: Path) -> None:
    """One run; nothing where no accuracy was measured.

    Args:
        course: of the run.
        path: the PNG.
    """
    if course.points:
        plot_courses({"": course}, path)


def plot_courses(
    courses: Mapping[str, Course],
    path: Path,
    *,
    of: str = "held-out accuracy",
    timed: Collection[str] | None = None,
) -> None:
    """Runs side by side, on an axis whose steps are halved errors.

    Args:
        courses: by the names of the runs; a single nameless one has its switches as lines.
        path: the PNG.
        of: what accuracy is measured on.
        timed: runs whose seconds can be compared, the only ones drawn over time; without any there
            is no such panel. None: all.
    """
    import matplotlib as mpl

    names = list(courses)
    wide = max((point.gmacs for course in courses.values() for point in course.points), default=1)
    size, unit = (1e6, "PMACs") if wide >= 1e6 else (1e3, "TMACs") if wide >= 1e3 else (1, "GMACs")
    timed = names if timed is None else timed
    long = max((point.seconds for name in timed for point in courses[name].points), default=1)
    length, clock = (3600, "h") if long >= 7200 else (60, "min") if long >= 300 else (1, "s")
    with mpl.rc_context(STYLE | {"font.size": 8}):
        figure = blank_figure((WIDTH, 3.0 if len(courses) < 2 else 3.3), dpi=DPI)
        panels = [("gmacs", size, f"operations of training ({unit})", names)]
        if timed:
            panels.append(("seconds", length, f"time of training ({clock})", list(timed)))
        left, *right = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, scale, text, drawn) in zip((left, *right), panels, strict=True):
            along = partial(_along, name=name, scale=scale)
            for number, (run, course) in enumerate(courses.items()):
                if run not in drawn:
                    continue
                _draw(axes, course, number, along)
                if len(courses) == 1:
                    _mark(axes, course, along)
            axes.set_xlabel(text)
            axes.set_xlim(left=0)
        left.set_ylabel(f"{of} (%)", color=INK)
        _accuracies(left, [p for course in courses.values() for p in course.points])
        if len(courses) > 1:
            handles = left.get_lines()[1::2]  # of the two of each run, that with a filled mark
            columns = max(1, min(len(names), 120 // (7 + max(map(len, names)))))
            words = [literal(name) for name in names]
            figure.legend(handles, words, loc="outside upper center", ncols=columns)
        save_figure(figure, path)


def _along(point: Point, *, name: str, scale: float) -> float:
    """How far along the axis a point is."""
    return float(getattr(point, name)) / scale


def _draw(axes: Any, course: Course, number: int, along: Callable[[Point], float]) -> None:
    """A run as a line, broken by rings where phases change, with its end filled."""
    points = course.points
    places, scores = [along(p) for p in points], [_percent(p) for p in points]
    colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
    axes.plot(
        places,
        scores,
        marker=mark,
        color=colour,
        mfc="white",
        mew=0.8,
        markevery=_began(course) or [len(points) - 1],
        zorder=3 + number / 100,
    )
    axes.plot(places[-1:], scores[-1:], marker=mark, color=colour, zorder=4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8ecf1", lw=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5)


def _began(course: Course) -> list[int]:
    """Numbers of the points with which phases end."""
    found = []
    for switch in course.switches:
        before = [i for i, point in enumerate(course.points) if point.epoch <= switch.epoch]
        found += before[-1:]
    return found


def _mark(axes: Any, course: Course, along: Callable[[Point], float]) -> None:
    """Where phases change, as lines with the number of the phase that begins."""
    starts = [0.0, *(along(switch) for switch in course.switches)]
    end = along(course.end)
    for number, place in enumerate(starts if course.switches else [], 1):
        wide = [*starts, end][number] - place >= ROOM * end
        if number > 1:
            axes.axvline(place, color=MUTED, lw=0.7, ls=":", zorder=1)
        axes.annotate(
            f"phase {number}" if wide else f"{number}",
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, 1),
            textcoords="offset points",
            fontsize=6.5,
            color=MUTED,
        )


def _accuracies(axes: Any, points: Sequence[Point]) -> None:
    """An axis on which each halving of the errors takes the same room."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    scores = [_percent(point) for point in points]
    low, high = _room(min(scores), -0.08), _room(max(scores), 0.15)
    axes.set_yscale("function", functions=(_halvings, lambda y: 100 - 100 / np.exp2(y)))
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks_between(low, high)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def ticks_between(low: float, high: float) -> list[float]:
    """Accuracies (%) that are written at the axis: the usual ones, or closer ones in a short range.

    Args:
        low: where the axis begins (%).
        high: where it ends (%).
    """
    from matplotlib.ticker import MaxNLocator

    usual = [float(tick) for tick in TICKS if low <= tick <= high]
    if len(usual) > 2:
        return usual
    closer = MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in closer if low <= tick <= high]


def _halvings(score: Any) -> Any:
    """How often the errors were halved until an accuracy (%)."""
    return np.log2(100 / (100 - np.minimum(CEILING, score)))


def _room(score: float, halvings: float) -> float:
    """An accuracy (%) a little away from another."""
    return float(np.clip(100 - (100 - min(CEILING, score)) / 2**halvings, 0, CEILING))


def _percent(point: Point) -> float:
    """Accuracy of a point (%)."""
    return min(CEILING, 100 * (point.accuracy or 0.0))
