"""Scores on held-out clips while training, over one process or several."""

import math
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from melastic.classifier import Classifier
from melastic.data.loader import ClipDataset
from melastic.evaluation.evaluate import Outputs, run
from melastic.evaluation.metrics import Metrics
from melastic.training.config import TrainConfig
from melastic.training.setup import workers_for


def gathered_outputs(
    accelerator: Accelerator, model: Classifier, dataset: ClipDataset, config: TrainConfig
) -> Outputs:
    """Logits of all clips of a data set, shared out among the processes; each gets them all."""
    rank, world = accelerator.process_index, accelerator.num_processes
    outputs = run(
        model,
        dataset,
        range(rank, len(dataset.targets), world),
        batch_tokens=config.optim.batch_tokens,
        workers=workers_for(config, dataset.features),
        max_unreadable=config.data.max_unreadable,
        autocast=accelerator.autocast,
    )
    if world == 1:
        return outputs
    parts: list[Outputs] = gather_object([outputs])
    return Outputs(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.targets for part in parts]),
        tuple(frames for part in parts for frames in part.frames),
        tuple(line for part in parts for line in part.unreadable),
    )


def is_better(
    metrics: Metrics, best: float | None, choose_by: Literal["accuracy", "mAP", "loss"]
) -> bool:
    """Whether scores beat the best so far."""
    score = getattr(metrics, choose_by)
    if best is None or math.isnan(best):
        return True
    return score < best if choose_by == "loss" else score > best
