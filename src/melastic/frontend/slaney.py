"""Log-mels as librosa defines them: HTS-AT's front end, in plain torch.

Source: librosa (mel scale and filters of M. Slaney's Auditory Toolbox), through torchlibrosa as
    HTS-AT (RetroCirce/HTS-Audio-Transformer) uses it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.constants import constant
from melastic.errors import InputError
from melastic.frontend.config import SlaneyMel
from melastic.frontend.fbank import exact, frame_sizes

FLOOR = 1e-10
"""Smallest power that enters the logarithm."""
LINEAR_HZ = 1000.0
"""Frequency up to which the mel scale is linear (Hz)."""
HZ_OF_MEL = 200 / 3
"""Width of a mel where it is linear (Hz)."""
MEL_STEP = math.log(6.4) / 27
"""Width of a mel above, as a natural logarithm of frequency."""


def slaney_log_mel(
    waveform: Float[Tensor, "*clips samples"],
    *,
    config: SlaneyMel,
    sample_rate: int,
    hop_ms: float,
    window_ms: float,
    num_mels: int,
) -> Float[Tensor, "*clips freq time"]:
    """Natural log of mel power; ``10 / ln(10)`` times it is decibels.

    Frames are centred, the clip is reflected at its ends, weighted with a periodic Hann window;
    filters of equal area on Slaney's mel scale sum the power.

    Args:
        waveform: samples in [-1, 1]; leading axes are kept.
        config: edges of the filters.
        sample_rate: samples per second (Hz).
        hop_ms: step between frames (ms), rounded down to whole samples.
        window_ms: length of a frame (ms), rounded down to whole samples.
        num_mels: mel bins.

    Returns:
        ``1 + samples // hop`` frames for an even window, ``1 + (samples - 1) // hop`` for an odd.

    Raises:
        InputError: if the clip is too short to be reflected, or a size is not positive.
    """
    window, hop = frame_sizes(sample_rate, hop_ms=hop_ms, window_ms=window_ms)
    samples = waveform.shape[-1]
    if samples <= window // 2:
        raise InputError(
            f"a clip needs more than half a window of {window_ms:g} ms ({window // 2} samples at "
            f"{sample_rate} Hz), got {samples} samples; give a longer clip or a shorter window_ms"
        )
    clips = waveform.reshape(-1, samples)
    if clips.dtype not in (torch.float32, torch.float64):
        clips = clips.float()
    taper = torch.hann_window(window, dtype=clips.dtype, device=clips.device)
    spectrum = torch.stft(clips, window, hop, window=taper, center=True, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    filters = slaney_filters(num_mels, window, sample_rate, config.low_hz, config.high_hz)
    with exact(power.device):
        mels = filters.to(power) @ power
    log_mels = mels.clamp_min(FLOOR).log()
    return log_mels.reshape(*waveform.shape[:-1], *log_mels.shape[1:])


@constant(maxsize=32)
def slaney_filters(
    num_mels: int, size: int, sample_rate: int, low_hz: float, high_hz: float
) -> Float[Tensor, "mels frequencies"]:
    """Triangles of equal area.

    Args:
        num_mels: how many.
        size: samples of the Fourier transform.
        sample_rate: samples per second (Hz).
        low_hz: lower edge of the first (Hz).
        high_hz: upper edge of the last (Hz).
    """
    return _triangles(num_mels, size, sample_rate, _mel_of(low_hz), _mel_of(high_hz))


def _triangles(
    num_mels: int, size: int, sample_rate: int, low: float, high: float
) -> Float[Tensor, "mels frequencies"]:
    """Filters between two places on the mel scale."""
    frequencies = torch.arange(size // 2 + 1, dtype=torch.float64) * (sample_rate / size)
    places = torch.linspace(low, high, num_mels + 2, dtype=torch.float64)
    edges = torch.tensor([_hz_of(mel) for mel in places.tolist()], dtype=torch.float64)
    left, centre, right = (edges[i : i + num_mels, None] for i in range(3))
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    filters = torch.minimum(rising, falling).clamp_min(0)
    return (filters * 2 / (right - left)).float()


def _mel_of(frequency: float) -> float:
    """Frequency (Hz) on Slaney's mel scale."""
    if frequency < LINEAR_HZ:
        return frequency / HZ_OF_MEL
    return LINEAR_HZ / HZ_OF_MEL + math.log(frequency / LINEAR_HZ) / MEL_STEP


def _hz_of(mel: float) -> float:
    """The inverse of :func:`_mel_of`."""
    linear = LINEAR_HZ / HZ_OF_MEL
    if mel < linear:
        return mel * HZ_OF_MEL
    return LINEAR_HZ * math.exp(MEL_STEP * (mel - linear))
