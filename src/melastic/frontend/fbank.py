"""Kaldi-compatible log-mel filter bank in plain torch: batched, differentiable, on any device."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.constants import constant
from melastic.errors import InputError
from melastic.frontend.audio import check_samples

PREEMPHASIS = 0.97
"""Share of the previous sample that is subtracted from each sample."""
LOW_HZ = 20.0
"""Lower edge of the first mel filter (Hz); the upper edge of the last is half the sample rate."""
FLOOR = torch.finfo(torch.float32).eps
"""Smallest power that enters the logarithm."""
FRAMES_AT_ONCE = 600
"""Frames per block: a block and its spectrum stay in the processor's cache."""
FLOAT32_RANGE = 1e-8
"""Frames whose quietest frequencies lie this far below their loudest mel bin need float64."""
MELS_AT_ONCE = 16
"""Mel bins per product: neighbouring filters share a narrow band of frequencies."""
_ROUNDING = 1e-6
"""Samples by which a product with milliseconds may fall short of a whole number of them."""


class _Filters(NamedTuple):
    """Mel filters for squared real and imaginary parts in turn."""

    groups: list[tuple[int, Float[Tensor, "parts mels"]]]
    """Neighbouring filters, and the first frequency that they weigh."""
    scale: Float[Tensor, " mels"]
    """One over the sum of a filter's weights; 0 where it is too narrow to weigh any frequency."""
    shift: Float[Tensor, " mels"]
    """Infinity for such filters, else 0."""


def log_mel(
    waveform: Float[Tensor, "*clips samples"],
    *,
    sample_rate: int = 16_000,
    hop_ms: float = 10.0,
    window_ms: float = 25.0,
    num_mels: int = 128,
) -> Float[Tensor, "*clips freq time"]:
    """Log-mel spectrogram as Kaldi defines it.

    Frames lie wholly inside the clip. Each loses its mean, is pre-emphasised (0.97), weighted with
    a symmetric Hann window, and zero-padded to a power of two; mel filters from 20 Hz to half the
    sample rate sum its power, and the natural logarithm is taken. A constant offset of the waveform
    changes nothing, so AST's subtraction of the clip's mean is not needed.

    Args:
        waveform: samples in [-1, 1]; leading axes are kept.
        sample_rate: samples per second (Hz).
        hop_ms: step between frames (ms), rounded down to whole samples.
        window_ms: length of a frame (ms), rounded down to whole samples.
        num_mels: mel bins.

    Returns:
        Natural log of power, ``1 + (samples - window) // hop`` frames.

    Raises:
        InputError: if the clip is shorter than a window, or a size is not positive.

    Source: Kaldi's ``compute-fbank-feats``, with the settings of YuanGongND/ast
        (``htk_compat``, no energy, no dither).
    """
    check_samples(waveform)
    window, hop = frame_sizes(sample_rate, hop_ms=hop_ms, window_ms=window_ms)
    if num_mels < 1:
        raise InputError(f"num_mels must be at least 1, got {num_mels}; try 128")
    samples = waveform.shape[-1]
    if samples < window:
        raise InputError(
            f"a clip needs at least one window of {window_ms:g} ms ({window} samples at "
            f"{sample_rate} Hz), got {samples} samples; give a longer clip or a shorter window_ms"
        )
    clips = waveform.reshape(-1, samples)
    if not len(clips):
        raise InputError(f"log-mels need clips, got the shape {tuple(waveform.shape)}")
    if clips.dtype not in (torch.float32, torch.float64):
        clips = clips.float()
    taper = _taper(window, waveform.device)
    filters = _mel_filters(num_mels, window, sample_rate, waveform.device)
    with exact(waveform.device):
        blocks = [
            _log_mel_block(piece, window, hop, taper, filters)
            for piece in _blocks(clips, window, hop)
        ]
    frames = 1 + (samples - window) // hop
    spectrogram = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    spectrogram = spectrogram.reshape(-1, frames, num_mels)
    return spectrogram.transpose(1, 2).reshape(*waveform.shape[:-1], num_mels, frames)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """No lower precision within: products of power span more than short formats hold."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def frame_sizes(sample_rate: int, *, hop_ms: float, window_ms: float) -> tuple[int, int]:
    """Window and hop in samples.

    Raises:
        InputError: if either is shorter than it may be.
    """
    if sample_rate < 1:
        raise InputError(f"sample_rate must be positive, got {sample_rate} Hz; try 16000")
    if not max(abs(hop_ms), abs(window_ms)) < math.inf:
        raise InputError(f"hop_ms and window_ms are finite, got {hop_ms} and {window_ms}; try 10")
    window, hop = (int(sample_rate * ms / 1000 + _ROUNDING) for ms in (window_ms, hop_ms))
    if window < 2:
        raise InputError(
            f"window_ms must span at least 2 samples, got {window_ms:g} ms at {sample_rate} Hz; "
            "try 25"
        )
    if hop < 1:
        raise InputError(
            f"hop_ms must span at least 1 sample, got {hop_ms:g} ms at {sample_rate} Hz; try 10"
        )
    return window, hop


def _blocks(clips: Tensor, window: int, hop: int) -> list[Tensor]:
    """Cut clips into pieces of whole frames, each small enough for the cache.

    Short clips share a piece; a long one is cut, with the overlap that its frames need.
    """
    samples = clips.shape[1]
    frames = 1 + (samples - window) // hop
    if frames <= FRAMES_AT_ONCE:
        return list(clips.split(max(1, FRAMES_AT_ONCE // frames)))
    pieces = []
    for clip in clips.split(1):
        for first in range(0, frames, FRAMES_AT_ONCE):
            last = min(first + FRAMES_AT_ONCE, frames) - 1
            pieces.append(clip[:, first * hop : last * hop + window])
    return pieces


def _log_mel_block(
    clips: Float[Tensor, "clips samples"],
    window: int,
    hop: int,
    taper: Float[Tensor, " size"],
    filters: _Filters,
) -> Float[Tensor, "frames freq"]:
    """Log-mels of all frames of some clips of equal length.

    Pre-emphasis and the removal of a frame's mean commute up to the factor ``1 - PREEMPHASIS``, so
    the former runs once over the waveform. Only a frame's first sample differs (it has no
    predecessor in the frame), and the Hann window is zero there.

    Beside a strong tone, the rounding of a float32 transform is heard in quiet mel bins. Frames of
    such a range are computed again in float64, where the device has it.
    """
    frames, offset = _framed(clips, window, hop, len(taper))
    power = _mel_power(frames, offset, taper.to(frames.dtype), filters)
    quietest = torch.addcmul(filters.shift, power, filters.scale).amin(-1).clamp_min(FLOOR)
    doubtful = quietest < FLOAT32_RANGE * power.amax(-1)
    if clips.device.type != "mps" and doubtful.any():
        frames, offset = _framed(clips.double(), window, hop, len(taper))
        again = _mel_power(frames[doubtful], offset[doubtful], taper.double(), filters)
        power = power.index_put((doubtful,), again)
    return power.flatten(0, 1).clamp_min(FLOOR).log()


def _framed(
    clips: Float[Tensor, "clips samples"], window: int, hop: int, size: int
) -> tuple[Float[Tensor, "clips frames {size}"], Float[Tensor, "clips frames 1"]]:
    """Pre-emphasised frames, which run on behind the window, and what is to be taken off them."""
    emphasised = functional.pad(clips, (0, size - window))
    emphasised[:, 1 : clips.shape[1]].sub_(clips[:, :-1], alpha=PREEMPHASIS)
    offset = clips.unfold(1, window, hop).mean(-1, keepdim=True) * (1 - PREEMPHASIS)
    return emphasised.unfold(1, size, hop), offset


def _mel_power(
    frames: Float[Tensor, "*frames size"],
    offset: Float[Tensor, "*frames 1"],
    taper: Float[Tensor, " size"],
    filters: _Filters,
) -> Float[Tensor, "*frames freq"]:
    """Power of frames in each mel bin.

    ``offset + taper * (frame - offset)`` is one pass; its first term changes only the frequency
    zero, which no filter uses.
    """
    spectrum = torch.view_as_real(torch.fft.rfft(torch.lerp(offset, frames, taper)))
    power = spectrum.float().square().flatten(-2)
    return torch.cat(
        [power[..., 2 * low : 2 * low + len(part)] @ part for low, part in filters.groups], dim=-1
    )


@constant(maxsize=32)
def _taper(window: int, device: torch.device) -> Float[Tensor, " size"]:
    """Symmetric Hann window, followed by zeros up to the size of the transform."""
    taper = torch.hann_window(window, periodic=False, dtype=torch.float64)
    return functional.pad(taper, (0, _transform_size(window) - window)).to(device, torch.float32)


def _transform_size(window: int) -> int:
    """Samples of the Fourier transform: the window's, rounded up to a power of two."""
    return int(2 ** math.ceil(math.log2(window)))


@constant(maxsize=32)
def _mel_filters(num_mels: int, window: int, sample_rate: int, device: torch.device) -> _Filters:
    """Triangles of equal width on the mel scale; the Nyquist frequency belongs to none."""
    size = _transform_size(window)
    frequencies = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size
    low, high = mel_of(torch.tensor([LOW_HZ, sample_rate / 2], dtype=torch.float64))
    step = (high - low) / (num_mels + 1)
    left = low + step * torch.arange(num_mels, dtype=torch.float64)
    distance = (mel_of(frequencies)[:, None] - left) / step
    filters = torch.minimum(distance, 2 - distance).clamp_min(0)
    filters[-1] = 0
    groups = []
    for group in filters.to(device, torch.float32).split(MELS_AT_ONCE, dim=1):
        used = group.sum(1).nonzero().flatten().tolist() or [0]
        band = group[used[0] : used[-1] + 1]
        groups.append((used[0], band.repeat_interleave(2, dim=0).contiguous()))
    scale = filters.sum(0).reciprocal().to(device, torch.float32)
    empty = scale.isinf()
    return _Filters(
        groups, scale.masked_fill(empty, 0), torch.zeros_like(scale).masked_fill(empty, torch.inf)
    )


def mel_of(frequency: Tensor) -> Tensor:
    """Frequency (Hz) on the mel scale of HTK and Kaldi."""
    return 1127 * torch.log1p(frequency / 700)
