"""Weights of a trained Audio Mamba carried over to another grid, patch size or head."""

import dataclasses

import pytest
import torch

import melastic
from melastic.checkpoints.transfer import beginning_as, transfer
from melastic.errors import InputError
from tests.models import MELS, PLACES, VARIANTS, mamba
from tests.oracles.aum import aum_state


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_equal_model_gives_the_same_logits(variant, place):
    trained, new = (mamba(variant, class_token=place) for _ in range(2))
    clips = [torch.randn(MELS, 50), torch.randn(MELS, 17)]
    assert not torch.allclose(trained(clips), new(clips))
    assert transfer(trained, new) == []
    torch.testing.assert_close(new(clips), trained(clips))
    assert torch.equal(new.class_positions, trained.class_positions)


@pytest.mark.parametrize("size", [8, 32, (16, 4)])
def test_a_model_with_another_patch_size_does_what_the_trained_one_does_at_that_size(size):
    trained = mamba(input_size=(MELS, 64))
    new = mamba(patch=size, input_size=(MELS, 64))
    assert transfer(trained, new) == []
    clips = [torch.randn(MELS, 64)]
    torch.testing.assert_close(new(clips), trained(clips, size), atol=1e-5, rtol=1e-5)


def test_a_model_for_shorter_clips_does_what_the_trained_one_does_with_them():
    trained, new = mamba(input_size=(MELS, 128)), mamba(input_size=(MELS, 64))
    assert transfer(trained, new) == []
    clips = [torch.randn(MELS, 64), torch.randn(MELS, 30)]
    torch.testing.assert_close(new(clips), trained(clips), atol=1e-6, rtol=1e-5)


def test_a_class_token_without_a_position_stays_as_it_is_and_a_new_position_is_named():
    plain, positioned = mamba(class_position=False), mamba()
    before = positioned.class_positions.clone()
    assert transfer(plain, positioned) == ["class_positions"]
    assert torch.equal(positioned.class_positions, before)
    assert torch.equal(positioned.class_tokens, plain.class_tokens)
    assert transfer(positioned, plain) == []


def test_another_pooling_and_other_labels_stay_random_and_are_named():
    trained = mamba()
    new = mamba(pooling="attention", head_norm=True, labels=tuple("abcde"))
    assert transfer(trained, new) == ["head", "pool"]
    assert transfer(trained, mamba(class_token="both")) == ["class_positions", "class_tokens"]


@pytest.mark.parametrize("other", ["fo-fo", "bi-bi"])
def test_other_directions_are_refused(other):
    with pytest.raises(InputError, match="equal encoders"):
        transfer(mamba(), mamba(other))


def test_official_weights_start_a_model_of_another_patch_size_and_length():
    trained = melastic.from_official(aum_state(grid=(2, 8)), origin="aum", input_size=(MELS, 128))
    preset = mamba(patch=8, input_size=(MELS, 64), remainder="crop").config
    preset = dataclasses.replace(preset, encoder=dataclasses.replace(preset.encoder, norm_eps=1e-3))
    started = beginning_as(preset, trained.config)
    assert started.encoder == trained.config.encoder
    assert started.head_norm_eps is None
    assert started.frontend.fixed_frames == 128
    new = melastic.Classifier(started)
    assert transfer(trained, new) == []
    clips = [torch.randn(MELS, 64)]
    torch.testing.assert_close(new(clips), trained(clips, 8), atol=1e-5, rtol=1e-5)


def test_a_fixed_length_is_carried_over_in_seconds():
    trained = mamba(fixed_frames=1024).config
    for hop_ms, frames in ((10.0, 1024), (40.0, 256), (25.0, 410)):
        started = beginning_as(mamba(hop_ms=hop_ms).config, trained)
        assert started.frontend.fixed_frames == frames


def test_the_start_of_a_head_is_that_of_the_trained_model():
    trained = mamba().config
    other = mamba(pooling="attention", head_norm=True).config
    assert beginning_as(other, trained).head_norm_eps is None
    assert beginning_as(trained, other).head_norm_eps == other.head_norm_eps


def test_a_run_starts_from_converted_weights(tones, tmp_path):
    from dataclasses import replace

    from accelerate import Accelerator

    from melastic.training.loop import Trainer
    from tests.training.test_resume import settings

    state = aum_state(grid=(8, 4), depth=2, classes=3)
    trained = melastic.from_official(
        state, origin="aum", labels=("high", "low", "middle"), fixed_frames=None
    )
    trained.save(tmp_path / "official")
    base = settings(tones, epochs=1)
    architecture = replace(
        base.model.architecture,
        encoder="mamba",
        dim=24,
        depth=2,
        patch=(16, 8),
        stride=None,
        input_size=(128, 64),
        pooling="class",
        class_token="middle",
        class_position=True,
        head_norm=False,
        reading="stretch",
        remainder="crop",
    )
    model = replace(base.model, architecture=architecture, init=str(tmp_path / "official"))
    run = Trainer(replace(base, model=model), tmp_path / "run", Accelerator(cpu=True))
    clip = [torch.randn(128, 64)]
    logits = trained(clip, (16, 8))
    torch.testing.assert_close(run.model(clip), logits, atol=1e-5, rtol=1e-5)
