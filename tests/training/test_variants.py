import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from melastic.errors import InputError
from melastic.patches.dials import Pooling
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.loop import Trainer
from tests.training.test_resume import settings, weights


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def with_parts(config, **parts):
    """Settings with some fields of some sections changed."""
    changed = {name: replace(getattr(config, name), **fields) for name, fields in parts.items()}
    return replace(config, **changed)


def test_clips_with_several_labels_train_with_binary_losses(tones, tmp_path):
    deep = tones.read_text().replace(",low,", ",low;deep,").replace(",middle,", ",middle;deep,")
    manifest = tones.parent / "several.csv"
    manifest.write_text(deep)
    config = with_parts(settings(manifest, epochs=2), run={"choose_by": "mAP"})
    model = train(config, tmp_path)
    assert model.config.task == "multi-label"
    assert set(model.labels) == {"low", "middle", "high", "deep"}
    scores = dict(model.classify(tones.parent / "low_0.wav", top=4))
    assert sum(scores.values()) != pytest.approx(1, abs=1e-3), "each label has its own probability"
    with pytest.raises(InputError, match="use multi-label"):
        train(with_parts(config, model={"task": "single-label"}), tmp_path / "single")


def test_patience_ends_a_run_that_no_longer_improves_and_keeps_the_best(tones, tmp_path):
    config = with_parts(settings(tones, epochs=30, lr=1e-9), run={"patience": 2})
    train(config, tmp_path)
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3, 3]
    again = train(config, tmp_path, resume=True)
    assert [row["epoch"] for row in rows(tmp_path)][:3] == [1, 2, 3], (
        "a finished run stays finished"
    )
    assert again.labels == ("high", "low", "middle")


def test_a_run_that_is_stopped_behind_its_test_has_one_row_of_it(tones, tmp_path):
    config = settings(tones, epochs=1)
    train(config, tmp_path)
    before = rows(tmp_path)
    (tmp_path / "curves.png").unlink()
    train(config, tmp_path, resume=True)
    assert rows(tmp_path) == before
    assert (tmp_path / "curves.png").exists()


def test_patience_waits_for_a_score_where_not_every_epoch_has_one(tones, tmp_path):
    run = {"patience": 2, "evaluate_every": 3}
    train(with_parts(settings(tones, epochs=30, lr=1e-9), run=run), tmp_path)
    assert [row["epoch"] for row in rows(tmp_path) if "val" in row] == [3, 6]
    assert rows(tmp_path)[-1]["epoch"] == 6


def test_the_model_that_is_kept_is_the_best_on_the_held_out_clips(tones, tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.1, 0.3])
    whole = Trainer._scores

    def scored(self, features, plot=None):
        measured = whole(self, features, plot)
        return measured if plot else replace(measured, accuracy=next(scores))

    kept = []
    save = Trainer._save_model
    monkeypatch.setattr(Trainer, "_scores", scored)
    monkeypatch.setattr(
        Trainer, "_save_model", lambda self, row: (kept.append(row["epoch"]), save(self, row))
    )
    train(settings(tones, epochs=4), tmp_path)
    assert kept == [1, 2, 4], "after epochs 1 and 2, and once more with the test scores"
    best = weights(tmp_path)
    monkeypatch.undo()
    train(settings(tones, epochs=4), tmp_path / "again")
    assert best["head.linear.bias"].shape == (3,)


def test_clips_that_are_not_kept_in_memory_train_to_the_same_weights(tones, tmp_path):
    config = settings(tones, epochs=2)
    streamed = with_parts(config, data={"cache_mb": 0, "workers": 2})
    train(config, tmp_path / "kept")
    train(streamed, tmp_path / "streamed")
    one, other = weights(tmp_path / "kept"), weights(tmp_path / "streamed")
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_an_unreadable_clip_is_counted_where_clips_are_read_while_training(tones, tmp_path, capfd):
    (tones.parent / "cut.wav").write_bytes((tones.parent / "low_0.wav").read_bytes()[:30])
    manifest = tones.parent / "cut.csv"
    manifest.write_text(tones.read_text() + "cut.wav,low,train\n")
    config = with_parts(settings(manifest, epochs=1), data={"cache_mb": 0, "max_unreadable": 1})
    train(config, tmp_path / "lenient")
    assert "1 unreadable training clips were left out" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"cut\.wav.*1 unreadable, 0 allowed"):
        train(with_parts(config, data={"max_unreadable": 0}), tmp_path / "strict")


@pytest.mark.parametrize(
    "view",
    [View(hop_ms=20), View(pooling=Pooling(kind="mean", factor=2)), View(seconds=0.15, keep=0.5)],
)
def test_a_run_may_see_clips_through_another_view(tones, tmp_path, view):
    train(replace(settings(tones, epochs=1), view=view), tmp_path)
    assert rows(tmp_path)[-1]["test"]["clips"] == 6


def test_classes_can_be_balanced_and_clips_held_out_at_random(tones, tmp_path):
    config = with_parts(
        settings(tones, epochs=1), data={"balanced": True, "val": None, "val_share": 0.34}
    )
    train(config, tmp_path)
    assert rows(tmp_path)[0]["val"]["clips"] == 6, "two of each label"


def test_tensorboard_gets_the_numbers(tones, tmp_path):
    config = with_parts(settings(tones, epochs=1), run={"trackers": ("tensorboard",)})
    train(config, tmp_path)
    events = list((tmp_path / "tensorboard").iterdir())
    assert events
    assert events[0].stat().st_size > 200


def test_weights_and_biases_gets_the_numbers(tones, tmp_path, monkeypatch):
    logged, finished = [], []
    run = SimpleNamespace(
        log=lambda numbers, step: logged.append((step, numbers)),
        finish=lambda: finished.append(True),
    )
    stand_in = ModuleType("wandb")
    stand_in.init = lambda **settings: run
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    config = with_parts(settings(tones, epochs=2), run={"trackers": ("wandb",)})
    train(config, tmp_path)
    assert [step for step, _ in logged] == [row["step"] for row in rows(tmp_path)]
    assert {"loss", "lr", "val/accuracy", "val/mAP"} <= set(logged[0][1])
    assert finished == [True]


def test_a_tracker_that_is_not_installed_is_named(tones, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"install 'melastic\[wandb\]'"):
        train(with_parts(settings(tones), run={"trackers": ("wandb",)}), tmp_path)


def test_steps_follow_adam_and_a_step_schedule_as_ast_does(tones, tmp_path):
    config = settings(tones, optimizer="adam", schedule="step", milestones=(1, 2), warmup_steps=1)
    train(config, tmp_path)
    peak = config.optim.lr
    assert [row["lr"] for row in rows(tmp_path)[:3]] == pytest.approx([peak, peak / 2, peak / 4])


def test_settings_that_cannot_train_leave_no_folder_behind(tones, tmp_path):
    config = settings(tones)
    wrong = [
        with_parts(config, model={"architecture": replace(config.model.architecture, num_heads=7)}),
        with_parts(config, model={"architecture": replace(config.model.architecture, patch=200)}),
        with_parts(config, data={"train": "split=nothing"}),
        with_parts(config, optim={"batch_tokens": 2}),
    ]
    for settings_ in wrong:
        with pytest.raises(InputError):
            train(settings_, tmp_path / "run")
        assert not (tmp_path / "run").exists()
