"""Train in one phase, or from coarse to fine in several.

A phase is a run of its own, in a folder of its own, that starts from the weights of the phase
before: positions and kernel are fitted to its resolution, the optimiser and the learning rate begin
anew. What single runs can do, resuming included, phases can too.

Source: From Coarse to Fine (multi-phase training of audio spectrogram transformers): low time
    resolution first, by longer hops, pooling or wider patches; full resolution last.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from melastic.checkpoints.store import write_json
from melastic.classifier import Classifier
from melastic.devices import cores_shared_with
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import Pooling, View, plain_size
from melastic.progress import note
from melastic.randomness import generator, integer
from melastic.training.config import ModelChoice, TrainConfig
from melastic.training.loop import Trainer
from melastic.training.phases import Phase
from melastic.training.record import read_metrics
from melastic.training.run_folder import begin, check_folder
from melastic.training.setup import workers_for
from melastic.training.state import STATE

PHASE = "phase-{}"
"""Folder of a phase that is not the last."""
LEDGER = "ledger.json"
"""What a run in phases has cost: each phase, and all."""


def train(config: TrainConfig, folder: Path, *, resume: bool = False) -> Classifier:
    """Train a classifier and leave a run folder behind.

    The folder holds ``config.json``, ``metrics.jsonl``, ``model/`` (best on the held-out clips, or
    last), ``state/`` (all that a resumed run needs) and plots. On a CPU a run that was stopped, at
    whatever moment, and resumed ends with the same weights as one that was not.

    Args:
        config: all settings.
        folder: the run folder.
        resume: continue the run in this folder.

    Raises:
        InputError: if settings, clips or the folder cannot be used.
        DivergedError: if the loss is not finite; names the step and the clips.
    """
    accelerator = Accelerator(cpu=config.run.cpu, mixed_precision=config.run.precision)
    if accelerator.is_main_process:
        check_folder(folder, resume=resume)
    accelerator.wait_for_everyone()
    begun, before = resume, None
    for settings, own in phases_of(config, folder):
        if own == folder or not is_finished(own, settings.optim.epochs):
            trainer = Trainer(settings, own, accelerator, before=before)
            if accelerator.is_main_process and not begun:
                begin(config, folder)
            if accelerator.is_main_process and own != folder and not (own / STATE).exists():
                begin(settings, own)
            begun = True
            with cores_shared_with(workers_for(settings, trainer.clips.features)):
                model = trainer.run()
            accelerator.free_memory()
        before = own
    if config.phases and accelerator.is_main_process:
        summary = summary_of(phases_of(config, folder))
        write_json(folder / LEDGER, summary)
        note(
            f"training took {summary['train_gmacs']:,.0f} GMACs, "
            f"{100 * summary['saved_gmacs']:.0f} % fewer than as many epochs at full resolution"
        )
    return model


def summary_of(phases: Sequence[tuple[TrainConfig, Path]]) -> dict[str, Any]:
    """What each phase of a finished run has cost, and what all have.

    Args:
        phases: settings and folder of each.
    """
    rows, epochs = [], 0
    for settings, own in phases:
        found = [row for row in read_metrics(own) if "train_gmacs" in row]
        sums = {
            name: sum(row[name] for row in found)
            for name in ("clips", "tokens", "train_gmacs", "data_s", "compute_s")
        }
        held = [row["val"]["accuracy"] for row in found if "val" in row]
        architecture = settings.model.architecture
        rows.append(
            {
                "folder": own.name,
                "epochs": len(found),
                "hop_ms": architecture.hop_ms,
                "pooling": str(settings.view.pooling),
                "patch": list(freq_time(architecture.patch)),
                **sums,
                "elapsed_s": found[-1]["elapsed_s"],
                "peak_mb": max(row["peak_mb"] for row in found),
                "held_out_accuracy": max(held, default=None),
            }
        )
        epochs += len(found)
    total = {
        name: sum(row[name] for row in rows)
        for name in ("epochs", "clips", "tokens", "train_gmacs", "data_s", "compute_s", "elapsed_s")
    }
    last = rows[-1]
    full = {name: last[name] / last["epochs"] * epochs for name in ("train_gmacs", "elapsed_s")}
    return {
        "phases": rows,
        **total,
        "peak_mb": max(row["peak_mb"] for row in rows),
        "saved_gmacs": 1 - total["train_gmacs"] / full["train_gmacs"],
        "saved_s": 1 - total["elapsed_s"] / full["elapsed_s"],
    }


def phase_config(config: TrainConfig, number: int) -> TrainConfig:
    """The settings of one phase as a run of its own.

    Args:
        config: the whole run's.
        number: of the phase, from 0.
    """
    phase, last = config.phases[number], number == len(config.phases) - 1
    given: dict[str, Any] = {
        name: value
        for name in ("epochs", "lr", "schedule", "warmup_steps", "batch_tokens")
        if (value := getattr(phase, name)) is not None
    }
    if config.passing.schedule == "continued":
        ends = [0, *accumulate(phase.epochs for phase in config.phases)]
        given["span"] = (ends[number] / ends[-1], ends[number + 1] / ends[-1])
    seed = integer(2**31, generator(config.run.seed, "phase", number)) if number else None
    return replace(
        config,
        phases=(),
        model=_coarser(config.model, phase),
        view=_view(config, phase),
        data=config.data if last else replace(config.data, test=None),
        optim=replace(config.optim, **given),
        run=config.run if seed is None else replace(config.run, seed=seed),
    )


def phases_of(config: TrainConfig, folder: Path) -> list[tuple[TrainConfig, Path]]:
    """Settings and folder of each phase; a run without phases is its own only one.

    Args:
        config: the whole run's.
        folder: the run folder, in which the last phase is carried out.
    """
    if not config.phases:
        return [(config, folder)]
    last = len(config.phases) - 1
    return [
        (phase_config(config, i), folder if i == last else folder / PHASE.format(i + 1))
        for i in range(last + 1)
    ]


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether a phase has been carried out.

    Args:
        folder: of the phase.
        epochs: that it shall have.
    """
    rows = read_metrics(folder)
    return (folder / "curves.png").exists() and any(row["epoch"] == epochs for row in rows)


def _coarser(choice: ModelChoice, phase: Phase) -> ModelChoice:
    """The model of a phase: the same places in time, fewer of them."""
    factor = phase.factor
    if factor == 1:
        return choice
    size = freq_time(choice.architecture.input_size)
    if phase.operator == "patch":
        patch = freq_time(choice.architecture.patch)
        stride = choice.architecture.stride
        wider = FreqTime(patch.freq, int(patch.time * factor))
        if stride is not None:
            stride = FreqTime(freq_time(stride).freq, int(freq_time(stride).time * factor))
        change: dict[str, Any] = {"patch": plain_size(wider), "stride": stride}
    else:
        frames = max(1, round(size.time / factor))
        change = {
            "hop_ms": choice.architecture.hop_ms * factor,
            "input_size": (size.freq, frames),
        }
    return replace(choice, architecture=replace(choice.architecture, **change))


def _view(config: TrainConfig, phase: Phase) -> View:
    """How clips become tokens in a phase."""
    view, own = config.view, config.model.architecture.hop_ms
    if phase.operator == "hop" and view.hop_ms is not None:
        return replace(view, hop_ms=view.hop_ms * phase.factor)
    if phase.factor == 1 or phase.operator == "hop" or phase.operator == "patch":
        return view
    factor = int(phase.factor) * view.pooling.factor
    return replace(
        view,
        hop_ms=own if view.hop_ms is None else view.hop_ms,
        pooling=Pooling(kind=phase.operator, factor=factor),
    )
