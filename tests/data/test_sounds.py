"""Laws of the embedded sound set."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from melastic.data.sounds import SOUNDS, clip_seconds, make_sound, write_sound_set
from melastic.errors import InputError
from melastic.frontend.fbank import log_mel

CLIP_0_S = 1.4285528377621155
SIREN_0_MEAN = 0.0076368973
CLIPS = 100  # per class, of which 60 train the probes
LAGS = (2, 4, 6, 8, 10, 12, 16, 20, 30)  # frames of 10 ms


def over_time(mels: Tensor) -> Tensor:
    """How a clip moves: spread, peaks and steps of each band, rhythm of the whole."""
    energy = mels.mean(0) - mels.mean()
    power = energy.square().mean() + 1e-3
    rhythm = [
        (energy[lag:] * energy[:-lag]).mean() / power if lag < len(energy) else mels.new_zeros(())
        for lag in LAGS
    ]
    steps = mels.diff(dim=1).abs().mean(1)
    peaks = mels.amax(1) - mels.mean(1)
    return torch.cat([mels.std(1), peaks, steps, torch.stack(rhythm)])


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: work this small only waits for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def features(one_thread: None) -> dict[str, Tensor]:
    """Features of every clip, class by class: its mean log-mels, and how it moves."""
    means, moves = [], []
    for label in SOUNDS:
        for index in range(CLIPS):
            mels = log_mel(torch.from_numpy(make_sound(label, index)), sample_rate=16_000)
            means.append(mels.mean(1))
            moves.append(over_time(mels))
    return {"mean log-mels": torch.stack(means), "over time": torch.stack(moves)}


def linear_probe(inputs: Tensor) -> float:
    """Test accuracy of multinomial logistic regression, its decay chosen on the val split."""
    labels = torch.arange(len(SOUNDS)).repeat_interleave(CLIPS)
    fold = torch.arange(len(inputs)) % 5
    train, val, test = fold < 3, fold == 3, fold == 4
    inputs = (inputs - inputs[train].mean(0)) / inputs[train].std(0).clamp_min(1e-3)
    scores = []
    for decay in (1e-4, 1e-3, 1e-2, 1e-1):
        weight = torch.zeros(len(SOUNDS), inputs.shape[1], requires_grad=True)
        bias = torch.zeros(len(SOUNDS), requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")

        def loss(weight=weight, bias=bias, solver=solver, decay=decay) -> Tensor:
            solver.zero_grad()
            logits = inputs[train] @ weight.T + bias
            value = torch.nn.functional.cross_entropy(logits, labels[train])
            value = value + decay * weight.square().sum()
            value.backward()
            return value

        solver.step(loss)
        right = (inputs @ weight.T + bias).argmax(1) == labels
        scores.append((right[val].float().mean().item(), right[test].float().mean().item()))
    return max(scores)[1]


def test_there_are_twelve_classes_or_more():
    assert len(set(SOUNDS)) == len(SOUNDS) >= 12


def test_a_clip_depends_only_on_its_name_and_seed():
    forward = {label: make_sound(label, 3, seed=5) for label in SOUNDS}
    for label in reversed(SOUNDS):
        np.testing.assert_array_equal(make_sound(label, 3, seed=5), forward[label])


def test_a_clip_is_the_same_on_every_machine():
    heard = make_sound("siren", 0)
    assert len(heard) == round(clip_seconds(0) * 16_000)
    assert clip_seconds(0) == pytest.approx(CLIP_0_S, abs=1e-9)
    assert np.abs(heard).mean() == pytest.approx(SIREN_0_MEAN, rel=1e-4)


@pytest.mark.parametrize("label", SOUNDS)
def test_clips_of_other_numbers_seeds_and_rates_differ(label: str):
    first = make_sound(label, 0)
    for other in (make_sound(label, 1), make_sound(label, 0, seed=1)):
        size = min(len(first), len(other))
        assert not np.allclose(first[:size], other[:size])
    assert len(make_sound(label, 0, sample_rate=32_000)) == pytest.approx(2 * len(first), abs=1)


def test_lengths_say_nothing_about_the_class():
    for index in range(5):
        lengths = {len(make_sound(label, index)) for label in SOUNDS}
        assert lengths == {round(clip_seconds(index) * 16_000)}


def test_lengths_spread_from_0_2_to_8_seconds():
    lengths = np.array([clip_seconds(index) for index in range(1000)])
    assert lengths.min() == 0.2
    assert lengths.max() == 8.0
    assert 1.0 < np.median(lengths) < 1.6
    assert np.mean(lengths < 0.5) > 0.05
    assert np.mean(lengths > 4.0) > 0.03


@pytest.mark.parametrize("label", SOUNDS)
def test_samples_are_finite_and_within_one(label: str):
    for index in range(8):
        wave = make_sound(label, index)
        peak_db = 20 * np.log10(np.abs(wave).max())
        assert wave.dtype == np.float32
        assert wave.ndim == 1
        assert np.isfinite(wave).all()
        assert -40.01 < peak_db < -2.99


@pytest.mark.parametrize("label", SOUNDS)
def test_loudness_varies_within_a_class(label: str):
    peaks_db = [20 * np.log10(np.abs(make_sound(label, i)).max()) for i in range(10)]
    assert np.ptp(peaks_db) > 12


def test_a_linear_model_on_mean_log_mels_stays_under_85_percent(features: dict[str, Tensor]):
    assert 0.3 < linear_probe(features["mean log-mels"]) < 0.85


def test_what_happens_over_time_tells_the_classes_apart(features: dict[str, Tensor]):
    assert linear_probe(features["over time"]) > 0.8


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    """A small set of seed 2: its manifest, and the progress heard while it was written."""
    heard: list[tuple[int, int]] = []
    manifest = write_sound_set(
        tmp_path_factory.mktemp("finished") / "set" / "manifest.csv",
        clips_per_class=5,
        seed=2,
        on_clip=lambda done, total: heard.append((done, total)),
    )
    return manifest, heard


def test_a_manifest_lists_every_clip_with_its_split_and_length(finished):
    manifest, _ = finished
    assert manifest.parts[-2:] == ("set", "manifest.csv")
    with manifest.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["file", "label", "split", "duration_s"]
    parts = {"train": 3, "val": 1, "test": 1}
    expected = {(label, split): count for label in SOUNDS for split, count in parts.items()}
    assert Counter((label, split) for _, label, split, _ in rows) == expected
    for file, label, _, duration_s in rows:
        info = soundfile.info(manifest.parent / file)
        assert file.startswith(f"audio/{label}")
        assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)
        assert info.frames / info.samplerate == pytest.approx(float(duration_s), abs=1e-6)


def test_files_hold_the_clips_that_are_made(finished):
    manifest, _ = finished
    wave, rate = soundfile.read(manifest.parent / "audio" / "bell_0004.flac", dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(wave, make_sound("bell", 4, seed=2), atol=1.01 / 2**15)


def test_a_set_written_twice_is_the_same_to_the_byte(finished, tmp_path: Path):
    manifest, _ = finished
    write_sound_set(tmp_path / "manifest.csv", clips_per_class=5, seed=2)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 + 5 * len(SOUNDS)
    for file in files:
        assert (tmp_path / file).read_bytes() == (manifest.parent / file).read_bytes()


@pytest.mark.parametrize("last", [1, 5 * len(SOUNDS)], ids=["first clip", "last clip"])
def test_an_interrupted_set_has_no_manifest_and_no_half_of_a_clip(tmp_path: Path, last: int):
    def stop(done: int, total: int) -> None:
        if done == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sound_set(tmp_path / "set.csv", clips_per_class=5, on_clip=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]
    assert len(list((tmp_path / "audio").iterdir())) == last


def test_a_set_touches_nothing_else_and_grows_but_never_changes_another(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("of other clips")
    write_sound_set(tmp_path / "set.csv", clips_per_class=5, seed=2)
    assert (tmp_path / "manifest.csv").read_text() == "of other clips"
    before = {path: path.read_bytes() for path in (tmp_path / "audio").iterdir()}
    write_sound_set(tmp_path / "set.csv", clips_per_class=6, seed=2)
    with pytest.raises(InputError, match="is of another set, which would be changed"):
        write_sound_set(tmp_path / "other.csv", clips_per_class=5, seed=3)
    assert not (tmp_path / "other.csv").exists()
    assert {path: path.read_bytes() for path in before} == before


def test_progress_counts_every_clip_once(finished):
    _, heard = finished
    total = 5 * len(SOUNDS)
    assert heard == [(done, total) for done in range(1, total + 1)]


def test_an_unknown_sound_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"'sirene'.*siren") as refusal:
        make_sound("sirene", 0)
    assert "\n" not in str(refusal.value)


def test_too_few_clips_are_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match=r"at least 5, got 4; ask for more"):
        write_sound_set(tmp_path / "set" / "a.csv", clips_per_class=4)
    assert not (tmp_path / "set").exists()


def test_low_sample_rates_are_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match=r"at least 16000, got 8000; make"):
        write_sound_set(tmp_path / "set" / "a.csv", sample_rate=8000)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("numbers", [{"index": -1}, {"index": 0, "seed": -1}])
def test_negative_numbers_are_refused(numbers: dict[str, int]):
    with pytest.raises(ValueError, match=r"must be at least 0, got -1; count from 0"):
        make_sound("bell", **numbers)


@pytest.mark.parametrize("name", ["folder", "clips.json"])
def test_a_set_whose_manifest_cannot_be_written_leaves_no_clips(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="CSV"):
        write_sound_set(tmp_path / name, clips_per_class=5)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
