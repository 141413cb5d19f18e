"""Arguments of commands, and their results on stdout."""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

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
    words = words.partition(" Argument helptext:")[0]
    for opening in ("Value error", "Error parsing data:", "Parsing error"):
        words = words.removeprefix(opening).strip()
    return f"{words}; '{prog} --help' lists what may be given"


def print_json(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False).print(table)
