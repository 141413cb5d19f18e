"""Official weights give official logits."""

import dataclasses
import inspect
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.common import read_labels
from melastic.config import MeanPooling
from melastic.errors import InputError
from tests.oracles.ast import ast_logits, image_positions
from tests.oracles.fill import spectrogram
from tests.oracles.official import (
    CLASSES,
    ast_state,
    elastic_state,
    flexi_state,
    logits_of,
    ssast_state,
    vit_state,
)

axis = st.tuples(st.integers(2, 8), st.integers(1, 8), st.integers(1, 4), st.integers(0, 7))


@settings(max_examples=12)
@given(freq=axis, time=axis, prefix=st.sampled_from([1, 2]), heads=st.sampled_from([1, 2, 4]))
def test_a_converted_ast_computes_what_ast_publishes(freq, time, prefix, heads):
    patch, steps, counts, rests = zip(freq, time, strict=True)
    stride = tuple(min(pair) for pair in zip(patch, steps, strict=True))
    rests = tuple(rest % step for rest, step in zip(rests, stride, strict=True))
    axes = zip(counts, stride, patch, rests, strict=True)
    size = tuple((n - 1) * step + kernel + rest for n, step, kernel, rest in axes)
    state = ast_state(size, patch, stride, prefix, dim=8, depth=1)
    model = melastic.from_official(
        state, origin="ast", input_size=size, stride=stride, num_heads=heads
    )
    x = spectrogram(size[1], size[0], batch=2)
    expected = ast_logits(state, x, stride, heads)
    assert_close(logits_of(model, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [10, 12, 14, 16])
@pytest.mark.parametrize("prefix", [1, 2])
def test_the_stride_of_an_ast_is_read_off_its_positions(stride, prefix):
    state = ast_state((128, 192), stride=(stride, stride), prefix=prefix, dim=128, depth=1)
    model = melastic.from_official(state, origin="ast", input_size=(128, 192))
    assert model.config.patches.stride == (stride, stride)
    assert model.config.encoder.num_heads == 2
    x = spectrogram(192, 128, batch=1)
    expected = ast_logits(state, x, stride, heads=2)
    assert_close(logits_of(model, x), expected, atol=1e-5, rtol=1e-5)


def test_strides_that_differ_by_axis_are_read_off_where_only_one_pair_fits():
    state = ast_state((128, 1024), stride=(10, 16), dim=64, depth=1)
    model = melastic.from_official(state, origin="ast", input_size=(128, 1024))
    assert model.config.patches.stride == (10, 16)


@pytest.mark.parametrize("hidden", [25, 37, 48, 96, 100])
def test_any_width_of_the_mlp_survives_conversion(hidden):
    state = ast_state(dim=22, hidden=hidden)
    model = melastic.from_official(state, origin="ast", input_size=(32, 64), num_heads=2)
    assert model.encoder.blocks[0].mlp[0].weight.shape == (hidden, 22)


def test_a_converted_ast_is_saved_and_loaded_without_change(tmp_path):
    state = ast_state()
    model = melastic.from_official(state, origin="ast", input_size=(32, 64), num_heads=3)
    model.save(tmp_path)
    x = spectrogram(64, 32, batch=2)
    assert torch.equal(logits_of(melastic.load(tmp_path), x), logits_of(model, x))


def test_training_a_converted_model_leaves_the_official_tensors_alone():
    state = ast_state()
    before = {name: value.clone() for name, value in state.items()}
    model = melastic.from_official(state, origin="ast", input_size=(32, 64), num_heads=3)
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter.zero_()
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_what_a_file_does_not_hold_is_taken_from_the_facts():
    facts = {
        "labels": list("abcde"),
        "task": "multi-label",
        "sample_rate": 8000,
        "hop_ms": 20.0,
        "mean": -1.0,
        "std": 2.0,
        "fixed_frames": None,
    }
    model = melastic.from_official(
        ast_state(), origin="ast", input_size=(32, 64), num_heads=3, **facts
    )
    config, frontend = model.config, model.config.frontend
    assert model.labels == tuple("abcde")
    assert config.task == "multi-label"
    assert (frontend.sample_rate, frontend.hop_ms, frontend.num_mels) == (8000, 20.0, 32)
    assert (frontend.mean, frontend.std, frontend.fixed_frames) == (-1.0, 2.0, None)
    assert config.positions.extent == (32, 64 * 0.02)


def test_audio_is_padded_as_ast_was_trained_unless_said_otherwise():
    model = melastic.from_official(ast_state(), origin="ast", input_size=(32, 64), num_heads=3)
    assert model.config.frontend.fixed_frames == 64
    assert model.spectrogram(torch.zeros(1000)).shape == (32, 64)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state"])
def test_what_a_training_script_put_around_the_weights_is_taken_off(wrapper):
    wrapped = {
        wrapper: {f"module.{name}": value for name, value in ast_state().items()},
        "epoch": 3,
    }
    model = melastic.from_official(wrapped, origin="ast", input_size=(32, 64), num_heads=3)
    x = spectrogram(64, 32, batch=1)
    expected = ast_logits(ast_state(), x, 16, heads=3)
    assert_close(logits_of(model, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [10, 16])
@pytest.mark.parametrize("source", ["memory", "file"])
def test_a_converted_hf_ast_computes_what_transformers_computes(stride, source, tmp_path):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    config = transformers.ASTConfig(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=200,
        max_length=200,
        frequency_stride=stride,
        time_stride=stride,
        num_labels=CLASSES,
    )
    official = transformers.ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for parameter in official.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    state = official.state_dict()
    if source == "file":
        official.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
    x = spectrogram(200, 128, batch=2)
    with torch.no_grad():
        expected = official(x).logits
    model = melastic.from_official(state, origin="hf-ast", input_size=(128, 200), num_heads=3)
    assert_close(logits_of(model, x), expected, atol=2e-5, rtol=1e-5)


def test_a_converted_hf_ast_adds_as_little_to_the_variance_as_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        max_length=32,
        num_mel_bins=32,
        num_labels=CLASSES,
    )
    official = transformers.ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for parameter in official.parameters():
            parameter.copy_(torch.randn_like(parameter))
        for name, parameter in official.named_parameters():
            if "embeddings" in name:
                parameter.mul_(1e-4)
        official.audio_spectrogram_transformer.layernorm.weight.mul_(1e-4)
        official.audio_spectrogram_transformer.layernorm.bias.mul_(1e-4)
        x = spectrogram(32, 32, batch=1)
        expected = official(x).logits
    model = melastic.from_official(
        official.state_dict(), origin="hf-ast", input_size=(32, 32), stride=10
    )
    assert_close(logits_of(model, x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 200), (64, 64), (128, 32), (176, 16), (100, 128)])
@pytest.mark.parametrize("prefix", [1, 2])
def test_a_vit_becomes_an_ast_by_the_published_rule(size, prefix):
    state, dim, stride = vit_state(side=4, prefix=prefix), 24, 16
    model = melastic.from_official(
        state, origin="vit", input_size=size, num_classes=CLASSES, num_heads=3
    )
    rows, columns = (n // stride for n in size)
    grid = state["pos_embed"][0, prefix:].reshape(4, 4, dim)
    fitted = image_positions(grid, rows, columns).reshape(1, -1, dim)
    expected_state = {f"v.{name}": value for name, value in state.items()}
    expected_state |= {
        "v.pos_embed": torch.cat([state["pos_embed"][:, :prefix], fitted], dim=1),
        "v.patch_embed.proj.weight": state["patch_embed.proj.weight"].sum(1, keepdim=True),
        "mlp_head.0.weight": model.head.norm.weight,
        "mlp_head.0.bias": model.head.norm.bias,
        "mlp_head.1.weight": model.head.linear.weight,
        "mlp_head.1.bias": model.head.linear.bias,
    }
    x = spectrogram(size[1], size[0], batch=2)
    expected = ast_logits(expected_state, x, stride, heads=3)
    assert model.head.linear.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert_close(logits_of(model, x), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=30)
@given(side=st.integers(1, 7), freq=st.integers(1, 12), time=st.integers(1, 12))
def test_image_positions_are_cropped_or_interpolated_axis_by_axis(side, freq, time):
    from melastic.checkpoints.convert.vit import fit_positions

    table = torch.randn(side, side, 3)
    fitted = fit_positions(table, melastic.FreqTime(freq, time))
    assert_close(fitted, image_positions(table, freq, time), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("labels", [{1: "b", 0: "a"}, ["a", "b"], ("a", "b")])
def test_labels_are_a_list_or_a_dict_by_number(labels):
    model = melastic.from_official(vit_state(), origin="vit", labels=labels, num_heads=3)
    assert model.labels == ("a", "b")


@pytest.mark.parametrize(
    "labels", [{0: "a", 2: "b"}, [0, 1], (name for name in "ab"), {"a": "b"}, "ab"]
)
def test_labels_that_are_no_names_are_refused(labels):
    facts = SimpleNamespace(labels=labels, num_classes=None)
    with pytest.raises(InputError, match="labels are a list of names, or a dict"):
        inspect.unwrap(read_labels)(facts, 2)


def test_a_vit_of_one_colour_and_another_stride_is_accepted():
    model = melastic.from_official(
        vit_state(colours=1),
        origin="vit",
        input_size=(64, 100),
        stride=(16, 10),
        labels=["a", "b"],
        num_heads=3,
    )
    assert model.config.patches.stride == (16, 10)
    assert model.config.positions.grid == (4, 9)
    assert model.labels == ("a", "b")


@settings(max_examples=20)
@given(
    trained=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    size=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    stride=st.tuples(st.integers(5, 16), st.integers(5, 16)),
)
def test_positions_of_pre_training_are_fitted_by_the_published_rule(trained, size, stride):
    state = ssast_state(pretrained=trained, depth=1)
    model = melastic.from_official(
        state, origin="ssast", input_size=size, stride=stride, num_heads=3, num_classes=2
    )
    rows, columns = ((n - 16) // step + 1 for n, step in zip(size, stride, strict=True))
    learned = state["v.pos_embed"][0, 2:].reshape(trained[0] // 16, trained[1] // 16, -1)
    expected = image_positions(learned, rows, columns)
    assert_close(model.positions.table.detach(), expected, atol=1e-6, rtol=1e-6)
    assert model.config.pooling == MeanPooling(leading=2)


def test_the_patch_of_an_elasticast_is_read_off_or_said():
    square = melastic.from_official(elastic_state((8, 4)), origin="elasticast", num_heads=3)
    assert square.config.patches.patch == (16, 16)
    assert square.config.positions.extent == (128, 0.64)
    other = elastic_state((4, 5), patch=(16, 8))
    for facts in ({"patch": (16, 8)}, {"input_size": (64, 40)}):
        model = melastic.from_official(other, origin="elasticast", num_heads=3, **facts)
        assert model.config.patches.patch == (16, 8)
        assert model.config.frontend.num_mels == 64
        assert model.config.frontend.fixed_frames is None


def test_queries_of_elasticast_make_up_for_its_unscaled_attention():
    state = elastic_state(dim=32)
    model = melastic.from_official(state, origin="elasticast", num_heads=2)
    qkv = model.encoder.blocks[1].attention.qkv
    official = "blocks.modules_list.1.attn.to_"
    for kind, ours in (("weight", qkv.weight), ("bias", qkv.bias)):
        assert torch.equal(ours[:32], state[f"{official}q.{kind}"] * 4)
        assert torch.equal(ours[32:], state[f"{official}kv.{kind}"])


def test_a_row_of_frames_is_a_patch_whose_stride_is_read_off_along_time():
    state = ssast_state(size=(32, 20), patch=(32, 2), stride=(32, 1), depth=1)
    model = melastic.from_official(state, origin="ssast", input_size=(32, 20), num_heads=3)
    assert model.config.patches.stride == (32, 1)
    assert model.config.positions.extent == (32, 0.19)


@pytest.mark.parametrize("prefix", [1, 2])
def test_a_flexiast_reads_patches_of_any_size_from_one_kernel(prefix):
    state = flexi_state(prefix=prefix)
    model = melastic.from_official(state, origin="flexiast", input_size=(32, 64), num_heads=3)
    config = model.config
    assert (config.patches.patch, config.patches.stride) == ((16, 16), (16, 16))
    assert (config.positions.reading, config.positions.antialias) == ("stretch", True)
    assert (config.patches.resize.method, config.patches.resize.antialias) == ("pi", False)
    assert len(model.class_tokens) == config.pooling.added == prefix
    assert torch.equal(model.patch_embed.kernel, state["patch_embed.proj.weight"][:, 0])


def test_an_elasticast_counts_patches_whatever_time_they_stand_for():
    model = melastic.from_official(elastic_state(), origin="elasticast", num_heads=3)
    clips = [spectrogram(frames, 128, batch=1)[0].T for frames in (64, 32)]
    with torch.no_grad():
        assert torch.equal(model(clips, hop_ms=[20.0, 7.0]), model(clips))


def test_an_elasticast_of_the_published_size_has_as_many_parameters():
    model = melastic.from_official(elastic_state(), origin="elasticast", num_heads=3)
    config = dataclasses.replace(
        model.config,
        labels=tuple(map(str, range(527))),
        encoder=dataclasses.replace(model.config.encoder, dim=768, depth=12, num_heads=12),
        positions=dataclasses.replace(model.config.positions, grid=melastic.FreqTime(8, 64)),
    )
    with torch.device("meta"):
        parameters = melastic.Classifier(config).parameters()
    assert sum(parameter.numel() for parameter in parameters) == 88_078_607
