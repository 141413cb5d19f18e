"""Rows of a sweep: measured views, in ``sweep.csv``, and what they were measured with."""

import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melastic.checkpoints.store import digest, read_json, write_json
from melastic.classifier import Classifier
from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.evaluation.evaluate import Evaluation
from melastic.files import replacing
from melastic.patches.dials import plain_size, pooling_of
from melastic.patches.grid import freq_time
from melastic.patches.view import View
from melastic.serialize import to_json

TABLE, ABOUT = "sweep.csv", "sweep.json"
"""The rows, and digests of the model and of the clips that they were measured with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a model reached through one view."""

    patch_freq: int
    """Mel bins of a patch."""
    patch_time: int
    """Frames of a patch."""
    hop_ms: float
    """Frame shift (ms)."""
    pool: str
    """Temporal pooling: none, mean2, max4, …"""
    seconds: float | None
    """Longest stretch of a clip (s); None: all of it."""
    clips: int
    accuracy: float
    """Share of clips whose likeliest class is one of their labels."""
    mAP: float  # noqa: N815
    """Mean over classes of average precision; nan where there is none."""
    tokens_per_clip: float
    """Tokens of the encoder, mean over clips."""
    gmacs_per_clip: float
    """Multiply-adds of the model (10^9), mean over clips."""
    clips_per_second: float
    """Clips that the model gets through in a second, on the machine of the sweep."""
    keep: float = 1.0
    """Share of the tokens that is used."""

    @property
    def view(self) -> View:
        """How the clips were seen."""
        return View(
            patch=plain_size((self.patch_freq, self.patch_time)),
            hop_ms=self.hop_ms,
            pooling=pooling_of(self.pool),
            seconds=self.seconds,
            keep=self.keep,
        )


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
WHOLE = ("patch_freq", "patch_time", "clips")
"""Columns of whole numbers."""


def row_of(evaluation: Evaluation) -> Row:
    """The row of a view that names its patch size and its frame shift."""
    view, metrics = evaluation.view, evaluation.metrics
    if view.patch is None or view.hop_ms is None:
        raise InputError(f"a row names its patch size and its frame shift, got '{view}'; give both")
    patch = freq_time(view.patch)
    return Row(
        patch_freq=patch.freq,
        patch_time=patch.time,
        hop_ms=view.hop_ms,
        pool=str(view.pooling),
        seconds=view.seconds,
        clips=metrics.clips,
        accuracy=_rounded(metrics.accuracy),
        mAP=_rounded(metrics.mAP),
        tokens_per_clip=_rounded(evaluation.tokens_per_clip),
        gmacs_per_clip=_rounded(evaluation.gmacs_per_clip),
        clips_per_second=_rounded(metrics.clips / max(1e-9, evaluation.outputs.model_seconds), 4),
        keep=view.keep,
    )


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_text(getattr(row, name)) for name in COLUMNS] for row in rows)
    with replacing(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read a table.

    Raises:
        InputError: if it is missing, or no table of a sweep.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; write one with 'melastic sweep'") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); sweep again") from None
    return [_row(line, f"{path} line {number}") for number, line in enumerate(lines, start=2)]


def open_table(folder: Path, model: Classifier, clips: Sequence[Clip]) -> dict[View, Row]:
    """Rows that a folder holds already, of the same model on the same clips; begins it if empty.

    Args:
        folder: where the table is, or will be.
        model: the model of the sweep.
        clips: the clips of the sweep.

    Raises:
        InputError: if the folder holds a sweep of another model or of other clips.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a sweep is written to a folder, this is a file; name another")
    mine = {"model": model_digest(model), "clips": clips_digest(clips)}
    if not (folder / TABLE).exists():
        try:
            write_json(folder / ABOUT, mine)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); name another folder with --out"
            ) from None
        return {}
    found = read_json(folder / ABOUT)
    for key in mine:
        if not isinstance(found, dict) or found.get(key) != mine[key]:
            other = "another model" if key == "model" else "other clips"
            raise InputError(f"{folder}: holds a sweep of {other}; name another folder with --out")
    return {row.view: row for row in read_rows(folder / TABLE)}


def model_digest(model: Classifier) -> str:
    """Fingerprint of a model: configuration without its measured curve, and weights."""
    config = dataclasses.replace(model.config, curve=())
    found = hashlib.sha256(digest(to_json(config)).encode())
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def clips_digest(clips: Sequence[Clip]) -> str:
    """Fingerprint of a selection of a manifest: files, stretches and labels, in order."""
    return digest(
        [[os.path.abspath(c.path), c.start_s, c.end_s, c.labels] for c in clips]  # noqa: PTH100
    )


def _row(line: Mapping[str, Any], where: str) -> Row:
    """Read one line of a table."""
    values: dict[str, Any] = {}
    for name in COLUMNS:
        text = line.get(name)
        if text is None and name != "keep":
            raise InputError(f"{where}: lacks the column {name}; is it a table of a sweep?")
        try:
            if name == "pool":
                values[name] = str(pooling_of(text or ""))
            elif name in WHOLE:
                values[name] = int(text or "")
            elif name == "seconds" and not text:
                values[name] = None
            else:
                values[name] = float(1.0 if text is None else text)
        except ValueError:
            raise InputError(f"{where}: {name} is {text!r}; sweep again") from None
    row = Row(**values)
    try:
        row.view  # noqa: B018
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return row


def _rounded(value: float, digits: int = 9) -> float:
    """So many significant digits."""
    return float(f"{value:.{digits}g}")


def _text(value: float | str | None) -> str:
    """A cell: empty for None, numbers as short as they are exact."""
    if value is None or isinstance(value, str):
        return value or ""
    short = f"{value:.9g}"
    return short if float(short) == value or value != value else repr(value)
