"""Audio Mamba's ablation on real recordings: directions and places of the class token.

Usage: ``python tools/directions.py asc.csv --epochs 20``

Each model is trained like the others on the ten-word part of Arabic Speech Commands; an AST of the
same width stands beside them. What is measured already (``docs/mamba/directions.csv``) is not
measured again, and a run that was stopped is resumed.
"""

import argparse
import csv
from pathlib import Path

from experiment import DOCS as ALL_DOCS
from experiment import carried_out, splits

from melastic.training.compare import read_finished

DOCS = ALL_DOCS / "mamba"
ROWS = DOCS / "directions.csv"
COLUMNS = ("variant", "class_token", "epochs", "seed", "accuracy")
PLACES = ("first", "middle", "last", "both", "none")
VARIANTS = ("fo-fo", "fo-bi", "bi-bi")
PART = "asc10=1&"
DEPTH = 6
"""Blocks of every model, as many as AST-nano has."""


def measured() -> list[dict[str, str]]:
    """What is known so far."""
    return list(csv.DictReader(ROWS.read_text().splitlines())) if ROWS.exists() else []


def settings_of(variant: str, place: str) -> list[str]:
    """The recipe of one model, and what is changed about it."""
    if variant == "ast":
        return ["asc-ast"]
    settings = ["asc-aum", "--model.variant", variant, "--model.depth", str(DEPTH)]
    if place == "none":
        return [*settings, "--model.pooling", "mean"]
    return [*settings, "--model.class-token", place]


def measure(variant: str, place: str, arguments: argparse.Namespace) -> None:
    """Train one model and note its accuracy on the test clips."""
    run = arguments.runs / f"{variant}-{place}-{arguments.epochs}-{arguments.seed}"
    words = ["--data.manifest", str(arguments.manifest), *splits(PART), "--run.evaluate-every", "5"]
    words += ["--run.seed", str(arguments.seed), "--optim.epochs", str(arguments.epochs)]
    carried_out(run, "train", *settings_of(variant, place), *words)
    accuracy = read_finished(run).test_accuracy
    row = (variant, place, arguments.epochs, arguments.seed, f"{accuracy:.6f}")
    DOCS.mkdir(parents=True, exist_ok=True)
    new = not ROWS.exists()
    with ROWS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)


def table() -> list[str]:
    """Accuracy by direction and place, mean over seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in measured():
        cell = found.setdefault((row["variant"], row["class_token"]), [])
        cell.append(100 * float(row["accuracy"]))
    lines = ["| | " + " | ".join(PLACES) + " |", "|" + "---|" * (len(PLACES) + 1)]
    for variant in VARIANTS:
        cells = [found.get((variant, place), []) for place in PLACES]
        texts = [f"{sum(cell) / len(cell):.1f}" if cell else "" for cell in cells]
        lines.append(f"| {variant} | " + " | ".join(texts) + " |")
    ast = found.get(("ast", "none"), [])
    return [*lines, "", *([f"AST of the same width: {sum(ast) / len(ast):.1f}."] if ast else [])]


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/directions"))
    arguments = parser.parse_args()
    known = {tuple(row[column] for column in COLUMNS[:4]) for row in measured()}
    wanted = [("ast", "none"), *((v, p) for p in PLACES for v in VARIANTS)]
    for variant, place in wanted:
        if (variant, place, str(arguments.epochs), str(arguments.seed)) not in known:
            measure(variant, place, arguments)
    command = f"python tools/directions.py {arguments.manifest.name} --epochs {arguments.epochs}"
    lines = [
        "# Audio Mamba: directions and places of the class token",
        "",
        f"`{command} --seed {arguments.seed}`: accuracy in per cent on the test clips of the ten",
        f"words of Arabic Speech Commands; {DEPTH} blocks of width 128, each model trained alike.",
        "The class token stands in front, in the middle, behind all, one at each end, or there is",
        "none and the mean of all tokens stands for the clip.",
        "",
        *table(),
    ]
    (DOCS / "directions.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
