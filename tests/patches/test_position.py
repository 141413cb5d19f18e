import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from melastic.config import FactorisedGrid, LearnedGrid, PatchConfig
from melastic.patches.grid import FreqTime
from melastic.patches.position import PositionTable, placement

GRID = FreqTime(3, 10)
PATCHES = PatchConfig(patch=FreqTime(16, 16), stride=FreqTime(16, 16))
CROPPED = PatchConfig(patch=FreqTime(16, 16), stride=FreqTime(16, 16), remainder="crop")
KINDS = [LearnedGrid, FactorisedGrid]


def table_of(kind=LearnedGrid, **rule):
    return PositionTable(kind(grid=GRID, cell_mels=16.0, cell_ms=160.0, **rule), 8)


def full(table):
    """All vectors of a table, ``freq time dim``."""
    if isinstance(table.config, FactorisedGrid):
        return table.freq[:, None] + table.time
    return table.table


def read(table, size, patch=(16, 16), hop_ms=10.0, patches=PATCHES):
    places = placement(
        table.config,
        patches,
        patches.grid(FreqTime(*size), FreqTime(*patch)),
        hop_ms=hop_ms,
        own_hop_ms=10.0,
    )
    return table(places)


def resized(cells, shape, antialias=True):
    """Axis by axis: torch 2.13 errs on images of width 1 whose height it enlarges."""
    for axis, size in enumerate(shape):
        lines = cells.movedim(axis, -1)[:, :, None]
        lines = interpolate(lines, (1, size), mode="bilinear", antialias=antialias)
        cells = lines[:, :, 0].movedim(-1, axis)
    return cells


def by_hand(table, places):
    """One vector for each pair of places (in cells): linear between cells, constant beyond."""
    weights = []
    for along, cells in zip(places, GRID, strict=True):
        inside = torch.tensor(along).clamp(0, cells - 1)[:, None]
        weights.append((1 - (inside - torch.arange(cells)).abs()).clamp_min(0))
    return torch.einsum("af,ftd,bt->abd", weights[0], full(table), weights[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", ["place", "stretch", "index"])
@given(columns=st.integers(1, 10), rows=st.integers(1, 3))
def test_a_clip_within_the_table_reads_its_beginning_as_it_is(kind, reading, columns, rows):
    table = table_of(kind, reading=reading)
    vectors = read(table, (16 * rows, 16 * columns))
    assert torch.equal(vectors, full(table)[:rows, :columns])


@pytest.mark.parametrize("kind", KINDS)
@given(patch=st.tuples(st.integers(1, 16), st.integers(1, 16)))
def test_a_patch_reads_the_place_of_its_centre(kind, patch):
    table = table_of(kind)
    rows, columns = math.ceil(48 / patch[0]), math.ceil(100 / patch[1])
    freq = [((i + 0.5) * patch[0] - 8) / 16 for i in range(rows)]
    time = [((i + 0.5) * patch[1] - 8) / 16 for i in range(columns)]
    vectors = read(table, (48, 100), patch)
    torch.testing.assert_close(vectors, by_hand(table, (freq, time)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_frame_shift_is_the_same_as_half_the_patch(kind):
    table = table_of(kind)
    finer = read(table, (48, 2 * 96), hop_ms=5.0)
    torch.testing.assert_close(finer, read(table, (48, 96), patch=(16, 8)))


@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_frame_shift_reads_the_means_of_pairs_of_cells(kind):
    table = table_of(kind, antialias=False)
    coarser = read(table, (48, 80), hop_ms=20.0)
    cells = full(table)
    torch.testing.assert_close(coarser, (cells[:, ::2] + cells[:, 1::2]) / 2)


@pytest.mark.parametrize("reading", ["place", "stretch"])
@pytest.mark.parametrize("patch", [(8, 8), (16, 32), (48, 80), (4, 40), (24, 10)])
def test_patches_that_divide_the_extent_read_a_resized_table(reading, patch):
    table = table_of(reading=reading)
    shape = (48 // patch[0], 160 // patch[1])
    vectors = read(table, (48, 160), patch)
    torch.testing.assert_close(vectors, resized(full(table), shape), atol=1e-5, rtol=1e-5)


@given(patch=st.tuples(st.integers(1, 48), st.integers(1, 100)), frames=st.integers(160, 175))
def test_a_stretched_table_is_resized_to_the_patches_that_fit(patch, frames):
    table = table_of(reading="stretch")
    vectors = read(table, (48, frames), patch, patches=CROPPED)
    shape = (48 // patch[0], frames // patch[1])
    torch.testing.assert_close(vectors, resized(full(table), shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(patch=st.tuples(st.integers(1, 16), st.integers(1, 16)), hop=st.sampled_from([5.0, 40.0]))
def test_a_counted_table_knows_neither_patch_size_nor_frame_shift(kind, patch, hop):
    table = table_of(kind, reading="index")
    vectors = read(table, (patch[0] * 3, patch[1] * 10), patch, hop)
    assert torch.equal(vectors, full(table))


@pytest.mark.parametrize("reading", ["place", "stretch", "index"])
@pytest.mark.parametrize("kind", KINDS)
@given(columns=st.integers(11, 50))
def test_the_whole_table_is_stretched_over_a_clip_that_reaches_beyond_it(kind, reading, columns):
    table = table_of(kind, reading=reading)
    vectors = read(table, (48, 16 * columns))
    oracle = resized(full(table), (3, columns))
    torch.testing.assert_close(vectors, oracle, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", ["place", "stretch"])
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 400)),
    patch=st.tuples(st.integers(1, 48), st.integers(1, 400)),
    hop=st.floats(1, 100),
)
def test_a_constant_table_stays_constant_under_every_view(kind, reading, size, patch, hop):
    table = table_of(kind, reading=reading)
    for parameter in table.parameters():
        torch.nn.init.constant_(parameter, 1.5)
    vectors = read(table, (max(size[0], patch[0]), size[1]), patch, hop)
    expected = full(table)[0, 0].expand_as(vectors)
    torch.testing.assert_close(vectors, expected)


def test_a_table_of_overlapping_patches_reads_between_their_centres():
    patches = PatchConfig(patch=FreqTime(16, 16), stride=FreqTime(10, 10))
    table = PositionTable(LearnedGrid(grid=GRID, cell_mels=10.0, cell_ms=100.0), 8)
    vectors = read(table, (36, 106), (8, 8), patches=patches)
    freq = [(4 + 5 * i - 8) / 10 for i in range(vectors.shape[0])]
    time = [(4 + 5 * i - 8) / 10 for i in range(vectors.shape[1])]
    torch.testing.assert_close(vectors, by_hand(table, (freq, time)), atol=1e-5, rtol=1e-5)


def test_the_extent_of_a_table_is_in_mels_and_seconds():
    assert LearnedGrid(grid=GRID, cell_mels=16.0, cell_ms=160.0).extent == (48.0, 1.6)


@pytest.mark.parametrize("kind", KINDS)
def test_sines_tell_every_place_from_every_other_from_the_start(kind):
    torch.manual_seed(1)
    table = PositionTable(kind(grid=GRID, cell_mels=16.0, cell_ms=160.0, init="sincos"), 32)
    vectors = full(table).flatten(0, 1)
    distances = torch.cdist(vectors, vectors) + 9 * torch.eye(len(vectors))
    assert distances.min() > 0.5
    quiet = full(table_of(kind)).flatten(0, 1)
    assert torch.cdist(quiet, quiet).max() < 0.5
    assert vectors.square().mean().sqrt().item() == pytest.approx(0.7, abs=0.1)


def test_sines_vary_along_one_axis_in_each_half_of_the_channels():
    table = PositionTable(LearnedGrid(grid=GRID, init="sincos"), 32).table
    assert table[:, :, :16].std(1).max() < 0.1
    assert table[:, :, 16:].std(0).max() < 0.1
