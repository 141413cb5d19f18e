import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.evaluation.metrics import confusion, loss_of, measure_scores


def average_precision(scores, positives):
    """Mean of the precision at each positive clip, by definition; no ties."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    hits, total = 0, 0.0
    for rank, i in enumerate(order, start=1):
        if positives[i]:
            hits += 1
            total += hits / rank
    return total / hits


def area(scores, positives):
    """Share of (positive, negative) pairs in the right order."""
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, p in zip(scores, positives, strict=True)
        if p
        for b, n in zip(scores, positives, strict=True)
        if not n
    ]
    return sum(pairs) / len(pairs)


@given(st.integers(0, 10_000), st.booleans())
def test_scores_are_those_of_their_definitions(seed, multi_label):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(25, 4, generator=draw)
    targets = torch.nn.functional.one_hot(torch.arange(25) % 4, 4).float()
    if multi_label:
        targets[::3, 0] = 1
    found = measure_scores(logits, targets, multi_label=multi_label)
    scores = logits.sigmoid() if multi_label else logits.softmax(1)
    columns = [(scores[:, c].tolist(), targets[:, c].bool().tolist()) for c in range(4)]
    assert found.mAP == pytest.approx(sum(average_precision(*c) for c in columns) / 4, abs=1e-5)
    auc = sum(area(*c) for c in columns) / 4
    assert found.auc == pytest.approx(auc, abs=1e-5)
    hits = sum(bool(targets[i, logits[i].argmax()]) for i in range(25))
    assert found.accuracy == pytest.approx(hits / 25)
    assert found.clips == 25


def test_d_prime_separates_two_normal_distributions():
    draw = torch.Generator().manual_seed(0)
    negative, positive = torch.randn(2, 4000, generator=draw)
    scores = torch.cat([negative, positive + 1.5])
    targets = torch.cat([torch.zeros(4000), torch.ones(4000)])[:, None]
    found = measure_scores(scores[:, None], targets, multi_label=True)
    assert found.d_prime == pytest.approx(1.5, abs=0.06)


def test_classes_without_a_positive_clip_do_not_count():
    logits, targets = torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]]), torch.eye(2, 3)
    found = measure_scores(logits, targets, multi_label=False)
    assert (found.mAP, found.auc, found.accuracy) == (1.0, 1.0, 1.0)
    assert math.isnan(found.d_prime)


def test_smoothing_spreads_a_share_of_the_target_over_all_classes():
    logits, targets = torch.randn(6, 5), torch.eye(6, 5)
    spread = 0.8 * targets + 0.2 * targets.sum(1, keepdim=True) / 5
    oracle = -(spread * logits.log_softmax(1)).sum(1)
    found = loss_of(logits, targets, binary=False, smoothing=0.2)
    torch.testing.assert_close(found[:5], oracle[:5])


def test_every_clip_is_in_one_cell_of_the_confusion_matrix():
    logits, targets = torch.randn(50, 4), torch.eye(4)[torch.arange(50) % 4]
    counts = confusion(logits, targets)
    assert counts.sum() == 50
    assert torch.equal(counts.sum(1), targets.sum(0).long())
    assert counts.trace() == (logits.argmax(1) == targets.argmax(1)).sum()


@pytest.mark.parametrize("multi_label", [False, True])
def test_very_sure_scores_keep_their_order(multi_label):
    logits = torch.tensor([[90.0, 0.0], [80.0, 0.0], [60.0, 0.0], [50.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = measure_scores(
        logits[:, [0]] * torch.tensor([1.0, -1.0]), targets, multi_label=multi_label
    )
    assert (found.mAP, found.auc) == (1.0, 1.0)


def test_accuracy_is_a_share_of_clips_to_the_last_digit():
    targets = torch.nn.functional.one_hot(torch.tensor([0] * 13 + [1] * 37), 2).float()
    logits = torch.tensor([[1.0, 0.0]]).expand(50, 2)
    assert measure_scores(logits, targets, multi_label=False).accuracy == 13 / 50
