"""What a run leaves in its folder, and what the next one finds there."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from melastic.errors import InputError
from melastic.patches.dials import Pooling
from melastic.patches.view import View
from melastic.training.coarse_to_fine import phase_config, train
from melastic.training.config import DataConfig, ModelChoice
from melastic.training.curriculum import Draws
from melastic.training.loop import Trainer
from melastic.training.optim import learning_rate
from melastic.training.phases import Passing, phase_of
from melastic.training.record import read_metrics
from melastic.training.setup import split_clips
from tests.training.test_resume import settings

COARSE_TO_FINE = (phase_of("hop2:1"), phase_of("full:1"))


def stop_after(steps, monkeypatch):
    """Let the next run be stopped from the keyboard after some steps."""
    step, left = Trainer._step, [steps]

    def stopping(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", stopping)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("phases", [(), COARSE_TO_FINE])
def test_resuming_a_run_that_has_ended_changes_nothing(tones, tmp_path, phases, capfd):
    config = replace(settings(tones, epochs=1), phases=phases)
    train(config, tmp_path / "run")
    before = contents(tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    after = contents(tmp_path / "run")
    changed = {path.name for path in before if after[path] != before[path]}
    assert changed <= {"ledger.png"}
    assert after.keys() == before.keys()
    assert "has ended already" in capfd.readouterr().err


def test_a_run_begins_in_no_folder_that_holds_a_phase_of_another(tones, tmp_path, monkeypatch):
    config = replace(settings(tones), phases=COARSE_TO_FINE)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    other = replace(config, optim=replace(config.optim, lr=0.05))
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already; continue it with --resume"):
        train(other, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_the_time_of_an_epoch_that_was_interrupted_counts(tones, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    step = Trainer._step

    def slow(self, *args):
        clock.now += 1.0
        return step(self, *args)

    monkeypatch.setattr("melastic.training.loop.time.monotonic", lambda: clock.now)
    monkeypatch.setattr(Trainer, "_step", slow)
    config = settings(tones, epochs=2, batch_tokens=30)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    rows = read_metrics(tmp_path / "run")
    last = [row for row in rows if "elapsed_s" in row][-1]
    assert last["step"] > 6
    assert last["elapsed_s"] == last["step"]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_card_has_held_out_and_test_scores_of_the_weights_that_are_kept(tones, tmp_path, keep):
    config = settings(tones, epochs=2)
    train(replace(config, run=replace(config.run, keep=keep)), tmp_path)
    rows = read_metrics(tmp_path)
    accuracy = [row["val"]["accuracy"] for row in rows if "val" in row]
    kept = accuracy[-1] if keep == "last" else max(accuracy)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"- held-out clips: accuracy {100 * kept:.2f} %" in card
    assert "- test clips: accuracy" in card


def test_what_is_wrong_in_the_last_phase_is_said_before_the_first(tones, tmp_path):
    config = replace(settings(tones), phases=COARSE_TO_FINE)
    config = replace(config, data=replace(config.data, test="split=tst"))
    with pytest.raises(InputError, match="split=tst"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["mean40:1", "max40:1"])
def test_a_later_phase_that_is_too_coarse_is_refused_before_the_first(tones, tmp_path, text):
    config = replace(settings(tones), phases=(phase_of("full:1"), phase_of(text)))
    with pytest.raises(InputError, match=f"phase {text}: .* cannot be pooled by 40"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_later_phase_whose_steps_are_too_small_is_refused_before_the_first(tones, tmp_path):
    base = settings(tones)
    enough = replace(phase_of("full:1"), batch_tokens=40)
    config = replace(base, phases=(phase_of("hop2:1"), replace(enough, batch_tokens=3)))
    with pytest.raises(InputError, match=r"phase full:1: .*longest clip, it has \d+ tokens"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(replace(base, phases=(phase_of("hop2:1"), enough)), tmp_path / "run")


@pytest.mark.parametrize("coarse", ["hop4:1", "hop1.5:1", "mean4:1", "patch2:1"])
@pytest.mark.parametrize("patch", [(128, 1), (128, 3)])
def test_phases_take_whatever_clips_a_run_of_one_phase_takes(tones, tmp_path, coarse, patch):
    """Checked with the smallest budget that the run of one phase has."""
    base = settings(tones, epochs=1)
    preset, sizes = base.model.preset, {"depth": 1, "dim": 16, "num_heads": 2, "patch": patch}
    model = ModelChoice.of(preset, input_size=(128, 51), pooling="mean", **sizes)
    base = replace(base, model=model, view=View())
    with pytest.raises(InputError, match="longest clip") as caught:
        train(replace(base, optim=replace(base.optim, batch_tokens=2)), tmp_path / "first")
    most = int(str(caught.value).split("it has ")[1].split()[0])
    base = replace(base, optim=replace(base.optim, batch_tokens=most))
    train(replace(base, phases=(phase_of(coarse), phase_of("full:1"))), tmp_path / "run")


def test_a_phase_that_other_settings_have_made_is_not_built_on(tones, tmp_path, monkeypatch):
    config, folder = replace(settings(tones), phases=COARSE_TO_FINE), tmp_path / "run"
    monkeypatch.setattr(Trainer, "_introduce", _stopped_in_the_second(Trainer._introduce))
    with pytest.raises(KeyboardInterrupt):
        train(config, folder)
    monkeypatch.undo()
    for other in (
        replace(config, data=replace(config.data, val=None)),
        replace(config, optim=replace(config.optim, lr=0.123)),
        replace(config, phases=(phase_of("mean2:1"), phase_of("full:1"))),
    ):
        with pytest.raises(InputError, match="phase-1: the saved state belongs to another conf"):
            train(other, folder, resume=True)
    train(config, folder, resume=True)


def _stopped_in_the_second(introduce):
    """The first thing that a trainer says; that of the last phase is interrupted."""

    def said(trainer):
        if trainer.stage.number == 2:
            raise KeyboardInterrupt
        introduce(trainer)

    return said


def test_a_process_that_has_trained_in_one_precision_is_told_to_use_a_new_one(tones, tmp_path):
    config = settings(tones, epochs=1)
    train(config, tmp_path / "one")
    half = replace(config, run=replace(config.run, precision="bf16"))
    with pytest.raises(InputError, match=r"run\.precision bf16 .* use a new process"):
        train(half, tmp_path / "other")


def test_all_phases_hold_out_the_same_clips_and_another_seed_holds_out_others(tones):
    data = DataConfig(manifest=tones, train="all", val_share=0.34, test=None)
    config = replace(settings(tones), data=data, phases=COARSE_TO_FINE)

    def held_out(seed, number):
        seeded = replace(config, run=replace(config.run, seed=seed))
        return {clip.path for clip in split_clips(phase_config(seeded, number)).val}

    assert held_out(0, 0) == held_out(0, 1) == {clip.path for clip in split_clips(config).val}
    assert held_out(1, 0) == held_out(1, 1) != held_out(0, 0)


@pytest.mark.parametrize(
    ("text", "draws", "view"),
    [
        ("hop2:1", Draws(hops_ms=(20.0, 30.0), patches=(8,)), View(hop_ms=24.0)),
        ("patch2:1", Draws(hops_ms=(10.0, 15.0), patches=((8, 16), 16)), View(patch=(128, 6))),
        (
            "max2:1",
            Draws(poolings=(Pooling(kind="max", factor=2), Pooling(kind="max", factor=6))),
            View(pooling=Pooling(kind="max", factor=4), hop_ms=10.0),
        ),
    ],
)
def test_what_is_drawn_in_a_phase_is_as_much_coarser_as_the_phase(tones, text, draws, view):
    own = Draws(
        hops_ms=(10.0, 15.0) if draws.hops_ms else (),
        patches=((8,) if text[0] == "h" else (8, (16, 8))) if draws.patches else (),
        poolings=(Pooling(), Pooling(kind="mean", factor=3)) if draws.poolings else (),
    )
    fine = {
        "h": View(hop_ms=12.0),
        "p": View(patch=(128, 3)),
        "m": View(pooling=Pooling(kind="mean", factor=2)),
    }[text[0]]
    config = replace(settings(tones), draws=own, view=fine)
    config = replace(config, phases=(phase_of(text), phase_of("full:1")))
    first, last = (phase_config(config, number) for number in range(2))
    assert (first.draws, first.view) == (draws, view)
    assert (last.draws, last.view) == (own, fine)


@pytest.mark.parametrize(
    ("schedule", "found"),
    [("held", ["constant", "step"]), ("anew", ["step"] * 2), ("continued", ["step"] * 2)],
)
def test_the_rate_of_a_step_schedule_falls_where_passing_says(tones, schedule, found):
    config = settings(tones, schedule="step", milestones=(3, 7), warmup_steps=0)
    phases = (phase_of("hop2:5"), phase_of("full:5"))
    config = replace(config, phases=phases, passing=Passing(schedule=schedule))
    parts = [phase_config(config, number).optim for number in range(2)]
    assert [part.schedule for part in parts] == found
    rates = [
        learning_rate(part, 10 * epoch, total=50, per_epoch=10) / part.lr
        for part in parts
        for epoch in range(5)
    ]
    once, twice = [1.0] * 3 + [0.5] * 2, [1.0] * 3 + [0.5] * 4 + [0.25] * 3
    assert rates == {"held": [1.0] * 5 + once, "anew": once * 2, "continued": twice}[schedule]
