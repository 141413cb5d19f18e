"""Values of a view as words on a command line: how tyro reads and shows them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

from melastic.errors import InputError
from melastic.frontend.config import Level
from melastic.patches.dials import (
    Pooling,
    check_hop,
    check_length,
    check_share,
    pooling_of,
    size_of,
    size_text,
)

T = TypeVar("T")


def one(read: Callable[[str], T], metavar: str, write: Callable[[T], str]) -> Any:
    """How tyro reads an option with one value; None where it is left out.

    Args:
        read: text to value; an InputError says what would work.
        metavar: what help shows in the value's place.
        write: value to text.
    """
    return PrimitiveConstructorSpec[Any](
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: ["None" if value is None else write(value)],
    )


def several(read: Callable[[str], T], metavar: str, write: Callable[[T], str], example: str) -> Any:
    """How tyro reads an option with one or more values; an empty tuple where it is left out.

    Args:
        read: text to value; an InputError says what would work.
        metavar: what help shows in a value's place.
        write: value to text.
        example: values that would work.
    """
    return several_of(lambda word: (read(word),), metavar, write, example)


def several_of(
    read: Callable[[str], tuple[T, ...]], metavar: str, write: Callable[[T], str], example: str
) -> Any:
    """How tyro reads an option in which a word may stand for several values.

    Args:
        read: text to values; an InputError says what would work.
        metavar: what help shows in a word's place.
        write: value to text.
        example: words that would work.
    """

    def read_all(words: list[str]) -> tuple[T, ...]:
        if not words:
            raise InputError(f"one value or more must follow, got none; try {example}")
        return tuple(value for word in words for value in read(word))

    return PrimitiveConstructorSpec[Any](
        nargs="*",
        metavar=f"{metavar} [{metavar} ...]",
        instance_from_str=read_all,
        is_instance=lambda _: True,
        str_from_instance=lambda values: [write(value) for value in values],
    )


def number(word: str) -> float:
    """A number.

    Raises:
        InputError: if it is none.
    """
    try:
        return float(word)
    except ValueError:
        raise InputError(f"a number must follow, got {word!r}; try 1") from None


def hop(word: str) -> float:
    """A frame shift (ms)."""
    value = number(word)
    check_hop(value)
    return value


def seconds(word: str) -> float | None:
    """A length (s), or ``all`` for the whole clip."""
    if word == "all":
        return None
    value = number(word)
    check_length(value)
    return value


def share(word: str) -> float:
    """A share of the tokens."""
    value = number(word)
    check_share(value)
    return value


def level(word: str) -> Level | None:
    """A floor below a clip's own level (dB), or ``none`` for log-mels as they are."""
    return None if word.lower() == "none" else Level(floor_db=number(word))


def length_text(value: float | None) -> str:
    """The inverse of :func:`seconds`."""
    return "all" if value is None else f"{value:g}"


SizeOf = Annotated[int | tuple[int, int], one(size_of, "N|FxT", size_text)]
PatchSize = Annotated[int | tuple[int, int] | None, one(size_of, "N|FxT", size_text)]
Hop = Annotated[float | None, one(hop, "MS", "{:g}".format)]
Length = Annotated[float | None, one(seconds, "S", length_text)]
LevelOf = Annotated[Level | None, one(level, "DB|none", lambda value: f"{value.floor_db:g}")]
PoolingOf = Annotated[Pooling, one(pooling_of, "none|meanN|maxN", str)]
Share = Annotated[float, one(share, "SHARE", "{:g}".format)]
PatchSizes = Annotated[
    tuple[int | tuple[int, int], ...], several(size_of, "N|FxT", size_text, "8 16 128x4")
]
HopList = Annotated[tuple[float, ...], several(hop, "MS", "{:g}".format, "10 20")]
PoolingList = Annotated[
    tuple[Pooling, ...], several(pooling_of, "none|meanN|maxN", str, "none mean2")
]
LengthList = Annotated[tuple[float | None, ...], several(seconds, "S|all", length_text, "1 all")]
PathList = Annotated[tuple[Path, ...], several(Path, "PATH", str, "runs/fixed-16")]
ShareList = Annotated[tuple[float, ...], several(share, "SHARE", "{:g}".format, "1 0.5")]
