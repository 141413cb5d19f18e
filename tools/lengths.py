"""Train on whole recordings and on stretches of one length, test at several lengths.

Usage: ``python tools/lengths.py fsdd-loso fsdd.csv --column loso_fold --folds 1 2 3
--trained 0.2 0.35 all --tested 0.1 0.2 0.35 0.5 all``

The name of the experiment is that of its recipe. Each fold of the manifest's column is tested once,
by models that were trained on the others; the last weights count. Whatever is measured already
(``docs/lengths/fsdd-loso/*.csv``) is not measured again, and a run that was stopped is resumed.
"""

import argparse
from pathlib import Path

from experiment import DOCS, averaged, begin, carried_out, melastic, text

from melastic.errors import InputError
from melastic.evaluation.sweep_plot import plot_sweep
from melastic.evaluation.sweep_rows import Row, read_rows

FOLDER = DOCS / "lengths"
WHOLE = "all"
"""Whole recordings."""


def measure(trained: str, fold: int, arguments: argparse.Namespace) -> None:
    """Train one model, unless it is there, and test it at every length."""
    kept = FOLDER / arguments.recipe / f"{trained}-{fold}.csv"
    if kept.exists():
        return
    run = arguments.runs / arguments.recipe / f"{trained}-{fold}"
    column, manifest = arguments.column, str(arguments.manifest)
    words = ["--data.manifest", manifest, "--data.test", f"{column}={fold}"]
    words += ["--data.train", f"{column}!={fold}", "--data.val", "None", *arguments.settings]
    words += [] if trained == WHOLE else ["--view.seconds", trained]
    carried_out(run, "train", arguments.recipe, *words)
    out = run / "sweep"
    chosen = ["--select", f"{column}={fold}", "--out", str(out)]
    melastic("sweep", str(run), manifest, "--seconds", *arguments.tested, *chosen)
    kept.write_bytes((out / "sweep.csv").read_bytes())


def tested(trained: str, arguments: argparse.Namespace) -> list[list[Row]]:
    """The lengths that a model was tested at, fold by fold."""
    paths = (FOLDER / arguments.recipe).glob(f"{trained}-[0-9]*.csv")
    return [read_rows(path) for path in sorted(paths)]


def write(arguments: argparse.Namespace) -> None:
    """Write ``docs/lengths/RECIPE.md`` and its figure from what is measured."""
    name, lengths = arguments.recipe, arguments.tested
    command = f"python tools/lengths.py {name} {arguments.manifest.name}"
    kept = sorted((FOLDER / name).glob("*-[0-9]*.csv"))
    trained_on, folds = ([path.stem.rsplit("-", 1)[i] for path in kept] for i in (0, 1))
    lessons = sorted(set(trained_on), key=lambda length: (length == WHOLE, length))
    command += f" --column {arguments.column} --folds {' '.join(sorted(set(folds)))}"
    command += f" --trained {' '.join(lessons)} --tested {' '.join(lengths)}"
    command += " ".join(["", "--settings", *arguments.settings]) if arguments.settings else ""
    lines = [
        "# Whole recordings beside stretches of one length",
        "",
        f"`{command}`:",
        "accuracy in per cent on the test clips, by the longest stretch (s) that a model is",
        "trained on (drawn anew in each epoch; shorter recordings stay whole) and tested on (the",
        "first seconds). Several folds: mean, deviation and, in brackets, their number.",
        "",
        "| trained on | " + " | ".join(lengths) + " |",
        "|" + "---|" * (len(lengths) + 1),
    ]
    found = {trained: tested(trained, arguments) for trained in lessons}
    for trained, folds in found.items():
        columns = zip(*folds, strict=True)
        cells = [text([100 * row.accuracy for row in column]) for column in columns]
        lines.append(f"| {trained} | " + " | ".join(cells) + " |")
    if found.get(WHOLE):
        others = {
            f"trained on {trained} s": averaged(folds)
            for trained, folds in found.items()
            if folds and trained != WHOLE
        }
        rows = averaged(found[WHOLE])
        own = next((row.view for row in rows if row.seconds is None), rows[-1].view)
        plot_sweep(rows, FOLDER / f"{name}.png", own=own, baselines=others)
        lines += ["", f"![Accuracy against length]({name}.png)"]
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="such as fsdd-loso")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--column", default="fold", help="of the manifest, that names the folds")
    parser.add_argument("--folds", type=int, nargs="+", default=[1], help="that are tested")
    parser.add_argument("--trained", nargs="+", default=[WHOLE], help="longest stretches (s), all")
    parser.add_argument("--tested", nargs="+", default=[WHOLE], help="longest stretches (s), all")
    parser.add_argument("--runs", type=Path, default=Path("runs/lengths"))
    parser.add_argument("--settings", nargs=argparse.REMAINDER, default=[], help="of training")
    arguments = parser.parse_args()
    said = {name: getattr(arguments, name) for name in ("column", "tested", "settings")}
    try:
        begin(FOLDER / arguments.recipe, said)
    except InputError as error:
        raise SystemExit(str(error)) from None
    for fold in arguments.folds:
        for trained in arguments.trained:
            measure(trained, fold, arguments)
    write(arguments)


if __name__ == "__main__":
    main()
