"""Weights of Audio Mamba give its logits, whatever its directions, class token and patches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.official_aum import aum_logits
from melastic.config import ClassTokenPooling, MeanPooling
from tests.models import VARIANTS
from tests.oracles.aum import LEARNED, aum_shapes, aum_state
from tests.oracles.fill import spectrogram

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def input_of(frames, mels=32, batch=2):
    return spectrogram(frames, mels, batch).transpose(1, 2)


def facts_of(place):
    """What has to be said of a file whose class token stands there."""
    return {"class_token": place} if place in ("first", "last") else {}


@pytest.mark.parametrize("patch", [8, 16, 32, (16, 8)])
@pytest.mark.parametrize("place", LEARNED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_converted_aum_computes_what_is_published(variant, place, patch):
    state = aum_state(variant, place, grid=(2, 5))
    model = melastic.from_official(state, origin="aum", input_size=(32, 80), **facts_of(place))
    assert model.config.encoder.variant == variant
    size = (patch, patch) if isinstance(patch, int) else patch
    x = input_of(80)
    with torch.no_grad():
        assert_close(model(x, patch), aum_logits(state, x, (2, 5), size, size, place), **CLOSE)


@settings(max_examples=12)
@given(
    sizes=st.fixed_dictionaries(
        {
            "dim": st.integers(1, 40),
            "numbers": st.integers(1, 20),
            "expand": st.integers(1, 3),
            "taps": st.integers(1, 5),
            "depth": st.integers(1, 3),
        }
    ),
    variant=st.sampled_from(VARIANTS),
    place=st.sampled_from(list(LEARNED)),
    patch=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    overlap=st.booleans(),
    frames=st.integers(12, 40),
)
def test_sizes_of_every_kind_are_read_off(sizes, variant, place, patch, overlap, frames):
    stride = tuple(max(1, n - 2) for n in patch) if overlap else patch
    size = (16, frames)
    grid = tuple((n - p) // s + 1 for n, p, s in zip(size, patch, stride, strict=True))
    state = aum_state(variant, place, grid=grid, patch=patch, **sizes)
    model = melastic.from_official(
        state, origin="aum", input_size=size, stride=stride, **facts_of(place)
    )
    encoder = model.config.encoder
    assert {name: getattr(encoder, name) for name in ("dim", "expand", "taps", "depth")} == {
        name: value for name, value in sizes.items() if name != "numbers"
    }
    assert (encoder.state, encoder.variant) == (sizes["numbers"], variant)
    x = input_of(frames, mels=16)
    with torch.no_grad():
        assert_close(model(x), aum_logits(state, x, grid, patch, stride, place), **CLOSE)


@pytest.mark.parametrize("variant", ["fo-bi", "bi-bi"])
def test_the_whole_depth_and_length_of_the_paper_stays_close(variant):
    state = aum_state(variant, grid=(8, 64), depth=24, dim=32, classes=527)
    model = melastic.from_official(state, origin="aum")
    x = input_of(1024, mels=128, batch=1)
    official = aum_logits(state, x, (8, 64), (16, 16), (16, 16), "middle")
    assert official.std() > 0.3
    with torch.no_grad():
        assert_close(model(x), official, atol=1e-4, rtol=0)


@pytest.mark.parametrize("place", LEARNED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_has_as_many_parameters_as_its_file(variant, place):
    state = aum_state(variant, place)
    model = melastic.from_official(state, origin="aum", input_size=(32, 64))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == sum(value.numel() for value in state.values())


@pytest.mark.parametrize(
    ("variant", "dim", "parameters"), [("fo-bi", 768, 92_107_535), ("bi-bi", 384, 25_539_215)]
)
def test_files_of_the_published_sizes_have_as_many_parameters(variant, dim, parameters):
    shapes = aum_shapes(variant, grid=(8, 64), dim=dim, depth=24, classes=527)
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters


@pytest.mark.parametrize("place", LEARNED)
def test_the_place_of_class_tokens_is_read_off_or_said(place):
    state = aum_state(place=place)
    said = melastic.from_official(state, origin="aum", input_size=(32, 64), class_token=place)
    pooling, tokens = said.config.pooling, LEARNED[place]
    if place == "none":
        assert pooling == MeanPooling()
    else:
        assert pooling == ClassTokenPooling(tokens=len(tokens), place=place, positioned=True)
        rows = state["pos_embed.pos_embed"][0]
        assert torch.equal(said.class_positions, rows[: len(tokens)])
        assert torch.equal(said.positions.table.flatten(0, 1), rows[len(tokens) :])
    unsaid = melastic.from_official(state, origin="aum", input_size=(32, 64))
    assumed = "middle" if len(tokens) == 1 else place
    assert (unsaid.config == said.config) == (assumed == place)


def test_input_size_and_stride_are_read_off_where_they_can_be():
    plain = melastic.from_official(aum_state(grid=(8, 3)), origin="aum")
    assert plain.config.frontend.num_mels == 128
    assert plain.config.frontend.fixed_frames == 48
    assert plain.config.positions.extent == (128, 0.48)
    overlapping = aum_state(grid=(12, 19))
    model = melastic.from_official(overlapping, origin="aum", input_size=(128, 204))
    assert model.config.patches.stride == (10, 10)
    said = melastic.from_official(aum_state(grid=(12, 5)), origin="aum", stride=10)
    assert said.config.frontend.fixed_frames == 56


def test_what_an_aum_file_does_not_hold_is_taken_from_the_facts():
    facts = {"labels": list("abcde"), "task": "multi-label", "hop_ms": 5.0, "mean": -1.0}
    model = melastic.from_official(
        aum_state(), origin="aum", input_size=(32, 64), fixed_frames=None, **facts
    )
    config = model.config
    assert (config.labels, config.task) == (tuple("abcde"), "multi-label")
    assert (config.frontend.mean, config.frontend.fixed_frames) == (-1.0, None)
    assert config.positions.extent == (32, 0.32)
    assert (config.positions.reading, config.patches.remainder) == ("stretch", "crop")
    assert config.head_norm_eps is None


def test_a_converted_aum_is_saved_and_loaded_without_change(tmp_path):
    model = melastic.from_official(aum_state(place="both"), origin="aum", input_size=(32, 64))
    model.save(tmp_path)
    clips = [torch.randn(32, 64), torch.randn(32, 33)]
    with torch.no_grad():
        assert torch.equal(melastic.load(tmp_path)(clips), model(clips))
