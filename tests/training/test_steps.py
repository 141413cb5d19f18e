"""Training by steps in place of epochs, alone and in phases."""

import sys
from dataclasses import replace

import pytest
import torch

from melastic.errors import InputError
from melastic.training.coarse_to_fine import phase_config, train
from melastic.training.config import OptimConfig, TrainConfig
from melastic.training.ledger import forget_peak, peak_mb
from melastic.training.loop import Trainer
from melastic.training.phases import Passing, phase_of, phase_text, phases_in, with_equal_parts
from melastic.training.record import read_metrics
from melastic.training.stage import Stage
from melastic.training.state import Progress
from tests.training.test_resume import last_step, same, settings, weights


def short(tones, **optim):
    """A run of several steps an epoch."""
    return settings(tones, batch_tokens=30, **optim)


@pytest.fixture(scope="module")
def in_epochs(tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("epochs")
    train(short(tones, epochs=2), folder)
    return folder


def test_as_many_steps_as_some_epochs_have_are_these_epochs(tones, tmp_path, in_epochs):
    train(short(tones, steps=last_step(in_epochs)), tmp_path)
    assert same(weights(tmp_path), weights(in_epochs))


@pytest.mark.parametrize("more", [-2, 1])
def test_a_run_ends_after_its_last_step_wherever_an_epoch_ends(tones, tmp_path, in_epochs, more):
    steps = last_step(in_epochs) + more
    train(short(tones, steps=steps), tmp_path)
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert [row["epoch"] for row in rows] == list(range(1, 3 + (more > 0)))
    assert rows[-1]["step"] == steps
    assert rows[-1]["lr"] < rows[-2]["lr"]
    assert "val" in rows[-1]
    assert 0 < rows[-1]["clips"] < rows[0]["clips"]
    assert any("test" in row for row in read_metrics(tmp_path))


def test_a_run_of_steps_that_is_stopped_in_its_last_epoch_resumes_to_the_same_weights(
    tones, tmp_path, in_epochs, monkeypatch
):
    steps = last_step(in_epochs) - 1
    train(short(tones, steps=steps), tmp_path / "whole")
    step = Trainer._step

    def stopping(self, *args):
        if self.progress.step == steps - 1:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(short(tones, steps=steps), tmp_path / "stopped")
    train(short(tones, steps=steps), tmp_path / "stopped", resume=True)
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert last_step(tmp_path / "stopped") == steps


def test_phases_have_their_own_steps_or_parts_of_all(tones, tmp_path):
    config = replace(short(tones), phases=(phase_of("hop2:3steps"), phase_of("full:1")))
    train(config, tmp_path / "own")
    assert last_step(tmp_path / "own" / "phase-1") == 3
    assert read_metrics(tmp_path / "own")[-1]["epoch"] == 1
    shared = replace(short(tones, steps=7), phases=phases_in("2-phase"))
    train(shared, tmp_path / "shared")
    assert last_step(tmp_path / "shared" / "phase-1") == 4
    assert last_step(tmp_path / "shared") == 3


def test_a_finished_phase_of_steps_is_not_trained_again(tones, tmp_path, monkeypatch):
    config = replace(short(tones), phases=(phase_of("hop2:3steps"), phase_of("full:2steps")))
    train(config, tmp_path)
    before = weights(tmp_path)

    def refuse(*_):
        raise AssertionError("a step was made")

    monkeypatch.setattr(Trainer, "_step", refuse)
    train(config, tmp_path, resume=True)
    assert same(weights(tmp_path), before)


def test_equal_parts_of_steps_add_up():
    phases = (phase_of("hop4:100steps"), *phases_in("2-phase"))
    parts = with_equal_parts(phases, 1, 1001)
    assert [phase.steps for phase in parts] == [100, 451, 450]


@pytest.mark.parametrize("text", ["hop4:500steps", "full:1steps@0.001"])
def test_a_phase_of_steps_is_read_as_it_is_written(text):
    assert phase_text(phase_of(text)) == text


@pytest.mark.parametrize("text", ["hop2:0steps", "hop2:autosteps", "hop2:steps"])
def test_what_is_no_number_of_steps_is_refused(text):
    with pytest.raises(InputError, match="try hop") as caught:
        phase_of(text)
    assert "\n" not in str(caught.value)


IMPOSSIBLE = {
    "one step": ({"optim": OptimConfig(steps=1), "phases": phases_in("2-phase")}, "steps or more"),
    "auto": ({"optim": OptimConfig(steps=9), "phases": phases_in("2-phase:auto")}, "optim.steps"),
    "auto and steps": ({"phases": (*phases_in("hop4:2steps"), *phases_in("full:auto"))}, "epochs"),
    "continued": (
        {"phases": phases_in("hop4:9steps"), "passing": Passing(schedule="continued")},
        "counts epochs",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_steps_that_cannot_be_shared_are_one_clear_line(name):
    given, message = IMPOSSIBLE[name]
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig(name="", **given)
    assert "\n" not in str(caught.value)


def test_no_steps_are_refused():
    with pytest.raises(InputError, match=r"optim\.steps must be positive"):
        OptimConfig(steps=0)


def test_a_phase_with_epochs_has_no_steps_of_the_run(tones):
    config = replace(short(tones, steps=50), phases=(phase_of("hop2:3"), phase_of("full")))
    assert [phase_config(config, i).optim.steps for i in range(2)] == [None, 50]
    assert phase_config(config, 0).optim.epochs == 3


@pytest.mark.skipif(sys.platform != "linux", reason="a process has one peak elsewhere")
def test_a_peak_of_memory_is_forgotten_when_what_it_held_is_given_back():
    held = torch.ones(50_000_000)
    high = peak_mb()
    del held
    assert peak_mb() == pytest.approx(high, abs=20)
    forget_peak()
    assert peak_mb() < high - 150


@pytest.mark.parametrize(
    ("optim", "later", "said"),
    [
        (OptimConfig(epochs=10), 0.0, "1:20 to go"),
        (OptimConfig(epochs=10), 2.5, "1:45 to go"),
        (OptimConfig(epochs=10), None, "1:20 to go in this phase"),
        (OptimConfig(epochs=10, steps=60), 0.0, "0:40 to go"),
    ],
)
def test_what_is_to_go_is_reckoned_from_what_was_done(optim, later, said):
    done = Progress(epoch=2, step=20, elapsed_s=20.0)
    assert Stage(later=later).to_go(done, optim) == said


@pytest.mark.parametrize(
    ("phases", "known"), [("hop2:2 full:1", True), ("hop2:8steps full:4steps", False)]
)
def test_phases_to_come_are_among_what_is_to_go(
    tones, tmp_path, capsys, monkeypatch, phases, known
):
    monkeypatch.setattr("melastic.training.stage.clock_text", lambda seconds: f"<{seconds:.6f}>")
    config = replace(settings(tones), phases=tuple(map(phase_of, phases.split())))
    train(config, tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if " to go" in line]
    left = [float(line.split("<")[1].split(">")[0]) for line in lines]
    assert left[-1] == 0
    end_of_first = max(i for i, line in enumerate(lines) if "phase 1/2" in line)
    assert (left[end_of_first] > 0) == known
    assert ("in this phase" in lines[0]) != known
