"""``melastic classify`` and ``melastic embed``."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from melastic.checkpoints.store import load, write_json
from melastic.classifier import Classifier
from melastic.cli.parse import parse, print_json
from melastic.cli.view import ViewArguments, say_if_unlike
from melastic.devices import best_device
from melastic.errors import InputError, about, unknown_name
from melastic.evaluation.budget import Budget
from melastic.evaluation.seen import clip_through
from melastic.files import replacing
from melastic.frontend.audio import samples_of
from melastic.patches.dials import plain_size
from melastic.patches.view import View
from melastic.progress import bar, stderr
from melastic.serialize import to_json


@dataclass(frozen=True, kw_only=True)
class FileArguments(ViewArguments):
    """A model and the files that it is used on."""

    model: Annotated[str, tyro.conf.Positional]
    """Run folder, model folder, or name of bundled weights ('melastic models' lists them)."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files."""


@dataclass(frozen=True, kw_only=True)
class ClassifyArguments(FileArguments):
    """Name the sounds in audio files."""

    top: int = 5
    """Classes for each file, likeliest first."""
    gmacs: float | None = None
    """Most multiply-adds for a file (10^9): the most accurate view of the model's measured curve
    that is within; None: no such budget."""
    budget_ms: float | None = None
    """Likewise, most time of the model for a file on this machine (ms)."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


@dataclass(frozen=True, kw_only=True)
class EmbedArguments(FileArguments):
    """Write one vector for each audio file."""

    out: Path
    """Where to: .npz (arrays 'files' and 'embeddings'), .csv or .json."""


def classify(arguments: Sequence[str], prog: str) -> int:
    """Name the sounds in audio files; those that cannot be read are reported, exit code 2."""
    args = parse(ClassifyArguments, arguments, prog)
    model, view = _ready(args)
    budget = _budget(args, model)
    if budget is None:
        say_if_unlike(args.model, args.view)
    results: list[dict[str, Any]] = []
    failed = 0
    for file in args.files:
        try:
            if budget:
                best, view = budget.classify(file, top=args.top)
            else:
                best = model.classify(file, top=args.top, view=args.view)
        except InputError as error:
            failed += 1
            _report(error)
            continue
        predictions = [prediction._asdict() for prediction in best]
        results.append({"file": str(file), "predictions": predictions, "view": to_json(view)})
        if not args.json:
            _print_predictions(file, predictions)
    if args.json:
        print_json(results)
    return 2 if failed else 0


@torch.no_grad()
def embed(arguments: Sequence[str], prog: str) -> int:
    """Write one vector for each audio file; nothing is written if one cannot be read."""
    args = parse(EmbedArguments, arguments, prog)
    if args.out.suffix not in (".npz", ".csv", ".json"):
        raise unknown_name("format", args.out.suffix, [".npz", ".csv", ".json"])
    model, view = _ready(args)
    say_if_unlike(args.model, args.view)
    vectors, failed = [], 0
    with bar("embedding") as advance:
        for done, file in enumerate(args.files, start=1):
            try:
                waveform, named = samples_of(file, model.config.frontend.sample_rate)
                with about(named):
                    vector = model.embed(*clip_through(model, waveform, view))[0]
                vectors.append(vector.cpu().numpy())
            except InputError as error:
                failed += 1
                _report(error)
            advance(done, len(args.files))
    if failed:
        raise InputError(
            f"{failed} of {len(args.files)} files could not be embedded and nothing was written; "
            "leave them out"
        )
    _write(args.out, [str(file) for file in args.files], np.stack(vectors))
    return 0


def _ready(args: FileArguments) -> tuple[Classifier, View]:
    """The model, and the view that its files are seen through unless a budget chooses."""
    if not args.files:
        raise InputError("name at least one audio file")
    model = load(args.model).to(best_device())
    own = model.config
    patch = plain_size(own.patches.patch if args.patch is None else args.patch)
    hop_ms = own.frontend.hop_ms if args.hop_ms is None else args.hop_ms
    return model, replace(args.view, patch=patch, hop_ms=hop_ms)


def _budget(args: ClassifyArguments, model: Classifier) -> Budget | None:
    """What each file may cost; None: as much as it does."""
    if args.gmacs is None and args.budget_ms is None:
        return None
    if args.view != View():
        raise InputError(
            f"a budget chooses the view, other options say '{args.view}'; give one or the other"
        )
    return Budget(model, gmacs=args.gmacs, budget_ms=args.budget_ms)


def _report(error: InputError) -> None:
    """Say what is wrong with one file."""
    stderr.print(f"melastic: error: {error}", highlight=False, markup=False)


def _print_predictions(file: Path, predictions: list[dict[str, Any]]) -> None:
    """The likeliest classes of one file, for people."""
    width = max(len(entry["label"]) for entry in predictions)
    lines = [str(file)]
    for entry in predictions:
        lines.append(f"  {entry['label']:<{width}}  {100 * entry['score']:5.1f} %")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _write(path: Path, files: list[str], vectors: NDArray[np.float32]) -> None:
    """Vectors to a file, whole or not at all; file names that are no UTF-8 are escaped as text."""
    if path.suffix != ".npz":
        files = [file.encode("utf-8", "backslashreplace").decode() for file in files]
    if path.suffix == ".json":
        rows = zip(files, vectors.tolist(), strict=True)
        write_json(path, [{"file": file, "embedding": vector} for file, vector in rows])
        return
    with replacing(path) as part:
        if path.suffix == ".npz":
            with part.open("wb") as stream:
                np.savez(stream, files=np.array(files), embeddings=vectors)
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *(f"e{i}" for i in range(vectors.shape[1]))])
        writer.writerows(
            [file, *vector] for file, vector in zip(files, vectors.tolist(), strict=True)
        )
        part.write_text(text.getvalue(), encoding="utf-8")
