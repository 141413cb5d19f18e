"""``melastic compare``."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from melastic.cli.parse import parse, print_json, print_table
from melastic.errors import InputError
from melastic.evaluation.course_plot import plot_courses
from melastic.progress import note
from melastic.training.compare import (
    Compared,
    Finished,
    drawn_course,
    other_clips,
    read_finished,
    write_compared,
)
from melastic.training.compare import compare as compare_runs
from melastic.training.ledger import macs_text

TABLE, FIGURE = "compare.csv", "compare.png"


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Hold finished runs to the first one: accuracy, operations of training, seconds."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders; savings are against the first."""
    out: Path
    """Folder of compare.csv and compare.png."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def compare(arguments: Sequence[str], prog: str) -> int:
    """Hold finished runs to the first one."""
    args = parse(CompareArguments, arguments, prog)
    if not args.runs:
        raise InputError("name the folders of one run or more; melastic compare runs/a runs/b")
    runs: dict[str, Finished] = {}
    for path in args.runs:
        name = path.resolve().name
        if path.resolve() in [known.resolve() for known in args.runs[: len(runs)]]:
            raise InputError(
                f"{path}: a run is compared with others, it is named twice; name it once"
            )
        runs[name if name not in runs else str(path)] = read_finished(path)
    rows = compare_runs(runs)
    write_compared(rows, args.out / TABLE)
    courses = {name: drawn_course(run) for name, run in runs.items()}
    held_out = all(run.course.points for run in runs.values())
    of = "held-out accuracy" if held_out else "accuracy, held out or tested"
    plot_courses(courses, args.out / FIGURE, of=of)
    for name in other_clips(runs):
        note(f"{name}: its clips are chosen otherwise than those of {rows[0].run}")
    if args.json:
        print_json([dataclasses.asdict(row) for row in rows])
    else:
        _print_rows(rows)
    note(f"{args.out / TABLE} and {args.out / FIGURE}")
    return 0


def _print_rows(rows: Sequence[Compared]) -> None:
    """The table for people."""
    print_table(
        ["run", "phases", "epochs", "held out", "test", "operations", "saved", "seconds", "saved"],
        [
            [
                row.run,
                row.phases or "one",
                row.epochs,
                _percent(row.held_out_accuracy),
                _percent(row.test_accuracy),
                macs_text(row.train_gmacs),
                f"{100 * row.saved_gmacs:.1f} %" if number else "",
                f"{row.seconds:.1f}",
                f"{100 * row.saved_s:.1f} %" if number else "",
            ]
            for number, row in enumerate(rows)
        ],
    )


def _percent(accuracy: float | None) -> str:
    """An accuracy for people."""
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"
