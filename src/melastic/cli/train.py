"""``melastic train`` and ``melastic pretrain``."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from melastic.architecture import without_effect
from melastic.cli.parse import parse
from melastic.errors import InputError
from melastic.presets import architecture_of
from melastic.progress import note
from melastic.recipes import load_recipe
from melastic.training.coarse_to_fine import train as run_training
from melastic.training.config import PretrainConfig, TrainConfig
from melastic.training.run_folder import read_run_config
from melastic.training.settings import pretraining_of

USAGE = "RECIPE|config.json [--out RUN] [--init MODEL] [--section.field value …]"


class _Parser(argparse.ArgumentParser):
    """What cannot be read is one line, as everywhere."""

    def error(self, message: str) -> NoReturn:
        """Say it.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message}; see '{self.prog} --help'")


def train(arguments: Sequence[str], prog: str) -> int:
    """Train from a recipe or a config.json, or continue a run."""
    return _run(arguments, prog, "Train a classifier.", TrainConfig)


def pretrain(arguments: Sequence[str], prog: str) -> int:
    """Train an encoder on clips without labels, or continue such a run."""
    text = "Train an encoder to predict hidden patches of clips without labels (SSAST)."
    return _run(arguments, prog, text, PretrainConfig)


def _run(arguments: Sequence[str], prog: str, text: str, kind: type[TrainConfig]) -> int:
    """Read the command line, and carry a run out.

    Args:
        arguments: behind the verb.
        prog: what messages call the command.
        text: what it does.
        kind: of run.
    """
    first = arguments[0] if arguments else ""
    if first.startswith("--") and "." in first:
        raise InputError(f"the recipe comes first: {prog} RECIPE {first} …")
    parser = _Parser(
        prog=prog,
        usage=f"{prog} {USAGE}\n       {prog} --resume RUN",
        description=f"{text} '{prog} RECIPE --help' lists every setting.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", nargs="?", help="name of a recipe, or a config.json")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    parser.add_argument("--init", help="trained or pretrained model to start from (model.init)")
    parser.add_argument("--resume", type=Path, help="run folder to continue")
    known, rest = parser.parse_known_args(arguments)
    if known.resume is not None:
        settings = [word for word in rest if word not in ("-h", "--help")]
        given = [known.recipe or "", *settings, *(["--out"] if known.out else [])]
        given += ["--init"] if known.init else []
        if any(given):
            raise InputError(
                "a run is resumed with the settings that it was started with, got "
                f"{' '.join(filter(None, given))}; leave them out, or start another run"
            )
        config = read_run_config(known.resume)
        _check_kind(config, kind, f"--resume {known.resume}")
        run_training(config, known.resume, resume=True)
        return 0
    if known.recipe is None or known.recipe.startswith("-"):
        parser.print_help()
        if "-h" in rest or "--help" in rest:
            return 0
        raise InputError("name a recipe ('melastic recipes' lists them) or a config.json")
    if known.init is not None:
        rest = [*rest, "--model.init", known.init]
    config = read_settings(known.recipe, rest, f"{prog} {known.recipe}", kind)
    run_training(config, known.out or Path("runs") / config.name)
    return 0


def _check_kind(config: TrainConfig, kind: type[TrainConfig], words: str) -> None:
    """Refuse a run of the other kind."""
    if isinstance(config, PretrainConfig) != (kind is PretrainConfig):
        verb = "pretrain" if kind is TrainConfig else "train"
        raise InputError(f"{config.name}: is for the other command; melastic {verb} {words}")


def read_settings(
    recipe: str, arguments: Sequence[str], prog: str, kind: type[TrainConfig] = TrainConfig
) -> TrainConfig:
    """A recipe as a command line changes it; any recipe can be pretrained with.

    Args:
        recipe: its name, or a config.json.
        arguments: settings such as ``--optim.epochs 15``.
        prog: what messages call the command.
        kind: of run.

    Raises:
        InputError: if there is no such recipe or setting, or the recipe is for pretraining only.
    """
    base = _with_preset(recipe, arguments)
    if kind is TrainConfig:
        _check_kind(base, kind, recipe)
        config = parse(TrainConfig, arguments, prog, default=base)
    else:
        config = parse(PretrainConfig, arguments, prog, default=pretraining_of(base))
    for name in without_effect(config.model.architecture, base.model.architecture):
        option = name.replace("_", "-")
        note(f"--model.{option} changes nothing in this {config.model.preset}; leave it out")
    for name, reason in _idle(config, base):
        note(f"--{name} changes nothing, {reason}; leave it out")
    return config


def _idle(config: TrainConfig, base: TrainConfig) -> Iterator[tuple[str, str]]:
    """Settings that were changed and have no effect beside the others, and why."""
    optim, schedules = config.optim, {config.optim.schedule, *(p.schedule for p in config.phases)}
    if optim.milestones and "step" not in schedules:
        yield "optim.milestones", "optim.schedule is not step"
    if optim.schedule == "step" and not optim.milestones:
        yield "optim.schedule step", "there are no optim.milestones"
    if config.distill.temperature != 1 and not config.distill.weight:
        yield "distill.temperature", "distill.weight is 0"
    if config.passing != base.passing and not config.phases:
        yield "passing", "there are no phases"
    numbered = config.phases and not any(p.epochs in ("equal", "auto") for p in config.phases)
    if numbered and optim.epochs != base.optim.epochs:
        yield "optim.epochs", "each phase has a number of its own"


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
