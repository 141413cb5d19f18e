"""What stands for a clip."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

import melastic
from melastic.classifier import Classifier
from melastic.config import MeanPooling
from melastic.errors import InputError
from melastic.evaluation.cost import tokens_of
from melastic.patches.grid import FreqTime
from tests.models import MELS, small


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
