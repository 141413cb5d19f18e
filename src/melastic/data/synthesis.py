"""Building blocks for synthetic sounds: tones, noises, hits, event times, rooms, backgrounds.

All times are in seconds, all pitches in Hz; waveforms are one-dimensional float64 arrays.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]

_FRAME_S = 0.02  # the span over which an event's power is judged against the background
_HIGHEST = 0.45  # the highest pitch drawn, as a share of the sample rate
_TINY = 1e-12


@dataclass(frozen=True)
class Stage:
    """The place where one clip is made: its random source, its length and its sample rate.

    Attributes:
        rng: Source of every random choice in the clip.
        samples: Length of the clip in samples.
        sample_rate: Sample rate in Hz.
    """

    rng: np.random.Generator
    samples: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return self.samples / self.sample_rate

    @property
    def times(self) -> Wave:
        """Time of every sample in seconds."""
        return np.arange(self.samples) / self.sample_rate

    def between(self, low: float, high: float) -> float:
        """Draw a positive number, evenly over the ratio from `low` to `high` (log-uniform)."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def rate(self, low: float, high: float, at_least: float = 1.0) -> float:
        """Draw an event rate in Hz, raised until `at_least` events fit into the clip."""
        return max(self.between(low, high), at_least / self.seconds)


def steady_starts(stage: Stage, rate: float, jitter: float = 0.03) -> Wave:
    """Draw event times in seconds that recur at `rate` Hz, up to and past the clip's end.

    Args:
        stage: The clip being made.
        rate: Events per second.
        jitter: Spread of each gap as a share of the gap; 0 is a clock, 0.5 is irregular.
    """
    count = int(np.ceil(stage.seconds * rate * 1.5)) + 4
    gaps = np.maximum(1 + jitter * stage.rng.standard_normal(count), 0.3) / rate
    return np.concatenate([np.zeros(1), np.cumsum(gaps)])


def locate(times: Wave, starts: Wave) -> tuple[npt.NDArray[np.intp], Wave, Wave]:
    """Tell, for every time, which event it belongs to.

    Returns:
        The event's number, the seconds since the event began, and the event's seconds up to the
        next one.
    """
    number = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(starts) - 2)
    return number, times - starts[number], np.diff(starts)[number]


def gate(local: Wave, length: Wave | float, edge: float = 0.008) -> Wave:
    """Open for the first `length` seconds of an event, with soft edges of `edge` seconds."""
    edge_s = np.minimum(edge, np.asarray(length) / 4)
    gain = np.minimum(np.clip(local / edge_s, 0, 1), np.clip((length - local) / edge_s, 0, 1))
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * gain))


def voice(stage: Stage, pitch: Wave, ratios: Wave) -> Wave:
    """Sing a pitch curve in Hz with a random timbre.

    Args:
        stage: The clip being made.
        pitch: Pitch of the lowest partial at every sample, in Hz.
        ratios: Pitch of each partial over the lowest.
    """
    falloff_db = stage.rng.uniform(4, 14)
    gains = 10 ** ((-falloff_db * np.log2(ratios) + stage.rng.normal(0, 3, len(ratios))) / 20)
    gains[0] = 1.0
    phase = 2 * np.pi * np.cumsum(pitch) / stage.sample_rate
    offsets = stage.rng.uniform(0, 2 * np.pi, len(ratios))
    wave = np.zeros(len(pitch))
    for ratio, gain, offset in zip(ratios, gains, offsets, strict=True):
        audible = ratio * pitch < _HIGHEST * stage.sample_rate
        wave += gain * audible * np.sin(ratio * phase + offset)
    return wave


def shape(wave: Wave, gain_db: Wave) -> Wave:
    """Filter a waveform by a gain curve in dB over `filter_pitches` of its length."""
    size = fast_size(len(wave))
    spectrum = np.fft.rfft(wave, size) * 10 ** (gain_db / 20)
    return np.asarray(np.fft.irfft(spectrum, size)[: len(wave)])


def filter_pitches(samples: int, sample_rate: int) -> Wave:
    """List the pitches in Hz at which `shape` wants its gains; the lowest is 20 Hz."""
    return np.maximum(np.fft.rfftfreq(fast_size(samples), 1 / sample_rate), 20.0)


def fast_size(samples: int) -> int:
    """Give a size, at least `samples`, at which Fourier transforms are quick."""
    return min(odd << ((samples - 1) // odd).bit_length() for odd in (1, 3, 5, 9))


def band_noise(stage: Stage, centre: float, octaves: float) -> Wave:
    """Make noise around `centre` Hz that falls by 12 dB at `octaves` to either side."""
    pitches = filter_pitches(stage.samples, stage.sample_rate)
    distance = np.log2(pitches / centre) / octaves
    noise = shape(stage.rng.standard_normal(stage.samples), np.maximum(-12 * distance**2, -60))
    return noise / (np.std(noise) + _TINY)


def coloured_noise(stage: Stage, db_per_octave: float) -> Wave:
    """Make noise that tilts by `db_per_octave`: 0 is white, -3 pink, -6 brown."""
    pitches = filter_pitches(stage.samples, stage.sample_rate)
    tilt_db = db_per_octave * np.log2(np.maximum(pitches, 60.0) / 1000)
    noise = shape(stage.rng.standard_normal(stage.samples), tilt_db)
    return noise / (np.std(noise) + _TINY)


def convolve(wave: Wave, kernel: Wave) -> Wave:
    """Play `kernel` at every sample of `wave`, cut to the length of `wave`."""
    size = fast_size(len(wave) + len(kernel))
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(kernel, size)
    return np.asarray(np.fft.irfft(spectrum, size)[: len(wave)])


def hits(stage: Stage, starts: Wave, gains: Wave, kernel: Wave) -> Wave:
    """Strike `kernel` at every one of `starts` (seconds) with the matching one of `gains`."""
    places = np.round(starts * stage.sample_rate).astype(np.intp)
    inside = places < stage.samples
    train = np.zeros(stage.samples)
    np.add.at(train, places[inside], gains[inside])
    return convolve(train, kernel)


def struck_body(stage: Stage, centre: float, decay_s: float) -> Wave:
    """Make the sound of one blow on a body that rings around `centre` Hz for `decay_s`."""
    times = np.arange(max(int(6 * decay_s * stage.sample_rate), 8)) / stage.sample_rate
    modes = np.minimum(centre * stage.rng.uniform(0.5, 2.5, 4), _HIGHEST * stage.sample_rate)
    decays = decay_s * stage.rng.uniform(0.4, 1.0, 4)
    gains = stage.rng.uniform(0.3, 1.0, 4)
    turns = 2 * np.pi * (modes[:, None] * times + stage.rng.random((4, 1)))
    rings = np.sum(gains[:, None] * np.exp(-times / decays[:, None]) * np.sin(turns), axis=0)
    thud = stage.rng.standard_normal(len(times)) * np.exp(-times / (0.15 * decay_s))
    return np.asarray(rings + stage.rng.uniform(0.3, 1.5) * thud)


def tint(stage: Stage, wave: Wave) -> Wave:
    """Colour a waveform as a random microphone would: a tilt and a broad bump."""
    pitches = filter_pitches(len(wave), stage.sample_rate)
    tilt_db = stage.rng.uniform(-3, 3) * np.log2(pitches / 1000)
    distance = np.log2(pitches / stage.between(200, 5000)) / stage.rng.uniform(0.5, 1.5)
    bump_db = stage.rng.uniform(-9, 9) * np.exp(-(distance**2))
    return shape(wave, np.clip(tilt_db + bump_db, -24, 24))


def in_room(stage: Stage, wave: Wave) -> Wave:
    """Add the echo of a random small room: 0.05 to 0.35 s long, 10 dB or more below."""
    length_s = stage.between(0.05, 0.35)
    times = np.arange(int(length_s * stage.sample_rate)) / stage.sample_rate
    tail = stage.rng.standard_normal(len(times)) * np.exp(-6.9 * times / length_s)
    wet = stage.rng.uniform(0, 0.3) / np.sqrt(np.sum(tail**2))
    return wave + wet * convolve(wave, tail)


def event_power(wave: Wave, sample_rate: int) -> float:
    """Measure the mean power of a waveform where it sounds, pauses left out."""
    frame = int(_FRAME_S * sample_rate)
    padded = np.pad(wave, (0, -len(wave) % frame))
    powers = np.mean(padded.reshape(-1, frame) ** 2, axis=1)
    return float(np.sum(powers**2) / (np.sum(powers) + _TINY)) + _TINY


def with_background(stage: Stage, wave: Wave, snr_db: float) -> Wave:
    """Lay a random coloured noise under a waveform, `snr_db` below the power of its events."""
    noise = coloured_noise(stage, stage.rng.uniform(-6, 0))
    return wave + noise * np.sqrt(event_power(wave, stage.sample_rate) / 10 ** (snr_db / 10))
