"""What does not fit an Audio Mamba or a Vision Mamba is refused in one line."""

import pytest
import torch

from tests.checkpoints.test_convert_refuses import assert_refused
from tests.models import VARIANTS
from tests.oracles.aum import aum_state, vim_state
from tests.oracles.official import ast_state, elastic_state, flexi_state

AUM = {"origin": "aum", "input_size": (32, 64)}
VIM = {"origin": "vim", "input_size": (64, 64), "num_classes": 2}
FILES = {variant: aum_state(variant) for variant in VARIANTS}
TAKEN = sorted({name for state in FILES.values() for name in state} - {"cls_token"})


@pytest.mark.parametrize("name", TAKEN)
def test_a_missing_tensor_is_named(name):
    for state in FILES.values():
        if name in state:
            less = {f"module.{key}": value for key, value in state.items() if key != name}
            words = [f"aum weights: module.{name} is missing", "check the origin"]
            assert_refused(words, less, **AUM)


def test_a_missing_class_token_is_seen_by_its_position():
    state = {name: value for name, value in FILES["fo-bi"].items() if name != "cls_token"}
    assert_refused(["9 positions", "correct input_size"], state, **AUM)
    assert_refused(["no class token", "'middle'", "give none"], state, **AUM, class_token="middle")


@pytest.mark.parametrize(
    "name",
    [
        "layers.7.norm.weight",
        "layers.0.norm.bias",
        "layers.0.mixer.gamma",
        "rope.freqs_cos",
        "cls_token_tail.extra",
    ],
)
def test_an_unknown_tensor_is_named(name):
    state = FILES["fo-bi"] | {name: torch.zeros(2)}
    assert_refused([name, "no place", "check the origin"], state, **AUM)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("layers.1.mixer.out_proj.weight", (24, 40), ["24 x 48", "24 x 40"]),
        ("layers.0.mixer.in_proj.weight", (50, 24), ["multiple of 48 rows", "got 50"]),
        ("layers.0.mixer.dt_proj.weight", (48, 3), ["48 x 2", "48 x 3"]),
        ("layers.0.mixer.A_b_log", (48, 8), ["48 x 16", "48 x 8"]),
        ("layers.0.mixer.conv1d.weight", (48, 2, 4), ["48 x 1 x any", "48 x 2 x 4"]),
        ("patch_embed.proj.weight", (24, 3, 16, 16), ["any x 1 x any x any", "24 x 3 x 16 x 16"]),
        ("pos_embed.pos_embed", (1, 9, 20), ["1 x any x 24", "1 x 9 x 20"]),
        ("cls_token", (1, 24), ["1 x 1 x 24", "1 x 24"]),
    ],
)
def test_a_tensor_of_another_shape_is_named(name, shape, words):
    state = FILES["fo-bi"] | {name: torch.zeros(shape)}
    assert_refused([name, *words, "check the origin"], state, **AUM)


def test_blocks_that_differ_are_refused():
    wide = {k: v for k, v in aum_state(expand=3).items() if k.startswith("layers.1.")}
    assert_refused(["encoder.blocks.1", "shape"], FILES["fo-bi"] | wide, **AUM)


def test_weights_that_are_not_finite_are_refused():
    state = FILES["bi-bi"] | {"layers.1.mixer.D_b": torch.full((48,), torch.inf)}
    assert_refused(["layers.1.mixer.D_b is not finite", "fetch them again"], state, **AUM)


@pytest.mark.parametrize(
    ("place", "said", "words"),
    [
        ("middle", "both", ["one class token", "give first, middle or last", "leave class_token"]),
        ("middle", "none", ["one class token", "'none'"]),
        ("both", "middle", ["two class tokens", "give both"]),
        ("both", "none", ["two class tokens", "give both"]),
        ("none", "first", ["no class token", "give none"]),
        ("middle", "midle", ["unknown place of the class token: 'midle'", "did you mean middle"]),
    ],
)
def test_a_class_token_that_is_contradicted_is_refused(place, said, words):
    assert_refused(words, aum_state(place=place), **AUM, class_token=said)
    state = vim_state(place=place)
    assert_refused(words, state, **VIM, class_token=said)


def test_two_kinds_of_class_tokens_are_refused():
    state = aum_state(place="both") | {"cls_token": torch.zeros(1, 1, 24)}
    assert_refused(["cls_token has no place"], state, **AUM)
    lone = {name: value for name, value in aum_state(place="both").items() if "tail" not in name}
    assert_refused(["cls_token_tail is missing"], lone, **AUM)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["stride 10 x 10", "2 x 5 = 10", "for 8", "leave stride out"], {"stride": 10}),
        (["input_size 48 x 99", "8 positions", "give stride"], {"input_size": (48, 99)}),
        (["holds no whole patch"], {"input_size": (8, 64)}),
        (["a size is one positive whole number"], {"input_size": (32, 0)}),
        (["a size is one positive whole number"], {"stride": 0}),
        (["positions for 12 patches", "8 rows (128 mel", "input_size="], {"input_size": None}),
        (["labels: 2, the head: 5"], {"labels": ["a", "b"]}),
        (["num_classes: 4, the head: 5"], {"num_classes": 4}),
        (["unknown task 'multi'"], {"task": "multi"}),
        (["'num_heads'", "aum"], {"num_heads": 3}),
    ],
)
def test_a_fact_that_is_contradicted_is_refused(words, change):
    grid = (3, 4) if change.get("input_size", 0) is None else (2, 4)
    assert_refused(words, aum_state(grid=grid), **(AUM | change))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["pos_embed is missing"], {"pos_embed": None}),
        (["fill a square, got 15"], {"pos_embed": torch.zeros(1, 16, 24)}),
        (["1 or 3 input channels, got 4"], {"patch_embed.proj.weight": torch.zeros(24, 4, 8, 8)}),
        (["layers.0.mixer.gamma", "no place"], {"layers.0.mixer.gamma": torch.zeros(24)}),
    ],
)
def test_an_image_model_that_does_not_fit_is_refused(words, change):
    state = {name: value for name, value in (vim_state() | change).items() if value is not None}
    assert_refused(words, state, **VIM)


def test_a_vim_needs_to_know_its_classes_and_a_size_that_holds_patches():
    assert_refused(["num_classes or labels"], vim_state(), **(VIM | {"num_classes": None}))
    assert_refused(
        ["a patch spans at most the 8 mel bins"], vim_state(), **(VIM | {"input_size": (8, 64)})
    )


@pytest.mark.parametrize(
    ("words", "state", "facts"),
    [
        (["patch_embed.proj.weight is missing", "origin"], ast_state(), AUM),
        (["patch_embed.proj.weight is missing", "origin"], elastic_state(), AUM),
        (["norm.weight is missing", "origin"], flexi_state(), AUM),
        (["pos_embed.pos_embed is missing", "origin"], vim_state(colours=1), AUM),
        (["pos_embed is missing", "origin"], aum_state(), VIM),
        (["v.cls_token is missing"], aum_state(), {"origin": "ast", "input_size": (32, 64)}),
    ],
)
def test_weights_of_another_origin_are_refused(words, state, facts):
    assert_refused(words, state, **facts)
