"""Files that are written whole or not at all."""

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from melastic.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes a file's place once it is completely written.

    A process that dies in between leaves the old file, or none; never half of one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written (its folder: {error.strerror}); name another place"
        ) from None
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (it is a folder); name another place")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _clear_away(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as any new file; safetensors would hide it from others
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _clear_away(path: Path) -> None:
    """Delete what processes that died have left half written in place of a file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    """Whether there is a process of that number, as far as this machine knows."""
    if os.name == "nt":  # there the signal 0 is an interrupt
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
