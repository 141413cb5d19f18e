"""What stands for a clip."""

import dataclasses

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

import melastic
from melastic.classifier import Classifier
from melastic.config import AttentionPooling, MeanPooling
from melastic.errors import InputError
from melastic.evaluation.cost import tokens_of
from melastic.patches.grid import FreqTime
from tests.models import MELS, small, windows


def led(leading):
    """A small model whose mean leaves out some tokens in front."""
    config = dataclasses.replace(small().config, pooling=MeanPooling(leading=leading))
    return Classifier(config)


@pytest.mark.parametrize("leading", [0, 1, 2])
def test_tokens_that_lead_a_clip_are_seen_but_not_averaged(leading):
    model, clip = led(leading), torch.randn(MELS, 40)
    batch, _ = model.tokens([clip], FreqTime(16, 16), [10.0])
    assert batch.layout.lengths == (2 * 3 + leading,)
    after = model.encoder(batch.values, batch.layout)
    assert_close(model.embed([clip]), after[leading:].mean(0, keepdim=True))
    if leading:
        before = model.embed([clip])
        with torch.no_grad():
            model.class_tokens.mul_(30)
        assert not torch.allclose(model.embed([clip]), before, atol=1e-4)


def test_a_clip_with_tokens_in_front_is_the_same_alone_and_in_any_batch():
    model, clips = led(2), [torch.randn(MELS, frames) for frames in (40, 17, 40, 90)]
    alone = torch.cat([model([clip]) for clip in clips])
    assert_close(model(clips), alone, atol=2e-6, rtol=1e-5)


def test_tokens_in_front_are_counted_and_saved(tmp_path):
    model, clip = led(2), torch.randn(MELS, 40)
    assert tokens_of(model.config, FreqTime(MELS, 60)) == 2 * 4 + 2
    model.save(tmp_path)
    loaded = melastic.load(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded([clip]), model([clip]))


@pytest.mark.parametrize("leading", [-1, 3])
def test_other_counts_are_refused(leading):
    with pytest.raises(InputError, match="lead a clip"):
        MeanPooling(leading=leading)


@pytest.mark.parametrize("pooling", ["token-semantic", "mean"])
def test_the_classes_over_time_average_to_those_of_the_clip(pooling):
    model, clips = windows(pooling), [torch.randn(MELS, frames) for frames in (40, 7, 200, 40)]
    steps = model.frames(clips)
    assert_close(torch.stack([step.mean(0) for step in steps]), model(clips), atol=2e-6, rtol=1e-5)
    assert [len(step) for step in steps] == [-(-clip.shape[1] // 16) for clip in clips]


def test_a_convolution_over_the_last_map_is_what_the_head_weighs():
    model, clip = windows(), torch.randn(MELS, 30)
    encoded, _ = model._encoded([clip], None, None, None)
    grid = encoded.layout.grids[0]
    steps = encoded.values.unflatten(0, grid.shape)[:, : grid.used]
    weight = model.head.linear.weight.unflatten(1, (model.config.encoder.dim, 2, 3))
    line = steps.permute(2, 0, 1)[None]
    evidence = functional.conv2d(line, weight, model.head.linear.bias, padding=(0, 1))[0, :, 0]
    assert_close(model.frames([clip])[0], evidence.T, atol=2e-6, rtol=1e-5)


def test_a_shorter_clip_beside_a_longer_one_has_the_steps_that_it_has_alone():
    model = windows(depths=(1, 1, 1), window=2)
    clip = torch.randn(MELS, 40)
    assert_close(model([clip])[0], model([clip, torch.randn(MELS, 100)])[0])
    assert model.frames([clip])[0].shape == (3, 5)


def test_only_folded_clips_have_classes_over_time():
    with pytest.raises(InputError, match="use a model such as htsat-tiny"):
        small().frames([torch.randn(MELS, 40)])


@pytest.mark.parametrize("pooling", ["class", "attention"])
def test_windows_have_no_class_token_and_no_query(pooling):
    with pytest.raises(InputError, match="try mean or token-semantic"):
        windows(pooling)


def test_nothing_but_windows_has_steps():
    with pytest.raises(InputError, match="try class, mean or attention"):
        small("token-semantic")
    with pytest.raises(InputError, match="use keep=1"):
        windows()([torch.randn(MELS, 40)], kept=[torch.arange(3)])


def test_windows_have_no_position_table():
    with pytest.raises(InputError, match="set positions to none"):
        windows(positions="learned")


def test_without_a_class_token_a_model_pools_by_the_mean():
    for name in ("aum-nano", "ast-nano"):
        model = melastic.create_model(name, num_classes=2, class_token="none")
        assert model.class_tokens is None
        assert model.config.pooling == MeanPooling()
    chosen = {"num_classes": 2, "class_token": "none"}
    other = melastic.create_model("aum-nano", pooling="attention", **chosen)
    assert isinstance(other.config.pooling, AttentionPooling)
    for name in ("elasticast-nano", "htsat-nano"):  # which have none anyway
        usual = melastic.create_model(name, num_classes=2)
        assert melastic.create_model(name, **chosen).config == usual.config
    with pytest.raises(InputError, match=r"needs a class token, got class_token='none'; use"):
        melastic.create_model("aum-nano", pooling="class", **chosen)
