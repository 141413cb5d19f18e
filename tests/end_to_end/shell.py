"""Run the command line as a user does, in this process."""

import contextlib
import io
import os
from pathlib import Path
from types import SimpleNamespace

from melastic.cli import main

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
