import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from melastic.serialize import to_json
from melastic.training.coarse_to_fine import train
from melastic.training.config import Distillation
from melastic.training.phases import Passing, phase_of
from tests.training.test_curriculum import ALL
from tests.training.test_resume import settings


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(config, folder, *, processes, verb="train"):
    """``accelerate launch -m melastic train``, as a user types it."""
    recipe = folder.with_suffix(".json")
    recipe.write_text(json.dumps(to_json(config)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    command += ["--num_processes", str(processes), "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port()), "-m", "melastic", verb, str(recipe)]
    command += ["--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("parts", "changes"),
    [(1, {}), (2, {}), (1, {"draws": ALL, "distill": Distillation(weight=0.5)})],
)
def test_two_processes_train_as_one_does(tones, tmp_path, parts, changes):
    config = replace(settings(tones, accumulate=parts), **changes)
    train(config, tmp_path / "one")
    done = launch(config, tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/3") == 1, "only the main process speaks"
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for alone, shared in zip(one, two, strict=True):
        assert alone.keys() == shared.keys()
        if "loss" in alone:
            assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-4)
            assert shared["lr"] == alone["lr"]
        for split in alone.keys() & {"val", "test"}:
            assert shared[split]["clips"] == alone[split]["clips"]
            assert shared[split]["loss"] == pytest.approx(alone[split]["loss"], abs=1e-4)
            assert shared[split]["accuracy"] == alone[split]["accuracy"]
    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-3, rtol=1e-3)
    assert not list((tmp_path / "two").rglob("*.part"))


def test_two_processes_evaluate_fewer_clips_than_processes(tones, tmp_path):
    lines = tones.read_text().splitlines()
    held_out = [number for number, line in enumerate(lines) if line.endswith(",val")]
    spare = [line for number, line in enumerate(lines) if number not in held_out[1:]]
    manifest = tmp_path / "few.csv"
    folder = tones.parent
    manifest.write_text("\n".join([spare[0], *(f"{folder}/{line}" for line in spare[1:])]) + "\n")
    config = settings(manifest, epochs=1)
    train(config, tmp_path / "one")
    done = launch(config, tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    one, two = (rows(tmp_path / name)[0]["val"] for name in ("one", "two"))
    assert one["clips"] == two["clips"] == 1
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)


def test_two_processes_end_a_phase_together(tones, tmp_path):
    config = settings(tones, epochs=12, lr=1e-2, batch_tokens=30)
    phases = (phase_of("hop2:auto"), phase_of("full:auto"))
    config = replace(config, phases=phases, passing=Passing(batch="tokens"))
    done = launch(config, tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    lengths = [
        len([row for row in rows(tmp_path / "two" / name) if "loss" in row])
        for name in ("phase-1", ".")
    ]
    assert sum(lengths) == 12
    assert lengths[0] < 6, "the rule has ended the first phase, not the budget"
    assert done.stderr.count("the phase ends: ") == 1, "only the main process speaks"


def test_a_run_of_two_processes_continues_in_one(tones, tmp_path):
    config = settings(tones)
    train(config, tmp_path / "one")
    done = launch(config, tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    again = train(config, tmp_path / "two", resume=True)
    whole = load_file(tmp_path / "one" / "model" / "model.safetensors")
    for name, value in again.state_dict().items():
        torch.testing.assert_close(whole[name], value, atol=1e-3, rtol=1e-3)
