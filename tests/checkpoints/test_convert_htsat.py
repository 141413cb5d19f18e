"""Weights of HTS-AT give its logits, whatever its sizes; what does not fit is refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert import facts_of
from melastic.checkpoints.convert.official_htsat import htsat_logits
from melastic.checkpoints.convert.parity import compare
from melastic.checkpoints.convert.report import convert
from melastic.checkpoints.transfer import transfer
from melastic.classifier import Classifier
from melastic.frontend.slaney import slaney_filters
from tests.checkpoints.test_convert_refuses import assert_refused
from tests.oracles.fill import spectrogram
from tests.oracles.htsat import htsat_state

HTSAT = {"origin": "htsat"}
FILE = htsat_state()


def input_of(frames, mels=16, batch=2):
    return 10 * spectrogram(frames, mels, batch).transpose(1, 2) - 25


@settings(max_examples=15)
@given(
    depths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    window=st.sampled_from([2, 4, 8]),
    patch=st.sampled_from([2, 4]),
    bands=st.sampled_from([1, 2, 4]),
    semantic=st.booleans(),
    frames=st.integers(1, 128),
)
def test_sizes_of_every_kind_are_read_off(depths, window, patch, bands, semantic, frames):
    heads = tuple(2**i for i in range(len(depths)))
    side, mels = 16 * patch * 2, 32 * patch // bands
    state = htsat_state(side, mels, 4, tuple(depths), heads, window, patch, semantic)
    model = melastic.from_official(state, origin="htsat", spec_size=side)
    assert model.config.encoder.depths == tuple(depths)
    assert model.config.encoder.num_heads == heads
    x = input_of(frames, mels)
    with torch.no_grad():
        assert_close(model(x), htsat_logits(state, x, side), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, dict])
@pytest.mark.parametrize("prefix", ["", "sed_model.", "module.sed_model."])
def test_files_of_lightning_are_read_as_they_are(prefix, wrap):
    state = wrap({f"{prefix}{name}": value for name, value in FILE.items()})
    x = input_of(100)
    assert torch.equal(
        melastic.from_official(state, **HTSAT)(x), melastic.from_official(FILE, **HTSAT)(x)
    )


def test_our_rule_reads_clips_of_any_length_with_official_weights():
    model = melastic.from_official(FILE, **HTSAT, fold="bands").eval()
    official = melastic.from_official(FILE, **HTSAT).eval()
    full = input_of(256)
    assert_close(model(full), official(full), atol=1e-5, rtol=1e-5)
    assert model(input_of(5000)).isfinite().all()
    assert len(model.frames(input_of(5000, batch=1))[0]) == 5000 // 8


def test_the_report_compares_clips_of_every_length_and_says_what_was_read():
    _, report = convert(FILE, "htsat", facts_of("htsat")())
    assert report.passed
    assert len(report.comparisons) == 3
    assert all(one.difference < 1e-4 for one in report.comparisons)
    assert (report.read_off["spec_size"], report.read_off["window_size"]) == (64, 4)
    assert "head.weight" in report.dropped
    assert any("batch norm" in quirk for quirk in report.absorbed)


def test_a_wrong_number_is_seen_by_the_comparison():
    model = melastic.from_official(FILE, **HTSAT)
    with torch.no_grad():
        model.encoder.groups[1][1].attention.offsets[24] += 1
    assert not all(one.passed for one in compare(model, FILE, "htsat"))


@pytest.mark.parametrize("name", [n for n in FILE if not n.startswith("bn0.")])
def test_a_missing_tensor_is_named(name):
    derived = ("attn_mask", "relative_position_index", "head.weight", "head.bias")
    less = {key: value for key, value in FILE.items() if key != name}
    if name.endswith(derived):
        melastic.from_official(less, **HTSAT, spec_size=64)
    elif name != "tscam_conv.weight":
        assert_refused([name, "is missing", "check the origin"], less, **HTSAT)


def test_filters_of_another_rate_are_recognised():
    filters = slaney_filters(16, 1024, 16_000, 50.0, 8_000.0).T
    state = FILE | {
        "logmel_extractor.melW": filters,
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
    }
    assert_refused(["32000 Hz", "give sample_rate 16000, low_hz 50, high_hz 8000"], state, **HTSAT)
    model = melastic.from_official(state, **HTSAT, sample_rate=16_000, high_hz=8_000.0)
    assert model.config.frontend.window_ms == 64
    assert model.spectrogram(torch.randn(16_000)).shape == (16, 101)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"spec_size": 128}, ["the file says spec_size 64, got 128"]),
        ({"window_size": 8}, ["the file says window_size 4, got 8"]),
        ({"num_mels": 64}, ["the file says num_mels 16, got 64"]),
        ({"num_heads": (2, 2)}, ["the file says num_heads (1, 2), got (2, 2)"]),
        ({"fold": "crop"}, ["unknown fold", "bands"]),
        ({"num_classes": 7}, ["the head: 3"]),
    ],
)
def test_a_contradicted_fact_is_refused(facts, words):
    assert_refused(words, FILE, **HTSAT, **facts)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (8, ["16 and 8", "spec_size"]),
        (100, ["do not fill bands of 16 x 100"]),
        (20, ["do not fill bands of 20 x 20"]),
    ],
)
def test_an_image_that_does_not_fit_is_refused(size, words):
    state = {name: value for name, value in FILE.items() if "attn_mask" not in name}
    assert_refused(words, state, **HTSAT, spec_size=size)


def test_a_start_with_statistics_of_its_own_gives_the_same_logits():
    official = melastic.from_official(FILE, **HTSAT, fold="bands")
    frontend = replace(official.config.frontend, mean=-5.0, std=3.0)
    target = Classifier(replace(official.config, frontend=frontend))
    assert transfer(official, target) == []
    wave = torch.randn(16_000)
    one, other = (model([model.spectrogram(wave)]) for model in (official, target))
    assert_close(one, other, atol=1e-4, rtol=1e-4)
