"""What is drawn in training, and what the model then sees."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import melastic
from melastic.data.features import Features
from melastic.data.loader import ClipDataset
from melastic.data.manifest import read_manifest
from melastic.errors import InputError
from melastic.evaluation.cost import tokens_of
from melastic.patches.grid import FreqTime
from melastic.patches.view import Pooling, View
from melastic.training.config import Distillation
from melastic.training.curriculum import Curriculum, Draws
from melastic.training.loop import Trainer, train
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
    assert [one.patch(s) for s in steps] == [same_again.patch(s) for s in steps]
    assert [one.clip(*c) for c in clips] == [same_again.clip(*c) for c in clips]
    assert [one.patch(s) for s in steps] != [other.patch(s) for s in steps]
    assert [one.clip(*c) for c in clips] != [other.clip(*c) for c in clips]


def test_all_values_are_drawn_equally_often_and_twice_as_often_where_listed_twice():
    draws = replace(ALL, patches=(SIZES[0], SIZES[1], SIZES[1]))
    curriculum = Curriculum(View(), draws, 0)
    sizes = Counter(curriculum.patch(step) for step in range(3000))
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
    kept = curriculum.kept(step, 7, tokens)
    expected = max(1, round(share * tokens))
    chosen = range(tokens) if kept is None else kept.tolist()
    assert len(set(chosen)) == len(chosen) == expected
    assert sorted(chosen) == list(chosen)


def test_what_is_not_drawn_is_that_of_the_run():
    view = View(patch=8, hop_ms=12.0, seconds=2.0, keep=0.5)
    curriculum = Curriculum(view, Draws(), 0)
    assert curriculum.patch(3) == FreqTime(8, 8)
    assert curriculum.clip(1, 2) == view
    assert len(curriculum.kept(0, 0, 10)) == 5
    assert Curriculum(View(), Draws(), 0).kept(0, 0, 10) is None


@pytest.mark.parametrize("keep", ["spectrograms", "waveforms"])
def test_clips_are_seen_through_the_views_that_are_drawn(tones, keep):
    curriculum = Curriculum(View(), ALL, 0)
    frontend = melastic.create_model("ast-nano", num_classes=3).config.frontend
    features = Features(read_manifest(tones), frontend, cache_mb=50, keep=keep)
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


def test_no_part_of_a_step_exceeds_the_token_budget_by_more_than_a_clip(tones, tmp_path):
    sizes = []
    config = flexible(tones, replace(ALL, keep=None), epochs=2)

    class Watched(Trainer):
        def _parts(self, indices, step):
            parts = super()._parts(indices, step)
            patch = self.curriculum.patch(step)
            for part in parts:
                sizes.append([self._tokens(self.progress.epoch, i, patch) for i in part])
            return parts

    from accelerate import Accelerator

    Watched(config, tmp_path, Accelerator(cpu=True)).run()
    for tokens in sizes:
        assert not tokens or sum(tokens) <= config.optim.batch_tokens + max(tokens)
    assert max(map(sum, sizes)) > 30


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ({"hops_ms": (10.0, -1.0)}, "positive number of milliseconds"),
        ({"seconds": (2.0, 1.0)}, "shortest and a longest"),
        ({"keep": (0.0, 1.0)}, "smallest and a largest share"),
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


@pytest.fixture
def teacher(tones, tmp_path):
    train(settings(tones, epochs=1), tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_teachers_scores_are_followed_by_cross_entropy(tones, tmp_path, teacher):
    base = replace(settings(tones), view=View())
    model = replace(base.model, init=str(teacher))
    heat = Distillation(teacher=str(teacher), weight=0.3, temperature=2.0)
    run = trainer(replace(base, model=model, distill=heat), tmp_path / "run")
    plain = trainer(replace(base, model=model), tmp_path / "plain")
    batch = run.clips[0, [0, 3, 5]]
    logits = run.model(batch.spectrograms)
    target = melastic.load(teacher)(batch.spectrograms)
    follow = -((target / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1) * 4
    expected = 0.7 * plain.objective.losses(batch, 0) + 0.3 * follow
    torch.testing.assert_close(run.objective.losses(batch, 0), expected)


def test_a_model_teaches_itself_at_other_patch_sizes(tones, tmp_path):
    base = flexible(tones, Draws(patches=(FreqTime(16, 16),)))
    base = replace(base, view=View(), distill=Distillation(weight=0.5))
    run = trainer(base, tmp_path / "run")
    batch = run.clips[0, [0, 3, 5]]
    small = run.objective._logits(batch, 0, FreqTime(16, 16))
    own = run.objective._logits(batch, 0, FreqTime(128, 4))
    follow = -(own.detach().softmax(1) * small.log_softmax(1)).sum(1)
    label = run.objective._labelled
    expected = (0.5 * label(small, batch) + 0.5 * follow + label(own, batch)) / 2
    torch.testing.assert_close(run.objective.losses(batch, 0), expected)


def test_a_teacher_must_know_the_labels_and_read_the_same_spectrograms(tones, tmp_path, teacher):
    base = settings(tones)
    other = replace(base, distill=Distillation(teacher="digits", weight=0.5))
    with pytest.raises(InputError, match="must know the same labels"):
        train(other, tmp_path / "labels")
    coarse = replace(base.model, architecture=replace(base.model.architecture, sample_rate=8000))
    heard = Distillation(teacher=str(teacher), weight=0.5)
    with pytest.raises(InputError, match="must read the same spectrograms, its sample_rate"):
        train(replace(base, model=coarse, distill=heard), tmp_path / "rate")


def test_tokens_of_a_step_are_those_of_its_views(tones, tmp_path):
    run = trainer(flexible(tones, Draws(hops_ms=(20.0,))), tmp_path / "run")
    frames = run.clips.features.frames(3)
    size = FreqTime(128, round(frames / 2))
    assert run._tokens(0, 3, FreqTime(16, 16)) == tokens_of(
        run.model.config, size, patch=FreqTime(16, 16)
    )
