"""The loss of a batch of clips in masked pretraining, and its costs."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn

from melastic.config import ModelConfig
from melastic.data.loader import Batch
from melastic.randomness import generator
from melastic.training.config import PretrainConfig
from melastic.training.ledger import GRADIENTS, Ledger
from melastic.training.masked import Outcome
from melastic.training.units import unit_size, units_of

MEASURED = ("discriminative", "generative", "accuracy")
"""What is recorded beside the loss: InfoNCE, mean squared error, share of patches told apart."""


class MaskedObjective:
    """Loss of each clip of a batch, under the masks that a step draws."""

    def __init__(self, config: PretrainConfig, model: nn.Module, made_of: ModelConfig) -> None:
        """Remember what is trained.

        Args:
            config: the run's settings.
            model: the model of both tasks, perhaps wrapped for several processes.
            made_of: configuration of the classifier in it.
        """
        self.config, self.model, self.made_of = config, model, made_of
        self.ledger = Ledger(made_of)
        self.sums = dict.fromkeys((*MEASURED, "clips"), 0.0)

    def losses(self, batch: Batch, epoch: int, step: int) -> Float[Tensor, " clips"]:
        """Loss of each clip; a process without clips computes a silent one that counts nothing.

        Args:
            batch: some of the step's clips.
            epoch: of the step; masks are drawn for steps.
            step: which masks are drawn for.
        """
        del epoch
        if not batch.indices:
            patch = self.made_of.patches.patch
            silence = torch.zeros(1, self.made_of.frontend.num_mels, patch.time)
            silent: Outcome = self.model(silence.to(batch.frames), [torch.tensor([0])])
            return silent.loss * 0
        hidden = self._hidden(batch, self.config.run.seed, "hidden", step)
        self.ledger.add(batch.lengths, None, None)
        self.ledger.costs.train_gmacs += sum(task_gmacs(self.made_of, len(h)) for h in hidden)
        outcome: Outcome = self.model(batch.spectrograms, hidden, batch.steps_ms)
        for name in MEASURED:
            self.sums[name] += getattr(outcome, name).detach().sum().item()
        self.sums["clips"] += len(batch.indices)
        return outcome.loss

    def held_out(self, batch: Batch) -> Float[Tensor, "clips measured"]:
        """Loss and what is measured of held-out clips, each under a mask that never changes.

        Args:
            batch: some of them.
        """
        hidden = self._hidden(batch, 0, "held out")
        outcome: Outcome = self.model(batch.spectrograms, hidden, batch.steps_ms)
        return torch.stack([outcome.loss, *(getattr(outcome, n) for n in MEASURED)], dim=1)

    def close(self, accelerator: Accelerator) -> dict[str, Any]:
        """Means over the clips of an epoch, of all processes together; the next begins at zero.

        Args:
            accelerator: of the run.
        """
        values = torch.tensor(list(self.sums.values()), dtype=torch.float64)
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values.to(accelerator.device)).cpu()
        self.sums = dict.fromkeys(self.sums, 0.0)
        *sums, clips = values.tolist()
        return {name: total / max(1.0, clips) for name, total in zip(MEASURED, sums, strict=True)}

    def _hidden(self, batch: Batch, seed: int, *keys: int | str) -> list[Int[Tensor, " hidden"]]:
        """Which units of each clip of a batch are hidden."""
        clips = zip(batch.indices, batch.lengths, batch.steps_ms, strict=True)
        drawn = []
        for index, frames, step_ms in clips:
            units, draw = units_of(self.made_of, frames), generator(seed, *keys, index)
            drawn.append(self.config.masking.draw(units.shape, units.size, step_ms, draw))
        return drawn


def task_gmacs(made_of: ModelConfig, hidden: int) -> float:
    """Multiply-adds (10^9) of both tasks for one clip, forward and backward.

    Args:
        made_of: configuration of the classifier.
        hidden: units that are hidden. Their products with each other have one gradient: the pixels
            need none.
    """
    dim, pixels = made_of.encoder.dim, math.prod(unit_size(made_of))
    heads = 2 * hidden * (dim * dim + dim * pixels)
    return ((1 + GRADIENTS) * heads + 2 * hidden * hidden * pixels) / 1e9
