"""The command line: verbs with the words of the Python functions.

Results go to stdout, progress and warnings to stderr. Exit code 0 only on success, 2 for wrong
usage or bad input (one clear line), 1 for a fault of ours.
"""

import errno
import importlib
import io
import sys
from collections.abc import Collection, Sequence

from melastic.errors import InputError, unknown_name
from melastic.memory import keep_freed_memory

VERBS = {
    "train": ("train a classifier from a recipe or a config.json", "train:train"),
    "pretrain": ("train an encoder on clips without labels", "train:pretrain"),
    "evaluate": ("score a classifier on labelled clips", "evaluate:evaluate"),
    "sweep": ("score a classifier through many views: table and figure", "sweep:sweep"),
    "compare": ("hold finished runs to the first: table and figure", "compare:compare"),
    "classify": ("name the sounds in audio files", "classify:classify"),
    "embed": ("write one vector for each audio file", "classify:embed"),
    "models": ("list presets and bundled weights", "show:models"),
    "recipes list": ("list training recipes", "show:recipes"),
    "recipes show": ("print a recipe as a config.json", "show:recipe"),
    "info": ("describe a model", "show:info"),
    "convert": ("make a model folder of official weights", "convert:convert"),
    "doctor": ("examine a manifest, and this machine", "data:doctor"),
    "data prepare": ("write the manifest of a known data set", "data:prepare"),
    "data join": ("write one manifest of several", "data:join"),
    "data stats": ("measure mean and deviation of log-mels", "data:stats"),
}
"""Each verb: what it does, and the function that does it."""
OUTSIDE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
}
"""What the system refuses is no fault of ours."""
HELP = ("-h", "--help")
"""Words that ask for help."""
ALONE = {"recipes": "recipes list"}
"""Verbs that mean another one when nothing follows."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(_run(arguments))
    except InputError as error:
        _complain(str(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in OUTSIDE:
            raise
        _complain(
            f"{error.filename or 'a file'}: {error.strerror}; name another place, or make room"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        _complain("stopped")
        sys.exit(130)


def _run(arguments: list[str]) -> int:
    """Find the verb and call it; returns the exit code."""
    if not arguments or arguments[0] in HELP:
        _print(_overview(VERBS))
        return 0
    if len(arguments) > 1 and arguments[1] in HELP and (group := _below(arguments[0])):
        _print(_overview(group))
        return 0
    if arguments[0] == "--version":
        from melastic import __version__

        _print(f"melastic {__version__}")
        return 0
    verb, rest = _verb(arguments)
    module, function = VERBS[verb][1].split(":")
    command = getattr(importlib.import_module(f"melastic.cli.{module}"), function)
    return int(command(rest, f"melastic {verb}") or 0)


def _verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb that begins a command line, and what follows it.

    Raises:
        InputError: if there is no such verb.
    """
    for words in (2, 1):
        verb = " ".join(arguments[:words])
        if verb in VERBS:
            return verb, arguments[words:]
    first = arguments[0]
    below = [verb.split()[1] for verb in _below(first)]
    if first in ALONE and (len(arguments) == 1 or arguments[1].startswith("-")):
        return ALONE[first], arguments[1:]
    if below and len(arguments) > 1:
        raise unknown_name(f"command 'melastic {first}'", arguments[1], below)
    if below:
        raise InputError(f"'melastic {first}' needs one of: {', '.join(below)}")
    raise unknown_name("command", first, {verb.split()[0] for verb in VERBS})


def _below(first: str) -> list[str]:
    """The verbs of two words that begin with this one."""
    return [verb for verb in VERBS if verb.startswith(f"{first} ")]


def _overview(verbs: Collection[str]) -> str:
    """What ``melastic --help`` prints of all verbs, ``melastic data --help`` of some."""
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {VERBS[verb][0]}" for verb in verbs]
    return "\n".join(
        [
            "melastic: audio classifiers that stretch",
            "",
            "usage: melastic COMMAND [ARGUMENTS]    (melastic COMMAND --help says more)",
            "",
            *lines,
        ]
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write("melastic: error: " + " ".join(text.split()) + "\n")
