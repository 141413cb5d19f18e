"""HTS-AT with torchlibrosa 0.1.0: the numbers its own code gave, for clips and over time."""

import math

import pytest
import torch
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.official_htsat import htsat_logits
from tests.oracles.fill import filled, spectrogram
from tests.reference.cases import cases

CASES = cases("htsat")
LOG_MELS = [case for case in CASES if case.values[0]["input"] == "logmel"]
WAVES = [case for case in CASES if case.values[0]["input"] == "waveform"]


def state_of(case):
    """Filled parameters, statistics as built, and masks and indices of the right shape."""
    state = filled(case["shapes"], seed=case["seed"])
    for name, shape in case["not_filled"].items():
        value = torch.ones(shape) if name.endswith("running_var") else torch.zeros(shape)
        state[name] = value
    return state


def rule_of(case):
    return "tile" if case["config"]["infer_mode"] else "stretch"


def converted(case, **facts):
    state = state_of(case)
    return melastic.from_official(state, origin="htsat", fold=rule_of(case), **facts).eval()


def log_mels_of(case):
    batch = len(case["clipwise_output"])
    return spectrogram(case["frames"], case["config"]["mel_bins"], batch).transpose(1, 2)


def wave_of(case):
    """A rising tone and noise that no generator draws."""
    tone = case["synth"]
    n = torch.arange(int(tone["sr"] * tone["sec"]), dtype=torch.float64)
    t, rise = n / tone["sr"], tone["f1"] - tone["f0"]
    swept = torch.sin(2 * math.pi * (tone["f0"] * t + rise * t * t / (2 * tone["sec"])))
    steady = 0.05 * torch.sin(2 * math.pi * 1234.5 * t)
    return (tone["amp"] * swept + steady + 0.02 * torch.sin(0.37 * n * n)).float()


def assert_official(model, case, x):
    with torch.no_grad():
        assert_close(model(x), logits_of(case), atol=1e-4, rtol=0)
        if "latent_output" in case:
            assert_close(model.embed(x), torch.tensor(case["latent_output"]), atol=1e-4, rtol=0)
        assert_close(timeline(model, case, x), frames_of(case), atol=1e-4, rtol=0)


def logits_of(case):
    """Logits; where only scores are stored, and of a single crop, those that give them."""
    if "logits" in case:
        return torch.tensor(case["logits"])
    return torch.tensor(case["clipwise_output"]).logit()


def frames_of(case):
    return torch.tensor(case["framewise_output"])


def timeline(model, case, x):
    """The official timeline, whose peculiarities are no part of the model."""
    crops = [x]
    if x.shape[-1] > case["config"]["spec_size"] ** 2 // case["config"]["mel_bins"]:
        half, step = (x.shape[-1] - 1) // 2, (x.shape[-1] - 1) // 4
        starts = range(0, x.shape[-1] - half - 1, step)
        crops = [x[..., start : start + half] for start in starts]
    steps = [torch.stack(model.frames(crop)) for crop in crops]
    if not case["config"]["enable_tscam"]:
        rows, bias = 2, model.head.linear.bias  # the official timeline sums where the clip averages
        steps = [rows * (step - bias) + bias for step in steps]
    return torch.stack([step.sigmoid() for step in steps]).mean(0)


@pytest.mark.parametrize("case", LOG_MELS)
def test_a_converted_htsat_gives_the_official_clip_scores_embedding_and_timeline(case):
    assert_official(converted(case), case, log_mels_of(case))


@pytest.mark.parametrize("case", LOG_MELS)
def test_sizes_that_the_file_says_may_be_said_too(case):
    names = ("spec_size", "window_size", "num_heads")
    facts = {name: case["config"][name] for name in names}
    model = converted(case, num_mels=case["config"]["mel_bins"], **facts)
    assert model.config == converted(case).config


@pytest.mark.parametrize("case", WAVES)
def test_the_front_end_gives_the_official_decibels_and_scores(case):
    model = converted(case)
    log_mels = model.spectrogram(wave_of(case))
    seen = log_mels[case["bin_index"]][:, case["frame_index"]].T
    assert_close(seen, torch.tensor(case["logmel"]), atol=2e-3, rtol=0)
    assert log_mels.shape == (case["config"]["mel_bins"], case["frames"])
    assert log_mels.mean().item() == pytest.approx(case["logmel_mean"], abs=2e-3)
    assert_official(model, case, log_mels[None])


@pytest.mark.parametrize("case", LOG_MELS)
def test_the_maths_of_htsat_give_the_official_logits(case):
    logits = htsat_logits(
        state_of(case), log_mels_of(case), case["config"]["spec_size"], rule_of(case)
    )
    assert_close(logits, logits_of(case), atol=1e-4, rtol=0)
