"""What can be wrong with a data set, one rule each."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melastic.config import FrontendConfig
from melastic.data.manifest import Clip

SPLIT_COLUMNS = ("split", "fold")
"""Columns that say which part a clip belongs to."""
SILENCE_DBFS = -60.0
"""Peak below which a clip counts as silent (decibels below full scale)."""
MOST_UNBALANCED = 10
"""Times that the most frequent label may be as frequent as the rarest."""
_BEYOND_S = 0.01
"""Seconds that a clip may end after its file does, for rounding."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to mend."""

    severity: Literal["error", "warning"]
    """An error stops a run; a warning makes its results worse, or better than they should be."""
    message: str
    """One line with the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What reading one clip gave."""

    clip: Clip
    error: str | None = None
    """Why it cannot be read; the rest means nothing then."""
    sample_rate: int = 0
    """Of the file (Hz)."""
    channels: int = 0
    length_s: float = 0.0
    """Length of the clip (s)."""
    peak: float = 0.0
    """Largest magnitude of a sample; 1 is full scale."""
    beyond_s: float = 0.0
    """How far the clip's end lies behind the file's (s)."""
    too_short: bool = False
    """Whether it does not fill one analysis window."""


def check(
    looks: Sequence[Look], same_content: Iterable[Sequence[Path]], frontend: FrontendConfig
) -> list[Problem]:
    """All problems of a data set, errors first.

    Args:
        looks: one for each clip of the manifest.
        same_content: groups of different files that hold the same bytes.
        frontend: how spectrograms are computed.
    """
    clips = [look.clip for look in looks]
    errors = dict.fromkeys([*_unreadable(looks), *_too_short(looks, frontend)])
    warnings = [
        *_silent(looks),
        *_beyond_the_file(looks),
        *_listed_twice(clips),
        *_same_content(clips, same_content),
        *_unbalanced(clips),
        *_without_labels(clips),
        *_labels_in_one_part(clips),
        *_speakers_in_several_parts(clips),
        *_mixed_rates(looks, frontend),
    ]
    return [
        *(Problem("error", message) for message in errors),
        *(Problem("warning", message) for message in dict.fromkeys(warnings)),
    ]


def _unreadable(looks: Sequence[Look]) -> Iterator[str]:
    for look in looks:
        if look.error is not None:
            yield look.error


def _too_short(looks: Sequence[Look], frontend: FrontendConfig) -> Iterator[str]:
    for look in looks:
        if look.error is None and look.too_short:
            yield (
                f"{_name(look.clip)}: {look.length_s * 1000:.3g} ms are shorter than one analysis "
                f"window ({frontend.window_ms:g} ms); leave it out or record it again"
            )


def _silent(looks: Sequence[Look]) -> Iterator[str]:
    for look in looks:
        if look.error is None and look.peak < 10 ** (SILENCE_DBFS / 20):
            level = f"{20 * math.log10(look.peak):.0f} dBFS" if look.peak else "zero"
            yield f"{_name(look.clip)}: silent (peak {level}); leave it out or record it again"


def _beyond_the_file(looks: Sequence[Look]) -> Iterator[str]:
    for look in looks:
        if look.error is None and look.beyond_s > _BEYOND_S:
            yield (
                f"{_name(look.clip)}: ends {look.beyond_s:.3f} s after its file does; correct end_s"
            )


def _listed_twice(clips: Sequence[Clip]) -> Iterator[str]:
    places = defaultdict(list)
    for clip in clips:
        places[clip.path, clip.start_s, clip.end_s].append(clip)
    for same in places.values():
        if len(same) > 1:
            yield (
                f"{_name(same[0])}: the clip is listed {len(same)} times{_mixture(same)}; leave "
                "out all rows but one"
            )


def _same_content(clips: Sequence[Clip], groups: Iterable[Sequence[Path]]) -> Iterator[str]:
    by_path = defaultdict(list)
    for clip in clips:
        by_path[clip.path].append(clip)
    for paths in groups:
        mixture = _mixture([clip for path in paths for clip in by_path[path]])
        others = _some(paths[1:])
        yield f"{paths[0]}: the same content is in {others}{mixture}; leave out all but one"


def _without_labels(clips: Sequence[Clip]) -> Iterator[str]:
    bare = [clip for clip in clips if not clip.labels]
    if bare:
        yield (
            f"{len(bare)} of {len(clips)} clips have no label, such as {_name(bare[0])}; give them "
            "one, but for pretraining, which needs none"
        )


def _unbalanced(clips: Sequence[Clip]) -> Iterator[str]:
    counts = Counter(label for clip in clips for label in clip.labels)
    if not counts:
        return
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    if many > MOST_UNBALANCED * few:
        yield (
            f"labels are unbalanced, {most!r} has {many} clips and {least!r} has {few}; record "
            "more of the rare, or train with data.balanced"
        )


def _labels_in_one_part(clips: Sequence[Clip]) -> Iterator[str]:
    for column in SPLIT_COLUMNS:
        parts = _parts(clips, column, lambda clip: clip.labels)
        if len(set().union(*parts.values())) < 2:
            continue
        alone = [f"{label} ({min(where)})" for label, where in parts.items() if len(where) == 1]
        if alone:
            yield (
                f"{len(alone)} labels are in one {column} only, so cannot be both learnt and "
                f"tested: {_some(alone)}; move clips or drop the labels"
            )


def _speakers_in_several_parts(clips: Sequence[Clip]) -> Iterator[str]:
    parts = _parts(clips, "split", lambda clip: (clip.columns.get("speaker", ""),))
    parts.pop("", None)
    several = [f"{name} ({', '.join(sorted(at))})" for name, at in parts.items() if len(at) > 1]
    if several:
        yield (
            f"{len(several)} of {len(parts)} speakers have clips in more than one split: "
            f"{_some(several)}; split by speaker unless the speakers are meant to be known"
        )


def _mixed_rates(looks: Sequence[Look], frontend: FrontendConfig) -> Iterator[str]:
    rates = Counter(look.sample_rate for look in looks if look.error is None)
    low = sorted(rate for rate in rates if rate < frontend.sample_rate)
    if low and len(rates) > 1:
        yield (
            f"{rates[low[0]]} clips at {low[0]} Hz hold nothing above {low[0] / 2:g} Hz, others "
            "do, and a model may learn that; record all at one rate or lower sample_rate"
        )


def _parts(
    clips: Sequence[Clip], column: str, names: Callable[[Clip], Iterable[str]]
) -> dict[str, set[str]]:
    """For each name, the values of a column that its clips have."""
    parts: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for name in names(clip) if clip.columns.get(column) else ():
            parts[name].add(clip.columns[column])
    return parts


def _mixture(clips: Sequence[Clip]) -> str:
    """How clips that should agree differ, in words."""
    kinds = {"labels": {";".join(clip.labels) for clip in clips}}
    for column in SPLIT_COLUMNS:
        kinds[f"{column}s"] = {clip.columns.get(column, "") for clip in clips}
    differing = [
        f" in several {kind} ({', '.join(sorted(values))})"
        for kind, values in kinds.items()
        if len(values) > 1
    ]
    return " and".join(differing)


def _name(clip: Clip) -> str:
    """The file, and the stretch of it where it is not all."""
    if not clip.start_s and clip.end_s is None:
        return str(clip.path)
    return f"{clip.path} from {clip.start_s:g} s to {clip.end_s or 'the end'}"


def _some(items: Sequence[object], most: int = 5) -> str:
    """The first few items of a list."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
