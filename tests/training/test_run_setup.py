"""Before the first step: which clips are held out, and how many tokens a step may have."""

import math
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
from melastic.training.config import DataConfig, ModelChoice, PretrainConfig, TrainConfig
from melastic.training.phases import phase_of
from melastic.training.settings import config_from, pretraining_of
from melastic.training.setup import hold_out, split_clips
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
    assert sorted(train_on + held, key=clips.index) == clips
    found, there = (Counter(clip.labels for clip in some) for some in (held, clips))
    owners = Counter(label for names in there for label in names)
    most = {
        names: count - any(owners[label] == 1 for label in names) for names, count in there.items()
    }
    if all(most[names] >= math.ceil(share * count) for names, count in there.items()):
        assert len(held) == round(share * len(clips))
        assert all(abs(found[names] - share * count) < 1 for names, count in there.items())
    for names, count in there.items():
        assert abs(found[names] - share * count) <= 1
        assert found[names] <= most[names]
    full = all(found[names] in (most[names], int(share * n) + 1) for names, n in there.items())
    assert len(held) == round(share * len(clips)) or full


def test_the_only_clip_of_a_label_is_never_held_out():
    clips = clips_of([*(["a", "b", "c", "d"] * 10), *(f"rare {i}" for i in range(8))])
    clips = [Clip(clip.path, ("".join(clip.labels),)) for clip in clips]
    train_on, held = hold_out(clips, sharing(0.2))
    assert len(held) == 10
    assert {clip.labels for clip in train_on} == {clip.labels for clip in clips}


def test_a_clip_that_is_listed_twice_is_named_where_clips_are_held_out(tones, tmp_path):
    rows = tones.read_text().splitlines()
    for row in rows[1:]:
        name = row.split(",")[0]
        (tmp_path / name).symlink_to(tones.parent / name)
    (tmp_path / "twice.csv").write_text("\n".join([*rows, *rows[1:]]) + "\n")
    config = settings(tmp_path / "twice.csv")
    data = replace(config.data, val=None, val_share=0.5)
    with pytest.raises(InputError, match="is listed twice; drop one of its rows"):
        train(replace(config, data=data), tmp_path / "run")


def test_clips_with_several_labels_matter_only_where_they_are_selected(tones, tmp_path):
    rows = tones.read_text().splitlines()
    for row in rows[1:]:
        name = row.split(",")[0]
        (tmp_path / name).symlink_to(tones.parent / name)
    name = rows[1].split(",")[0]
    (tmp_path / "both.csv").write_text("\n".join([*rows[:1], *rows[2:], f"{name},low;high,other"]))
    config = settings(tmp_path / "both.csv")
    assert not split_clips(config).multi_label
    several = replace(config, data=replace(config.data, train="split=train,other"))
    assert split_clips(several).multi_label
    single = replace(several, model=replace(config.model, task="single-label"))
    with pytest.raises(InputError, match=f"{name} has 2 labels; use multi-label"):
        split_clips(single)


def test_rare_combinations_of_labels_are_held_out_too():
    clips = clips_of([str(number) for number in range(50) for _ in range(4)])
    assert len(hold_out(clips, sharing(0.1))[1]) == 20
    assert hold_out(clips, sharing(0.1)) != hold_out(clips, sharing(0.1, seed=1))


def test_which_of_equal_labels_are_held_out_is_drawn_and_not_what_a_manifest_names_first():
    clips = clips_of([str(number % 50)] for number in range(100))
    held = [hold_out(clips, sharing(0.1, seed=seed))[1] for seed in range(3)]
    assert held[0] != held[1] != held[2]
    assert all(max(map(clips.index, some)) > 20 for some in held)


def test_a_config_that_names_a_preset_gets_its_sizes_and_changes_what_it_says():
    made = config_from({"name": "x", "model": {"preset": "aum-nano"}}, "f")
    assert made.model == ModelChoice.of("aum-nano")
    some = {"preset": "htsat-nano", "architecture": {"dim": 48}}
    assert config_from({"name": "x", "model": some}, "f").model == ModelChoice.of(
        "htsat-nano", dim=48
    )
    with pytest.raises(InputError, match="unknown model 'aum-nan'"):
        config_from({"name": "x", "model": {"preset": "aum-nan"}}, "f")


def test_what_is_wrong_in_a_later_phase_is_said_before_the_first_is_trained(tones, tmp_path):
    with pytest.raises(InputError, match="the lr of a phase is positive"):
        phase_of("full:20@0")
    phases = (phase_of("hop2:1"), replace(phase_of("full:1"), warmup_steps=-1))
    with pytest.raises(InputError, match="warmup_steps"):
        train(replace(settings(tones), phases=phases), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pretraining_at_another_patch_size_than_the_models_is_refused():
    with pytest.raises(InputError, match=r"leave view\.keep, view\.patch"):
        PretrainConfig(name="x", view=View(patch=8))
    assert pretraining_of(TrainConfig(name="x", view=View(patch=8))).view.patch is None


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
