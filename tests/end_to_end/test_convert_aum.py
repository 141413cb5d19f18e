"""``melastic convert aum`` and ``vim``: a model folder, or one clear line."""

import json

import pytest
import torch
from safetensors.torch import save_file

import melastic as package
from tests.end_to_end.shell import melastic
from tests.oracles.aum import aum_state, vim_state
from tests.oracles.fill import spectrogram
from tests.oracles.official import logits_of

SIZE = ("--input-size", "32", "64")


def test_official_weights_become_a_model_folder(tmp_path):
    state = aum_state("bi-bi", "last")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "aum.pth")
    words = ("convert", "aum", tmp_path / "aum.pth", tmp_path / "model", *SIZE)
    done = melastic(*words, "--class-token", "last", "--json", check=0)
    said = json.loads(done.stdout)
    assert said["saved"] == str(tmp_path / "model")
    assert said["passed"]
    assert said["tensors"] == len(state)
    assert len(said["comparisons"]) == 5
    assert all(one["difference"] < 2e-5 for one in said["comparisons"])
    assert said["given"] == {"input_size": [32, 64], "class_token": "last"}
    assert (said["read_off"]["variant"], said["read_off"]["depth"]) == ("bi-bi", 2)
    assert said["parameters"] == sum(value.numel() for value in state.values())
    model = package.load(tmp_path / "model")
    assert model.config.pooling.place == "last"
    x = spectrogram(64, 32)
    expected = package.from_official(state, origin="aum", input_size=(32, 64), class_token="last")
    assert torch.equal(logits_of(model, x), logits_of(expected, x))


def test_the_report_says_what_was_assumed(tmp_path):
    save_file(aum_state(grid=(8, 2), depth=1), tmp_path / "aum.safetensors")
    words = ("convert", "aum", tmp_path / "aum.safetensors", tmp_path / "model")
    done = melastic(*words, "--stride", "16", check=0)
    for words in ("class_token middle", "input_size 128 x 32", "variant fo-bi", "at 128 x 32, 2"):
        assert words in done.stdout


def test_a_start_is_saved_without_a_comparison(tmp_path):
    torch.save({"model": vim_state()}, tmp_path / "vim.pth")
    words = ("convert", "vim", tmp_path / "vim.pth", tmp_path / "model", *SIZE)
    done = melastic(*words, "--num-classes", "3", check=0)
    assert "the head is new" in done.stdout
    assert "averaged over the colours" in done.stdout
    assert len(package.load(tmp_path / "model").labels) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--class-token both", "the file holds one class token"),
        ("--class-token end", "unknown place of the class token"),
        ("--input-size 32 80", "8 positions"),
        ("--input-size 32 64 --stride 8", "leave stride out"),
        ("--num-heads 3", "--num-heads"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(words, message, tmp_path):
    torch.save(aum_state(), tmp_path / "aum.pth")
    done = melastic("convert", "aum", "aum.pth", "out", *words.split(), cwd=tmp_path, check=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
