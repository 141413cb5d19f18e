"""Manifests of public data sets, from prepared recordings or from the original downloads."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from melastic.data.manifest import Clip, is_file, read_manifest, write_manifest
from melastic.data.public_sets import DATA_SETS, DataSet, Found
from melastic.errors import InputError, unknown_name
from melastic.frontend.audio import audio_info, load_audio

_LISTS = ("metadata.csv", "meta/esc50.csv", "train.csv", "val.csv", "test.csv")
"""What data sets list their own clips in, prepared or as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a written manifest lists."""

    manifest: Path
    clips: int
    labels: int
    split_column: str
    """``split`` or ``fold``."""
    splits: Mapping[str, int]
    """Clips of each value of that column."""
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""


def prepare(name: str, root: Path, out: Path, *, trim_silence: bool = False) -> Summary:
    """Write the manifest of a public data set.

    The recordings stay where they are. They are either prepared (``metadata.csv`` beside
    ``audio/``) or as published; what is in the folder tells.

    Args:
        name: ``esc50``, ``fsdd``, ``asc`` or ``speech-commands``.
        root: the data set's folder.
        out: the manifest (CSV); file names in it are relative to its folder.
        trim_silence: end each clip where its padding begins (``esc50`` only).

    Raises:
        InputError: if the name is unknown, the folder holds neither layout, or files that it
            lists are missing, or the manifest would replace a list of the data set. Nothing is
            written then.
    """
    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    if trim_silence and name != "esc50":
        raise InputError(f"trim_silence is for esc50, whose clips are padded; drop it for {name}")
    kind = DATA_SETS[name]
    if out.exists() and out.resolve() in {(root / own).resolve() for own in _LISTS}:
        raise InputError(f"{out}: is a list of the data set itself; name another file")
    found = _find(name, kind, root)
    _check_complete(root, found.clips)
    ends_s = [_content_s(clip) for clip in found.clips] if trim_silence else None
    write_manifest(out, _rows(root, found.clips, kind, out, ends_s))
    splits = Counter(clip.columns[kind.split] for clip in found.clips)
    return Summary(
        manifest=out,
        clips=len(found.clips),
        labels=len({label for clip in found.clips for label in clip.labels}),
        split_column=kind.split,
        splits=dict(sorted(splits.items())),
        notes=found.notes,
    )


def _find(name: str, kind: DataSet, root: Path) -> Found:
    """Clips of whichever layout is in the folder."""
    table = root / "metadata.csv"
    if table.is_file() and (root / "audio").is_dir():
        clips = read_manifest(table)
        lacking = sorted({*kind.columns} - {*clips[0].columns, "content_s"})
        if lacking:
            raise InputError(
                f"{table}: lacks the column {lacking[0]!r} of {name}; name the folder of {name}, "
                "not of another data set"
            )
        return Found(clips)
    if all((root / landmark).exists() for landmark in kind.landmarks):
        return kind.read(root)
    state = "holds neither layout of" if root.is_dir() else "is not a folder with"
    raise InputError(
        f"{root}: {state} {name}; name one that holds metadata.csv and audio (prepared), or "
        f"{' and '.join(kind.landmarks)} (original)"
    )


def _check_complete(root: Path, clips: Sequence[Clip]) -> None:
    """Refuse a data set that lacks files."""
    if not clips:
        raise InputError(f"{root}: holds no clips; fetch the data set again")
    missing = [clip.path for clip in clips if not is_file(clip.path)]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(clips)} listed files are missing, the first is "
            f"{missing[0]}; fetch the data set again"
        )


def _rows(
    root: Path, clips: Sequence[Clip], kind: DataSet, out: Path, ends_s: Sequence[float] | None
) -> list[dict[str, object]]:
    """Rows of the manifest."""
    prefix = Path(os.path.relpath(root.resolve(), out.parent.resolve()))
    columns = [name for name in kind.columns if name in clips[0].columns]
    rows = []
    for i, clip in enumerate(clips):
        inside = clip.path.is_relative_to(root)
        file = prefix / clip.path.relative_to(root) if inside else clip.path.resolve()
        row: dict[str, object] = {"file": file.as_posix(), "label": ";".join(clip.labels)}
        if ends_s is not None:
            row |= {"start_s": "0", "end_s": f"{ends_s[i]:.9g}"}
        rows.append(row | {name: clip.columns[name] for name in columns})
    return rows


def _content_s(clip: Clip) -> float:
    """Where the padding of a clip begins (s): as listed, or after the last sample that is not 0."""
    listed = clip.columns.get("content_s")
    if listed is None:
        rate = audio_info(clip.path).sample_rate
        samples = load_audio(clip.path, sample_rate=rate)
        heard = torch.nonzero(samples).flatten()
        return (int(heard[-1]) + 1 if len(heard) else len(samples)) / rate
    try:
        value = float(listed)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(
            f"{clip.path}: content_s must be positive seconds, got {listed!r}; mend metadata.csv"
        )
    return value
