"""Augmentation of log-mel spectrograms. Every draw comes from the generator that is passed in.

The order is: mixup, warp, shift, gain, noise (on log-mels), normalise, masks. ``official_order``
masks before normalising with the value 0, as AST does.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.errors import InputError, check_range
from melastic.frontend.fbank import LOW_HZ, mel_of
from melastic.randomness import integer, uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What training does to a clip; zero turns a part off."""

    mixup: float = 0.0
    """Share of the clips that another clip is mixed into."""
    mixup_beta: float = 10.0
    """Both parameters of the Beta distribution that the mixing weight is drawn from."""
    warp_time: float = 0.0
    """Largest change of duration: by a factor between 1 / (1 + this) and 1 + this."""
    warp_freq: float = 0.0
    """Largest stretch of the mel axis by such a factor: another size of speaker or source."""
    warp_hz: float = 0.0
    """Largest change of all frequencies by such a factor, in Hz: longer or shorter vocal tracts."""
    shift_freq: int = 0
    """Largest shift along the mel axis (mel bins)."""
    roll: float = 0.0
    """Largest roll along time, in shares of the clip."""
    gain_db: float = 0.0
    """Largest change of level (dB)."""
    filter_db: float = 0.0
    """Largest gain or loss of a random, smooth filter over the mel axis (dB)."""
    noise_db: float = 0.0
    """Noise of equal power in every mel bin is added, at a random level between the clip's mean and
    this far below it (dB)."""
    noise: float = 0.5
    """Share of the clips that get noise, where ``noise_db`` is set."""
    freq_masks: int = 0
    """SpecAugment: stripes that hide mel bins."""
    freq_mask_bins: int = 20
    """Widest such stripe (mel bins)."""
    time_masks: int = 0
    """SpecAugment: stripes that hide frames."""
    time_mask_share: float = 0.2
    """Widest such stripe, in shares of the clip."""
    official_order: bool = False
    """Mask with 0 before normalising, as AST does; otherwise with the mean, after it."""

    def __post_init__(self) -> None:
        """Refuse shares and widths that mean nothing."""
        check_range("augment", self, ("mixup", "roll", "noise", "time_mask_share"), 0, 1)
        widths = ("warp_time", "warp_freq", "warp_hz", "shift_freq", "gain_db", "filter_db")
        counts = ("noise_db", "freq_masks", "freq_mask_bins", "time_masks")
        check_range("augment", self, (*widths, *counts), 0)
        if not self.mixup_beta > 0:
            raise InputError(f"augment.mixup_beta must be positive, got {self.mixup_beta}; try 0.5")


def mix(
    spectrogram: Float[Tensor, "freq time"], other: Float[Tensor, "freq _"], weight: float
) -> Float[Tensor, "freq time"]:
    """Log-mels of the weighted sum of two waveforms, taken as uncorrelated.

    The other clip is cut to the first one's length, or ends before it.

    Args:
        spectrogram: log-mels of the first clip.
        other: log-mels of the second.
        weight: amplitude of the first; the second's is ``1 - weight``.

    Source: AST's mixup, which is done on the waveforms.
    """
    frames = min(spectrogram.shape[1], other.shape[1])
    mixed = spectrogram + 2 * math.log(max(weight, 1e-6))
    second = other[:, :frames] + 2 * math.log(max(1 - weight, 1e-6))
    mixed[:, :frames] = torch.logaddexp(mixed[:, :frames], second)
    return mixed


def mixing_weight(config: Augmentation, draw: torch.Generator) -> float:
    """Weight of the first clip in mixup: Beta(b, b), from two Gamma draws."""
    shape = torch.full((2,), config.mixup_beta, dtype=torch.float64)
    first, second = torch._standard_gamma(shape, generator=draw).tolist()
    return first / (first + second) if first + second > 0 else 0.5


def distort(
    spectrogram: Float[Tensor, "freq time"],
    config: Augmentation,
    draw: torch.Generator,
    *,
    sample_rate: int,
) -> Float[Tensor, "freq frames"]:
    """Warp, shift, roll, change the level of, and add noise to log-mels.

    Args:
        spectrogram: log-mels.
        config: what is done.
        draw: where random numbers come from.
        sample_rate: of the waveform (Hz); half of it is where the highest bin ends.
    """
    x = spectrogram
    if config.warp_time or config.warp_freq:
        x = _warp(x, config, draw)
    if config.warp_hz:
        x = _scale_frequencies(x, _factor(config.warp_hz, draw), sample_rate)
    if config.shift_freq:
        x = _shift(x, integer(2 * config.shift_freq + 1, draw) - config.shift_freq)
    if config.roll:
        x = x.roll(round(uniform(-config.roll, config.roll, draw) * x.shape[1]), dims=1)
    if config.gain_db:
        x = x + uniform(-config.gain_db, config.gain_db, draw) * math.log(10) / 10
    if config.filter_db:
        x = x + _filter(x.shape[0], config.filter_db, draw)[:, None] * math.log(10) / 10
    if config.noise_db and uniform(0, 1, draw) < config.noise:
        below = uniform(0, config.noise_db, draw) * math.log(10) / 10
        level = x.mean() - below
        power = -torch.rand(x.shape, generator=draw).clamp_min(1e-6).log()  # exponential
        x = torch.logaddexp(x, level + power.clamp_min(1e-3).log())
    return x


def mask(
    spectrogram: Float[Tensor, "freq time"], config: Augmentation, draw: torch.Generator
) -> Float[Tensor, "freq time"]:
    """Hide random stripes along both axes with zeros.

    Source: SpecAugment (arXiv:1904.08779), section 2.
    """
    if not config.freq_masks and not config.time_masks:
        return spectrogram
    x = spectrogram.clone()
    bins, frames = x.shape
    for _ in range(config.freq_masks):
        first, width = _stripe(bins, config.freq_mask_bins, draw)
        x[first : first + width] = 0
    for _ in range(config.time_masks):
        first, width = _stripe(frames, int(frames * config.time_mask_share), draw)
        x[:, first : first + width] = 0
    return x


def _stripe(size: int, widest: int, draw: torch.Generator) -> tuple[int, int]:
    """First index and width of a stripe that lies inside an axis."""
    width = integer(min(widest, size) + 1, draw)
    return integer(size - width + 1, draw), width


def _factor(largest: float, draw: torch.Generator) -> float:
    """A factor whose logarithm is uniform."""
    return math.exp(uniform(-1, 1, draw) * math.log1p(largest))


def _warp(x: Tensor, config: Augmentation, draw: torch.Generator) -> Tensor:
    """Stretch both axes; along frequency the number of bins stays, the lowest bin is fixed."""
    bins, frames = x.shape
    new_frames = max(1, round(frames * _factor(config.warp_time, draw)))
    new_bins = max(1, round(bins * _factor(config.warp_freq, draw)))
    if (new_bins, new_frames) == (bins, frames):
        return x
    image = functional.interpolate(
        x[None, None], (new_bins, new_frames), mode="bilinear", align_corners=False
    )[0, 0]
    if new_bins >= bins:
        return image[:bins]
    return torch.cat([image, image[-1:].expand(bins - new_bins, -1)])


def _scale_frequencies(x: Tensor, factor: float, sample_rate: int) -> Tensor:
    """Move what is at each frequency to ``factor`` times that frequency.

    Source: vocal tract length perturbation (N. Jaitly, G. Hinton, ICML workshop 2013), without the
        kink that keeps the highest frequency in place.
    """
    bins = x.shape[0]
    edges = mel_of(torch.tensor([LOW_HZ, sample_rate / 2]))
    step = (edges[1] - edges[0]) / (bins + 1)
    hz = 700 * torch.expm1((edges[0] + step * torch.arange(1, bins + 1)) / 1127)
    place = ((mel_of(hz / factor) - edges[0]) / step - 1).clamp(0, bins - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(bins - 1)
    return torch.lerp(x[low], x[high], (place - low)[:, None])


def _filter(bins: int, largest_db: float, draw: torch.Generator) -> Tensor:
    """Gain of each mel bin (dB): straight lines between a few random bins with random gains.

    Source: FilterAugment (arXiv:2110.03282), linear type.
    """
    knots = 3 + integer(4, draw)
    inner = torch.rand(knots - 2, generator=draw).sort().values
    places = torch.cat([torch.zeros(1), inner, torch.ones(1)]) * (bins - 1)
    gains = (2 * torch.rand(knots, generator=draw) - 1) * largest_db
    line = np.interp(np.arange(bins), places.numpy(), gains.numpy())
    return torch.from_numpy(line).float()


def _shift(x: Tensor, by: int) -> Tensor:
    """Move along frequency; the bins that become free repeat the edge."""
    if by == 0:
        return x
    index = (torch.arange(x.shape[0]) - by).clamp(0, x.shape[0] - 1)
    return x[index]
