"""The selective scan as callers meet it."""

import inspect
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import melastic
from melastic.errors import InputError
from melastic.native import scan as native
from melastic.native.library import kernels
from melastic.scan import chunked, convolution, selective
from melastic.scan.operands import Operands
from melastic.scan.ops import scan_op
from melastic.scan.selective import causal_convolution, scan
from tests.scan.operands import draw, oracle, relative

COMPILED = """
import torch, melastic
def run(u, delta, A, B, C, D, z, bias):
    return melastic.selective_scan(u, delta, A, B, C, D, z, bias, True)
torch.manual_seed(0)
inputs = [torch.randn(2, 5, 30), torch.randn(2, 5, 30), -torch.rand(5, 3), torch.randn(2, 3, 30),
          torch.randn(2, 3, 30), torch.randn(5), torch.randn(2, 5, 30), torch.randn(5)]
inputs = [x.requires_grad_() for x in inputs]
compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
y, z = run(*inputs), compiled(*inputs)
assert torch.equal(y, z)
pairs = zip(torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(z.sum(), inputs))
assert all(torch.equal(a, b) for a, b in pairs)
class Scan(torch.nn.Module):
    def forward(self, u, delta, A, B, C):
        return melastic.selective_scan(u, delta, A, B, C)
length = torch.export.Dim("length")
free = [{2: length}, {2: length}, None, {2: length}, {2: length}]
exported = torch.export.export(Scan(), tuple(inputs[:5]), dynamic_shapes=tuple(free)).module()
short = [x if x.ndim < 3 else x[..., :17] for x in inputs[:5]]
assert torch.equal(exported(*short), Scan()(*short))
"""


def inputs(batch=2, dim=6, length=20, state=3):
    shape = (batch, dim, length)
    B, C = torch.randn(2, batch, state, length)
    return [torch.randn(shape), torch.rand(shape), -torch.rand(dim, state), B, C]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_axes_are_those_of_mamba_ssm(dtype):
    given = [x.to(dtype) for x in inputs()]
    u, delta, A, B, C = (x.double() for x in given)
    state, steps = torch.zeros(2, 6, 3, dtype=torch.float64), []
    for t in range(20):
        decay = torch.exp(delta[:, :, t, None] * A)
        state = decay * state + (delta * u)[:, :, t, None] * B[:, None, :, t]
        steps.append((state * C[:, None, :, t]).sum(-1))
    y = melastic.selective_scan(*given)
    assert y.dtype == dtype
    assert relative(y, torch.stack(steps, -1)) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("place", [1, 3, 4])
def test_formats_may_differ(place):
    given = [x.requires_grad_() for x in inputs()]
    mixed = [x.double() if i == place else x for i, x in enumerate(given)]
    y = melastic.selective_scan(*mixed)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, melastic.selective_scan(*given))
    assert torch.autograd.grad(y.sum(), given[place])[0].isfinite().all()


def test_b_and_c_may_have_a_group_axis():
    u, delta, A, B, C = inputs()
    grouped = melastic.selective_scan(u, delta, A, B[:, None], C[:, None])
    assert torch.equal(grouped, melastic.selective_scan(u, delta, A, B, C))


def test_clips_one_behind_the_other_are_scanned_one_by_one():
    given = inputs(batch=1, length=30)
    ends = torch.tensor([0, 1, 13, 30], dtype=torch.int32)
    for reverse in (False, True):
        together = melastic.selective_scan(*given, cu_seqlens=ends, reverse=reverse)
        alone = [
            melastic.selective_scan(
                *(x[..., a:b] if x.ndim == 3 else x for x in given), reverse=reverse
            )
            for a, b in ((0, 1), (1, 13), (13, 30))
        ]
        torch.testing.assert_close(together, torch.cat(alone, -1))


def test_a_reversed_scan_is_the_scan_of_reversed_clips():
    given = inputs()
    turned = [x.flip(-1) if x.ndim == 3 else x for x in given]
    reversed_scan = melastic.selective_scan(*given, reverse=True)
    torch.testing.assert_close(reversed_scan, melastic.selective_scan(*turned).flip(-1))


def test_both_ways_are_the_sum_of_each():
    operands = draw([40, 3], ragged=True, dim=9, skip=True, gate=True, both=True)
    ahead = scan(operands._replace(A_back=None))
    back = scan(operands._replace(A=operands.A_back, A_back=None, reverse=True))
    torch.testing.assert_close(scan(operands), ahead + back)


@pytest.mark.parametrize("kernel", ["best", "loop", "chunked"])
def test_every_implementation_gives_the_same(kernel):
    operands = draw([40, 3], ragged=True, dim=9, gate=True, both=True)
    y, _ = oracle(operands, torch.ones_like(operands.u))
    with melastic.scan_kernel(kernel):
        assert relative(scan(operands), y) < 1e-6


def test_without_kernels_torch_serves(monkeypatch):
    from melastic.native import calls
    from melastic.native.library import Kernels

    operands = draw([40], dim=9, gate=True, both=True)
    before = scan(operands)
    monkeypatch.setattr(calls, "kernels", lambda: Kernels(None, "not built"))
    torch.testing.assert_close(scan(operands), before)
    model = melastic.create_model("aum-nano", num_classes=3, depth=2, dim=16)
    clips = [torch.randn(128, 40), torch.randn(128, 55)]
    without = model(clips)
    monkeypatch.undo()
    torch.testing.assert_close(model(clips), without, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", ["without kernels", "float64", "many taps"])
def test_torch_trains_what_no_kernel_can(monkeypatch, way):
    from melastic.native import calls
    from melastic.native.library import Kernels

    taps = 9 if way == "many taps" else 4
    model = melastic.create_model("aum-nano", num_classes=3, depth=2, dim=16)
    for block in model.encoder.blocks:
        ahead = block.mixer.ahead
        ahead.taps = torch.nn.Parameter(torch.randn(ahead.taps.shape[0], taps) / taps)
    clips = [torch.randn(128, 40), torch.randn(128, 55)]

    def gradients(model, clips):
        model.zero_grad()
        model(clips).square().sum().backward()
        return [p.grad.double() for p in model.parameters() if p.grad is not None]

    if way == "without kernels":
        wanted = gradients(model, clips)
        monkeypatch.setattr(calls, "kernels", lambda: Kernels(None, "not built"))
        found = gradients(model, clips)
    else:
        found = gradients(model, clips)
        model, clips = model.double(), [clip.double() for clip in clips]
        wanted = gradients(model, clips)
    assert len(found) == len(wanted) > 20
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) < 1e-4


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ends", [None, [0, 1, 4, 11]], ids=str)
def test_the_gradient_of_the_convolution_in_torch_is_that_of_autograd(reverse, ends):
    x, dy = torch.randn(2, 1, 11, 3, dtype=torch.float64)
    weight, bias = torch.randn(3, 4).double(), torch.randn(3).double()
    cu = None if ends is None else torch.tensor(ends)
    given = [value.requires_grad_() for value in (x, weight, bias)]
    wanted = torch.autograd.grad(convolution.forward(*given, cu, reverse), given, dy)
    with torch.no_grad():
        found = convolution.backward(dy, *given, cu, reverse)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_a_kernel_is_chosen_for_the_thread_that_asks():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with melastic.scan_kernel("loop"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    assert selective._chosen.kernel == "best"
    with melastic.scan_kernel("chunked"):
        leave.set()
        thread.join()
        assert selective._chosen.kernel == "chunked"
    assert selective._chosen.kernel == "best"


def test_the_operator_compiles_and_exports():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def inspected(*given, **options):
    """The function without the shape check of the tests, which would speak first."""
    return inspect.unwrap(melastic.selective_scan)(*given, **options)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("lengths", [[40], [5, 1, 33, 16, 70, 3]], ids=str)
@pytest.mark.parametrize("dim", [7, 48])
def test_the_operator_holds_what_torch_asks_of_operators(lengths, dim, keep):
    """Its other self without numbers, its gradients, and the same output whenever it is called."""
    options = {"gate": True, "skip": True, "bias": True, "softplus": True, "both": True}
    operands = draw(lengths, dim=dim, state=5, ragged=len(lengths) > 1, **options)
    inputs = [x.requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x
              for x in operands]  # fmt: skip
    torch.library.opcheck(scan_op, (*inputs, keep))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.ones(2, 6)}, "u has the axes"),
        ({1: torch.ones(2, 6, 19)}, "delta must have the shape"),
        ({2: torch.ones(5, 3)}, "A must have the shape"),
        ({3: torch.ones(2, 4, 20)}, "B must have the shape"),
        ({4: torch.ones(2, 3, 20, dtype=torch.long)}, "C must hold real numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    given = [change.get(i, x) for i, x in enumerate(inputs())]
    with pytest.raises(InputError, match=message) as caught:
        inspected(*given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ends", [[0, 10], [0, 25, 20], [1, 20], [0], [0, 0, 20], [[0, 20]]])
def test_borders_that_are_none_are_refused(ends):
    with pytest.raises(InputError, match="cu_seqlens rises from 0 to the length"):
        inspected(*inputs(batch=1), cu_seqlens=torch.tensor(ends))


@pytest.mark.parametrize("number", [torch.float32, torch.float64])
@pytest.mark.parametrize("ends", [[0, 10**8], [0, -5, 20], [0, 3, 19], [0, 7, 7, 20], [3, 20]])
def test_borders_that_nothing_checked_before_are_refused_by_the_operators(ends, number):
    u, delta, A, B, C = (x.to(number) for x in inputs(batch=1))
    borders = torch.tensor(ends)
    operands = Operands(u.mT, delta.mT, A, B.mT, C.mT, cu_seqlens=borders)
    with pytest.raises(InputError, match="cu_seqlens rises from 0 to the length"):
        scan_op(*operands, False)
    taps, bias = torch.ones(6, 4, dtype=number), torch.ones(6, dtype=number)
    with pytest.raises(InputError, match="cu_seqlens rises from 0 to the length"):
        causal_convolution(u.mT, taps, bias, borders)


@pytest.mark.parametrize("number", [torch.float32, torch.float64])
@pytest.mark.parametrize(("spoilt", "reverse"), [(4, False), (5, True)])
def test_an_infinite_number_at_a_border_stays_in_its_clip(spoilt, reverse, number):
    x, dy = (torch.randn(1, 12, 6, dtype=number) for _ in range(2))
    taps, bias = torch.rand(6, 4).to(number), torch.rand(6).to(number)
    ends, clips = torch.tensor([0, 5, 12]), (slice(0, 5), slice(5, 12))
    dy[:, 9 - spoilt] = torch.inf  # what a step gives back goes the other way
    dx = convolution.backward(dy, x, taps, bias, ends, reverse)[0]
    assert dx[:, clips[reverse]].isfinite().all()
    x[:, spoilt] = torch.inf
    for y in (
        causal_convolution(x, taps, bias, ends, reverse=reverse),
        convolution.forward(x, taps, bias, ends, reverse),
    ):
        assert y[:, clips[not reverse]].isfinite().all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_states_are_kept_even_where_parameters_ask_for_them(mode, monkeypatch):
    u, delta, A, B, C = inputs()
    kept = []
    for module, name in ((native, "new_starts"), (chunked._Scan, "apply")):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, f=plain: kept.append(f) or f(*given))
    for kernel in ("best", "chunked"):
        with mode(), melastic.scan_kernel(kernel):
            melastic.selective_scan(u, delta, torch.nn.Parameter(A), B, C)
        assert not kept
        with melastic.scan_kernel(kernel):
            melastic.selective_scan(u, delta, torch.nn.Parameter(A), B, C)
        assert kept or (kernel == "best" and kernels().library is None)
        kept.clear()


@pytest.mark.parametrize("kernel", ["best", "chunked", "loop"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_no_gradient(kernel, reentrant):
    given = inputs()

    def gradient(run):
        u, *others = (x.clone().requires_grad_() for x in given)
        run(melastic.selective_scan, u, *others).square().sum().backward()
        return u.grad

    with melastic.scan_kernel(kernel):
        expected = gradient(lambda scan, *tensors: scan(*tensors))
        found = gradient(partial(checkpoint, use_reentrant=reentrant))
    torch.testing.assert_close(found, expected)


def test_an_unknown_kernel_is_refused():
    unchecked = inspect.unwrap(melastic.scan_kernel.__wrapped__)
    with pytest.raises(InputError, match="scan kernel"):
        next(unchecked("fast"))


def test_the_package_mamba_ssm_is_used_only_if_it_is_there():
    with melastic.scan_kernel("mamba_ssm"), pytest.raises(InputError, match="needs that package"):
        melastic.selective_scan(*inputs())
