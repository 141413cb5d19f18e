"""What a run writes down: metrics.jsonl, trackers, and lines for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from melastic.errors import InputError
from melastic.files import replacing
from melastic.progress import note
from melastic.serialize import to_json
from melastic.training.config import TrainConfig

METRICS = "metrics.jsonl"


class Record:
    """Rows of measurements; only the main process writes them."""

    def __init__(self, folder: Path, config: TrainConfig, *, main: bool, after_step: int) -> None:
        """Continue a record.

        Args:
            folder: the run folder.
            config: the run's settings.
            main: whether this process writes.
            after_step: rows of later steps are dropped, since a resumed run makes them again.
        """
        self.path, self.main = folder / METRICS, main
        self.trackers: list[Any] = []
        if not main:
            return
        rows = [row for row in read_metrics(folder) if row["step"] <= after_step]
        with replacing(self.path) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for name in config.run.trackers:
            self.trackers.append(
                _tensorboard(folder, after_step)
                if name == "tensorboard"
                else _wandb(folder, config)
            )

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row; numbers also go to the trackers.

        The scores of the test clips are written once: a run that was stopped behind them makes
        them again.
        """
        if not self.main or ("test" in row and _tested(self.path.parent)):
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {k: v for k, v in _flat(row).items() if isinstance(v, int | float)}
        for tracker in self.trackers:
            tracker(numbers, row["step"])

    def note(self, text: str) -> None:
        """Tell people one line."""
        note(text, quiet=not self.main)

    def __enter__(self) -> "Record":
        """Nothing to open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the trackers."""
        for tracker in self.trackers:
            tracker(None, 0)


def _tested(folder: Path) -> bool:
    """Whether the scores of the test clips are written down."""
    return any("test" in row for row in read_metrics(folder))


def add_once(folder: Path, name: str, value: Any) -> None:
    """Write what a finished run has as a row behind its last, unless it is there.

    Args:
        folder: of the run.
        name: of the entry.
        value: as JSON has it.
    """
    rows = read_metrics(folder)
    if rows and not any(name in row for row in rows):
        row = {"step": rows[-1]["step"], "epoch": rows[-1]["epoch"], name: value}
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics; a last line that was cut short is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def held_out_scores(folder: Path, epoch: int | None) -> dict[str, Any]:
    """What the weights of an epoch reached on the held-out clips, as ``val``; empty if unknown.

    Args:
        folder: of the run.
        epoch: its number, from 1.
    """
    rows = [row for row in read_metrics(folder) if row["epoch"] == epoch and "val" in row]
    return {"val": rows[0]["val"]} if rows else {}


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested rows with slashes between the names."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= (
            _flat(value, f"{prefix}{key}/")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def check_trackers(config: TrainConfig) -> None:
    """Refuse a run whose trackers are not installed.

    Raises:
        InputError: naming the first.
    """
    for name in config.run.trackers:
        _needed(name)


def _needed(name: str) -> ModuleType:
    """An optional package."""
    import importlib

    try:
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError:
        raise InputError(
            f"run.trackers names {name}, which is not installed; install 'melastic[{name}]'"
        ) from None


def _tensorboard(folder: Path, after_step: int) -> Any:
    """Write numbers for TensorBoard; those of later steps are made again."""
    place = str(folder / "tensorboard")
    writer = _needed("tensorboard").SummaryWriter(place, purge_step=after_step + 1)

    def write(numbers: Mapping[str, float] | None, step: int) -> None:
        if numbers is None:
            writer.close()
            return
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return write


def _wandb(folder: Path, config: TrainConfig) -> Any:
    """Send numbers to Weights & Biases."""
    wandb = _needed("wandb")
    run = wandb.init(
        project="melastic",
        name=folder.name,
        dir=str(folder),
        config=to_json(config),
        resume="allow",
    )

    def write(numbers: Mapping[str, float] | None, step: int) -> None:
        if numbers is None:
            run.finish()
            return
        run.log(dict(numbers), step=step)

    return write
