"""Progress and notes for people, on stderr; results go to stdout elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

stderr = Console(stderr=True, soft_wrap=True, emoji=False)
"""Where people are told things."""
OnAdvance = Callable[[int, int], None]
"""Told about progress: done, in all."""


@contextlib.contextmanager
def bar(description: str, *, quiet: bool = False) -> Iterator[OnAdvance]:
    """A progress bar with the time that remains; gone when the context ends.

    Args:
        description: what is being done.
        quiet: show nothing.
    """
    if quiet or not stderr.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def note(text: str, *, quiet: bool = False) -> None:
    """One line for people."""
    if not quiet:
        stderr.print(text, highlight=False, markup=False)


def clock_text(seconds: float) -> str:
    """A duration as people read it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
