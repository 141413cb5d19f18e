"""When a phase whose epochs are auto ends.

The rule compares the next epoch here with the next epoch at the resolution that follows, each by
what it takes away from the loss for its operations. An epoch takes away a share of what is left of
the loss: the first share is large, and falls as the phase comes near to what its resolution can
tell apart. How large it would be at the next resolution is not known before; taken for it is the
largest share that this phase had, since what follows meets what this phase could not see as this
phase met everything. So a phase ends as soon as

    share now / operations of an epoch here <= largest share so far / operations of an epoch next.

With half the operations of the next, a phase goes on until an epoch takes away less than half of
what it did at its best. Shares are those of the loss on the held-out clips, or of the training loss
where none are held out, and means over :data:`WINDOW` epochs, so that no phase that still learns is
shorter than twice that unless the budget is. Nothing is drawn and nothing remembered: the rule is a
function of the rows that are recorded anyway.

Limits: after its first epochs a network that began from random numbers takes away larger shares
than any later phase, so the first phase ends rather early than late; a training loss that has a
floor (smoothed labels, mixed clips) shows smaller shares than there are, towards the end above all;
a small held-out part makes them noisy.

Source: ours; From Coarse to Fine names a scheduler of phases as future work.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from melastic.training.phases import Phase

WINDOW = 2
"""Epochs over which the fall of a loss is measured."""


def shares(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The share of the loss that an epoch has taken away, at each measured epoch that shows one.

    Args:
        rows: of a phase's ``metrics.jsonl``.
    """
    held_out = any("val" in row for row in rows)
    points = [
        (int(row["epoch"]), max(1e-12, row["val"]["loss"] if held_out else row["loss"]))
        for row in rows
        if ("val" if held_out else "loss") in row
    ]
    found = []
    for epoch, loss in points:
        earlier = [point for point in points if point[0] <= epoch - WINDOW]
        if earlier:
            since, before = earlier[-1]
            found.append(1 - (loss / before) ** (1 / (epoch - since)))
    return found


def moves_on(rows: Sequence[Mapping[str, Any]], price: float) -> bool:
    """Whether an epoch at the next resolution promises more for its operations than one here.

    Args:
        rows: of the phase's ``metrics.jsonl`` so far.
        price: operations of an epoch here, in those of an epoch of the next phase.
    """
    found = shares(rows)
    return bool(found) and found[-1] <= price * max(found)


def said(rows: Sequence[Mapping[str, Any]], price: float, most: int) -> str:
    """Why a phase ended, for people.

    Args:
        rows: of the phase's ``metrics.jsonl``.
        price: operations of an epoch here, in those of an epoch of the next phase.
        most: epochs that it might have had.
    """
    found = shares(rows)
    if not moves_on(rows, price) and rows[-1]["epoch"] < most:
        return "the phase ends because no epoch was better for as long as run.patience says"
    if not moves_on(rows, price):
        return "the phase ends because the epochs that may be given to it are used up"
    return (
        f"the phase ends: an epoch takes away {100 * found[-1]:.1f} % of the loss, at best it was "
        f"{100 * max(found):.1f} %, for {price:.2f} of the operations of an epoch of the next"
    )


def most_epochs(
    phases: Sequence[Phase], done: Sequence[int], prices: Sequence[float], budget: float
) -> int:
    """The epochs that a phase may have at most; the last phase has all of them.

    What later phases are owed is kept for them: their epochs where these are a number, an equal
    part of the budget for the last phase, and one epoch for those in between.

    Args:
        phases: of the run; none has an equal part.
        done: epochs of those before.
        prices: what an epoch of each takes of the budget.
        budget: of the run.
    """
    number, last = len(done), len(phases) - 1
    own = phases[number].epochs
    if isinstance(own, int):
        return own
    left = budget - sum(epochs * price for epochs, price in zip(done, prices, strict=False))
    for i in range(number + 1, len(phases)):
        epochs = phases[i].epochs
        if isinstance(epochs, int):
            left -= epochs * prices[i]
        else:
            left -= budget / len(phases) if i == last else prices[i]
    return max(1, math.floor(left / prices[number] + 1e-9))
