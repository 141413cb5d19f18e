"""Before the first step: which clips are held out, and how many tokens a step may have."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import melastic
from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.evaluation.cost import tokens_of
from melastic.patches.grid import FreqTime
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.config import DataConfig, TrainConfig
from melastic.training.setup import hold_out
from tests.training.test_curriculum import trainer
from tests.training.test_resume import settings


def clips_of(labels):
    return [Clip(Path(f"{i}.wav"), tuple(names)) for i, names in enumerate(labels)]


def sharing(share, seed=0):
    return TrainConfig(name="", data=DataConfig(val_share=share, split_seed=seed))


@given(
    st.lists(st.sets(st.sampled_from("abcde"), min_size=1, max_size=2).map(sorted), min_size=1),
    st.floats(0.01, 0.99),
)
def test_as_many_clips_are_held_out_as_asked_and_of_each_label_nearly_so(labels, share):
    clips, config = clips_of(labels), sharing(share)
    if not round(share * len(clips)):
        with pytest.raises(InputError, match="less than one; raise it"):
            hold_out(clips, config)
        return
    train_on, held = hold_out(clips, config)
    assert len(held) == round(share * len(clips))
    assert sorted(train_on + held, key=clips.index) == clips
    found, there = (Counter(clip.labels for clip in some) for some in (held, clips))
    for names, count in there.items():
        assert abs(found[names] - share * count) < 1


def test_rare_combinations_of_labels_are_held_out_too():
    clips = clips_of([str(number) for number in range(50) for _ in range(4)])
    assert len(hold_out(clips, sharing(0.1))[1]) == 20
    assert hold_out(clips, sharing(0.1)) != hold_out(clips, sharing(0.1, seed=1))


@pytest.fixture
def padded(tones, tmp_path):
    """A trained model that pads clips of half a second to ten."""
    model = train(settings(tones, epochs=1), tmp_path / "teacher")
    frontend = replace(model.config.frontend, fixed_frames=1000)
    model.config = replace(model.config, frontend=frontend)
    model.save(tmp_path / "padded")
    return tmp_path / "padded"


@pytest.mark.parametrize("view", [View(), View(keep=0.5), View(hop_ms=20.0)])
def test_no_step_has_more_tokens_than_allowed_where_clips_are_padded(tones, padded, tmp_path, view):
    base = settings(tones, batch_tokens=700)
    base = replace(base, model=replace(base.model, init=str(padded)), view=view)
    run = trainer(base, tmp_path / "run")
    assert melastic.load(padded).config.frontend.fixed_frames == 1000
    for indices in run.sampler.epoch(0):
        (parts,) = [run.parts.of(indices, 0, 0, processes=1)]
        for part in parts:
            batch = run.clips[0, part]
            sizes = [FreqTime(128, frames) for frames in batch.lengths]
            assert set(batch.lengths) == {500 if view.hop_ms else 1000}
            tokens = [tokens_of(run.model.config, size, keep=view.keep) for size in sizes]
            assert sum(tokens) <= 700
            assert len(part) == 1 or sum(tokens) > 350, "steps are as full as they may be"
