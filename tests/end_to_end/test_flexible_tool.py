"""The tool that makes docs/flexible."""

import csv
import sys

import pytest

from melastic.patches.view import View
from tests.end_to_end.shell import TINY, tool_of
from tests.evaluation.test_plots import is_drawn


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The tool, with a family of two small models, one of which starts from the other."""
    found = tool_of("flexible", "DOCS", tmp_path / "docs", monkeypatch)
    small = ("sounds", *TINY, "--optim.epochs", "1")
    family = found.Family(
        models={"fixed": small},
        started={"many": ("fixed", (*small, "--draws.patches", "16x4", "16x8"))},
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
    page = run("--models", "many", *own)
    assert "--family small --models fixed many --seeds 0 --settings --optim.lr 1e-3" in page
    assert page.count("| fixed |") == page.count("| many |") == 2
    assert is_drawn(tmp_path / "docs" / "flexible" / "small-patch.png")
    kept = tmp_path / "docs" / "flexible" / "small"
    clips = list(csv.DictReader(tones.read_text().splitlines()))
    tested = sum(clip["split"] == "test" for clip in clips)
    assert 0 < tested < len(clips)
    for name in ("fixed", "many"):
        rows = list(csv.DictReader((kept / f"{name}-patch-0.csv").read_text().splitlines()))
        assert [row["patch_freq"] + "x" + row["patch_time"] for row in rows] == ["16x4", "16x8"]
        assert {int(row["clips"]) for row in rows} == {tested}
    for module in (tool, sys.modules["experiment"]):
        monkeypatch.setattr(module, "melastic", None)
    assert run(*own) == page, "nothing is made again"
    with pytest.raises(SystemExit, match="another name"):
        run("--models", "many")
    with pytest.raises(SystemExit, match="no model 'none' among fixed, many"):
        run("--models", "none")
