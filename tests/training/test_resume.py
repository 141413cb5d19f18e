import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from melastic.data.manifest import read_manifest
from melastic.data.sampler import TokenBudgetSampler
from melastic.errors import DivergedError, InputError
from melastic.frontend.augment import Augmentation
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, RunConfig, TrainConfig
from melastic.training.loop import Trainer
from melastic.training.objective import Objective
from melastic.training.phases import phases_in
from melastic.training.run_folder import read_run_config
from melastic.training.state import STATE


def settings(manifest, **optim):
    return TrainConfig(
        name="tones",
        data=DataConfig(manifest=manifest, train="split=train", val="split=val", test="split=test"),
        model=ModelChoice.of(
            "ast-nano",
            depth=1,
            dim=16,
            num_heads=2,
            patch=(128, 4),
            input_size=(128, 50),
            pooling="mean",
        ),
        view=View(keep=0.8),
        augment=Augmentation(mixup=0.5, warp_time=0.2, gain_db=6, freq_masks=1, time_masks=1),
        optim=OptimConfig(**{"epochs": 3, "batch_tokens": 60, "warmup_steps": 4, **optim}),
        run=RunConfig(cpu=True, save_every_s=0.0),
    )


def weights(folder):
    return load_file(folder / "model" / "model.safetensors") | load_file(folder / STATE)


def last_step(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def stop_after(steps, config, folder, monkeypatch):
    """Train so many steps, and stop as a user would."""
    step, count = Trainer._step, 0

    def stopping(self, *args):
        nonlocal count
        count += 1
        if count > steps:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(config, folder)


@pytest.mark.parametrize("average", ["ema", "tail", "none"])
def test_a_run_that_stops_at_any_step_and_resumes_ends_with_the_same_weights(
    tones, tmp_path, monkeypatch, average
):
    config = settings(tones, average=average)
    train(config, tmp_path / "whole")
    steps = last_step(tmp_path / "whole")
    for stop in (1, steps // 2, steps - 1):
        folder = tmp_path / f"stopped{stop}"
        stop_after(stop, config, folder, monkeypatch)
        if not (folder / STATE).exists():
            continue
        train(config, folder, resume=True)
        assert same(weights(folder), weights(tmp_path / "whole"))
        lines = [
            len((run / "metrics.jsonl").read_text().splitlines())
            for run in (folder, tmp_path / "whole")
        ]
        assert lines[0] == lines[1]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tones, tmp_path):
    config = settings(tones, epochs=4)
    train(config, tmp_path / "whole")
    folder = tmp_path / "killed"
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[2]));"
        "from pathlib import Path; from melastic.training.coarse_to_fine import train;"
        "from melastic.training.run_folder import read_run_config;"
        "p = Path(sys.argv[1]); train(read_run_config(p), p, resume=True)"
    )
    from melastic.training.run_folder import begin

    begin(config, folder)
    command = [sys.executable, "-c", code, str(folder), str(torch.get_num_threads())]
    kills = 0
    for wait_s in (0.05, 0.2, 0.4):
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while run.poll() is None and "classes" not in run.stderr.readline():
            pass
        time.sleep(wait_s)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            kills += 1
        run.wait()
        run.stderr.close()
    assert kills
    subprocess.run(command, check=True, capture_output=True)
    assert same(weights(folder), weights(tmp_path / "whole"))


def test_a_resumed_run_does_not_need_the_model_that_it_started_from(tones, tmp_path, monkeypatch):
    start = train(settings(tones, epochs=1), tmp_path / "start")
    frontend = replace(start.config.frontend, mean=-3.0, std=5.0)
    start.config = replace(start.config, frontend=frontend)
    start.save(tmp_path / "init")
    base = settings(tones)
    config = replace(base, model=replace(base.model, init=str(tmp_path / "init")))
    train(config, tmp_path / "whole")
    stop_after(3, config, tmp_path / "stopped", monkeypatch)
    shutil.rmtree(tmp_path / "init")
    model = train(config, tmp_path / "stopped", resume=True)
    assert model.config.frontend == frontend
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_the_learning_rate_follows_epochs_however_many_steps_each_has(
    tones, tmp_path, monkeypatch, schedule
):
    milestones = {"milestones": (2,), "decay": 0.1} if schedule == "step" else {}
    base = settings(
        tones, epochs=4, warmup_steps=0, average="none", schedule=schedule, **milestones
    )
    config = replace(base, data=replace(base.data, val=None, test=None))
    counts, rates, epoch = (3, 1, 4, 5), [], TokenBudgetSampler.epoch
    monkeypatch.setattr(
        TokenBudgetSampler, "epoch", lambda self, number: epoch(self, 0)[:1] * counts[number]
    )
    step = Trainer._step

    def noting(self, *args):
        rates.append(self.optimizer.param_groups[0]["lr"] / config.optim.lr)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", noting)
    train(config, tmp_path)
    places = [number + i / count for number, count in enumerate(counts) for i in range(count)]
    if schedule == "step":
        assert rates == pytest.approx([1.0 if place < 2 else 0.1 for place in places])
    else:
        assert rates == pytest.approx([0.5 + 0.5 * math.cos(math.pi * p / 4) for p in places])


def test_a_phase_is_resumed_by_its_run(tones, tmp_path):
    config = replace(settings(tones, epochs=2), phases=phases_in("2-phase"))
    train(config, tmp_path / "run")
    before = weights(tmp_path / "run" / "phase-1")
    phase = tmp_path / "run" / "phase-1"
    with pytest.raises(InputError, match=rf"this is phase 1 of .*run; use --resume {phase.parent}"):
        train(read_run_config(phase), phase, resume=True)
    assert same(before, weights(phase))
    train(config, tmp_path / "run", resume=True)


def test_a_model_that_leaves_the_numbers_in_its_last_step_is_not_kept(tones, tmp_path):
    base = settings(tones, epochs=1, lr=1e39, average="none", warmup_steps=0, batch_tokens=4000)
    with pytest.raises(DivergedError, match="must be finite"):
        train(base, tmp_path / "held")
    alone = replace(base, data=replace(base.data, val=None, test=None))
    with pytest.raises(InputError, match="is not finite, so it is not saved"):
        train(alone, tmp_path / "alone")


def test_a_state_of_other_settings_is_refused(tones, tmp_path):
    config = settings(tones, epochs=1)
    train(config, tmp_path)
    other = replace(config, optim=replace(config.optim, lr=1e-4))
    with pytest.raises(InputError, match="another configuration"):
        train(other, tmp_path, resume=True)


def test_a_damaged_state_is_one_clear_line(tones, tmp_path):
    config = settings(tones, epochs=1)
    train(config, tmp_path)
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        train(config, tmp_path, resume=True)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tones, tmp_path):
    losses = []
    for parts in (1, 3):
        config = settings(tones, accumulate=parts, epochs=1)
        train(config, tmp_path / str(parts))
        losses.append(weights(tmp_path / str(parts)))
    for name, value in losses[0].items():
        if name.startswith("model/"):
            torch.testing.assert_close(value, losses[1][name], atol=2e-4, rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_clips(
    tones, tmp_path, monkeypatch
):
    monkeypatch.setattr(Objective, "losses", lambda *arguments: torch.full((2,), torch.nan))
    with pytest.raises(DivergedError, match=r"at step 0 .*\.wav"):
        train(settings(tones), tmp_path)


def test_an_unreadable_clip_stops_the_run_unless_it_is_allowed(tones, tmp_path, capfd):
    rows = tones.read_text().splitlines()
    manifest = tones.parent / "broken.csv"
    (tones.parent / "broken.wav").write_bytes(b"RIFF")
    manifest.write_text("\n".join([*rows, "broken.wav,low,train"]) + "\n")
    config = settings(manifest, epochs=1)
    with pytest.raises(InputError, match=r"broken\.wav.*1 unreadable, 0 allowed"):
        train(config, tmp_path / "strict")
    train(replace(config, data=replace(config.data, max_unreadable=1)), tmp_path / "lenient")
    said = capfd.readouterr().err
    assert "left out" in said
    assert "1 unreadable training clips were left out" in said
    assert len(read_manifest(manifest)) == 31
    cropped = replace(config.model.architecture, remainder="crop")
    config = replace(config, model=replace(config.model, architecture=cropped))
    train(replace(config, data=replace(config.data, max_unreadable=1)), tmp_path / "cropped")


def test_a_clip_whose_body_is_broken_stops_the_run_unless_it_is_allowed(tones, tmp_path, capfd):
    rows = tones.read_text().splitlines()
    samples, rate = soundfile.read(tones.parent / rows[1].split(",")[0])
    soundfile.write(tones.parent / "body.flac", samples, rate)
    whole = (tones.parent / "body.flac").read_bytes()
    (tones.parent / "body.flac").write_bytes(whole[: len(whole) // 2])
    manifest = tones.parent / "body.csv"
    manifest.write_text("\n".join([*rows, "body.flac,low,train"]) + "\n")
    config = settings(manifest, epochs=1)
    uncached = replace(config.data, cache_mb=0, workers=0)
    with pytest.raises(InputError, match=r"body\.flac"):
        train(replace(config, data=uncached), tmp_path / "strict")
    train(replace(config, data=replace(uncached, max_unreadable=1)), tmp_path / "lenient")
    assert "1 unreadable training clips were left out" in capfd.readouterr().err
