"""Presets of phases, other orders than from coarse to fine, and what the ledger says of them."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melastic.evaluation.course_plot import (
    Course,
    Point,
    plot_courses,
    plot_ledger,
    ticks_between,
)
from melastic.frontend.augment import Augmentation
from melastic.patches.view import View
from melastic.training.coarse_to_fine import phase_config, phases_of, train
from melastic.training.compare import compare, read_finished
from melastic.training.course import course_of, summary_of
from melastic.training.ledger import clip_gmacs, macs_text
from melastic.training.phases import Phase, phase_of, phase_text, phases_in, with_equal_parts
from melastic.training.record import read_metrics
from tests.evaluation.test_plots import is_drawn
from tests.training.test_resume import settings

NAMED = {
    "2-phase": "hop2 full",
    "3-phase": "hop4 hop2 full",
    "gradual": "hop4 hop3 hop2 hop1.5 full",
    "2-phase-patch": "patch2 full",
    "gradual-mean": "mean4 mean3 mean2 full",
    "3-phase-max:auto": "max4:auto max2:auto full:auto",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_stands_for_the_phases_that_can_be_written_out(name):
    assert " ".join(map(phase_text, phases_in(name))) == NAMED[name]
    assert tuple(map(phase_of, NAMED[name].split())) == phases_in(name)


@pytest.mark.parametrize("epochs", [5, 15, 16, 17, 30])
@pytest.mark.parametrize("name", ["2-phase", "3-phase", "gradual"])
def test_equal_parts_add_up_and_the_cheap_phases_come_first(name, epochs):
    parts = [phase.epochs for phase in with_equal_parts(phases_in(name), epochs)]
    assert sum(parts) == epochs
    assert parts == sorted(parts, reverse=True)
    assert parts[0] - parts[-1] <= 1


def test_phases_with_a_number_leave_the_rest_to_the_others():
    phases = tuple(map(phase_of, ("hop4:3", "hop2", "full")))
    assert [phase.epochs for phase in with_equal_parts(phases, 10)] == [3, 4, 3]


def plain(tones, phases, **optim):
    """A run whose clips and tokens are not drawn, so that equal epochs cost the same."""
    config = replace(settings(tones, **optim), view=View(), augment=Augmentation())
    return replace(config, phases=phases)


ORDERS = {
    "full:1 hop2:1 hop4:2": (40.0, (128, 4)),
    "hop4:2": (40.0, (128, 4)),
    "mean2:2": (20.0, (128, 4)),
    "patch2:2": (10.0, (128, 8)),
    "full:1 patch2:1": (10.0, (128, 8)),
}


@pytest.mark.parametrize("text", ORDERS)
def test_any_order_of_phases_ends_at_the_resolution_of_the_last(tones, tmp_path, text):
    config = plain(tones, tuple(map(phase_of, text.split())))
    model = train(config, tmp_path)
    assert (model.config.frontend.hop_ms, model.config.patches.patch) == ORDERS[text]
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert 0.05 < ledger["saved_gmacs"] < 0.8
    measured = "full" in text
    assert ledger["full_resolution"] == ("measured" if measured else "reckoned")
    assert (ledger["saved_s"] is None) == (not measured)
    assert any("test" in row for row in read_metrics(tmp_path))
    assert is_drawn(tmp_path / "ledger.png")


def test_what_is_saved_is_held_to_full_resolution_in_any_order(tones, tmp_path):
    train(plain(tones, (), epochs=1), tmp_path / "single")
    (single,) = read_metrics(tmp_path / "single")[:1]
    for number, text in enumerate(("hop2:1 full:1", "full:1 hop2:1", "hop2:2")):
        config = plain(tones, tuple(map(phase_of, text.split())))
        train(config, tmp_path / str(number))
        summary = summary_of(config, list(phases_of(config, tmp_path / str(number))))
        wanted = 1 - summary["train_gmacs"] / (2 * single["train_gmacs"])
        assert summary["saved_gmacs"] == pytest.approx(wanted, abs=0.06 if number == 2 else 1e-9)


def test_the_nominal_cost_of_a_phase_falls_with_its_factor(tones):
    config = plain(tones, phases_in("gradual"), epochs=5)
    costs = [clip_gmacs(phase_config(config, i).model.architecture) for i in range(5)]
    assert costs == sorted(costs)
    assert costs[-1] == clip_gmacs(config.model.architecture)


def test_a_course_goes_through_all_phases(tones, tmp_path):
    config = plain(tones, tuple(map(phase_of, ("hop2:2", "full:3"))))
    train(config, tmp_path)
    course = course_of(phases_of(config, tmp_path))
    rows = [*read_metrics(tmp_path / "phase-1"), *read_metrics(tmp_path)[:3]]
    assert [point.epoch for point in course.points] == [1, 2, 3, 4, 5]
    assert course.end.gmacs == pytest.approx(sum(row["train_gmacs"] for row in rows))
    assert course.end.seconds == pytest.approx(rows[1]["elapsed_s"] + rows[-1]["elapsed_s"])
    assert [row["phase"] for row in rows] == [1, 1, 2, 2, 2]
    end = read_metrics(tmp_path)[2]
    assert end["run_gmacs"] == pytest.approx(course.end.gmacs)
    assert end["run_elapsed_s"] == pytest.approx(course.end.seconds)
    assert end["run_tokens"] == sum(row["tokens"] for row in rows)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert read_metrics(tmp_path)[-1]["ledger"] == ledger
    assert ledger["tokens"] == end["run_tokens"]
    assert course.switches == (course.points[1]._replace(accuracy=None),)
    assert [point.accuracy for point in course.points] == [row["val"]["accuracy"] for row in rows]


def test_the_first_run_saves_nothing_and_the_others_what_they_cost_less(tones, tmp_path):
    for name, phases in (("single", ()), ("coarse", (Phase(factor=2), Phase()))):
        train(plain(tones, phases, epochs=4), tmp_path / name)
    runs = {name: read_finished(tmp_path / name) for name in ("single", "coarse")}
    single, coarse = compare(runs)
    assert (single.saved_gmacs, single.saved_s, single.phases) == (0, 0, "")
    assert coarse.phases == "hop2 full"
    assert coarse.epochs == single.epochs == 4
    ledger = json.loads((tmp_path / "coarse" / "ledger.json").read_text())
    assert coarse.saved_gmacs == pytest.approx(ledger["saved_gmacs"])
    assert coarse.seconds == pytest.approx(ledger["elapsed_s"])


def test_operations_are_read_in_a_unit_that_suits_them():
    texts = [macs_text(x) for x in (0.0123, 345.2, 12_070.0, 3_400_000.0)]
    assert texts == ["0.0123 GMACs", "345 GMACs", "12.07 TMACs", "3.4 PMACs"]


@given(st.floats(0, 99.9), st.floats(0.01, 100))
def test_an_axis_of_accuracies_has_at_least_two_ticks_and_not_too_many(low, span):
    high = min(99.95, low + span)
    ticks = ticks_between(low, high)
    assert 2 <= len(ticks) <= 16
    assert low <= min(ticks) < max(ticks) <= high


def test_courses_are_drawn_whatever_they_reach(tmp_path):
    points = tuple(Point(i, 10.0 * i, 60.0 * i, (i - 1) / 9) for i in range(1, 11))
    phased = Course(points, (points[4],), points[-1])
    short = Course(points[:1], (), points[0])
    plot_ledger(phased, tmp_path / "one.png")
    plot_courses({"a": phased, "a longer name": short}, tmp_path / "two.png")
    plot_ledger(Course((), (), points[0]), tmp_path / "none.png")
    assert is_drawn(tmp_path / "one.png")
    assert is_drawn(tmp_path / "two.png")
    assert not (tmp_path / "none.png").exists()


def test_over_time_only_comparable_runs_are_drawn(tmp_path):
    points = tuple(Point(i, 10.0 * i, 60.0 * i, (i - 1) / 9) for i in range(1, 11))
    slow = tuple(Point(i, 10.0 * i, 6e5 * i, (i - 1) / 9) for i in range(1, 11))
    runs = {"a": Course(points, (), points[-1]), "slowed down": Course(slow, (), slow[-1])}
    other = runs | {"slowed down": Course(points, (), points[-1])}
    seen = {}
    for timed in (None, ("a",), ()):
        for name, drawn in (("runs", runs), ("other", other)):
            plot_courses(drawn, tmp_path / "a.png", timed=timed)
            seen[timed, name] = (tmp_path / "a.png").read_bytes()
    assert seen[None, "runs"] != seen[None, "other"]
    assert seen[("a",), "runs"] == seen[("a",), "other"] != seen[(), "runs"]
    assert seen[(), "runs"] == seen[(), "other"]
