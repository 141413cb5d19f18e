"""Manifests: which clips there are, what they are labelled, and how they are split."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melastic.errors import InputError, unknown_name
from melastic.files import replacing

LABEL_SEPARATOR = ";"
"""Between the labels of one clip."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled stretch of one audio file."""

    path: Path
    labels: tuple[str, ...]
    start_s: float = 0.0
    """Where it begins in the file (s)."""
    end_s: float | None = None
    """Where it ends in the file (s); None: at the end."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The manifest's other columns, such as ``split`` or ``fold``."""


def read_manifest(path: str | Path, *, labelled: bool = True) -> list[Clip]:
    """Read a CSV manifest, or the JSON lists of AST.

    A CSV has a header; ``file`` and ``label`` are required, ``start_s`` and ``end_s`` (s) optional,
    other columns are kept. Several labels of one clip are joined by ``;``. Paths are relative to
    the manifest. JSON is ``{"data": [{"wav": …, "labels": "a,b"}]}``.

    Args:
        path: the file.
        labelled: whether each clip must have a label.

    Raises:
        InputError: naming the file, the row and the remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise InputError(
            f"{path}: is a folder, a manifest is a CSV or JSON file; name the file"
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no such manifest; check the path, or write one with 'melastic data prepare'"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    read = _read_json if path.suffix.lower() == ".json" else _read_csv
    clips = read(path, text, labelled=labelled)
    if not clips:
        raise InputError(f"{path}: the manifest lists no clips; add rows below its header")
    return clips


def check_writable_as_csv(path: Path) -> None:
    """Refuse a place for a manifest where no CSV file can be, or would not be read as one.

    Raises:
        InputError: if it is a folder, or its name ends in ``.json``.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a manifest is a CSV file; name a file in it")
    if path.suffix.lower() == ".json":
        raise InputError(f"{path}: a manifest is written as CSV; let its name end in .csv")


def write_manifest(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV manifest whole or not at all; the first row's keys are the header.

    Raises:
        InputError: if there are no rows, or they cannot be written.
    """
    if not rows:
        raise InputError(f"{path}: a manifest lists at least one clip, got none")
    check_writable_as_csv(path)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        with replacing(path) as part:
            part.write_text(text.getvalue(), encoding="utf-8")
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(f"{path}: cannot be written ({error}); name another file") from None


def select(clips: Sequence[Clip], rule: str) -> list[Clip]:
    """The clips that a rule names.

    Args:
        clips: from a manifest.
        rule: ``column=value``, ``column=a,b`` (either), ``column!=value`` (neither), several rules
            joined by ``&``; ``all`` names every clip.

    Raises:
        InputError: if the rule cannot be read, names an unknown column or a value that no clip
            has there, or names no clip.
    """
    chosen = list(clips)
    for part in [] if rule.strip() == "all" else rule.split("&"):
        column, negated, values = _parse_rule(part, rule)
        known = sorted({name for clip in clips for name in clip.columns})
        if column not in known:
            raise unknown_name(f"column in the selection {rule!r}:", column, known)
        there = {clip.columns[column] for clip in clips if column in clip.columns}
        for value in sorted(values - there):
            what = f"value of the column {column} in the selection {rule!r}:"
            raise unknown_name(what, value, sorted(there, key=_natural))
        chosen = [clip for clip in chosen if (clip.columns.get(column) in values) != negated]
    if not chosen:
        raise InputError(f"the selection {rule!r} names no clip of the manifest; check its values")
    return chosen


def label_names(clips: Iterable[Clip]) -> tuple[str, ...]:
    """All labels, in natural order: numbers by value, words by the alphabet."""
    names = {label for clip in clips for label in clip.labels}
    return tuple(sorted(names, key=_natural))


def _natural(name: str) -> tuple[bool, int, str]:
    """Key that sorts numbers by value before words by the alphabet."""
    number = name.isdecimal()
    return not number, int(name) if number else 0, name


def check_files(clips: Sequence[Clip]) -> None:
    """Refuse a list in which files are missing.

    Raises:
        InputError: with the number of missing files and the first of them.
    """
    paths = {clip.path for clip in clips}
    missing = sorted(path for path in paths if not is_file(path))
    if missing:
        count = f"{len(missing)} of {len(paths)} files are missing"
        raise InputError(
            f"{count}, the first is {missing[0]}; check the manifest with 'melastic doctor'"
        )


def is_file(path: Path) -> bool:
    """Whether a file is there and within reach."""
    try:
        return path.is_file()
    except OSError:
        return False


def _parse_rule(part: str, rule: str) -> tuple[str, bool, set[str]]:
    """Column, whether the rule is negated, and the values of one part of a selection."""
    column, equals, values = part.partition("=")
    negated = column.endswith("!")
    column = column.removesuffix("!").strip()
    if not equals or not column or not values.strip():
        raise InputError(
            f"a selection reads column=value or column!=a,b or 'all', got {rule!r}; try split=train"
        )
    return column, negated, {value.strip() for value in values.split(",")}


def _read_csv(path: Path, text: str, *, labelled: bool) -> list[Clip]:
    """Clips of a CSV manifest."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    clips = []
    try:
        header = list(rows.fieldnames or [])
        _check_header(path, header, ("file", "label") if labelled else ("file",))
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: has not {len(header)} columns as the header; mend it")
            clips.append(_clip_of_row(path, row, where, labelled=labelled))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {rows.line_num + 1}: not valid CSV ({error}); mend it"
        ) from None
    return clips


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse a header that lacks a column or names one twice."""
    for column in needed:
        if column not in header:
            raise InputError(
                f"{path}, line 1: the column {column!r} is required, the header has "
                f"{', '.join(header) or 'nothing'}; rename or add it"
            )
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise InputError(f"{path}, line 1: the column {twice[0]!r} is there twice; rename one")


def _clip_of_row(manifest: Path, row: Mapping[str, str], where: str, *, labelled: bool) -> Clip:
    """One row of a CSV manifest."""
    names = row.get("label", "").split(LABEL_SEPARATOR)
    labels = tuple(name.strip() for name in names if name.strip())
    if not row["file"].strip():
        raise InputError(f"{where}: the file is empty; name one or drop the row")
    if not labels and labelled:
        raise InputError(f"{where}: the label is empty; give one or drop the row")
    start_s = _seconds(row.get("start_s"), "start_s", where) or 0.0
    end_s = _seconds(row.get("end_s"), "end_s", where)
    if end_s is not None and end_s <= start_s:
        raise InputError(f"{where}: end_s must be after start_s, got {start_s:g} to {end_s:g} s")
    named = ("file", "label", "start_s", "end_s")
    others = {k: v.strip() for k, v in row.items() if k not in named}
    return Clip(manifest.parent / row["file"].strip(), labels, start_s, end_s, others)


def _seconds(text: str | None, column: str, where: str) -> float | None:
    """A time in seconds, or None where the field is empty."""
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(f"{where}: {column} must be seconds from 0 on, got {text!r}")
    return value


def _read_json(path: Path, text: str, *, labelled: bool) -> list[Clip]:
    """Clips of AST's JSON lists."""
    try:
        data: Any = json.loads(text)
        entries = enumerate(data["data"], start=1)
        return [_clip_of_entry(path, entry, i, labelled=labelled) for i, entry in entries]
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{path}: a JSON manifest reads {{"data": [{{"wav": …, "labels": "a,b"}}]}} '
            f"({type(error).__name__}: {error}); mend it or write a CSV"
        ) from None


def _clip_of_entry(manifest: Path, entry: Any, number: int, *, labelled: bool) -> Clip:
    """One entry of AST's JSON lists."""
    wav, listed = entry["wav"], entry["labels"] if labelled else entry.get("labels", "")
    for key, given, needed in (("wav", wav, True), ("labels", listed, labelled)):
        if not isinstance(given, str) or (needed and not given.strip(" ,")):
            raise InputError(
                f"{manifest}, entry {number}: {key} must be text, got {given!r}; give it or drop "
                "the entry"
            )
    labels = tuple(name.strip() for name in listed.split(",") if name.strip())
    return Clip(manifest.parent / wav, labels)
