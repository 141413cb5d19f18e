"""What does not fit is refused in one line."""

import dataclasses

import pytest
import torch

import melastic
from melastic.checkpoints.convert import ORIGINS, facts_of
from melastic.checkpoints.convert.files import read_class_names
from melastic.errors import InputError
from tests.oracles.official import (
    UNCHECKED,
    ast_state,
    elastic_state,
    flexi_state,
    ssast_state,
    vit_state,
)

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


@pytest.mark.parametrize("origin", ["asst", "beats", ""])
def test_an_unknown_origin_is_refused_with_the_known_ones(origin):
    assert_refused(["unknown origin", repr(origin), "ast"], ast_state(), origin=origin)


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_unknown_fact_is_refused_with_a_suggestion(origin):
    assert_refused(["'lable'", "did you mean labels"], {}, origin=origin, lable=10)


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


FLEXI = {"origin": "flexiast", "input_size": (32, 64), "num_heads": 3}
ELASTIC = {"origin": "elasticast", "num_heads": 3}
SSAST = {"origin": "ssast", "num_heads": 3}


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["flexiast weights do not say", "input_size="], {"input_size": None}),
        (["stride 16 x 16 gives 2 x 5 = 10", "for 8", "input_size"], {"input_size": (32, 80)}),
        (["num_classes: 4, the head: 5"], {"num_classes": 4}),
    ],
)
def test_facts_that_do_not_fit_a_flexiast_are_refused(words, change):
    assert_refused(words, flexi_state(), **(FLEXI | change))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["8 x 4 patches of 256 pixels", "input_size 128 x 90"], {"input_size": (128, 90)}),
        (["8 x 4 patches of 256 pixels", "patch 16 x 8"], {"patch": (16, 8)}),
        (["input_size 64 x 64", "leave it out"], {"patch": 16, "input_size": (64, 64)}),
        (["unknown pooling 'max'", "mean"], {"pooling": "max"}),
        (["a size is one positive whole number"], {"patch": 0}),
    ],
)
def test_facts_that_do_not_fit_an_elasticast_are_refused(words, change):
    assert_refused(words, elastic_state(), **(ELASTIC | change))


def test_a_patch_that_cannot_be_read_off_an_elasticast_is_asked_for():
    assert_refused(["fill 128 mel bins", "4 rows", "patch="], elastic_state((4, 4)), **ELASTIC)
    narrow = elastic_state((8, 4), patch=(16, 8))
    assert_refused(["fill 128 mel bins", "128 pixels", "patch="], narrow, **ELASTIC)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["num_classes or labels"], {}),
        (["holds no whole patch"], {"num_classes": 2, "input_size": (8, 64)}),
        (["unknown pooling 'max'"], {"num_classes": 2, "pooling": "max"}),
    ],
)
def test_facts_that_do_not_fit_a_start_are_refused(words, change):
    assert_refused(words, ssast_state(pretrained=(32, 64)), **(SSAST | change))


def test_a_file_of_pre_training_with_other_positions_than_it_says_is_refused():
    state = ssast_state(pretrained=(32, 64)) | {"p_input_tdim": torch.tensor(80)}
    assert_refused(["32 x 80 in 2 x 5", "positions for 8"], state, **SSAST, num_classes=2)


@pytest.mark.parametrize(
    ("words", "state", "facts"),
    [
        (["pos_embed.pos_embed is missing", "origin"], ast_state(), FLEXI),
        (["patch_embed.proj.weight has no place", "origin"], flexi_state((4, 8)), AST),
        (["pos_embed_freq is missing", "origin"], ast_state(), ELASTIC),
        (["v.cls_token is missing", "origin"], elastic_state(), AST),
        (["mlp_head.0.weight is missing", "origin"], ssast_state(pretrained=(32, 64)), AST),
        (["has no place", "origin"], flexi_state((4, 8)), SSAST | {"input_size": (32, 64)}),
    ],
)
def test_weights_of_another_origin_are_refused(words, state, facts):
    assert_refused(words, state, **facts)


def assert_refused(words, state, **facts):
    """One line that holds the words."""
    with pytest.raises(InputError) as caught:
        UNCHECKED(state, **facts)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("rows", ["0,a\n1\n2,c", "0,a\n1,\n2,c", "0,a\n1,  \n2,c"])
def test_a_class_without_a_name_is_named(tmp_path, rows):
    (tmp_path / "names.csv").write_text(f"index,display_name\n{rows}\n")
    with pytest.raises(InputError, match="row 2 below the header has no display_name"):
        read_class_names(tmp_path / "names.csv")
