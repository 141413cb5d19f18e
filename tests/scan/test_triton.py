"""The Triton kernels against the definition: on CUDA, or without it in Triton's interpreter.

Whether Triton interprets is settled when it is imported, so that the interpreter has a process of
its own, which runs this file once more.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from melastic.errors import InputError
from melastic.scan.operands import Gradients
from tests.conftest import ROOT
from tests.scan.operands import by_autograd, draw, oracle, relative

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
EVERYTHING = {"skip": True, "gate": True, "bias": True, "softplus": True, "both": True}
EXAMPLES = 3 if INTERPRETED else 60
INSTALLED = importlib.util.find_spec("triton") is not None

pytestmark = pytest.mark.skipif(not INSTALLED, reason="Triton is not installed")
needs_triton_of_numpy = pytest.mark.skipif(
    INSTALLED and np.lib.NumpyVersion(np.__version__) >= "2.4.0"
    and importlib.metadata.version("triton") < "3.7",
    reason="the interpreter of Triton 3.6 needs numpy below 2.4",
)  # fmt: skip


def law(test):
    """Holds on a GPU, and in the interpreter's process."""
    if INTERPRETED:
        return test
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return pytest.mark.gpu(missing(test))


def own_process(*arguments, **variables):
    """Run Python in a process of its own, with one thread; its output where it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
@needs_triton_of_numpy
def test_the_laws_hold_in_the_interpreter():
    options = ("-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu")
    own_process("-m", "pytest", *options, __file__, TRITON_INTERPRET="1")


@pytest.mark.skipif(INTERPRETED, reason="compiling needs the other process")
def test_every_kernel_compiles_for_an_h100():
    own_process("-m", "tests.scan.compile_triton")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Few steps a tile, so that short clips have many."""
    if INTERPRETED:
        from melastic.scan import triton_adjoint, triton_conv, triton_scan

        monkeypatch.setattr(triton_scan, "ELEMENTS", 2)
        monkeypatch.setattr(triton_adjoint, "ELEMENTS", 2)
        monkeypatch.setattr(triton_adjoint, "SPAN", 2)
        monkeypatch.setattr(triton_conv, "STEPS", 8)
        monkeypatch.setattr(triton_conv, "SPAN", 2)


def kernels():
    from melastic.scan import triton_scan

    return triton_scan


def check(operands, limit=2e-6, gradient_limit=2e-5, dy=None):
    dy = torch.randn_like(operands.u) if dy is None else dy
    y, wanted = oracle(operands, dy)
    output, found = kernels().forward(operands), kernels().backward(dy, operands)
    assert output.dtype == operands.u.dtype
    assert output.shape == operands.u.shape
    assert relative(output, y) < limit
    for name, a, b in zip(Gradients._fields, found, wanted, strict=True):
        assert (a is None) == (b is None)
        if b is None:
            continue
        assert a.dtype == getattr(operands, name).dtype
        assert relative(a, b) < gradient_limit, name


@law
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
def test_rows_are_scanned_as_the_definition_says(options, reverse):
    check(draw([5], batch=2, dim=3, state=3, reverse=reverse, device=DEVICE, **options))


@law
@pytest.mark.parametrize("option", [*EVERYTHING, "strided"])
def test_each_option_stands_alone(option):
    check(draw([3], dim=2, state=3, device=DEVICE, **{option: True}))


@law
@pytest.mark.parametrize("reverse", [False, True])
def test_the_state_starts_anew_in_each_clip(reverse):
    lengths = [1, 6, 3, 1]
    options = {"reverse": reverse, "strided": True, **EVERYTHING}
    check(draw(lengths, ragged=True, dim=3, state=2, device=DEVICE, **options))


@law
def test_a_clip_without_steps_changes_nothing():
    operands = draw([2, 3], ragged=True, dim=2, state=2, device=DEVICE, **EVERYTHING)
    ends = torch.tensor([0, 2, 2, 5, 5], device=DEVICE)
    dy, other = torch.randn_like(operands.u), operands._replace(cu_seqlens=ends)
    assert torch.equal(kernels().forward(operands), kernels().forward(other))
    pairs = zip(kernels().backward(dy, operands), kernels().backward(dy, other), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


@law
def test_borders_are_read_whatever_their_strides():
    operands = draw([2, 3], ragged=True, dim=2, state=2, device=DEVICE, **EVERYTHING)
    ends = torch.tensor([0, 7, 2, 7, 5, 7], device=DEVICE)[::2]
    dy, other = torch.randn_like(operands.u), operands._replace(cu_seqlens=ends)
    assert torch.equal(kernels().forward(operands), kernels().forward(other))
    pairs = zip(kernels().backward(dy, operands), kernels().backward(dy, other), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


@law
@pytest.mark.parametrize(("dim", "state"), [(1, 1), (9, 16), (2, 64)])
def test_any_number_of_channels_and_states(dim, state, monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(kernels(), "ELEMENTS", 2 * state)
    check(draw([3], dim=dim, state=state, device=DEVICE, **EVERYTHING))


@law
def test_wide_tiles_are_no_different(monkeypatch):
    from melastic.scan import triton_adjoint, triton_tiles

    monkeypatch.setattr(triton_tiles, "PROGRAMS", 1)
    monkeypatch.setattr(kernels(), "ELEMENTS", 32)
    monkeypatch.setattr(triton_adjoint, "ELEMENTS", 16)
    operands = draw([6], dim=37, state=6, device=DEVICE, **EVERYTHING)
    assert kernels().tile_of(operands, 32).K == 4
    assert kernels().tile_of(operands, 16).K == 2
    check(operands)


@law
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)], ids=["bf16", "fp16"]
)
def test_16_bits_are_read_and_written_and_the_state_is_in_float32(dtype, limit):
    formats = {"dtype": dtype, "parameters": torch.float32}
    operands = draw([5], dim=3, state=4, device=DEVICE, **formats, **EVERYTHING)
    check(operands._replace(delta=operands.delta.float()), limit, limit)


@law
def test_the_state_keeps_what_16_bits_would_lose():
    length = 20 if INTERPRETED else 300
    ones = torch.ones(1, length, 1, dtype=torch.float16, device=DEVICE)
    u = torch.full_like(ones, 2.0**-13)
    u[:, 0] = 1
    operands = draw([length], dim=1, state=1, dtype=torch.float16, device=DEVICE)
    operands = operands._replace(u=u, delta=ones, B=ones, C=ones, A=torch.zeros_like(operands.A))
    wanted = (1 + 2.0**-13 * torch.arange(length, device=DEVICE)).half()
    assert torch.equal(kernels().forward(operands)[0, :, 0], wanted)


@law
def test_steps_and_decays_are_exact_from_the_smallest_to_the_largest():
    raw = torch.linspace(-40, 40, 41, device=DEVICE)[None, None]
    one = torch.ones_like(raw)[..., :1]
    operands = draw([1], dim=41, state=1, softplus=True, device=DEVICE)
    operands = operands._replace(u=torch.ones_like(raw), delta=raw, B=one, C=one)
    step = functional.softplus(raw.double())
    assert torch.allclose(kernels().forward(operands).double(), step, rtol=5e-6, atol=0)
    twice = torch.cat([one.expand_as(raw), raw.exp().clamp_max(60)], 1)
    pulse = torch.cat([torch.ones_like(raw), torch.zeros_like(raw)], 1)
    operands = operands._replace(u=pulse, delta=twice, B=one.expand(1, 2, 1), C=one.expand(1, 2, 1))
    operands = operands._replace(A=-torch.ones(41, 1, device=DEVICE), delta_softplus=False)
    found, wanted = kernels().forward(operands)[0, 1], (-twice[0, 1].double()).exp()
    assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=0)
    assert (found[wanted > 1 - 2e-8] == 1).all()


@law
@given(
    lengths=st.lists(st.integers(1, 5 if INTERPRETED else 200), min_size=1, max_size=2),
    dim=st.integers(1, 9),
    state=st.integers(1, 6 if INTERPRETED else 32),
    flags=st.fixed_dictionaries(
        {name: st.booleans() for name in (*EVERYTHING, "strided", "reverse", "ragged")}
    ),
    step=st.sampled_from([1e-4, 0.1, 3.0, 50.0]),
)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_every_scan_is_what_its_definition_says(lengths, dim, state, flags, step):
    batch = {} if flags["ragged"] else {"batch": len(lengths)}
    check(draw(lengths, dim=dim, state=state, step=step, device=DEVICE, **batch, **flags))


@law
def test_float64_is_refused():
    operands = draw([3], dtype=torch.float64, device=DEVICE)
    with pytest.raises(InputError, match="float64"):
        kernels().forward(operands)
    with pytest.raises(InputError, match="float64"):
        kernels().backward(operands.u, operands)


def convolved(x, weight, bias, ends, reverse):
    """The definition, clip by clip."""
    width, rows = weight.shape[1], []
    for row in x:
        clips = row.tensor_split(ends)
        for clip in clips:
            clip = clip.flip(0) if reverse else clip
            padded = functional.pad(clip, (0, 0, width - 1, 0))
            y = sum(weight[:, k] * padded[k : k + len(clip)] for k in range(width)) + bias
            rows.append(functional.silu(y.flip(0) if reverse else y))
    return torch.cat(rows).view(x.shape)


@law
@pytest.mark.parametrize(
    ("width", "ragged", "reverse", "dtype", "limit"),
    [(4, False, False, torch.float32, 2e-6), (4, True, False, torch.float32, 2e-6),
     (4, True, True, torch.float32, 2e-6), (1, False, True, torch.float32, 2e-6),
     (3, True, True, torch.bfloat16, 1e-2), (4, False, True, torch.float16, 2e-3)],
)  # fmt: skip
def test_the_convolution_is_its_definition_and_stops_at_borders(
    width, ragged, reverse, dtype, limit
):
    from melastic.scan import triton_conv

    lengths = [1, 9, 0, 2, 13] if ragged else [11]
    ends = torch.tensor(lengths).cumsum(0)
    wide = torch.randn(1 if ragged else 2, int(ends[-1]), 140, device=DEVICE).to(dtype)
    x, dy = wide[..., 1:132:2], torch.randn(wide.shape, device=DEVICE).to(dtype)[..., :66]
    weight, bias = torch.randn(66, width, device=DEVICE), torch.randn(66, device=DEVICE)
    leaves = [t.double().detach().requires_grad_() for t in (x, weight, bias)]
    y = convolved(*leaves, ends[:-1] if ragged else [], reverse)
    wanted = torch.autograd.grad(y, leaves, dy.double())
    clips = functional.pad(ends, (1, 0)).to(DEVICE) if ragged else None
    output = triton_conv.forward(x, weight, bias, clips, reverse)
    found = triton_conv.backward(dy, x, weight, bias, clips, reverse)
    assert relative(output, y.detach()) < limit
    for given_, a, b in zip((x, weight, bias), found, wanted, strict=True):
        assert a.dtype == given_.dtype
        assert relative(a, b) < 5 * limit


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    @pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
    @pytest.mark.parametrize("shape", [(384, 16), (200, 16), (65, 64), (1536, 16)])
    def test_shapes_of_models_are_exact(self, shape, options):
        dim, state = shape
        lengths = [513, 1, 130, 64]
        check(draw(lengths, ragged=True, dim=dim, state=state, device="cuda", **options))

    @pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
    @pytest.mark.parametrize("alike", [False, True])
    def test_slow_decays_stay_exact_over_thousands_of_steps(self, options, alike):
        shape = {"dim": 3, "state": 8, "device": "cuda"}
        operands = draw([4097], step=1e-4, one_signed=True, **shape, **options)
        if alike:
            first = operands.delta[:, :1].expand_as(operands.delta)
            operands = operands._replace(delta=first.contiguous())
        check(operands, 1e-6, 1e-5, dy=torch.rand_like(operands.u))

    def test_the_same_numbers_come_out_on_every_run(self):
        operands = draw([513], batch=4, dim=384, state=16, device="cuda", **EVERYTHING)
        dy = torch.randn_like(operands.u)
        runs = [kernels().backward(dy, operands) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))

    def test_the_operator_of_torch_runs_these_kernels(self):
        from melastic.scan.selective import scan

        operands = draw([33], dim=8, state=4, device="cuda", **EVERYTHING)
        dy = torch.randn_like(operands.u)
        y, wanted = oracle(operands, dy)
        output, found = by_autograd(scan, operands, dy)
        assert relative(output, y) < 1e-5
        assert all(relative(a, b) < 1e-4 for a, b in zip(found, wanted, strict=True))
