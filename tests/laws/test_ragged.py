"""What a batch may and may not do to the clips in it."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.errors import InputError
from melastic.inputs import one_hop_each
from melastic.patches.batch import Layout, TokenBatch, keep_tokens
from melastic.patches.grid import FreqTime
from tests.models import MELS, MODELS, mamba, small

BLIND = "fo-fo-first"
"""A class token in front of a scan that runs forward sees nothing of the clip, in this law too."""
CLOSE = {"atol": 2e-6, "rtol": 1e-5}


def clips_of(lengths):
    return [torch.randn(MELS, length) for length in lengths]


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_has_the_same_logits_alone_and_in_any_batch(name):
    model = MODELS[name]()
    clips = clips_of([40, 17, 40, 3, 90, 17])
    together = model(clips)
    alone = torch.cat([model([clip]) for clip in clips])
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_clips_does_not_matter(name):
    model = MODELS[name]()
    clips = clips_of([40, 17, 40, 3, 90, 17])
    order = torch.randperm(len(clips)).tolist()
    shuffled = model([clips[i] for i in order])
    torch.testing.assert_close(shuffled, model(clips)[order], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_never_sees_another(name):
    model = MODELS[name]()
    clips = [clip.requires_grad_() for clip in clips_of([40, 40, 17])]
    model(clips)[1].sum().backward()
    assert (clips[1].grad.abs().sum() > 0) == (name != BLIND)
    assert not clips[0].grad.any()
    assert not clips[2].grad.any()


READINGS = ["place", "stretch", "index"]


def check_every_view(model):
    """Each clip the same alone and in another order, at several patch sizes and hops at once."""
    clips, hops = clips_of([40, 17, 40, 3, 90, 17]), [10.0, 10.0, 20.0, 10.0, 5.0, 12.0]
    order = [3, 0, 5, 1, 4, 2]
    for view in (8, 24, (16, 8), (7, 32), (32, 2)):
        alone = torch.cat([model([x], view, hop) for x, hop in zip(clips, hops, strict=True)])
        together = model([clips[i] for i in order], view, [hops[i] for i in order])
        torch.testing.assert_close(together, alone[order], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_is_the_same_in_any_batch_at_every_patch_size(name):
    check_every_view(MODELS[name]())


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("positions", ["learned", "factorised"])
def test_a_clip_is_the_same_in_any_batch_however_positions_are_read(positions, reading):
    check_every_view(small(positions=positions, reading=reading))


@pytest.mark.parametrize("make", [lambda: small("attention", ((16, 4), (16, 4))), mamba])
@given(
    st.lists(st.tuples(st.integers(1, 70), st.floats(0.1, 1)), min_size=1, max_size=6),
    st.tuples(st.integers(6, MELS), st.integers(2, 40)),
)
def test_any_mix_of_lengths_and_shares_is_a_batch(make, clips, view):
    model = make()
    spectrograms = clips_of([frames for frames, _ in clips])
    kept = []
    for spectrogram, (_, share) in zip(spectrograms, clips, strict=True):
        patches = model.placement(spectrogram.shape[1], FreqTime(*view), 10.0).tokens
        kept.append(torch.randperm(patches)[: max(1, round(share * patches))])
    together = model(spectrograms, view, kept=kept)
    pairs = zip(spectrograms, kept, strict=True)
    alone = torch.cat([model([x], view, kept=[index]) for x, index in pairs])
    torch.testing.assert_close(together, alone, **CLOSE)


def test_the_models_own_patch_size_and_hop_are_what_it_does_unasked():
    model, clips = small("class"), clips_of([40, 17, 90])
    assert torch.equal(model(clips), model(clips, 16, 10.0))
    assert torch.equal(model(clips), model(clips, (16, 16), [10.0, 10.0, 10.0]))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"patch": 33}, "at most the 32 mel bins, got 33; try 32"),
        ({"patch": 0}, "positive whole number"),
        ({"hop_ms": -10.0}, "positive number of milliseconds"),
        ({"hop_ms": math.nan}, "positive number of milliseconds"),
        ({"hop_ms": [10.0]}, "one for each of 2 clips"),
    ],
)
def test_an_impossible_view_is_refused_with_what_would_work(view, message):
    with pytest.raises(InputError, match=message) as caught:
        small()(clips_of([40, 17]), **view)
    assert "\n" not in str(caught.value)


def test_a_clip_without_a_whole_patch_is_refused_where_the_rest_is_cropped():
    model = small(remainder="crop")
    with pytest.raises(InputError, match="holds no whole patch of 16 x 32; give a longer clip"):
        model([torch.randn(MELS, 20)], (16, 32))


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


@pytest.mark.parametrize("kept", [[], [[6]], [[-1]], [[0], [0]], [[1, 1]], [[]]])
def test_kept_names_patches_that_exist(kept):
    with pytest.raises(ValueError, match="kept must name"):
        small()([torch.randn(MELS, 48)], kept=[torch.tensor(k, dtype=torch.long) for k in kept])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_kept_patches_may_be_numbered_in_any_whole_format(dtype):
    model, clips = small(), clips_of([40, 17])
    kept = [torch.tensor([0, 2]), torch.tensor([1])]
    found = model(clips, kept=[index.to(dtype) for index in kept])
    assert torch.equal(found, model(clips, kept=kept))


def test_frame_shifts_may_be_a_tensor_or_an_array():
    each = inspect.unwrap(one_hop_each)
    for hops in (torch.tensor([10.0, 20.0]), np.array([10.0, 20.0]), (10.0, 20.0)):
        assert each(hops, 2, 5.0) == [10.0, 20.0]
    for hop in (torch.tensor(10.0), np.float32(10.0), 10):
        assert each(hop, 2, 5.0) == [10.0, 10.0]


def test_a_mask_is_not_taken_for_numbers():
    with pytest.raises(ValueError, match="by number, each once"):
        inspect.unwrap(keep_tokens)(
            TokenBatch(torch.randn(6, 4), Layout((6,))), [0], [torch.ones(6, dtype=torch.bool)]
        )


def test_the_embedding_is_what_the_head_reads():
    model, clips = small(), clips_of([40, 17])
    torch.testing.assert_close(model.head(model.embed(clips)), model(clips))
