"""The official maths that ship with the converters, and what they say of a conversion."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.official import (
    ast_logits,
    elasticast_logits,
    flexiast_logits,
)
from melastic.checkpoints.convert.parity import LIMIT, compare
from tests.oracles.fill import filled, spectrogram
from tests.oracles.official import (
    ast_state,
    elastic_state,
    flexi_state,
    logits_of,
    ssast_state,
    vit_state,
)
from tests.reference.cases import cases

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def assert_official(logits, case, key="logits"):
    assert_close(logits, torch.tensor(case[key]), atol=1e-4, rtol=0)


def as_input(case):
    return spectrogram(case["frames"], 128, batch=2).transpose(1, 2)


@pytest.mark.parametrize("case", cases("ast"))
def test_the_maths_of_ast_give_the_official_logits(case):
    stride = (case["config"]["fstride"], case["config"]["tstride"])
    assert_official(ast_logits(filled(case["shapes"], 5), as_input(case), stride, 3), case)


@pytest.mark.parametrize("case", cases("flexi"))
def test_the_maths_of_flexiast_give_the_official_logits(case):
    patch = case["patch"] if isinstance(case["patch"], list) else [case["patch"]] * 2
    tensors = filled(case["shapes"], 96)
    assert_official(flexiast_logits(tensors, as_input(case), (8, 32), patch, 3), case)


@pytest.mark.parametrize("row_tokens", [256, 300, 2048])
@pytest.mark.parametrize("case", cases("elastic"))
def test_the_maths_of_elasticast_give_the_official_logits(case, row_tokens):
    clips = [spectrogram(frames, 128, 1, seed=i)[0].T for i, frames in enumerate(case["lens"])]
    pooling = "mean" if case["config"]["avg_pool"] else "attention"
    tensors = filled(case["shapes"], 96)
    logits = elasticast_logits(tensors, clips, (16, 16), 3, row_tokens=row_tokens, pooling=pooling)
    assert_official(logits, case)


@pytest.mark.parametrize(
    "case", [c for c in cases("ssast") if "logits" in c.values[0] and "shapes" in c.values[0]]
)
@pytest.mark.parametrize(("pooling", "key"), [("mean", "logits"), ("class", "logits_cls")])
def test_the_maths_of_ssast_give_the_official_logits(case, pooling, key):
    stride = (case["config"]["fstride"], case["config"]["tstride"])
    tensors = filled(case["shapes"], case["seed"])
    logits = ast_logits(tensors, as_input(case), stride, 3, pooling=pooling)
    assert_official(logits, case, key)


@settings(max_examples=30)
@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    patch=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    prefix=st.sampled_from([1, 2]),
)
def test_a_converted_flexiast_computes_what_is_published_at_any_patch_size(grid, patch, prefix):
    size = tuple(16 * n for n in grid)
    assume(patch[0] <= size[0] and patch[1] <= size[1])
    state = flexi_state(grid, prefix=prefix, depth=1)
    model = melastic.from_official(state, origin="flexiast", input_size=size, num_heads=3)
    x = spectrogram(size[1], size[0], batch=2)
    with torch.no_grad():
        logits = model(x.transpose(1, 2), patch)
    assert_close(logits, flexiast_logits(state, x.transpose(1, 2), grid, patch, 3), **CLOSE)


@pytest.mark.parametrize("patch", [8, 10, 12, 15, 16, 20, 24, 30, 32, 40, 48, 64])
def test_every_published_patch_size_of_flexiast_is_met(patch):
    state = flexi_state((8, 12), depth=1)
    model = melastic.from_official(state, origin="flexiast", input_size=(128, 192), num_heads=3)
    x = spectrogram(192, 128, batch=1).transpose(1, 2)
    for pair in ((patch, patch), (16, patch), (patch, 16)):
        with torch.no_grad():
            logits = model(x, pair)
        assert_close(logits, flexiast_logits(state, x, (8, 12), pair, 3), **CLOSE)


@settings(max_examples=20)
@given(
    columns=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    patch=st.sampled_from([(16, 16), (8, 8), (4, 6)]),
    heads=st.sampled_from([1, 2, 4]),
    pooling=st.sampled_from(["attention", "mean"]),
    limit=st.integers(0, 200),
)
def test_a_converted_elasticast_computes_what_is_published_in_any_rows(
    columns, patch, heads, pooling, limit
):
    grid = (3, 9)
    state = elastic_state(grid, patch, dim=16, depth=1)
    model = melastic.from_official(
        state, origin="elasticast", patch=patch, num_heads=heads, pooling=pooling
    )
    lengths = [count * patch[1] for count in columns]
    mels = grid[0] * patch[0]
    clips = [spectrogram(n, mels, batch=1, seed=i)[0].T for i, n in enumerate(lengths)]
    row_tokens = max(grid[0] * max(columns), limit)
    expected = elasticast_logits(state, clips, patch, heads, row_tokens=row_tokens, pooling=pooling)
    with torch.no_grad():
        assert_close(model(clips), expected, **CLOSE)


@settings(max_examples=12)
@given(
    frames=st.integers(16, 90),
    stride=st.integers(5, 16),
    prefix=st.sampled_from([1, 2]),
    pooling=st.sampled_from(["mean", "class"]),
)
def test_a_converted_ssast_computes_what_is_published(frames, stride, prefix, pooling):
    size, stride = (48, frames), (stride, stride)
    state = ssast_state(prefix=prefix, size=size, stride=stride, depth=1)
    model = melastic.from_official(
        state, origin="ssast", input_size=size, stride=stride, num_heads=3, pooling=pooling
    )
    x = spectrogram(frames, 48, batch=2)
    expected = ast_logits(state, x.transpose(1, 2), stride, 3, pooling=pooling)
    assert_close(logits_of(model, x), expected, **CLOSE)


CONVERSIONS = {
    "ast": (ast_state((32, 70), stride=(10, 10)), {"input_size": (32, 70)}),
    "flexiast": (flexi_state(depth=1), {"input_size": (32, 64)}),
    "elasticast": (elastic_state(), {}),
    "ssast": (ssast_state(), {"input_size": (32, 64)}),
}


@pytest.mark.parametrize("origin", CONVERSIONS)
def test_a_conversion_is_compared_on_several_inputs(origin):
    state, facts = CONVERSIONS[origin]
    state = {f"module.{name}": value for name, value in state.items()}
    model = melastic.from_official(state, origin=origin, num_heads=3, **facts)
    found = compare(model, {"model": state}, origin)
    assert len({one.input for one in found}) == len(found) >= 2
    assert all(one.difference < 2e-5 and one.passed for one in found)


@pytest.mark.parametrize("origin", CONVERSIONS)
def test_every_parameter_that_is_wrong_is_found(origin):
    state, facts = CONVERSIONS[origin]
    model = melastic.from_official(state, origin=origin, num_heads=3, **facts)
    for name, parameter in model.named_parameters():
        right = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
        found = compare(model, state, origin)
        assert not all(one.passed for one in found), name
        parameter.data = right
    assert all(one.passed for one in compare(model, state, origin))


def test_logits_that_are_no_numbers_do_not_pass():
    state, facts = CONVERSIONS["ast"]
    model = melastic.from_official(state, origin="ast", num_heads=3, **facts)
    with torch.no_grad():
        model.head.linear.bias.fill_(math.nan)
    assert not any(one.passed for one in compare(model, state, "ast"))


def test_a_start_whose_head_is_new_has_nothing_to_be_compared_with():
    vit = melastic.from_official(
        vit_state(), origin="vit", input_size=(64, 64), num_heads=3, num_classes=2
    )
    assert compare(vit, vit_state(), "vit") == []
    state = ssast_state(pretrained=(32, 64))
    start = melastic.from_official(state, origin="ssast", num_heads=3, num_classes=2)
    assert compare(start, state, "ssast") == []


def test_a_converted_hf_ast_is_compared_under_both_of_its_namings(tmp_path):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    config = transformers.ASTConfig(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=200,
        max_length=100,
        num_labels=5,
    )
    official = transformers.ASTForAudioClassification(config)
    official.save_pretrained(tmp_path)
    for state in (official.state_dict(), load_file(tmp_path / "model.safetensors")):
        model = melastic.from_official(state, origin="hf-ast", input_size=(128, 100), num_heads=3)
        found = compare(model, state, "hf-ast")
        assert len(found) == 2
        assert max(one.difference for one in found) < 2e-5 < LIMIT
