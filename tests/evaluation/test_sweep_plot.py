import itertools

import matplotlib as mpl
import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melastic.evaluation.labels import place_labels
from melastic.evaluation.plots import blank_figure
from melastic.evaluation.sweep_dials import some_of
from melastic.evaluation.sweep_plot import plot_sweep
from melastic.evaluation.sweep_rows import Row
from melastic.patches.view import View

COLUMN = View(patch=(128, 3), hop_ms=10.0)
OWN = View(patch=16, hop_ms=10.0)


def row(patch=16, hop_ms=10.0, pool="none", seconds=None, keep=1.0, score=0.8, mels=None):
    return Row(
        patch_freq=mels or patch,
        patch_time=patch,
        hop_ms=hop_ms,
        pool=pool,
        seconds=seconds,
        clips=10,
        accuracy=score,
        mAP=0.5,
        tokens_per_clip=100.0,
        gmacs_per_clip=100 / patch / hop_ms * keep,
        clips_per_second=50.0,
        keep=keep,
    )


def grid(*dials):
    names = ("patch", "hop_ms", "pool", "seconds", "keep")
    rows = itertools.product(*dials)
    return [
        row(**dict(zip(names, at, strict=False)), score=0.5 + 0.4 * (i % 7) / 7)
        for i, at in enumerate(rows)
    ]


MANY = grid((4, 8, 12, 16, 32), (5.0, 10.0, 40.0), ("none", "max2"), (0.5, 1.0, None), (1.0, 0.5))
CASES = {
    "one view": ([row()], {}, (700, 900)),
    "two views": ([row(), row(patch=8, score=0.9)], {}, (1200, 1400)),
    "equal cost": ([row(), row(keep=1.0, pool="max2")], {}, (1200, 1400)),
    "many views": (MANY, {"fixed, a name that is far too long": [row()]}, (2200, 2500)),
    "long names": (
        [row(patch=n, hop_ms=ms, mels=128) for n in (2, 3, 4, 12) for ms in (10.0, 20.0)],
        {},
        (1200, 1400),
    ),
    "baselines": (MANY[:20], {"fixed 16": grid((8, 16)), "fixed 8": [row(patch=8)]}, (1700, 2000)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sweep_is_drawn_one_column_wide(tmp_path, case):
    rows, baselines, (least, most) = CASES[case]
    before = dict(mpl.rcParams)
    plot_sweep(
        rows,
        tmp_path / "sweep.png",
        own=COLUMN if case == "long names" else OWN,
        baselines=baselines,
    )
    image = matplotlib.image.imread(tmp_path / "sweep.png")
    assert image.shape[1] == 1050
    assert least <= image.shape[0] <= most
    assert image.std() > 0.05
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("style", ["o-", "o"])
def test_labels_overlap_neither_one_another_nor_dots(style):
    rows = [row(patch=patch, score=0.5 + 0.001 * patch) for patch in range(60, 1, -1)]
    figure = blank_figure((3.5, 2.5), dpi=300)
    axes = figure.add_subplot()
    places = [(row.gmacs_per_clip, 100 * row.accuracy) for row in rows]
    axes.semilogx(*zip(*places, strict=True), style)
    axes.set_ylim(0, 100)
    place_labels(figure, axes, rows, [f"a long label, {row.patch_freq}" for row in rows])
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    dots = axes.transData.transform(places)
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


@given(st.integers(2, 9), st.integers(2, 30), st.data())
def test_some_values_are_evenly_spaced_and_hold_the_usual_one(most, count, data):
    always = data.draw(st.integers(0, count - 1))
    chosen = some_of(list(range(count)), always, most)
    assert len(chosen) == min(most, count)
    assert chosen == sorted(set(chosen))
    assert always in chosen
    assert most == 2 or {0, count - 1} <= set(chosen)
