"""Train and sweep flexible models and the fixed ones that they are held to; write tables, figures.

Usage: ``python tools/flexible.py asc10 asc.csv --select "asc10=1&" --seeds 0 1 2 --jobs 2``

Whatever is measured already (``docs/flexible/asc10/*.csv``) is not measured again, and a run that
was stopped is resumed: the whole can be made in several sittings. The clips and the settings of
training belong to the name: with others it is refused.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from melastic.evaluation.sweep_plot import plot_sweep
from melastic.evaluation.sweep_rows import Row, read_rows
from melastic.patches.view import View

DOCS = Path(__file__).parent.parent / "docs"
PATCHES = ("8", "10", "12", "16", "20", "24", "30", "32", "40", "48")
HOPS = ("10", "12", "16", "20", "24", "30", "36", "40")
OWN_AST = "ast-16"
"""The fixed model at the flexible ones' own patch size and frame shift."""
MODELS: dict[str, Sequence[str]] = {
    "ast-8": ("asc-ast", "--model.patch", "8"),
    OWN_AST: ("asc-ast",),
    "ast-32": ("asc-ast", "--model.patch", "32"),
    "ast-20ms": ("asc-ast", "--model.hop-ms", "20"),
    "ast-30ms": ("asc-ast", "--model.hop-ms", "30"),
    "ast-40ms": ("asc-ast", "--model.hop-ms", "40"),
    "flexiast": ("asc-flexiast",),
    "elasticast": ("asc-elasticast",),
    "melastic": (
        *("asc-melastic", "--model.pooling", "attention"),
        *("--optim.epochs", "80", "--draws.ramp-epochs", "20"),
    ),
}
"""What is trained, as ``melastic train`` takes it."""
LONGER = ("--optim.epochs", "40", "--draws.ramp-epochs", "10")
STARTED: dict[str, tuple[str, Sequence[str]]] = {
    "flexiast-2": (OWN_AST, ("asc-flexiast", *LONGER)),
    "elasticast-2": (OWN_AST, ("asc-elasticast", "--model.pooling", "mean", *LONGER)),
    "melastic-2": ("flexiast", ("asc-melastic", *LONGER)),
}
"""The same from trained models, 40 further epochs: which model, and what is trained."""
ALL = (*MODELS, *STARTED)
FIXED = tuple(name for name in MODELS if name.startswith("ast-"))
SWEEPS = {"patch": ("--patch", *PATCHES), "hop": ("--hop-ms", *HOPS)}
OWN = View(patch=16, hop_ms=10.0)
"""How the flexible models and ``OWN_AST`` see a clip unless told otherwise."""


def melastic(*words: str) -> None:
    """Run one command on one core."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    subprocess.run([sys.executable, "-m", "melastic", *words], check=True, env=environment)


def measure(name: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one model, unless it is there, and sweep it, unless that is done."""
    kept = folder(arguments)
    missing = [dial for dial in SWEEPS if not result(kept, name, dial, seed).exists()]
    if not missing:
        return
    run = arguments.runs / f"{name}-{seed}"
    manifest, rule = str(arguments.manifest), arguments.select
    if (run / "state").is_dir() and not (run / "ledger.png").exists():
        melastic("train", "--resume", str(run))
    elif not (run / "state").is_dir():
        splits = [
            word
            for split in ("train", "val", "test")
            for word in (f"--data.{split}", f"{rule}split={split}")
        ]
        settings = ["--data.manifest", manifest, *splits, "--run.seed", str(seed)]
        settings += ["--run.evaluate-every", "10", "--out", str(run)]
        if name in MODELS:
            melastic("train", *MODELS[name], *settings, *arguments.settings)
        else:
            start, (recipe, *own) = STARTED[name]
            trained = arguments.runs / f"{start}-{seed}"
            measure(start, seed, arguments)
            melastic("train", recipe, *settings, *own, "--init", str(trained))
    for dial in missing:
        out = run / f"sweep-{dial}"
        chosen = ["--select", f"{rule}split=test", "--out", str(out)]
        melastic("sweep", str(run), manifest, *SWEEPS[dial], *chosen)
        result(kept, name, dial, seed).write_bytes((out / "sweep.csv").read_bytes())


def folder(arguments: argparse.Namespace) -> Path:
    """Where the rows of sweeps are kept."""
    return DOCS / "flexible" / str(arguments.name)


def begin(arguments: argparse.Namespace) -> None:
    """Note which clips and settings a name stands for, or refuse others.

    Raises:
        SystemExit: if the name stands for others.
    """
    said = json.dumps({"select": arguments.select, "settings": arguments.settings}) + "\n"
    path = folder(arguments) / "settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text() != said:
        raise SystemExit(f"{path} says {path.read_text().strip()}, now {said.strip()}; rename")
    path.write_text(said)


def result(kept: Path, name: str, dial: str, seed: int) -> Path:
    """Where the rows of a sweep are kept."""
    return kept / f"{name}-{dial}-{seed}.csv"


def rows_of(kept: Path, name: str, dial: str) -> list[list[Row]]:
    """The rows of each seed's sweep."""
    return [read_rows(path) for path in sorted(kept.glob(f"{name}-{dial}-[0-9]*.csv"))]


def scores(kept: Path, name: str, dial: str, column: str) -> dict[str, list[float]]:
    """Accuracy (%) of each seed by the value of a dial."""
    found: dict[str, list[float]] = {}
    for rows in rows_of(kept, name, dial):
        for row in rows:
            found.setdefault(f"{getattr(row, column):g}", []).append(100 * row.accuracy)
    return found


def averaged(seeds: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows whose accuracy is the mean over seeds."""
    return [
        replace(rows[0], accuracy=mean(row.accuracy for row in rows))
        for rows in zip(*seeds, strict=True)
    ]


def draw(kept: Path, dial: str) -> None:
    """Draw one dial: a model with all dials, if there is one, and the other models dashed."""
    others = [OWN_AST, "ast-32"] if dial == "patch" else [OWN_AST, "ast-20ms", "ast-40ms"]
    others += ["flexiast", "flexiast-2"] if dial == "patch" else ["elasticast", "elasticast-2"]
    found = {name: rows_of(kept, name, dial) for name in ("melastic", "melastic-2", *others)}
    baselines = {name: averaged(found[name]) for name in others if found[name]}
    whole = found["melastic-2"] or found["melastic"]
    if whole:
        path = kept.parent / f"{kept.name}-{dial}.png"
        plot_sweep(averaged(whole), path, own=OWN, baselines=baselines)


def figure(kept: Path, dial: str, title: str) -> list[str]:
    """The line that shows the figure of a dial, if there is one to draw."""
    draw(kept, dial)
    name = f"{kept.name}-{dial}.png"
    return ["", f"![{title}]({name})"] if (kept.parent / name).exists() else []


def table(kept: Path, dial: str, column: str, values: Sequence[str]) -> list[str]:
    """A table of accuracy: a row for each model, a column for each value."""
    lines = ["| model | " + " | ".join(values) + " |", "|" + "---|" * (len(values) + 1)]
    for name in ALL:
        found = scores(kept, name, dial, column)
        cells = [text(found.get(value, [])) for value in values]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def text(values: Sequence[float]) -> str:
    """Mean, and deviation and number of seeds where there are several."""
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f} ({len(values)})" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def commands(arguments: argparse.Namespace, kept: Path) -> list[str]:
    """The commands that make what is measured: one for all models of as many seeds."""
    seeds_of: dict[tuple[int, ...], list[str]] = {}
    for name in ALL:
        paths = kept.glob(f"{name}-patch-[0-9]*.csv")
        seeds = tuple(sorted(int(path.stem.rsplit("-", 1)[1]) for path in paths))
        if seeds:
            seeds_of.setdefault(seeds, []).append(name)
    words = f"python tools/flexible.py {arguments.name} {arguments.manifest.name}"
    words += f" --select '{arguments.select}'" if arguments.select else ""
    settings = " ".join(["", "--settings", *arguments.settings]) if arguments.settings else ""
    return [
        f"{words} --models {' '.join(names)} --seeds {' '.join(map(str, seeds))}{settings}"
        for seeds, names in seeds_of.items()
    ]


def notes(arguments: argparse.Namespace, kept: Path) -> list[str]:
    """What is to be known about the models that start from trained ones, if there are some."""
    there = [name for name in STARTED if list(kept.glob(f"{name}-patch-[0-9]*.csv"))]
    if not there:
        return []
    starts = ", ".join(f"{name} from {STARTED[name][0]}" for name in there)
    settings = " (--settings are those of the others)" if arguments.settings else ""
    return [
        f"Models whose name ends in -2 start from a trained one ({starts}), are",
        f"trained for 40 more epochs{settings} and pooled by the mean.",
    ]


def write(arguments: argparse.Namespace) -> None:
    """Write ``docs/flexible/NAME.md`` and its figures from what is measured."""
    kept = folder(arguments)
    lines = [
        "# One model for many patch sizes and frame shifts",
        "",
        "```",
        *commands(arguments, kept),
        "```",
        "",
        "Accuracy in per cent on the test clips. Each column is a setting at which all models are",
        "read; fixed models carry the patch size or the frame shift that they were trained at.",
        "Several seeds: mean, deviation and, in brackets, their number.",
        *notes(arguments, kept),
        "",
        "## Patch sizes (square; frame shift of the model)",
        "",
        *table(kept, "patch", "patch_freq", PATCHES),
        *figure(kept, "patch", "Accuracy against patch size"),
        "",
        "## Frame shifts (ms; patch size of the model)",
        "",
        *table(kept, "hop", "hop_ms", HOPS),
        *figure(kept, "hop", "Accuracy against frame shift"),
    ]
    kept.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the experiment, such as asc10")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--select", default="", help="rule in front of split=…, such as asc10=1&")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", default=list(ALL), choices=list(ALL))
    parser.add_argument("--runs", type=Path, default=Path("runs/flexible"))
    parser.add_argument("--jobs", type=int, default=1, help="models that are trained at once")
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[], help="of training")
    arguments = parser.parse_args()
    begin(arguments)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(measure, name, seed, arguments)
            for seed in arguments.seeds
            for name in arguments.models
        ]
        for job in jobs:
            job.result()
    write(arguments)


if __name__ == "__main__":
    main()
