"""``melastic evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from melastic.checkpoints.store import load
from melastic.cli.parse import parse, print_json, print_table
from melastic.data.manifest import Clip, read_manifest, select
from melastic.devices import best_device
from melastic.evaluation.evaluate import evaluate as run_evaluation
from melastic.evaluation.plots import plot_confusion
from melastic.patches.view import View
from melastic.progress import bar, note
from melastic.training.run_folder import is_run, read_run_config


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score a classifier on labelled clips."""

    model: Annotated[str, tyro.conf.Positional]
    """Run folder, model folder, or name."""
    manifest: Annotated[Path, tyro.conf.Positional]
    """CSV or JSON manifest."""
    select: str | None = None
    """Clips, such as split=test; None: the test clips of the run, else all."""
    patch: int | tuple[int, int] | None = None
    """Patch size (mel bins, frames); None: the model's own."""
    hop_ms: float | None = None
    """Frame shift (ms); None: the model's own."""
    seconds: float | None = None
    """Longest stretch of a clip, from its beginning (s); None: all of it."""
    batch_tokens: int = 4096
    """Most tokens that are computed at once."""
    workers: int | None = None
    """Processes that read clips ahead; None: half as many as there are cores."""
    max_unreadable: int = 0
    """Clips that may turn out unreadable; they are listed and left out."""
    confusion: Path | None = None
    """Write the confusion matrix to this PNG."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def evaluate(arguments: Sequence[str], prog: str) -> int:
    """Score a classifier on labelled clips."""
    args = parse(EvaluateArguments, arguments, prog)
    view = View(patch=args.patch, hop_ms=args.hop_ms, seconds=args.seconds)
    model = load(args.model).to(best_device())
    clips = _chosen(args)
    with bar("evaluating") as advance:
        result = run_evaluation(
            model,
            clips,
            view=view,
            batch_tokens=args.batch_tokens,
            workers=args.workers,
            max_unreadable=args.max_unreadable,
            on_clip=advance,
        )
    for reason in result.outputs.unreadable:
        note(f"left out: {reason}")
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


def _chosen(args: EvaluateArguments) -> list[Clip]:
    """The clips that are asked for."""
    clips = read_manifest(args.manifest)
    if args.select is not None:
        return select(clips, args.select)
    rule = read_run_config(Path(args.model)).data.test if is_run(Path(args.model)) else None
    if rule is None:
        return clips
    note(f"evaluating the run's test clips ({rule}); --select all takes every clip")
    return select(clips, rule)
