"""``melastic sweep``."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from melastic.checkpoints.store import load
from melastic.cli.evaluate import chosen_clips
from melastic.cli.parse import check_options, parse, print_json, print_table
from melastic.devices import best_device
from melastic.errors import InputError
from melastic.evaluation.curve import curve_of, store_curve, writable_folder
from melastic.evaluation.sweep import Dials
from melastic.evaluation.sweep import sweep as run_sweep
from melastic.evaluation.sweep_plot import plot_sweep
from melastic.evaluation.sweep_rows import TABLE, Row, read_rows
from melastic.options import HopList, LengthList, PatchSizes, PathList, PoolingList, ShareList
from melastic.patches.dials import size_text
from melastic.progress import bar, note

FIGURE = "sweep.png"


@dataclass(frozen=True, kw_only=True)
class SweepArguments:
    """Evaluate a classifier through every combination of some dials."""

    model: Annotated[str, tyro.conf.Positional]
    """Run folder, model folder, or name of bundled weights."""
    manifest: Annotated[Path, tyro.conf.Positional]
    """CSV or JSON manifest."""
    out: Path
    """Folder of sweep.csv and sweep.png; an interrupted sweep continues there."""
    patch: PatchSizes = ()
    """Patch sizes, such as 8 16 128x4 (mel bins x frames); none: the model's own."""
    hop_ms: HopList = ()
    """Frame shifts (ms); none: the model's own."""
    pool: PoolingList = ()
    """Temporal poolings, such as none mean2 max4; none given: no pooling."""
    seconds: LengthList = ()
    """Longest stretches of a clip, from its beginning (s), such as 1 2 all; none: all of it."""
    keep: ShareList = ()
    """Shares of each clip's tokens that are used; none: all."""
    select: str | None = None
    """Clips, such as split=test; None: the test clips of the run, with --store its held-out clips,
    else all."""
    baseline: PathList = ()
    """Other sweeps (folder or sweep.csv) to draw dashed, such as those of fixed models."""
    store: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the views worth their cost into the model: 'melastic classify --gmacs' uses them."""
    batch_tokens: int = 4096
    """Most tokens that are computed at once."""
    memory_mb: int = 2000
    """Most memory for samples and spectrograms (MB)."""
    max_unreadable: int = 0
    """Clips that may turn out unreadable; they are left out."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def sweep(arguments: Sequence[str], prog: str) -> int:
    """Evaluate a classifier through every combination of some dials."""
    args = parse(SweepArguments, arguments, prog)
    check_options(args, ("batch_tokens", "memory_mb"), 1)
    check_options(args, ("max_unreadable",), 0)
    stored_in = writable_folder(args.model) if args.store else None
    baselines = _baselines(args.baseline)
    model = load(args.model).to(best_device())
    clips = chosen_clips(args.model, args.manifest, args.select, to_choose=args.store)
    dials = Dials(
        patch=args.patch,
        hop_ms=args.hop_ms,
        pooling=args.pool,
        seconds=args.seconds,
        keep=args.keep,
    )
    with bar("sweeping") as advance:
        rows = run_sweep(
            model,
            clips,
            dials,
            args.out,
            batch_tokens=args.batch_tokens,
            memory_mb=args.memory_mb,
            max_unreadable=args.max_unreadable,
            on_clip=advance,
            on_row=_tell,
        )
    plot_sweep(rows, args.out / FIGURE, own=Dials().views(model.config)[0], baselines=baselines)
    if stored_in:
        curve = curve_of(rows, clips, model.config.frontend.sample_rate)
        store_curve(stored_in, curve)
        note(f"{stored_in}: {len(curve)} of {len(rows)} views are worth their cost and stored")
    if args.json:
        print_json([dataclasses.asdict(row) for row in rows])
    else:
        _print_rows(rows)
    note(f"{args.out / TABLE} and {args.out / FIGURE}")
    return 0


def _tell(row: Row, done: int, total: int) -> None:
    """One line for a view that is measured."""
    note(
        f"{done}/{total}  {row.view}: accuracy {100 * row.accuracy:.2f} %, "
        f"{row.gmacs_per_clip:.4g} GMACs"
    )


def _baselines(paths: Sequence[Path]) -> dict[str, list[Row]]:
    """Other sweeps, by the names of their folders."""
    found: dict[str, list[Row]] = {}
    for path in paths:
        table = path / TABLE if path.is_dir() else path
        folder = table.resolve().parent.name
        name = folder if table.name == TABLE else table.stem
        rows = read_rows(table)
        if not rows:
            raise InputError(f"{table}: holds no rows; sweep again, or leave it out")
        found[name if name not in found else str(path)] = rows
    return found


def _print_rows(rows: Sequence[Row]) -> None:
    """The table for people."""
    print_table(
        [
            *("patch", "hop", "pool", "seconds", "keep", "clips"),
            *("accuracy", "mAP", "tokens/clip", "GMACs/clip", "clips/s"),
        ],
        [
            [
                size_text((row.patch_freq, row.patch_time)),
                f"{row.hop_ms:g} ms",
                row.pool,
                "all" if row.seconds is None else f"{row.seconds:g}",
                f"{row.keep:g}",
                row.clips,
                f"{100 * row.accuracy:.2f} %",
                f"{100 * row.mAP:.2f} %",
                f"{row.tokens_per_clip:.0f}",
                f"{row.gmacs_per_clip:.4g}",
                f"{row.clips_per_second:.0f}",
            ]
            for row in rows
        ],
    )
