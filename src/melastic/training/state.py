"""All that a resumed run needs, in one file that is replaced as a whole."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from melastic.checkpoints.store import write_tensors
from melastic.config import ModelConfig
from melastic.errors import InputError
from melastic.files import replacing
from melastic.serialize import from_json
from melastic.training.optim import WeightAverage

STATE = Path("state") / "state.safetensors"
"""Place in the run folder."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Optimiser steps done."""
    epoch: int = 0
    """Epochs done."""
    step_in_epoch: int = 0
    """Steps done in the epoch that is under way."""
    loss_sum: float = 0.0
    """Sum of the losses of those steps."""
    best_score: float | None = None
    """Best score on the held-out clips."""
    best_epoch: int | None = None
    """Epoch that it was reached in."""
    unreadable: list[str] = field(default_factory=list)
    """Why clips could not be read so far, one line each."""
    average_count: int = 0
    """Epochs that the averaged weights hold."""
    elapsed_s: float = 0.0
    """Time of the epochs done (s)."""
    epoch_s: float = 0.0
    """Time so far of the epoch that is under way (s)."""
    train_gmacs: float = 0.0
    """Multiply-adds of the epochs done (10^9)."""
    tokens: int = 0
    """Tokens of the epochs done."""
    costs: dict[str, float] = field(default_factory=dict)
    """What the steps done in the epoch that is under way have cost."""
    sums: dict[str, float] = field(default_factory=dict)
    """What else was measured in them, added up."""
    config: str = ""
    """Fingerprint of the configuration."""
    made_of: Any = None
    """The model's configuration as JSON has it, which another model may have given parts of."""


@dataclass(frozen=True, slots=True)
class Resumable:
    """What a run's state is saved of, and read back into."""

    model: nn.Module
    average: WeightAverage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None

    def save(self, folder: Path, progress: Progress) -> None:
        """Write the state of a run; a process that dies meanwhile leaves the previous one.

        Args:
            folder: of the run.
            progress: how far it has come.
        """
        progress.average_count = self.average.count
        tensors = {f"model/{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors |= {f"average/{name}": p for name, p in self.average.weights.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in entry.items()}
        tensors["rng"] = torch.get_rng_state()
        metadata = {
            "progress": json.dumps(asdict(progress)),
            "scaler": json.dumps(self.scaler.state_dict() if self.scaler else {}),
        }
        copies = {name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        with replacing(folder / STATE) as part:
            write_tensors(copies, part, metadata, name=folder / STATE)

    def load(self, folder: Path, config: str) -> Progress:
        """Continue from a saved state.

        Args:
            folder: of the run.
            config: fingerprint of its settings and clips.

        Raises:
            InputError: if it is damaged, or belongs to another configuration.
        """
        metadata, tensors = _read(folder / STATE)
        progress = _progress_of(metadata, folder, config)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model/{name}"])
        self.average.load(_below("average/", tensors))
        self.average.count = progress.average_count
        _load_optimizer(self.optimizer, _below("optimizer/", tensors))
        if self.scaler:
            self.scaler.load_state_dict(json.loads(metadata["scaler"]))
        torch.set_rng_state(tensors["rng"])
        return progress


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """The average of the weights in a run's state, by name.

    Args:
        folder: of the run.
    """
    return _below("average/", load_file(folder / STATE))


def check_unchanged(folder: Path, config: str) -> None:
    """Refuse to build on a phase that other settings or clips have made.

    Args:
        folder: of a phase that has ended.
        config: fingerprint of its settings and clips.

    Raises:
        InputError: if its state is damaged, or belongs to another configuration.
    """
    if (folder / STATE).exists():
        _progress_of(_read(folder / STATE, weights=False)[0], folder, config)


def _progress_of(metadata: dict[str, str], folder: Path, config: str) -> Progress:
    """How far a run had come, if it is the same run."""
    progress = Progress(**json.loads(metadata["progress"]))
    if progress.config != config:
        raise InputError(
            f"{folder}: the saved state belongs to another configuration or other clips; a run "
            "is resumed with the settings and the manifest that it was started with"
        )
    return progress


def saved_model(folder: Path) -> ModelConfig | None:
    """The configuration of the model of a saved state; None: there is no state, or it lacks it.

    Args:
        folder: of the run.

    Raises:
        InputError: if the state is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    made_of = json.loads(_read(path, weights=False)[0]["progress"]).get("made_of")
    return None if made_of is None else from_json(ModelConfig, made_of, str(path))


def load_memory(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """The optimiser's memory of another run, where parameters have the same shape.

    Args:
        folder: of the other run.
        optimizer: whose memory is overwritten.
    """
    with safe_open(folder / STATE, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("optimizer/")]  # noqa: SIM118
        tensors = {name.removeprefix("optimizer/"): file.get_tensor(name) for name in names}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    fitting = {
        name: value
        for name, value in tensors.items()
        if parameters[int(name.split("/")[0])].shape
        == tensors[name.split("/")[0] + "/exp_avg"].shape
    }
    _load_optimizer(optimizer, fitting)


def _read(path: Path, *, weights: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What is written beside the tensors of a saved state, and these unless told otherwise."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if weights else []
            return file.metadata(), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({str(error).strip()}); start the run anew") from None


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put moments back in place."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
