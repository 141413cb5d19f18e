"""Read one clip. The only file of the package that touches audio files."""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from melastic.errors import InputError

LOUDEST = 1e6
"""Largest sample that a file of real numbers may hold; some are written as 16-bit numbers are."""
_UNKNOWN_FRAMES = 2**62
SAMPLE_RATE = 16_000
"""Samples per second (Hz) unless said otherwise."""
_PROMISE = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
"""What libsndfile logs where a header promises more bytes than the file holds."""
_UNKNOWN_LENGTH = 0x7FFF0000
"""Bytes; promises from here on stand for "unknown" in files that were written to a pipe."""
_SLOPPY_BYTES = 64
"""Bytes that a header may promise too many: some programs count the header itself."""
_LARGEST_OGG_PAGE = 65_307
"""Bytes."""
_CUT_S = 0.1
"""Seconds that may lack at the end of a clip that FFmpeg decodes."""


class AudioInfo(NamedTuple):
    """What an audio file says about itself."""

    sample_rate: int
    """Samples per second (Hz)."""
    channels: int
    frames: int
    """Samples of one channel."""

    @property
    def duration_s(self) -> float:
        """Length (s)."""
        return self.frames / self.sample_rate


PathOrWaveform = str | Path | Float[Tensor, " samples"] | NDArray[Any]
"""An audio file, or samples."""


def samples_of(
    path_or_waveform: PathOrWaveform, sample_rate: int
) -> tuple[Float[Tensor, " samples"], str]:
    """Samples of a clip that is a file or a waveform, and what messages call it.

    Args:
        path_or_waveform: an audio file, or samples (tensor or array) at the sample rate.
        sample_rate: samples per second (Hz).

    Raises:
        InputError: if the file cannot be read, or the waveform is no row of samples.
    """
    if isinstance(path_or_waveform, str | Path):
        return load_audio(path_or_waveform, sample_rate=sample_rate), str(path_or_waveform)
    if not isinstance(path_or_waveform, Tensor | np.ndarray):
        raise InputError(
            f"a clip is a path, a tensor or an array of samples, got "
            f"{type(path_or_waveform).__name__}; try torch.tensor(…)"
        )
    if isinstance(path_or_waveform, np.ndarray):
        path_or_waveform = _as_torch_reads_it(path_or_waveform)
    waveform = torch.as_tensor(path_or_waveform)
    check_samples(waveform)
    if waveform.ndim != 1:
        raise InputError(
            f"a waveform has one axis (samples), got shape {tuple(waveform.shape)}; average its "
            "channels first"
        )
    return waveform, "waveform"


def _as_torch_reads_it(samples: NDArray[Any]) -> NDArray[Any]:
    """The same array in this machine's byte order, in one piece that may be written to."""
    if samples.dtype.kind not in "biuf" or samples.dtype.itemsize > 8:
        raise InputError(
            f"samples are real numbers in [-1, 1], got an array of {samples.dtype}; try "
            "samples.astype('float32')"
        )
    native = samples.dtype.newbyteorder("=")
    return np.require(samples, dtype=native, requirements=("C", "W"))


def check_samples(waveform: Float[Tensor, "*clips samples"]) -> None:
    """Refuse what is no tensor of real numbers.

    Raises:
        InputError: naming what it is.
    """
    if not isinstance(waveform, Tensor):
        kind = type(waveform).__name__
        raise InputError(f"a waveform is a tensor, got {kind}; try torch.from_numpy(…)")
    if not waveform.is_floating_point():
        raise InputError(
            f"samples are real numbers in [-1, 1], got {waveform.dtype}; divide 16-bit samples by "
            "32768"
        )
    if not waveform.ndim:
        raise InputError("samples lie along an axis, got a single number; give a row of samples")


def load_audio(
    path: str | Path,
    *,
    sample_rate: int = SAMPLE_RATE,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Float[Tensor, " samples"]:
    """Read a clip as one channel of samples in [-1, 1] at a chosen rate.

    Channels are averaged; other rates are resampled (soxr, high quality). Formats are those of
    libsndfile (wav, flac, ogg, opus, mp3, …), and those of FFmpeg where PyAV is installed.

    Args:
        path: the file.
        sample_rate: samples per second of the result (Hz).
        start_s: where the clip begins in the file (s).
        end_s: where it ends (s); None: at the end of the file.

    Raises:
        InputError: if the file is missing, unreadable, empty or truncated, or holds values that are
            not numbers; the message names the file and the remedy.
    """
    path = Path(path)
    if not 1 <= sample_rate < math.inf:
        raise InputError(f"sample_rate must be positive, got {sample_rate} Hz; try {SAMPLE_RATE}")
    _check_file(path)
    samples, rate = _decode(path, start_s, end_s)
    if not np.isfinite(samples).all():
        raise InputError(
            f"{path}: audio must be finite numbers, found NaN or infinity; export the file again"
        )
    if len(samples) and (loudest := np.abs(samples).max()) > LOUDEST:
        raise InputError(
            f"{path}: samples are in [-1, 1], found {loudest:.3g}; export the file again"
        )
    mono = samples.mean(axis=1)
    if rate != sample_rate and len(mono):
        mono = soxr.resample(mono, rate, sample_rate)
    if not len(mono):
        raise InputError(
            f"{path}: the clip holds no samples at {sample_rate} Hz; leave it out or record it "
            "again"
        )
    return torch.from_numpy(np.ascontiguousarray(mono, dtype=np.float32))


def audio_info(path: str | Path) -> AudioInfo:
    """Rate, channels and length of an audio file, from its header where the format has one.

    Raises:
        InputError: if the file is missing, unreadable or truncated.
    """
    path = Path(path)
    _check_file(path)
    try:
        with _open(path) as file:
            return AudioInfo(int(file.samplerate), int(file.channels), int(file.frames))
    except _ForeignFormatError:
        samples, rate = _decode_av(path)
        return AudioInfo(rate, samples.shape[1], len(samples))


def duration_s(path: str | Path) -> float:
    """Length of an audio file (s), from its header where the format has one.

    Raises:
        InputError: if the file is missing, unreadable or truncated.
    """
    return audio_info(path).duration_s


class _ForeignFormatError(Exception):
    """Libsndfile does not know the format, or cannot read it without a length in its header."""


def _check_file(path: Path) -> None:
    """Refuse what cannot hold audio."""
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path")
        if path.is_dir():
            raise InputError(f"{path}: is a folder, an audio file is needed; name a file in it")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); fetch or record it again")
    except OSError as error:
        raise InputError(f"{path}: cannot be reached ({error.strerror}); check the path") from None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a file with libsndfile.

    Raises:
        InputError: if it is unreadable or truncated.
        _ForeignFormatError: if libsndfile cannot read the format.
    """
    try:
        file = soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else str(path))
    except soundfile.LibsndfileError as error:
        if "format not recognised" in error.error_string.lower():
            raise _ForeignFormatError from None
        raise _unreadable(path, error.error_string) from None
    except TypeError:
        raise _unreadable(path, "samples without a header") from None
    with file:
        if file.frames >= _UNKNOWN_FRAMES:  # a FLAC pipe, in which libsndfile cannot move
            raise _ForeignFormatError
        promise = _PROMISE.search(file.extra_info)
        if promise and int(promise[2]) + _SLOPPY_BYTES < int(promise[1]) < _UNKNOWN_LENGTH:
            raise _cut_short(
                path, f"its header promises {promise[1]} bytes, {promise[2]} are there"
            )
        if file.format == "OGG" and _ends_within_ogg_page(path):
            raise _cut_short(path, "it ends within a page")
        yield file


def _ends_within_ogg_page(path: Path) -> bool:
    """Whether the last page of an Ogg file is incomplete."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _LARGEST_OGG_PAGE))
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 + len(segments) + sum(segments)


def _decode(path: Path, start_s: float, end_s: float | None) -> tuple[NDArray[np.float32], int]:
    """Samples (frames, channels) and their rate (Hz)."""
    try:
        with _open(path) as file:
            rate = int(file.samplerate)
            start, count = _span(path, start_s, end_s, rate, file.frames)
            _skip(file, start)
            samples = file.read(count, dtype="float32", always_2d=True)
    except _ForeignFormatError:
        samples, rate = _decode_av(path)
        start, count = _span(path, start_s, end_s, rate, len(samples))
        return samples[start : start + count], rate
    except soundfile.SoundFileRuntimeError as error:
        raise _unreadable(path, getattr(error, "error_string", str(error))) from None
    if len(samples) < count:
        promise = f"its header promises {count} frames and {len(samples)} can be read"
        raise _cut_short(path, promise)
    return samples, rate


def _skip(file: soundfile.SoundFile, frames: int) -> None:
    """Go past the first frames; some formats, such as GSM 6.10, can only be read from the start."""
    if not frames:
        return
    if file.seekable():
        file.seek(frames)
    else:
        file.read(frames)


def _span(
    path: Path, start_s: float, end_s: float | None, rate: int, frames: int
) -> tuple[int, int]:
    """First frame and number of frames of a stretch of a file."""
    if not frames:
        return 0, 0
    length_s = frames / rate
    last_s = length_s if end_s is None else end_s
    if not (0 <= start_s < last_s < math.inf and start_s < length_s):
        raise InputError(
            f"{path}: a clip must start before it ends and within the file "
            f"({length_s:.3f} s), got {start_s:g} to {'the end' if end_s is None else end_s}; "
            "check start_s and end_s"
        )
    start = round(start_s * rate)
    return start, max(0, min(round(min(last_s, length_s) * rate), frames) - start)


def _decode_av(path: Path) -> tuple[NDArray[np.float32], int]:
    """Decode with FFmpeg through PyAV."""
    try:
        import av
    except ImportError:
        raise InputError(
            f"{path}: not an audio file that libsndfile reads; convert it to wav or flac, or "
            "install the extra 'melastic[av]' for m4a, webm and mp4"
        ) from None
    try:
        # Absolute, since a name with a colon reads as the address of a stream.
        with av.open(str(path.absolute())) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise InputError(f"{path}: holds no audio track; name a file that has one")
            resampler = av.AudioResampler(format="fltp")
            decoded = [*container.decode(stream), None]
            frames = [part.to_ndarray() for frame in decoded for part in resampler.resample(frame)]
            alone = len(container.streams) == 1
            promised_s = (container.duration or 0) / av.time_base if alone else 0.0
            rate = int(stream.rate)
    except av.FFmpegError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    if not frames:
        raise InputError(f"{path}: the clip holds no samples; leave it out or record it again")
    samples = np.concatenate(frames, axis=1, dtype=np.float32).T
    if len(samples) / rate < promised_s - _CUT_S:
        promise = (
            f"its header promises {promised_s:.3f} s and {len(samples) / rate:.3f} s are there"
        )
        raise _cut_short(path, promise)
    return samples, rate


def _unreadable(path: Path, reason: str) -> InputError:
    """The error for a file that a decoder gave up on."""
    if "possibly a pipe" in reason:  # what libsndfile says of an MP3 without a whole frame
        reason = "no frame in it can be decoded"
    reason = " ".join(reason.removeprefix("Error :").split()).rstrip(".")
    return InputError(f"{path}: cannot be read as audio ({reason}); fetch it again or convert it")


def _cut_short(path: Path, how: str) -> InputError:
    """The error for a file that lacks its end."""
    return InputError(f"{path}: the file is cut short, {how}; fetch or record it again")
