"""Laws of reading audio: any format and rate gives the same clip, broken files give one line."""

import builtins
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import melastic
from melastic.errors import InputError
from melastic.frontend.audio import audio_info, duration_s, load_audio

RATE = 16_000


def tone(hz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    """A sine at half of full scale."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Noise within half of full scale."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples)


def complaint(path: Path, **options: float) -> str:
    """The message that a broken file gives: one line with its name."""
    with pytest.raises(InputError) as caught:
        load_audio(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def truncated(path: Path, keep: float) -> Path:
    """The same file without its end."""
    content = path.read_bytes()
    short = path.with_stem("truncated")
    short.write_bytes(content[: round(keep * len(content))])
    return short


def frequency_hz(samples: torch.Tensor, rate: int) -> float:
    """The strongest frequency, to a few Hz."""
    power = torch.fft.rfft(samples * torch.hann_window(len(samples)), n=1 << 16).abs()
    return power.argmax().item() * rate / (1 << 16)


def test_it_is_a_name_of_the_package():
    assert melastic.load_audio is load_audio


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_are_averaged(tmp_path, channels):
    samples = np.stack([noise(1000, seed) for seed in range(channels)], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    clip = load_audio(tmp_path / "a.wav")
    assert clip.dtype == torch.float32
    torch.testing.assert_close(clip, torch.tensor(samples.mean(1)).float())


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("target", [8_000, 16_000, 32_000])
def test_resampling_keeps_pitch_level_and_length(tmp_path, rate, target):
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.7, rate), rate, subtype="FLOAT")
    clip = load_audio(tmp_path / "a.wav", sample_rate=target)
    assert abs(len(clip) - 0.7 * target) <= 1
    assert frequency_hz(clip, target) == pytest.approx(1000, abs=2)
    inside = clip[len(clip) // 4 : -len(clip) // 4]
    assert inside.square().mean().sqrt().item() == pytest.approx(0.5 / 2**0.5, rel=0.01)


def test_resampling_removes_what_the_lower_rate_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(6000, 0.5, 44_100), 44_100)
    clip = load_audio(tmp_path / "a.wav", sample_rate=8000)
    assert clip[400:-400].abs().max().item() < 1e-3


@given(st.integers(0, 899), st.integers(1, 1000))
def test_a_stretch_is_cut_exactly(tmp_path_factory, start, length):
    path = tmp_path_factory.mktemp("cut") / "a.wav"
    samples = noise(900).astype("float32")
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    end = start + length
    clip = load_audio(path, sample_rate=8000, start_s=start / 8000, end_s=end / 8000)
    torch.testing.assert_close(clip, torch.from_numpy(samples[start:end]), atol=0, rtol=0)
    rest = load_audio(path, sample_rate=8000, start_s=start / 8000)
    torch.testing.assert_close(rest, torch.from_numpy(samples[start:]), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("format", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),
        ("WAV", "DOUBLE", 2**-24),
        ("FLAC", "PCM_16", 2**-15),
        ("AIFF", "PCM_16", 2**-15),
        ("AU", "PCM_16", 2**-15),
    ],
)
def test_integers_become_numbers_within_one_of_zero(tmp_path, format, subtype, step):
    samples = np.concatenate([noise(500), [1.0, -1.0]])
    soundfile.write(tmp_path / "a", samples, RATE, format=format, subtype=subtype)
    clip = load_audio(tmp_path / "a")
    torch.testing.assert_close(clip, torch.tensor(samples).float(), atol=1.01 * step, rtol=0)
    assert clip.abs().max().item() <= 1


@pytest.mark.parametrize(
    ("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
)
def test_compressed_formats_keep_pitch_and_length(tmp_path, format, subtype):
    soundfile.write(tmp_path / "a", tone(1000, 1.0), RATE, format=format, subtype=subtype)
    clip = load_audio(tmp_path / "a")
    assert len(clip) == RATE
    assert frequency_hz(clip, RATE) == pytest.approx(1000, abs=2)
    assert duration_s(tmp_path / "a") == 1.0


def test_a_header_tells_rate_channels_and_length(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros((11_025, 2)), 44_100)
    assert audio_info(tmp_path / "a.flac") == (44_100, 2, 11_025)
    assert duration_s(tmp_path / "a.flac") == 0.25


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("W64", "PCM_16"),
    ("RF64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
@pytest.mark.parametrize("keep", [0.99, 0.5, 0.1, 0.004])
def test_a_file_without_its_end_is_refused_whatever_its_format(tmp_path, format, subtype, keep):
    soundfile.write(tmp_path / "a.x", noise(RATE), RATE, format=format, subtype=subtype)
    complaint(truncated(tmp_path / "a.x", keep))


@pytest.mark.parametrize("keep", [0.9, 0.3])
def test_an_uncompressed_file_without_its_end_is_called_cut_short(tmp_path, keep):
    soundfile.write(tmp_path / "a.wav", noise(RATE), RATE)
    assert complaint(truncated(tmp_path / "a.wav", keep)).startswith("the file is cut short")
    with pytest.raises(InputError, match="cut short"):
        duration_s(truncated(tmp_path / "a.wav", keep))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 2 * RATE + 8])
def test_a_length_that_a_pipe_could_not_know_is_read_to_the_end(tmp_path, size):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(RATE), RATE)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(load_audio(path)) == RATE


def test_what_holds_no_audio_is_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "samples.raw").write_bytes(b"\0" * 100)
    (tmp_path / "text.wav").write_text("this is no sound\n" * 100)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "one.wav", np.ones(1), 44_100)
    assert "no such file" in complaint(tmp_path / "absent.wav")
    assert "is a folder" in complaint(tmp_path)
    assert "0 bytes" in complaint(tmp_path / "empty.wav")
    assert "samples without a header" in complaint(tmp_path / "samples.raw")
    assert "fetch it again or convert it" in complaint(tmp_path / "text.wav")
    assert "holds no samples" in complaint(tmp_path / "none.wav")
    assert "holds no samples" in complaint(tmp_path / "one.wav")
    assert "cannot be reached" in complaint(tmp_path / ("x" * 300 + ".wav"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_refused(tmp_path, value):
    samples = noise(100)
    samples[50] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert "NaN or infinity" in complaint(tmp_path / "a.wav")
    assert len(load_audio(tmp_path / "a.wav", end_s=50 / RATE)) == 50


@pytest.mark.parametrize(
    "times",
    [
        {"start_s": 0.1},
        {"start_s": 5.0},
        {"start_s": -0.01},
        {"start_s": 0.05, "end_s": 0.05},
        {"start_s": 0.05, "end_s": 0.04},
        {"end_s": -1.0},
        {"start_s": float("nan")},
        {"end_s": float("nan")},
        {"start_s": float("inf")},
    ],
)
def test_times_outside_the_file_are_refused(tmp_path, times):
    soundfile.write(tmp_path / "a.wav", noise(1600), RATE)
    assert "within the file (0.100 s)" in complaint(tmp_path / "a.wav", **times)


def test_a_rate_that_is_not_positive_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1600), RATE)
    with pytest.raises(InputError, match="sample_rate must be positive"):
        load_audio(tmp_path / "a.wav", sample_rate=0)


def write_with_ffmpeg(path: Path, samples: np.ndarray, codec: str, rate: int) -> None:
    """A file in one of FFmpeg's formats; both channels are the same."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "stereo"
        both = np.stack([samples, samples]).astype("float32")
        frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        for part in (frame, None):
            for packet in stream.encode(part):
                container.mux(packet)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4a", "aac", 44_100), ("a.mp4", "aac", 44_100), ("a.webm", "libopus", 48_000)],
)
def test_formats_of_ffmpeg_are_read_where_pyav_is_there(tmp_path, name, codec, rate):
    path = tmp_path / name
    write_with_ffmpeg(path, tone(1000, 1.0, rate), codec, rate)
    clip = load_audio(path)
    assert len(clip) == pytest.approx(RATE, abs=0.03 * RATE)  # AAC fills its last frame
    assert frequency_hz(clip, RATE) == pytest.approx(1000, abs=2)
    stretch = load_audio(path, start_s=0.25, end_s=0.5)
    torch.testing.assert_close(stretch[100:-100], clip[4100:7900], atol=1e-2, rtol=0)
    assert audio_info(path)[:2] == (rate, 2)
    for keep in (0.8, 0.3):
        complaint(truncated(path, keep))


def test_a_film_without_sound_is_refused(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), "uint8"), format="rgb24")
        for part in (picture, None):
            for packet in stream.encode(part):
                container.mux(packet)
    assert "no audio track" in complaint(tmp_path / "a.mp4")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    imported = builtins.__import__

    def no_av(name, *args, **kwargs):
        if name == "av":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_av)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    assert "melastic[av]" in complaint(tmp_path / "a.m4a")


def test_a_flac_file_whose_header_leaves_its_length_open_is_read_whole(tmp_path):
    path, samples = tmp_path / "pipe.flac", 0.1 * np.sin(np.arange(3000) / 9)
    soundfile.write(path, samples, 16_000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # 36 bits of STREAMINFO: samples in all
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert audio_info(path).frames == 3000
    np.testing.assert_allclose(load_audio(path), samples, atol=1e-3)
    np.testing.assert_allclose(
        load_audio(path, start_s=0.05, end_s=0.1), samples[800:1600], atol=1e-3
    )


def test_a_name_need_not_be_utf_8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    soundfile.write(tmp_path / "plain.wav", np.zeros(100), 16_000)
    (tmp_path / "plain.wav").rename(path)
    assert len(load_audio(path)) == audio_info(path).frames == 100


def test_formats_that_can_only_be_read_from_the_start_are_read(tmp_path):
    path = tmp_path / "voicemail.wav"
    soundfile.write(path, tone(440, 1, 8000), 8000, subtype="GSM610")
    whole = load_audio(path, sample_rate=8000)
    later = load_audio(path, sample_rate=8000, start_s=0.25)
    assert len(whole) >= 8000
    assert torch.equal(later, whole[2000:])


def test_an_end_far_behind_the_clip_is_its_end(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.5), RATE)
    assert len(load_audio(tmp_path / "a.wav", sample_rate=RATE, end_s=1e308)) == RATE // 2
