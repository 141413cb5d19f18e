"""What experiments share: commands on one core, runs that are resumed, settings that stay."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from melastic.checkpoints.store import write_json
from melastic.errors import InputError
from melastic.evaluation.sweep_rows import Row

DOCS = Path(__file__).parent.parent / "docs"


def melastic(*words: str) -> str:
    """Run one command on one core; what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "melastic", *words]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return done.stdout


def carried_out(run: Path, *words: str) -> Path:
    """A finished run: found, resumed or begun."""
    if (run / "curves.png").exists():
        return run
    if (run / "config.json").exists():
        melastic(words[0], "--resume", str(run))
    else:
        melastic(*words, "--out", str(run))
    return run


def splits(rule: str) -> list[str]:
    """Settings by which a rule such as ``asc10=1&`` chooses among the clips of each split."""
    return [
        word
        for split in ("train", "val", "test")
        for word in (f"--data.{split}", f"{rule}split={split}")
    ]


def begin(folder: Path, said: dict[str, Any]) -> None:
    """Note which settings an experiment has, or refuse others.

    Raises:
        InputError: if it has others.
    """
    path = folder / "settings.json"
    if path.exists() and json.loads(path.read_text()) != said:
        raise InputError(
            f"{path}: the experiment has {json.loads(path.read_text())}, now it is {said}; give "
            "another name, or the same settings"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, said)


def text(values: Sequence[float], places: int = 1) -> str:
    """Mean, with deviation and number of seeds where there are several; empty of none."""
    if not values:
        return ""
    spread = f" ± {stdev(values):.{places}f} ({len(values)})" if len(values) > 1 else ""
    return f"{mean(values):.{places}f}{spread}"


def averaged(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows whose accuracy and cost are means over seeds or folds."""
    return [
        replace(
            rows[0],
            accuracy=mean(row.accuracy for row in rows),
            tokens_per_clip=mean(row.tokens_per_clip for row in rows),
            gmacs_per_clip=mean(row.gmacs_per_clip for row in rows),
        )
        for rows in zip(*runs, strict=True)
    ]
