"""Whole models through ``torch.compile`` and ONNX: one graph, the same numbers."""

import importlib.util
import subprocess
import sys

import pytest

COMPILE = """
import sys, torch
from tests.models import MELS, mamba, small, windows

models = {
    "class token": lambda: small("class"),
    "any length": lambda: small("attention", positions="factorised"),
    "state space": mamba,
    "state space, both ways": lambda: mamba("bi-bi"),
    "windows": windows,
}
torch.manual_seed(0)
model = models[sys.argv[1]]()
compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
for lengths in ((70, 41, 70, 64), (70, 50)):
    clips, found = [torch.randn(MELS, frames) for frames in lengths], []
    for called in (model, compiled):
        model.zero_grad()
        logits = called(clips)
        logits.square().sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append({"logits": logits.detach(), **grads})
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain, rtol=1e-4, atol=1e-5, msg=name)
"""
LEAVE = """
import sys, onnxruntime, torch, melastic
from tests.models import MELS, mamba

class Clips(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, clips):
        return self.model(list(clips))

torch.manual_seed(0)
model = Clips(mamba()).eval()
clips = torch.randn(3, MELS, 60)
with torch.no_grad():
    expected = model(clips)
    with melastic.scan_kernel("chunked"):
        program = torch.onnx.export(model, (clips,), dynamo=True, verbose=False)
path = f"{sys.argv[1]}/model.onnx"
program.save(path)
session = onnxruntime.InferenceSession(path)
found = session.run(None, {session.get_inputs()[0].name: clips.numpy()})[0]
torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
"""


def carried_out(program, argument):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, argument], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr[-2000:]


@pytest.mark.parametrize(
    "name", ["class token", "any length", "state space", "state space, both ways", "windows"]
)
def test_a_whole_model_is_one_graph_and_gives_the_same_logits_and_gradients(name):
    carried_out(COMPILE, name)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript and onnxruntime are not installed",
)
def test_a_whole_audio_mamba_leaves_torch(tmp_path):
    carried_out(LEAVE, str(tmp_path))
