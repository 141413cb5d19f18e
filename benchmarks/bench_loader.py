"""Clips per second of the loader alone, of the model alone and of both, for the three sets.

Usage: ``python -m benchmarks.bench_loader FOLDER``, with folders esc50, fsdd and asc in it.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.report import write
from melastic.data.loader import Batch, ClipDataset, load_batches
from melastic.data.prepare import prepare
from melastic.devices import cores_shared_with
from melastic.evaluation.metrics import loss_of
from melastic.recipes import load_recipe
from melastic.training.config import TrainConfig
from melastic.training.optim import build_optimizer
from melastic.training.reading import Library, workers_of
from melastic.training.setup import build_model, split_clips
from melastic.training.steps import build_sampler

STEPS = 12
"""Batches of one measurement."""
ROUNDS = 5


class Bench:
    """The parts of a training run, to be timed apart."""

    def __init__(self, config: TrainConfig) -> None:
        splits = split_clips(config)
        features, failed = Library(quiet=True).read(config, splits.train, "training clips")
        self.model = build_model(config, splits, features, failed, quiet=True)
        self.clips = ClipDataset(
            features, splits.labels, self.model.config.frontend, augmentation=config.augment
        )
        sampler = build_sampler(config, splits, self.model, features, failed)
        self.keys = [(0, batch) for batch in sampler.epoch(0)[:STEPS]]
        self.workers = workers_of(config, features)
        self.optimizer = build_optimizer(self.model, config.optim)
        self.count = sum(len(indices) for _, indices in self.keys)
        self.ready = list(self.batches())

    def batches(self) -> Iterable[Batch]:
        return load_batches(self.clips, self.keys, workers=self.workers)

    def load(self) -> None:
        for _ in self.batches():
            pass

    def learn(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            logits = self.model(batch.spectrograms)
            loss_of(logits, batch.targets, binary=False, smoothing=0.1).mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def learn_ready(self) -> None:
        self.learn(self.ready)

    def both(self) -> None:
        with cores_shared_with(self.workers):
            self.learn(self.batches())

    def rate(self, call: Callable[[], None]) -> float:
        started = time.perf_counter()
        call()
        return self.count / (time.perf_counter() - started)


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fsdd", "asc", "esc50"):
            manifest = Path(folder) / f"{name}.csv"
            prepare(name, root / name, manifest)
            recipe = load_recipe(name)
            recipe = replace(recipe, data=replace(recipe.data, manifest=manifest))
            for kept, cache_mb in (("spectrograms kept", 4000), ("files read again", 0)):
                config = replace(recipe, data=replace(recipe.data, cache_mb=cache_mb))
                bench = Bench(config)
                rates: list[list[float]] = []
                for _ in range(ROUNDS):
                    rates.append([
                        bench.rate(bench.load),
                        bench.rate(bench.learn_ready),
                        bench.rate(bench.both),
                    ])  # fmt: skip
                loader, model, both = (median(column) for column in zip(*rates, strict=True))
                share = median(row[2] / row[1] for row in rates)
                rows.append((
                    name, f"{kept}, {bench.workers} workers", f"{loader:,.0f}", f"{model:,.0f}",
                    f"{both:,.0f}", f"{share:.2f}",
                ))  # fmt: skip
    write(
        "loader",
        "Loading beside training",
        ("data", "loader", "loader alone", "model alone", "both", "both / model alone"),
        rows,
        "Clips per second with models and augmentation of the recipes: forward, backward and "
        f"step; medians of {ROUNDS} rounds of {STEPS} batches. Spectrograms that are kept (the "
        "default up to 4 GB) are only augmented, in the thread of the model. Otherwise other "
        "threads decode, resample and compute log-mels on half of the cores, the model gets the "
        "other half; with two cores 1 / both is at best 1 / loader + 1 / model for as many "
        "threads as cores. A GPU, or cores to spare, hides the loader.",
    )


if __name__ == "__main__":
    main()
