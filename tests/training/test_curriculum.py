"""What is drawn in training, and what the model then sees."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import melastic
from melastic.data.features import Features, Samples
from melastic.data.loader import ClipDataset
from melastic.data.manifest import read_manifest
from melastic.errors import InputError
from melastic.evaluation.cost import tokens_of
from melastic.patches.dials import Pooling
from melastic.patches.grid import FreqTime
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.curriculum import Curriculum, Draws
from melastic.training.loop import Trainer
from tests.training.test_resume import last_step, same, settings, weights

SIZES = (FreqTime(128, 2), FreqTime(64, 4), FreqTime(16, 16))
ALL = Draws(
    patches=SIZES,
    hops_ms=(10.0, 14.0, 20.0),
    poolings=(Pooling(), Pooling(kind="max", factor=2)),
    seconds=(0.05, 0.3),
    keep=(0.5, 1.0),
)


def flexible(manifest, draws=ALL, **optim):
    return replace(settings(manifest, **optim), draws=draws)


def test_draws_are_functions_of_seed_step_and_clip():
    one, same_again, other = (Curriculum(View(), ALL, seed) for seed in (0, 0, 1))
    steps, clips = range(200), [(epoch, index) for epoch in range(10) for index in range(20)]
    assert [one.patch(0, s) for s in steps] == [same_again.patch(0, s) for s in steps]
    assert [one.clip(*c) for c in clips] == [same_again.clip(*c) for c in clips]
    assert [one.patch(0, s) for s in steps] != [other.patch(0, s) for s in steps]
    assert [one.clip(*c) for c in clips] != [other.clip(*c) for c in clips]


def test_all_values_are_drawn_equally_often_and_twice_as_often_where_listed_twice():
    draws = replace(ALL, patches=(SIZES[0], SIZES[1], SIZES[1]))
    curriculum = Curriculum(View(), draws, 0)
    sizes = Counter(curriculum.patch(0, step) for step in range(3000))
    assert sizes[SIZES[0]] / 3000 == pytest.approx(1 / 3, abs=0.04)
    assert sizes[SIZES[1]] / 3000 == pytest.approx(2 / 3, abs=0.04)
    views = [curriculum.clip(0, index) for index in range(3000)]
    for hop in ALL.hops_ms:
        assert sum(v.hop_ms == hop for v in views) / 3000 == pytest.approx(1 / 3, abs=0.04)
    ratios = [math.log(v.seconds / 0.05) / math.log(6) for v in views]
    assert 0 <= min(ratios) <= max(ratios) <= 1
    assert sum(ratios) / 3000 == pytest.approx(0.5, abs=0.03)


@given(st.integers(1, 300), st.floats(0.1, 1), st.integers(0, 1000))
def test_a_share_of_the_tokens_is_kept_each_once(tokens, share, step):
    curriculum = Curriculum(View(), Draws(keep=(share, share)), 0)
    kept = curriculum.kept(0, step, 7, tokens)
    expected = max(1, round(share * tokens))
    chosen = range(tokens) if kept is None else kept.tolist()
    assert len(set(chosen)) == len(chosen) == expected
    assert sorted(chosen) == list(chosen)


@pytest.mark.parametrize("most", [1.0, 0.6])
def test_drawn_views_come_in_evenly_over_the_epochs_of_the_ramp_up_to_their_share(most):
    draws = replace(ALL, ramp_epochs=4, keep=(0.5, 0.5), share=most)
    curriculum = Curriculum(View(), draws, 0)
    for epoch, part in enumerate((0.0, 0.25, 0.5, 0.75, 1.0, 1.0)):
        share = part * most
        draws = range(2000)
        patches = sum(curriculum.patch(epoch, step) is not None for step in draws)
        views = sum(curriculum.clip(epoch, index) != View() for index in draws)
        shares = sum(curriculum.kept(epoch, step, 3, 10) is not None for step in draws)
        for count in (patches, views, shares):
            assert count / 2000 == pytest.approx(share, abs=0.04)


def test_what_is_not_drawn_is_that_of_the_run():
    view = View(patch=8, hop_ms=12.0, seconds=2.0, keep=0.5)
    curriculum = Curriculum(view, Draws(), 0)
    assert curriculum.patch(1, 3) == FreqTime(8, 8)
    assert curriculum.clip(1, 2) == view
    assert len(curriculum.kept(0, 0, 0, 10)) == 5
    assert Curriculum(View(), Draws(), 0).kept(0, 0, 0, 10) is None


@pytest.mark.parametrize("kept_mb", [0, 50])
def test_clips_are_seen_through_the_views_that_are_drawn(tones, kept_mb):
    curriculum = Curriculum(View(), ALL, 0)
    frontend = melastic.create_model("ast-nano", num_classes=3).config.frontend
    clips = read_manifest(tones)
    samples = Samples(clips, frontend.sample_rate, cache_mb=kept_mb)
    features = Features(clips, frontend, cache_mb=50 - kept_mb, samples=samples)
    data = ClipDataset(features, ("high", "low", "middle"), frontend, views=curriculum.clip)
    batch = data[4, list(range(30))]
    for index, x, step_ms in zip(range(30), batch.spectrograms, batch.steps_ms, strict=True):
        view = curriculum.clip(4, index)
        raw = Features([features.clips[index]], frontend, view=view)[0]
        longest = round(view.seconds * 1000 / step_ms)
        expected = (raw[:, :longest] - frontend.mean) / (2 * frontend.std)
        torch.testing.assert_close(x, expected)
        assert step_ms == view.hop_ms * view.pooling.factor


def test_a_run_with_every_dial_drawn_resumes_to_the_same_weights(tones, tmp_path, monkeypatch):
    config = flexible(tones)
    train(config, tmp_path / "whole")
    done = Trainer._step

    def stopped(self, *arguments):
        if self.progress.step == 3:
            raise KeyboardInterrupt
        return done(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped")
    monkeypatch.undo()
    train(config, tmp_path / "stopped", resume=True)
    assert last_step(tmp_path / "stopped") == last_step(tmp_path / "whole")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_parts_that_are_computed_together_fit_the_budget(tones, tmp_path, processes, pooling):
    base = flexible(tones, batch_tokens=100)
    architecture = replace(base.model.architecture, pooling=pooling)
    run = trainer(replace(base, model=replace(base.model, architecture=architecture)), tmp_path)
    largest = 0
    for epoch in range(3):
        for step, indices in enumerate(run.sampler.epoch(epoch)):
            parts = run.parts.of(indices, epoch, step, processes=processes)
            assert sorted(i for part in parts for i in part) == sorted(indices)
            patch, each = run.curriculum.patch(epoch, step), len(parts) // processes
            for part in range(each):
                together = [i for own in parts[part::each] for i in own]
                largest = max(largest, seen_tokens(run, epoch, step, together, patch))
                budget = 100 + processes * max(run.parts.tokens(epoch, i, patch) for i in indices)
                assert seen_tokens(run, epoch, step, together, patch) <= budget
    assert largest > 50


def seen_tokens(run, epoch, step, indices, patch):
    """Tokens that the encoder is really given."""
    batch, counted = run.clips[epoch, indices], []
    if not batch.indices:
        return 0
    hook = run.model.encoder.register_forward_pre_hook(
        lambda _, inputs: counted.append(len(inputs[0]))
    )
    run.objective._logits(batch, epoch, step, patch)
    hook.remove()
    return counted[0]


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_a_run_without_draws_computes_each_step_at_once(tones, tmp_path, pooling):
    base = settings(tones, batch_tokens=100)
    architecture = replace(base.model.architecture, pooling=pooling)
    run = trainer(replace(base, model=replace(base.model, architecture=architecture)), tmp_path)
    for step, indices in enumerate(run.sampler.epoch(0)):
        assert run.parts.of(indices, 0, step, processes=1) == [indices]


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ({"hops_ms": (10.0, -1.0)}, "positive number of milliseconds"),
        ({"seconds": (2.0, 1.0)}, "shortest and a longest"),
        ({"keep": (0.0, 1.0)}, "smallest and a largest share"),
        ({"share": 0.0}, r"draws.share is in \(0, 1\]"),
    ],
)
def test_draws_that_mean_nothing_are_refused(draws, message):
    with pytest.raises(InputError, match=message):
        Draws(**draws)


def test_a_patch_that_no_spectrogram_can_hold_is_refused_before_a_run_begins(tones, tmp_path):
    config = flexible(tones, Draws(patches=(FreqTime(129, 2),)))
    with pytest.raises(InputError, match="at most the 128 mel bins"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def trainer(config, folder):
    from accelerate import Accelerator

    return Trainer(config, folder, Accelerator(cpu=True))


def test_tokens_of_a_step_are_those_of_its_views(tones, tmp_path):
    run = trainer(flexible(tones, Draws(hops_ms=(20.0,))), tmp_path / "run")
    frames = run.clips.features.frames(3)
    size = FreqTime(128, round(frames / 2))
    assert run.parts.tokens(0, 3, FreqTime(16, 16)) == tokens_of(
        run.model.config, size, patch=FreqTime(16, 16), keep=0.8
    )


def test_a_part_without_clips_has_a_silent_loss_whatever_is_drawn(tones, tmp_path):
    base = flexible(tones, Draws(patches=(FreqTime(48, 12),)))
    architecture = replace(base.model.architecture, remainder="crop", patch=(64, 4))
    base = replace(base, model=replace(base.model, architecture=architecture))
    run = trainer(base, tmp_path / "run")
    loss = run.objective.losses(run.clips[0, []], 0, 0)
    assert loss.tolist() == [0.0]
    loss.sum().backward()


def test_a_view_that_the_shortest_clip_cannot_have_is_refused_before_a_run_begins(tones, tmp_path):
    base = flexible(tones, Draws(poolings=(Pooling(kind="mean", factor=40),)))
    with pytest.raises(InputError, match="cannot be pooled by 40"):
        train(base, tmp_path / "run")
    cropped = replace(base.model.architecture, remainder="crop")
    long = replace(base, draws=Draws(patches=(FreqTime(16, 18),)))
    with pytest.raises(InputError, match="holds no whole patch"):
        train(
            replace(long, model=replace(base.model, architecture=cropped)), tmp_path / "run"
        )  # 18 frames are there, but a clip may be played faster
    assert not (tmp_path / "run").exists()


def test_a_frame_shift_of_less_than_a_sample_is_refused_before_a_run_begins(tones, tmp_path):
    base = flexible(tones, Draws(hops_ms=(10.0, 0.01), ramp_epochs=1))
    with pytest.raises(InputError, match=r"at least 1 sample, got 0\.01 ms"):
        train(base, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_takes_statistics_and_fixed_length_from_the_model_that_it_starts_from(
    tones, tmp_path
):
    trained = train(settings(tones, epochs=1), tmp_path / "teacher")
    frontend = replace(trained.config.frontend, fixed_frames=30)
    trained.config = replace(trained.config, frontend=frontend, head_norm_eps=1e-6)
    trained.save(tmp_path / "start")
    base = settings(tones)
    run = trainer(
        replace(base, model=replace(base.model, init=str(tmp_path / "start"))), tmp_path / "run"
    )
    assert run.model.config.frontend == frontend
    assert run.model.config.head_norm_eps == 1e-6
    assert set(run.clips[0, [0, 1]].lengths) == {30}


@pytest.mark.parametrize(
    ("preset", "length", "fixed"),
    [
        ("ast-tiny", "auto", 30),
        ("ast-tiny", "native", None),
        ("elasticast-tiny", "auto", None),
        ("elasticast-tiny", "init", 30),
        ("melastic-tiny", "auto", None),
    ],
)
def test_models_of_any_length_keep_it_when_they_start_from_one_of_a_fixed_length(
    tones, tmp_path, capsys, preset, length, fixed
):
    trained = train(settings(tones, epochs=1), tmp_path / "teacher")
    frontend = replace(trained.config.frontend, fixed_frames=30)
    trained.config = replace(trained.config, frontend=frontend)
    trained.save(tmp_path / "start")
    base = settings(tones)
    choice = replace(base.model, init=str(tmp_path / "start"), preset=preset, length=length)
    run = trainer(replace(base, model=choice), tmp_path / "run")
    assert run.model.config.frontend.fixed_frames == fixed
    said = "all clips are cut or padded to its 0.3 s" in capsys.readouterr().err
    assert said == (fixed is not None)


@pytest.mark.parametrize(
    "draws",
    [
        Draws(keep=(0.3, 0.5)),
        Draws(keep=(0.3, 0.5), ramp_epochs=4),
        Draws(keep=(0.3, 0.5), share=0.5),
        Draws(),
    ],
)
def test_no_clip_keeps_more_than_the_most_and_some_nearly_that(draws):
    curriculum = Curriculum(View(keep=0.9), draws, seed=0)
    kept = [
        len(curriculum.kept(epoch, step, 0, 1000)) / 1000
        for epoch, step in product(range(6), range(50))
    ]
    assert 0.95 * curriculum.most_kept < max(kept) <= curriculum.most_kept
