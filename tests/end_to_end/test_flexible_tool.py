"""The tool that makes docs/flexible."""

import csv
import sys

import pytest

from melastic.patches.view import View
from melastic.training.run_folder import read_run_config
from tests.end_to_end.shell import TINY, tool_of
from tests.evaluation.test_plots import is_drawn

HALF = ("--distill.weight", "0.5")


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The tool, with a family of two small models, one of which starts from the other."""
    found = tool_of("flexible", "DOCS", tmp_path / "docs", monkeypatch)
    small = ("sounds", *TINY, "--optim.epochs", "1")
    family = found.Family(
        models={"fixed": small},
        started={"many": ("fixed", (*small, "--draws.patches", "16x4", "16x8"))},
        taught={"pupil": (small, ("sounds", *TINY, "--optim.epochs", "1", *HALF))},
        dials={"patch": ("16x4", "16x8"), "keep": ("0.5", "1")},
        own=View(patch=16, hop_ms=10.0),
        whole=("many",),
        dashed={"patch": ("fixed",)},
    )
    monkeypatch.setitem(found.FAMILIES, "small", family)
    return found


def test_a_started_model_brings_its_start_and_each_model_is_read_at_each_setting(
    monkeypatch, tmp_path, tool, tones
):
    def run(*words):
        fixed = ("small", tones, "--runs", tmp_path / "runs", "--family", "small")
        monkeypatch.setattr(sys, "argv", list(map(str, ("flexible.py", *fixed, *words))))
        tool.main()
        return (tmp_path / "docs" / "flexible" / "small.md").read_text()

    own = ("--settings", "--optim.lr", "1e-3")
    page = run("--models", "many", "pupil", *own)
    assert "--family small --models fixed many pupil --seeds 0 --settings --optim.lr 1e-3" in page
    assert [page.count(f"| {name} |") for name in ("fixed", "many", "pupil")] == [2, 2, 2]
    assert "pupil learns half from the scores of `melastic train sounds" in page
    assert is_drawn(tmp_path / "docs" / "flexible" / "small-patch.png")
    kept = tmp_path / "docs" / "flexible" / "small"
    clips = list(csv.DictReader(tones.read_text().splitlines()))
    tested = sum(clip["split"] == "test" for clip in clips)
    assert 0 < tested < len(clips)
    for name in ("fixed", "many", "pupil"):
        rows = list(csv.DictReader((kept / f"{name}-patch-0.csv").read_text().splitlines()))
        assert [row["patch_freq"] + "x" + row["patch_time"] for row in rows] == ["16x4", "16x8"]
        assert {int(row["clips"]) for row in rows} == {tested}
    for module in (tool, sys.modules["experiment"]):
        monkeypatch.setattr(module, "melastic", None)
    assert run(*own) == page, "nothing is made again"
    with pytest.raises(SystemExit, match="another name"):
        run("--models", "many")
    with pytest.raises(SystemExit, match="no model 'none' among fixed, many, pupil"):
        run("--models", "none")


def test_folds_stand_for_seeds_and_each_is_tested_by_models_that_did_not_hear_it(
    monkeypatch, tmp_path, tool, tones
):
    clips = list(csv.DictReader(tones.read_text().splitlines()))
    manifest = tones.with_name("folds.csv")
    with manifest.open("w", newline="") as file:
        table = csv.DictWriter(file, [*clips[0], "speaker"])
        table.writeheader()
        table.writerows(clip | {"speaker": str(i % 3)} for i, clip in enumerate(clips))
    runs = tmp_path / "runs"
    words = ("voices", manifest, "--runs", runs, "--family", "small", "--folds", "speaker")
    words += ("--seeds", "1", "2", "--models", "fixed")
    monkeypatch.setattr(sys, "argv", list(map(str, ("flexible.py", *words))))
    tool.main()
    page = (tmp_path / "docs" / "flexible" / "voices.md").read_text()
    assert "voices folds.csv --family small --folds speaker --models fixed --seeds 1 2" in page
    assert "Several folds" in page
    for fold in (1, 2):
        data = read_run_config(runs / "voices" / f"fixed-{fold}").data
        assert (data.train, data.test) == (f"speaker!={fold}", f"speaker={fold}")
        kept = tmp_path / "docs" / "flexible" / "voices" / f"fixed-patch-{fold}.csv"
        rows = list(csv.DictReader(kept.read_text().splitlines()))
        assert {int(row["clips"]) for row in rows} == {
            sum(i % 3 == fold for i in range(len(clips)))
        }
