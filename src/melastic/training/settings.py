"""Settings made from others, and settings as JSON."""

import dataclasses
import math
from dataclasses import replace
from typing import Any

from melastic.presets import architecture_of
from melastic.serialize import from_json, to_json
from melastic.training.config import Distillation, PretrainConfig, TrainConfig
from melastic.training.phases import Phase, phases_in


def pretraining_of(config: TrainConfig) -> PretrainConfig:
    """A recipe on clips whose labels nobody asks for; the best epoch has the lowest loss.

    Args:
        config: a recipe for clips with labels, or for pretraining already.
    """
    if isinstance(config, PretrainConfig):
        return config
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    fields |= {
        "data": replace(config.data, test=None, balanced=False),
        "view": replace(config.view, keep=1.0, patch=None),
        "draws": replace(config.draws, keep=None, patches=()),
        "distill": Distillation(),
        "run": replace(config.run, choose_by="loss"),
    }
    return PretrainConfig(**{**fields, "name": f"{config.name}-pretrained"})


def in_epochs(config: TrainConfig, per_epoch: int) -> TrainConfig:
    """Settings whose epochs are as many as their steps need, where they have steps.

    Args:
        config: of a run.
        per_epoch: steps of an epoch.
    """
    steps = config.optim.steps
    if steps is None:
        return config
    return replace(config, optim=replace(config.optim, epochs=math.ceil(steps / per_epoch)))


def config_from(given: Any, where: str) -> TrainConfig:
    """Settings as JSON has them, of pretraining if they say what is hidden.

    A setting that the package did not know when they were written is what it is by default, those
    of phases too; sizes that do not name an encoder, as those of a run do, are the preset's but for
    what they say. Phases may be the words of the command line.

    Args:
        given: parsed JSON.
        where: what messages call it.

    Raises:
        InputError: if they are no settings, or some cannot be.
    """
    pretraining = isinstance(given, dict) and "masking" in given
    kind = PretrainConfig if pretraining else TrainConfig
    usual = to_json(kind(name=""))
    model = given.get("model") if isinstance(given, dict) else None
    if isinstance(model, dict) and isinstance(preset := model.get("preset"), str):
        sizes = model.get("architecture", {})
        if isinstance(sizes, dict) and "encoder" not in sizes:
            usual["model"]["architecture"] = to_json(architecture_of(preset))
    completed = _completed(given, usual)
    if isinstance(completed, dict) and isinstance(phases := completed.get("phases"), list):
        completed["phases"] = [each for phase in phases for each in _phases(phase)]
    return from_json(kind, completed, where)


def told(config: TrainConfig) -> Any:
    """The settings that are not what they are by default, as JSON has them.

    Args:
        config: all settings.
    """
    return _less(to_json(config), to_json(type(config)(name="")))


def _phases(given: Any) -> list[Any]:
    """Phases as JSON has them, of a word for some or of an object that may lack fields."""
    if isinstance(given, str):
        return [to_json(phase) for phase in phases_in(given)]
    return [_completed(given, to_json(Phase()))]


def _completed(given: Any, usual: Any) -> Any:
    """JSON objects with the fields that they lack; a name they must have."""
    if not isinstance(given, dict) or not isinstance(usual, dict):
        return given
    return given | {
        key: _completed(given[key], value) if key in given else value
        for key, value in usual.items()
        if key != "name" or key in given
    }


def _less(given: Any, usual: Any) -> Any:
    """JSON objects without the fields that are as usual."""
    if not isinstance(given, dict) or not isinstance(usual, dict):
        return given
    return {
        key: _less(value, usual.get(key))
        for key, value in given.items()
        if key not in usual or value != usual[key]
    }
