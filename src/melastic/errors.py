"""Errors that a user can cause."""

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args, get_origin, get_type_hints


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


def check_choices(kind: str, value: object) -> None:
    """Refuse fields of a dataclass that hold a word which is not among their choices.

    Args:
        kind: what messages call it, such as ``"model"``.
        value: of a dataclass, some of whose fields are ``Literal``.

    Raises:
        InputError: naming the field.
    """
    for name, hint in get_type_hints(type(value)).items():
        word = getattr(value, name)
        if get_origin(hint) is Literal and word not in get_args(hint):
            raise unknown_name(f"{kind} {name}", str(word), map(str, get_args(hint)))


@contextmanager
def about(named: object) -> Iterator[None]:
    """Errors inside begin with what they are about, such as the name of a file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{named}: {error}") from None


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
