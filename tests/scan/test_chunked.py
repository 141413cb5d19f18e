"""The scans in plain torch against the definition."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from melastic.scan import chunk, chunked, loop, plain
from melastic.scan.operands import Gradients
from tests.scan.operands import by_autograd, cases, cast, draw, oracle, relative

EVERYTHING = {"skip": True, "gate": True, "bias": True, "softplus": True, "both": True}
MIXED = [1, 2, 40, 3, 3, 70, 1]
COMPILED = """
import torch
from melastic.scan import plain
from tests.scan.operands import by_autograd, draw
plain.STEPS = 3
run = torch.compile(plain.scan, fullgraph=True, backend="aot_eager", dynamic=False)
everything = dict(skip=True, gate=True, bias=True, softplus=True, both=True, strided=True)
for operands in (draw([5]), draw([3, 1, 3], ragged=True, **everything)):
    dy = torch.randn_like(operands.u)
    torch.testing.assert_close(
        by_autograd(run, operands, dy), by_autograd(plain.scan, operands, dy)
    )
"""


@contextmanager
def cut(block, numbers):
    """Blocks and chunks so small that a small scan has many of them."""
    before = chunk.BLOCK, chunk.CHUNK
    chunk.BLOCK, chunk.CHUNK = block, numbers
    try:
        yield
    finally:
        chunk.BLOCK, chunk.CHUNK = before


def agree(found, expected, limit, gradient_limit):
    """Output and gradients alike, relatively."""
    assert relative(found[0], expected[0]) < limit
    for name, a, b in zip(Gradients._fields, found[1], expected[1], strict=True):
        assert (a is None) == (b is None), name
        assert b is None or relative(a, b) < gradient_limit, name


@given(cases(), st.sampled_from([20, 100, 1000]), st.integers(1, 9))
@settings(max_examples=40)
def test_every_scan_is_what_its_definition_says(operands, block, steps):
    single = cast(operands, torch.float32)
    dy = torch.randn_like(single.u)
    expected = oracle(single, dy)
    with cut(block, block * steps):
        found = chunked.forward(single), chunked.backward(dy, single)
        agree(found, expected, 2e-6, 2e-5)
        double = cast(single, torch.float64)
        agree(by_autograd(chunked.scan, double, dy.double()), expected, 1e-12, 1e-10)


@given(cases(), st.integers(2, 16))
@settings(max_examples=25)
def test_so_is_the_one_for_compilers(operands, steps):
    dy = torch.randn_like(operands.u)
    before, plain.STEPS = plain.STEPS, steps
    try:
        agree(by_autograd(plain.scan, operands, dy), oracle(operands, dy), 1e-12, 1e-10)
    finally:
        plain.STEPS = before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parameters", [torch.float32, None])
def test_numbers_of_16_bits_are_rounded_once(dtype, parameters):
    operands = draw(MIXED, ragged=True, dtype=dtype, parameters=parameters, **EVERYTHING)
    dy = torch.randn_like(operands.u)
    y, gradients = found = by_autograd(chunked.scan, operands, dy)
    agree(found, oracle(operands, dy), torch.finfo(dtype).eps, torch.finfo(dtype).eps)
    assert y.dtype == gradients.B.dtype == dtype
    assert gradients.A.dtype == gradients.D.dtype == parameters or dtype


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("alike", [False, True])
def test_slow_decays_do_not_add_up_errors(reverse, alike):
    """Nor does their rounding where it is the same at every step."""
    operands = draw([4097], dim=2, state=16, step=1e-4, one_signed=True, reverse=reverse)
    if alike:
        operands = operands._replace(delta=torch.full_like(operands.delta, 1e-4))
    dy = torch.rand_like(operands.u)
    expected = oracle(operands, dy)
    for scan in (chunked.scan, plain.scan):
        agree(by_autograd(scan, operands, dy), expected, 7e-7, 5e-6)


@pytest.mark.parametrize("seed", range(1, 4))
def test_decays_over_a_chunk_are_not_products_of_rounded_ones(seed):
    operands = draw([4097], dim=2, state=16, step=1e-4, one_signed=True, seed=seed)
    y = loop.scan(cast(operands, torch.float64))
    for scan in (chunked.scan, plain.scan):
        assert relative(scan(operands), y) < 5e-7


@pytest.mark.parametrize("scan", [chunked.scan, plain.scan])
def test_slow_and_fast_chunks_follow_each_other(scan):
    """What is computed in one way in a chunk is taken up in the other in the next."""
    operands = draw([700], dim=3, state=4, one_signed=True)
    pace = 10.0 ** -(torch.arange(700) // 70 % 2 * 5)[None, :, None]
    operands = operands._replace(delta=operands.delta * pace)
    dy = torch.rand_like(operands.u)
    for reverse in (False, True):
        turned = operands._replace(reverse=reverse)
        agree(by_autograd(scan, turned, dy), oracle(turned, dy), 1e-6, 5e-6)


@pytest.mark.parametrize("lengths", [[300], [1], [1] * 150, MIXED, [2, 1] * 60])
@pytest.mark.parametrize("reverse", [False, True])
def test_clips_of_any_length_are_scanned_in_blocks_as_large_as_they_come(lengths, reverse):
    operands = draw(lengths, ragged=True, dim=67, state=16, reverse=reverse, **EVERYTHING)
    dy = torch.randn_like(operands.u)
    agree(by_autograd(chunked.scan, operands, dy), oracle(operands, dy), 2e-6, 2e-5)


@pytest.mark.parametrize("step", [1e-4, 1e4])
def test_extreme_steps_overflow_nothing(step):
    operands = draw([90], batch=2, step=step, **EVERYTHING)
    dy = torch.randn_like(operands.u)
    agree(by_autograd(chunked.scan, operands, dy), oracle(operands, dy), 2e-6, 2e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_clip_never_sees_another(reverse):
    operands = draw([9, 30, 5], ragged=True, reverse=reverse, **EVERYTHING)
    dy = torch.randn_like(operands.u)
    y, gradients = by_autograd(chunked.scan, operands, dy)
    spoilt = operands._replace(u=operands.u.clone(), B=operands.B.clone())
    spoilt.u[:, 9:39] = torch.nan
    spoilt.B[:, 9:39] = torch.inf
    y_spoilt, gradients_spoilt = by_autograd(chunked.scan, spoilt, dy)
    others = torch.tensor([*range(9), *range(39, 44)])
    assert torch.equal(y_spoilt[:, others], y[:, others])
    for name in ("u", "delta", "B", "C", "z"):
        a, b = getattr(gradients_spoilt, name), getattr(gradients, name)
        assert torch.equal(a[:, others], b[:, others]), name


def test_gradients_are_those_asked_for():
    operands = draw([20], batch=2, **EVERYTHING)
    rates = operands.A.requires_grad_()
    y = chunked.scan(operands)
    (found,) = torch.autograd.grad(y.sum(), rates)
    expected = oracle(operands, torch.ones_like(y))[1].A
    assert relative(found, expected) < 2e-5
    assert not chunked.scan(operands._replace(A=rates.detach())).requires_grad


@pytest.mark.parametrize("batch", [1, 2])
def test_autocast_changes_nothing(batch):
    operands = draw([20], batch=batch, **EVERYTHING)
    dy = torch.randn_like(operands.u)
    y, gradients = chunked.forward(operands), chunked.backward(dy, operands)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(chunked.forward(operands), y)
        found = chunked.backward(dy, operands)
    assert all(torch.equal(a, b) for a, b in zip(found, gradients, strict=True))


class Held(TorchDispatchMode):
    """Keeps how many numbers all results that live at a time have, at most."""

    most = 0

    def __init__(self):
        super().__init__()
        self.alive = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            memory = result.untyped_storage()
            self.alive[memory.data_ptr()] = StorageWeakRef(memory), memory.nbytes() // 4
            self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
            self.most = max(self.most, sum(numbers for _, numbers in self.alive.values()))
        return result


@pytest.mark.parametrize("step", [0.1, 1e-4])
def test_the_states_of_all_steps_are_never_held(step):
    operands = draw([640], dim=48, state=64, step=step, **EVERYTHING)
    with cut(48 * 64, 16 * 48 * 64), Held() as held:
        by_autograd(chunked.scan, operands, torch.ones_like(operands.u))
    assert held.most < 640 * 48 * 64 * 2 / 3


@pytest.mark.parametrize("length", [1, 7, 8, 9, 12, 13, 63, 64])
def test_chunks_cover_all_steps_and_only_the_last_lacks_some(length):
    operands = draw([length], batch=1, dim=2, state=4)
    with cut(8, 8 * 8):
        inputs = chunk.inputs_of(operands)
        (block,) = inputs.blocks()
        strip = chunk.Strip(inputs, inputs.ways[0], block)
    counts = [len(part) for part in strip.delta]
    assert sum(counts) == length
    assert set(counts[:-1]) <= {counts[0]}
    assert counts[0] - counts[-1] < len(counts)
    assert max(counts) <= 12


def test_the_one_for_compilers_compiles_whole_with_the_same_result():
    subprocess.run([sys.executable, "-c", COMPILED], check=True)
