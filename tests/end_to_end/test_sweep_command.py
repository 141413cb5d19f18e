import csv
import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

import melastic as package
from melastic.checkpoints.store import CARD, CONFIG, WEIGHTS
from melastic.cli.evaluate import chosen_clips
from melastic.patches.view import View
from melastic.recipes import load_recipe
from melastic.training.run_folder import MODEL, begin
from melastic.training.setup import split_clips
from tests.end_to_end.shell import TINY, melastic

GRID = ("--patch", "128x4", "128x8", "--pool", "none", "max2", "--keep", "1", "0.5")


@pytest.fixture(scope="module")
def trained(tones, tmp_path_factory):
    """A finished run on tones."""
    folder = tmp_path_factory.mktemp("trained") / "tones"
    settings = ("--data.manifest", tones, "--optim.epochs", "8", *TINY)
    melastic("train", "sounds", "--out", folder, *settings, check=0)
    return folder


@pytest.fixture(scope="module")
def swept(trained, tones, tmp_path_factory):
    """A copy of the run with a stored curve, its sweep, and what the command printed."""
    run = tmp_path_factory.mktemp("swept") / "run"
    shutil.copytree(trained, run)
    out = run.parent / "sweep"
    done = melastic("sweep", run, tones, *GRID, "--out", out, "--store", "--json", check=0)
    return run, out, done


def test_a_sweep_leaves_a_table_and_a_figure(swept, tones):
    run, out, done = swept
    printed = json.loads(done.stdout)
    rows = list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))
    assert len(rows) == len(printed) == 2 * 2 * 2
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "8/8" in done.stderr
    words = ("--patch", "128x8", "--pool", "max2", "--keep", "0.5")
    found = json.loads(melastic("evaluate", run, tones, *words, "--json", check=0).stdout)
    (row,) = [
        row for row in printed if (row["patch_time"], row["pool"], row["keep"]) == (8, "max2", 0.5)
    ]
    assert found["view"]["patch"] == [128, 8]
    assert found["view"]["pooling"] == {"kind": "max", "factor": 2}
    for key in ("clips", "accuracy", "mAP", "gmacs_per_clip", "tokens_per_clip"):
        assert row[key] == pytest.approx(found[key], rel=1e-6)


def test_a_stored_curve_changes_neither_weights_nor_card(swept, trained):
    run, _, _ = swept
    before, after = (load_file(folder / "model" / WEIGHTS) for folder in (trained, run))
    assert all((after[name] == value).all() for name, value in before.items())
    assert (run / "model" / CARD).read_text() == (trained / "model" / CARD).read_text()
    config = json.loads((run / "model" / CONFIG).read_text())["model"]
    assert json.loads((trained / "model" / CONFIG).read_text())["model"]["curve"] == []
    curve = package.load(run).config.curve
    assert 1 <= len(curve) == len(config["curve"]) <= 8
    costs, scores = [p.gmacs_per_clip for p in curve], [p.accuracy for p in curve]
    assert costs == sorted(costs)
    assert scores == sorted(set(scores))
    assert all(0.2 < point.seconds_per_clip < 0.5 for point in curve)


def test_a_sweep_continues_after_its_curve_is_stored(swept, tones):
    run, out, _ = swept
    text = (out / "sweep.csv").read_text()
    done = melastic(
        "sweep",
        run,
        tones,
        *GRID,
        "--out",
        out,
        "--select",
        "split=val",
        "--baseline",
        out,
        check=0,
    )
    assert "accuracy" not in done.stderr, "nothing is measured again"
    assert (out / "sweep.csv").read_text() == text
    assert len(done.stdout.splitlines()) == 1 + 8


def test_a_budget_chooses_a_view_of_the_curve_and_says_which(swept, tones):
    run, _, _ = swept
    files = [tones.parent / "low_4.wav", tones.parent / "high_0.wav"]
    model = package.load(run)
    best = max(model.config.curve, key=lambda point: point.accuracy)
    for words in (("--gmacs", "10"), ("--budget-ms", "60000")):
        done = melastic("classify", run, *files, *words, "--json", check=0)
        assert done.stderr == ""
        for entry, file in zip(json.loads(done.stdout), files, strict=True):
            view = {**entry["view"], "pooling": entry["view"]["pooling"]["factor"]}
            assert view["patch"] == list(best.view.patch)
            assert view["pooling"] == best.view.pooling.factor
            assert view["keep"] == best.view.keep
            found = model.classify(file, gmacs=10)
            assert [p["label"] for p in entry["predictions"]] == [p.label for p in found]


def test_a_budget_that_nothing_fits_names_the_cheapest(swept, tones):
    done = melastic("classify", swept[0], tones.parent / "low_4.wav", "--gmacs", "1e-9")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    suggested = done.stderr.strip().rsplit("--gmacs ", 1)[1]
    melastic("classify", swept[0], tones.parent / "low_4.wav", "--gmacs", suggested, check=0)


def test_the_view_of_a_square_patch_is_one_number(tones):
    done = melastic("classify", "digits", tones.parent / "low_4.wav", "--patch", "8x8", "--json")
    assert json.loads(done.stdout)[0]["view"]["patch"] == 8
    done = melastic("classify", "digits", tones.parent / "low_4.wav", "--patch", "16x4", "--json")
    assert json.loads(done.stdout)[0]["view"]["patch"] == [16, 4]
    assert package.View(patch=8) == View(patch=8)


def test_help_names_every_dial():
    text = melastic("sweep", "--help", check=0).stdout
    for dial in ("--patch", "--hop-ms", "--pool", "--seconds", "--keep", "--baseline", "--store"):
        assert dial in text


SWEEP = ("sweep", "digits", "tones.csv", "--out", "out")
WRONG = {
    "pooling": ((*SWEEP, "--pool", "sum2"), "meanN or maxN"),
    "negative hop": ((*SWEEP, "--hop-ms", "-10"), "positive number of milliseconds, got -10"),
    "hop not a number": ((*SWEEP, "--hop-ms", "nan"), "positive number of milliseconds, got nan"),
    "patch 0": ((*SWEEP, "--patch", "0"), "try 16 or 128x4"),
    "keep above 1": ((*SWEEP, "--keep", "1.5"), "in (0, 1], got 1.5"),
    "no seconds": ((*SWEEP, "--seconds", "0"), "positive number of seconds"),
    "words": ((*SWEEP, "--seconds", "long"), "a number must follow, got 'long'"),
    "empty patch": ((*SWEEP, "--patch"), "one value or more must follow"),
    "empty keep": ((*SWEEP, "--keep", "--json"), "one value or more must follow"),
    "no memory": ((*SWEEP, "--memory-mb", "0"), "at least 1"),
    "bundled": ((*SWEEP, "--store"), "melastic.load"),
    "baseline": ((*SWEEP, "--baseline", "nowhere"), "no such file"),
    "unknown label": (SWEEP, "which the model does not know"),
    "evaluate pool": (("evaluate", "digits", "tones.csv", "--pool", "max"), "try mean2"),
    "evaluate patch": (("evaluate", "digits", "tones.csv", "--patch", "4x"), "try 16 or 128x4"),
    "no curve": (("classify", "digits", "low_0.wav", "--gmacs", "1"), "--store"),
    "two choices": (("classify", "digits", "a.wav", "--gmacs", "1", "--patch", "8"), "one or the"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_dials_are_one_line_and_exit_code_2(tones, case):
    words, hint = WRONG[case]
    done = melastic(*words, cwd=tones.parent)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert hint in done.stderr
    assert not (tones.parent / "out").exists()


def test_info_lists_the_views_that_a_budget_chooses_from(swept):
    run, _, _ = swept
    curve = package.load(run).config.curve
    said = melastic("info", run, check=0).stdout
    assert said.count("within a budget") == len(curve)
    assert f"{100 * curve[0].accuracy:.2f} %, {curve[0].gmacs_per_clip:.4f} GMACs" in said


def test_a_share_that_training_held_out_chooses_the_views_that_are_stored(tmp_path, tones):
    config = load_recipe("sounds")
    data = replace(config.data, manifest=tones, train="all", val=None, val_share=0.2, test=None)
    config = replace(config, data=data)
    begin(config, tmp_path / "run")
    (tmp_path / "run" / MODEL).mkdir()
    chosen = chosen_clips(str(tmp_path / "run"), tones, None, to_choose=True)
    assert chosen == split_clips(config).val
    assert len(chosen) == 6


@pytest.mark.parametrize("held_in", ["a run without other clips", "a folder of a model"])
def test_views_that_training_clips_choose_are_said_to_be(tmp_path, tones, capsys, held_in):
    folder = tmp_path / "run"
    if held_in == "a run without other clips":
        config = load_recipe("sounds")
        data = replace(config.data, manifest=tones, train="all", val=None, test=None)
        begin(replace(config, data=replace(data, val_share=0.0)), folder)
        (folder / MODEL).mkdir()
    assert len(chosen_clips(str(folder), tones, None, to_choose=True)) == 30
    assert "views are chosen by all 30 clips" in capsys.readouterr().err
    chosen_clips(str(folder), tones, None)
    assert "chosen" not in capsys.readouterr().err
