from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melastic.data.manifest import Clip
from melastic.data.sampler import TokenBudgetSampler, balanced_weights, dealt
from melastic.errors import InputError

TOKENS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def flat(batches):
    return [index for batch in batches for index in batch]


@given(TOKENS, st.integers(60, 300), st.integers(0, 5))
def test_every_clip_comes_once_and_no_batch_exceeds_the_budget(tokens, budget, epoch):
    batches = TokenBudgetSampler(tokens, batch_tokens=budget, seed=0).epoch(epoch)
    assert sorted(flat(batches)) == list(range(len(tokens)))
    assert all(0 < sum(tokens[i] for i in batch) <= budget for batch in batches)


@given(TOKENS, st.integers(60, 300))
def test_batches_are_filled_about_equally(tokens, budget):
    batches = TokenBudgetSampler(tokens, batch_tokens=budget, seed=0).epoch(0)
    filled = [sum(tokens[i] for i in batch) for batch in batches]
    ideal = sum(tokens) / -(-sum(tokens) // budget)
    assert len(batches) <= 2 * -(-sum(tokens) // budget)
    assert all(size >= ideal - 60 - max(tokens) for size in filled[:-1])


def test_batches_are_a_function_of_seed_and_epoch():
    def made(seed, epoch):
        return TokenBudgetSampler([5] * 40, batch_tokens=20, seed=seed).epoch(epoch)

    assert made(0, 3) == made(0, 3)
    assert made(0, 3) != made(0, 4)
    assert made(0, 3) != made(1, 3)


def test_clips_that_are_left_out_are_in_no_batch():
    sampler = TokenBudgetSampler([5] * 10, batch_tokens=20, seed=0, left_out={2, 7})
    assert sorted(flat(sampler.epoch(0))) == [0, 1, 3, 4, 5, 6, 8, 9]


def test_balanced_drawing_brings_rare_labels_as_often_as_frequent_ones():
    clips = [
        Clip(path=Path(f"{i}.wav"), labels=("rare" if i < 20 else "common",)) for i in range(2000)
    ]
    sampler = TokenBudgetSampler(
        [1] * 2000, batch_tokens=50, seed=0, weights=balanced_weights(clips)
    )
    drawn = Counter(clips[i].labels[0] for epoch in range(5) for i in flat(sampler.epoch(epoch)))
    assert drawn["rare"] / sum(drawn.values()) == pytest.approx(0.5, abs=0.02)


def test_a_clip_longer_than_the_budget_is_an_error_with_a_remedy():
    with pytest.raises(InputError, match=r"300 tokens and batch_tokens is 200; raise batch_tokens"):
        TokenBudgetSampler([5, 300], batch_tokens=200, seed=0)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 6))
def test_clips_are_dealt_so_that_slices_differ_by_at_most_a_clip(tokens, slices):
    places = dealt(tokens, slices)
    assert sorted(i for own in places for i in own) == list(range(len(tokens)))
    assert all(own == sorted(own) for own in places)
    filled = [sum(tokens[i] for i in own) for own in places]
    assert max(filled) - min(filled) <= max(tokens, default=0)


def test_a_single_slice_keeps_the_order():
    assert dealt([3, 9, 1, 5], 1) == [[0, 1, 2, 3]]


def test_balanced_epochs_are_as_long_where_clips_are_left_out():
    sampler = TokenBudgetSampler(
        [1] * 20, batch_tokens=4, seed=0, weights=[1.0] * 20, left_out=set(range(1, 20))
    )
    for epoch in range(20):
        assert [i for batch in sampler.epoch(epoch) for i in batch] == [0] * 20
