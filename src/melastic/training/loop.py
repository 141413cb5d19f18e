"""Train a classifier. The whole loop, top to bottom."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from melastic.checkpoints.store import load_folder
from melastic.classifier import Classifier
from melastic.data.features import too_many_unreadable
from melastic.data.loader import Batch, ClipDataset, load_batches
from melastic.errors import DivergedError
from melastic.evaluation.metrics import Metrics
from melastic.evaluation.plots import plot_curves
from melastic.progress import bar
from melastic.serialize import to_json
from melastic.training.card import model_card
from melastic.training.config import TrainConfig
from melastic.training.curriculum import Curriculum
from melastic.training.held_out import is_better
from melastic.training.ledger import Costs, forget_peak, macs_text, speed_text
from melastic.training.optim import WeightAverage, build_optimizer, learning_rate
from melastic.training.parts import Parts
from melastic.training.reading import Library, workers_of
from melastic.training.record import Record, held_out_scores, read_metrics
from melastic.training.run_folder import CURVES, MODEL
from melastic.training.settings import in_epochs
from melastic.training.setup import (
    build_model,
    check_views,
    fingerprint,
    split_clips,
)
from melastic.training.stage import ALONE, Stage
from melastic.training.state import STATE, Progress, Resumable, load_memory
from melastic.training.steps import build_sampler, rows_text
from melastic.training.task import MaskedMetrics, task_of


class Trainer:
    """A run under way."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        accelerator: Accelerator,
        *,
        before: Path | None = None,
        stage: Stage = ALONE,
        library: Library | None = None,
    ) -> None:
        """Read clips, measure statistics, build the model, and continue from a saved state.

        Args:
            config: settings of the run, or of one phase of it.
            folder: its folder.
            accelerator: what it computes on.
            before: run folder of the phase before; None: this is the first.
            stage: where the run stands among phases.
            library: what phases before have read; None: nothing.
        """
        forget_peak()
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.stage, self.main = stage, accelerator.is_main_process
        self.library = library or Library(quiet=not self.main)
        self.curriculum = Curriculum(config.view, config.draws, config.run.seed)
        self.splits = split_clips(config)
        quiet, drawn = not self.main, self.curriculum.needs_waveforms
        read = self.library.read
        training, self.failed = read(config, self.splits.train, "training clips", drawn=drawn)
        self.held_out, _ = read(config, self.splits.val, "held-out clips")
        self.model = build_model(
            config, self.splits, training, self.failed, folder=folder, before=before, quiet=quiet
        )
        check_views(config, self.model.config, training, self.failed)
        self.clips = ClipDataset(
            training,
            self.splits.labels,
            self.model.config.frontend,
            augmentation=config.augment,
            views=self.curriculum.clip,
            seed=config.run.seed,
        )
        self.sampler = build_sampler(config, self.splits, self.model, training, self.failed)
        self.task = task_of(config, self.model, self.splits)
        self.trained = self.task.module.to(accelerator.device)
        self.parts = Parts(config.optim, self.curriculum, self.clips, self.model.config)
        self.per_epoch = len(self.sampler.epoch(0))
        self.config = config = in_epochs(config, self.per_epoch)
        if before is not None:
            self.task.carry(before)
        self.average = WeightAverage(self.trained, config.optim)
        self.wrapped, self.optimizer = accelerator.prepare(
            self.trained, build_optimizer(self.trained, config.optim)
        )
        self.saved = Resumable(self.trained, self.average, self.optimizer, accelerator.scaler)
        self.objective = self.task.objective(self.wrapped)
        if before is not None and config.passing.optimizer == "carried":
            load_memory(before, self.optimizer)
        self.progress = self._progress(list(self.failed.values()))
        self.saved_at = time.monotonic()

    def _progress(self, unreadable: list[str]) -> Progress:
        """How far the run has come; weights, averages and costs are those of its saved state."""
        known, made_of = fingerprint(self.config, self.splits), to_json(self.model.config)
        begun = Progress(config=known, unreadable=unreadable, made_of=made_of)
        if not (self.folder / STATE).exists():
            return begun
        progress = self.saved.load(self.folder, begun.config)
        self.objective.ledger.costs = Costs(**progress.costs)  # type: ignore[arg-type]
        self.objective.sums.update(progress.sums)
        return progress

    def run(self) -> Classifier:
        """All epochs that remain, then the test."""
        progress, folder = self.progress, self.folder
        with Record(folder, self.config, main=self.main, after_step=progress.step) as self.record:
            self._introduce()
            ended = self._ended()
            if ended and (folder / CURVES).exists():
                self.record.note(f"{folder}: has ended already")
                return load_folder(folder / MODEL)
            if self.main:
                (folder / CURVES).unlink(missing_ok=True)
            while not ended:
                self.ticked = time.monotonic()
                self.learn_epoch()
                self.average.after_epoch(self.trained, progress.epoch)
                progress.epoch += 1
                self._tick()
                self._finish_epoch(progress.epoch_s)
                progress.step_in_epoch, progress.loss_sum, progress.epoch_s = 0, 0.0, 0.0
                ended = self._ended()
                if ended or time.monotonic() - self.saved_at > self.config.run.save_every_s:
                    self._save_state()
            return self._finish()

    def learn_epoch(self) -> None:
        """The steps of one epoch that remain."""
        progress, config = self.progress, self.config
        steps = self.sampler.epoch(progress.epoch)
        if config.optim.steps is not None:
            steps = steps[: config.optim.steps - progress.step + progress.step_in_epoch]
        left = [
            (len(indices), self._mine(indices, progress.step + ahead))
            for ahead, indices in enumerate(steps[progress.step_in_epoch :])
        ]
        keys = [(progress.epoch, part) for _, parts in left for part in parts]
        batches = load_batches(self.clips, keys, workers=workers_of(config, self.clips.features))
        title = self.stage.title(progress.epoch + 1, config.optim.epochs)
        with bar(title, quiet=not self.main) as advance:
            for clips, parts in left:
                self._set_learning_rate(len(steps))
                progress.loss_sum += self._step(batches, len(parts), clips)
                self.average.after_step(self.trained, progress.step)
                progress.step += 1
                progress.step_in_epoch += 1
                advance(progress.step_in_epoch, len(steps))
                since_saved = time.monotonic() - self.saved_at
                if progress.step_in_epoch < len(steps) and since_saved > config.run.save_every_s:
                    self._tick()
                    self._save_state()

    def _tick(self) -> None:
        """Count the time since the last call, or since the epoch began, to the epoch."""
        now = time.monotonic()
        self.progress.epoch_s += now - self.ticked
        self.ticked = now

    def _mine(self, indices: Sequence[int], step: int) -> list[list[int]]:
        """The parts of a step's clips that this process computes."""
        processes = self.accelerator.num_processes
        parts = self.parts.of(indices, self.progress.epoch, step, processes=processes)
        each = len(parts) // processes
        first = self.accelerator.process_index * each
        return parts[first : first + each]

    def _set_learning_rate(self, steps: int) -> None:
        """The learning rate of the step that comes; epochs count alike, however many steps each."""
        optim, each, done = self.config.optim, self.per_epoch, self.progress
        step: float = done.step
        if optim.steps is None:
            step = done.epoch * each + done.step_in_epoch * each / steps
        total = optim.steps or optim.epochs * each
        rate = learning_rate(optim, step, total=total, per_epoch=each)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _step(self, batches: Iterator[Batch], parts: int, clips: int) -> float:
        """One optimiser step in some parts; returns the mean loss of its clips.

        Losses are summed and divided by the clips of the whole step, so that the gradient does not
        depend on how many processes or parts share it.
        """
        progress = self.progress
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(parts):
            with self.objective.ledger.clock("data_s"):
                batch = next(batches).to(self.accelerator.device)
            self._count_unreadable(batch)
            last = part == parts - 1
            with (
                self.objective.ledger.clock("compute_s"),
                nullcontext() if last else self.accelerator.no_sync(self.wrapped),
            ):
                with self.accelerator.autocast():
                    loss = self.objective.losses(batch, progress.epoch, progress.step).sum()
                self._check_finite("loss", loss, batch)
                self.accelerator.backward(loss * (self.accelerator.num_processes / clips))
                total += loss.detach()
        if self.config.optim.clip_norm is not None:
            norm = self.accelerator.clip_grad_norm_(
                self.wrapped.parameters(), self.config.optim.clip_norm
            )
            if norm is not None and self.accelerator.scaler is None:
                self._check_finite("length of the gradient", norm, batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.accelerator.reduce(total).item() / clips

    def _check_finite(self, what: str, value: Tensor, batch: Batch) -> None:
        """Stop where training leaves the finite numbers."""
        if torch.isfinite(value):
            return
        names = [str(self.splits.train[i].path) for i in batch.indices]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise DivergedError(
            f"the {what} must be finite, it is {value.item()} at step {self.progress.step} "
            f"(epoch {self.progress.epoch + 1}); lower optim.lr or check the clips: {shown}"
        )

    def _count_unreadable(self, batch: Batch) -> None:
        """Report clips that could not be read; stop when there are more than allowed."""
        known, allowed = self.progress.unreadable, self.config.data.max_unreadable
        for reason in batch.unreadable:
            if reason not in known:
                known.append(reason)
                self.record.note(f"left out: {reason}")
        if len(known) > allowed:
            raise too_many_unreadable(known, allowed)

    def _finish_epoch(self, seconds: float) -> None:
        """Evaluate, record, and keep the model if it is the best so far."""
        progress, config = self.progress, self.config
        progress.elapsed_s += seconds
        row: dict[str, Any] = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": progress.loss_sum / max(1, progress.step_in_epoch),
            "lr": self.optimizer.param_groups[0]["lr"],
            "elapsed_s": progress.elapsed_s,
            **self.objective.close(self.accelerator),
            **self.objective.ledger.close(self.accelerator),
        }
        steps = self.sampler.epoch(progress.epoch - 1)[: progress.step_in_epoch]
        row["clips_per_s"] = sum(map(len, steps)) / seconds
        progress.train_gmacs += row["train_gmacs"]
        progress.tokens += row["tokens"]
        row |= self.stage.placed(progress)
        text = f"{self.stage.title(progress.epoch, config.optim.epochs)}  loss {row['loss']:.4f}"
        last = config.optim.is_over(progress.epoch, progress.step)
        if self.splits.val and (last or progress.epoch % config.run.evaluate_every == 0):
            with self.average.swapped(self.trained):
                metrics = self._scores(self.held_out)
                row["val"] = asdict(metrics)
                text += f"  held out: {metrics}"
                if is_better(metrics, progress.best_score, config.run.choose_by):
                    progress.best_score = getattr(metrics, config.run.choose_by)
                    progress.best_epoch = progress.epoch
                    self._save_model(row)
                    text += "  best"
        self.record.add(row)
        spent = macs_text(self.stage.gmacs + progress.train_gmacs)
        text += f"  {speed_text(row, seconds)}  {spent}"
        self.record.note(f"{text}  {self.stage.to_go(progress, config.optim)}")

    def _ended(self) -> bool:
        """Whether no epoch shall follow."""
        return self.stage.is_over(self.progress, self.config, self.folder, self.accelerator)

    def _scores(self, features: Any, plot: Path | None = None) -> Metrics | MaskedMetrics:
        """Scores over clips, shared out among the processes."""
        dataset = ClipDataset(features, self.splits.labels, self.model.config.frontend)
        return self.task.scores(self.accelerator, dataset, plot)

    def _finish(self) -> Classifier:
        """Keep the last weights where none were chosen, evaluate on the test clips, and plot."""
        row: dict[str, Any] = {"step": self.progress.step, "epoch": self.progress.epoch}
        last = not self.splits.val or self.config.run.keep == "last"
        kept = self.progress.epoch if last else self.progress.best_epoch
        held_out = held_out_scores(self.folder, kept)
        if last:
            with self.average.swapped(self.trained):
                self._save_model(row | held_out)
        self.accelerator.wait_for_everyone()
        self.model.load_state_dict(load_folder(self.folder / MODEL).state_dict())
        if self.splits.test:
            features, _ = self.library.read(self.config, self.splits.test, "test clips")
            metrics = self._scores(features, self.folder / "confusion.png")
            row["test"] = asdict(metrics)
            self.record.add(row)
            self._save_model(row | held_out)
            self.record.note(f"test: {metrics} ({metrics.clips} clips)")
        if self.main:
            plot_curves(read_metrics(self.folder), self.folder / CURVES)
        if self.progress.unreadable:
            self.record.note(
                f"{len(self.progress.unreadable)} unreadable training clips were left out"
            )
        self.record.note(f"model and records are in {self.folder}")
        self.accelerator.wait_for_everyone()
        return load_folder(self.folder / MODEL)

    def _introduce(self) -> None:
        """Say what is about to happen."""
        resumed = f", resumed at step {self.progress.step}" if self.progress.step else ""
        self.record.note(
            f"{self.config.name}: {self.splits}; {self.model.num_parameters:,} parameters; "
            f"{self.per_epoch} steps an epoch on {self.accelerator.device}"
            f"{rows_text(self.model, self.sampler, self.accelerator)}{resumed}"
        )

    def _save_model(self, row: dict[str, Any]) -> None:
        """Write the model as it is now."""
        if self.main:
            card = model_card(self.model, self.config, self.splits, row)
            self.model.save(self.folder / MODEL, card=card)

    def _save_state(self) -> None:
        """Write the state of the run."""
        self.saved_at = time.monotonic()
        self.progress.costs = asdict(self.objective.ledger.costs)
        self.progress.sums = dict(self.objective.sums)
        if self.main:
            self.saved.save(self.folder, self.progress)
