"""Pretrain on clips without labels, then train with a tenth of the labels; write the table.

Usage: ``python tools/pretraining.py asc.csv esc50.csv fsdd.csv --epochs 30 --seeds 0``

Pretraining hears the training clips of all sets (the recipe ``ssast``), in one phase and from
coarse to fine. Then a model is trained for each set that has a recipe here, with the labels of a
tenth of its training clips, as many of each class, drawn by the seed: from random weights, and from
each pretraining. Every row has equal epochs and keeps the last; no other labels choose anything.
Whatever is measured already (``docs/pretraining/*.json``) is not measured again, and runs that were
stopped are resumed. The epochs belong to the table: with others it is refused.
"""

import argparse
import csv
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from experiment import DOCS as ALL_DOCS
from experiment import begin, carried_out, melastic, text

from melastic.checkpoints.store import write_json
from melastic.data.manifest import Clip, label_names, read_manifest, select, write_manifest
from melastic.errors import InputError
from melastic.randomness import generator
from melastic.recipes import load_recipe
from melastic.training.compare import read_finished
from melastic.training.record import read_metrics

DOCS = ALL_DOCS / "pretraining"
SHARE = 10
"""One of how many training clips is labelled."""
STARTS: dict[str, tuple[str, ...] | None] = {
    "scratch": None,
    "pretrained": (),
    "pretrained-3-phase": ("--phases", "3-phase"),
}
"""Where training starts: random weights, or pretraining with these settings."""
RULES = {"asc": "split=train", "esc50": "fold!=1", "fsdd": "split=train"}
"""Training clips of each set."""
EPOCHS = {"asc": 60, "esc50": 170}
"""Sets that a model is trained for, by the recipe of their name, and epochs."""


def pretrained(start: str, arguments: argparse.Namespace) -> Path:
    """The run of a pretraining."""
    union = arguments.runs / "union.csv"
    run: Path = arguments.runs / start
    if not union.exists():
        sets = [str(path) for path in arguments.manifests]
        rules = [RULES[path.stem] for path in arguments.manifests]
        melastic("data", "join", *sets, "--select", *rules, "--out", str(union))
    if read_costs(run) is None:
        words = ("--data.manifest", str(union), "--optim.epochs", str(arguments.epochs))
        carried_out(run, "pretrain", "ssast", *words, *(STARTS[start] or ()))
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


def measure(manifest: Path, start: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train for one set from one start, unless that is done, and note what it reached."""
    name = manifest.stem
    kept = DOCS / f"{name}-{start}-{seed}.json"
    if kept.exists():
        return
    init = [] if STARTS[start] is None else ["--init", str(pretrained(start, arguments))]
    rule = f"{RULES[name]}&tenth=1"
    words = ["--data.manifest", str(tenth(manifest, seed, arguments)), "--data.train", rule]
    if load_recipe(name).data.val is not None:
        words += ["--data.val", "None"]
    words += ["--run.seed", str(seed), "--optim.epochs", str(EPOCHS[name]), *init]
    run = carried_out(arguments.runs / f"{name}-{start}-{seed}", "train", name, *words)
    accuracy = [row["test"]["accuracy"] for row in read_metrics(run) if "test" in row][-1]
    before = read_costs(arguments.runs / start) if init else None
    labels = select(read_manifest(words[1]), rule)
    write_json(
        kept,
        {
            "test_accuracy": accuracy,
            "labelled": len(labels),
            "classes": len(label_names(labels)),
            "epochs": EPOCHS[name],
            "pretraining": before,
        },
    )


def results(name: str, start: str) -> list[dict[str, Any]]:
    """What is measured of a row, seed by seed."""
    paths = [
        path for path in DOCS.glob("*.json") if path.stem.rsplit("-", 1)[0] == f"{name}-{start}"
    ]
    return [json.loads(path.read_text()) for path in sorted(paths)]


def table(names: list[str]) -> list[str]:
    """A row for each start, a column for each set."""
    heads = []
    for name in names:
        found = [one for start in STARTS for one in results(name, start)]
        size = f"{found[0]['labelled']} clips of {found[0]['classes']} classes" if found else ""
        heads.append(f"{name}: {size}")
    lines = [f"| training starts from | {' | '.join(heads)} | TMACs of pretraining | minutes |"]
    lines.append("|" + "---|" * (len(names) + 3))
    for start in STARTS:
        cells, costs = [], None
        for name in names:
            found = results(name, start)
            cells.append(text([100 * one["test_accuracy"] for one in found]))
            costs = next((one["pretraining"] for one in found if one["pretraining"]), costs)
        if any(cells):
            spent = ["", ""]
            if costs:
                spent = [f"{costs['train_gmacs'] / 1000:.1f}", f"{costs['seconds'] / 60:.0f}"]
            lines.append(f"| {start} | {' | '.join([*cells, *spent])} |")
    return lines


def write(arguments: argparse.Namespace) -> None:
    """Write ``docs/pretraining/tenth.md`` from what is measured."""
    names = [path.stem for path in arguments.manifests if path.stem in EPOCHS]
    sets = " ".join(path.name for path in arguments.manifests)
    epochs = ", ".join(f"{EPOCHS[name]} on {name}" for name in names)
    seeds = " ".join(map(str, arguments.seeds))
    lines = [
        "# Pretraining without labels, then a tenth of the labels",
        "",
        f"`python tools/pretraining.py {sets} --epochs {arguments.epochs} --seeds {seeds}`:",
        "test accuracy in per cent. Pretraining (SSAST, recipe `ssast`) hears the training clips",
        "of all sets; then a model is trained with the labels of a tenth of a set's training",
        f"clips, as many of each class (epochs: {epochs}), from random weights or a pretraining.",
        "Several seeds (which clips are labelled, and training): mean, deviation and, in brackets,",
        "their number; there is one pretraining of each kind. Minutes are those of a core that",
        "other trainings may have shared, and rows may be of different machines: they are no",
        "comparison, operations are.",
        "",
        *table(names),
    ]
    (DOCS / "tenth.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+", help="asc.csv, esc50.csv, fsdd.csv")
    parser.add_argument("--epochs", type=int, default=30, help="of pretraining")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="*", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/pretraining"))
    arguments = parser.parse_args()
    try:
        for path in arguments.manifests:
            if path.stem not in RULES:
                known = ", ".join(RULES)
                raise InputError(f"{path}: a set is one of {known}, by the manifest's name")
        begin(DOCS, {"epochs": arguments.epochs, **EPOCHS})
        arguments.runs.mkdir(parents=True, exist_ok=True)
        for start in arguments.only:
            for seed in arguments.seeds:
                for manifest in arguments.manifests:
                    if manifest.stem in EPOCHS:
                        measure(manifest, start, seed, arguments)
    except InputError as error:
        raise SystemExit(str(error)) from None
    write(arguments)


if __name__ == "__main__":
    main()
