"""``melastic evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from melastic.checkpoints.store import load
from melastic.cli.parse import check_options, parse, print_json, print_table
from melastic.cli.view import ViewArguments, say_if_unlike
from melastic.data.manifest import Clip, read_manifest, select
from melastic.devices import best_device
from melastic.errors import InputError
from melastic.evaluation.evaluate import evaluate as run_evaluation
from melastic.evaluation.plots import plot_confusion
from melastic.progress import bar, note
from melastic.training.run_folder import is_run, read_run_config
from melastic.training.setup import hold_out


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(ViewArguments):
    """Score a classifier on labelled clips."""

    model: Annotated[str, tyro.conf.Positional]
    """Run folder, model folder, or name of bundled weights."""
    manifest: Annotated[Path, tyro.conf.Positional]
    """CSV or JSON manifest."""
    select: str | None = None
    """Clips, such as split=test; None: the test clips of the run, else all."""
    batch_tokens: int = 4096
    """Most tokens that are computed at once."""
    workers: int | None = None
    """Threads that read clips ahead; None: half as many as there are cores."""
    max_unreadable: int = 0
    """Clips that may turn out unreadable; they are listed and left out."""
    confusion: Path | None = None
    """Write the confusion matrix to this PNG."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def evaluate(arguments: Sequence[str], prog: str) -> int:
    """Score a classifier on labelled clips."""
    args = parse(EvaluateArguments, arguments, prog)
    check_options(args, ("batch_tokens",), 1)
    check_options(args, ("workers", "max_unreadable"), 0)
    if args.confusion and (args.confusion.suffix != ".png" or args.confusion.is_dir()):
        raise InputError(f"--confusion names a PNG file, got {args.confusion}; try confusion.png")
    model = load(args.model).to(best_device())
    if args.confusion and model.config.task == "multi-label":
        raise InputError(
            f"--confusion takes each clip for one class, {args.model} is multi-label; leave it out"
        )
    say_if_unlike(args.model, args.view)
    clips = chosen_clips(args.model, args.manifest, args.select)
    with bar("evaluating") as advance:
        result = run_evaluation(
            model,
            clips,
            view=args.view,
            batch_tokens=args.batch_tokens,
            workers=args.workers,
            max_unreadable=args.max_unreadable,
            on_clip=advance,
        )
    for reason in result.outputs.unreadable:
        note(f"left out: {reason}")
    if args.select is None:
        _say_if_all(args.model, result.metrics.clips)
    if args.confusion:
        plot_confusion(result.outputs, model.labels, args.confusion)
    if args.json:
        print_json(result.to_json())
        return 0
    metrics = result.metrics
    print_table(
        ["clips", "accuracy", "mAP", "AUC", "d'", "loss", "tokens/clip", "GMACs/clip", "seconds"],
        [
            [
                metrics.clips,
                f"{100 * metrics.accuracy:.2f} %",
                f"{100 * metrics.mAP:.2f} %",
                f"{metrics.auc:.4f}",
                f"{metrics.d_prime:.3f}",
                f"{metrics.loss:.4f}",
                f"{result.tokens_per_clip:.0f}",
                f"{result.gmacs_per_clip:.4f}",
                f"{result.seconds:.1f}",
            ]
        ],
    )
    return 0


def _say_if_all(model: str, clips: int) -> None:
    """Say that a score is of all clips, where nothing chose some.

    Args:
        model: run folder, model folder, or name.
        clips: how many there are.
    """
    heard = ""
    if is_run(Path(model)):
        data = read_run_config(Path(model)).data
        if data.test is not None:
            return
        heard = f", and the run was trained on some of them ({data.train})"
    note(f"scored on all {clips} clips{heard}; --select split=test and its like take a part")


def chosen_clips(
    model: str, manifest: Path, rule: str | None, *, to_choose: bool = False
) -> list[Clip]:
    """The clips that a command is about.

    Args:
        model: run folder, model folder, or name.
        manifest: CSV or JSON manifest.
        rule: selection; None: the test clips of the run, else all.
        to_choose: whether something is chosen by them: then a run's held-out clips come first.
    """
    clips = read_manifest(manifest)
    if rule is not None:
        return select(clips, rule)
    everything = f"views are chosen by all {len(clips):,} clips of {manifest}: --select takes some"
    if not is_run(Path(model)):
        if to_choose:
            note(everything)
        return clips
    config = read_run_config(Path(model))
    data, test = config.data, config.data.test
    if to_choose and data.val is not None:
        note(f"views are chosen by the run's held-out clips ({data.val})")
        return select(clips, data.val)
    if to_choose and data.val_share:
        note(f"views are chosen by the run's held-out clips (a share of {data.val_share:g})")
        return hold_out(select(clips, data.train), config)[1]
    if to_choose and test is not None:
        note("no clips are held out, test clips choose the views: --select names others")
    if test is None:
        if to_choose:
            note(f"{everything}; the run was trained on clips of it ({data.train})")
        return clips
    note(f"evaluating the run's test clips ({test}); --select all takes every clip")
    return select(clips, test)
