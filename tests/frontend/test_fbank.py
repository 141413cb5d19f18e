import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import melastic
from melastic.errors import InputError
from melastic.frontend import fbank


def one_frame_at_a_time(waveform, sample_rate, hop_ms=10.0, window_ms=25.0, num_mels=128):
    """Kaldi's definition in float64, a frame and a filter at a time."""
    window, hop = int(sample_rate * window_ms / 1000), int(sample_rate * hop_ms / 1000)
    size = 1
    while size < window:
        size *= 2
    taper = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(window).double() / (window - 1))

    def mel(hz):
        return 1127 * torch.log(1 + torch.as_tensor(hz).double() / 700)

    edges = torch.linspace(
        mel(20.0).item(), mel(sample_rate / 2).item(), num_mels + 2, dtype=torch.float64
    )
    pitch = mel(torch.arange(size // 2).double() * sample_rate / size)
    columns = []
    for first in range(0, len(waveform) - window + 1, hop):
        frame = waveform[first : first + window].double()
        frame = frame - frame.mean()
        frame = frame - 0.97 * torch.cat([frame[:1], frame[:-1]])
        power = torch.fft.fft(torch.cat([frame * taper, torch.zeros(size - window)])).abs() ** 2
        column = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            rise, fall = (pitch - low) / (middle - low), (high - pitch) / (high - middle)
            column.append((torch.minimum(rise, fall).clamp_min(0) * power[: size // 2]).sum())
        columns.append(torch.stack(column).clamp_min(torch.finfo(torch.float32).eps).log())
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(
    ("rate", "settings"),
    [
        (16_000, {}),
        (8_000, {"num_mels": 40}),
        (44_100, {"num_mels": 80}),
        (16_000, {"hop_ms": 25.0, "num_mels": 64}),
        (16_000, {"hop_ms": 5.0, "window_ms": 10.0, "num_mels": 7}),
    ],
)
def test_log_mels_are_those_of_the_definition(rate, settings):
    waveform = 0.1 * torch.randn(rate // 4) + 0.2
    found = melastic.log_mel(waveform, sample_rate=rate, **settings)
    oracle = one_frame_at_a_time(waveform, rate, **settings)
    assert found.shape == oracle.shape
    torch.testing.assert_close(found.double(), oracle, atol=1e-3, rtol=0)
    assert (found - oracle).abs().mean() < 1e-5


@given(st.integers(1, 4), st.integers(400, 80_000))
def test_a_clip_has_the_same_log_mels_alone_and_in_a_batch(clips, samples):
    waveforms = torch.randn(clips, samples, generator=torch.Generator().manual_seed(samples))
    together = melastic.log_mel(waveforms)
    alone = torch.stack([melastic.log_mel(waveform) for waveform in waveforms])
    assert together.shape == (clips, 128, 1 + (samples - 400) // 160)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_size_of_the_blocks_changes_nothing(monkeypatch):
    waveform = torch.randn(30_000)
    whole = melastic.log_mel(waveform)
    monkeypatch.setattr(fbank, "FRAMES_AT_ONCE", 7)
    torch.testing.assert_close(melastic.log_mel(waveform), whole, atol=1e-5, rtol=1e-5)


def test_leading_axes_are_kept():
    assert melastic.log_mel(torch.randn(2, 3, 1600)).shape == (2, 3, 128, 8)


def test_a_constant_offset_changes_nothing():
    waveform = 0.1 * torch.randn(8000)
    moved = melastic.log_mel(waveform + 0.25)
    torch.testing.assert_close(moved, melastic.log_mel(waveform), atol=1e-3, rtol=0)


def test_the_gradient_is_that_of_finite_differences():
    waveform = 0.1 * torch.randn(800, dtype=torch.float64)
    direction = torch.randn(800, dtype=torch.float64)
    waveform.requires_grad_()
    melastic.log_mel(waveform, num_mels=20).double().mean().backward()
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (
            melastic.log_mel(waveform + sign * step * direction, num_mels=20).double().mean()
            for sign in (1, -1)
        )
    slope = (waveform.grad * direction).sum()
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("samples", "settings", "words"),
    [
        (399, {}, "at least one window of 25 ms"),
        (1, {}, "got 1 samples"),
        (1600, {"hop_ms": 0.0}, "hop_ms"),
        (1600, {"hop_ms": -10.0}, "hop_ms"),
        (1600, {"window_ms": 0.0}, "window_ms"),
        (1600, {"num_mels": 0}, "num_mels"),
        (1600, {"sample_rate": 0}, "sample_rate"),
    ],
)
def test_impossible_sizes_are_one_clear_line(samples, settings, words):
    with pytest.raises(InputError, match=words) as error:
        melastic.log_mel(torch.zeros(samples), **settings)
    assert "\n" not in str(error.value)


def test_quiet_bins_beside_a_strong_tone_are_those_of_the_definition():
    time = torch.arange(8_000, dtype=torch.float64) / 16_000
    waveform = (0.9 * torch.sin(2 * math.pi * 3000 * time)).float()
    found = melastic.log_mel(waveform)
    oracle = one_frame_at_a_time(waveform, 16_000)
    assert oracle.max() - oracle.min() > 20, "beyond what float32 resolves"
    torch.testing.assert_close(found.double(), oracle, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_give_the_log_mels_of_their_values(dtype):
    waveform = (0.1 * torch.randn(2, 2000)).to(dtype)
    found = melastic.log_mel(waveform)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, melastic.log_mel(waveform.float()), atol=1e-3, rtol=0)


@pytest.mark.parametrize("window_ms", [25.0, 32.0])
def test_the_waveform_is_left_alone(window_ms):
    waveform = torch.randn(2, 4096)
    before = waveform.clone()
    melastic.log_mel(waveform, window_ms=window_ms)
    assert torch.equal(waveform, before)
