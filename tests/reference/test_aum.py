"""Audio Mamba: the numbers its own code gave with its own reference scan."""

import pytest
import torch
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.official_aum import aum_logits
from tests.oracles.fill import filled, spectrogram
from tests.reference.cases import cases

VARIANTS = {"none": "fo-fo", "v1": "fo-bi", "v2": "bi-bi"}


def state_of(case):
    return filled(case["shapes"], seed=case["config"]["embed_dim"])


def input_of(case):
    return spectrogram(case["frames"], 128, batch=2).transpose(1, 2)


@pytest.mark.parametrize("facts", [{}, {"input_size": (128, 256), "class_token": "middle"}])
@pytest.mark.parametrize("case", cases("aum"))
def test_a_converted_aum_gives_the_official_logits(case, facts):
    config = case["config"]
    model = melastic.from_official(state_of(case), origin="aum", **facts)
    assert model.config.encoder.variant == VARIANTS[config["bimamba_type"]]
    assert model.config.encoder.depth == config["depth"]
    assert model.config.frontend.fixed_frames == config["spectrogram_size"][1]
    with torch.no_grad():
        logits = model(input_of(case), case["patch"])
        vectors = model.embed(input_of(case), case["patch"])
    assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)
    assert_close(vectors.norm(dim=1), torch.tensor(case["feature_norm"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", cases("aum"))
def test_the_maths_of_aum_give_the_official_logits(case):
    patch = (case["patch"] or 16,) * 2
    logits = aum_logits(state_of(case), input_of(case), (8, 16), patch, patch, "middle")
    assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)
