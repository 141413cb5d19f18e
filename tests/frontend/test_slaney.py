"""librosa's log-mels, against its definition a frame and a filter at a time."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.config import FrontendConfig, SlaneyMel
from melastic.errors import InputError
from melastic.frontend.normalize import fewest_samples, frames_of, raw_spectrogram_of
from melastic.frontend.slaney import slaney_filters

CONFIG = FrontendConfig(
    sample_rate=8000, num_mels=12, hop_ms=10, window_ms=32, slaney=SlaneyMel(high_hz=4000)
)


def hz(mel):
    """Slaney's scale: 200/3 Hz a mel up to 1000 Hz, then 27 mels for a factor of 6.4."""
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def mel(frequency):
    return frequency * 3 / 200 if frequency < 1000 else 15 + 27 * math.log(frequency / 1000, 6.4)


def one_frame_at_a_time(waveform, config):
    """The definition in float64."""
    rate, size = config.sample_rate, int(config.sample_rate * config.window_ms / 1000)
    hop, half = int(rate * config.hop_ms / 1000), size // 2
    low, high = mel(config.slaney.low_hz), mel(config.slaney.high_hz)
    step = (high - low) / (config.num_mels + 1)
    edges = [hz(low + i * step) for i in range(config.num_mels + 2)]
    x = waveform.double()
    x = torch.cat([x[1 : half + 1].flip(0), x, x[-half - 1 : -1].flip(0)])
    n = torch.arange(size, dtype=torch.float64)
    taper = 0.5 - 0.5 * torch.cos(2 * torch.pi * n / size)
    pitch = torch.fft.rfftfreq(size, 1 / rate, dtype=torch.float64)
    columns = []
    for first in range(0, len(x) - size + 1, hop):
        power = torch.fft.rfft(x[first : first + size] * taper).abs() ** 2
        column = []
        for left, middle, right in zip(edges, edges[1:], edges[2:], strict=False):
            rise, fall = (pitch - left) / (middle - left), (right - pitch) / (right - middle)
            area = (torch.minimum(rise, fall).clamp_min(0) * power).sum() * 2 / (right - left)
            column.append(math.log(max(area.item(), 1e-10)))
        columns.append(torch.tensor(column, dtype=torch.float64))
    return torch.stack(columns, dim=1)


ODD = replace(CONFIG, sample_rate=11_025)
"""Its window has 352.8 samples, which are 352; at 32.1 ms 353."""


@pytest.mark.parametrize("config", [CONFIG, ODD, replace(ODD, window_ms=32.1)])
@pytest.mark.parametrize("samples", [180, 500, 4001])
def test_log_mels_are_those_of_the_definition(samples, config):
    waveform = 0.1 * torch.randn(samples) + 0.05
    found = raw_spectrogram_of(waveform, config)
    oracle = one_frame_at_a_time(waveform, config)
    torch.testing.assert_close(found.double(), oracle, atol=1e-3, rtol=0)


@given(
    samples=st.integers(1, 600),
    hop_ms=st.sampled_from([1.0, 7.3, 40.0]),
    window_ms=st.sampled_from([32.0, 32.2, 25.0]),
)
def test_frames_are_counted_without_the_clip(samples, hop_ms, window_ms):
    config = replace(CONFIG, window_ms=window_ms)
    frames = frames_of(samples, config, hop_ms=hop_ms)
    assert (frames > 0) == (samples >= fewest_samples(config))
    if frames:
        found = raw_spectrogram_of(torch.randn(samples), config, hop_ms=hop_ms)
        assert found.shape == (12, frames)
        return
    with pytest.raises(InputError, match="more than half a window"):
        raw_spectrogram_of(torch.randn(samples), config, hop_ms=hop_ms)


def test_silence_is_the_floor_and_clips_do_not_touch():
    clips = torch.stack([torch.zeros(1000), torch.randn(1000)])
    found = raw_spectrogram_of(clips, CONFIG)
    assert (found[0] == math.log(1e-10)).all()
    torch.testing.assert_close(found[1], raw_spectrogram_of(clips[1], CONFIG))


def test_filters_above_half_the_rate_are_silent():
    filters = slaney_filters(64, 1024, 16_000, 50.0, 14_000.0)
    assert (filters.sum(1) == 0).sum() == 9


def test_edges_that_leave_no_band_are_refused():
    with pytest.raises(InputError, match="below high_hz"):
        SlaneyMel(low_hz=5000, high_hz=4000)
