"""Log-mels to what a model sees, and the statistics that this takes."""

import math
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.errors import InputError
from melastic.frontend.config import FrontendConfig, Level
from melastic.frontend.fbank import FLOOR, frame_sizes, log_mel
from melastic.frontend.slaney import FLOOR as SLANEY_FLOOR
from melastic.frontend.slaney import slaney_log_mel

QUIET_DB = 20.0
"""Lowest level that is taken off a clip, above digital silence (dB)."""
_ROUNDING = 1e-6
"""Deviation, as a share of the mean, that sums of equal cells may seem to have."""


class Statistics(NamedTuple):
    """Mean and standard deviation of log-mels over all cells of all clips."""

    mean: float
    std: float


def normalise(
    spectrogram: Float[Tensor, "*clips freq time"],
    config: FrontendConfig,
    step_ms: float | None = None,
) -> Float[Tensor, "*clips freq frames"]:
    """Shift and scale log-mels to about zero mean and half a unit of deviation.

    With ``fixed_frames`` the spectrogram is first cut or padded with zeros at its end, to as many
    frames as last equally long. Zeros before normalising are neither silence nor the mean;
    published AST weights were trained that way.

    Args:
        spectrogram: log-mels.
        config: the front end.
        step_ms: time from one frame to the next (ms); None: the front end's hop.

    Source: YuanGongND/ast, dataloader: pad, then mask, then ``(x - mean) / (2 * std)``.
    """
    frames = fixed_frames(config, step_ms)
    if frames is not None:
        spectrogram = functional.pad(spectrogram, (0, frames - spectrogram.shape[-1]))
    return (spectrogram - config.mean) / (2 * config.std)


def normalised_anew(
    spectrogram: Float[Tensor, "freq _"], given: FrontendConfig, wanted: FrontendConfig
) -> Float[Tensor, "freq _"]:
    """What another front end's statistics make of the same log-mels.

    Args:
        spectrogram: normalised log-mels.
        given: whose statistics they have.
        wanted: whose they shall have.
    """
    if (given.mean, given.std) == (wanted.mean, wanted.std):
        return spectrogram
    shift = (given.mean - wanted.mean) / (2 * wanted.std)
    return spectrogram * (given.std / wanted.std) + shift


def fixed_frames(config: FrontendConfig, step_ms: float | None = None) -> int | None:
    """Frames that every clip is cut or padded to; None: clips keep theirs.

    Args:
        config: the front end.
        step_ms: time from one frame to the next (ms); None: the front end's hop.
    """
    if config.fixed_frames is None or step_ms is None:
        return config.fixed_frames
    return max(1, round(config.fixed_frames * config.hop_ms / step_ms))


def spectrogram_of(
    waveform: Float[Tensor, "*clips samples"],
    config: FrontendConfig,
    *,
    hop_ms: float | None = None,
) -> Float[Tensor, "*clips freq time"]:
    """Normalised log-mel spectrogram of a waveform, as a model with this front end expects it."""
    return normalise(raw_spectrogram_of(waveform, config, hop_ms=hop_ms), config, hop_ms)


def raw_spectrogram_of(
    waveform: Float[Tensor, "*clips samples"],
    config: FrontendConfig,
    *,
    hop_ms: float | None = None,
) -> Float[Tensor, "*clips freq time"]:
    """The same before normalising: natural logs of power, whatever the filters."""
    compute = log_mel if config.slaney is None else partial(slaney_log_mel, config=config.slaney)
    log_mels = compute(
        waveform,
        sample_rate=config.sample_rate,
        hop_ms=config.hop_ms if hop_ms is None else hop_ms,
        window_ms=config.window_ms,
        num_mels=config.num_mels,
    )
    if config.level is None:
        return log_mels
    return level(log_mels, config.level, FLOOR if config.slaney is None else SLANEY_FLOOR)


def frames_of(samples: int, config: FrontendConfig, *, hop_ms: float | None = None) -> int:
    """Frames of a waveform's spectrogram before normalising; 0 if it is too short for any.

    Args:
        samples: of the clip, at the front end's rate.
        config: the front end.
        hop_ms: frame shift (ms); None: the front end's own.

    Raises:
        InputError: if the frame shift is shorter than a sample.
    """
    hop_ms = config.hop_ms if hop_ms is None else hop_ms
    window, hop = frame_sizes(config.sample_rate, hop_ms=hop_ms, window_ms=config.window_ms)
    if config.slaney is not None:
        reflected = samples + 2 * (window // 2)
        return 1 + (reflected - window) // hop if samples > window // 2 else 0
    return 1 + (samples - window) // hop if samples >= window else 0


def fewest_samples(config: FrontendConfig) -> int:
    """Samples of the shortest clip that has a frame."""
    window, _ = frame_sizes(config.sample_rate, hop_ms=config.hop_ms, window_ms=config.window_ms)
    return window if config.slaney is None else window // 2 + 1


def level(
    spectrogram: Float[Tensor, "*clips freq time"], config: Level, floor_of_power: float = FLOOR
) -> Float[Tensor, "*clips freq time"]:
    """Log-mels relative to the level of the clip, above a constant floor.

    Louder or softer recordings of the same sound become equal, and so do their backgrounds once
    they are below the floor. No clip counts as quieter than 20 dB above digital silence, so that
    silence stays quiet.
    """
    energy = spectrogram.logsumexp(-2)
    loudest = energy.topk(max(1, energy.shape[-1] // 4), dim=-1).values.mean(-1)
    silence = math.log(floor_of_power) + math.log(spectrogram.shape[-2])
    lowest = silence + QUIET_DB * math.log(10) / 10
    relative = spectrogram - loudest.clamp_min(lowest)[..., None, None]
    floor = relative.new_tensor(-config.floor_db * math.log(10) / 10)
    return torch.logaddexp(relative, floor)


def measure(spectrograms: Iterable[Float[Tensor, "freq _"]]) -> Statistics:
    """Statistics over the cells of log-mels that are not normalised yet.

    Raises:
        InputError: if there are none, or all cells are equal.
    """
    count, total, squares = 0, 0.0, 0.0
    for spectrogram in spectrograms:
        cells = spectrogram.to(torch.float64)
        count += cells.numel()
        total += cells.sum().item()
        squares += cells.square().sum().item()
    if not count:
        raise InputError("statistics need at least one clip, got none; check the selection")
    mean = total / count
    std = math.sqrt(max(0.0, squares / count - mean * mean))
    if std <= _ROUNDING * max(1.0, abs(mean)):
        raise InputError("statistics need clips that vary, all cells are equal; check the audio")
    return Statistics(mean, std)
