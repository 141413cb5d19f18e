"""Publish and fetch models through the hub's own client, against a stand-in for its server."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.checkpoints.stand_in_hub import running_hub
from tests.models import MELS, small

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLOSED = "http://127.0.0.1:9"
"""An address at which nobody answers."""
TALK = """
import json, sys
import torch
import melastic

torch.set_num_threads(1)
answers = []
for action, name, folder in json.loads(sys.argv[1]):
    try:
        if action == "push":
            answers.append(melastic.load(folder).push_to_hub(name))
        else:
            torch.manual_seed(0)
            with torch.no_grad():
                answers.append(melastic.load(name)(torch.randn(2, 32, 60)).tolist())
    except melastic.InputError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""
"""The client reads its settings when it is imported, so each test has a process of its own."""


def talk(actions, home, address, **settings):
    """What each action gave, or the one line that it failed with."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_stand_in",
        "NO_PROXY": "127.0.0.1",
        **settings,
    }
    command = [sys.executable, "-c", TALK, json.dumps(actions)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model on disk, and its logits."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("saved")
    model = small()
    model.save(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        return folder, model(torch.randn(2, MELS, 60)).tolist()


def test_a_model_comes_back_from_the_hub_as_it_went(hub, saved, tmp_path):
    folder, logits = saved
    push, load = ("push", "owner/name", str(folder)), ("load", "owner/name", "")
    first, fetched, again, fetched_again = talk([push, load, push, load], tmp_path, hub.address)
    assert first.startswith(f"{hub.address}/owner/name/commit/")
    assert again == f"{hub.address}/owner/name/commit/{hub.commit_of('owner/name')}"
    assert set(hub.repositories["owner/name"]) == {"model.safetensors", "config.json", "README.md"}
    assert fetched == fetched_again == logits


def test_without_a_network_the_cache_serves_and_the_rest_is_one_line(saved, tmp_path):
    folder, logits = saved
    repository = tmp_path / "hub" / "models--owner--cached"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    names = ("load", "owner/cached", ""), ("load", "owner/elsewhere", "")
    cached, elsewhere, push = talk([*names, ("push", "owner/new", str(folder))], tmp_path, CLOSED)
    assert cached == logits
    assert_one_line(elsewhere, ["owner/elsewhere: neither a folder here nor within", "network"])
    assert_one_line(push, ["owner/new: the Hub did not take the model", "network"])


def test_what_the_hub_cannot_give_or_take_is_one_line(hub, saved, tmp_path):
    hub.repositories |= {
        "owner/empty": {},
        "owner/foreign": {
            "config.json": b'{"model_type": "vit"}',
            "model.safetensors": b"very large",
        },
        "owner/half": {"config.json": (saved[0] / "config.json").read_bytes()},
    }
    expected = {
        ("load", "owner/missing"): ["owner/missing: neither", "no such repository", "check"],
        ("load", "owner/bad name"): ["owner/bad name: neither", "Repo id must"],
        ("load", "owner/empty"): ["owner/empty: is not a melastic model", "no config.json"],
        ("load", "owner/half"): ["owner/half: is not a melastic model", "no model.safetensors"],
        ("load", "owner/foreign"): ["owner/foreign/config.json: not a melastic model"],
        ("push", "forbidden/name"): ["forbidden/name: the Hub did not take the model", "403"],
        ("push", "owner/bad name"): ["owner/bad name: the Hub did not take the model"],
    }
    actions = [(*action, str(saved[0])) for action in expected]
    for answer, words in zip(talk(actions, tmp_path, hub.address), expected.values(), strict=True):
        assert_one_line(answer, words)
    assert not any("foreign" in line and "safetensors" in line for line in hub.requests)


def test_a_machine_without_the_hub_package_names_the_extra(monkeypatch):
    import melastic

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(melastic.InputError, match=r"melastic\[hub\]"):
        melastic.load("owner/name")


def assert_one_line(answer, words):
    assert isinstance(answer, str)
    assert "\n" not in answer
    for word in words:
        assert word in answer
