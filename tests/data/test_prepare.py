"""Laws of prepared data sets: both layouts give the same manifest, and never half of one."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from melastic.data.manifest import check_files, read_manifest
from melastic.data.prepare import prepare
from melastic.errors import InputError
from tests.data.layouts import MAKERS, asc, esc50, fsdd, rows_of, sound, speech_commands, table


@pytest.mark.parametrize("name", MAKERS)
def test_every_listed_file_is_there_wherever_the_manifest_lies(tmp_path, name, monkeypatch):
    root = MAKERS[name](tmp_path / "downloads" / name)
    for out in (root / "here.csv", tmp_path / "far" / "away" / "there.csv"):
        summary = prepare(name, root, out)
        clips = read_manifest(out)
        check_files(clips)
        assert not any(Path(row["file"]).is_absolute() for row in rows_of(out))
        assert (summary.clips, summary.manifest) == (len(clips), out)
        assert summary.labels == len({clip.labels for clip in clips})
        assert summary.splits == Counter(clip.columns[summary.split_column] for clip in clips)
    monkeypatch.chdir(tmp_path)
    prepare(name, root.relative_to(tmp_path), Path("near.csv"))
    check_files(read_manifest(tmp_path / "near.csv"))


@pytest.mark.parametrize("name", MAKERS)
def test_a_manifest_behind_a_link_still_finds_its_files(tmp_path, name):
    root = MAKERS[name](tmp_path / "downloads" / name)
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "deeper")
    prepare(name, root, tmp_path / "link" / "clips.csv")
    check_files(read_manifest(tmp_path / "link" / "clips.csv"))


@pytest.mark.parametrize("name", MAKERS)
def test_prepared_recordings_give_the_same_manifest_as_the_original(tmp_path, name):
    original = MAKERS[name](tmp_path / "original")
    prepare(name, original, tmp_path / "original.csv")
    prepared = tmp_path / "prepared"
    rows = rows_of(tmp_path / "original.csv")
    for number, row in enumerate(rows):
        suffix = Path(row["file"]).suffix
        (prepared / "audio").mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / row["file"], prepared / "audio" / f"{number}{suffix}")
        row["file"] = f"audio/{number}{suffix}"
    table(prepared / "metadata.csv", [{**row, "duration_s": "0.1"} for row in rows])
    prepare(name, prepared, prepared / "clips.csv")
    assert rows_of(prepared / "clips.csv") == rows


@pytest.mark.parametrize("take", [True, False])
def test_esc50_has_folds_groups_and_esc10_with_or_without_takes_listed(tmp_path, take):
    prepare("esc50", esc50(tmp_path / "esc", take=take), tmp_path / "clips.csv")
    first, second, *_, last = rows_of(tmp_path / "clips.csv")
    assert first == {
        "file": "esc/audio/1-100032-A-0.wav",
        "label": "dog",
        "fold": "1",
        "group": "animals",
        "esc10": "1",
        "source": "freesound:100032",
        "take": "A",
    }
    assert (second["group"], second["esc10"], second["take"]) == ("interior", "0", "B")
    assert (last["label"], last["group"], last["fold"]) == ("hand_saw", "exterior", "2")


def test_trimmed_clips_end_after_the_last_sample_that_is_not_zero(tmp_path):
    root = esc50(tmp_path / "esc")
    sound(root / "audio" / "2-200000-C-49.wav", seconds=0.0, silence_s=0.3)
    prepare("esc50", root, tmp_path / "clips.csv", trim_silence=True)
    clips = read_manifest(tmp_path / "clips.csv")
    assert [(clip.start_s, clip.end_s) for clip in clips] == [
        (0.0, 0.1),
        (0.0, 0.1),
        (0.0, 0.2),
        (0.0, 0.3),  # nothing but zeros: the whole clip
    ]


def test_trimmed_clips_end_where_the_metadata_says(tmp_path):
    sound(tmp_path / "audio" / "a.wav", seconds=0.3)
    row = {"file": "audio/a.wav", "label": "dog", "fold": 1, "group": "animals", "esc10": 1}
    row |= {"source": "freesound:1", "take": "A"}
    table(tmp_path / "metadata.csv", [{**row, "content_s": "0.123"}])
    prepare("esc50", tmp_path, tmp_path / "clips.csv", trim_silence=True)
    (clip,) = read_manifest(tmp_path / "clips.csv")
    assert clip.end_s == 0.123
    assert clip.columns["content_s"] == "0.123"
    for wrong in ("soon", "0", "nan", ""):
        table(tmp_path / "metadata.csv", [{**row, "content_s": wrong}])
        with pytest.raises(InputError, match="content_s must be positive seconds"):
            prepare("esc50", tmp_path, tmp_path / "clips.csv", trim_silence=True)


def test_fsdd_tests_on_the_first_five_takes_and_numbers_speakers_by_the_alphabet(tmp_path):
    root = fsdd(tmp_path / "fsdd")
    sound(root / "recordings" / "noise.wav")
    summary = prepare("fsdd", root, tmp_path / "clips.csv")
    for row in rows_of(tmp_path / "clips.csv"):
        digit, speaker, index = Path(row["file"]).stem.split("_")
        assert (row["label"], row["speaker"], row["index"]) == (digit, speaker, index)
        assert row["split"] == ("test" if int(index) <= 4 else "train")
        assert row["loso_fold"] == {"george": "1", "lucas": "2", "theo": "3"}[speaker]
    assert summary.splits == {"test": 30, "train": 12}
    assert summary.notes == ("left out 1 files that are not named digit_speaker_index.wav",)


def test_asc_follows_its_lists_and_marks_the_ten_word_subset(tmp_path):
    prepare("asc", asc(tmp_path / "asc"), tmp_path / "clips.csv")
    rows = rows_of(tmp_path / "clips.csv")
    assert Counter(row["split"] for row in rows) == {"train": 15, "val": 15, "test": 15}
    assert {row["label"] for row in rows} == {"yes", "zoom_in", "start"}
    assert {(row["split"], row["speaker"]) for row in rows} == {
        ("train", "00000001"),
        ("val", "00000002"),
        ("test", "00000003"),
    }
    for row in rows:
        inside = row["label"] != "zoom_in" and int(row["take"]) <= 4
        assert row["asc10"] == str(int(inside))
        speakers = {"start": "val", "yes": "train"}.get(row["label"], "") if inside else ""
        assert row["speaker_split"] == speakers


def test_asc_without_its_lists_is_refused_because_recordings_do_not_tell_the_split(tmp_path):
    root = asc(tmp_path / "asc")
    (root / "val.csv").unlink()
    with pytest.raises(InputError, match=r"val\.csv is missing and recordings do not tell it"):
        prepare("asc", root, tmp_path / "clips.csv")
    assert not (tmp_path / "clips.csv").exists()


def test_speech_commands_follow_their_lists_and_leave_background_noise_out(tmp_path):
    root = speech_commands(tmp_path / "speech")
    summary = prepare("speech-commands", root, tmp_path / "clips.csv")
    rows = rows_of(tmp_path / "clips.csv")
    assert [(row["file"], row["split"]) for row in rows] == [
        ("speech/bed/0a7c2a8d_nohash_0.wav", "train"),
        ("speech/bed/1b4c9b89_nohash_0.wav", "train"),
        ("speech/bed/2c7c33e8_nohash_0.wav", "test"),
        ("speech/yes/0a7c2a8d_nohash_0.wav", "train"),
        ("speech/yes/1b4c9b89_nohash_0.wav", "val"),
        ("speech/yes/2c7c33e8_nohash_0.wav", "test"),
    ]
    assert {row["speaker"] for row in rows} == {"0a7c2a8d", "1b4c9b89", "2c7c33e8"}
    assert {row["label"] for row in rows} == {"yes", "bed"}
    assert summary.notes == ("left out 1 files of _background_noise_, which is no word",)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("esc50", "audio/1-100032-A-0.wav"),
        ("asc", "dataset/yes/00000001_NO_01.wav"),
        ("speech-commands", "yes/1b4c9b89_nohash_0.wav"),
    ],
)
def test_a_missing_file_is_counted_and_named_and_nothing_is_written(tmp_path, name, lost):
    root = MAKERS[name](tmp_path / "root")
    (root / lost).unlink()
    with pytest.raises(InputError, match=r"1 of \d+ listed files are missing") as caught:
        prepare(name, root, tmp_path / "out" / "clips.csv")
    assert str(root / lost) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_with_neither_layout_is_told_what_was_looked_for(tmp_path, name):
    (tmp_path / "empty").mkdir()
    for root, state in ((tmp_path / "empty", "neither layout"), (tmp_path / "no", "not a folder")):
        with pytest.raises(InputError, match=state) as caught:
            prepare(name, root, tmp_path / "clips.csv")
        message = str(caught.value)
        assert "\n" not in message
        for landmark in (str(root), "metadata.csv", "audio"):
            assert landmark in message
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_another_data_set_than_the_named_one_is_refused(tmp_path):
    original = fsdd(tmp_path / "fsdd")
    prepare("fsdd", original, original / "metadata.csv")
    (original / "audio").mkdir()
    with pytest.raises(InputError, match="lacks the column 'esc10' of esc50"):
        prepare("esc50", original, tmp_path / "clips.csv")


@pytest.mark.parametrize(
    ("name", "file", "text", "reason"),
    [
        ("esc50", "meta/esc50.csv", "filename,fold\na.wav,1\n", "line 2: target is missing"),
        (
            "esc50",
            "meta/esc50.csv",
            "filename,fold,target,category,esc10\na.wav,1,0,dog,True\n",
            "not a clip of ESC-50",
        ),
        (
            "esc50",
            "meta/esc50.csv",
            "filename,fold,target,category,esc10\n1-1-A-50.wav,1,50,dog,True\n",
            "not a clip of ESC-50",
        ),
        ("asc", "val.csv", "path\na.wav\n", "line 2: file is missing"),
        ("asc", "val.csv", "file,class\ndataset/yes/a.wav,yes\n", "SPEAKER_NO_TAKE"),
        ("speech-commands", "testing_list.txt", "yes/none.wav\n", "listed files are missing"),
        ("esc50", "meta/esc50.csv", "filename,fold,target,category,esc10\n", "holds no clips"),
    ],
)
def test_a_damaged_download_is_refused_in_one_line(tmp_path, name, file, text, reason):
    root = MAKERS[name](tmp_path / "root")
    (root / file).write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        prepare(name, root, tmp_path / "clips.csv")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "clips.csv").exists()


def test_an_unknown_name_or_option_is_refused_with_what_would_work(tmp_path):
    with pytest.raises(InputError, match="did you mean esc50"):
        prepare("esc-50", tmp_path, tmp_path / "clips.csv")
    with pytest.raises(InputError, match="trim_silence is for esc50"):
        prepare("fsdd", fsdd(tmp_path / "fsdd"), tmp_path / "clips.csv", trim_silence=True)


def test_a_list_of_the_data_set_is_not_replaced(tmp_path):
    root = esc50(tmp_path / "esc50")
    before = (root / "meta" / "esc50.csv").read_text()
    with pytest.raises(InputError, match="is a list of the data set itself; name another file"):
        prepare("esc50", root, root / "meta" / "esc50.csv")
    assert (root / "meta" / "esc50.csv").read_text() == before
