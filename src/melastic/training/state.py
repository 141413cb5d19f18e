"""All that a resumed run needs, in one file that is replaced as a whole."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from melastic.checkpoints.store import replacing, write_tensors
from melastic.errors import InputError
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
    costs: dict[str, float] = field(default_factory=dict)
    """What the steps done in the epoch that is under way have cost."""
    sums: dict[str, float] = field(default_factory=dict)
    """What else was measured in them, added up."""
    config: str = ""
    """Fingerprint of the configuration."""


def save_state(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Write the state of a run; a process that dies meanwhile leaves the previous one."""
    progress.average_count = average.count
    tensors = {f"model/{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"average/{name}": p for name, p in average.weights.items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in entry.items()}
    tensors["rng"] = torch.get_rng_state()
    metadata = {
        "progress": json.dumps(asdict(progress)),
        "scaler": json.dumps(scaler.state_dict() if scaler else {}),
    }
    copies = {name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    with replacing(folder / STATE) as part:
        write_tensors(copies, part, metadata, name=folder / STATE)


def load_state(
    folder: Path,
    config: str,
    model: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
) -> Progress:
    """Continue from a saved state.

    Raises:
        InputError: if it is damaged, or belongs to another configuration.
    """
    path = folder / STATE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({str(error).strip()}); start the run anew") from None
    progress = Progress(**json.loads(metadata["progress"]))
    if progress.config != config:
        raise InputError(
            f"{folder}: the saved state belongs to another configuration or other clips; a run is "
            "resumed with the settings and the manifest that it was started with"
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    average.load(_below("average/", tensors))
    average.count = progress.average_count
    _load_optimizer(optimizer, _below("optimizer/", tensors))
    if scaler:
        scaler.load_state_dict(json.loads(metadata["scaler"]))
    torch.set_rng_state(tensors["rng"])
    return progress


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
