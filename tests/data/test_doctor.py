"""Laws of the doctor: a healthy data set has no problems, and each illness is found by name."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.patient import RATE, DataSet


def test_a_healthy_data_set_has_no_problems(healthy):
    report = healthy.examine()
    contents = report.contents
    assert report.problems == ()
    assert (contents.clips, contents.files, contents.readable) == (4, 4, 4)
    assert contents.labels == {"a": 2, "b": 2}
    assert contents.splits == {"split": {"test": 2, "train": 2}}
    assert contents.sample_rates == {RATE: 4}
    assert contents.channels == {1: 4}
    assert contents.log_mels.clips == 4


def test_stereo_and_other_rates_are_counted_and_no_problem_if_they_hold_enough(healthy):
    healthy.sound("cd.wav", rate=44_100)
    healthy.clip("stereo.flac", np.random.default_rng(9).uniform(-0.5, 0.5, (4800, 2)), 48_000)
    report = healthy.examine()
    assert report.problems == ()
    assert report.contents.sample_rates == {16_000: 4, 44_100: 1, 48_000: 1}
    assert report.contents.channels == {1: 5, 2: 1}


@pytest.mark.parametrize("rate", [8_000, 11_025])
def test_a_few_clips_at_a_lower_rate_are_a_warning(healthy, rate):
    healthy.sound("low.wav", rate=rate)
    severity, message = healthy.problem()
    assert severity == "warning"
    assert message.startswith(f"1 clips at {rate} Hz hold nothing above {rate / 2:g} Hz")


def test_clips_that_are_all_at_a_lower_rate_are_no_problem(tmp_path):
    data = DataSet(tmp_path)
    for name in ("1.wav", "2.wav"):
        data.sound(name, rate=8_000)
    assert data.problems() == []


def cut(path: Path) -> None:
    """Take away the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("ill.wav", Path.unlink, "no such file"),
        ("ill.wav", lambda path: path.write_bytes(b""), "the file is empty"),
        ("ill.wav", lambda path: path.write_text("no sound " * 99), "cannot be read as audio"),
        ("ill.wav", cut, "cut short"),
        ("ill.flac", cut, "cannot be read as audio"),
        ("ill.ogg", cut, "cut short"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_and_the_others_are_looked_at(
    healthy, name, spoil, reason
):
    spoil(healthy.sound(name, seconds=1.0))
    severity, message = healthy.problem()
    assert severity == "error"
    assert message.startswith(str(healthy.folder / name))
    assert reason in message
    assert healthy.examine().contents.readable == 4


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.array([0.1] * 800 + [np.nan] + [0.1] * 800), "found NaN"),
        (np.zeros(0), "holds no samples"),
        (np.ones(1), "0.0625 ms are shorter than one analysis window (25 ms)"),
        (np.ones(399), "24.9 ms are shorter"),
    ],
)
def test_a_clip_that_gives_no_spectrogram_is_an_error(healthy, samples, reason):
    path = healthy.clip("ill.wav", samples)
    severity, message = healthy.problem()
    assert severity == "error"
    assert message.startswith(str(path))
    assert reason in message


def test_a_clip_of_one_window_is_long_enough(healthy):
    healthy.clip("brief.wav", np.random.default_rng(5).uniform(-0.5, 0.5, 400))
    assert healthy.problems() == []


@pytest.mark.parametrize(
    ("peak", "reason"), [(0.0, "peak zero"), (0.0005, "peak -66 dBFS"), (0.0011, None)]
)
def test_silence_is_a_warning_below_60_db(healthy, peak, reason):
    path = healthy.clip("quiet.wav", np.full(1600, peak))
    if reason is None:
        assert healthy.problems() == []
    else:
        severity, message = healthy.problem()
        assert severity == "warning"
        assert message.startswith(f"{path}: silent ({reason})")


def test_times_outside_the_file_are_found(healthy):
    healthy.add("train_a.wav", start_s=0.05, end_s=0.2)
    healthy.add("train_a.wav", start_s=5)
    (first, outside), (second, late) = healthy.problems()
    assert (first, second) == ("error", "warning")
    assert "within the file (0.100 s), got 5" in outside
    assert "from 0.05 s to 0.2: ends 0.100 s after its file does" in late


def test_stretches_of_one_file_are_clips_of_their_own(healthy):
    healthy.add("train_a.wav", start_s=0, end_s=0.05)
    healthy.add("train_a.wav", start_s=0.05, end_s=0.1)
    assert healthy.problems() == []


@pytest.mark.parametrize(
    ("columns", "mixture"),
    [
        ({"label": "a", "split": "train"}, ""),
        ({"label": "b", "split": "train"}, " in several labels (a, b)"),
        ({"label": "a", "split": "test"}, " in several splits (test, train)"),
    ],
)
def test_a_clip_that_is_listed_twice_is_found_with_what_differs(healthy, columns, mixture):
    healthy.add("train_a.wav", **columns)
    severity, message = healthy.problem()
    assert severity == "warning"
    path = healthy.folder / "train_a.wav"
    assert message.startswith(f"{path}: the clip is listed 2 times{mixture};")


def test_files_with_the_same_content_are_found_with_what_differs(healthy):
    content = (healthy.folder / "train_a.wav").read_bytes()
    (healthy.folder / "copy.wav").write_bytes(content)
    healthy.add("copy.wav", split="test")
    severity, message = healthy.problem()
    assert severity == "warning"
    first, second = healthy.folder / "train_a.wav", healthy.folder / "copy.wav"
    expected = f"{first}: the same content is in {second} in several splits (test, train);"
    assert message.startswith(expected)


def test_unbalanced_labels_are_found_beyond_ten_to_one(healthy):
    for number in range(18):
        healthy.sound(f"{number}.wav", label="a")
    assert healthy.problems() == []
    healthy.sound("last.wav", label="a")
    severity, message = healthy.problem()
    assert severity == "warning"
    assert message.startswith("labels are unbalanced, 'a' has 21 clips and 'b' has 2")


@pytest.mark.parametrize("column", ["split", "fold"])
def test_a_label_in_one_part_only_is_found(tmp_path, column):
    data = DataSet(tmp_path)
    for part, label in (("1", "a"), ("2", "a"), ("1", "rare")):
        data.sound(f"{part}{label}.wav", label=label, **{column: part})
    severity, message = data.problem()
    assert severity == "warning"
    assert message.startswith(f"1 labels are in one {column} only")
    assert "rare (1)" in message


def test_speakers_in_several_splits_are_found(healthy):
    healthy.sound("again.wav", split="test", speaker="train_a")
    severity, message = healthy.problem()
    assert severity == "warning"
    assert message.startswith("1 of 4 speakers have clips in more than one split: train_a (test, ")
