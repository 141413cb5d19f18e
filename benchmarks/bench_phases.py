"""Seconds that training from coarse to fine saves beside the operations, epochs of all in turn.

Usage: ``python -m benchmarks.bench_phases FOLDER``, with folders asc and esc50 in it.
"""

import csv
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median

from accelerate import Accelerator

from benchmarks.report import in_turn, write
from melastic.data.manifest import write_manifest
from melastic.data.prepare import prepare
from melastic.recipes import load_recipe
from melastic.training.coarse_to_fine import phase_config
from melastic.training.config import TrainConfig
from melastic.training.loop import Trainer
from melastic.training.phases import OPERATORS, Phase, phase_text, phases_in

RECIPES = {
    "asc": ("asc", 12, 15),
    "asc-aum-columns": ("asc", 12, 15),
    "asc-htsat": ("asc", 12, 20),
    "esc50": ("esc50", 6, 120),
}
"""Its data set, every how many clips of it are heard, and the epochs that a run has."""
PRESETS = [f"{count}-{operator}" for operator, count in product(OPERATORS, ("2-phase", "3-phase"))]
FULL = phase_text(Phase())
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Lesson:
    """An epoch at one time resolution, which can be carried out again and again."""

    trainer: Trainer
    begun_s: float
    """Seconds until it could begin: those of reading its clips."""

    def learn(self) -> None:
        progress = self.trainer.progress
        progress.step = progress.step_in_epoch = 0
        self.trainer.learn_epoch()

    def gmacs(self) -> float:
        self.learn()
        return float(self.trainer.objective.ledger.close(self.trainer.accelerator)["train_gmacs"])


def lesson_of(config: TrainConfig, folder: Path) -> Lesson:
    started = time.perf_counter()
    trainer = Trainer(config, folder, Accelerator(cpu=True))
    trainer.main = False  # draws no bar
    return Lesson(trainer, time.perf_counter() - started)


def subset(name: str, root: Path, every: int, out: Path) -> None:
    """The manifest of every so many clips of a data set."""
    prepare(name, root / name, out, trim_silence=name == "esc50")
    with out.open(encoding="utf-8", newline="") as file:
        write_manifest(out, list(csv.DictReader(file))[::every])


def measure(recipe: str, manifest: Path, epochs: int, folder: Path) -> list[tuple[str, ...]]:
    """A row for each preset of phases."""
    base = load_recipe(recipe)
    data = replace(base.data, manifest=manifest, train="all", val=None, test=None, val_share=0)
    run = replace(base.run, save_every_s=1e9)
    base = replace(base, data=data, run=run, optim=replace(base.optim, epochs=epochs))
    lengths: dict[str, dict[str, int]] = {}
    lessons = {FULL: lesson_of(base, folder / "full")}
    for preset in PRESETS:
        config = replace(base, phases=phases_in(preset))
        lengths[preset] = {}
        for number, phase in enumerate(config.phases):
            own = phase_config(config, number, list(lengths[preset].values()))
            view = phase_text(replace(phase, epochs="equal"))
            lengths[preset][view] = own.optim.epochs
            if view not in lessons:
                lessons[view] = lesson_of(own, folder / f"{preset}-{number}")
    gmacs = {view: lesson.gmacs() for view, lesson in lessons.items()}
    seconds = in_turn({view: lesson.learn for view, lesson in lessons.items()}, ROUNDS)
    rounds = [dict(zip(seconds, turn, strict=True)) for turn in zip(*seconds.values(), strict=True)]

    def saved(preset: str, cost: dict[str, float]) -> float:
        spent = sum(count * cost[view] for view, count in lengths[preset].items())
        return 100 * (1 - spent / (epochs * cost[FULL]))

    rows: list[tuple[str, ...]] = []
    for preset in PRESETS:
        operations, time_s = saved(preset, gmacs), median(saved(preset, turn) for turn in rounds)
        read = sum(lessons[view].begun_s for view in lengths[preset]) - lessons[FULL].begun_s
        share = 100 * read / (epochs * median(seconds[FULL]))
        rows.append((
            recipe, preset, f"{operations:.1f}", f"{time_s:.1f}", f"{time_s / operations:.2f}",
            f"{share:.1f}",
        ))  # fmt: skip
    return rows


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe, (name, every, epochs) in RECIPES.items():
            manifest = Path(folder) / f"{name}.csv"
            subset(name, root, every, manifest)
            rows += measure(recipe, manifest, epochs, Path(folder) / recipe)
    write(
        "phases",
        "What phases save",
        (
            "recipe", "phases", "operations saved (%)", "seconds saved (%)",
            "seconds / operations", "reading again (%)",
        ),
        rows,
        "Savings against a single phase of as many epochs, which are those of the recipes in "
        "docs/coarse. Seconds are those of the steps of an epoch at each resolution on a part of "
        f"the clips, {ROUNDS} of each in turn, medians of the savings of a turn. The last column "
        "is what reading all clips once more for each phase before the last takes of the seconds "
        "of a single phase, and is not taken off; with longer trainings it is less.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
