"""Phases of training from coarse to fine: what they are, and how they are written."""

import re
from dataclasses import dataclass
from typing import Literal

from melastic.errors import InputError

Operator = Literal["hop", "mean", "max", "patch"]
"""What lowers the time resolution: longer hops, pooled frames, or patches wider in time."""
OPERATORS: tuple[Operator, ...] = ("hop", "mean", "max", "patch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training at one time resolution; ``None`` keeps what ``optim`` says."""

    operator: Operator = "hop"
    """What lowers the time resolution."""
    factor: float = 1.0
    """How much coarser time is than in the finished model; 1: full resolution."""
    epochs: int = 10
    """Passes over the training clips."""
    lr: float | None = None
    """Learning rate at its peak."""
    schedule: Literal["cosine", "constant", "step"] | None = None
    """Course of the learning rate after warm-up."""
    warmup_steps: int | None = None
    """Steps over which the learning rate rises from zero."""
    batch_tokens: int | None = None
    """Most tokens in a step's batch; the same number of tokens holds more coarse clips."""

    def __post_init__(self) -> None:
        """Refuse what is no compression, or no training."""
        if not self.factor >= 1 or self.epochs < 1:
            raise InputError(
                f"a phase has a factor and epochs of at least 1, got {self.factor:g} and "
                f"{self.epochs}; try hop2:10"
            )
        if self.operator != "hop" and self.factor != int(self.factor):
            raise InputError(
                f"{self.operator} takes a whole factor, got {self.factor:g}; only hop can be "
                "lengthened by a fraction"
            )


def phase_of(text: str) -> Phase:
    """The phase that a text such as ``hop4:10`` or ``patch2:5@0.001`` stands for.

    Raises:
        InputError: if it stands for none.
    """
    match = re.fullmatch(r"([a-z]+)?([0-9.]+)?:(\d+)(?:@([0-9.eE+-]+))?", text.strip())
    try:
        if match is None or (match[1] is not None and match[1] not in (*OPERATORS, "full")):
            raise ValueError
        return Phase(
            operator=next((name for name in OPERATORS if name == match[1]), "hop"),
            factor=1.0 if match[2] is None else float(match[2]),
            epochs=int(match[3]),
            lr=None if match[4] is None else float(match[4]),
        )
    except ValueError:
        raise InputError(
            f"a phase reads OPERATORfactor:epochs or full:epochs (operators {', '.join(OPERATORS)};"
            f" @lr may follow), got {text!r}; try hop4:10 hop2:10 full:20"
        ) from None


def phase_text(phase: Phase) -> str:
    """The inverse of :func:`phase_of`."""
    factor = "full" if phase.factor == 1 else f"{phase.operator}{phase.factor:g}"
    return f"{factor}:{phase.epochs}" + ("" if phase.lr is None else f"@{phase.lr:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """How one phase hands over to the next; what is not usual is there to be compared with."""

    optimizer: Literal["anew", "carried"] = "anew"
    """Whether the optimiser's memory begins anew or is that of the phase before."""
    schedule: Literal["anew", "continued"] = "anew"
    """Whether the learning rate rises and falls in each phase, or once over all of them."""
    positions: Literal["fitted", "new"] = "fitted"
    """Whether positions are fitted to the new resolution, or begin as random numbers."""
