"""What is hidden of a clip in masked pretraining."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.errors import InputError
from melastic.patches.grid import FreqTime
from melastic.randomness import generator, uniform
from melastic.training.masks import Masking, _side, clustered

PATCH = FreqTime(16, 16)


@given(
    shape=st.builds(FreqTime, st.integers(1, 9), st.integers(1, 40)),
    share=st.floats(0.01, 0.99),
    clusters=st.sampled_from(["auto", "always", "never"]),
    step_ms=st.sampled_from([2.5, 10.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_exactly_the_wanted_share_is_hidden_and_never_all(shape, share, clusters, step_ms, seed):
    masking, tokens = Masking(share=share, clusters=clusters), shape.freq * shape.time
    hidden = masking.draw(shape, PATCH, step_ms, generator(seed)).tolist()
    assert len(hidden) == masking.hidden(tokens) == max(1, min(tokens - 1, round(share * tokens)))
    assert hidden == sorted(set(hidden))
    assert 0 <= hidden[0] <= hidden[-1] < tokens
    again = masking.draw(shape, PATCH, step_ms, generator(seed)).tolist()
    assert hidden == again


@pytest.mark.parametrize("count", [11, 25, 44])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 2), (4, 7), (5, 5)])
def test_every_patch_is_hidden_equally_often(size, count):
    shape, draws = FreqTime(8, 7), 4000
    often = torch.zeros(56)
    for seed in range(draws):
        often[clustered(shape, FreqTime(*size), count, generator(seed))] += 1
    expected = draws * count / 56
    assert (often - expected).abs().max() < 5 * (expected * (1 - count / 56)) ** 0.5


@given(
    shape=st.builds(FreqTime, st.integers(1, 6), st.integers(1, 12)),
    size=st.builds(FreqTime, st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
)
def test_clusters_are_hidden_one_after_the_other_until_it_is_enough(shape, size, data):
    count = data.draw(st.integers(1, shape.freq * shape.time))
    hidden = set(clustered(shape, size, count, generator(7)).tolist())
    turn = torch.randperm(shape.freq * shape.time, generator=generator(7)).argsort().tolist()
    whole, before = set(), set()
    while len(whole) < count:
        row, column = divmod(turn.pop(0), shape.time)
        cells = {
            (row + i) % shape.freq * shape.time + (column + j) % shape.time
            for i in range(size.freq)
            for j in range(size.time)
        }
        before, whole = whole, whole | cells
    assert before <= hidden <= whole


def test_clusters_are_as_large_as_asked_in_mel_bins_and_seconds():
    masking = Masking(share=0.3, cluster_mels=(48, 48), cluster_s=(0.8, 0.8))
    shape, draw = FreqTime(8, 40), generator(1)
    uniform(0, 1, draw)
    expected = clustered(shape, FreqTime(3, 5), 96, draw)
    assert torch.equal(masking.draw(shape, PATCH, 10.0, generator(1)), expected)


def test_the_sides_of_clusters_are_equally_likely():
    masking, sides = Masking(share=0.01), []
    for seed in range(3000):
        draw = generator(seed)
        masking.draw(FreqTime(8, 64), PATCH, 10.0, draw)
        place = uniform(0, 1, generator(seed))
        sides.append(_side(place, masking.cluster_mels, 16, 8))
        assert sides[-1] == _side(place, masking.cluster_s, 0.16, 64)
    assert {side: abs(sides.count(side) - 1000) < 130 for side in (3, 4, 5)} == dict.fromkeys(
        (3, 4, 5), True
    )


def test_patches_that_span_all_mel_bins_are_hidden_one_by_one_unless_told_otherwise():
    shape, lone, joined = FreqTime(1, 400), 0, 0
    for seed in range(50):
        for clusters in ("auto", "always"):
            masking = Masking(share=0.1, clusters=clusters)
            hidden = set(masking.draw(shape, FreqTime(128, 2), 10.0, generator(seed)).tolist())
            alone = sum(i - 1 not in hidden and i + 1 not in hidden for i in hidden)
            lone, joined = (lone + alone, joined) if clusters == "auto" else (lone, joined + alone)
    assert lone > 5 * joined


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"share": 1.0}, r"in \(0, 1\), got 1.0"),
        ({"cluster_s": (0.5, 0.2)}, "masking.cluster_s"),
        ({"cluster_mels": (0.0, 0.0)}, "masking.clusters never"),
        ({"discriminative": 0.0, "generative": 0.0}, "not both 0"),
        ({"generative": -1.0}, "at least 0"),
    ],
)
def test_what_cannot_be_hidden_or_weighed_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        Masking(**fields)
