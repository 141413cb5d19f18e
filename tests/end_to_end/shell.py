"""Run the command line as a user does, in this process."""

import contextlib
import importlib
import io
import os
from pathlib import Path
from types import SimpleNamespace

from melastic.cli import main
from tests.conftest import ROOT

TINY = [
    *("--model.preset", "ast-nano", "--model.depth", "1", "--model.dim", "32"),
    *("--model.num-heads", "2", "--model.patch", "128x4", "--model.input-size", "128x50"),
    *("--model.pooling", "mean", "--optim.lr", "3e-3", "--optim.warmup-steps", "5"),
    *("--optim.batch-tokens", "80", "--optim.ema-decay", "0.8", "--run.cpu"),
]
"""Settings of a model that learns three tones in a few seconds."""


def melastic(*words, cwd=None, check=None):
    """Call ``melastic``; with ``check`` the exit code must be that one."""
    out, err, code = io.StringIO(), io.StringIO(), 1
    before = Path.cwd()
    try:
        os.chdir(cwd or before)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        os.chdir(before)
    done = SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
    if check is not None:
        assert code == check, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def tool_of(name, folder, path, monkeypatch):
    """One of ``tools/``, whose commands run in this process and whose ``folder`` is another."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool, experiment = (importlib.import_module(module) for module in (name, "experiment"))
    monkeypatch.setattr(tool, folder, path)
    for module in (tool, experiment):
        monkeypatch.setattr(module, "melastic", lambda *words: melastic(*words, check=0).stdout)
    return tool
