import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.config import FrontendConfig, Level
from melastic.errors import InputError
from melastic.frontend.normalize import level, raw_spectrogram_of

DB = math.log(10) / 10


@given(st.floats(-50, 40))
def test_a_louder_recording_of_the_same_sound_is_the_same(gain_db):
    log_mels = 3 * torch.randn(16, 40)
    louder = level(log_mels + gain_db * DB, Level())
    torch.testing.assert_close(louder, level(log_mels, Level()), atol=1e-4, rtol=1e-4)


def test_the_louder_quarter_of_the_frames_is_the_level():
    log_mels = torch.full((8, 12), -20.0)
    log_mels[:, 3:6] = torch.tensor([-1.0, -2.0, -3.0]) - math.log(8)
    leveled = level(log_mels, Level(floor_db=300.0))
    energy = leveled.logsumexp(0)
    torch.testing.assert_close(energy[3:6], torch.tensor([1.0, 0.0, -1.0]), atol=1e-5, rtol=0)


def test_sounds_below_the_floor_drown_in_it():
    log_mels = torch.randn(8, 12)
    log_mels[:, 6:] -= 100
    leveled = level(log_mels, Level(floor_db=40.0))
    assert leveled[:, 6:].std() < 1e-4
    torch.testing.assert_close(leveled[0, 6], torch.tensor(-40.0 * DB), atol=1e-4, rtol=0)


def test_each_clip_of_a_batch_has_its_own_level():
    log_mels = torch.randn(3, 8, 12) + torch.tensor([0.0, 5.0, -9.0])[:, None, None]
    alone = torch.stack([level(clip, Level()) for clip in log_mels])
    torch.testing.assert_close(level(log_mels, Level()), alone)


def test_a_front_end_with_a_level_takes_it_off():
    waveform = torch.randn(8000)
    plain, leveled = FrontendConfig(num_mels=64), FrontendConfig(num_mels=64, level=Level())
    expected = level(raw_spectrogram_of(waveform, plain), Level())
    torch.testing.assert_close(raw_spectrogram_of(waveform, leveled), expected)
    assert not torch.allclose(expected, raw_spectrogram_of(waveform, plain))


def test_one_frame_of_digital_silence_stays_finite():
    assert torch.isfinite(level(torch.full((8, 1), -15.9), Level())).all()


def test_a_floor_lies_below_the_level():
    with pytest.raises(InputError, match="positive"):
        Level(floor_db=0.0)


def test_silence_stays_quieter_than_any_sound():
    silent = raw_spectrogram_of(torch.zeros(8000), FrontendConfig(num_mels=64, level=Level()))
    noise = raw_spectrogram_of(torch.randn(8000), FrontendConfig(num_mels=64, level=Level()))
    assert silent.max() < noise.mean() - 5 * DB
