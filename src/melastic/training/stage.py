"""Where a run stands among the phases of another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from melastic.progress import clock_text
from melastic.training.config import OptimConfig, TrainConfig
from melastic.training.record import read_metrics
from melastic.training.state import Progress

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A phase as its loop sees it; the only one unless told otherwise."""

    name: str = ""
    """What people read in front of its epochs, such as ``phase 1/3, ``."""
    number: int = 0
    """Of the phase, from 1; 0: the run has none."""
    gmacs: float = 0.0
    """Operations of the phases before (10^9)."""
    tokens: int = 0
    """Tokens of the phases before."""
    seconds: float = 0.0
    """Time of their steps (s)."""
    later: float | None = 0.0
    """Epochs of this phase that cost as much as all phases after it; None: not known."""
    ends: Callable[[Rows], bool] | None = None
    """Whether the phase ends, given its rows so far; None: after the epochs that it has."""

    def title(self, epoch: int, epochs: int) -> str:
        """How people read the number of an epoch.

        Args:
            epoch: its number, from 1.
            epochs: of the phase, or the most it may have.
        """
        return f"{self.name}epoch {epoch}/{'at most ' if self.ends else ''}{epochs}"

    def to_go(self, progress: Progress, optim: OptimConfig) -> str:
        """How long the run still takes, by what it has taken so far.

        Args:
            progress: of the phase, an epoch at least.
            optim: of the phase.
        """
        done, count = progress.epoch, optim.epochs
        if optim.steps is not None:
            done, count = progress.step, optim.steps
        seconds = progress.elapsed_s / done * (count - done + (self.later or 0.0))
        return f"{clock_text(seconds)} to go{' in this phase' if self.later is None else ''}"

    def placed(self, progress: Progress) -> dict[str, Any]:
        """Where an epoch stands in a run of several phases, and what that has cost so far.

        Args:
            progress: of the phase, the epoch included.
        """
        if not self.number:
            return {}
        return {
            "phase": self.number,
            "run_gmacs": self.gmacs + progress.train_gmacs,
            "run_tokens": self.tokens + progress.tokens,
            "run_elapsed_s": self.seconds + progress.elapsed_s,
        }

    def is_over(
        self, progress: Progress, config: TrainConfig, folder: Path, accelerator: Accelerator
    ) -> bool:
        """Whether all epochs are done, or too many without a better score, or the phase ends.

        Only an epoch that was evaluated ends a run for want of a better score. The main process
        decides on the last, for it writes the rows.

        Args:
            progress: how far the run has come.
            config: its settings.
            folder: where its rows are.
            accelerator: what it computes on.
        """
        best, patience = progress.best_epoch, config.run.patience
        if config.optim.is_over(progress.epoch, progress.step):
            return True
        evaluated = progress.epoch % config.run.evaluate_every == 0
        waited = 0 if best is None else progress.epoch - best
        if patience is not None and evaluated and waited >= patience:
            return True
        if self.ends is None:
            return False
        answer = [accelerator.is_main_process and self.ends(read_metrics(folder))]
        if accelerator.num_processes > 1:
            broadcast_object_list(answer)
        return answer[0]


ALONE = Stage()
"""Of a run that is no phase of another."""
