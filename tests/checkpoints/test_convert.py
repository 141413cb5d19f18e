"""Official weights give official logits, and what does not fit is refused in one line."""

import dataclasses
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert import ORIGINS, facts_of
from melastic.errors import InputError
from tests.oracles.ast import ast_logits, image_positions
from tests.oracles.fill import filled, spectrogram

CLASSES = 5
UNCHECKED = inspect.unwrap(melastic.from_official)
"""As users call it: without the type checker of the test suite."""


def timm_shapes(dim, patch, cells, prefix, colours=1, depth=2, hidden=None):
    """Names and shapes of a ViT; two leading tokens where it is distilled."""
    hidden = hidden or 4 * dim
    blocks = {}
    for i in range(depth):
        blocks |= {
            f"blocks.{i}.norm1.weight": (dim,),
            f"blocks.{i}.norm1.bias": (dim,),
            f"blocks.{i}.attn.qkv.weight": (3 * dim, dim),
            f"blocks.{i}.attn.qkv.bias": (3 * dim,),
            f"blocks.{i}.attn.proj.weight": (dim, dim),
            f"blocks.{i}.attn.proj.bias": (dim,),
            f"blocks.{i}.norm2.weight": (dim,),
            f"blocks.{i}.norm2.bias": (dim,),
            f"blocks.{i}.mlp.fc1.weight": (hidden, dim),
            f"blocks.{i}.mlp.fc1.bias": (hidden,),
            f"blocks.{i}.mlp.fc2.weight": (dim, hidden),
            f"blocks.{i}.mlp.fc2.bias": (dim,),
        }
    return {
        "cls_token": (1, 1, dim),
        **({"dist_token": (1, 1, dim)} if prefix == 2 else {}),
        "pos_embed": (1, prefix + cells, dim),
        "patch_embed.proj.weight": (dim, colours, *patch),
        "patch_embed.proj.bias": (dim,),
        **blocks,
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (1000, dim),
        "head.bias": (1000,),
        **({"head_dist.weight": (1000, dim), "head_dist.bias": (1000,)} if prefix == 2 else {}),
    }


def ast_state(size=(32, 64), patch=(16, 16), stride=(16, 16), prefix=2, dim=24, **sizes):
    rows, columns = ((n - p) // s + 1 for n, p, s in zip(size, patch, stride, strict=True))
    shapes = timm_shapes(dim, patch, rows * columns, prefix, **sizes)
    head = {"0.weight": (dim,), "0.bias": (dim,), "1.weight": (CLASSES, dim), "1.bias": (CLASSES,)}
    vit = {f"v.{name}": shape for name, shape in shapes.items()}
    return filled(vit | {f"mlp_head.{name}": shape for name, shape in head.items()})


def vit_state(side=4, prefix=1, colours=3, dim=24, patch=(16, 16)):
    return filled(timm_shapes(dim, patch, side * side, prefix, colours))


def logits_of(model, spectrograms):
    with torch.no_grad():
        return model(spectrograms.transpose(1, 2))


def assert_refused(words, state, **facts):
    """One line that holds the words."""
    with pytest.raises(InputError) as caught:
        UNCHECKED(state, **facts)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


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


AST = {"origin": "ast", "input_size": (32, 64), "num_heads": 3}
VIT = {"origin": "vit", "input_size": (64, 64), "num_heads": 3, "num_classes": 2}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "name",
    ["v.cls_token", "v.pos_embed", "v.blocks.1.mlp.fc2.bias", "v.norm.weight", "mlp_head.1.weight"],
)
def test_a_missing_tensor_is_named(name, prefix):
    state = {prefix + key: value for key, value in ast_state().items() if key != name}
    assert_refused([f"ast weights: {prefix}{name} is missing"], state, **AST)


@pytest.mark.parametrize("name", ["v.blocks.7.norm1.weight", "extra", "v.norm_pre.bias"])
def test_an_unknown_tensor_is_named(name):
    assert_refused([name, "no place"], ast_state() | {name: torch.zeros(2)}, **AST)


def test_an_empty_file_lacks_its_first_tensor():
    assert_refused(["ast weights: v.cls_token is missing"], {}, **AST)


def test_a_tensor_of_another_shape_is_named_with_both_shapes():
    state = ast_state() | {"v.blocks.0.attn.proj.weight": torch.zeros(24, 20)}
    assert_refused(["v.blocks.0.attn.proj.weight", "24 x 24", "24 x 20"], state, **AST)


def test_weights_that_are_not_finite_are_refused():
    state = ast_state() | {"v.norm.bias": torch.full((24,), torch.nan)}
    assert_refused(["v.norm.bias is not finite"], state, **AST)


@pytest.mark.parametrize("state", [[1, 2], torch.nn.Linear(1, 1), "ast.pth", None])
def test_what_is_no_state_dict_is_refused(state):
    assert_refused(["state dict", type(state).__name__, "torch.load"], state, **AST)


def test_a_state_dict_with_other_things_in_it_is_refused():
    assert_refused(["'epoch'", "int"], ast_state() | {"epoch": 3}, **AST)


@pytest.mark.parametrize("origin", ["asst", "timm", ""])
def test_an_unknown_origin_is_refused_with_the_known_ones(origin):
    assert_refused(["unknown origin", repr(origin), "ast"], ast_state(), origin=origin)


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_unknown_fact_is_refused_with_a_suggestion(origin):
    assert_refused(["'strid'", "did you mean stride"], {}, origin=origin, strid=10)


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_fact_is_explained_to_users(origin):
    for field in dataclasses.fields(facts_of(origin)):
        assert f"``{field.name}``" in melastic.from_official.__doc__


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["stride 10 x 10", "2 x 5 = 10", "8", "leave stride out"], {"stride": 10}),
        (["input_size 48 x 99", "8 positions"], {"input_size": (48, 99)}),
        (["holds no whole patch"], {"input_size": (8, 64)}),
        (["input_size=(mel bins, frames)"], {"input_size": None}),
        (["a size is one positive whole number"], {"input_size": (32, 0)}),
        (["multiple of num_heads"], {"num_heads": 5}),
        (["num_heads cannot be read off"], {"num_heads": None}),
        (["labels: 2, the head: 5"], {"labels": ["a", "b"]}),
        (["num_classes: 4, the head: 5"], {"num_classes": 4}),
        (["labels are a list"], {"labels": "abcde"}),
        (["unknown task 'multi'", "multi-label"], {"task": "multi"}),
    ],
)
def test_a_fact_that_is_missing_or_contradicted_is_refused(words, change):
    assert_refused(words, ast_state(), **(AST | change))


def test_a_stride_that_cannot_be_told_is_asked_for():
    state = ast_state((30, 28), stride=(10, 9), dim=24)
    assert_refused(["several strides", "give stride"], state, **(AST | {"input_size": (30, 28)}))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["pos_embed is missing"], {"pos_embed": None}),
        (["fill a square, got 15"], {"pos_embed": torch.zeros(1, 16, 24)}),
        (["1 or 3 input channels, got 4"], {"patch_embed.proj.weight": torch.zeros(24, 4, 8, 8)}),
        (["blocks.0.ls1.gamma", "no place"], {"blocks.0.ls1.gamma": torch.zeros(24)}),
    ],
)
def test_an_image_model_that_does_not_fit_is_refused(words, change):
    state = {name: value for name, value in (vit_state() | change).items() if value is not None}
    assert_refused(words, state, **VIT)


def test_a_vit_needs_to_know_its_classes():
    assert_refused(["num_classes or labels"], vit_state(), **(VIT | {"num_classes": None}))
    assert_refused(["labels: 3, num_classes: 2"], vit_state(), **(VIT | {"labels": list("abc")}))
