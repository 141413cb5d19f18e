"""Run folders: begin one, recognise one, read one."""

from pathlib import Path
from typing import Any

from melastic.checkpoints.store import read_json, write_json
from melastic.errors import InputError
from melastic.serialize import from_json, to_json
from melastic.training.config import TrainConfig, kind_of
from melastic.training.state import STATE

CONFIG, MODEL = "config.json", "model"
"""Settings of the run, and the folder of its model."""


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that a run cannot begin or continue in.

    Raises:
        InputError: if it holds a run already, or none where one is to be resumed.
    """
    if resume:
        read_run_config(folder)
        return
    if (folder / STATE).exists() or (folder / MODEL).exists():
        raise InputError(
            f"{folder}: holds a run already; continue it with --resume {folder}, or name another "
            "folder with --out"
        )


def begin(config: TrainConfig, folder: Path) -> None:
    """Write the settings to a new run folder."""
    write_json(folder / CONFIG, to_json(config))


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / CONFIG).is_file() and (folder / MODEL).is_dir()


def read_run_config(folder: Path) -> TrainConfig:
    """The settings of a run.

    Raises:
        InputError: if the folder holds no run, or its settings are damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: holds no run (no {CONFIG}); check the folder")
    given = read_json(path)
    return from_json(kind_of(given), given, str(path))


def read_older_config(folder: Path) -> TrainConfig:
    """The settings of a run that need not be resumed.

    A setting that the package did not know when the run was begun is what it is by default.

    Args:
        folder: of the run.

    Raises:
        InputError: if the folder holds no run, or its settings are damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        return read_run_config(folder)
    given = read_json(path)
    kind = kind_of(given)
    return from_json(kind, _completed(given, to_json(kind(name=""))), str(path))


def _completed(given: Any, usual: Any) -> Any:
    """JSON objects with the fields that they lack."""
    if not isinstance(given, dict) or not isinstance(usual, dict):
        return given
    return given | {
        key: _completed(given[key], value) if key in given else value
        for key, value in usual.items()
    }
