"""The tool that makes docs/lengths."""

import csv
import sys

import pytest

from tests.end_to_end.shell import TINY, tool_of
from tests.evaluation.test_plots import is_drawn


@pytest.fixture
def folds(tones):
    """The same clips in two folds."""
    rows = list(csv.DictReader(tones.read_text().splitlines()))
    lines = [f"{row['file']},{row['label']},{1 + number % 2}" for number, row in enumerate(rows)]
    path = tones.with_name("folds.csv")
    path.write_text("\n".join(["file,label,fold", *lines]) + "\n")
    return path


def test_each_fold_is_tested_once_at_each_length_and_kept(monkeypatch, tmp_path, folds):
    tool = tool_of("lengths", "FOLDER", tmp_path / "docs", monkeypatch)
    own = ("--optim.epochs", "1", *TINY)

    def run(*words):
        fixed = ("sounds", folds, "--runs", tmp_path / "runs", "--tested", "0.2", "all")
        monkeypatch.setattr(sys, "argv", list(map(str, ("lengths.py", *fixed, *words))))
        tool.main()
        return (tmp_path / "docs" / "sounds.md").read_text()

    page = run("--folds", "1", "2", "--trained", "0.2", "all", "--settings", *own)
    assert "--folds 1 2 --trained 0.2 all --tested 0.2 all" in page
    assert page.count("(2)") == 4
    assert is_drawn(tmp_path / "docs" / "sounds.png")
    for trained in ("0.2", "all"):
        for fold in (1, 2):
            kept = (tmp_path / "docs" / "sounds" / f"{trained}-{fold}.csv").read_text()
            assert [row["clips"] for row in csv.DictReader(kept.splitlines())] == ["15", "15"]
    for module in (tool, sys.modules["experiment"]):
        monkeypatch.setattr(module, "melastic", None)
    assert run("--folds", "1", "--settings", *own) == page, "nothing is made again"
    with pytest.raises(SystemExit, match="another name"):
        run("--folds", "1")
