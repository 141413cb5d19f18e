import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melastic.config import ModelConfig
from melastic.errors import InputError
from melastic.frontend.augment import Augmentation
from melastic.patches.view import View
from melastic.presets import list_models
from melastic.recipes import RECIPES, load_recipe
from melastic.serialize import from_json, to_json
from melastic.training.config import OptimConfig, TrainConfig
from tests.models import MODELS


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    recipe = load_recipe(name)
    text = json.dumps(to_json(recipe))
    again = from_json(type(recipe), json.loads(text))
    assert again == recipe
    assert json.dumps(to_json(again)) == text


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_tests_its_model_on_whole_clips(name):
    assert load_recipe(name).view == View()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_configuration_survives_json(name):
    config = MODELS[name]().config
    assert from_json(ModelConfig, json.loads(json.dumps(to_json(config)))) == config


@given(st.integers(0, 50), st.floats(0, 1))
def test_a_whole_number_in_a_float_field_is_the_same_text_as_the_float(gain, share):
    one = Augmentation(gain_db=gain, roll=share)
    other = Augmentation(gain_db=float(gain), roll=share)
    assert json.dumps(to_json(one)) == json.dumps(to_json(other))
    assert json.dumps(to_json(OptimConfig(clip_norm=1))) == json.dumps(to_json(OptimConfig()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("lr"), r"lacks the field 'lr'"),
        (lambda d: d.update(learning_rate=1), r"unknown field in settings: 'learning_rate'"),
        (lambda d: d.update(lr="fast"), r"settings\.lr must be of type float, got 'fast'"),
        (lambda d: d.update(lr=True), r"settings\.lr must be of type float, got True"),
        (lambda d: d.update(epochs=1.5), r"settings\.epochs must be of type int, got 1\.5"),
        (lambda d: d.update(betas=[0.9]), r"settings\.betas must hold 2 values, got 1"),
        (lambda d: d.update(schedule="linear"), r"must be one of 'cosine', 'constant', 'step'"),
        (lambda d: d.update(lr=-1.0), r"optim\.lr must be positive, got -1\.0"),
    ],
)
def test_a_field_that_is_missing_unknown_or_mistyped_is_an_error(change, message):
    data = to_json(OptimConfig())
    change(data)
    with pytest.raises(InputError, match=message):
        from_json(OptimConfig, data, "settings")


def test_every_field_of_every_configuration_has_a_default_or_is_named_in_the_presets():
    required = [f.name for f in dataclasses.fields(TrainConfig) if f.default is dataclasses.MISSING]
    assert required == ["name"]
    assert {"ast-nano", "ast-tiny", "ast-small", "ast-base"} <= set(list_models())
