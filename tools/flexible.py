"""Train and sweep flexible models and the fixed ones that they are held to; write tables, figures.

Usage: ``python tools/flexible.py asc10 asc.csv --select "asc10=1&" --seeds 0 1 2 --jobs 2``

Whatever is measured already (``docs/flexible/asc10/*.csv``) is not measured again, and a run that
was stopped is resumed: the whole can be made in several sittings. The clips and the settings of
training belong to the name: with others it is refused.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiment import DOCS, averaged, begin, carried_out, melastic, splits, text
from families import FAMILIES, Family

from melastic.errors import InputError
from melastic.evaluation.sweep_plot import plot_sweep
from melastic.evaluation.sweep_rows import Row, read_rows
from melastic.patches.dials import size_text
from melastic.training.run_folder import read_run_config

TITLES = {
    "patch": "Patch sizes (mel bins x frames, one number for a square; frame shift of the model)",
    "hop": "Frame shifts (ms; patch size of the model)",
    "pool": "Poolings of the spectrogram in time",
    "seconds": "Lengths (the first seconds of a clip)",
    "keep": "Shares of a clip's tokens",
}
"""What each dial turns; the rest is the model's own."""
OPTIONS = {"hop": "--hop-ms"}
"""How ``melastic sweep`` calls a dial, where it is not by its name."""


def family(arguments: argparse.Namespace) -> Family:
    """The models of an experiment."""
    return FAMILIES[arguments.family]


def measure(name: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one model, unless it is there, and sweep it, unless that is done."""
    kept = folder(arguments)
    models = family(arguments)
    missing = [dial for dial in models.dials if not result(kept, name, dial, seed).exists()]
    if not missing:
        return
    run = runs_of(arguments) / f"{name}-{seed}"
    manifest = str(arguments.manifest)
    settings = ["--data.manifest", manifest, "--run.evaluate-every", "10"]
    settings += lessons(seed, arguments)
    if name in models.models:
        carried_out(run, "train", *models.models[name], *settings, *arguments.settings)
    elif name in models.taught:
        teacher, words = models.taught[name]
        taught = runs_of(arguments) / f"teacher-of-{name}-{seed}"
        carried_out(taught, "train", *teacher, *settings)
        settings += [*arguments.settings, "--distill.teacher", str(taught)]
        carried_out(run, "train", *words, *settings)
    else:
        start, (recipe, *own) = models.started[name]
        measure(start, seed, arguments)
        trained = str(runs_of(arguments) / f"{start}-{seed}")
        carried_out(run, "train", recipe, *settings, *own, "--init", trained)
    for dial in missing:
        out = run / f"sweep-{dial}"
        tested = read_run_config(run).data.test or "all"
        chosen = ["--select", tested, "--out", str(out)]
        option = OPTIONS.get(dial, f"--{dial}")
        melastic("sweep", str(run), manifest, option, *models.dials[dial], *chosen)
        result(kept, name, dial, seed).write_bytes((out / "sweep.csv").read_bytes())


def lessons(seed: int, arguments: argparse.Namespace) -> list[str]:
    """Settings of the clips and the random numbers of a seed, or of the fold that stands for it."""
    rule, column = arguments.select, arguments.folds
    if not column:
        return ["--run.seed", str(seed), *(splits(rule) if rule else ())]
    clips = ("--data.train", f"{rule}{column}!={seed}", "--data.test", f"{rule}{column}={seed}")
    return [*clips, "--data.val", "None"]


def runs_of(arguments: argparse.Namespace) -> Path:
    """Where the runs of an experiment are."""
    return Path(arguments.runs) / str(arguments.name)


def folder(arguments: argparse.Namespace) -> Path:
    """Where the rows of sweeps are kept."""
    return DOCS / "flexible" / str(arguments.name)


def result(kept: Path, name: str, dial: str, seed: int) -> Path:
    """Where the rows of a sweep are kept."""
    return kept / f"{name}-{dial}-{seed}.csv"


def rows_of(kept: Path, name: str, dial: str) -> list[list[Row]]:
    """The rows of each seed's sweep."""
    return [read_rows(path) for path in sorted(kept.glob(f"{name}-{dial}-[0-9]*.csv"))]


def value_of(row: Row, dial: str) -> str:
    """Where a row stands on a dial, in the words of ``Family.dials``."""
    view = row.view
    if dial == "patch":
        return size_text(view.patch or 1)
    if dial == "seconds" and view.seconds is None:
        return "all"
    number = {"hop": view.hop_ms, "seconds": view.seconds, "keep": view.keep}.get(dial)
    return str(view.pooling) if number is None else f"{number:g}"


def scores(kept: Path, name: str, dial: str) -> dict[str, list[float]]:
    """Accuracy (%) of each seed by the value of a dial."""
    found: dict[str, list[float]] = {}
    for rows in rows_of(kept, name, dial):
        for row in rows:
            found.setdefault(value_of(row, dial), []).append(100 * row.accuracy)
    return found


def figure(kept: Path, dial: str, models: Family) -> list[str]:
    """Draw a dial: a model with all dials, if there is one, the others dashed; the line for it."""
    wholes = [rows for name in models.whole if (rows := rows_of(kept, name, dial))]
    if dial not in models.dashed or not wholes:
        return []
    found = {name: rows_of(kept, name, dial) for name in models.dashed[dial]}
    baselines = {name: averaged(rows) for name, rows in found.items() if rows}
    name = f"{kept.name}-{dial}.png"
    plot_sweep(averaged(wholes[-1]), kept.parent / name, own=models.own, baselines=baselines)
    return ["", f"![Accuracy against {dial}]({name})"]


def table(kept: Path, dial: str, models: Family) -> list[str]:
    """A table of accuracy: a row for each model, a column for each value."""
    values = models.dials[dial]
    lines = ["| model | " + " | ".join(values) + " |", "|" + "---|" * (len(values) + 1)]
    for name in models.names:
        found = scores(kept, name, dial)
        cells = [text(found.get(value, [])) for value in values]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def commands(arguments: argparse.Namespace, kept: Path) -> list[str]:
    """The commands that make what is measured: one for all models of as many seeds."""
    seeds_of: dict[tuple[int, ...], list[str]] = {}
    for name in family(arguments).names:
        paths = kept.glob(f"{name}-patch-[0-9]*.csv")
        seeds = tuple(sorted(int(path.stem.rsplit("-", 1)[1]) for path in paths))
        if seeds:
            seeds_of.setdefault(seeds, []).append(name)
    words = f"python tools/flexible.py {arguments.name} {arguments.manifest.name}"
    words += f" --family {arguments.family}" if arguments.family != "squares" else ""
    words += f" --select '{arguments.select}'" if arguments.select else ""
    words += f" --folds {arguments.folds}" if arguments.folds else ""
    settings = " ".join(["", "--settings", *arguments.settings]) if arguments.settings else ""
    return [
        f"{words} --models {' '.join(names)} --seeds {' '.join(map(str, seeds))}{settings}"
        for seeds, names in seeds_of.items()
    ]


def notes(arguments: argparse.Namespace, kept: Path) -> list[str]:
    """What is to be known about the models that start from trained ones, if there are some."""
    started, taught = family(arguments).started, family(arguments).taught
    lines = [
        f"{name} learns half from the scores of `melastic train {' '.join(taught[name][0])}`."
        for name in taught
        if list(kept.glob(f"{name}-patch-[0-9]*.csv"))
    ]
    there = [name for name in started if list(kept.glob(f"{name}-patch-[0-9]*.csv"))]
    if not there:
        return lines
    starts = ", ".join(f"{name} from {started[name][0]}" for name in there)
    epochs = {epochs_of(started[name][1]) for name in there}
    settings = " (--settings are those of the others)" if arguments.settings else ""
    return [
        *lines,
        f"Models whose name ends in -2 start from a trained one ({starts}), are",
        f"trained for {' or '.join(sorted(epochs))} more epochs{settings} and pooled by the mean.",
    ]


def epochs_of(words: tuple[str, ...]) -> str:
    """Epochs among the words that a model is trained with."""
    return words[words.index("--optim.epochs") + 1]


def write(arguments: argparse.Namespace) -> None:
    """Write ``docs/flexible/NAME.md`` and its figures from what is measured."""
    kept = folder(arguments)
    several = "folds" if arguments.folds else "seeds"
    turned = "patch sizes and frame shifts"
    if len(family(arguments).dials) > 2:
        turned = "patch sizes, frame shifts and other dials"
    lines = [
        f"# One model for many {turned}",
        "",
        "```",
        *commands(arguments, kept),
        "```",
        "",
        "Accuracy in per cent on the test clips. Each column is a setting at which all models are",
        "read; fixed models carry the patch size or the frame shift that they were trained at.",
        f"Several {several}: mean, deviation and, in brackets, their number.",
        *notes(arguments, kept),
    ]
    models = family(arguments)
    for dial in models.dials:
        lines += ["", f"## {TITLES[dial]}", ""]
        lines += [*table(kept, dial, models), *figure(kept, dial, models)]
    kept.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the experiment, such as asc10")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--select", default="", help="rule in front of split=…, such as asc10=1&")
    parser.add_argument("--folds", metavar="COLUMN", help="seeds are its folds, each tested once")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--family", default="squares", choices=list(FAMILIES))
    parser.add_argument("--models", nargs="*", help="those that are trained; all unless given")
    parser.add_argument("--runs", type=Path, default=Path("runs/flexible"))
    parser.add_argument("--jobs", type=int, default=1, help="models that are trained at once")
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[], help="of training")
    arguments = parser.parse_args()
    names = family(arguments).names
    wanted = names if arguments.models is None else arguments.models
    if unknown := [name for name in wanted if name not in names]:
        raise SystemExit(f"no model {unknown[0]!r} among {', '.join(names)}")
    try:
        said = {"select": arguments.select, "settings": arguments.settings}
        if arguments.family != "squares":
            said["family"] = arguments.family
        if arguments.folds:
            said["folds"] = arguments.folds
        begin(folder(arguments), said)
    except InputError as error:
        raise SystemExit(str(error)) from None
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(measure, name, seed, arguments)
            for seed in arguments.seeds
            for name in wanted
        ]
        for job in jobs:
            job.result()
    write(arguments)


if __name__ == "__main__":
    main()
