"""What a run trains for: the labels of clips, or what is hidden of them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from melastic.checkpoints.store import read_config, read_json
from melastic.classifier import Classifier
from melastic.data.loader import ClipDataset
from melastic.evaluation.metrics import Metrics, measure_scores
from melastic.evaluation.plots import plot_confusion
from melastic.randomness import generator, integer
from melastic.training.config import PretrainConfig, TrainConfig
from melastic.training.held_out import gathered_outputs
from melastic.training.masked import MaskedModel
from melastic.training.masked_objective import MEASURED, MaskedObjective
from melastic.training.objective import Objective
from melastic.training.run_folder import CONFIG, MODEL
from melastic.training.setup import Splits
from melastic.training.state import averaged_weights
from melastic.training.units import unit_size


@dataclass(frozen=True, slots=True)
class MaskedMetrics:
    """How well the hidden patches of a set of clips are predicted."""

    clips: int
    loss: float
    """Weighted sum of the two that follow."""
    discriminative: float
    """InfoNCE, mean over clips."""
    generative: float
    """Mean squared error, mean over clips."""
    accuracy: float
    """Share of the hidden patches that were told apart, mean over clips."""

    def __str__(self) -> str:
        """As people read it."""
        return (
            f"told apart {self.accuracy:.4f}, InfoNCE {self.discriminative:.4f}, squared error "
            f"{self.generative:.4f}"
        )


class Labelled:
    """Tell the labels of clips."""

    def __init__(self, config: TrainConfig, model: Classifier, splits: Splits) -> None:
        """Train the classifier itself."""
        self.config, self.model, self.splits = config, model, splits
        self.module: nn.Module = model

    def objective(self, wrapped: nn.Module) -> Objective:
        """Loss against the labels.

        Args:
            wrapped: the module, perhaps wrapped for several processes.
        """
        multi_label = self.splits.multi_label
        return Objective(self.config, wrapped, self.model.config, multi_label=multi_label)

    def scores(
        self, accelerator: Accelerator, dataset: ClipDataset, plot: Path | None = None
    ) -> Metrics:
        """Accuracy and its like, over clips that are shared out among the processes.

        Args:
            accelerator: of the run.
            dataset: the clips.
            plot: where a confusion matrix goes; None: nowhere.
        """
        outputs = gathered_outputs(accelerator, self.model, dataset, self.config)
        multi_label = self.splits.multi_label
        if plot and accelerator.is_main_process and not multi_label:
            plot_confusion(outputs, self.splits.labels, plot)
        return measure_scores(outputs.logits, outputs.targets, multi_label=multi_label)

    def carry(self, before: Path) -> None:
        """There is nothing but the classifier to take over.

        Args:
            before: folder of the phase before.
        """


class Masked:
    """Predict hidden patches."""

    def __init__(self, config: PretrainConfig, model: Classifier) -> None:
        """Train the classifier's encoder, with a mask token and two heads around it."""
        torch.manual_seed(integer(2**31, generator(config.run.seed, "heads of both tasks")))
        self.config, self.model = config, model
        self.module = MaskedModel(model, config.masking)

    def objective(self, wrapped: nn.Module) -> MaskedObjective:
        """Loss of both tasks.

        Args:
            wrapped: the module, perhaps wrapped for several processes.
        """
        return MaskedObjective(self.config, wrapped, self.model.config)

    def scores(
        self, accelerator: Accelerator, dataset: ClipDataset, plot: Path | None = None
    ) -> MaskedMetrics:
        """How well hidden patches are predicted, over clips shared out among the processes.

        Args:
            accelerator: of the run.
            dataset: the clips.
            plot: where a figure would go; there is none.
        """
        del plot
        forward = MaskedObjective(self.config, self.module, self.model.config).held_out
        outputs = gathered_outputs(accelerator, self.model, dataset, self.config, forward)
        loss, *measured = outputs.logits.double().mean(0).tolist()
        named = dict(zip(MEASURED, measured, strict=True))
        return MaskedMetrics(clips=len(outputs.logits), loss=loss, **named)

    def carry(self, before: Path) -> None:
        """The mask token and both heads, fitted to the size of patches.

        Args:
            before: folder of the phase before.
        """
        path = before / MODEL / CONFIG
        units = unit_size(read_config(read_json(path), path))
        self.module.carry(averaged_weights(before), units)


Task = Labelled | Masked
"""What a run trains for. ``module`` is what is trained: the classifier, or what is around it."""


def task_of(config: TrainConfig, model: Classifier, splits: Splits) -> Task:
    """What a run trains for.

    Args:
        config: its settings.
        model: its classifier, without a head where nothing is labelled.
        splits: its clips.
    """
    if isinstance(config, PretrainConfig):
        return Masked(config, model)
    return Labelled(config, model, splits)
