"""Training recipes: functions that return a complete configuration."""

import fnmatch
import inspect
from collections.abc import Callable
from pathlib import Path

from melastic.checkpoints.store import read_json
from melastic.errors import unknown_name
from melastic.recipes import esc50, flexible, fsdd, keywords, mamba, sounds, ssast, windows
from melastic.training.config import TrainConfig
from melastic.training.settings import config_from

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "sounds": sounds.sounds,
    "fsdd": fsdd.fsdd,
    "fsdd-loso": fsdd.fsdd_loso,
    "ssast": ssast.ssast,
    "asc": keywords.asc,
    "asc-ast": flexible.asc_ast,
    "asc-flexiast": flexible.asc_flexiast,
    "asc-elasticast": flexible.asc_elasticast,
    "asc-melastic": flexible.asc_melastic,
    "asc-melastic-columns": flexible.asc_melastic_columns,
    "asc-melastic-aum": mamba.asc_melastic_aum,
    "asc-aum": mamba.asc_aum,
    "asc-aum-columns": mamba.asc_aum_columns,
    "asc-htsat": windows.asc_htsat,
    "fsdd-loso-melastic": flexible.fsdd_loso_melastic,
    "fsdd-aum": mamba.fsdd_aum,
    "esc50": esc50.esc50,
    "esc50-aum": mamba.esc50_aum,
    "esc50-melastic": flexible.esc50_melastic,
    "esc10": esc50.esc10,
}
"""Every recipe by its name."""


def recipe_names(pattern: str = "*") -> list[str]:
    """Names of recipes.

    Args:
        pattern: shell-style, such as ``"esc*"``.
    """
    return [name for name in RECIPES if fnmatch.fnmatch(name, pattern)]


def summary(name: str) -> str:
    """The first line of a recipe's description."""
    return (inspect.getdoc(RECIPES[name]) or "").splitlines()[0]


def load_recipe(name_or_path: str) -> TrainConfig:
    """A recipe by its name, or settings from a JSON file.

    Raises:
        InputError: if there is no such recipe or file, or the file is not a configuration.
    """
    if name_or_path in RECIPES:
        return RECIPES[name_or_path]()
    path = Path(name_or_path)
    if path.suffix == ".json" or path.exists():
        return config_from(read_json(path), str(path))
    raise unknown_name("recipe", name_or_path, RECIPES)
