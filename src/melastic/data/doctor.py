"""Look a data set and its surroundings over before a run does."""

import hashlib
import importlib.util
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import melastic
from melastic.config import FrontendConfig
from melastic.data.doctor_checks import SPLIT_COLUMNS, Look, Problem, check
from melastic.data.features import Features, OnClip
from melastic.data.manifest import Clip, is_file, read_manifest
from melastic.encoders.attention import variable_length_kernel
from melastic.errors import InputError
from melastic.frontend.audio import audio_info, load_audio
from melastic.frontend.normalize import fewest_samples
from melastic.native.library import kernels
from melastic.serialize import to_json

_BINS = 10
_SAME_S = 0.01
"""Seconds by which lengths may differ in one bin."""
_QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a run has to work with."""

    melastic: str
    python: str
    torch: str
    system: str
    cpu_capability: str
    """Vector instructions that torch uses."""
    cpus: int
    threads: int
    """Threads of one operation."""
    cuda: tuple[str, ...]
    """Names of the CUDA devices."""
    mps: bool
    """Whether an Apple GPU is there."""
    kernels: str
    """Instruction set of the compiled CPU kernels, or why there are none."""
    usable: Mapping[str, bool]
    """Kernels and optional packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long the readable clips are."""

    total_s: float
    quantiles_s: Mapping[str, float]
    edges_s: tuple[float, ...]
    """Bounds of the bins, one more than bins."""
    counts: tuple[int, ...]
    """Clips in each bin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMels:
    """Statistics of log-mels, as a front end takes them."""

    mean: float
    std: float
    clips: int
    """Clips that were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a manifest lists."""

    manifest: Path
    clips: int
    files: int
    readable: int
    """Clips that can be read."""
    labels: Mapping[str, int]
    """Clips of each label."""
    splits: Mapping[str, Mapping[str, int]]
    """Clips of each value of the columns ``split`` and ``fold``."""
    sample_rates: Mapping[int, int]
    """Readable clips at each rate (Hz)."""
    channels: Mapping[int, int]
    """Readable clips with each number of channels."""
    lengths: Lengths | None
    """None where no clip is readable."""
    log_mels: LogMels | None
    """None where no clip varies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found."""

    environment: Environment
    contents: Contents | None
    """None without a manifest."""
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``melastic doctor --json`` prints."""
        return dict(to_json(self))


def examine(
    manifest: Path | None = None,
    *,
    frontend: FrontendConfig | None = None,
    most_measured: int = 2000,
    on_clip: OnClip | None = None,
) -> Report:
    """Look over the environment, and every clip of a manifest.

    Args:
        manifest: what to look over; None: the environment alone.
        frontend: how spectrograms are computed; None: as usual.
        most_measured: clips, evenly spaced over the readable ones, whose log-mels are measured.
        on_clip: told about progress; a clip that is measured counts twice.

    Raises:
        InputError: if the manifest itself cannot be read.
    """
    if manifest is None:
        return Report(environment=environment(), contents=None)
    frontend = frontend or FrontendConfig()
    clips = read_manifest(manifest, labelled=False)
    total = len(clips) + max(0, min(most_measured, len(clips)))
    looks = []
    for done, clip in enumerate(clips, start=1):
        looks.append(look_at(clip, frontend))
        if on_clip:
            on_clip(done, total)
    readable = [look for look in looks if look.error is None]
    fit = [look.clip for look in readable if not look.too_short]
    log_mels = _measure(fit, frontend, most_measured, on_clip, total)
    contents = Contents(
        manifest=manifest,
        clips=len(clips),
        files=len({clip.path for clip in clips}),
        readable=len(readable),
        labels=_counts(label for clip in clips for label in clip.labels),
        splits={
            column: _counts(clip.columns[column] for clip in clips if column in clip.columns)
            for column in SPLIT_COLUMNS
            if any(column in clip.columns for clip in clips)
        },
        sample_rates=_counts(look.sample_rate for look in readable),
        channels=_counts(look.channels for look in readable),
        lengths=_lengths([look.length_s for look in readable]) if readable else None,
        log_mels=log_mels,
    )
    problems = check(looks, same_content(clips), frontend)
    return Report(environment=environment(), contents=contents, problems=tuple(problems))


def environment() -> Environment:
    """What a run has to work with."""
    cuda = torch.cuda.is_available()
    packages = ("av", "huggingface_hub", "tensorboard", "wandb")
    return Environment(
        melastic=melastic.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        system=f"{platform.system()} {platform.machine()}",
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpus=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        cuda=tuple(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))),
        mps=torch.backends.mps.is_available(),
        kernels=kernels().said,
        usable={
            "variable_length_attention": cuda and variable_length_kernel() is not None,
            **{name: importlib.util.find_spec(name) is not None for name in packages},
        },
    )


def look_at(clip: Clip, frontend: FrontendConfig) -> Look:
    """Read one clip."""
    try:
        info = audio_info(clip.path)
        samples = load_audio(
            clip.path, sample_rate=frontend.sample_rate, start_s=clip.start_s, end_s=clip.end_s
        )
    except InputError as error:
        return Look(clip=clip, error=str(error))
    end_s = info.duration_s if clip.end_s is None else clip.end_s
    return Look(
        clip=clip,
        sample_rate=info.sample_rate,
        channels=info.channels,
        length_s=len(samples) / frontend.sample_rate,
        peak=float(samples.abs().max()),
        beyond_s=max(0.0, end_s - info.duration_s),
        too_short=len(samples) < fewest_samples(frontend),
    )


def same_content(clips: Sequence[Clip]) -> list[list[Path]]:
    """Groups of different files that hold the same bytes."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(clip.path for clip in clips):
        if is_file(path) and (size := path.stat().st_size):
            by_size[size].append(path)
    by_content: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for size, paths in by_size.items():
        for path in paths if len(paths) > 1 else []:
            try:
                with path.open("rb") as file:
                    by_content[size, hashlib.file_digest(file, "blake2b").digest()].append(path)
            except OSError:  # reading the clip has reported it
                continue
    return [paths for paths in by_content.values() if len(paths) > 1]


def _measure(
    clips: Sequence[Clip],
    frontend: FrontendConfig,
    most: int,
    on_clip: OnClip | None,
    total: int,
) -> LogMels | None:
    """Statistics over at most so many clips, evenly spaced; None where nothing varies."""
    count = max(0, min(most, len(clips)))
    chosen = [clips[i * len(clips) // count] for i in range(count)]

    def progress(done: int, _: int) -> None:
        if on_clip:
            on_clip(total - count + done, total)

    try:
        statistics = Features(chosen, frontend).statistics(most=max(1, count), on_clip=progress)
    except InputError:
        return None
    finally:
        progress(count, count)
    return LogMels(mean=statistics.mean, std=statistics.std, clips=count)


def _counts(values: Any) -> dict[Any, int]:
    """How often each value is there, in order of the values."""
    return dict(sorted(Counter(values).items()))


def _lengths(lengths_s: Sequence[float]) -> Lengths:
    """Quantiles and bins; one bin where all lengths are about the same."""
    bins = _BINS if max(lengths_s) - min(lengths_s) > _SAME_S else 1
    edges = np.linspace(min(lengths_s), max(lengths_s), bins + 1)
    counts = np.histogram(lengths_s, edges)[0] if bins > 1 else np.array([len(lengths_s)])
    quantiles = np.quantile(lengths_s, list(_QUANTILES.values())).tolist()
    return Lengths(
        total_s=sum(lengths_s),
        quantiles_s=dict(zip(_QUANTILES, quantiles, strict=True)),
        edges_s=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )
