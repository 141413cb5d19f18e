"""Numbers of the official implementations, made once with their own code (float32, CPU)."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


def cases(name):
    """The cases of one file, named for pytest."""
    found = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["name"]) for case in found]
