import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from melastic.config import KernelResize
from melastic.patches.grid import FreqTime
from melastic.patches.resize import reading_matrix, resize_kernel

RULES = [
    KernelResize(antialias=antialias, interpolation=interpolation)
    for antialias in (False, True)
    for interpolation in ("bilinear", "bicubic")
]
sizes = st.integers(1, 24)


def enlarged(patches, size, rule):
    image = patches.double()[:, None]
    return interpolate(image, size, mode=rule.interpolation, antialias=rule.antialias)[:, 0]


def by_definition(kernel, new, rule):
    """The pseudo-inverse of the whole matrix that resizes a flattened patch."""
    own = tuple(kernel.shape[1:])
    basis = torch.eye(own[0] * own[1], dtype=torch.float64).reshape(-1, 1, *own)
    resize = interpolate(basis, new, mode=rule.interpolation, antialias=rule.antialias)
    matrix = resize.reshape(len(basis), -1)  # old x new: its transpose resizes
    return (torch.linalg.pinv(matrix) @ kernel.double().flatten(1).T).T.reshape(-1, *new)


@pytest.mark.parametrize("rule", [*RULES, KernelResize(method="bilinear", antialias=True)])
def test_a_kernel_at_its_own_size_is_itself(rule):
    kernel = torch.randn(3, 16, 8)
    assert resize_kernel(kernel, FreqTime(16, 8), rule) is kernel


@pytest.mark.parametrize("rule", RULES)
@given(old=st.tuples(st.integers(1, 8), st.integers(1, 8)), more=st.tuples(sizes, sizes))
def test_an_enlarged_kernel_answers_to_an_enlarged_patch_as_before(rule, old, more):
    new = FreqTime(old[0] + more[0], old[1] + more[1])
    kernel, patches = torch.randn(3, *old), torch.randn(5, *old)
    answers = torch.einsum("dft,bft->bd", kernel.double(), patches.double())
    larger = resize_kernel(kernel, new, rule).double()
    after = torch.einsum("dft,bft->bd", larger, enlarged(patches, tuple(new), rule))
    torch.testing.assert_close(after, answers, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("new", [(8, 8), (10, 12), (16, 4), (3, 20), (48, 5), (1, 1)])
def test_both_axes_at_once_are_the_pseudo_inverse_of_the_whole_resizing(rule, new):
    kernel = torch.randn(3, 16, 8)
    after = resize_kernel(kernel, FreqTime(*new), rule)
    torch.testing.assert_close(after.double(), by_definition(kernel, new, rule), atol=1e-4, rtol=0)


@pytest.mark.parametrize("new", [(8, 8), (32, 20), (5, 16)])
def test_a_kernel_resized_as_an_image_is_interpolated(new):
    kernel, rule = torch.randn(3, 16, 16), KernelResize(method="bilinear", antialias=True)
    oracle = interpolate(kernel[None], new, mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(resize_kernel(kernel, FreqTime(*new), rule), oracle)


def test_gradients_reach_the_stored_kernel():
    kernel = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    rule = KernelResize()
    assert torch.autograd.gradcheck(lambda k: resize_kernel(k, FreqTime(3, 7), rule), kernel)


@given(cells=st.integers(1, 30), count=st.integers(1, 60), antialias=st.booleans())
def test_reading_places_spread_over_a_table_is_torchs_interpolation(cells, count, antialias):
    table = torch.randn(1, 2, cells, dtype=torch.float64)
    scale = cells / count
    matrix = reading_matrix(count, cells, scale=scale, offset=(scale - 1) / 2, antialias=antialias)
    oracle = interpolate(table[:, :, None], (1, count), mode="bilinear", antialias=antialias)
    torch.testing.assert_close(matrix @ table[0].T, oracle[0, :, 0].T)


@given(
    cells=st.integers(1, 20),
    count=st.integers(1, 20),
    scale=st.floats(0, 30),
    offset=st.floats(-40, 40),
    antialias=st.booleans(),
)
def test_a_reading_is_a_mean_of_cells(cells, count, scale, offset, antialias):
    matrix = reading_matrix(count, cells, scale=scale, offset=offset, antialias=antialias)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(count, dtype=torch.float64))


def test_matrices_made_while_nothing_is_trained_serve_training_later():
    kernel = torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        resize_kernel(kernel.detach(), FreqTime(5, 9), KernelResize())
    resize_kernel(kernel, FreqTime(5, 9), KernelResize()).sum().backward()
    assert kernel.grad.any()
