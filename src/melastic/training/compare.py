"""Finished runs side by side: what they reached, what it cost, and what that saves."""

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melastic.errors import InputError
from melastic.evaluation.course_plot import Course
from melastic.files import replacing
from melastic.training.coarse_to_fine import phases_of
from melastic.training.config import TrainConfig
from melastic.training.course import course_of, epochs_in
from melastic.training.phases import phase_text
from melastic.training.record import read_metrics
from melastic.training.run_folder import CURVES, read_run_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A finished run, held to another."""

    run: str
    """Its name."""
    phases: str
    """As on the command line; empty: one phase."""
    epochs: int
    """Of all phases."""
    held_out_accuracy: float | None
    """Best of the last phase; None: no clips were held out."""
    test_accuracy: float | None
    """None: no clips to test on."""
    train_gmacs: float
    """Multiply-adds of training (10^9)."""
    seconds: float
    """Time of training, without evaluation (s)."""
    saved_gmacs: float
    """Share of the other's operations that this one did without."""
    saved_s: float
    """Share of the other's seconds that this one did without."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run as it was recorded; its course has no points where no clips were held out."""

    config: TrainConfig
    course: Course
    test_accuracy: float | None


def read_finished(folder: Path) -> Finished:
    """A run that has ended.

    Args:
        folder: of the run.

    Raises:
        InputError: if there is none, it has not ended, or it has neither held-out nor test clips.
    """
    config = read_run_config(folder)
    phases = []
    for settings, own in phases_of(config, folder):
        if not (own / CURVES).exists():
            where = "" if own == folder else f" in {own.name}"
            raise InputError(
                f"{folder}: a run is compared when it has ended, this one is to train "
                f"{settings.optim.length_text()}{where} and has {epochs_in(own)} behind it; "
                f"melastic train --resume {folder}"
            )
        phases.append((settings, own))
    course = course_of(phases)
    if not course.end.epoch:
        raise InputError(
            f"{folder}: runs are compared by their ledgers, this one has none (it was trained by "
            "an earlier version); train it again"
        )
    tests = [row["test"]["accuracy"] for row in read_metrics(folder) if "test" in row]
    if not course.points and not tests:
        raise InputError(
            f"{folder}: runs are compared on held-out or test clips, it has neither; train with "
            "--data.val-share 0.1"
        )
    return Finished(config, course, tests[-1] if tests else None)


def compare(runs: dict[str, Finished]) -> list[Compared]:
    """What each run reached and cost; savings are those against the first.

    Args:
        runs: by their names, one or more.
    """
    first = next(iter(runs.values())).course.end
    rows = []
    for name, run in runs.items():
        end, switches = run.course.end, run.course.switches
        begun = switches[-1].epoch if switches else 0
        held = [p.accuracy for p in run.course.points if p.epoch > begun and p.accuracy is not None]
        rows.append(
            Compared(
                run=name,
                phases=" ".join(map(phase_text, run.config.phases)),
                epochs=end.epoch,
                held_out_accuracy=max(held, default=None),
                test_accuracy=run.test_accuracy,
                train_gmacs=end.gmacs,
                seconds=end.seconds,
                saved_gmacs=1 - end.gmacs / first.gmacs,
                saved_s=1 - end.seconds / first.seconds,
            )
        )
    return rows


def drawn_course(run: Finished) -> Course:
    """The course of a run, which ends at its test clips where it has no others.

    Args:
        run: that has ended.
    """
    if run.course.points:
        return run.course
    return replace(run.course, points=(run.course.end._replace(accuracy=run.test_accuracy),))


def write_compared(rows: Sequence[Compared], path: Path) -> None:
    """Write rows as CSV.

    Args:
        rows: of :func:`compare`.
        path: the file.
    """
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Compared)])
        for row in rows:
            writer.writerow(_cell(value) for value in dataclasses.astuple(row))


def other_clips(runs: dict[str, Finished]) -> list[str]:
    """Names of the runs whose clips are chosen otherwise than those of the first.

    Args:
        runs: by their names, one or more.
    """

    def clips(run: Finished) -> tuple[Any, ...]:
        data = run.config.data
        seed = run.config.run.seed if data.split_seed is None else data.split_seed
        held_out = (data.val_share, seed) if data.val_share else None
        return data.manifest, data.train, data.val, held_out, data.test

    first = clips(next(iter(runs.values())))
    return [name for name, run in runs.items() if clips(run) != first]


def _cell(value: Any) -> Any:
    """A number that is read back as it is, nothing as nothing."""
    return repr(value) if isinstance(value, float) else value
