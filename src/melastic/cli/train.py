"""``melastic train``."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from melastic.cli.parse import parse
from melastic.errors import InputError
from melastic.presets import architecture_of
from melastic.recipes import load_recipe
from melastic.training.coarse_to_fine import train as run_training
from melastic.training.config import TrainConfig
from melastic.training.run_folder import read_run_config

USAGE = "melastic train RECIPE|config.json [--out RUN] [--section.field value …]"


def train(arguments: Sequence[str], prog: str) -> int:
    """Train from a recipe or a config.json, or continue a run."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{USAGE}\n       melastic train --resume RUN",
        description="Train a classifier. 'melastic train RECIPE --help' lists every setting.",
        add_help=False,
    )
    parser.add_argument("recipe", nargs="?", help="name of a recipe, or a config.json")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    parser.add_argument("--resume", type=Path, help="run folder to continue")
    known, rest = parser.parse_known_args(arguments)
    if known.resume is not None:
        settings = [word for word in rest if word not in ("-h", "--help")]
        if settings or known.out:
            raise InputError(
                "a run is resumed with the settings that it was started with, got "
                f"{' '.join(settings) or '--out'}; leave them out, or start another run"
            )
        run_training(read_run_config(known.resume), known.resume, resume=True)
        return 0
    if known.recipe is None or known.recipe.startswith("-"):
        parser.print_help()
        if "-h" in rest or "--help" in rest:
            return 0
        raise InputError("name a recipe ('melastic recipes' lists them) or a config.json")
    config = read_settings(known.recipe, rest, f"{prog} {known.recipe}")
    run_training(config, known.out or Path("runs") / config.name)
    return 0


def read_settings(recipe: str, arguments: Sequence[str], prog: str) -> TrainConfig:
    """A recipe as a command line changes it.

    Args:
        recipe: its name, or a config.json.
        arguments: settings such as ``--optim.epochs 15``.
        prog: what messages call the command.

    Raises:
        InputError: if there is no such recipe or setting.
    """
    return parse(TrainConfig, arguments, prog, default=_with_preset(recipe, arguments))


def _with_preset(recipe: str, arguments: Sequence[str]) -> TrainConfig:
    """A recipe; another preset brings all of its own sizes."""
    config = load_recipe(recipe)
    for here, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = here.partition("=")
        if name == "--model.preset":
            preset = value if equals else following
            model = replace(config.model, preset=preset, architecture=architecture_of(preset))
            return replace(config, model=model)
    return config
