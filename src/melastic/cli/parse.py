"""Arguments of commands, and their results on stdout."""

import codecs
import contextlib
import io
import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from melastic.errors import InputError

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], prog: str, *, default: T | None = None) -> T:
    """Arguments to a dataclass.

    Raises:
        InputError: if they are wrong; one line, where tyro draws a box.
    """
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            if default is None:
                return tyro.cli(kind, args=list(arguments), prog=prog)
            return tyro.cli(kind, args=list(arguments), prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_undrawn(drawn.getvalue(), prog)) from None


def _undrawn(box: str, prog: str) -> str:
    """The words of an error that is drawn as a box."""
    lines = [line.strip(" \u2502\u256d\u256e\u2570\u256f\u2500|") for line in box.splitlines()]
    words = " ".join(
        line for line in lines if line and "full helptext" not in line and line.strip("+-")
    )
    words = re.sub(r"\[/?bold\]", "", words.partition(" Argument helptext:")[0])
    for opening in ("Value error", "Error parsing data:", "Parsing error"):
        words = words.removeprefix(opening).strip()
    return f"{_plain(words)}; '{prog} --help' lists what may be given"


def _plain(words: str) -> str:
    """What is wrong, without the help texts that tyro adds."""
    if unknown := re.search(r"Unrecognized options: ([^\s,]+)", words):
        near = re.findall(r"--[\w.-]+", words.partition("Perhaps you meant:")[2])
        hint = f", did you mean {near[0]}?" if near else ""
        return f"unknown option {unknown[1]}{hint}"
    if missing := re.search(r"Missing from .*?: (--[\w.-]+ \S+)", words):
        return f"{missing[1]} is required"
    if typed := re.search(r"(--[\w.-]+): no type matching (.+?) could .*? from \[(.*?)\]", words):
        given = " ".join(re.findall(r"'(.*?)'", typed[3])) or typed[3]
        return f"{typed[1]} takes {_kinds(typed[2])}, got {given!r}"
    return words


def _kinds(words: str) -> str:
    """Kinds of values as people read them, such as ``INT or INT INT``."""
    kinds = (kind.strip("{}").lower() for kind in words.split("|") if kind != "{None}")
    return " or ".join(kinds).upper()


def print_json(value: Any) -> None:
    """One JSON document; numbers that are none, which JSON does not know, are null."""
    plain = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    text = json.dumps(_finite(value), indent=2, ensure_ascii=plain, allow_nan=False)
    sys.stdout.write(text + "\n")


def _finite(value: Any) -> Any:
    """The same with None in place of infinity and nan."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_options(options: object, names: Sequence[str], low: int) -> None:
    """Refuse numbers that are too small; None is not looked at.

    Args:
        options: arguments of a command.
        names: of the fields.
        low: least value.

    Raises:
        InputError: naming the option.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < low:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is at least {low}, got {value}; leave it out")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False, emoji=False).print(table)
