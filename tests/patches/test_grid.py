import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from melastic.errors import InputError
from melastic.patches.grid import FreqTime, PatchGrid, freq_time

sizes = st.builds(FreqTime, st.integers(1, 60), st.integers(1, 60))
steps = st.builds(FreqTime, st.integers(1, 20), st.integers(1, 20))


@given(sizes, steps, steps)
def test_cropping_counts_patches_as_a_convolution_does(size, patch, stride):
    assume(size.freq >= patch.freq and size.time >= patch.time)
    grid = PatchGrid(size=size, patch=patch, stride=stride)
    image = torch.zeros(1, 1, *size)
    maps = torch.nn.functional.conv2d(image, torch.zeros(1, 1, *patch), stride=stride)
    assert maps.shape[2:] == grid.shape
    assert grid.num_patches == maps.numel()


@given(sizes, steps, steps)
def test_padding_covers_every_cell_with_as_few_patches_as_possible(size, patch, stride):
    grid = PatchGrid(size=size, patch=patch, stride=stride, remainder="pad")
    for covered, cells, step, count in zip(grid.covered, size, stride, grid.shape, strict=True):
        assert covered >= cells
        assert count == 1 or covered - step < cells


@given(sizes, steps, steps)
def test_cropping_and_padding_agree_where_patches_fit(size, patch, stride):
    padded = PatchGrid(size=size, patch=patch, stride=stride, remainder="pad")
    whole = PatchGrid(size=padded.covered, patch=patch, stride=stride)
    assert whole.shape == padded.shape


def test_original_ast_has_1212_patches():
    grid = PatchGrid(size=FreqTime(128, 1024), patch=FreqTime(16, 16), stride=FreqTime(10, 10))
    assert grid.shape == FreqTime(12, 101)


def test_a_clip_shorter_than_a_patch_is_an_error_when_cropping():
    with pytest.raises(
        InputError, match=r"128 mel bins x 9 frames holds no whole patch of 16 x 16"
    ):
        PatchGrid(size=FreqTime(128, 9), patch=FreqTime(16, 16), stride=FreqTime(16, 16))


@pytest.mark.parametrize("field", ["size", "patch", "stride"])
def test_sizes_are_positive(field):
    values = {name: FreqTime(16, 16) for name in ("size", "patch", "stride")}
    with pytest.raises(InputError, match=field):
        PatchGrid(**{**values, field: FreqTime(16, 0)})


def test_one_number_means_square():
    assert freq_time(16) == freq_time((16, 16)) == FreqTime(16, 16)


@pytest.mark.parametrize("size", [0, -1, (16,), (16, 0), (1, 2, 3)])
def test_impossible_sizes_are_errors(size):
    with pytest.raises(InputError, match="a size is"):
        freq_time(size)
