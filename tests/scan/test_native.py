"""The compiled kernels against the definition, on every instruction set of this machine."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melastic.native import norm, scan
from melastic.native.calls import serves
from melastic.native.library import kernels
from melastic.scan import convolution
from melastic.scan.operands import Gradients
from tests.scan.operands import STEP, by_autograd, cases, cast, draw, oracle, relative

FOUND = kernels()
SETS = FOUND.supported()
EVERYTHING = {"skip": True, "gate": True, "bias": True, "softplus": True, "both": True}

pytestmark = pytest.mark.skipif(not SETS, reason=FOUND.reason)


@contextmanager
def using(name):
    best = kernels().instructions
    kernels().use(name)
    yield
    kernels().use(best)


@pytest.fixture(params=SETS)
def instructions(request):
    with using(request.param):
        yield request.param


def check(operands, limit, gradient_limit, dy=None):
    """Output and gradients of every instruction set against the definition, relatively."""
    dy = torch.randn_like(operands.u) if dy is None else dy
    y, wanted = oracle(operands, dy)
    for name in SETS:
        with using(name):
            output, found = scan.forward(operands), scan.backward(dy, operands)
        assert output.dtype == operands.u.dtype
        assert relative(output, y) < limit, name
        for field, a, b in zip(Gradients._fields, found, wanted, strict=True):
            assert (a is None) == (b is None)
            assert b is None or relative(a, b) < gradient_limit, (name, field)


def test_a_machine_with_a_compiler_has_kernels():
    assert FOUND.instructions in FOUND.supported(), FOUND.reason


@given(cases())
@settings(max_examples=60)
def test_every_scan_is_what_its_definition_says(operands):
    check(cast(operands, torch.float32), 2e-6, 2e-5)


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (65, 16), (3, 20), (1, 1), (40, 33)])
@pytest.mark.parametrize("reverse", [False, True])
def test_wide_and_odd_shapes_are_exact(options, shape, reverse):
    dim, state = shape
    lengths = [1, 130, 2, 64, 65, 1, 16, 17]
    operands = draw(lengths, dim=dim, state=state, ragged=True, reverse=reverse, **options)
    check(operands, 1e-6, 1e-5)


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
@pytest.mark.parametrize("seed", range(2))
def test_slow_decays_stay_exact_over_thousands_of_steps(options, seed):
    """An exponential that is not exactly 1 at 0 drifts here, and passes where steps are large."""
    operands = draw([4097], dim=3, state=8, step=1e-4, one_signed=True, seed=seed, **options)
    check(operands, 6e-7, 1e-5, dy=torch.rand_like(operands.u))


@pytest.mark.parametrize("step", [1e-4, 1e-3, 3e-3])
def test_steps_of_one_size_do_not_round_all_alike(step):
    """The error of a decay near 1, of the same sign at every step, would add up."""
    operands = draw([4097], dim=3, state=16, step=step, one_signed=True)
    operands = operands._replace(delta=torch.full_like(operands.delta, step))
    check(operands, 1e-6, 1e-5, dy=torch.rand_like(operands.u))


def test_slow_and_fast_chunks_follow_each_other():
    operands = draw([700], dim=33, state=20, one_signed=True, both=True)
    pace = 10.0 ** -(torch.arange(700) // 70 % 2 * 5)[None, :, None]
    check(operands._replace(delta=operands.delta * pace), 1e-6, 5e-6)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_what_is_not_a_number_stays_so(instructions, name, softplus):
    options = EVERYTHING | {"softplus": softplus, "both": False}
    operands = draw([20], dim=17, state=5, **options)
    given = getattr(operands, name)
    y = scan.forward(operands._replace(**{name: torch.full_like(given, float("nan"))}))
    assert y.isnan().all()


def test_a_state_that_is_wiped_out_leaves_nothing(instructions):
    operands = draw([50], dim=5, state=4, step=200.0, decay=50.0)
    y = operands.delta * operands.u * (operands.B * operands.C).sum(-1, keepdim=True)
    assert relative(scan.forward(operands), y.double()) < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strided", [False, True])
def test_half_formats_are_rounded_once(dtype, strided):
    operands = draw([100, 37], dim=33, state=16, ragged=True, strided=strided, **EVERYTHING)
    operands = cast(operands, dtype, torch.float32)
    check(operands, torch.finfo(dtype).eps, 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("turn", ["channels first", "slices"])
def test_strides_make_no_difference(instructions, turn):
    plain = draw([200], batch=3, dim=48, state=16, **EVERYTHING)
    if turn == "slices":
        turned = draw([200], batch=3, dim=48, state=16, strided=True, **EVERYTHING)
    else:
        sequences = ("u", "delta", "B", "C", "z")
        swapped = {name: getattr(plain, name).mT.contiguous().mT for name in sequences}
        turned = plain._replace(**swapped)
    assert torch.equal(scan.forward(turned), scan.forward(plain))
    dy = torch.randn(plain.u.shape)
    for a, b in zip(scan.backward(dy, turned), scan.backward(dy, plain), strict=True):
        assert torch.equal(a, b)


def test_the_number_of_threads_changes_no_output_and_hardly_a_sum():
    operands, before = draw([70] * 9, dim=130, state=16, ragged=True, **EVERYTHING), []
    dy, threads = torch.randn_like(operands.u), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            twice = [scan.backward(dy, operands) for _ in range(2)]
            assert all(torch.equal(a, b) for a, b in zip(*twice, strict=True))
            before.append((scan.forward(operands), twice[0]))
    finally:
        torch.set_num_threads(threads)
    for y, gradients in before[1:]:
        assert torch.equal(y, before[0][0])
        for a, b in zip(gradients, before[0][1], strict=True):
            assert relative(a, b.double()) < 1e-6


@given(st.lists(st.integers(1, 150), min_size=1, max_size=5), st.integers(1, 90), st.data())
@settings(max_examples=60)
def test_a_scan_goes_on_from_the_state_it_ended_in(lengths, cut, data):
    operands = draw([sum(lengths)], dim=data.draw(st.integers(1, 40)), state=5, skip=True)
    cut, ends = min(cut, operands.u.shape[1]), torch.empty(2, 1, operands.u.shape[2], 5)
    sequences = ("u", "delta", "B", "C")
    parts = [
        {name: getattr(operands, name)[:, part] for name in sequences}
        for part in (slice(0, cut), slice(cut, None))
    ]
    pieces = [scan.forward(operands._replace(**parts[0]), state_out=ends[0])]
    if cut < operands.u.shape[1]:
        rest = operands._replace(**parts[1])
        pieces.append(scan.forward(rest, state_in=ends[0], state_out=ends[1]))
    torch.testing.assert_close(torch.cat(pieces, 1), scan.forward(operands))


BORDERS = [None, [0, 1, 3, 40, 150], [0, 150], [0, 64, 65, 128, 150]]


@pytest.mark.parametrize("ends", BORDERS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("dim", "width"), [(37, 4), (64, 4), (16, 1), (5, 3), (130, 8)])
def test_the_convolution_is_what_it_says(instructions, ends, reverse, dim, width):
    batch = 2 if ends is None else 1
    cu = None if ends is None else torch.tensor(ends, dtype=torch.int32)
    x, dy = torch.randn(2, batch, 150, dim)
    weight, bias = torch.randn(dim, width), torch.randn(dim)
    y = scan.convolve(x, weight, bias, cu, reverse)
    torch.testing.assert_close(y, convolution.forward(x, weight, bias, cu, reverse))
    found = scan.convolve_backward(dy, x, weight, bias, cu, reverse)
    wanted = convolution.backward(dy, x, weight, bias, cu, reverse)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dim", [1, 33, 192])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("added", [True, False])
def test_the_norm_is_what_it_says(instructions, dim, dtype, added):
    x, weight = torch.randn(50, dim), torch.randn(dim)
    more = torch.randn(50, dim).to(dtype) if added else None
    total, normed, rate = norm.forward(x, more, weight, 1e-5)
    wanted = x if more is None else x + more
    torch.testing.assert_close(total, wanted)
    exact = torch.nn.functional.rms_norm(wanted.double(), (dim,), weight.double(), 1e-5)
    step = torch.finfo(normed.dtype).eps
    assert relative(normed, exact) < max(step, 1e-6)
    dsum, dnormed = torch.randn(50, dim), torch.randn(50, dim).to(normed.dtype)
    leaves = [wanted.double().requires_grad_(), weight.double().requires_grad_()]
    again = torch.nn.functional.rms_norm(leaves[0], (dim,), leaves[1], 1e-5)
    dx, dweight = torch.autograd.grad(again, leaves, dnormed.double())
    found = norm.backward(dsum, dnormed, wanted, weight, rate)
    assert relative(found[0], dx + dsum) < 2e-6
    assert relative(found[1], dweight) < 2e-6


def test_what_the_kernels_cannot_take_is_left_to_torch():
    assert not serves(torch.ones(2, dtype=torch.float64))
    assert not serves(torch.ones(2, device="meta"))


def test_autograd_finds_the_gradients_of_the_kernels():
    from melastic.scan.selective import scan as any_scan

    operands = draw([30], batch=2, dim=7, state=4, **EVERYTHING)
    dy = torch.randn_like(operands.u)
    y, found = by_autograd(any_scan, operands, dy)
    wanted = oracle(operands, dy)
    assert relative(y, wanted[0]) < 1e-6
    assert max(relative(a, b) for a, b in zip(found, wanted[1], strict=True)) < 1e-5


@pytest.mark.parametrize("step", [STEP, 1e-4])
@pytest.mark.parametrize("ragged", [False, True])
def test_states_that_are_kept_spare_work_and_change_nothing(instructions, ragged, step):
    lengths = [1, 16, 17, 64, 65, 130, 300] if ragged else [200]
    batch = 1 if ragged else 3
    operands = draw(lengths, batch=batch, dim=70, ragged=ragged, step=step, **EVERYTHING)
    dy, starts = torch.randn_like(operands.u), scan.new_starts(operands)
    assert torch.equal(scan.forward(operands, starts=starts), scan.forward(operands))
    pairs = zip(scan.backward(dy, operands, starts), scan.backward(dy, operands), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("dim", [1, 16, 24, 70])
def test_no_kept_state_is_read_before_it_is_written(dim, both, instructions):
    """Unwritten memory is NaN here, and would be in the gradients."""
    operands = draw([1, 15, 16, 17, 100], dim=dim, state=8, ragged=True, both=both)
    dy = torch.randn_like(operands.u)
    starts = scan.new_starts(operands).fill_(torch.nan)
    scan.forward(operands, starts=starts)
    kept, fresh = scan.backward(dy, operands, starts), scan.backward(dy, operands)
    for a, b in zip(kept, fresh, strict=True):
        assert b is None or relative(a, b) < 1e-5
