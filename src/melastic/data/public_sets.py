"""Public data sets in their original layout: where clips, labels and splits are to be found."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from melastic.data.manifest import Clip
from melastic.errors import InputError

ESC50_GROUPS = ("animals", "natural", "human", "interior", "exterior")
"""Groups of ten targets each, in order."""
ASC10 = ("disable", "down", "enable", "left", "no", "right", "start", "stop", "up", "yes")
"""Arabic keywords that stand for the core words of Speech Commands."""
ASC10_TAKES = 4
"""First takes of each speaker and word that the ten-word subset holds."""
ASC10_SPEAKER_SPLIT = {"start": "val", "enable": "test", "disable": "test"}
"""Words to recognise speakers by; the other seven train."""


class Found(NamedTuple):
    """Clips with all the columns that a manifest gets, and what was left out."""

    clips: Sequence[Clip]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What a data set's manifest holds, and how its original layout is read."""

    split: str
    """Column with the official split."""
    columns: tuple[str, ...]
    """Columns of the manifest beside the clip and its label, where the source has them."""
    landmarks: tuple[str, ...]
    """Files and folders that the original layout is recognised by."""
    read: Callable[[Path], Found]


def read_esc50(root: Path) -> Found:
    """ESC-50 as published (karolpiczak/ESC-50), with or without the column ``take``."""
    table = root / "meta" / "esc50.csv"
    clips = []
    for row in _table(table, ("filename", "fold", "target", "category", "esc10")):
        name, target = row["filename"], row["target"]
        parts = re.fullmatch(r"\d-(\d+)-([A-Z])-\d+\.wav", name)
        if parts is None or not re.fullmatch(r"[1-4]?\d", target):
            raise InputError(
                f"{table}: {name} with target {target!r} is not a clip of ESC-50; fetch the data "
                "set again"
            )
        columns = {
            "fold": row["fold"],
            "group": ESC50_GROUPS[int(target) // 10],
            "esc10": str(int(row["esc10"].lower() == "true")),
            "source": f"freesound:{parts[1]}",
            "take": parts[2],
        }
        clips.append(Clip(root / "audio" / name, (row["category"],), columns=columns))
    return Found(clips)


def read_fsdd(root: Path) -> Found:
    """Spoken digits as published (Jakobovski/free-spoken-digit-dataset).

    Recordings 0 to 4 of each speaker and digit are the official test set. ``loso_fold`` numbers the
    speakers by the alphabet, to leave one out.
    """
    files = sorted((root / "recordings").glob("*.wav"))
    matches = [(path, re.fullmatch(r"(\d)_(\w+)_(\d+)", path.stem)) for path in files]
    named = [(path, match) for path, match in matches if match]
    speakers = sorted({match[2] for _, match in named})
    clips = []
    for path, match in named:
        columns = {
            "split": "test" if int(match[3]) < 5 else "train",
            "speaker": match[2],
            "index": match[3],
            "loso_fold": str(1 + speakers.index(match[2])),
        }
        clips.append(Clip(path, (match[1],), columns=columns))
    others = len(files) - len(named)
    left_out = f"left out {others} files that are not named digit_speaker_index.wav"
    return Found(clips, (left_out,) if others else ())


def read_asc(root: Path) -> Found:
    """Arabic Speech Commands as published, with the official split in three lists."""
    parts = ("train", "val", "test")
    absent = [f"{part}.csv" for part in parts if not (root / f"{part}.csv").is_file()]
    if absent:
        raise InputError(
            f"{root}: the split by speaker stands in train.csv, val.csv and test.csv, but "
            f"{', '.join(absent)} is missing and recordings do not tell it; fetch the lists again"
        )
    clips = []
    for part in parts:
        for row in _table(root / f"{part}.csv", ("file",)):
            path = root / row["file"]
            named = re.fullmatch(r"(\d+)_NO_(\d+)\.wav", path.name)
            if named is None:
                raise InputError(
                    f"{root / f'{part}.csv'}: {row['file']} is not named SPEAKER_NO_TAKE.wav; "
                    "fetch the data set again"
                )
            word, take = path.parent.name.replace(" ", "_"), int(named[2])
            chosen = word in ASC10 and take <= ASC10_TAKES
            columns = {
                "split": part,
                "speaker": named[1],
                "take": str(take),
                "asc10": str(int(chosen)),
                "speaker_split": ASC10_SPEAKER_SPLIT.get(word, "train") if chosen else "",
            }
            clips.append(Clip(path, (word,), columns=columns))
    return Found(clips)


def read_speech_commands(root: Path) -> Found:
    """Speech Commands, version 1 or 2, as published: a folder for each word, and two lists.

    Source: arXiv:1804.03209; a speaker's name is the part of a file's name before ``_nohash_``.
    """
    listed = {
        path: part
        for part, name in (("val", "validation_list.txt"), ("test", "testing_list.txt"))
        for path in _lines(root / name)
    }
    clips, notes, seen = [], [], set()
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        files = sorted(folder.glob("*.wav"))
        if folder.name.startswith("_"):
            notes.append(f"left out {len(files)} files of {folder.name}, which is no word")
            continue
        for path in files:
            speaker, _, take = path.stem.partition("_nohash_")
            name = f"{folder.name}/{path.name}"
            seen.add(name)
            columns = {"split": listed.get(name, "train"), "speaker": speaker, "take": take}
            clips.append(Clip(path, (folder.name,), columns=columns))
    for name in sorted(set(listed) - seen):  # listed but missing: the caller refuses them
        clips.append(Clip(root / name, (name.partition("/")[0],), columns={"split": listed[name]}))
    return Found(clips, tuple(notes))


def _table(path: Path, columns: Sequence[str]) -> Sequence[Mapping[str, str]]:
    """Rows of a CSV file that has certain columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); fetch it again") from None
    for line, row in enumerate(rows, start=2):
        for column in columns:
            if not row.get(column):
                raise InputError(f"{path}, line {line}: {column} is missing; fetch the file again")
    return rows


def _lines(path: Path) -> list[str]:
    """Lines of a text file that hold something."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); fetch it again") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


DATA_SETS = {
    "esc50": DataSet(
        split="fold",
        columns=("fold", "group", "esc10", "source", "take", "content_s"),
        landmarks=("meta/esc50.csv", "audio"),
        read=read_esc50,
    ),
    "fsdd": DataSet(
        split="split",
        columns=("split", "speaker", "index", "loso_fold"),
        landmarks=("recordings",),
        read=read_fsdd,
    ),
    "asc": DataSet(
        split="split",
        columns=("split", "speaker", "take", "asc10", "speaker_split"),
        landmarks=("dataset",),
        read=read_asc,
    ),
    "speech-commands": DataSet(
        split="split",
        columns=("split", "speaker", "take"),
        landmarks=("validation_list.txt", "testing_list.txt"),
        read=read_speech_commands,
    ),
}
"""By the name that ``melastic data prepare`` takes."""
