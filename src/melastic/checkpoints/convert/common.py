"""What the converters share: facts that no file holds, and the making of the classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from melastic.checkpoints.store import check_state
from melastic.classifier import Classifier
from melastic.config import TASKS, FrontendConfig, ModelConfig, Task
from melastic.errors import InputError, unknown_name
from melastic.head import Head

FRONTEND = FrontendConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What official files hold nothing about, whatever their origin."""

    labels: Sequence[str] | Mapping[int, str] | None = None
    """Name of each class, in the order of the logits or by number; None: "0", "1", …"""
    num_classes: int | None = None
    """Number of classes; where the file has a head it must agree."""
    task: str = "single-label"
    """Scores are a softmax over classes; "multi-label" (AudioSet): a sigmoid for each class."""
    sample_rate: int = FRONTEND.sample_rate
    """Samples per second that the weights were trained on (Hz)."""
    hop_ms: float = FRONTEND.hop_ms
    """Step between frames that the weights were trained on (ms)."""
    mean: float = FRONTEND.mean
    """Mean of the log-mels that the weights were trained on; AudioSet's unless said."""
    std: float = FRONTEND.std
    """Standard deviation of those log-mels; AudioSet's unless said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFacts(Facts):
    """What files of transformers hold nothing about."""

    num_heads: int | None = None
    """Attention heads; None: one for each 64 channels."""


def read_labels(facts: Facts, classes: int | None) -> tuple[str, ...]:
    """Names of the classes.

    Args:
        facts: may name or count them.
        classes: rows of the file's head; None: it has none that is kept.

    Raises:
        InputError: if names, counts and head disagree, or there is neither.
    """
    names: Any = facts.labels
    if isinstance(names, Mapping) and set(names) == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    whole = names is None or (isinstance(names, Sequence) and not isinstance(names, str))
    if not whole or not all(isinstance(name, str) for name in names or ()):
        raise InputError(
            f"labels are a list of names, or a dict of them by number, got {names!r}; give a list"
        )
    counts = {
        "labels": None if names is None else len(names),
        "num_classes": facts.num_classes,
        "the head": classes,
    }
    given = {who: count for who, count in counts.items() if count is not None}
    if not given or min(given.values()) < 1:
        raise InputError("a classifier needs at least one class; give num_classes or labels")
    if len(set(given.values())) > 1:
        said = ", ".join(f"{who}: {count}" for who, count in given.items())
        raise InputError(f"all must agree on the number of classes, got {said}; correct the facts")
    if names is None:
        return tuple(str(i) for i in range(next(iter(given.values()))))
    return tuple(names)


def read_frontend(facts: Facts, num_mels: int, fixed_frames: int | None) -> FrontendConfig:
    """The front end that the facts describe."""
    return FrontendConfig(
        sample_rate=facts.sample_rate,
        num_mels=num_mels,
        hop_ms=facts.hop_ms,
        mean=facts.mean,
        std=facts.std,
        fixed_frames=fixed_frames,
    )


def read_task(facts: Facts) -> Task:
    """What the scores mean.

    Raises:
        InputError: if it is neither of the two.
    """
    for task in TASKS:
        if facts.task == task:
            return task
    raise unknown_name("task", facts.task, TASKS)


def new_head(config: ModelConfig) -> dict[str, Tensor]:
    """A head with random weights, drawn from torch's global generator as AST draws it."""
    head = Head(config.encoder.dim, len(config.labels), config.head_norm_eps)
    nn.init.trunc_normal_(head.linear.weight, std=0.02)
    nn.init.zeros_(head.linear.bias)
    return {f"head.{name}": value for name, value in head.state_dict().items()}


def assemble(config: ModelConfig, tensors: dict[str, Tensor]) -> Classifier:
    """A classifier with exactly these tensors.

    Raises:
        InputError: if one is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        model = Classifier(config)
    check_state(model, tensors, f"{config.name} weights")
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(True)
