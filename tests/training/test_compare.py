"""Finished runs side by side, also those that an earlier version has begun."""

import json
from dataclasses import replace

import pytest

from melastic.errors import InputError
from melastic.evaluation.course_plot import Course, Point
from melastic.recipes import load_recipe
from melastic.serialize import to_json
from melastic.training.compare import Compared, Finished, compare, other_clips, write_compared
from melastic.training.config import DataConfig, RunConfig, TrainConfig
from melastic.training.phases import Phase, phase_of, phases_in
from melastic.training.run_folder import begin, read_run_config

CONFIG = TrainConfig(name="some", phases=phases_in("2-phase"), data=DataConfig(val_share=0.1))
POINTS = (Point(1, 1.0, 5.0, 0.9), Point(2, 3.0, 9.0, 0.7), Point(3, 5.0, 12.0, 0.6))
RUN = Finished(CONFIG, Course(POINTS, (Point(1, 1.0, 5.0),), Point(3, 5.0, 12.0)), 0.5)
FIRST = Finished(
    TrainConfig(name="some"), Course(POINTS[:1], (), Point(4, 20.0, 16.0, 0.8)), test_accuracy=None
)


def test_savings_are_shares_of_the_first_and_accuracy_is_that_of_the_last_phase():
    first, other = compare({"first": FIRST, "other": RUN})
    assert (first.held_out_accuracy, first.test_accuracy) == (0.9, None)
    assert other == Compared(
        run="other",
        phases="hop2 full",
        epochs=3,
        held_out_accuracy=0.7,
        test_accuracy=0.5,
        train_gmacs=5.0,
        seconds=12.0,
        saved_gmacs=0.75,
        saved_s=0.25,
    )


def test_runs_on_other_clips_are_named():
    assert other_clips({"a": RUN, "b": FIRST, "c": RUN}) == ["b"]
    drawn = replace(RUN, config=replace(CONFIG, run=RunConfig(seed=1)))
    same = replace(
        drawn, config=replace(drawn.config, data=DataConfig(val_share=0.1, split_seed=0))
    )
    assert other_clips({"a": RUN, "b": drawn, "c": same}) == ["b"]


def test_a_run_without_test_clips_has_an_empty_cell(tmp_path):
    write_compared(compare({"first": FIRST}), tmp_path / "table.csv")
    cells = (tmp_path / "table.csv").read_text().splitlines()[1].split(",")
    assert cells == ["first", "", "4", "0.9", "", "20.0", "16.0", "0.0", "0.0"]


def test_settings_that_an_earlier_version_did_not_know_are_the_usual_ones(tmp_path):
    begin(CONFIG, tmp_path)
    written = to_json(CONFIG)
    del written["passing"]["budget"], written["distill"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_run_config(tmp_path) == CONFIG
    assert load_recipe(str(tmp_path / "config.json")) == CONFIG
    written["phases"] = [{"operator": "mean", "factor": 2.0, "schedule": "step"}, "hop2:3", "full"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    mean = Phase(operator="mean", factor=2.0, schedule="step")
    assert read_run_config(tmp_path).phases == (mean, phase_of("hop2:3"), Phase())
    written["passing"]["colour"] = "red"
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match="colour"):
        read_run_config(tmp_path)
