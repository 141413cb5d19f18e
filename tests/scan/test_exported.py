"""The scan that leaves torch."""

import importlib.util
import subprocess
import sys

import pytest

from melastic.errors import InputError
from melastic.scan import exported
from tests.scan.operands import draw

EVERYTHING = {"skip": True, "gate": True, "bias": True, "softplus": True, "both": True}
PROGRAM = """
import torch
from melastic.scan import exported, loop
from melastic.scan.operands import Operands
from tests.scan.operands import draw, relative

class Scan(torch.nn.Module):
    def __init__(self, reverse):
        super().__init__()
        self.reverse = reverse
    def forward(self, u, delta, rates, entry, reading, skip, gate, bias, back):
        tensors = u, delta, rates, entry, reading, skip, gate, bias, back
        return exported.scan(Operands(*tensors, None, True, self.reverse))

def operands_of(length, reverse):
    options = dict(skip=True, gate=True, bias=True, softplus=True, both=True, reverse=reverse)
    return draw([length], batch=2, dim=6, state=5, **options)

length = torch.export.Dim("length", min=2)
shapes = tuple({1: length} if x.ndim == 3 else None for x in operands_of(7, False)[:9])
"""
EXPORT = """
operands = operands_of(7, False)
assert relative(exported.scan(operands), loop.scan(operands).double()) < 2e-6
for reverse in (False, True):
    inputs = tuple(operands_of(7, reverse)[:9])
    program = torch.export.export(Scan(reverse), inputs, dynamic_shapes=shapes).module()
    for steps in (2, 7, 40):
        operands = operands_of(steps, reverse)
        y = program(*operands[:9])
        assert relative(y, loop.scan(operands).double()) < 2e-6
"""
CHUNKED = """
import melastic

class Called(torch.nn.Module):
    def forward(self, u, delta, rates, entry, reading, skip, gate, bias, ends=None):
        u, delta, entry, reading, gate = (x.mT for x in (u, delta, entry, reading, gate))
        return melastic.selective_scan(
            u, delta, rates, entry, reading, skip, gate, bias, True, cu_seqlens=ends
        ).mT

def drawn(lengths, **more):
    options = dict(skip=True, gate=True, bias=True, softplus=True)
    return draw(lengths, dim=6, state=5, **options, **more)

with melastic.scan_kernel("chunked"):
    inputs = tuple(drawn([7], batch=2)[:8])
    program = torch.export.export(Called(), inputs, dynamic_shapes=shapes[:8]).module()
    for steps in (2, 7, 40):
        operands = drawn([steps], batch=2)
        assert relative(program(*operands[:8]), loop.scan(operands).double()) < 2e-6
    compiled = torch.compile(Called(), backend="aot_eager", fullgraph=True)
    operands = drawn([3, 30, 1, 5], ragged=True)
    y = compiled(*operands[:8], operands.cu_seqlens)
    assert relative(y, loop.scan(operands).double()) < 2e-6
"""
ONNX = """
import onnxruntime, sys
for reverse in (False, True):
    program = torch.onnx.export(Scan(reverse).eval(), tuple(operands_of(7, reverse)[:9]),
                                dynamic_shapes=shapes, dynamo=True, verbose=False)
    path = f"{sys.argv[1]}/{reverse}.onnx"
    program.save(path)
    assert [node.op_type for node in program.model.graph].count("Scan") == 2
    session = onnxruntime.InferenceSession(path)
    names = [x.name for x in session.get_inputs()]
    for steps in (1, 2, 7, 100):
        operands = operands_of(steps, reverse)
        values = {name: x.numpy() for name, x in zip(names, operands[:9], strict=True)}
        y = torch.from_numpy(session.run(None, values)[0])
        assert relative(y, loop.scan(operands).double()) < 5e-6
"""


def run(code, *arguments):
    """In a process of its own: the type checker of the tests cannot be traced."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM + code, *arguments]
    subprocess.run(command, check=True)


def test_an_exported_scan_takes_any_length():
    run(EXPORT)


def test_the_version_without_compiled_kernels_can_be_exported_and_compiled_by_its_public_name():
    run(CHUNKED)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript and onnxruntime are not installed",
)
def test_an_onnx_scan_takes_any_length(tmp_path):
    run(ONNX, str(tmp_path))


def test_clips_one_behind_the_other_are_refused():
    operands = draw([2, 3], ragged=True, **EVERYTHING)
    with pytest.raises(InputError, match="takes clips of one length, got cu_seqlens; use a batch"):
        exported.scan(operands)
