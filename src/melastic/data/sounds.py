"""The embedded sound set: fourteen everyday sounds made by rule, for the demo and the tests.

The classes overlap in pitch and timbre and share their loudness, length and background, so that an
average spectrum says too little: they differ in what happens over time.
"""

import csv
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from melastic.data import synthesis as syn
from melastic.data.manifest import check_writable_as_csv
from melastic.data.synthesis import Stage, Wave
from melastic.errors import InputError, unknown_name
from melastic.files import replacing

CLIPS_PER_CLASS = 60
"""Clips of each class unless said otherwise."""
SHORTEST_S = 0.2
LONGEST_S = 8.0
_MEDIAN_S = 1.3
_SPREAD = 0.75  # standard deviation of the logarithm of a clip's length
_LOWEST_RATE = 16_000  # Hz; below it the highest sounds are lost
_RATE_REMEDY = f"make the clip at {_LOWEST_RATE} Hz and resample it"
_FEWEST_CLIPS = 5
_PURE = np.array([1.0, 2.0])  # the partials of a whistle
_RICH = np.arange(1.0, 6.0)  # the partials of a horn
_SPLITS = ("train", "train", "train", "val", "test")  # by a clip's index, modulo five


def _alarm_beep(stage: Stage) -> Wave:
    """One pitch switched on and off like a clock."""
    starts = syn.steady_starts(stage, stage.rate(2.5, 6, at_least=2), jitter=0)
    _, local, length = syn.locate(stage.times, starts)
    pitch = np.full(stage.samples, stage.between(900, 2400))
    tone = syn.voice(stage, pitch, np.array([1.0, 3.0, 5.0]))
    return tone * syn.gate(local, stage.rng.uniform(0.4, 0.65) * length)


def _bell(stage: Stage) -> Wave:
    """Strikes that ring out, with partials out of tune."""
    starts = syn.steady_starts(stage, stage.rate(0.8, 3), jitter=0.05)
    _, local, length = syn.locate(stage.times, starts)
    ratios = np.array([1.0, 2.0, 2.76, 3.4, 5.4]) * stage.rng.uniform(0.95, 1.05, 5)
    ratios[0] = 1.0
    pitch = np.full(stage.samples, stage.between(400, 1400))
    decay = np.exp(-local / (stage.rng.uniform(0.15, 0.35) * length))
    return syn.voice(stage, pitch, ratios) * decay * np.clip(local / 0.002, 0, 1)


def _bird_chirp(stage: Stage) -> Wave:
    """Short arcs of pitch at uneven times, each at a pitch of its own."""
    starts = syn.steady_starts(stage, stage.rate(3, 7), jitter=0.3)
    number, local, length = syn.locate(stage.times, starts)
    span = np.minimum(stage.between(0.09, 0.16), 0.85 * length)
    place = np.clip(local / span, 0, 1)
    centres = stage.between(1600, 3600) * 2 ** stage.rng.uniform(-0.4, 0.4, len(starts))
    arc = 2 ** (stage.rng.uniform(0.5, 1.0) * (np.sin(np.pi * place) - 0.5))
    return syn.voice(stage, centres[number] * arc, _PURE) * syn.gate(local, span, edge=0.02)


def _bouncing_ball(stage: Stage) -> Wave:
    """Blows that come ever faster and weaker, then the ball is dropped again."""
    brief = stage.seconds < 0.6
    shrink = stage.rng.uniform(0.6, 0.7) if brief else stage.rng.uniform(0.72, 0.85)
    first = min(stage.between(0.2, 0.45), (1 - shrink) * 0.95 * stage.seconds)
    bounces = int(np.clip(np.log(0.018 / first) / np.log(shrink), 4, 16))
    gaps = first * shrink ** np.arange(bounces)
    drop = np.cumsum(gaps) - first
    period = drop[-1] + stage.between(0.15, 0.4)
    drops = int(np.ceil(stage.seconds / period))
    starts = (drop[None, :] + period * np.arange(drops)[:, None]).ravel()
    gains = np.tile(shrink ** (0.7 * np.arange(bounces)), drops)
    body = syn.struck_body(stage, stage.between(800, 2400), stage.between(0.01, 0.03))
    return syn.hits(stage, starts, gains, body)


def _cricket(stage: Stage) -> Wave:
    """One pitch in bursts of quick pulses."""
    starts = syn.steady_starts(stage, stage.rate(1.2, 3), jitter=0.08)
    _, local, length = syn.locate(stage.times, starts)
    pulses = max(stage.between(20, 32), 4.0 / (0.65 * stage.seconds))
    pitch = np.full(stage.samples, stage.between(2800, 4800))
    flutter = np.sin(np.pi * pulses * local) ** 4
    return syn.voice(stage, pitch, _PURE) * flutter * syn.gate(local, 0.65 * length)


def _helicopter(stage: Stage) -> Wave:
    """Noise beaten at an even, quick pace without a pause."""
    starts = syn.steady_starts(stage, stage.between(9, 16), jitter=0.01)
    _, local, length = syn.locate(stage.times, starts)
    noise = syn.band_noise(stage, stage.between(200, 900), stage.rng.uniform(0.8, 1.8))
    return noise * (0.08 + np.exp(-local / (stage.rng.uniform(0.15, 0.3) * length)))


def _knock(stage: Stage) -> Wave:
    """Groups of two to four even blows, with a pause after each group."""
    blows = int(stage.rng.integers(2, 5)) if stage.seconds > 0.5 else 2
    gap = min(1 / stage.between(5, 9), 0.9 * stage.seconds / blows)
    period = blows * gap + stage.between(0.25, 0.6)
    groups = int(np.ceil(stage.seconds / period))
    starts = (gap * np.arange(blows)[None, :] + period * np.arange(groups)[:, None]).ravel()
    starts = np.abs(starts + 0.04 * gap * stage.rng.standard_normal(len(starts)))
    gains = stage.rng.uniform(0.6, 1.0, len(starts))
    body = syn.struck_body(stage, stage.between(200, 900), stage.between(0.015, 0.04))
    return syn.hits(stage, starts, gains, body)


def _laser(stage: Stage) -> Wave:
    """Shots whose pitch falls fast and then ever slower."""
    starts = syn.steady_starts(stage, stage.rate(2, 6), jitter=0.1)
    _, local, length = syn.locate(stage.times, starts)
    fall = 1 - np.exp(-3 * local / length)
    pitch = stage.between(2000, 5000) * 2 ** (-stage.rng.uniform(1.3, 2.2) * fall)
    return syn.voice(stage, pitch, _RICH) * syn.gate(local, stage.rng.uniform(0.7, 0.95) * length)


def _rain(stage: Stage) -> Wave:
    """A steady hiss of countless tiny drops."""
    drops = int(stage.between(150, 1200) * stage.seconds) + 20
    kernel = syn.struck_body(stage, stage.between(1500, 5000), stage.between(0.001, 0.004))
    gains = stage.rng.exponential(1.0, drops)
    patter = syn.hits(stage, stage.rng.uniform(0, stage.seconds, drops), gains, kernel)
    hiss = syn.band_noise(stage, stage.between(1500, 5000), stage.rng.uniform(0.8, 1.8))
    return patter / (np.std(patter) + 1e-9) + stage.rng.uniform(0.3, 1.0) * hiss


def _sawing(stage: Stage) -> Wave:
    """Noise in strokes, to and fro: one bright, the next dull."""
    starts = syn.steady_starts(stage, stage.rate(2, 5, at_least=2), jitter=0.04)
    number, local, length = syn.locate(stage.times, starts)
    centre = stage.between(400, 1600)
    bright = syn.band_noise(stage, centre * stage.between(1.8, 3.0), stage.rng.uniform(0.6, 1.4))
    dull = syn.band_noise(stage, centre, stage.rng.uniform(0.6, 1.4))
    stroke = np.sin(np.pi * np.clip(local / (0.9 * length), 0, 1)) ** 1.2
    return stroke * np.where((number + stage.rng.integers(2)) % 2 == 0, bright, 0.8 * dull)


def _siren(stage: Stage) -> Wave:
    """A pitch that wails up and down without a pause."""
    turns = stage.rate(0.5, 1.5) * stage.times + stage.rng.random()
    bend = 0.5 * stage.rng.uniform(0.7, 1.4) * np.sin(2 * np.pi * turns)
    return syn.voice(stage, stage.between(500, 1400) * 2**bend, _RICH)


def _slide_whistle(stage: Stage) -> Wave:
    """A pitch that slides up, again and again, with a short breath between."""
    starts = syn.steady_starts(stage, stage.rate(1.2, 3.5), jitter=0.1)
    _, local, length = syn.locate(stage.times, starts)
    sounding = stage.rng.uniform(0.7, 0.9) * length
    envelope = syn.gate(local, sounding, edge=0.02)
    rise = stage.rng.uniform(0.8, 1.6) * np.clip(local / sounding, 0, 1)
    return syn.voice(stage, stage.between(600, 1600) * 2**rise, _PURE) * envelope


def _telephone(stage: Stage) -> Wave:
    """Rings that warble quickly between two pitches."""
    starts = syn.steady_starts(stage, stage.rate(0.8, 2.2), jitter=0.02)
    _, local, length = syn.locate(stage.times, starts)
    warble = np.sign(np.sin(2 * np.pi * stage.between(9, 14) * local))
    pitch = stage.between(900, 2600) * 2 ** (stage.rng.uniform(0.15, 0.3) * warble)
    return syn.voice(stage, pitch, _RICH[:3]) * syn.gate(
        local, stage.rng.uniform(0.6, 0.85) * length
    )


def _water_drops(stage: Stage) -> Wave:
    """Single drops at uneven times, each a short ring whose pitch runs up."""
    starts = syn.steady_starts(stage, stage.rate(2, 6), jitter=0.45)
    number, local, _ = syn.locate(stage.times, starts)
    centres = stage.between(600, 2000) * 2 ** stage.rng.uniform(-0.5, 0.5, len(starts))
    decay = stage.between(0.012, 0.03)
    pitch = centres[number] * 2 ** np.minimum(0.25 * local / decay, 1.2)
    return syn.voice(stage, pitch, _PURE) * np.exp(-local / decay) * np.clip(local / 0.001, 0, 1)


_MAKERS: dict[str, Callable[[Stage], Wave]] = {
    "alarm_beep": _alarm_beep,
    "bell": _bell,
    "bird_chirp": _bird_chirp,
    "bouncing_ball": _bouncing_ball,
    "cricket": _cricket,
    "helicopter": _helicopter,
    "knock": _knock,
    "laser": _laser,
    "rain": _rain,
    "sawing": _sawing,
    "siren": _siren,
    "slide_whistle": _slide_whistle,
    "telephone": _telephone,
    "water_drops": _water_drops,
}
SOUNDS: tuple[str, ...] = tuple(_MAKERS)


def clip_seconds(index: int, *, seed: int = 0) -> float:
    """Tell how long clip number `index` is, in seconds; every class has the same lengths."""
    _at_least(0, "count from 0", index=index, seed=seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    return float(np.clip(rng.lognormal(np.log(_MEDIAN_S), _SPREAD), SHORTEST_S, LONGEST_S))


def make_sound(
    label: str, index: int, *, seed: int = 0, sample_rate: int = 16_000
) -> npt.NDArray[np.float32]:
    """Make one clip, the same one whenever it is asked for.

    Args:
        label: One of `SOUNDS`.
        index: Number of the clip within its class.
        seed: Number of the set.
        sample_rate: Samples per second, 16000 or more.

    Returns:
        Mono samples within [-1, 1], peaking between -40 and -3 dBFS.

    Raises:
        InputError: The label is unknown, the sample rate too low or a number negative.
    """
    if label not in _MAKERS:
        raise unknown_name("sound", label, SOUNDS)
    _at_least(_LOWEST_RATE, _RATE_REMEDY, sample_rate=sample_rate)
    samples = round(clip_seconds(index, seed=seed) * sample_rate)
    key = np.random.SeedSequence([seed, index, zlib.crc32(label.encode()), sample_rate])
    rng = np.random.default_rng(key)
    onset = int(samples * rng.uniform(0, 0.15))
    event = _MAKERS[label](Stage(rng, samples - onset, sample_rate))
    stage = Stage(rng, samples, sample_rate)
    wave = syn.in_room(stage, syn.tint(stage, np.pad(event, (onset, 0))))
    wave = syn.with_background(stage, wave, snr_db=rng.uniform(0, 30))
    peak = 10 ** (rng.uniform(-40, -3) / 20)
    return np.asarray(wave * (peak / np.max(np.abs(wave))), dtype=np.float32)


def write_sound_set(
    manifest: Path,
    *,
    clips_per_class: int = CLIPS_PER_CLASS,
    seed: int = 0,
    sample_rate: int = 16_000,
    on_clip: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the sound set as 16-bit FLAC files with a manifest, which is written last.

    Args:
        manifest: The manifest (CSV); clips go to `audio/` beside it.
        clips_per_class: Clips of each class, at least five; three fifths of them train.
        seed: Number of the set.
        sample_rate: Samples per second, 16000 or more.
        on_clip: Called after every clip with the clips written so far and the clips in all.

    Returns:
        The manifest, with the columns file, label, split and duration_s.

    Raises:
        InputError: There are too few clips for train, val and test, the sample rate is too low,
            the seed negative or the manifest no name for a CSV file, and nothing is written; or a
            clip of another set is in the way.
    """
    remedy = "ask for more so that each class has train, val and test clips"
    _at_least(_FEWEST_CLIPS, remedy, clips_per_class=clips_per_class)
    _at_least(_LOWEST_RATE, _RATE_REMEDY, sample_rate=sample_rate)
    _at_least(0, "count from 0", seed=seed)
    check_writable_as_csv(manifest)
    clips = [(label, index) for label in SOUNDS for index in range(clips_per_class)]
    rows: list[tuple[str, str, str, str]] = []
    for label, index in clips:
        file = f"audio/{label}_{index:04d}.flac"
        wave = make_sound(label, index, seed=seed, sample_rate=sample_rate)
        _write_clip(manifest.parent / file, wave, sample_rate)
        split = _SPLITS[index % len(_SPLITS)]
        rows.append((file, label, split, f"{len(wave) / sample_rate:.6f}"))
        if on_clip is not None:
            on_clip(len(rows), len(clips))
    with replacing(manifest) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("file", "label", "split", "duration_s"))
        writer.writerows(rows)
    return manifest


def _write_clip(path: Path, wave: npt.NDArray[np.float32], sample_rate: int) -> None:
    """Write a clip whole or not at all; one that is there already must be the same."""
    coded = io.BytesIO()
    soundfile.write(coded, wave, sample_rate, format="FLAC", subtype="PCM_16")
    if path.exists():
        if path.read_bytes() != coded.getvalue():
            raise InputError(
                f"{path}: is of another set, which would be changed; name another folder, or "
                "delete that set"
            )
        return
    with replacing(path) as part:
        part.write_bytes(coded.getvalue())


def _at_least(lowest: int, remedy: str, **given: int) -> None:
    """Refuse a number below the lowest that works, and say what to do instead."""
    for name, number in given.items():
        if number < lowest:
            raise InputError(f"{name} must be at least {lowest}, got {number}; {remedy}")
