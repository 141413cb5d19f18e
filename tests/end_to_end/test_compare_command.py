import csv
import json
import re
import sys
from functools import partial

import pytest

from tests.end_to_end.shell import TINY, melastic, tool_of
from tests.evaluation.test_plots import is_drawn

WAYS = {
    "single": (),
    "phased": ("--phases", "2-phase"),
    "auto": ("--phases", "hop2:auto", "full:auto"),
    "coarse": ("--phases", "hop4"),
}


@pytest.fixture(scope="module")
def runs(tones, tmp_path_factory):
    """Finished runs of equally many epochs, and what was said of them."""
    folder, said = tmp_path_factory.mktemp("compared"), {}
    for name, phases in WAYS.items():
        settings = ("--data.manifest", tones, "--optim.epochs", "5", *TINY, *phases)
        said[name] = melastic("train", "sounds", "--out", folder / name, *settings, check=0).stderr
    return folder, said


def test_an_epoch_says_what_training_has_used_so_far_in_all_phases(runs):
    folder, said = runs
    lines = [line for line in said["phased"].splitlines() if "clips/s" in line]
    assert [line.split("  ")[0] for line in lines] == [
        *(f"phase 1/2, epoch {n}/3" for n in (1, 2, 3)),
        *(f"phase 2/2, epoch {n}/2" for n in (1, 2)),
    ]
    used = [float(line.split(" GMACs")[0].rsplit(" ", 1)[1]) for line in lines]
    ledger = json.loads((folder / "phased" / "ledger.json").read_text())
    assert used == sorted(used)
    assert used[-1] == pytest.approx(ledger["train_gmacs"], rel=0.01)
    speed = re.compile(r"  \d+ clips/s, [\d,]+ tokens/s, \d{1,2} % waiting for clips, \d+\.\d GB  ")
    assert all(speed.search(line) for line in lines)
    assert "over 2 phases" in said["phased"]
    assert "epoch 1/at most 2" in said["auto"]
    assert is_drawn(folder / "phased" / "ledger.png")
    assert is_drawn(folder / "single" / "ledger.png")


def test_runs_are_held_to_the_first_in_a_table_and_a_figure(runs, tmp_path):
    folder, _ = runs
    paths = [folder / name for name in WAYS]
    done = melastic("compare", *paths, "--out", tmp_path, "--json", check=0)
    printed = json.loads(done.stdout)
    rows = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == [row["run"] for row in printed] == list(WAYS)
    assert [row["phases"] for row in printed] == [
        "",
        "hop2 full",
        "hop2:auto full:auto",
        "hop4",
    ]
    for row, found in zip(rows, printed, strict=True):
        assert float(row["saved_gmacs"]) == found["saved_gmacs"]
        assert found["epochs"] == 5
        assert 0 <= found["test_accuracy"] <= 1
    assert printed[0]["saved_gmacs"] == printed[0]["saved_s"] == 0
    assert printed[3]["saved_gmacs"] > printed[1]["saved_gmacs"] > 0.1
    assert is_drawn(tmp_path / "compare.png")
    table = melastic("compare", *paths, "--out", tmp_path, check=0).stdout.splitlines()
    assert len(table) == 1 + len(WAYS)


def test_runs_without_held_out_clips_are_compared_on_test_clips(runs, tones, tmp_path):
    settings = ("--data.manifest", tones, "--optim.epochs", "1", *TINY, "--data.val", "None")
    melastic("train", "sounds", "--out", tmp_path / "run", *settings, check=0)
    paths = (tmp_path / "run", runs[0] / "single")
    done = melastic("compare", *paths, "--out", tmp_path, "--json", check=0)
    bare, other = json.loads(done.stdout)
    assert bare["held_out_accuracy"] is None
    assert 0 <= bare["test_accuracy"] <= 1
    assert other["held_out_accuracy"] is not None
    assert is_drawn(tmp_path / "compare.png")
    table = melastic("compare", *paths, "--out", tmp_path, check=0).stdout
    assert "None" not in table


def test_a_coarse_model_is_read_at_full_resolution_when_told_so(runs, tones):
    coarse = runs[0] / "coarse"
    own, full = (
        json.loads(melastic("evaluate", coarse, tones, *words, "--json", check=0).stdout)
        for words in ((), ("--hop-ms", "10"))
    )
    (test,) = (
        json.loads(line)["test"]
        for line in (coarse / "metrics.jsonl").read_text().splitlines()
        if '"test"' in line
    )
    assert own["accuracy"] == pytest.approx(test["accuracy"])
    assert full["tokens_per_clip"] > 3 * own["tokens_per_clip"]


def test_what_cannot_be_compared_is_one_line(runs, tones, tmp_path):
    folder, _ = runs
    settings = ("--data.manifest", tones, "--optim.epochs", "1", *TINY)
    bare = tmp_path / "bare"
    none = ("--data.val", "None", "--data.test", "None")
    melastic("train", "sounds", "--out", bare, *settings, *none, check=0)
    (tmp_path / "stopped").mkdir()
    config = (folder / "phased" / "config.json").read_text()
    (tmp_path / "stopped" / "config.json").write_text(config)
    wrong = {
        (): "name the folders",
        (tmp_path / "nowhere",): "holds no run",
        (
            folder / "single",
            tmp_path / "stopped",
        ): "3 epochs in phase-1 and has 0 behind it",
        (bare,): "it has neither",
    }
    for words, hint in wrong.items():
        done = melastic("compare", *words, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert hint in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_names_the_presets_and_the_automatic_choice():
    text = " ".join(melastic("train", "asc", "--help", check=0).stdout.split())
    assert "2-phase, 3-phase, gradual, 3-phase-mean" in text
    assert "3-phase:auto" in text


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The tool that makes docs/coarse, with a folder of its own."""
    return tool_of("coarse", "DOCS", tmp_path / "docs", monkeypatch)


def told(tool, monkeypatch, tmp_path, tones, *words):
    """Run the tool."""
    fixed = ("tiny", tones, "--recipe", "sounds", "--epochs", "2", "--runs", tmp_path / "runs")
    line = [*fixed, *words, "--settings", *TINY]
    monkeypatch.setattr(sys, "argv", ["coarse.py", *map(str, line)])
    tool.main()
    return (tmp_path / "docs" / "coarse" / "tiny.md").read_text()


def test_the_tables_of_phases_are_made_in_several_sittings(tool, monkeypatch, tmp_path, tones):
    run = partial(told, tool, monkeypatch, tmp_path, tones)
    page = run("--only", "single", "--seeds", "0", "1")
    assert "| single | 2 |" in page
    assert "(2)" in page
    page = run("--only", "2-phase-hop", "coarse-only", "--seeds", "0")
    assert "| 2-phase-hop | 1 + 1 |" in page
    assert "| coarse-only | 2 |" in page
    for name in ("tiny.png", "tiny-controls.png"):
        assert is_drawn(tmp_path / "docs" / "coarse" / name)
        assert f"({name})" in page
    for module in (tool, sys.modules["experiment"]):
        monkeypatch.setattr(module, "melastic", None)
    assert run("--only", "single", "2-phase-hop", "--seeds", "0") == page, "nothing is made again"
    (tmp_path / "docs" / "coarse" / "tiny" / "2-phase-hop-0.json").unlink()
    by_hand = str(tmp_path / "runs" / "tiny" / "2-phase-hop-0")
    assert run("--only", "--take", by_hand, "2-phase-hop", "0") == page
    for row, seed, hint in (
        ("2-phase-max", "0", "is"),
        ("2-phase-hop", "1", "run.seed is"),
        ("single", "0", "2 phases, not 0"),
        ("no-row", "0", "names a row"),
    ):
        with pytest.raises(SystemExit, match=hint):
            run("--only", "--take", by_hand, row, seed)
    with pytest.raises(SystemExit, match="give another name"):
        run("--select", "all")
