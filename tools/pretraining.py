"""Pretrain on clips without labels, then train with a tenth of the labels; write the table.

Usage: ``python tools/pretraining.py asc.csv esc50.csv fsdd.csv --seeds 0``

Pretraining hears the training clips of all sets (the recipe ``ssast``), in one phase and from
coarse to fine. Then a model is trained for each set that has a recipe here, with the labels of a
tenth of its training clips, as many of each class, drawn by the seed: from random weights, and from
each pretraining. Every row has equal epochs and keeps the last; no other labels choose anything.
Whatever is measured already (``docs/pretraining/*.json``) is not measured again, and runs that were
stopped are resumed.
"""

import argparse
import csv
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from experiment import DOCS as ALL_DOCS
from experiment import carried_out, melastic, text

from melastic.checkpoints.store import write_json
from melastic.data.manifest import Clip, label_names, read_manifest, select, write_manifest
from melastic.errors import InputError
from melastic.evaluation.plots import INK, LINE, blank_figure, save_figure
from melastic.evaluation.sweep_plot import STYLE
from melastic.randomness import generator
from melastic.recipes import load_recipe
from melastic.training.compare import read_finished
from melastic.training.record import read_metrics

DOCS = ALL_DOCS / "pretraining"
SHARE = 10
"""One of how many training clips is labelled."""
STARTS = {
    "scratch": "",
    "pretrained": "full:30",
    "pretrained-2-phase": "hop2:15 full:15",
    "pretrained-3-phase": "hop4:10 hop2:10 full:10",
    "pretrained-3-phase-late": "hop4:5 hop2:5 full:20",
    "pretrained-3-phase-brief": "hop4:3 hop2:12 full:15",
    "pretrained-3-phase-gentle": "hop2:10 hop1.5:5 full:15",
    "pretrained-2-phase-mean": "mean2:15 full:15",
    "pretrained-2-phase-max": "max2:15 full:15",
    "pretrained-2-phase-patch": "patch2:15 full:15",
    "pretrained-3-phase-mean": "mean3:4 mean2:8 full:18",
    "pretrained-3-phase-max": "max3:4 max2:8 full:18",
    "pretrained-3-phase-patch": "patch3:4 patch2:8 full:18",
}
"""Where training starts: pretraining in such phases, of equal epochs; none: random weights."""
COLOURS = (INK, *LINE)
"""By the number of phases."""
MARKERS = "os^Dvx*"
"""Of the starts that have as many phases, in order."""
RULES = {"asc": "split=train", "esc50": "fold!=1", "fsdd": "split=train"}
"""Training clips of each set."""
EPOCHS = {"asc": 60, "esc50": 170}
"""Sets that a model is trained for, by the recipe of their name, and epochs."""


def titled(start: str, pretraining: int) -> str:
    """What runs and results of a start are called, by the seed of its pretraining."""
    return f"{start}-p{pretraining}" if pretraining else start


def pretrained(start: str, pretraining: int, arguments: argparse.Namespace) -> Path:
    """The run of a pretraining."""
    union = arguments.runs / "union.csv"
    run: Path = arguments.runs / titled(start, pretraining)
    if not union.exists():
        sets = [str(path) for path in arguments.manifests]
        rules = [RULES[path.stem] for path in arguments.manifests]
        melastic("data", "join", *sets, "--select", *rules, "--out", str(union))
    if read_costs(run) is None:
        words = ["--data.manifest", str(union), "--phases", *STARTS[start].split()]
        carried_out(run, "pretrain", "ssast", *words, "--run.seed", str(pretraining))
    return run


def read_costs(run: Path) -> dict[str, float] | None:
    """What a finished run has cost; None: it has not ended."""
    if not (run / "curves.png").exists():
        return None
    end = read_finished(run).course.end
    return {"train_gmacs": end.gmacs, "seconds": end.seconds}


def tenth(manifest: Path, seed: int, arguments: argparse.Namespace) -> Path:
    """A manifest in which the column ``tenth`` marks the training clips whose labels are known."""
    path: Path = arguments.runs / f"{manifest.stem}-tenth-{seed}.csv"
    clips = read_manifest(manifest)
    groups: dict[tuple[str, ...], list[Clip]] = defaultdict(list)
    for clip in select(clips, RULES[manifest.stem]):
        groups[clip.labels].append(clip)
    chosen: set[tuple[Path, float]] = set()
    for labels, members in groups.items():
        order = torch.randperm(len(members), generator=generator(seed, "tenth", *labels))
        count = max(1, round(len(members) / SHARE))
        chosen |= {(members[i].path, members[i].start_s) for i in order[:count].tolist()}
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, clip in zip(rows, clips, strict=True):
        row["file"] = os.path.relpath(clip.path, path.parent)
        row["tenth"] = str(int((clip.path, clip.start_s) in chosen))
    write_manifest(path, rows)
    return path


def measure(
    manifest: Path, start: str, pretraining: int, seed: int, arguments: argparse.Namespace
) -> None:
    """Train for one set from one start, unless that is done, and note what it reached."""
    name, title = manifest.stem, f"{manifest.stem}-{titled(start, pretraining)}-{seed}"
    kept = DOCS / f"{title}.json"
    if kept.exists():
        return
    before = pretrained(start, pretraining, arguments) if STARTS[start] else None
    init = ["--init", str(before)] if before else []
    rule = f"{RULES[name]}&tenth=1"
    words = ["--data.manifest", str(tenth(manifest, seed, arguments)), "--data.train", rule]
    if load_recipe(name).data.val is not None:
        words += ["--data.val", "None"]
    words += ["--run.seed", str(seed), "--optim.epochs", str(EPOCHS[name]), *init]
    run = carried_out(arguments.runs / title, "train", name, *words)
    accuracy = [row["test"]["accuracy"] for row in read_metrics(run) if "test" in row][-1]
    labels = select(read_manifest(words[1]), rule)
    write_json(
        kept,
        {
            "test_accuracy": accuracy,
            "labelled": len(labels),
            "classes": len(label_names(labels)),
            "epochs": EPOCHS[name],
            "pretraining": read_costs(before) if before else None,
        },
    )


def results(name: str, start: str) -> dict[tuple[int, int], dict[str, Any]]:
    """What is measured of a row, by the seeds of its pretraining and of its training."""
    found = {}
    for path in DOCS.glob(f"{name}-{start}-*.json"):
        seeds = re.fullmatch(rf"{name}-{start}(?:-p(\d+))?-(\d+)", path.stem)
        if seeds:
            found[int(seeds[1] or 0), int(seeds[2])] = json.loads(path.read_text())
    return dict(sorted(found.items()))


def margins(name: str, start: str) -> list[float]:
    """Points of accuracy that a start gains over random weights, seed by seed."""
    scratch = results(name, "scratch")
    return [
        100 * (found["test_accuracy"] - scratch[0, seed]["test_accuracy"])
        for (_, seed), found in results(name, start).items()
        if (0, seed) in scratch
    ]


def table(names: list[str]) -> list[str]:
    """A row for each start, a column for each set."""
    heads = []
    for name in names:
        one = next((one for start in STARTS for one in results(name, start).values()), None)
        size = f"{one['labelled']} clips of {one['classes']} classes" if one else ""
        heads.append(f"{name}: {size}")
    columns = ["training starts from", "its phases", *heads, "TMACs of pretraining", "minutes"]
    lines = [f"| {' | '.join(columns)} |"]
    lines.append("|" + "---|" * len(columns))
    for start in STARTS:
        cells, costs = [], None
        for name in names:
            found = results(name, start).values()
            gains = margins(name, start) if start != "scratch" else []
            gain = f", {mean(gains):+.1f}" if gains else ""
            cells.append(text([100 * one["test_accuracy"] for one in found]) + gain)
            costs = next((one["pretraining"] for one in found if one["pretraining"]), costs)
        if any(cells):
            spent = ["", ""]
            if costs:
                spent = [f"{costs['train_gmacs'] / 1000:.1f}", f"{costs['seconds'] / 60:.0f}"]
            lines.append(f"| {start} | {STARTS[start]} | {' | '.join([*cells, *spent])} |")
    return lines


def count(start: str) -> int:
    """Phases of a pretraining."""
    return len(STARTS[start].split())


def plot(names: list[str]) -> None:
    """Draw ``docs/pretraining/tenth.png``: accuracy against what pretraining has cost."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE | {"font.size": 8}):
        figure = blank_figure((9.0, 3.2), dpi=200)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for start in STARTS:
                found = results(name, start).values()
                if not found:
                    continue
                alike = [x for x in STARTS if count(x) == count(start)]
                look = {"color": COLOURS[count(start)], "ls": "none", "mfc": "none"}
                scores = [100 * one["test_accuracy"] for one in found]
                spent = [(one["pretraining"] or {"train_gmacs": 0})["train_gmacs"] for one in found]
                costs = [gmacs / 1000 for gmacs in spent]
                marker = MARKERS[alike.index(start)]
                axes.plot(costs, scores, marker=marker, ms=3, label=start, **look)
                axes.plot(mean(costs), mean(scores), marker="_", ms=14, mew=1.5, **look)
            axes.set_title(f"{name}, a tenth of the labels", fontsize=8)
            axes.set_xlabel("operations of pretraining (TMACs)")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#e8ecf1", lw=0.5)
            axes.margins(x=0.15, y=0.2)
        figure.axes[0].set_ylabel("test accuracy (%)")
        handles, names = figure.axes[0].get_legend_handles_labels()
        beside = {"loc": "outside center right", "handlelength": 1, "fontsize": 7}
        figure.legend(handles, names, frameon=False, **beside)
        save_figure(figure, DOCS / "tenth.png")


def write(arguments: argparse.Namespace) -> None:
    """Write ``docs/pretraining/tenth.md`` and its figure from what is measured."""
    names = [path.stem for path in arguments.manifests if path.stem in EPOCHS]
    sets = " ".join(path.name for path in arguments.manifests)
    epochs = ", ".join(f"{EPOCHS[name]} on {name}" for name in names)
    keys = {key for name in names for start in STARTS for key in results(name, start)}
    pretrainings, seeds = (
        " ".join(map(str, sorted(set(column)))) for column in zip(*keys, strict=True)
    )
    lines = [
        "# Pretraining without labels, then a tenth of the labels",
        "",
        f"`python tools/pretraining.py {sets} --seeds {seeds} --pretrainings {pretrainings}`:",
        "test accuracy in per cent. Pretraining (SSAST, recipe `ssast`) hears the training clips",
        "of all sets; then a model is trained with the labels of a tenth of a set's training",
        f"clips, as many of each class (epochs: {epochs}), from random weights or a pretraining.",
        "Several seeds (which clips are labelled, and training): mean, deviation and, in brackets,",
        "their number, then the mean gain over random weights on the same clips. Six are three of",
        "each of two pretrainings; else there is one of each kind, for each sitting (seed 0 of one",
        "phase and of three equal ones is of an earlier one). Minutes are those of a core that",
        "other trainings may have shared, and rows may be of different machines: they are no",
        "comparison, operations are.",
        "",
        *table(names),
        "",
        "![Test accuracy against operations of pretraining](tenth.png)",
    ]
    plot(names)
    (DOCS / "tenth.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+", help="asc.csv, esc50.csv, fsdd.csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pretrainings", type=int, nargs="+", default=[0], help="their seeds")
    parser.add_argument("--only", nargs="*", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/pretraining"))
    arguments = parser.parse_args()
    try:
        for path in arguments.manifests:
            if path.stem not in RULES:
                known = ", ".join(RULES)
                raise InputError(f"{path}: a set is one of {known}, by the manifest's name")
        DOCS.mkdir(parents=True, exist_ok=True)
        arguments.runs.mkdir(parents=True, exist_ok=True)
        for start in arguments.only:
            for pretraining in arguments.pretrainings if STARTS[start] else [0]:
                for seed in arguments.seeds:
                    for manifest in arguments.manifests:
                        if manifest.stem in EPOCHS:
                            measure(manifest, start, pretraining, seed, arguments)
    except InputError as error:
        raise SystemExit(str(error)) from None
    write(arguments)


if __name__ == "__main__":
    main()
