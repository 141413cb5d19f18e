"""Errors that a user can cause."""

import difflib
import math
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line: rule, value, remedy."""


class DivergedError(InputError):
    """Training left the finite numbers."""


def check_range(
    where: str, config: object, names: Iterable[str], low: float, high: float = math.inf
) -> None:
    """Refuse settings below or above what they may be; None is not looked at.

    Args:
        where: what the settings belong to, such as ``"optim"``.
        config: holds them as attributes.
        names: of the settings.
        low: least value.
        high: largest value.

    Raises:
        InputError: naming the first one that is outside.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and (not low <= value <= high or abs(value) == math.inf):
            rule = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
            raise InputError(f"{where}.{name} is {rule}, got {value}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a list, with the nearest names that are.

    Args:
        kind: what the name should have been, such as ``"model"``.
        name: what was given.
        known: the names that would have worked.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return InputError(f"unknown {kind} {name!r}; {hint}")
