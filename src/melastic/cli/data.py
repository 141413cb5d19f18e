"""``melastic data`` and ``melastic doctor``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from melastic.cli.parse import check_options, parse, print_json, print_table
from melastic.config import FrontendConfig
from melastic.data.doctor import examine
from melastic.data.doctor_view import render
from melastic.data.features import Features
from melastic.data.join import joined
from melastic.data.manifest import read_manifest, select
from melastic.data.prepare import prepare as prepare_set
from melastic.data.public_sets import DATA_SETS
from melastic.data.sounds import CLIPS_PER_CLASS, write_sound_set
from melastic.errors import InputError, unknown_name
from melastic.progress import bar, note

GENERATED = "sounds"
"""The data set that the package generates itself."""


@dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    """Write the manifest of a known data set."""

    name: Annotated[str, tyro.conf.Positional]
    """esc50, fsdd, asc, speech-commands; or sounds, which is generated beside the manifest."""
    out: Path
    """The manifest (CSV)."""
    root: Path | None = None
    """Folder of the data set, as its authors distribute it."""
    trim_silence: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End each clip where its trailing silence begins (esc50)."""
    clips_per_class: int | None = None
    """Clips of each class (sounds; 60 unless given)."""
    seed: int | None = None
    """Seed of the generated clips (sounds; 0 unless given)."""


@dataclass(frozen=True, kw_only=True)
class JoinArguments:
    """Write one manifest of several, for pretraining on all of them.

    The column ``set`` says which one a clip is from.
    """

    manifests: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """CSV or JSON manifests."""
    out: Path
    """The manifest (CSV)."""
    select: tuple[str, ...] = ()
    """Clips of each manifest, such as split=train; none: all of all."""


@dataclass(frozen=True, kw_only=True)
class StatsArguments:
    """Measure mean and deviation of log-mels: what FrontendConfig calls mean and std."""

    manifest: Annotated[Path, tyro.conf.Positional]
    """CSV or JSON manifest."""
    select: str = "all"
    """Clips, such as split=train."""
    sample_rate: int = 16_000
    """Samples per second (Hz)."""
    num_mels: int = 128
    """Mel bins."""
    hop_ms: float = 10.0
    """Step between frames (ms)."""
    most: int = 1_000_000
    """Most clips that are read, evenly spaced."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


@dataclass(frozen=True, kw_only=True)
class DoctorArguments:
    """Examine a manifest, and what this machine offers."""

    manifest: Annotated[Path | None, tyro.conf.Positional] = None
    """CSV or JSON manifest; none: only the machine."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def prepare(arguments: Sequence[str], prog: str) -> int:
    """Write the manifest of a known data set."""
    args = parse(PrepareArguments, arguments, prog)
    if args.name == GENERATED:
        if args.root is not None or args.trim_silence:
            raise InputError(
                f"{GENERATED} is generated beside --out; drop --root and --trim-silence"
            )
        return _generate(args)
    if args.name not in DATA_SETS:
        raise unknown_name("data set", args.name, (*DATA_SETS, GENERATED))
    if args.root is None:
        raise InputError(f"--root is required for {args.name}: the folder of the data set")
    if own := [f"--{name.replace('_', '-')}" for name in _own(args)]:
        raise InputError(
            f"{own[0]} is for {GENERATED}, which is generated; drop it for {args.name}"
        )
    done = prepare_set(args.name, args.root, args.out, trim_silence=args.trim_silence)
    for line in done.notes:
        note(line)
    parts = ", ".join(f"{value}: {count}" for value, count in done.splits.items())
    sys.stdout.write(
        f"{done.manifest}: {done.clips} clips, {done.labels} labels, {done.split_column} {parts}\n"
    )
    return 0


def join(arguments: Sequence[str], prog: str) -> int:
    """Write one manifest of several."""
    args = parse(JoinArguments, arguments, prog)
    if not args.manifests:
        raise InputError("name the manifests to join, got none; melastic data join A.csv B.csv …")
    rules = args.select or ("all",) * len(args.manifests)
    clips = joined(args.manifests, rules, args.out)
    sys.stdout.write(f"{args.out}: {clips} clips of {len(args.manifests)} manifests\n")
    return 0


def stats(arguments: Sequence[str], prog: str) -> int:
    """Measure mean and deviation of log-mels."""
    args = parse(StatsArguments, arguments, prog)
    check_options(args, ("most",), 1)
    frontend = FrontendConfig(
        sample_rate=args.sample_rate, num_mels=args.num_mels, hop_ms=args.hop_ms
    )
    clips = select(read_manifest(args.manifest, labelled=False), args.select)
    with bar("measuring") as advance:
        found = Features(clips, frontend).statistics(most=args.most, on_clip=advance)
    if args.json:
        print_json({"mean": found.mean, "std": found.std, "clips": min(len(clips), args.most)})
    else:
        print_table(["mean", "std"], [[f"{found.mean:.6f}", f"{found.std:.6f}"]])
    return 0


def doctor(arguments: Sequence[str], prog: str) -> int:
    """Examine a manifest; exit code 2 if some clip cannot be used."""
    args = parse(DoctorArguments, arguments, prog)
    with bar("examining") as advance:
        report = examine(args.manifest, on_clip=advance)
    if args.json:
        print_json(report.to_json())
    else:
        width = None if sys.stdout.isatty() else 120
        Console(file=sys.stdout, width=width, highlight=False, emoji=False).print(render(report))
    return 2 if any(problem.severity == "error" for problem in report.problems) else 0


def _generate(args: PrepareArguments) -> int:
    """Generate the package's own sound set."""
    with bar("generating sounds") as advance:
        write_sound_set(args.out, on_clip=advance, **_own(args))
    clips = args.clips_per_class or CLIPS_PER_CLASS
    sys.stdout.write(f"{args.out}: {clips} clips of each class\n")
    return 0


def _own(args: PrepareArguments) -> dict[str, int]:
    """What was given for the generated set alone."""
    given = {"clips_per_class": args.clips_per_class, "seed": args.seed}
    return {name: value for name, value in given.items() if value is not None}
