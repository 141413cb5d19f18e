"""Train in one phase, or from coarse to fine in several.

A phase is a run of its own, in a folder of its own, that starts from the weights of the phase
before: positions and kernel are fitted to its resolution, the optimiser and the learning rate begin
anew. What single runs can do, resuming included, phases can too.

Source: From Coarse to Fine (multi-phase training of audio spectrogram transformers): low time
    resolution first, by longer hops, pooling or wider patches; full resolution last.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from melastic.checkpoints.store import write_json
from melastic.classifier import Classifier
from melastic.devices import cores_shared_with
from melastic.errors import InputError
from melastic.evaluation.cost import longest_within, tokens_of
from melastic.evaluation.course_plot import plot_ledger
from melastic.frontend.normalize import fixed_frames
from melastic.patches.grid import FreqTime
from melastic.progress import note
from melastic.randomness import generator, integer
from melastic.training.automatic import most_epochs, moves_on, said
from melastic.training.coarser import coarser_draws, coarser_model, coarser_view
from melastic.training.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from melastic.training.course import course_of, epochs_in, ledger_text, summary_of
from melastic.training.ledger import clip_gmacs, reference_config
from melastic.training.loop import Trainer
from melastic.training.phases import Phase, phase_text, with_equal_parts
from melastic.training.reading import Library, workers_of
from melastic.training.record import add_once, check_trackers, read_metrics
from melastic.training.run_folder import CURVES, PHASE, begin, check_folder
from melastic.training.setup import check_views, fingerprint, split_clips
from melastic.training.stage import Stage
from melastic.training.state import STATE, check_unchanged
from melastic.training.steps import check_budget

LEDGER, LEDGER_FIGURE = "ledger.json", "ledger.png"
"""What a run has cost: each phase and all; held-out accuracy against it."""


def train(config: TrainConfig, folder: Path, *, resume: bool = False) -> Classifier:
    """Train a classifier and leave a run folder behind.

    The folder holds ``config.json``, ``metrics.jsonl``, ``model/`` (best on the held-out clips, or
    last), ``state/`` (all that a resumed run needs) and plots; after phases ``ledger.json`` too,
    which is also the last row of ``metrics.jsonl``. On a CPU a run that was stopped, at whatever
    moment, and resumed ends with the same weights as one that was not.

    Args:
        config: all settings.
        folder: the run folder.
        resume: continue the run in this folder.

    Raises:
        InputError: if settings, clips or the folder cannot be used.
        DivergedError: if the loss is not finite; names the step and the clips.
    """
    accelerator = _accelerator(config.run)
    if accelerator.is_main_process:
        check_folder(folder, resume=resume)
        check_trackers(config)
        split_clips(config)  # what is wrong in the last phase is said before the first
        if all(phase.epochs != "auto" for phase in config.phases):
            for number in range(len(config.phases)):
                phase_config(config, number, [0] * number)
    accelerator.wait_for_everyone()
    begun, before = resume, None
    library = Library(config.phases, quiet=not accelerator.is_main_process)
    for number, (settings, own) in enumerate(phases_of(config, folder)):
        stage = _stage(config, number, folder)
        if own == folder or not is_finished(own, settings.optim, stage):
            library.turn_to(number)
            trainer = Trainer(
                settings, own, accelerator, before=before, stage=stage, library=library
            )
            if not begun:
                _check_later(config, trainer)
            if accelerator.is_main_process and not begun:
                begin(config, folder)
            if accelerator.is_main_process and own != folder and not (own / STATE).exists():
                begin(settings, own)
            begun = True
            with cores_shared_with(workers_of(settings, trainer.clips.features)):
                model = trainer.run()
            del trainer
            if stage.ends is not None:
                reason = said(read_metrics(own), _price(config, number), settings.optim.epochs)
                note(reason, quiet=not accelerator.is_main_process)
            accelerator.free_memory()
        elif accelerator.is_main_process:
            check_unchanged(own, fingerprint(settings, split_clips(settings)))
        before = own
    if accelerator.is_main_process:
        _sum_up(config, folder)
    return model


def _check_later(config: TrainConfig, trainer: Trainer) -> None:
    """Refuse a run whose clips do not fit a later phase; it would stop half done."""
    if any(phase.epochs == "auto" for phase in config.phases):
        phases = tuple(replace(phase, epochs="equal") for phase in config.phases)
        config = replace(config, phases=phases)
    fixed, own = trainer.model.config.frontend, trainer.clips.features
    for number in range(1, len(config.phases)):
        settings = phase_config(config, number, [0] * number)
        made_of = reference_config(settings.model.architecture)
        frames = fixed_frames(fixed, made_of.frontend.hop_ms)
        frontend = replace(made_of.frontend, fixed_frames=frames)
        made_of = replace(made_of, frontend=frontend, pooling=trainer.model.config.pooling)
        try:
            check_views(settings, made_of, own, trainer.failed)
            check_budget(settings, made_of, own, trainer.failed)
        except InputError as error:
            raise InputError(f"phase {phase_text(config.phases[number])}: {error}") from None


def _accelerator(run: RunConfig) -> Accelerator:
    """What a run computes on."""
    try:
        return Accelerator(cpu=run.cpu, mixed_precision=run.precision)
    except ValueError as error:
        if "initialized" not in str(error):
            raise InputError(f"run.precision {run.precision}: {error}; try no") from None
        raise InputError(
            "a process trains on one device in one precision, this one has trained otherwise than "
            f"with run.precision {run.precision} and run.cpu {run.cpu}; use a new process"
        ) from None


def _sum_up(config: TrainConfig, folder: Path) -> None:
    """Write what a finished run has cost."""
    phases = list(phases_of(config, folder))
    if config.phases:
        summary = summary_of(config, phases)
        write_json(folder / LEDGER, summary)
        add_once(folder, "ledger", summary)
        note(ledger_text(summary))
    plot_ledger(course_of(phases), folder / LEDGER_FIGURE)


def phase_config(config: TrainConfig, number: int, done: Sequence[int] = ()) -> TrainConfig:
    """The settings of one phase as a run of its own.

    The learning rate of a phase before the last stays at its peak where it is held, and where it
    would fall to zero at an end that is not known (auto): what the phase hands over are averaged
    weights (``optim.average``) anyway. A phase whose epochs are auto is evaluated after each.

    Args:
        config: the whole run's.
        number: of the phase, from 0.
        done: epochs of each phase before; needed where a phase is auto.
    """
    phases = _with_lengths(config)
    phase, last = phases[number], number == len(phases) - 1
    prices, budget = _budget(config)
    epochs = config.optim.epochs if phase.steps else most_epochs(phases, done, prices, budget)
    ramped = config.draws.ramp_from + _passed(phases, number, done)
    given: dict[str, Any] = {
        name: value
        for name in ("lr", "schedule", "warmup_steps")
        if (value := getattr(phase, name)) is not None
    }
    given["batch_tokens"] = _batch_tokens(config, phase)
    given.setdefault("warmup_steps", _warmup_steps(config))
    run = config.run
    if config.passing.schedule == "continued":
        fixed = [part.epochs for part in phases if isinstance(part.epochs, int)]
        lengths = fixed if len(fixed) == len(phases) else [*done, epochs]
        ends = [0.0, *accumulate(n * price for n, price in zip(lengths, prices, strict=False))]
        end = 1.0 if last else min(1.0, ends[number + 1] / budget)
        given["span"] = (ends[number] / budget, end)
    elif not last and _stays_at_peak(config, phase):
        given["schedule"] = "constant"
    if phase.epochs == "auto" and not last:
        run = replace(run, evaluate_every=1)
    seed = integer(2**31, generator(config.run.seed, "phase", number)) if number else None
    return replace(
        config,
        phases=(),
        model=coarser_model(config.model, phase),
        view=coarser_view(config, phase),
        data=_data(config, last=last, split_seed=None if seed is None else config.run.seed),
        draws=replace(
            coarser_draws(config.draws, phase), ramp_from=min(config.draws.ramp_epochs, ramped)
        ),
        optim=replace(config.optim, epochs=epochs, steps=phase.steps, **given),
        run=run if seed is None else replace(run, seed=seed),
    )


def _with_lengths(config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of a run, each with the epochs or steps that it has, or auto."""
    return with_equal_parts(config.phases, config.optim.epochs, config.optim.steps)


def _passed(phases: Sequence[Phase], number: int, done: Sequence[int]) -> int:
    """Epochs before a phase: those that phases had, or, while none has run, are to have."""
    planned = [phase.epochs if isinstance(phase.epochs, int) else 0 for phase in phases[:number]]
    return sum(done[:number]) if len(done) >= number else sum(planned)


def _warmup_steps(config: TrainConfig) -> int:
    """Steps over which the learning rate of a phase rises."""
    steps, passing = config.optim.warmup_steps, config.passing
    if passing.warmup == "each" or passing.schedule == "continued":
        return steps
    return math.ceil(steps / len(config.phases))


def _stays_at_peak(config: TrainConfig, phase: Phase) -> bool:
    """Whether the learning rate of a phase that is not the last does not fall."""
    if phase.epochs == "auto" and (phase.schedule or config.optim.schedule) == "cosine":
        return True
    return config.passing.schedule == "held" and phase.schedule is None


def _data(config: TrainConfig, *, last: bool, split_seed: int | None) -> DataConfig:
    """The clips of a phase: only the last is tested, and all hold out the same."""
    data = config.data if last else replace(config.data, test=None)
    if data.val_share and data.split_seed is None:
        return replace(data, split_seed=split_seed)
    return data


def _batch_tokens(config: TrainConfig, phase: Phase) -> int:
    """Most tokens of a step of a phase.

    As many clips as at full resolution have that many, and a column of patches for each clip's
    rounding; and no fewer than the longest clip that fits a step at full resolution has here, where
    folds may round more. Tokens that lead a clip of the model that a run starts from are not
    counted.
    """
    whole = config.optim.batch_tokens
    if phase.batch_tokens is not None or config.passing.batch == "tokens":
        return phase.batch_tokens or whole
    if phase.factor == 1:
        return whole
    full = reference_config(config.model.architecture)
    coarse = reference_config(coarser_model(config.model, phase).architecture)
    frames = longest_within(full, whole) / (1 if phase.operator == "patch" else phase.factor)
    bins, patch = coarse.frontend.num_mels, coarse.patches.patch.time
    column = tokens_of(coarse, FreqTime(bins, patch))
    longest = tokens_of(coarse, FreqTime(bins, max(patch, math.ceil(frames))))
    return max(math.ceil(whole / phase.factor) + column, longest)


def phases_of(config: TrainConfig, folder: Path) -> Iterator[tuple[TrainConfig, Path]]:
    """Settings and folder of each phase; a run without phases is its own only one.

    What a phase after an auto one is, is known when that has ended: the next is asked for then.

    Args:
        config: the whole run's.
        folder: the run folder, in which the last phase is carried out.
    """
    if not config.phases:
        yield config, folder
    done: list[int] = []
    for number in range(len(config.phases)):
        own = _folder(config, number, folder)
        yield phase_config(config, number, done), own
        done.append(epochs_in(own))


def is_finished(folder: Path, optim: OptimConfig, stage: Stage) -> bool:
    """Whether a phase has been carried out.

    Args:
        folder: of the phase.
        optim: its epochs, or the most it may have, or its steps.
        stage: where it stands.
    """
    rows = read_metrics(folder)
    ended = stage.ends is not None and stage.ends(rows)
    done = any(optim.is_over(row["epoch"], row["step"]) for row in rows)
    return (folder / CURVES).exists() and (ended or done)


def _folder(config: TrainConfig, number: int, folder: Path) -> Path:
    """The folder of a phase."""
    return folder if number == len(config.phases) - 1 else folder / PHASE.format(number + 1)


def _stage(config: TrainConfig, number: int, folder: Path) -> Stage:
    """Where a phase stands, when those before have ended."""
    count = len(config.phases)
    if not count:
        return Stage()
    phases = [read_metrics(_folder(config, i, folder)) for i in range(number)]
    rows = [row for phase in phases for row in phase]
    auto = config.phases[number].epochs == "auto" and number < count - 1
    return Stage(
        name=f"phase {number + 1}/{count}, ",
        number=number + 1,
        gmacs=sum(row.get("train_gmacs", 0.0) for row in rows),
        tokens=sum(row.get("tokens", 0) for row in rows),
        seconds=sum(max((row.get("elapsed_s", 0.0) for row in p), default=0.0) for p in phases),
        later=_later(config, number),
        ends=partial(moves_on, price=_price(config, number)) if auto else None,
    )


def _later(config: TrainConfig, number: int) -> float | None:
    """What all phases after one cost, in its epochs; None where not all have a number of epochs."""
    prices, lengths = _prices(config), [phase.epochs for phase in _with_lengths(config)]
    later = [
        length * price
        for length, price in zip(lengths, prices, strict=True)
        if isinstance(length, int)
    ]
    if len(later) < len(lengths):
        return None
    return sum(later[number + 1 :]) / prices[number]


def _prices(config: TrainConfig) -> list[float]:
    """Operations of an epoch of each phase, in those of an epoch at full resolution."""
    full = clip_gmacs(config.model.architecture)
    models = [coarser_model(config.model, phase) for phase in config.phases]
    return [clip_gmacs(model.architecture) / full for model in models]


def _price(config: TrainConfig, number: int) -> float:
    """Operations of an epoch of a phase, in those of an epoch of the next."""
    prices = _prices(config)
    return prices[number] / prices[number + 1]


def _budget(config: TrainConfig) -> tuple[list[float], float]:
    """What an epoch of each phase takes of the budget, and the budget."""
    phases = _with_lengths(config)
    fixed = [phase.epochs for phase in phases if isinstance(phase.epochs, int)]
    if len(fixed) == len(phases):
        return [1.0] * len(phases), sum(fixed)
    prices = _prices(config) if config.passing.budget == "gmacs" else [1.0] * len(phases)
    return prices, config.optim.epochs
