"""One model through many views: accuracy, cost and speed of each."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from melastic.classifier import Classifier
from melastic.config import ModelConfig
from melastic.data.features import Features, OnClip, Samples, too_many_unreadable
from melastic.data.loader import ClipDataset, workers_for
from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs
from melastic.evaluation.evaluate import evaluate_features
from melastic.evaluation.seen import frames_through, inputs_through, readable_samples
from melastic.evaluation.sweep_rows import TABLE, Row, open_table, row_of, write_rows
from melastic.frontend.audio import duration_s
from melastic.frontend.normalize import fewest_samples, frames_of
from melastic.patches.dials import Pooling, plain_size
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import View
from melastic.progress import note

OnRow = Callable[[Row, int, int], None]
"""Told about a view that is measured: its row, views done, views in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """Values of each dial of a view; an empty one stays as the model has it."""

    patch: tuple[int | tuple[int, int], ...] = ()
    """Patch sizes (mel bins, frames); one number means square."""
    hop_ms: tuple[float, ...] = ()
    """Frame shifts (ms)."""
    pooling: tuple[Pooling, ...] = ()
    """Temporal poolings of the spectrogram."""
    seconds: tuple[float | None, ...] = ()
    """Longest stretches that are cut from a clip (s); None: all of it."""
    keep: tuple[float, ...] = ()
    """Shares of the tokens that are kept."""

    def views(self, config: ModelConfig) -> list[View]:
        """Every combination once, in the order of the values.

        Args:
            config: the model, which has a value for every dial.
        """
        grid = itertools.product(
            self.patch or (config.patches.patch,),
            self.hop_ms or (config.frontend.hop_ms,),
            self.pooling or (Pooling(),),
            self.seconds or (None,),
            self.keep or (1.0,),
        )
        views = (
            View(
                patch=plain_size(patch), hop_ms=hop_ms, pooling=pooling, seconds=seconds, keep=keep
            )
            for patch, hop_ms, pooling, seconds, keep in grid
        )
        return list(dict.fromkeys(views))


def sweep(
    model: Classifier,
    clips: Sequence[Clip],
    dials: Dials,
    folder: Path,
    *,
    batch_tokens: int = 4096,
    memory_mb: int = 2000,
    max_unreadable: int = 0,
    on_clip: OnClip | None = None,
    on_row: OnRow | None = None,
) -> list[Row]:
    """Evaluate a model through every combination of some dials.

    Each file is decoded once, and each spectrogram computed once for each frame shift and pooling,
    as long as they fit into memory. ``sweep.csv`` is written after each view; rows that it holds
    already, of the same model on the same clips, are kept and not measured again.

    Args:
        model: the classifier; it stays on its device.
        clips: from a manifest.
        dials: values of each dial.
        folder: where ``sweep.csv`` is, or will be.
        batch_tokens: most tokens that are computed at once.
        memory_mb: most memory for samples and spectrograms (MB).
        max_unreadable: clips that may turn out unreadable; they are left out.
        on_clip: told about progress: clips done in all views, and how many that will be.
        on_row: told about each view that is measured.

    Returns:
        The rows of ``sweep.csv``: those of the dials, in their order, and those of earlier sweeps.

    Raises:
        InputError: if a view does not fit, before anything is computed, or clips cannot be read.
    """
    frontend, views = model.config.frontend, dials.views(model.config)
    check_views(model, clips, views, max_unreadable=max_unreadable)
    table = open_table(folder, model, clips)
    missing = [view for view in views if view not in table]
    groups = list(_by_resolution(missing))
    shared = memory_mb // 2 if len(groups) > 1 else 0
    own, decoded = memory_mb - shared, Samples(clips, frontend.sample_rate, cache_mb=shared)
    done = 0
    told: set[str] = set()
    for group in groups:
        features = Features(clips, frontend, view=group[0], cache_mb=own, samples=decoded)
        failed = features.fill(max_unreadable=max_unreadable)
        first = _first_readable(len(clips), failed, max_unreadable)
        for view in group:
            features.view = view
            _warm_up(model, features, first)
            further = _further(on_clip, done * len(clips), len(missing) * len(clips))
            table[view], reasons = _measured(model, features, batch_tokens, max_unreadable, further)
            _tell(reasons, told)
            done += 1
            write_rows(folder / TABLE, _in_order(table, views))
            if on_row:
                on_row(table[view], done, len(missing))
    return _in_order(table, views)


def _first_readable(clips: int, failed: Mapping[int, str], max_unreadable: int) -> int:
    """The first clip that can be read; refuses where there is none."""
    for index in range(clips):
        if index not in failed:
            return index
    raise too_many_unreadable(list(failed.values()), max_unreadable)


def _tell(reasons: Sequence[str], told: set[str]) -> None:
    """Say why clips are left out, each once.

    Args:
        reasons: one for each clip.
        told: what was said already; added to.
    """
    for reason in reasons:
        if reason not in told:
            note(f"left out: {reason}")
        told.add(reason)


def check_views(
    model: Classifier, clips: Sequence[Clip], views: Sequence[View], *, max_unreadable: int
) -> None:
    """Refuse views that do not fit, from the headers of the files alone.

    Args:
        model: the classifier.
        clips: from a manifest.
        views: what is to be measured.
        max_unreadable: clips that may turn out unreadable.

    Raises:
        InputError: naming the first view that does not fit, and what would work.
    """
    config = model.config
    ClipDataset(Features(clips, config.frontend), model.labels, config.frontend)
    samples = readable_samples(clips, config.frontend.sample_rate)
    unread = [i for i in range(len(clips)) if i not in samples]
    if len(unread) > max_unreadable or not samples:
        raise too_many_unreadable([_why(clips[i].path) for i in unread], max_unreadable)
    fewest = fewest_samples(config.frontend)
    long_enough = {i: count for i, count in samples.items() if count >= fewest} or samples
    shortest = min(long_enough, key=long_enough.__getitem__)
    for view in views:
        try:
            _check_view(config, view, samples[shortest])
        except InputError as error:
            raise InputError(
                f"the view '{view}' does not fit: {error} (shortest clip: {clips[shortest].path})"
            ) from None


def _check_view(config: ModelConfig, view: View, samples: int) -> None:
    """Refuse a view through which a clip would give no token."""
    frontend, patches = config.frontend, config.patches
    patch = patches.patch if view.patch is None else freq_time(view.patch)
    frames = frames_through(samples, frontend, view)
    if not frames:
        most = frames_of(samples, frontend, hop_ms=view.hop_ms)
        if not most:
            raise InputError(
                f"a clip is shorter than a window of {frontend.window_ms:g} ms; leave it out"
            )
        raise InputError(
            f"it needs at least {view.pooling.factor} frames, a clip has {most}; pool by {most} or "
            "less"
        )
    if patch.freq <= frontend.num_mels and patches.remainder == "crop" and frames < patch.time:
        raise InputError(
            f"a patch is {patch.time} frames long, it leaves {frames} of a clip; use patches of at "
            f"most {frames} frames, or a shorter frame shift"
        )
    gmacs(config, FreqTime(frontend.num_mels, frames), patch=patch, keep=view.keep)


def _measured(
    model: Classifier,
    features: Features,
    batch_tokens: int,
    max_unreadable: int,
    on_clip: OnClip | None,
) -> tuple[Row, Sequence[str]]:
    """The row of the view of some features, and why clips were left out."""
    evaluation = evaluate_features(
        model,
        features,
        batch_tokens=batch_tokens,
        workers=workers_for(features, model.patch_embed.bias.device),
        max_unreadable=max_unreadable,
        on_clip=on_clip,
    )
    return row_of(evaluation), evaluation.outputs.unreadable


@torch.no_grad()
def _warm_up(model: Classifier, features: Features, index: int) -> None:
    """See one clip, so that no view pays for what is done once."""
    view, config = features.view, model.config
    dataset = ClipDataset(features, model.labels, config.frontend)
    spectrogram, _ = dataset.clip(0, index)
    spectrogram = spectrogram.to(model.patch_embed.bias.device)
    model(*inputs_through(config, spectrogram, view, index))


def _why(path: Path) -> str:
    """Why a file cannot be opened."""
    try:
        duration_s(path)
    except InputError as error:
        return str(error)
    return f"{path}: cannot be read"


def _by_resolution(views: Sequence[View]) -> Iterator[list[View]]:
    """Views that share their spectrograms."""
    groups: dict[tuple[float | None, Pooling], list[View]] = {}
    for view in views:
        groups.setdefault(view.resolution, []).append(view)
    yield from groups.values()


def _in_order(table: dict[View, Row], views: Sequence[View]) -> list[Row]:
    """Rows in the order of the views, then those of other views."""
    rest = [row for view, row in table.items() if view not in set(views)]
    return [table[view] for view in views if view in table] + rest


def _further(on_clip: OnClip | None, before: int, total: int) -> OnClip | None:
    """Progress of one view as progress of all."""
    if on_clip is None:
        return None
    return lambda done, _: on_clip(before + done, total)
