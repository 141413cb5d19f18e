import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import melastic
from melastic.checkpoints import store
from melastic.checkpoints.store import (
    CARD,
    CONFIG,
    WEIGHTS,
    digest,
    load_folder,
    write_json,
)
from melastic.errors import InputError
from melastic.files import replacing
from tests.models import MELS, MODELS, small


@pytest.fixture
def saved(tmp_path):
    model = small("class")
    model.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_comes_back_with_the_same_logits(tmp_path, name):
    model, clips = MODELS[name](), [torch.randn(MELS, 40)]
    model.save(tmp_path)
    loaded = melastic.load(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded(clips), model(clips))


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path):
    model = small("class")
    with torch.no_grad():
        model.head.linear.bias[0] = float("nan")
    with pytest.raises(InputError, match="is not finite, so it is not saved"):
        model.save(tmp_path / "nan")
    with pytest.raises(InputError, match="has no values, so it is not saved"):
        small("class").to("meta").save(tmp_path / "meta")
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("text", ["5", "null", "{bad", "[]"])
def test_a_settings_file_that_is_no_models_is_not_replaced(tmp_path, text):
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(InputError, match="is of no model"):
        small("class").save(tmp_path)
    assert (tmp_path / CONFIG).read_text() == text


def test_a_folder_that_holds_no_model_hides_no_bundled_one(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(melastic.load("digits").labels) == 10
    with pytest.raises(InputError, match="digits: holds no model"):
        melastic.load(tmp_path / "digits")


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, own = tmp_path / f".a.json.{dead.pid}.part", tmp_path / f".a.json.{os.getppid()}.part"
    for path in (left, own):
        path.touch()
    write_json(tmp_path / "a.json", 1)
    assert sorted(tmp_path.iterdir()) == sorted([own, tmp_path / "a.json"])


def test_labels_front_end_and_positions_are_saved(tmp_path):
    model = melastic.create_model(
        "ast-nano",
        depth=1,
        labels=("dog", "cat"),
        mean=-5.5,
        std=3.25,
        hop_ms=5.0,
        task="multi-label",
    )
    model.save(tmp_path)
    config = melastic.load(tmp_path).config
    assert config.labels == ("dog", "cat")
    assert (config.frontend.mean, config.frontend.std, config.frontend.hop_ms) == (-5.5, 3.25, 5.0)
    assert config.task == "multi-label"
    assert config.positions.extent == (128.0, 5.12)


def test_a_run_folder_loads_its_model(saved):
    assert isinstance(melastic.load(saved.parent), melastic.Classifier)


def edit(folder, change):
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def cut(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


DAMAGES = {
    "weights cut short": (cut, "damaged or cut short"),
    "weights empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "damaged or cut short"),
    "weights missing": (lambda f: (f / WEIGHTS).unlink(), "holds no model"),
    "config missing": (lambda f: (f / CONFIG).unlink(), "holds no model"),
    "config not JSON": (lambda f: (f / CONFIG).write_text("{"), "not valid JSON"),
    "config of another program": (lambda f: (f / CONFIG).write_text("{}"), "not a melastic model"),
    "config newer": (lambda f: edit(f, lambda c: c.update(version=99)), "update melastic"),
    "unknown field": (lambda f: edit(f, lambda c: c["model"].update(lables=[])), "labels"),
    "missing field": (lambda f: edit(f, lambda c: c["model"].pop("labels")), "lacks the field"),
    "wrong type": (lambda f: edit(f, lambda c: c["model"].update(name=3)), "must be of type str"),
    "another model's config": (
        lambda f: edit(f, lambda c: c["model"]["encoder"].update(depth=3)),
        "was saved with another config.json",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_one_clear_line(saved, damage):
    change, words = DAMAGES[damage]
    change(saved)
    with pytest.raises(InputError, match=words) as error:
        melastic.load(saved)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(saved):
    tensors = load_file(saved / WEIGHTS)
    tensors["head.linear.weight"][0, 0] = float("nan")
    with safe_open(saved / WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, saved / WEIGHTS, metadata=metadata)
    with pytest.raises(InputError, match=r"head\.linear\.weight is not finite"):
        melastic.load(saved)


@pytest.mark.parametrize(
    ("name", "words"),
    [("digts", "unknown model"), ("no/such/folder", "unknown model"), (".", "holds no model")],
)
def test_a_model_that_is_not_there_is_one_clear_line(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        melastic.load(name)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)

    def killed_half_way():
        with replacing(path) as part:
            part.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed_half_way()
    assert json.loads(path.read_text()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_presets_and_overrides_name_the_nearest():
    with pytest.raises(InputError, match="did you mean ast-tiny"):
        melastic.create_model("ast-tinny", num_classes=2)
    with pytest.raises(InputError, match="did you mean depth"):
        melastic.create_model("ast-tiny", num_classes=2, dept=3)


@pytest.mark.parametrize(
    "overrides",
    [{"dim": 10, "num_heads": 3}, {"depth": 0}, {"patch": 0}, {"hop_ms": -1.0}, {"sample_rate": 0}],
)
def test_impossible_sizes_are_one_clear_line(overrides):
    with pytest.raises(InputError) as error:
        melastic.create_model("ast-tiny", num_classes=2, **overrides)
    assert "\n" not in str(error.value)


def test_presets_have_the_published_sizes():
    counts = {
        name: sum(p.numel() for p in melastic.create_model(name, num_classes=527).parameters())
        for name in ("ast-tiny", "ast-small")
    }
    blocks = {
        "ast-tiny": 12 * (12 * 192 * 192 + 13 * 192),
        "ast-small": 12 * (12 * 384**2 + 13 * 384),
    }
    for name, count in counts.items():
        dim = 192 if name == "ast-tiny" else 384
        around = 256 * dim + dim + 512 * dim + dim + 2 * dim + 2 * dim + 527 * dim + 527
        assert count == blocks[name] + around


def test_every_file_of_a_model_may_be_read_by_whoever_may_read_new_files(tmp_path):
    small().save(tmp_path / "model")
    (tmp_path / "new").touch()
    usual = (tmp_path / "new").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "model").iterdir()} == {usual}


def in_format(version, raw):
    """A configuration as an earlier version of the package wrote it."""
    model = raw["model"]
    del model["frontend"]["slaney"]
    for name in ("fold", "bin_scale", "norm_eps"):
        del model["patches"][name]
    if version < 3:
        del model["encoder"]["kind"]
        for name in ("place", "positioned"):
            model["pooling"].pop(name, None)
    if version < 2:
        del model["frontend"]["level"], model["patches"]["resize"], model["curve"]
        for rule in ("reading", "antialias", "init"):
            del model["positions"][rule]
        model["pooling"].pop("leading", None)
    return {**raw, "version": version, "model": model}


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("pooling", ["class", "class+distillation", "mean", "attention"])
def test_a_model_of_an_earlier_format_still_loads_and_gives_the_same(tmp_path, pooling, version):
    model, clip = small(pooling), torch.randn(MELS, 50)
    model.save(tmp_path)
    raw = in_format(version, json.loads((tmp_path / CONFIG).read_text()))
    write_json(tmp_path / CONFIG, raw)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, metadata={"config": digest(raw)})
    old = melastic.load(tmp_path)
    assert old.config == model.config
    assert torch.equal(old([clip]), model([clip]))


@pytest.mark.parametrize("part", ["pooling", "patches", "frontend"])
def test_a_damaged_part_of_the_first_format_is_one_clear_line(saved, part):
    edit(saved, lambda config: config.update(version=1))
    edit(saved, lambda config: config["model"].update({part: "none"}))
    with pytest.raises(InputError, match=part):
        melastic.load(saved)


def test_a_save_that_fails_leaves_the_model_that_was_there(tmp_path, monkeypatch):
    small("mean").save(tmp_path)
    other = small("mean")
    other.config = replace(other.config, labels=("a", *other.config.labels[1:]))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        other.save(tmp_path)
    assert melastic.load(tmp_path).config.labels == small("mean").config.labels
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((CARD, CONFIG, WEIGHTS))


def test_weights_that_cannot_be_written_are_one_line_and_leave_nothing(saved, tmp_path):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    code = (
        "import resource, signal, sys, melastic; model = melastic.load(sys.argv[1]);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); model.save(sys.argv[1])"
    )
    words = [sys.executable, "-c", code, str(saved)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert f"{saved / WEIGHTS}: cannot be written" in last
    assert "make room" in last
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_part_of_no_known_kind_is_one_line(saved):
    config = json.loads((saved / CONFIG).read_text())
    config["model"]["encoder"]["kind"] = []
    write_json(saved / CONFIG, config)
    with pytest.raises(InputError, match=r"encoder\.kind"):
        load_folder(saved)
