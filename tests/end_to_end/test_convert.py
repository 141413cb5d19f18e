"""``melastic convert``: official weights become a model folder, or one clear line."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

import melastic as package
from melastic.checkpoints.convert import ORIGINS, report
from melastic.checkpoints.convert.parity import Comparison
from tests.end_to_end.shell import melastic
from tests.oracles.fill import spectrogram
from tests.oracles.official import (
    ast_state,
    elastic_state,
    flexi_state,
    logits_of,
    ssast_state,
    vit_state,
)

HEADS = ("--num-heads", "3")
SIZE = ("--input-size", "32", "64")
FILES = {
    "ast": (ast_state(), (*SIZE, *HEADS)),
    "flexiast": (flexi_state(), (*SIZE, *HEADS)),
    "elasticast": (elastic_state((2, 4)), ("--patch", "16", *HEADS)),
    "ssast": (ssast_state(), (*SIZE, *HEADS, "--pooling", "class")),
}
STARTS = {
    "vit": (vit_state(), (*SIZE, *HEADS, "--num-classes", "5")),
    "ssast": (ssast_state(pretrained=(32, 64)), ("--stride", "10", *HEADS, "--num-classes", "5")),
}


def written(state, path):
    torch.save({f"module.{name}": value for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("origin", FILES)
def test_official_weights_become_a_model_folder(origin, tmp_path):
    state, facts = FILES[origin]
    file = written(state, tmp_path / "official.pth")
    done = melastic("convert", origin, file, tmp_path / "model", *facts, "--json", check=0)
    said = json.loads(done.stdout)
    assert said["saved"] == str(tmp_path / "model")
    assert said["passed"]
    assert said["tensors"] + len(said["dropped"]) == len(state)
    assert len(said["comparisons"]) >= 2
    assert all(one["difference"] < 2e-5 for one in said["comparisons"])
    assert (said["given"]["num_heads"], said["read_off"]["num_classes"]) == (3, 5)
    assert said["assumed"]["sample_rate"] == 16_000
    assert said["absorbed"]
    model = package.load(tmp_path / "model")
    assert said["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert logits_of(model, spectrogram(64, 32)).isfinite().all()


@pytest.mark.parametrize("origin", STARTS)
def test_a_start_is_saved_without_a_comparison(origin, tmp_path):
    state, facts = STARTS[origin]
    file = written(state, tmp_path / "official.pth")
    done = melastic("convert", origin, file, tmp_path / "model", *facts, check=0)
    assert "the head is new" in done.stdout
    assert len(package.load(tmp_path / "model").labels) == 5


def test_the_report_is_for_people_too(tmp_path):
    state, facts = FILES["flexiast"]
    file = tmp_path / "official.safetensors"
    save_file(state, file)
    done = melastic("convert", "flexiast", file, tmp_path / "model", *facts, check=0)
    for words in (
        "tensors dropped   5: v.",
        "absorbed          the stale kernel",
        "input_size 32 x 64",
        "patch 16 x 16",
        "mean -4.26774",
        "at 32 x 64, patch 16 x 8",
    ):
        assert words in done.stdout
    assert "model: saved" in done.stderr


LABELS = {
    "names.txt": "cat\ndog, small\n\nbird\ncow\nhen\n",
    "names.csv": 'index,mid,display_name\n1,/m/1,"dog, small"\n0,/m/0,cat\n2,/m/2,bird\n'
    "3,/m/3,cow\n4,/m/4,hen\n",
    "plain.csv": 'label\ncat\n"dog, small"\nbird\ncow\nhen\n',
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_read_from_a_file(name, tmp_path):
    state, facts = FILES["ast"]
    (tmp_path / name).write_text(LABELS[name])
    file = written(state, tmp_path / "official.pth")
    words = ("convert", "ast", file, tmp_path / "model", *facts, "--labels")
    melastic(*words, tmp_path / name, check=0)
    assert package.load(tmp_path / "model").labels == ("cat", "dog, small", "bird", "cow", "hen")


def test_labels_are_given_as_words(tmp_path):
    state, facts = FILES["ast"]
    file = written(state, tmp_path / "official.pth")
    words = ("convert", "ast", file, tmp_path / "model", *facts, "--labels", *"abcde")
    melastic(*words, "--task", "multi-label", check=0)
    model = package.load(tmp_path / "model")
    assert (model.labels, model.config.task) == (tuple("abcde"), "multi-label")


@pytest.mark.parametrize("difference", [2e-3, float("nan")])
def test_a_model_that_computes_something_else_is_not_saved(difference, tmp_path, monkeypatch):
    wrong = [Comparison(input="3 x 4", difference=difference)]
    monkeypatch.setattr(report, "compare", lambda *_: wrong)
    state, facts = FILES["ast"]
    file = written(state, tmp_path / "official.pth")
    done = melastic("convert", "ast", file, tmp_path / "model", *facts, check=1)
    assert f"logits differ by {difference:.2g} from the official ones at 3 x 4" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "model").exists()


def make_bad_files(folder):
    whole = written(ast_state(), folder / "whole.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("no checkpoint")
    (folder / "text.safetensors").write_text("no checkpoint")
    torch.save(torch.zeros(2), folder / "tensor.pth")
    torch.save({"args": argparse.Namespace()}, folder / "objects.pth")
    (folder / "model").mkdir()
    (folder / "model" / "mine.txt").touch()
    (folder / "two.txt").write_text("a\nb\n")
    (folder / "odd.csv").write_text("one,two\n1,2\n")
    (folder / "gap.csv").write_text("index,name\n0,a\n2,b\n")
    (folder / "none.txt").write_text("\n")


REFUSED = {
    "no origin": ("", "name the origin"),
    "unknown origin": ("asst whole.pth out", "did you mean ast"),
    "no file": ("ast gone.pth out", "gone.pth: no such file"),
    "a folder": ("ast model out", "this is a folder"),
    "cut short": ("ast cut.pth out", "cut short"),
    "empty": ("ast empty.pth out", "cut short"),
    "text": ("ast text.pth out", "no checkpoint"),
    "text as safetensors": ("ast text.safetensors out", "no checkpoint"),
    "one tensor": ("ast tensor.pth out", "holds a Tensor"),
    "objects": ("ast objects.pth out", "Python objects"),
    "wrong origin": ("elasticast whole.pth out", "pos_embed_freq is missing"),
    "fact missing": ("ast whole.pth out --num-heads 3", "give input_size="),
    "fact wrong": ("ast whole.pth out --num-heads 3 --input-size 32 80", "8 positions"),
    "unknown fact": ("ast whole.pth out --strid 3", "--stride"),
    "fact of another origin": ("ast whole.pth out --pooling mean", "--pooling"),
    "not a number": ("ast whole.pth out --num-heads three", "three"),
    "out in use": ("ast whole.pth model", "there is something already"),
    "out a file": ("ast whole.pth two.txt", "there is something already"),
    "labels missing": ("ast whole.pth out --labels gone.txt", "gone.txt: cannot be read"),
    "labels too few": (
        "ast whole.pth out --num-heads 3 --input-size 32 64 --labels two.txt",
        "labels: 2, the head: 5",
    ),
    "labels unnamed": ("ast whole.pth out --labels odd.csv", "display_name"),
    "labels with a gap": ("ast whole.pth out --labels gap.csv", "without gaps"),
    "labels empty": ("ast whole.pth out --labels none.txt", "no class names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(case, tmp_path):
    words, message = REFUSED[case]
    make_bad_files(tmp_path)
    done = melastic("convert", *words.split(), cwd=tmp_path, check=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_origin_and_the_facts_of_one():
    text = melastic("convert", "--help", check=0).stdout
    assert all(origin in text for origin in ORIGINS)
    text = melastic("convert", "elasticast", "--help", check=0).stdout
    for fact in ("--pooling", "--patch", "--labels", "--hop-ms"):
        assert fact in text
