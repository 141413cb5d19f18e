"""Names, encodings and silence: what commands write where the usual is not there."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melastic as melastic_package
from melastic.cli.parse import print_json
from melastic.errors import InputError
from tests.end_to_end.shell import melastic
from tests.end_to_end.test_commands import one_line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_valid_wherever_it_is_written(encoding, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", written)
    print_json({"file": "é😀.wav"})
    written.flush()
    assert json.loads(written.buffer.getvalue().decode(encoding)) == {"file": "é😀.wav"}


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_embeddings_of_a_file_with_an_odd_name_are_written(tones, tmp_path, suffix):
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/b\xff.wav"))
    try:
        shutil.copy(tones.parent / "low_4.wav", odd)
    except OSError:
        pytest.skip("this file system has no such names")
    melastic("embed", "digits", odd, "--out", tmp_path / f"e.{suffix}", check=0)
    assert "b\\udcff.wav" in (tmp_path / f"e.{suffix}").read_text().replace("\\\\", "\\")


def test_notes_name_files_as_they_are(tmp_path):
    done = melastic("classify", "digits", tmp_path / "z:bell:.wav")
    assert "z:bell:.wav" in done.stderr


def test_silence_has_no_statistics(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16_000)
    (tmp_path / "m.csv").write_text("file\na.wav\n")
    done = melastic("data", "stats", tmp_path / "m.csv")
    assert "statistics need clips that vary" in one_line(done)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--optim.epochs", "3", "asc"), "the recipe comes first: melastic train RECIPE --optim"),
        (("asc", "--out"), "argument --out: expected one argument"),
    ],
)
def test_a_training_that_cannot_be_read_is_one_line(words, reason):
    assert reason in one_line(melastic("train", *words))


def test_doctor_looks_over_clips_without_labels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16_000)
    (tmp_path / "m.csv").write_text("file\na.wav\nmissing.wav\n")
    done = melastic("doctor", tmp_path / "m.csv")
    assert "missing.wav" in done.stdout
    assert "2 of 2 clips have no label" in " ".join(done.stdout.split())


def test_a_sweep_over_clips_shorter_than_a_window_says_so(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(40, 0.1), 8000)
    (tmp_path / "m.csv").write_text("file,label\na.wav,0\n")
    done = melastic("sweep", "digits", tmp_path / "m.csv", "--out", tmp_path / "sweep")
    assert "shorter than a window" in one_line(done)


@pytest.mark.parametrize("kind", [object, np.longdouble, "U8"])
def test_arrays_of_no_sample_format_are_one_line(kind):
    with pytest.raises(InputError, match=r"samples are real numbers in \[-1, 1\], got an array of"):
        melastic_package.load("digits").classify(np.zeros(8000).astype(kind))


def test_arrays_that_must_not_be_written_to_are_read():
    samples = np.random.default_rng(0).normal(0, 0.1, 8000)
    model = melastic_package.load("digits")
    expected = model.classify(samples.copy())
    samples.flags.writeable = False
    assert model.classify(samples) == expected
