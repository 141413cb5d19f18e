"""Run folders: begin one, recognise one, read one."""

import re
from pathlib import Path

from melastic.checkpoints.store import WEIGHTS, read_json, write_json
from melastic.errors import InputError
from melastic.serialize import to_json
from melastic.training.config import TrainConfig
from melastic.training.settings import config_from
from melastic.training.state import STATE

CONFIG, MODEL = "config.json", "model"
"""Settings of the run, and the folder of its model."""
CURVES = "curves.png"
"""What a run draws when all else is done: its presence says that it has ended."""
PHASE = "phase-{}"
"""Folder of a phase that is not the last."""


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that a run cannot begin or continue in.

    Raises:
        InputError: if it holds a run already, or none where one is to be resumed, or a phase.
    """
    if resume:
        read_run_config(folder)
        _check_whole(folder)
        return
    if (folder / WEIGHTS).exists():
        raise InputError(f"{folder}: holds a model; name another folder with --out")
    begun = [folder, *folder.glob(PHASE.format("*"))]
    if any((place / made).exists() for place in begun for made in (STATE, MODEL, CONFIG)):
        raise InputError(
            f"{folder}: holds a run already; continue it with --resume {folder}, or name another "
            "folder with --out"
        )


def _check_whole(folder: Path) -> None:
    """Refuse the folder of a phase, which the run that it is part of continues."""
    whole = folder.absolute().parent
    number = re.fullmatch(PHASE.format(r"(\d+)"), folder.absolute().name)
    if (
        number
        and (whole / CONFIG).is_file()
        and len(read_run_config(whole).phases) >= int(number[1])
    ):
        raise InputError(
            f"{folder}: a phase is continued by its run, this is phase {number[1]} of "
            f"{folder.parent}; use --resume {folder.parent}"
        )


def begin(config: TrainConfig, folder: Path) -> None:
    """Write the settings to a new run folder."""
    write_json(folder / CONFIG, to_json(config))


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / CONFIG).is_file() and (folder / MODEL).is_dir()


def read_run_config(folder: Path) -> TrainConfig:
    """The settings of a run; those that the package did not know then are as they are by default.

    Raises:
        InputError: if the folder holds no run, or its settings are damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: holds no run (no {CONFIG}); check the folder")
    return config_from(read_json(path), str(path))
