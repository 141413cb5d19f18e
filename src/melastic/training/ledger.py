"""What training costs: operations from the geometry, tokens, time and memory, epoch by epoch.

Source: From Coarse to Fine compares training methods by their operations and by the clock; forward
    and backward together are taken as three times the forward pass.
"""

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor

from melastic.architecture import Architecture, model_config
from melastic.config import ModelConfig
from melastic.evaluation.cost import Cost, cost_of
from melastic.patches.grid import FreqTime, freq_time

GRADIENTS = 2
"""Operations of a backward pass in units of the forward pass: the gradient of a product is two
products, one of them for its input, which the spectrogram does not need."""


@dataclass(slots=True, kw_only=True)
class Costs:
    """Sums over some steps."""

    clips: int = 0
    tokens: int = 0
    """Of the encoder, class tokens included."""
    train_gmacs: float = 0.0
    """Multiply-adds of forward and backward passes (10^9)."""
    data_s: float = 0.0
    """Waiting for clips (s)."""
    compute_s: float = 0.0
    """Computing steps (s)."""


@dataclass(slots=True)
class Ledger:
    """The costs of an epoch under way."""

    model: ModelConfig
    costs: Costs = field(default_factory=Costs)
    _known: dict[tuple[int, FreqTime | None, int | None], Cost] = field(default_factory=dict)
    _followed: dict[int, Cost] = field(default_factory=dict)

    def add(
        self,
        lengths: Sequence[int],
        patch: FreqTime | None,
        kept: Sequence[Int[Tensor, " _"]] | None,
        *,
        again: bool = False,
    ) -> None:
        """Count one forward and backward pass.

        Args:
            lengths: frames of each clip.
            patch: patch size; None: the model's own.
            kept: which patches of each clip are used; None: all.
            again: whether the clips have been counted already, in another view.
        """
        self.costs.clips += 0 if again else len(lengths)
        for i, frames in enumerate(lengths):
            key = (frames, patch, None if kept is None else len(kept[i]))
            if key not in self._known:
                size = FreqTime(self.model.frontend.num_mels, frames)
                self._known[key] = cost_of(self.model, size, patch=patch, kept=key[2])
            cost = self._known[key]
            self.costs.tokens += cost.tokens
            self.costs.train_gmacs += both_ways(cost)

    def add_teacher(self, teacher: ModelConfig, lengths: Sequence[int]) -> None:
        """Count one forward pass of a model that is followed.

        Args:
            teacher: which.
            lengths: frames of each clip.
        """
        for frames in lengths:
            if frames not in self._followed:
                size = FreqTime(teacher.frontend.num_mels, frames)
                self._followed[frames] = cost_of(teacher, size)
            self.costs.train_gmacs += self._followed[frames].gmacs

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Add the time of a block.

        Args:
            what: field of :class:`Costs` that it is added to.
        """
        began = time.monotonic()
        yield
        setattr(self.costs, what, getattr(self.costs, what) + time.monotonic() - began)

    def close(self, accelerator: Accelerator) -> dict[str, Any]:
        """The costs of the epoch, of all processes together; the next begins at zero.

        Times are the mean over the processes, which work side by side.

        Args:
            accelerator: of the run.
        """
        sums, count = asdict(self.costs), accelerator.num_processes
        self.costs = Costs()
        if count > 1:
            values = torch.tensor(list(sums.values()), dtype=torch.float64)
            total: Tensor = accelerator.reduce(values.to(accelerator.device))
            sums = dict(zip(sums, total.tolist(), strict=True))
        shared = {name: value / count for name, value in sums.items() if name.endswith("_s")}
        whole = {name: round(sums[name]) for name in ("clips", "tokens")}
        return {**sums, **shared, **whole, "peak_mb": peak_mb()}


def both_ways(cost: Cost) -> float:
    """Multiply-adds (10^9) of a forward and a backward pass of one clip."""
    return (1 + GRADIENTS) * cost.gmacs - cost.embed


def reference_config(architecture: Architecture) -> ModelConfig:
    """A model to count by; its head, which hardly counts, is taken for one class.

    Args:
        architecture: of the model.
    """
    return model_config(architecture, name="", labels=("",), task="single-label")


def clip_gmacs(architecture: Architecture) -> float:
    """Multiply-adds (10^9) of training on one clip of the size that a model is made for.

    Args:
        architecture: of the model.
    """
    return both_ways(cost_of(reference_config(architecture), freq_time(architecture.input_size)))


def macs_text(gmacs: float) -> str:
    """Multiply-adds as people read them.

    Args:
        gmacs: in units of 10^9.
    """
    for size, unit in ((1e6, "PMACs"), (1e3, "TMACs")):
        if gmacs >= size:
            return f"{gmacs / size:.4g} {unit}"
    return f"{gmacs:.3g} GMACs"


def speed_text(row: Mapping[str, Any], seconds: float) -> str:
    """How fast an epoch was, what it waited for, and its memory, as people read it.

    Args:
        row: of the epoch, with its costs.
        seconds: that it took.
    """
    waited = 100 * row["data_s"] / seconds
    return (
        f"{row['clips_per_s']:.0f} clips/s, {row['tokens'] / seconds:,.0f} tokens/s, "
        f"{waited:.0f} % waiting for clips, {row['peak_mb'] / 1000:.1f} GB"
    )


def forget_peak() -> None:
    """Begin to measure the most memory anew, so that a phase is not charged with another's.

    Where a CPU's system cannot (others than Linux), the process has one peak.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError), Path("/proc/self/clear_refs").open("w") as file:
        file.write("5")


def peak_mb() -> float:
    """Most memory since :func:`forget_peak`: of the GPU where there is one, else of the process.

    In MB (10^6 bytes).
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
