"""Phases of training from coarse to fine: what they are, and how they are written."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from melastic.errors import InputError

Operator = Literal["hop", "mean", "max", "patch"]
"""What lowers the time resolution: longer hops, pooled frames, or patches wider in time."""
OPERATORS: tuple[Operator, ...] = ("hop", "mean", "max", "patch")
PRESETS: dict[str, tuple[float, ...]] = {
    "2-phase": (2, 1),
    "3-phase": (4, 2, 1),
    "gradual": (4, 3, 2, 1.5, 1),
}
"""Factors of phases by the name of all of them; fractions are left out where none can be had."""
COARSEST = 100
"""Largest factor of a phase: a second for a frame of 10 ms."""
EXAMPLE = "hop4:10 hop2:10 full:20"
"""Phases that would work."""
STEPS = "steps"
"""What follows a number of steps, which would be epochs without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training at one time resolution; ``None`` keeps what ``optim`` says."""

    operator: Operator = "hop"
    """What lowers the time resolution."""
    factor: float = 1.0
    """How much coarser time is than in the finished model; 1: full resolution."""
    epochs: int | Literal["equal", "auto"] = "equal"
    """Passes over the training clips; equal: an equal part of ``optim.epochs``; auto: as long as
    they are worth their operations (``training/automatic.py``)."""
    steps: int | None = None
    """Steps in place of epochs."""
    lr: float | None = None
    """Learning rate at its peak."""
    schedule: Literal["cosine", "constant", "step"] | None = None
    """Course of the learning rate after warm-up."""
    warmup_steps: int | None = None
    """Steps over which the learning rate rises from zero."""
    batch_tokens: int | None = None
    """Most tokens in a step's batch; None: as ``passing.batch`` says."""

    def __post_init__(self) -> None:
        """Refuse what is no compression, or no training."""
        if not 1 <= self.factor <= COARSEST or (isinstance(self.epochs, int) and self.epochs < 1):
            raise InputError(
                f"a phase has a factor of 1 to {COARSEST} and epochs of at least 1, got "
                f"{self.factor:g} and {self.epochs}; try hop2:10"
            )
        if self.steps is not None and (self.steps < 1 or self.epochs != "equal"):
            raise InputError(
                f"a phase has epochs or at least one step, got {self.epochs} and {self.steps}; try "
                f"hop2:500{STEPS}"
            )
        for name in ("lr", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(
                    f"the {name} of a phase is positive, got {value:g}; try "
                    f"{'hop2:10@0.001' if name == 'lr' else '2000'}"
                )
        if self.operator != "hop" and self.factor != int(self.factor):
            raise InputError(
                f"{self.operator} takes a whole factor, got {self.factor:g}; only hop can be "
                "lengthened by a fraction"
            )


def phases_in(text: str) -> tuple[Phase, ...]:
    """The phases that one word stands for: one such as ``hop4:10``, or a preset's.

    A preset is ``2-phase``, ``3-phase`` or ``gradual``; another operator than hop may follow
    (``3-phase-mean``), and ``:auto``.

    Raises:
        InputError: if it stands for none.
    """
    names, operators = "|".join(PRESETS), "|".join(OPERATORS)
    match = re.fullmatch(rf"({names})(?:-({operators}))?(:auto)?", text.strip())
    if match is None:
        return (phase_of(text),)
    operator: Operator = next((name for name in OPERATORS if name == match[2]), "hop")
    return tuple(
        Phase(operator=operator, factor=factor, epochs="auto" if match[3] else "equal")
        if factor > 1
        else Phase(epochs="auto" if match[3] else "equal")
        for factor in PRESETS[match[1]]
        if operator == "hop" or factor == int(factor)
    )


def phase_of(text: str) -> Phase:
    """The phase that a text such as ``hop4:10``, ``hop4:500steps`` or ``patch2:auto@0.001`` means.

    Raises:
        InputError: if it stands for none.
    """
    match = re.fullmatch(
        rf"(?:([a-z]+)([0-9.]+)|full)(?::(\d+|auto)({STEPS})?)?(?:@([0-9.eE+-]+))?", text.strip()
    )
    try:
        if match is None or (match[1] is not None and match[1] not in OPERATORS):
            raise ValueError
        words: dict[str | None, Literal["equal", "auto"]] = {None: "equal", "auto": "auto"}
        return Phase(
            operator=next((name for name in OPERATORS if name == match[1]), "hop"),
            factor=1.0 if match[2] is None else float(match[2]),
            epochs=words.get(None if match[4] else match[3]) or int(match[3]),
            steps=int(match[3]) if match[4] else None,
            lr=None if match[5] is None else float(match[5]),
        )
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"a phase reads OPERATORfactor:epochs or full:epochs (operators {', '.join(OPERATORS)};"
            f" epochs may be auto, a number of steps such as 500{STEPS}, or left out, @lr may "
            f"follow), or a preset ({', '.join(PRESETS)}), got {text!r}; try {EXAMPLE}"
        ) from None


def phase_text(phase: Phase) -> str:
    """The inverse of :func:`phase_of`."""
    factor = "full" if phase.factor == 1 else f"{phase.operator}{phase.factor:g}"
    epochs = "" if phase.epochs == "equal" else f":{phase.epochs}"
    length = epochs if phase.steps is None else f":{phase.steps}{STEPS}"
    return f"{factor}{length}" + ("" if phase.lr is None else f"@{phase.lr:g}")


def counts_steps(phases: Sequence[Phase], steps: int | None) -> bool:
    """Whether some phase has a number of steps instead of epochs.

    Args:
        phases: of a run.
        steps: of all of them, where some have no number of their own; None: they have epochs.
    """
    return any(p.steps is not None or (p.epochs == "equal" and steps is not None) for p in phases)


def check_phases(phases: Sequence[Phase], epochs: int, steps: int | None) -> None:
    """Refuse phases that cannot share epochs or steps.

    Args:
        phases: of a run.
        epochs: of all of them, where some have no number of their own.
        steps: in place of these epochs; None: epochs.

    Raises:
        InputError: if they are too many, of two kinds, or auto without coming from coarse to fine,
            or steps are given that none of them takes a part of.
    """
    open_ended = [p for p in phases if not isinstance(p.epochs, int) and p.steps is None]
    kinds = {phase.epochs for phase in open_ended}
    if "auto" in kinds and (steps is not None or any(phase.steps for phase in phases)):
        raise InputError(
            "phases that are auto share epochs, some steps are given with "
            f"{' '.join(map(phase_text, phases))}; leave optim.steps out, and give the others "
            "epochs"
        )
    if len(kinds) > 1:
        raise InputError(
            "phases without a number of epochs are all auto or all equal parts, got "
            f"{' '.join(map(phase_text, phases))}; write :auto at each, or at none"
        )
    if steps is not None and phases and not open_ended:
        raise InputError(
            f"optim.steps is {steps} and all phases have numbers of their own, "
            f"{' '.join(map(phase_text, phases))}; leave optim.steps or the numbers out"
        )
    unit, most = ("epochs", epochs) if steps is None else (STEPS, steps)
    least = sum(_given(phases, unit)) + len(open_ended)
    if kinds and least > most:
        raise InputError(
            f"these phases need {least} {unit} or more, optim.{unit} is {most}; raise it, or "
            "give fewer phases"
        )
    for phase, following in pairwise(phases):
        if phase.epochs == "auto" and phase.factor <= following.factor:
            raise InputError(
                "a phase whose epochs are auto is coarser than the next, got "
                f"{phase_text(phase)} before {phase_text(following)}; give its epochs as a number"
            )


def with_equal_parts(
    phases: Sequence[Phase], epochs: int, steps: int | None = None
) -> tuple[Phase, ...]:
    """Phases whose equal parts are numbers; the first ones, the cheap ones, get what is left over.

    Args:
        phases: of a run.
        epochs: of all of them.
        steps: in place of these epochs; None: epochs.
    """
    waiting = [i for i, p in enumerate(phases) if p.epochs == "equal" and p.steps is None]
    unit, whole = ("epochs", epochs) if steps is None else (STEPS, steps)
    left = whole - sum(_given(phases, unit))
    parts = {
        number: left // len(waiting) + (place < left % len(waiting))
        for place, number in enumerate(waiting)
    }
    return tuple(
        phase
        if i not in parts
        else replace(phase, epochs=parts[i])
        if steps is None
        else replace(phase, steps=parts[i])
        for i, phase in enumerate(phases)
    )


def _given(phases: Sequence[Phase], unit: str) -> list[int]:
    """Epochs or steps of the phases that have a number of their own."""
    return [n for phase in phases if isinstance(n := getattr(phase, unit), int)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """How one phase hands over to the next; what is not usual is there to be compared with."""

    optimizer: Literal["anew", "carried"] = "anew"
    """Whether the optimiser's memory begins anew or is that of the phase before."""
    schedule: Literal["held", "anew", "continued"] = "held"
    """Whether the learning rate rises in each phase and falls in the last, rises and falls in each,
    or rises and falls once over all of them."""
    warmup: Literal["shared", "each"] = "shared"
    """Whether phases have equal parts of the steps over which the learning rate rises, so that all
    of them rise for as long as one phase would, or each has all of them."""
    batch: Literal["clips", "tokens"] = "clips"
    """Whether steps hold as many clips as at full resolution, or as many tokens: more clips in
    fewer steps."""
    positions: Literal["fitted", "new"] = "fitted"
    """Whether positions are fitted to the new resolution, or begin as random numbers."""
    budget: Literal["epochs", "gmacs"] = "epochs"
    """What ``optim.epochs`` bounds where phases are auto: passes over the clips, or the operations
    of as many passes at full resolution."""
