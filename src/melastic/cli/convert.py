"""``melastic convert``."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from melastic.checkpoints.convert import ORIGINS, facts_of
from melastic.checkpoints.convert.common import Facts
from melastic.checkpoints.convert.files import read_checkpoint, read_class_names
from melastic.checkpoints.convert.parity import LIMIT
from melastic.checkpoints.convert.report import Report
from melastic.checkpoints.convert.report import convert as convert_state
from melastic.cli.parse import parse, print_json, print_table
from melastic.errors import InputError
from melastic.progress import bar, note


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Make a model folder of official weights, after a comparison with the official maths.

    --labels takes names, or one text or CSV file that holds them.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Checkpoint: a file of torch.save (.pth, .pt, .bin), or .safetensors."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder that the model is saved to."""
    facts: Annotated[Facts, tyro.conf.arg(name="")]
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def convert(arguments: Sequence[str], prog: str) -> int:
    """Make a model folder of official weights; exit code 1 if it computes something else."""
    if not arguments or arguments[0].startswith("-"):
        return _without_origin(arguments, prog)
    origin = arguments[0]
    args = parse(_arguments_of(origin), arguments[1:], f"{prog} {origin}")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise InputError(f"{args.out}: there is something already; name a new or empty folder")
    state, facts = read_checkpoint(args.file), _with_labels_read(args.facts)
    with bar("comparing with the official maths"):
        model, report = convert_state(state, origin, facts)
    if report.passed:
        model.save(args.out)
    if args.json:
        print_json({**report.to_json(), "saved": str(args.out) if report.passed else None})
    else:
        print_table(["", ""], _rows(report))
    if report.passed:
        note(f"{args.out}: saved")
        return 0
    worst = next(one for one in report.comparisons if not one.passed)
    note(
        f"melastic: fault: logits differ by {worst.difference:.2g} from the official ones at "
        f"{worst.input}, more than {LIMIT:g}; nothing was saved, please report it"
    )
    return 1


def _arguments_of(origin: str) -> type[ConvertArguments]:
    """The arguments with the facts of an origin."""
    kind: Any = facts_of(origin)
    return dataclasses.make_dataclass(
        ConvertArguments.__name__,
        [("facts", Annotated[kind, tyro.conf.arg(name="")])],
        bases=(ConvertArguments,),
        namespace={"__doc__": ConvertArguments.__doc__},
        frozen=True,
        kw_only=True,
    )


def _without_origin(arguments: Sequence[str], prog: str) -> int:
    """Say how it is called."""
    usage = f"{prog} ORIGIN FILE OUT [--FACT VALUE …] [--json]"
    origins = ", ".join(ORIGINS)
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(
            f"usage: {usage}\n\nMake a model folder of official weights.\n\norigins: {origins}\n"
            f"'{prog} ORIGIN --help' lists the facts that such a file does not hold.\n"
        )
        return 0
    raise InputError(f"name the origin of the weights first ({origins}); usage: {usage}")


def _with_labels_read(facts: Facts) -> Facts:
    """Facts in which a file of labels is replaced by what it holds."""
    if facts.labels is None or len(facts.labels) != 1:
        return facts
    path = Path(facts.labels[0])
    if path.is_file() or path.suffix.lower() in (".csv", ".txt"):
        return dataclasses.replace(facts, labels=tuple(read_class_names(path)))
    return facts


def _rows(report: Report) -> list[tuple[str, str]]:
    """The report, line by line."""
    dropped = f": {', '.join(report.dropped)}" if report.dropped else ""
    rows = [
        ("origin", report.origin),
        ("tensors read", str(report.tensors)),
        ("tensors dropped", f"{len(report.dropped)}{dropped}"),
        *(("absorbed", quirk) for quirk in report.absorbed),
        ("facts given", _listed(report.given)),
        ("facts read off", _listed(report.read_off)),
        ("facts assumed", _listed(report.assumed)),
        ("parameters", f"{report.parameters:,}"),
    ]
    for one in report.comparisons:
        rows.append(("logit difference", f"{one.difference:.2e}  at {one.input}"))
    if not report.comparisons:
        rows.append(("logit difference", "not to be had: the head is new"))
    return rows


def _listed(facts: Any) -> str:
    """Facts as one would write them."""
    return ", ".join(f"{name} {_short(value)}" for name, value in facts.items()) or "none"


def _short(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, list | tuple) and all(isinstance(item, int) for item in value):
        return " x ".join(map(str, value))
    if isinstance(value, list | tuple):
        return f"({len(value)})"
    return f"{value:g}" if isinstance(value, float) else str(value)
