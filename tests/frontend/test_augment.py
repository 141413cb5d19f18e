import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.frontend import augment
from melastic.frontend.augment import Augmentation, mask, mix, mixing_weight
from melastic.frontend.fbank import log_mel
from melastic.randomness import generator

ALL = Augmentation(
    warp_time=0.3,
    warp_freq=0.3,
    warp_hz=0.2,
    shift_freq=4,
    roll=0.5,
    gain_db=6,
    filter_db=6,
    noise_db=20,
    freq_masks=2,
    time_masks=2,
)
PARTS = ("warp_time", "warp_freq", "warp_hz", "shift_freq", "roll", "gain_db", "filter_db")


def distort(spectrogram, config, generator):
    return augment.distort(spectrogram, config, generator, sample_rate=16_000)


def draw(seed=0):
    return generator(seed, "test")


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.95))
def test_a_mix_has_the_power_of_both_clips(frames, other_frames, weight):
    one, other = torch.randn(8, frames).double(), torch.randn(8, other_frames).double()
    mixed = mix(one, other, weight)
    for f in range(8):
        for t in range(frames):
            power = weight**2 * math.exp(one[f, t])
            power += (1 - weight) ** 2 * math.exp(other[f, t]) if t < other_frames else 0
            assert mixed[f, t].item() == pytest.approx(math.log(power), abs=1e-9)


def test_mixing_weights_have_the_moments_of_their_beta_distribution():
    config, source = Augmentation(mixup_beta=0.5), draw()
    drawn = torch.tensor([mixing_weight(config, source) for _ in range(4000)])
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * 0.5 + 1)), abs=0.01)


@pytest.mark.parametrize("part", PARTS)
@given(frames=st.integers(1, 60), seed=st.integers(0, 20))
def test_distortions_keep_clips_finite_and_mel_bins_in_number(part, frames, seed):
    config = dataclasses.replace(Augmentation(), **{part: getattr(ALL, part)})
    x = torch.randn(16, frames)
    before = x.clone()
    y = distort(x, config, draw(seed))
    assert y.shape[0] == 16
    assert torch.isfinite(y).all()
    assert torch.equal(x, before), "the kept spectrogram is not changed"
    if part != "warp_time":
        assert y.shape == x.shape
    else:
        assert frames / 1.3 - 1 <= y.shape[1] <= frames * 1.3 + 1


@given(st.integers(0, 50))
def test_the_same_draw_gives_the_same_distortion(seed):
    x = torch.randn(16, 30)
    assert torch.equal(distort(x, ALL, draw(seed)), distort(x, ALL, draw(seed)))
    assert torch.equal(mask(x, ALL, draw(seed)), mask(x, ALL, draw(seed)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 20))
def test_masks_hide_stripes_and_leave_the_rest_alone(bins, frames, seed):
    x = torch.randn(bins, frames) + 10
    y = mask(x, Augmentation(freq_masks=1, freq_mask_bins=5, time_masks=1), draw(seed))
    hidden = y == 0
    assert torch.equal(y[~hidden], x[~hidden])
    rows, columns = hidden.all(1), hidden.all(0)
    assert torch.equal(hidden, rows[:, None] | columns[None])
    if columns.sum() < frames:
        assert rows.sum() <= 5
    if rows.sum() < bins:
        assert columns.sum() <= int(0.2 * frames)


def test_gain_moves_every_cell_by_the_same_number_of_decibels():
    x = torch.randn(16, 30)
    moved = (distort(x, Augmentation(gain_db=6), draw()) - x) * 10 / math.log(10)
    assert moved.std() < 1e-4
    assert 0 < moved.abs().max() <= 6


def test_a_filter_changes_every_frame_alike_and_within_its_limit():
    x = torch.randn(128, 30)
    moved = (distort(x, Augmentation(filter_db=6), draw()) - x) * 10 / math.log(10)
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), atol=1e-4, rtol=0)
    assert moved.abs().max() <= 6 + 1e-4
    assert moved[:, 0].diff().abs().max() < 12, "smooth: no jump over the whole range"
    assert moved.std() > 0.1


def test_noise_fills_silence_and_leaves_loud_cells():
    x = torch.full((16, 200), -20.0)
    x[:, :100] = 0.0
    y = distort(x, Augmentation(noise_db=1, noise=1.0), draw())
    assert y[:, 100:].mean() == pytest.approx(-10, abs=1.5)
    assert (y[:, :100] - 0).abs().mean() < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_a_tone_moves_to_a_multiple_of_its_frequency(seed):
    def tone(hz):
        return log_mel(torch.sin(2 * math.pi * hz * torch.arange(16_000) / 16_000))

    config = Augmentation(warp_hz=0.3)
    moved = distort(tone(1000.0), config, draw(seed)).mean(1)
    factor = augment._factor(0.3, draw(seed))
    assert abs(moved.argmax() - tone(1000.0 * factor).mean(1).argmax()) <= 1
    assert abs(factor - 1) > 0.02
