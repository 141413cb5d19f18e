"""Names, encodings and silence: what commands write where the usual is not there."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melastic.cli.parse import print_json
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
