"""Train in phases, from coarse to fine, beside a single phase and controls; write tables, figures.

Usage: ``python tools/coarse.py asc15 asc.csv --recipe asc --epochs 15 --seeds 0 1 2``

Every row trains equally many epochs. Whatever is measured already (``docs/coarse/asc15/*.json``) is
not measured again, and a run that was stopped is resumed: the whole can be made in several
sittings. A run that was trained by hand is taken in with ``--take RUN ROW SEED``, if its settings
are those that the row would be trained with. The settings belong to the name: with others it is
refused.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from experiment import DOCS, begin, carried_out, melastic, splits, text

from melastic.checkpoints.store import write_json
from melastic.cli.train import read_settings
from melastic.devices import machine
from melastic.errors import InputError
from melastic.evaluation.course_plot import Course, Point, plot_courses
from melastic.training.coarse_to_fine import phases_of
from melastic.training.compare import drawn_course, read_finished
from melastic.training.config import TrainConfig
from melastic.training.phases import OPERATORS

SINGLE = "single"
"""What the others are held to."""
BUSY = "beside other work"
"""Is put behind the machine of a run by hand, where something else ran too."""
ROWS: dict[str, tuple[str, ...]] = {
    SINGLE: (),
    **{
        f"{count}-{operator}": ("--phases", f"{count}-{operator}")
        for operator in OPERATORS
        for count in ("2-phase", "3-phase")
    },
    "gradual-hop": ("--phases", "gradual"),
    "auto-hop": ("--phases", "3-phase:auto"),
}
"""Phases, as ``melastic train`` takes them."""
CONTROLS: dict[str, tuple[str, ...]] = {
    "new-positions": ("--phases", "3-phase", "--passing.positions", "new"),
    "carried-on": (
        *("--phases", "3-phase", "--passing.schedule", "continued"),
        *("--passing.optimizer", "carried"),
    ),
    **{
        f"{batch}-{name}": (
            *("--phases", "3-phase", "--passing.batch", batch),
            *("--passing.schedule", schedule, "--passing.warmup", "each"),
        )
        for batch in ("clips", "tokens")
        for name, schedule in (("held", "held"), ("falling", "anew"))
    },
    **{
        f"{name}whole-warm-up": ("--phases", phases, "--passing.warmup", "each")
        for name, phases in (("", "3-phase"), ("2-phase-", "2-phase"), ("patch-", "3-phase-patch"))
    },
    "fine-to-coarse": ("--phases", "full", "hop2", "hop4"),
    "coarse-only": ("--phases", "hop4"),
}
"""What the usual way of passing from phase to phase, and its order, are held to."""
ALL = ROWS | CONTROLS


def settings_of(row: str, seed: int, arguments: argparse.Namespace) -> list[str]:
    """What a row is trained with, behind the name of the recipe."""
    rule = arguments.select
    words = ["--data.manifest", str(arguments.manifest), "--run.seed", str(seed)]
    words += ["--optim.epochs", str(arguments.epochs), "--run.evaluate-every", "1"]
    return [*words, *(splits(rule) if rule else ()), *arguments.settings, *ALL[row]]


def measure(row: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one row, unless that is done, and note what it reached and cost."""
    if result(folder(arguments), row, seed).exists():
        return
    run = arguments.runs / arguments.name / f"{row}-{seed}"
    carried_out(run, "train", arguments.recipe, *settings_of(row, seed, arguments))
    keep(run, row, seed, arguments)


def take(run: Path, row: str, seed: int, arguments: argparse.Namespace) -> None:
    """Take in a run that was trained by hand.

    Raises:
        InputError: if there is no such row, or the run has other settings or has not ended.
    """
    if row not in ALL:
        raise InputError(f"--take names a row, got {row!r}; there are {', '.join(ALL)}")
    words = settings_of(row, seed, arguments)
    wanted = read_settings(arguments.recipe, words, "coarse.py")
    given = read_finished(run).config
    other = [
        f"{name} is {was}, not {would}"
        for (one, _), (two, _) in zip(
            phases_of(decisive(given), run), phases_of(decisive(wanted), run), strict=False
        )
        for name, (was, would) in differences(asdict(one), asdict(two))
    ]
    if len(given.phases) != len(wanted.phases):
        other.insert(0, f"it has {len(given.phases)} phases, not {len(wanted.phases)}")
    if other:
        raise InputError(f"{run}: not a run of {row} with seed {seed}: {other[0]}; train it again")
    keep(run, row, seed, arguments)


def decisive(config: TrainConfig) -> TrainConfig:
    """Settings without those that change no weights."""
    usual, run, data = TrainConfig(name=""), config.run, config.data
    return replace(
        config,
        run=replace(run, trackers=(), save_every_s=usual.run.save_every_s, cpu=usual.run.cpu),
        data=replace(data, manifest=None, workers=None, cache_mb=usual.data.cache_mb),
    )


def differences(
    one: dict[str, Any], other: dict[str, Any], where: str = ""
) -> Iterable[tuple[str, tuple[Any, Any]]]:
    """Fields in which two nested dictionaries differ, with both values."""
    for name, value in one.items():
        if isinstance(value, dict) and isinstance(other[name], dict):
            yield from differences(value, other[name], f"{where}{name}.")
        elif value != other[name]:
            yield f"{where}{name}", (value, other[name])


def keep(run: Path, row: str, seed: int, arguments: argparse.Namespace) -> None:
    """Note what a run reached and cost."""
    finished = read_finished(run)
    if finished.test_accuracy is None:
        raise InputError(f"{run}: rows are compared on test clips, it has none; give data.test")
    phases = [settings for settings, _ in phases_of(finished.config, run)]
    full = None
    if phases[-1].model.architecture != finished.config.model.architecture:
        hop = f"{finished.config.model.architecture.hop_ms:g}"
        words = ["--hop-ms", hop, "--select", finished.config.data.test or "all", "--json"]
        said = json.loads(melastic("evaluate", str(run), str(arguments.manifest), *words))
        full = said["accuracy"]
    course = drawn_course(finished)
    ends = [0, *(int(switch.epoch) for switch in course.switches), int(course.end.epoch)]
    write_json(
        result(folder(arguments), row, seed),
        {
            "test_accuracy": finished.test_accuracy,
            "test_accuracy_full": full,
            "epochs": [end - begin for begin, end in pairwise(ends)],
            "train_gmacs": course.end.gmacs,
            "seconds": course.end.seconds,
            "machine": machine(),
            "course": asdict(course),
            "held_out": bool(finished.course.points),
        },
    )


def folder(arguments: argparse.Namespace) -> Path:
    """Where results are kept."""
    return DOCS / "coarse" / str(arguments.name)


def result(kept: Path, row: str, seed: int) -> Path:
    """Where the result of a run is kept."""
    return kept / f"{row}-{seed}.json"


def results(kept: Path, row: str) -> dict[int, dict[str, Any]]:
    """Results of a row by seed."""
    paths = kept.glob(f"{row}-[0-9]*.json")
    found = {int(path.stem.rsplit("-", 1)[1]): json.loads(path.read_text()) for path in paths}
    return dict(sorted(found.items()))


def course_of(found: dict[str, Any]) -> Course:
    """The course of a kept result."""
    course = found["course"]
    points, switches = ([Point(*p) for p in course[name]] for name in ("points", "switches"))
    return Course(tuple(points), tuple(switches), Point(*course["end"]))


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the seconds of two runs can be compared: both had the same machine to themselves."""
    machine = str(one.get("machine"))
    return machine == str(other.get("machine")) and BUSY not in machine


def savings(
    found: dict[int, dict[str, Any]], single: dict[int, dict[str, Any]], seeds: list[int], what: str
) -> list[float]:
    """What runs save of a cost of the single phase of their seeds (%)."""
    return [100 * (1 - found[seed][what] / single[seed][what]) for seed in seeds]


def table(kept: Path, rows: Iterable[str]) -> list[str]:
    """A table with a row for each way of training; those not measured are left out."""
    single = results(kept, SINGLE)
    lines = [
        "| | epochs | test accuracy (%) | difference | read at full resolution (%) "
        "| operations saved (%) | seconds saved (%) | seconds / operations |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        found = results(kept, row)
        if not found:
            continue
        scores = [100 * one["test_accuracy"] for one in found.values()]
        fulls = [one["test_accuracy_full"] for one in found.values()]
        fulls = [100 * score for score in fulls if score is not None]
        lengths = zip(*(one["epochs"] for one in found.values()), strict=True)
        epochs = " + ".join(f"{mean(length):g}" for length in lengths)
        cells = [row, epochs, text(scores, 2), "", text(fulls, 2), "", "", ""]
        shared = [seed for seed in found if seed in single]
        if row != SINGLE and shared:
            gain = [
                100 * (found[seed]["test_accuracy"] - single[seed]["test_accuracy"])
                for seed in shared
            ]
            timed = [seed for seed in shared if alike(found[seed], single[seed])]
            operations = savings(found, single, shared, "train_gmacs")
            seconds = savings(found, single, timed, "seconds")
            cells[3], cells[5] = f"{mean(gain):+.2f}", text(operations, 1)
            if timed:
                cells[6] = text(seconds, 1)
                cells[7] = f"{mean(seconds) / mean(operations):.2f}" if any(operations) else ""
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def controls(kept: Path) -> list[str]:
    """The section of controls, if some are measured."""
    if not any(results(kept, row) for row in CONTROLS):
        return []
    return [
        "",
        "## Controls",
        "",
        "All shorten time by longer hops, in three phases, unless their name says otherwise. A",
        "model whose last phase is coarse is tested at that resolution, and once more read at full",
        "resolution.",
        "",
        *table(kept, [SINGLE, "3-phase-hop", *CONTROLS]),
    ]


def write(arguments: argparse.Namespace) -> None:
    """Write ``docs/coarse/NAME.md`` and its figures from what is measured."""
    kept = folder(arguments)
    seeds = sorted({seed for row in ALL for seed in results(kept, row)})
    command = f"python tools/coarse.py {arguments.name} {arguments.manifest.name}"
    command += f" --recipe {arguments.recipe} --epochs {arguments.epochs}"
    command += f" --select '{arguments.select}'" if arguments.select else ""
    settings = " ".join(["", "--settings", *arguments.settings]) if arguments.settings else ""
    figures = []
    for suffix, title, rows in (
        ("", "Phases", (SINGLE, "2-phase-hop", *(f"3-phase-{name}" for name in OPERATORS))),
        ("-controls", "Controls", (SINGLE, "3-phase-hop", *CONTROLS)),
    ):
        firsts = {row: next(iter(results(kept, row).values()), None) for row in rows}
        courses = {row: course_of(found) for row, found in firsts.items() if found}
        if len(courses) > 1 and (not suffix or set(courses) & set(CONTROLS)):
            name = f"{kept.name}{suffix}.png"
            held_out = all(found.get("held_out", True) for found in firsts.values() if found)
            of = "held-out accuracy" if held_out else "test accuracy"
            single = firsts[SINGLE] or {}
            timed = [row for row in courses if alike(single, firsts[row] or {})]
            if len(timed) < 2:
                timed = []
            plot_courses(courses, kept.parent / name, of=of, timed=timed)
            figures += ["", f"![{title}: {of} against cost]({name})"]
    lines = [
        "# From coarse to fine",
        "",
        f"`{command} --seeds {' '.join(map(str, seeds))}{settings}`:",
        "every row trains as many epochs. Accuracy on the test clips; several seeds: mean,",
        "deviation and, in brackets, their number. Differences and savings are against the single",
        "phase of the same seeds; operations are multiply-adds of forward and backward passes from",
        "the geometry, seconds those of training without evaluation, held to those of the same",
        "machine, beside no other work; figures leave the others out. In these (first seed) a",
        "hollow mark is where a phase ends.",
        "",
        "## Phases",
        "",
        *table(kept, ROWS),
        *controls(kept),
        *figures,
    ]
    kept.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the experiment, such as asc15")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--recipe", default="asc")
    parser.add_argument("--epochs", type=int, default=15, help="of each run, over all phases")
    parser.add_argument("--select", default="", help="rule in front of split=…, such as asc10=1&")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    only = "rows that are trained, where they are missing; none: tables of what is there"
    parser.add_argument("--only", nargs="*", default=list(ALL), choices=list(ALL), help=only)
    triple = ("RUN", "ROW", "SEED")
    parser.add_argument("--take", nargs=3, action="append", default=[], metavar=triple)
    parser.add_argument("--runs", type=Path, default=Path("runs/coarse"))
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[], help="of training")
    arguments = parser.parse_args()
    try:
        names = ("recipe", "epochs", "select", "settings")
        begin(folder(arguments), {name: getattr(arguments, name) for name in names})
        for run, row, seed in arguments.take:
            take(Path(run), row, int(seed), arguments)
        for seed in arguments.seeds:
            for row in arguments.only:
                measure(row, seed, arguments)
    except InputError as error:
        raise SystemExit(str(error)) from None
    write(arguments)


if __name__ == "__main__":
    main()
