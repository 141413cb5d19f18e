"""What a batch may and may not do to the clips in it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import COMBINATIONS, MELS, small

CLOSE = {"atol": 2e-6, "rtol": 1e-5}


def clips_of(lengths):
    return [torch.randn(MELS, length) for length in lengths]


@pytest.mark.parametrize(("pooling", "patch", "positions"), COMBINATIONS)
def test_a_clip_has_the_same_logits_alone_and_in_any_batch(pooling, patch, positions):
    model = small(pooling, patch, positions)
    clips = clips_of([40, 17, 40, 3, 90, 17])
    together = model(clips)
    alone = torch.cat([model([clip]) for clip in clips])
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize(("pooling", "patch", "positions"), COMBINATIONS)
def test_the_order_of_clips_does_not_matter(pooling, patch, positions):
    model = small(pooling, patch, positions)
    clips = clips_of([40, 17, 40, 3, 90, 17])
    order = torch.randperm(len(clips)).tolist()
    shuffled = model([clips[i] for i in order])
    torch.testing.assert_close(shuffled, model(clips)[order], **CLOSE)


@pytest.mark.parametrize(("pooling", "patch", "positions"), COMBINATIONS)
def test_a_clip_never_sees_another(pooling, patch, positions):
    model = small(pooling, patch, positions)
    clips = [clip.requires_grad_() for clip in clips_of([40, 40, 17])]
    model(clips)[1].sum().backward()
    assert clips[1].grad.abs().sum() > 0
    assert not clips[0].grad.any()
    assert not clips[2].grad.any()


@given(st.lists(st.integers(1, 70), min_size=1, max_size=8))
def test_any_mix_of_lengths_is_a_batch(lengths):
    model = small("attention", ((32, 3), (32, 3)))
    clips = clips_of(lengths)
    alone = torch.cat([model([clip]) for clip in clips])
    torch.testing.assert_close(model(clips), alone, **CLOSE)


def test_a_tensor_of_clips_is_a_list_of_clips():
    model, clips = small(), torch.randn(3, MELS, 40)
    torch.testing.assert_close(model(clips), model(list(clips)), **CLOSE)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_keeping_every_token_changes_nothing(pooling):
    model, clips = small(pooling), clips_of([40, 17])
    kept = [torch.arange(2 * 3), torch.arange(2 * 2)]
    torch.testing.assert_close(model(clips, kept=kept), model(clips), **CLOSE)


def test_a_token_that_is_not_kept_has_no_influence():
    model, clip = small("mean"), torch.randn(MELS, 48)
    kept = [torch.tensor([0, 1, 3, 4])]
    changed = clip.clone()
    changed[:, 32:] += 1.0
    torch.testing.assert_close(model([clip], kept=kept), model([changed], kept=kept))
    assert not torch.allclose(model([clip]), model([changed]))


@pytest.mark.parametrize("kept", [[], [[6]], [[-1]], [[0], [0]]])
def test_kept_names_patches_that_exist(kept):
    with pytest.raises(ValueError, match="kept must name"):
        small()([torch.randn(MELS, 48)], kept=[torch.tensor(k, dtype=torch.long) for k in kept])


def test_the_embedding_is_what_the_head_reads():
    model, clips = small(), clips_of([40, 17])
    torch.testing.assert_close(model.head(model.embed(clips)), model(clips))
