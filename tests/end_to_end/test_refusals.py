"""What a user can get wrong is one line that says what would work, and nothing is lost."""

import ast
import errno
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import melastic.cli.show
from melastic.errors import InputError
from melastic.training.coarse_to_fine import train
from melastic.training.config import RunConfig
from tests.end_to_end.shell import TINY
from tests.end_to_end.shell import melastic as run
from tests.end_to_end.test_commands import one_line
from tests.models import small
from tests.training.test_resume import settings
from tests.training.test_run_folder import contents


def test_training_in_a_model_folder_is_refused_and_the_model_stays(tones, tmp_path):
    small("mean").save(tmp_path / "model")
    before = contents(tmp_path / "model")
    with pytest.raises(InputError, match="holds a model; name another folder with --out"):
        train(settings(tones), tmp_path / "model")
    assert contents(tmp_path / "model") == before


def test_a_model_is_not_saved_over_the_settings_of_a_run(tones, tmp_path):
    train(settings(tones, epochs=1), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds a config\.json that is of no model"):
        small("mean").save(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
def test_a_folder_with_a_file_of_something_else_is_no_place_for_a_model(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        InputError, match=rf"holds a {re.escape(name)} that a model's would replace"
    ):
        small("mean").save(tmp_path)
    assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [(name, "mine")]


def test_a_model_whose_weights_were_never_written_is_saved_again(tmp_path):
    small("mean").save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    small("mean").save(tmp_path)
    assert melastic.load(tmp_path).num_parameters == small("mean").num_parameters


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    tones, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="wandb, which is not installed"):
        train(replace(settings(tones), run=RunConfig(trackers=("wandb",))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_system_refuses_is_one_line(number, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number), "there/x.csv")

    monkeypatch.setattr(melastic.cli.show, "list_models", refuse)
    done = run("models")
    assert f"there/x.csv: {os.strerror(number)}; name another place" in one_line(done)


def test_a_folder_in_place_of_a_manifest_is_refused(tmp_path):
    (tmp_path / "set.csv").mkdir()
    done = run("data", "prepare", "sounds", "--out", tmp_path / "set.csv")
    assert "is a folder" in one_line(done)


UNTYPED = {
    "optim(lr=math.inf)": "optim.lr must be positive",
    "optim(weight_decay=math.inf)": "optim.weight_decay is at least 0",
    "optim(decay=math.nan)": "optim.decay is in",
    "optim(milestones=(-5,))": "optim.milestones are epochs from 0",
    "RunConfig(seed=10**23)": "run.seed is in",
    "create('aum-nano', num_classes=2, variant='foo')": "variant 'foo'",
    "model([clip], patch=(16, 10**13))": "at most 10000 frames",
    "model([clip], patch=1.5)": "one positive whole number",
    "model([clip.numpy()])": "a tensor of real numbers, got ndarray",
    "model([clip.int()])": "a tensor of real numbers, got torch.int32",
    "model.classify(sound.short())": "divide 16-bit samples by 32768",
    "log_mel(sound.numpy())": "a waveform is a tensor, got ndarray",
    "log_mel(sound.short())": "divide 16-bit samples by 32768",
    "log_mel(torch.zeros(0, 9000))": "log-mels need clips",
    "log_mel(torch.tensor(1.0))": "samples lie along an axis, got a single number",
    "log_mel(sound, hop_ms=math.nan)": "are finite",
    "load_audio('x.wav', sample_rate=math.nan)": "must be positive",
    "scan(x.int(), x, -x[0, :, :2], x[:, :2], x[:, :2])": "u must hold real numbers",
    "scan(x, x, -x[0, :, :2], x[:, :2], x[:, :2], cu_seqlens=[0, 9])": "cu_seqlens is a tensor",
    "scan(x.numpy(), x, -x[0, :, :2], x[:, :2], x[:, :2])": "u is a tensor, got ndarray",
    "scan(x, x, -x[0, :, :2], x[:, :2], x[:, :2], 1.0)": "D is a tensor, got float",
    "scan(x, x, -x[0, :, :2], None, x[:, :2])": "B is a tensor, got NoneType",
    "model([clip], patch=np.int64(8)) - model([clip], patch=8)": "0.",
    "model([clip], patch=[np.int32(8), 8]) - model([clip], patch=8)": "0.",
    "model.classify(sound.numpy()[::-1].copy()[::-1]) == model.classify(sound)": "True",
    "model.classify(sound.numpy().astype('>f4')) == model.classify(sound)": "True",
}
"""Calls from Python, where nothing checks types, and what their answer holds."""
CODE = """
import math, numpy as np, torch
from melastic import InputError, create_model as create, load_audio, log_mel
from melastic import selective_scan as scan
from melastic.training.config import OptimConfig as optim, RunConfig

model, clip = create("ast-nano", num_classes=2, depth=1), torch.randn(128, 40)
sound, x = torch.rand(9000), torch.ones(1, 3, 9)
for call in {calls!r}:
    try:
        answer = str(eval(call))
    except InputError as error:
        answer = str(error)
    print(repr(answer))
"""


def test_calls_that_no_type_checker_has_seen_are_answered_or_refused_in_one_line():
    code = CODE.format(calls=list(UNTYPED))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    for (call, hint), answer in zip(UNTYPED.items(), answers, strict=True):
        assert hint in answer, call
        assert "\n" not in answer, call


def test_a_recording_of_absurd_loudness_is_named_and_counts_as_unreadable(tones, tmp_path):
    samples = np.zeros(9000, dtype=np.float32)
    samples[7] = 1e30
    soundfile.write(tmp_path / "huge.wav", samples, 16_000, subtype="FLOAT")
    done = run("classify", "digits", tmp_path / "huge.wav")
    assert "huge.wav: samples are in [-1, 1], found 1e+30" in one_line(done)
    manifest = tmp_path / "clips.csv"
    good = f"{tones.parent}/low_0.wav,low"
    manifest.write_text(f"file,label\n{good}\nhuge.wav,low\n")
    done = run("doctor", manifest)
    assert "huge.wav" in done.stdout + done.stderr


def test_a_sweep_names_the_clips_that_it_leaves_out(tones, tmp_path):
    train(settings(tones, epochs=1), tmp_path / "run")
    manifest = tmp_path / "clips.csv"
    manifest.write_text(f"file,label\n{tones.parent}/low_0.wav,low\nmissing.wav,low\n")
    words = ("sweep", tmp_path / "run", manifest, "--select", "all", "--hop-ms", "10", "20")
    done = run(*words, "--out", tmp_path / "a")
    assert "missing.wav: no such file" in one_line(done)
    done = run(*words, "--out", tmp_path / "b", "--max-unreadable", "1", check=0)
    assert done.stderr.count("left out:") == 1
    assert "missing.wav" in done.stderr


WRONG = {
    "unknown command": (["clasify", "x"], "did you mean classify"),
    "unknown sub-command": (["data", "prepar"], "did you mean prepare"),
    "unknown recipe": (["train", "esc5"], "did you mean esc50"),
    "unknown model": (["classify", "digis", "x.wav"], "unknown model"),
    "no recipe": (["train", "--resume", "nowhere"], "holds no run"),
    "missing manifest": (
        ["train", "fsdd", "--data.manifest", "none.csv"],
        "no such manifest",
    ),
    "unknown data set": (["data", "prepare", "esc5", "--root", ".", "--out", "m.csv"], "esc50"),
    "missing root": (["data", "prepare", "esc50", "--out", "m.csv"], "--root is required"),
    "unknown set without root": (["data", "prepare", "foo", "--out", "m.csv"], "unknown data set"),
    "nothing to join": (["data", "join", "--out", "m.csv"], "name the manifests"),
    "option of the generated set": (
        ["data", "prepare", "fsdd", "--root", ".", "--seed", "3", "--out", "m.csv"],
        "--seed is for sounds",
    ),
    "root of the generated set": (
        ["data", "prepare", "sounds", "--root", ".", "--out", "m.csv"],
        "sounds is generated",
    ),
    "misspelt option": (["classify", "digits", "x.wav", "--hopms", "20"], "did you mean --hop-ms?"),
    "missing option": (["embed", "digits", "x.wav"], "--out PATH is required"),
    "no number": (
        ["evaluate", "digits", "x.csv", "--workers", "x"],
        "--workers takes INT, got 'x'",
    ),
    "no clips": (["data", "stats", "x.csv", "--most", "0"], "--most is at least 1"),
    "workers": (["evaluate", "digits", "x.csv", "--workers", "-1"], "--workers is at least 0"),
    "batch": (
        ["evaluate", "digits", "x.csv", "--batch-tokens", "0"],
        "--batch-tokens is at least 1",
    ),
    "figure": (["evaluate", "digits", "x.csv", "--confusion", "x.xyz"], "names a PNG file"),
    "preset": (["classify", "ast-nano", "x.wav"], "a preset without weights"),
    "pattern": (["models", "zzz"], "no name matches 'zzz'"),
    "folder for a recipe": (["train", "."], "name a JSON file"),
    "recipe and resume": (["train", "asc", "--resume", "run"], "got asc"),
    "mixup": (["train", "asc", "--augment.mixup", "4"], "augment.mixup is in [0, 1], got 4"),
    "warp": (["train", "asc", "--augment.warp-time", "-2"], "augment.warp_time is at least 0"),
    "betas": (["train", "asc", "--optim.betas", "2", "3"], "optim.betas are in [0, 1)"),
    "clipping": (["train", "asc", "--optim.clip-norm", "-1"], "optim.clip_norm must be positive"),
    "patience": (["train", "fsdd", "--run.patience", "3"], "give data.val or data.val_share"),
    "reading": (["train", "asc", "--data.workers", "-1"], "data.workers is at least 0"),
    "patch": (["train", "asc", "--view.patch", "64x"], "N or FREQxTIME"),
    "pooling": (["train", "asc", "--view.pooling", "mean"], "none, meanN or maxN"),
    "level": (["train", "asc", "--model.level", "0"], "floor_db is positive"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, case):
    words, hint = WRONG[case]
    assert hint in one_line(run(*words, cwd=tmp_path))
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"task": "multilabel"}, "did you mean multi-label"),
        ({"positions": "factorized"}, "did you mean factorised"),
        ({"remainder": "padded"}, "unknown model remainder 'padded'"),
        ({"reading": "places"}, "did you mean place"),
    ],
)
def test_a_misspelt_choice_is_refused_before_a_model_is_made(settings, hint):
    code = f"import melastic; melastic.create_model('ast-nano', num_classes=3, **{settings})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert hint in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("create_model('htsat-nano', num_classes=3, mlp_ratio=-1.0)", "mlp_ratio must be positive"),
        ("create_model('ast-nano', num_classes=3, mlp_ratio=float('nan'))", "are positive"),
        ("create_model('elasticaum-nano', num_classes=3, num_heads=0)", "heads must divide dim"),
        ("create_model('ast-nano', labels='abc')", "try ('dog', 'cat')"),
        ("create_model('ast-nano', labels=[1, 2])", "labels are names"),
        ("create_model('ast-nano', labels=5)", "labels are names"),
        ("create_model('ast-nano', num_classes='3')", "num_classes must be at least 1, got '3'"),
        ("create_model('ast-nano', num_classes=3, depth=2.5)", "depth must be of type int"),
        ("create_model('ast-nano', num_classes=3, sample_rate=1e4)", "of type int, got 10000.0"),
        ("create_model('ast-nano', num_classes=3, std=float('inf'))", "std is a finite number"),
        ("create_model('ast-nano', num_classes=3, fixed_frames=2.5)", "is a whole number"),
        ("load('digits')(torch.ones(1, 64, 9), hop_ms='10')", "positive number of milliseconds"),
        ("load(None)", "a model is a folder or a name, got None"),
        (
            "create_model('ast-nano', num_classes=3)(torch.ones(1, 128, 99).double())",
            "use spectrogram.to(torch.float32)",
        ),
    ],
)
def test_what_no_model_can_be_made_of_or_read_is_one_line(code, hint):
    words = [sys.executable, "-c", f"import melastic, torch; melastic.{code}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert "InputError" in last
    assert hint in last


def test_a_sweep_of_clips_that_cannot_be_read_is_one_line(tones, tmp_path):
    manifest = tmp_path / "clips.csv"
    manifest.write_text("file,label\nnone.wav,7\n")
    words = ("--max-unreadable", "3", "--keep", "1", "--out", tmp_path / "sweep")
    assert "no such file" in one_line(run("sweep", "digits", manifest, *words))


def test_labels_in_brackets_are_shown(tmp_path):
    labels = ("[noise]", "[/x]")
    melastic.create_model("ast-nano", labels=labels, dim=64, depth=1).save(tmp_path)
    said = run("info", tmp_path, check=0).stdout
    assert all(label in said for label in labels)


def test_no_confusion_is_drawn_where_clips_have_several_labels(tones, tmp_path):
    model = melastic.create_model("ast-nano", num_classes=3, task="multi-label", dim=64, depth=1)
    model.save(tmp_path / "model")
    words = ("evaluate", tmp_path / "model", tones, "--confusion", tmp_path / "c.png")
    assert "multi-label; leave it out" in one_line(run(*words))


def test_a_score_over_clips_that_a_run_was_trained_on_is_called_one(tones, tmp_path):
    small_run = ("train", "sounds", *TINY, "--optim.epochs", "1", "--data.manifest", tones)
    run(*small_run, "--data.test", "None", "--out", tmp_path / "run", check=0)
    said = run("evaluate", tmp_path / "run", tones, check=0).stderr
    assert "the run was trained on some of them (split=train)" in said
