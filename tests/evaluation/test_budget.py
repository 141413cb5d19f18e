import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.config import CurvePoint
from melastic.errors import InputError
from melastic.evaluation.budget import Budget, _rounded_up
from melastic.evaluation.cost import gmacs
from melastic.evaluation.seen import kept_patches, spectrogram_through
from melastic.patches.dials import Pooling
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import View
from tests.evaluation.tiny import tiny

VIEWS = (
    View(patch=(16, 4), hop_ms=10.0),
    View(patch=8, hop_ms=10.0, keep=0.5),
    View(patch=(32, 8), hop_ms=20.0),
    View(patch=(16, 4), hop_ms=10.0, seconds=0.1),
    View(patch=(16, 4), hop_ms=10.0, pooling=Pooling(kind="max", factor=4)),
)


def with_curve(accuracies, **overrides):
    model = tiny(**overrides)
    curve = tuple(
        CurvePoint(view=view, accuracy=accuracy, gmacs_per_clip=0.1, seconds_per_clip=1.0)
        for view, accuracy in zip(VIEWS, accuracies, strict=False)
    )
    model.config = dataclasses.replace(model.config, curve=curve)
    return model


def cost_of(model, view, waveform):
    """The cost by making the spectrogram; None where the clip does not fit the view."""
    try:
        spectrogram = spectrogram_through(waveform, model.config.frontend, view)
        size = FreqTime(*spectrogram.shape)
        return gmacs(model.config, size, patch=freq_time(view.patch), keep=view.keep)
    except InputError:
        return None


@given(
    st.lists(st.sampled_from([0.2, 0.5, 0.7, 0.9]), min_size=1, max_size=5),
    st.integers(min_value=500, max_value=30_000),
    st.floats(min_value=1e-5, max_value=1e-3),
    st.sampled_from(["pad", "crop"]),
)
def test_the_choice_is_the_most_accurate_view_within_the_budget(
    accuracies, samples, budget, remainder
):
    model, waveform = with_curve(accuracies, remainder=remainder), torch.zeros(samples)
    costs = [(a, cost_of(model, v, waveform), v) for a, v in zip(accuracies, VIEWS, strict=False)]
    within = [(a, c, v) for a, c, v in costs if c is not None and c <= budget]
    chooser = Budget(model, gmacs=budget)
    if not within:
        with pytest.raises(InputError, match=r"no measured view") as error:
            chooser.choose(samples)
        assert "\n" not in str(error.value)
        return
    best = max(accuracy for accuracy, *_ in within)
    cheapest = min(cost for accuracy, cost, _ in within if accuracy == best)
    found = chooser.choose(samples)
    assert (best, cheapest, found) in within


def test_what_a_refusal_suggests_works():
    model, samples = with_curve([0.9, 0.8]), 8000
    with pytest.raises(InputError) as error:
        Budget(model, gmacs=1e-9).choose(samples)
    suggested = float(str(error.value).rsplit("--gmacs ", 1)[1])
    Budget(model, gmacs=suggested).choose(samples)


def test_a_budget_of_time_takes_the_most_accurate_view_that_was_fast_enough(monkeypatch):
    model, samples = with_curve([0.9, 0.7, 0.5]), 8000
    times = dict(zip(VIEWS, (30.0, 10.0, 1.0), strict=False))
    monkeypatch.setattr(Budget, "_time_ms", lambda _, view, samples: times[view])
    assert Budget(model, budget_ms=50).choose(samples) == VIEWS[0]
    assert Budget(model, budget_ms=10).choose(samples) == VIEWS[1]
    assert Budget(model, budget_ms=2).choose(samples) == VIEWS[2]
    with pytest.raises(InputError, match=r"within 0\.5 ms.*takes 1 ms; try --budget-ms 1$"):
        Budget(model, budget_ms=0.5).choose(samples)


def test_both_budgets_hold_at_once():
    model = with_curve([0.9, 0.8, 0.7])
    costs = [cost_of(model, view, torch.zeros(8000)) for view in VIEWS[:3]]
    limit = sorted(costs)[1]
    best = max(
        (a, v) for a, v, c in zip((0.9, 0.8, 0.7), range(3), costs, strict=True) if c <= limit
    )
    assert Budget(model, gmacs=limit, budget_ms=1e6).choose(8000) == VIEWS[best[1]]


def counted(chooser, monkeypatch):
    """A list that grows with each run of the model."""
    calls, run_ms = [], chooser._run_ms
    monkeypatch.setattr(chooser, "_run_ms", lambda *a: calls.append(a) or run_ms(*a))
    return calls


def test_clips_of_like_lengths_are_timed_once_by_one_that_is_not_shorter(monkeypatch):
    chooser = Budget(with_curve([0.9]), budget_ms=1e6)
    calls = counted(chooser, monkeypatch)
    for samples in (8000, 8000, 8200, 9600):
        chooser.choose(samples)
        assert calls[-1][0].shape[1] >= samples // 160 - 2
    assert len(calls) == 2 * (1 + 3)


def test_few_views_are_timed_and_one_far_beyond_the_budget_only_once(monkeypatch):
    chooser = Budget(with_curve([0.9, 0.7, 0.5]), budget_ms=1e-9)
    calls = counted(chooser, monkeypatch)
    with pytest.raises(InputError, match="no measured view is within 1e-09 ms"):
        chooser.choose(8000)
    assert [call[1] for call in calls] == [VIEWS[1], VIEWS[2]], "halved, not tried one by one"


def test_a_model_of_a_fixed_length_is_timed_at_that_length(monkeypatch):
    model = with_curve([0.9])
    frontend = dataclasses.replace(model.config.frontend, fixed_frames=37)
    model.config = dataclasses.replace(model.config, frontend=frontend)
    chooser = Budget(model, budget_ms=1e6)
    calls = counted(chooser, monkeypatch)
    chooser.choose(8000)
    assert {call[0].shape[1] for call in calls} == {37}


@pytest.mark.parametrize(
    ("value", "text"), [(160.2, "170"), (0.00123, "0.0013"), (99.5, "100"), (2e6, "2000000")]
)
def test_what_is_suggested_is_a_plain_number_that_is_not_less(value, text):
    assert _rounded_up(value) == text


def test_classifying_within_a_budget_uses_the_chosen_view():
    model = with_curve([0.5, 0.9])
    waveform, view = torch.randn(8000), VIEWS[1]
    spectrogram = spectrogram_through(waveform, model.config.frontend, view)
    kept = kept_patches(model.config, spectrogram.shape[1], view, 0)
    scores = model([spectrogram], view.patch, view.hop_ms, [kept]).softmax(-1)[0]
    found = model.classify(waveform, top=3, gmacs=1.0)
    assert [p.score for p in found] == pytest.approx(sorted(scores.tolist(), reverse=True))
    assert Budget(model, gmacs=1.0).classify(waveform)[1] == view


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_positive_number_is_one_clear_line(wrong):
    model = with_curve([0.5])
    for name in ("gmacs", "budget_ms"):
        with pytest.raises(InputError, match=f"{name} is a positive number, got {wrong}; try"):
            model.classify(torch.zeros(8000), **{name: wrong})


def test_a_budget_without_a_curve_or_beside_a_view_says_what_to_do():
    with pytest.raises(InputError, match=r"melastic sweep .* --store"):
        tiny().classify(torch.zeros(8000), gmacs=1.0)
    model = with_curve([0.5])
    for both in ({"gmacs": 1.0, "patch": 8}, {"budget_ms": 9, "view": VIEWS[0]}):
        with pytest.raises(InputError, match="got two, leave one out"):
            model.classify(torch.zeros(8000), **both)
    with pytest.raises(InputError, match="got two, leave one out"):
        model.classify(torch.zeros(8000), hop_ms=20, view=VIEWS[0])


@pytest.mark.parametrize("view", VIEWS)
def test_a_clip_is_classified_through_every_dial_of_a_view(view):
    model, waveform = tiny(), torch.randn(8000)
    spectrogram = spectrogram_through(waveform, model.config.frontend, view)
    kept = kept_patches(model.config, spectrogram.shape[1], view, 0)
    step_ms = view.hop_ms * view.pooling.factor
    scores = model([spectrogram], view.patch, step_ms, [kept]).softmax(-1)[0]
    found = model.classify(waveform, top=99, view=view)
    assert [p.score for p in found] == pytest.approx(sorted(scores.tolist(), reverse=True))
