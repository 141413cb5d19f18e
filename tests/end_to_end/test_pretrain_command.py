"""``melastic pretrain``, ``train --init`` and ``data join``, as a user types them."""

import csv
import json

import pytest
import soundfile

from tests.conftest import tone
from tests.end_to_end.shell import TINY, melastic
from tests.end_to_end.test_commands import one_line


@pytest.fixture(scope="module")
def pretrained(tones, tmp_path_factory):
    """An encoder that was trained on tones without their labels."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    words = ("pretrain", "ssast", "--data.manifest", tones, "--out", folder, *TINY)
    done = melastic(*words, "--optim.epochs", "3", "--data.val-share", "0.2", check=0)
    assert "without labels" in done.stderr
    assert "told apart" in done.stderr
    return folder


def test_a_pretrained_encoder_is_a_start_for_training(pretrained, tones, tmp_path):
    words = ("train", "sounds", "--data.manifest", tones, "--out", tmp_path / "run", *TINY)
    done = melastic(*words, "--init", pretrained, "--optim.epochs", "12", check=0)
    assert f"weights of {pretrained}; new: head" in done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["init"] == str(pretrained)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["test"]["accuracy"] == 1.0


def test_any_recipe_can_be_pretrained_with(tones, tmp_path):
    words = ("pretrain", "sounds", "--data.manifest", tones, *TINY, "--optim.epochs", "1")
    melastic(*words, "--masking.clusters", "never", check=0, cwd=tmp_path)
    config = json.loads((tmp_path / "runs" / "sounds-pretrained" / "config.json").read_text())
    assert config["masking"]["clusters"] == "never"
    assert config["data"]["test"] is None


def test_an_encoder_without_a_head_embeds_and_says_what_it_cannot(pretrained, tones, tmp_path):
    clip = tones.parent / "low_0.wav"
    melastic("embed", pretrained, clip, "--out", tmp_path / "vectors.csv", check=0)
    assert "labels" in melastic("info", pretrained, check=0).stdout
    for words in (
        ("classify", pretrained, clip),
        ("evaluate", pretrained, tones),
        ("sweep", pretrained, tones, "--patch", "128x4", "--out", tmp_path / "sweep"),
    ):
        assert "has no head" in one_line(melastic(*words))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("train ssast", "melastic pretrain ssast"),
        ("train --resume {run}", "melastic pretrain --resume"),
        ("pretrain --resume {run} --init digits", "leave them out"),
        ("pretrain ssast --masking.share 1.5", "masking.share is in (0, 1)"),
        ("pretrain ssast --model.stride 128x2 --data.manifest {tones} --out {new}", "overlap"),
    ],
)
def test_what_cannot_be_is_one_line(pretrained, tones, tmp_path, words, hint):
    places = {"run": pretrained, "tones": tones, "new": tmp_path / "new"}
    done = melastic(*(word.format(**places) for word in words.split()))
    assert hint in one_line(done)
    assert not (tmp_path / "new").exists()


def test_manifests_are_joined_with_all_their_columns(tmp_path):
    for name, rows in (
        ("one", "file,label,split\nA/a.wav,low,train\nA/b.wav,low;deep,test\n"),
        ("two", "file,fold,start_s,end_s\nc.wav,1,13601.25,13602.125\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.csv").write_text(rows)
    manifests = [tmp_path / name / f"{name}.csv" for name in ("one", "two")]
    out = tmp_path / "all" / "all.csv"
    out.parent.mkdir()
    done = melastic("data", "join", *manifests, "--out", out, check=0)
    assert "3 clips of 2 manifests" in done.stdout
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["file"] for row in rows] == ["../one/A/a.wav", "../one/A/b.wav", "../two/c.wav"]
    assert [row["label"] for row in rows] == ["low", "low;deep", ""]
    assert [row["set"] for row in rows] == ["one", "one", "two"]
    assert (rows[2]["start_s"], rows[2]["end_s"], rows[2]["fold"]) == ("13601.25", "13602.125", "1")
    chosen = ("--select", "split=train", "all")
    done = melastic("data", "join", *manifests, "--out", out, *chosen, check=0)
    assert "2 clips" in done.stdout


def test_joining_what_does_not_fit_is_one_line(tones, tmp_path):
    out = tmp_path / "all.csv"
    done = melastic("data", "join", tones, tones, "--out", out)
    assert "tones is there twice" in one_line(done)
    done = melastic("data", "join", tones, "--select", "all", "all", "--out", out)
    assert "one rule for each of 1 manifests, got 2" in one_line(done)
    done = melastic("data", "join", tones, "--out", out.with_suffix(".json"))
    assert "a manifest is written as CSV" in one_line(done)
    assert not list(tmp_path.iterdir())


def test_joining_replaces_neither_a_manifest_nor_a_column(tones, tmp_path):
    source = tones.with_name("own.csv")
    source.write_text("file,label,set\nlow_4.wav,low,mine\n")
    before = source.read_text()
    done = melastic("data", "join", source, "--out", tmp_path / "all.csv")
    assert "its column 'set' would be replaced" in one_line(done)
    done = melastic("data", "join", tones, source, "--out", source)
    assert "is one of the manifests that are joined" in one_line(done)
    assert source.read_text() == before
    assert not list(tmp_path.iterdir())


def test_clips_without_labels_are_for_pretraining_alone(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(300, 0.5), 16_000)
    (tmp_path / "m.csv").write_text("file\na.wav\n")
    done = melastic("train", "sounds", "--data.manifest", tmp_path / "m.csv", *TINY)
    assert "the column 'label' is required" in one_line(done)
    words = ("pretrain", "ssast", "--data.manifest", tmp_path / "m.csv", "--data.val-share", "0")
    melastic(*words, *TINY, "--optim.epochs", "1", "--out", tmp_path / "run", check=0)


def test_manifests_are_joined_into_a_linked_folder_and_measured_without_labels(tones, tmp_path):
    (tmp_path / "deep" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
    bare = tones.with_name("bare.csv")
    names = [row["file"] for row in csv.DictReader(tones.read_text().splitlines())]
    bare.write_text("\n".join(["file", *names]) + "\n")
    out = tmp_path / "link" / "joined.csv"
    melastic("data", "join", bare, "--out", out, check=0)
    found = json.loads(melastic("data", "stats", out, "--json", check=0).stdout)
    assert found["clips"] == len(names)
