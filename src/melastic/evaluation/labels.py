"""Labels beside the points of a figure, as many as there is room for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from melastic.evaluation.sweep_rows import Row

MOST = 8
"""Labels in one figure."""
OFFSETS = (
    (-3, 3, "right", "bottom"),
    (3, -3, "left", "top"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (5, 0, "left", "center"),
    (-5, 0, "right", "center"),
)
"""Where a label may stand: points from its dot to the right and upwards, and its alignment."""
CLEAR = 1.5
"""Points between a label and everything else."""


def place_labels(figure: Any, axes: Any, points: Sequence[Row], labels: Sequence[str]) -> None:
    """Label points where neither dots, lines nor other labels are, and leave out the others.

    Both ends come first, then what lies farthest from what is labelled already.

    Args:
        figure: of the axes.
        axes: accuracy (%) over cost; everything else is drawn already.
        points: what is labelled.
        labels: of each point; empty ones are left out.
    """
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    dots, paths = _obstacles(axes)
    taken: list[Any] = []
    margin = CLEAR * figure.dpi / 72
    for i in _by_distance(axes, points):
        if len(taken) == MOST or not labels[i]:
            continue
        for right, up, across, along in OFFSETS:
            text = axes.annotate(
                labels[i],
                (points[i].gmacs_per_clip, 100 * points[i].accuracy),
                (right, up),
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=6,
                zorder=6,
            )
            text.set_in_layout(False)
            box = text.get_window_extent(renderer).padded(margin)
            frame = axes.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1
            if (
                inside
                and frame.y0 <= box.y0
                and not any(box.overlaps(other) for other in taken)
                and not any(box.contains(*dot) for dot in dots)
                and not any(path.intersects_bbox(box, filled=False) for path in paths)
            ):
                taken.append(box)
                break
            text.remove()


def _obstacles(axes: Any) -> tuple[list[tuple[float, float]], list[Any]]:
    """Dots and lines of the axes, in pixels."""
    dots: list[tuple[float, float]] = []
    paths = []
    for line in axes.lines:
        path = line.get_transform().transform_path(line.get_path())
        if line.get_linestyle() != "None":
            paths.append(path)
        if line.get_marker() not in ("None", None, ""):
            dots += [(float(x), float(y)) for x, y in path.vertices]
    return dots, paths


def _by_distance(axes: Any, points: Sequence[Row]) -> list[int]:
    """Both ends, then always the point farthest from those before."""
    places = axes.transData.transform(
        [(point.gmacs_per_clip, 100 * point.accuracy) for point in points]
    )
    order = [0, len(points) - 1][: len(points)]
    while len(order) < len(points):
        apart = np.linalg.norm(places[:, None] - places[order], axis=2).min(axis=1)
        apart[order] = -1
        order.append(int(apart.argmax()))
    return order
