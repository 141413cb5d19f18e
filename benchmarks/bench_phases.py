"""Seconds that training from coarse to fine saves beside the operations, epochs of all in turn.

Usage: ``python -m benchmarks.bench_phases FOLDER``, with folders asc, esc50, fsdd in it; the word
``reading`` behind it measures only how long clips are read.
"""

import csv
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

from accelerate import Accelerator

from benchmarks.report import in_turn, need_kernels, write
from melastic.data.join import joined
from melastic.data.manifest import Clip, write_manifest
from melastic.data.prepare import prepare
from melastic.recipes import load_recipe
from melastic.training.coarse_to_fine import phase_config
from melastic.training.config import TrainConfig
from melastic.training.loop import Trainer
from melastic.training.phases import OPERATORS, Phase, phase_text, phases_in
from melastic.training.reading import Library
from melastic.training.setup import split_clips

RECIPES = {
    "asc": (["asc"], 12, 15),
    "asc-aum-columns": (["asc"], 12, 15),
    "asc-htsat": (["asc"], 12, 20),
    "esc50": (["esc50"], 6, 120),
    "ssast": (["asc", "esc50", "fsdd"], 36, 30),
}
"""Its data sets, every how many clips of them are heard, and the epochs that a run has."""
PRESETS = [f"{count}-{operator}" for operator, count in product(OPERATORS, ("2-phase", "3-phase"))]
FULL = phase_text(Phase())
ROUNDS = 5
READ_FOR = ("asc", "esc50")
READ = ("3-phase-hop", "3-phase-mean", "3-phase-patch")
"""Recipes and phases that reading is timed for."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """An epoch at one time resolution, which can be carried out again and again."""

    trainer: Trainer

    def learn(self) -> None:
        progress = self.trainer.progress
        progress.step = progress.step_in_epoch = 0
        self.trainer.learn_epoch()

    def gmacs(self) -> float:
        self.learn()
        return float(self.trainer.objective.ledger.close(self.trainer.accelerator)["train_gmacs"])


def lesson_of(config: TrainConfig, folder: Path) -> Lesson:
    trainer = Trainer(config, folder, Accelerator(cpu=True))
    trainer.main = False  # draws no bar
    return Lesson(trainer)


def subset(names: list[str], root: Path, every: int, out: Path) -> None:
    """The manifest of every so many clips of some data sets."""
    whole = [out.with_stem(f"whole-{name}") for name in names]
    for name, path in zip(names, whole, strict=True):
        prepare(name, root / name, path, trim_silence=name == "esc50")
    joined(whole, ["all"] * len(whole), out)
    with out.open(encoding="utf-8", newline="") as file:
        write_manifest(out, list(csv.DictReader(file))[::every])


def single_phase(recipe: str, manifest: Path, epochs: int) -> TrainConfig:
    base = load_recipe(recipe)
    data = replace(base.data, manifest=manifest, train="all", val=None, test=None, val_share=0)
    run = replace(base.run, save_every_s=1e9)
    return replace(base, data=data, run=run, optim=replace(base.optim, epochs=epochs))


def read_phases(config: TrainConfig, clips: list[Clip], *, together: bool) -> None:
    """Read what the phases of a run see, keeping what they have in common or nothing."""
    library = Library(config.phases, quiet=True)
    for number in range(max(1, len(config.phases))):
        own = phase_config(config, number, [1] * number) if config.phases else config
        library = library if together else Library(quiet=True)
        library.turn_to(number if together else 0)
        library.read(own, clips, "clips")


def measure_reading(recipe: str, base: TrainConfig) -> list[tuple[str, ...]]:
    """A row for each operator."""
    clips = split_clips(base).train[::4]
    found = {preset: replace(base, phases=phases_in(preset)) for preset in READ}
    calls = {"once": partial(read_phases, base, clips, together=True)}
    for preset, config in found.items():
        calls[preset] = partial(read_phases, config, clips, together=True)
        calls[f"{preset} anew"] = partial(read_phases, config, clips, together=False)
    seconds = in_turn(calls, ROUNDS)
    once = median(seconds["once"])
    return [
        (
            recipe, preset, f"{1000 * once / len(clips):.2f}",
            f"{median(seconds[preset]) / once:.2f}",
            f"{median(seconds[f'{preset} anew']) / once:.2f}",
        )
        for preset in READ
    ]  # fmt: skip


def measure(recipe: str, base: TrainConfig, folder: Path) -> list[tuple[str, ...]]:
    """A row for each preset of phases."""
    epochs = base.optim.epochs
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
        rows.append((
            recipe, preset, f"{operations:.1f}", f"{time_s:.1f}", f"{time_s / operations:.2f}",
        ))  # fmt: skip
    return rows


def main() -> None:
    need_kernels()
    folders = [word for word in sys.argv[1:] if word != "reading"]
    root = Path(folders[0] if folders else "../shared/data")
    reading: list[tuple[str, ...]] = []
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe, (names, every, epochs) in RECIPES.items():
            manifest = Path(folder) / f"{recipe}.csv"
            subset(names, root, every, manifest)
            base = single_phase(recipe, manifest, epochs)
            if recipe in READ_FOR:
                reading += measure_reading(recipe, base)
            if "reading" not in sys.argv:
                rows += measure(recipe, base, Path(folder) / recipe)
    write(
        "phases",
        "Reading clips for several phases",
        ("recipe", "phases", "one phase (ms a clip)", "all / one", "read anew / one"),
        reading,
        "Decoding and log-mels of a part of the clips on all cores. Phases keep samples beside "
        "spectrograms while a later one needs them, and spectrograms where the next sees the same; "
        f"anew: each phase by itself. Medians of {ROUNDS} rounds.",
        part="reading",
    )
    if rows:
        write(
            "phases",
            "What phases save",
            (
                "recipe",
                "phases",
                "operations saved (%)",
                "seconds saved (%)",
                "seconds / operations",
            ),
            rows,
            "Savings against a single phase of as many epochs, which are those of the recipes in "
            "docs/coarse. Seconds are those of the steps of an epoch at each resolution on a part "
            f"of the clips, {ROUNDS} of each in turn, medians of the savings of a turn; reading "
            "clips for the phases: phases-reading.md.",
        )  # fmt: skip


if __name__ == "__main__":
    main()
