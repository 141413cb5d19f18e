"""Laws of the doctor's report: what is counted, measured, stored and shown."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from melastic.data.doctor import Report, environment, examine
from melastic.data.doctor_view import render
from melastic.data.features import Features
from melastic.data.manifest import read_manifest
from melastic.errors import InputError
from tests.data.patient import SHORT, DataSet


def test_all_labels_of_a_clip_count(healthy):
    healthy.sound("both.wav", label="a;b")
    assert healthy.examine().contents.labels == {"a": 3, "b": 3}


def test_lengths_are_counted_once_each(tmp_path):
    data = DataSet(tmp_path)
    for number in range(1, 12):
        data.sound(f"{number}.wav", seconds=0.1 * number)
    lengths = data.examine().contents.lengths
    assert lengths.quantiles_s["min"] == pytest.approx(0.1)
    assert lengths.quantiles_s["50%"] == pytest.approx(0.6)
    assert lengths.quantiles_s["max"] == pytest.approx(1.1)
    assert lengths.total_s == pytest.approx(6.6)
    assert sum(lengths.counts) == 11
    assert len(lengths.edges_s) == len(lengths.counts) + 1
    assert list(lengths.edges_s) == sorted(lengths.edges_s)


def test_lengths_that_are_all_the_same_fill_one_bin(healthy):
    assert healthy.examine().contents.lengths.counts == (4,)


def test_log_mels_are_measured_as_training_does(healthy):
    (healthy.folder / "ill.wav").touch()
    healthy.add("ill.wav")
    log_mels = healthy.examine().contents.log_mels
    clips = read_manifest(healthy.folder / "clips.csv")[:4]
    assert (log_mels.mean, log_mels.std) == Features(clips, SHORT).statistics()


@pytest.mark.parametrize(("most", "measured"), [(0, None), (1, 1), (3, 3), (9, 4)])
def test_at_most_so_many_clips_are_measured_and_progress_ends_at_its_total(healthy, most, measured):
    seen = []
    report = healthy.examine(most_measured=most, on_clip=lambda *progress: seen.append(progress))
    log_mels = report.contents.log_mels
    assert (log_mels and log_mels.clips) == measured
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {4 + min(most, 4)}
    assert done[-1] == totals[-1]


def test_a_data_set_with_nothing_to_read_is_still_described(tmp_path):
    data = DataSet(tmp_path)
    data.add("absent.wav")
    seen = []
    report = data.examine(on_clip=lambda *progress: seen.append(progress))
    assert seen[-1] == (2, 2)
    assert (report.contents.lengths, report.contents.log_mels) == (None, None)
    assert report.contents.sample_rates == {}
    assert len(report.problems) == 1
    assert shown(report)


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such manifest"):
        examine(tmp_path / "absent.csv")


def test_without_a_manifest_the_environment_alone_is_described():
    report = examine()
    assert (report.contents, report.problems) == (None, ())
    assert report.environment == environment()
    assert report.environment.melastic in shown(report)


def test_a_report_is_json(healthy):
    healthy.add("absent.wav")
    report = healthy.examine()
    data = json.loads(json.dumps(report.to_json()))
    assert data == report.to_json()
    assert data["problems"][0]["severity"] == "error"
    assert data["contents"]["sample_rates"] == {"16000": 4}
    assert set(data["environment"]) == {f.name for f in dataclasses.fields(report.environment)}


def shown(report: Report) -> str:
    """The report as a terminal shows it."""
    text = io.StringIO()
    Console(file=text, width=300).print(render(report))
    return text.getvalue()


def test_the_terminal_shows_every_number_and_the_first_problems(healthy):
    for number in range(25):
        healthy.add(f"[absent {number:02}].wav", label=f"label {number:02}")
    text = shown(healthy.examine())
    for part in ("29 in 29 files, 4 readable", "16000 Hz: 4", "log-mels", "█", "[absent 00].wav"):
        assert part in text
    assert "and 5 more errors" in text
    assert "[absent 24].wav" not in text
    assert "6 most frequent and 6 rarest of 27" in text
