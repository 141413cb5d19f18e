"""The loss of a batch: the labels, and what a teacher says."""

import dataclasses
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from melastic.checkpoints.store import load
from melastic.classifier import Classifier
from melastic.config import FrontendConfig, ModelConfig
from melastic.data.loader import Batch
from melastic.errors import InputError
from melastic.evaluation.metrics import loss_of
from melastic.frontend.normalize import normalised_anew
from melastic.patches.grid import FreqTime
from melastic.training.config import TrainConfig
from melastic.training.curriculum import Curriculum
from melastic.training.ledger import Ledger


class Objective:
    """Loss of each clip of a batch, under the views that a step draws."""

    def __init__(
        self, config: TrainConfig, model: nn.Module, made_of: ModelConfig, *, multi_label: bool
    ) -> None:
        """Remember what is trained, and load the teacher.

        Args:
            config: the run's settings.
            model: the classifier, perhaps wrapped for several processes.
            made_of: its configuration.
            multi_label: whether clips have several labels.

        Raises:
            InputError: if the teacher has other classes or reads other spectrograms.
        """
        self.config, self.model, self.made_of = config, model, made_of
        self.multi_label = multi_label
        self.curriculum = Curriculum(config.view, config.draws, config.run.seed)
        self.ledger = Ledger(made_of)
        self.sums: dict[str, float] = {}
        self.teacher: Classifier | None = None
        if config.distill.weight and config.distill.teacher is not None:
            self.teacher = _teacher(config.distill.teacher, made_of)
            self.teacher.to(next(model.parameters()).device)

    def losses(self, batch: Batch, epoch: int, step: int) -> Float[Tensor, " clips"]:
        """Loss of each clip; a process without clips computes a silent one that counts nothing.

        Args:
            batch: some of the step's clips.
            epoch: which their views are drawn for.
            step: which the patch size and the kept tokens are drawn for.
        """
        patch = self.curriculum.patch(epoch, step)
        if not batch.indices:
            frames = (patch or self.made_of.patches.patch).time
            silence = torch.zeros(1, self.made_of.frontend.num_mels, frames)
            return self.model(silence.to(batch.frames), patch).sum(1) * 0
        logits = self._logits(batch, epoch, step, patch)
        loss = self._labelled(logits, batch)
        distill, own = self.config.distill, self.made_of.patches.patch
        if not distill.weight:
            return loss
        if self.teacher is not None:
            self.ledger.add_teacher(self.teacher.config, batch.lengths)
            with torch.no_grad():
                ours, theirs = self.made_of.frontend, self.teacher.config.frontend
                seen = [normalised_anew(clip, ours, theirs) for clip in batch.spectrograms]
                target = self.teacher(seen, hop_ms=batch.steps_ms)
            return torch.lerp(loss, self._followed(logits, target), distill.weight)
        if patch in (None, own):
            return loss
        target = self._logits(batch, epoch, step, own, again=True)
        followed = torch.lerp(loss, self._followed(logits, target.detach()), distill.weight)
        return (followed + self._labelled(target, batch)) / 2

    def close(self, accelerator: Accelerator) -> dict[str, Any]:
        """Nothing is measured beside the loss.

        Args:
            accelerator: of the run.
        """
        del accelerator
        return {}

    def _logits(
        self, batch: Batch, epoch: int, step: int, patch: FreqTime | None, *, again: bool = False
    ) -> Tensor:
        """Logits of a batch with the tokens that the step keeps."""
        kept = self._kept(batch, epoch, step, patch)
        self.ledger.add(batch.lengths, patch, kept, again=again)
        return self.model(batch.spectrograms, patch, batch.steps_ms, kept).float()

    def _labelled(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss against the labels."""
        optim = self.config.optim
        return loss_of(
            logits,
            batch.targets,
            binary=self.multi_label if optim.loss == "auto" else optim.loss == "binary",
            smoothing=optim.label_smoothing,
        )

    def _followed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss against a teacher's scores."""
        temperature = self.config.distill.temperature
        logits, target = logits / temperature, target.float() / temperature
        if self.multi_label:
            loss = functional.binary_cross_entropy_with_logits(
                logits, target.sigmoid(), reduction="none"
            ).mean(1)
        else:
            loss = functional.cross_entropy(logits, target.softmax(1), reduction="none")
        return loss * temperature**2

    def _kept(
        self, batch: Batch, epoch: int, step: int, patch: FreqTime | None
    ) -> list[Tensor] | None:
        """Which tokens of each clip are used; None: all."""
        if self.config.view.keep == 1 and self.config.draws.keep is None:
            return None
        kept = []
        for index, frames in zip(batch.indices, batch.lengths, strict=True):
            size = FreqTime(self.made_of.frontend.num_mels, frames)
            tokens = self.made_of.patches.grid(size, patch).num_patches
            chosen = self.curriculum.kept(epoch, step, index, tokens)
            kept.append(torch.arange(tokens) if chosen is None else chosen)
        return kept


def _teacher(name: str, student: ModelConfig) -> Classifier:
    """A trained model whose scores can be followed."""
    teacher = load(name).eval().requires_grad_(False)
    if teacher.config.labels != student.labels:
        raise InputError(
            f"distill.teacher must know the same labels, {name} has {len(teacher.labels)} others; "
            "name a model that was trained on the same data"
        )
    if teacher.config.task != student.task:
        raise InputError(
            f"distill.teacher must have the same task, {name} is {teacher.config.task} and the run "
            f"{student.task}; set model.task, or name another model"
        )
    for field in (field.name for field in dataclasses.fields(FrontendConfig)):
        theirs, ours = (getattr(c.frontend, field) for c in (teacher.config, student))
        if theirs != ours and field not in ("mean", "std"):  # these are converted
            raise InputError(
                f"distill.teacher must read the same spectrograms, its {field} is {theirs} and "
                f"the run's is {ours}; train both with the same one"
            )
    return teacher
