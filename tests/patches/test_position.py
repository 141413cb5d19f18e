import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.config import FactorisedGrid, LearnedGrid
from melastic.patches.grid import FreqTime
from melastic.patches.position import PositionTable

GRID = FreqTime(3, 10)
CELL = {"cell_mels": 16.0, "cell_ms": 160.0}
STEP = {"step_mels": 16.0, "step_ms": 160.0}
KINDS = [LearnedGrid, FactorisedGrid]


def full(table):
    """All vectors of a table, ``freq time dim``."""
    if isinstance(table.config, FactorisedGrid):
        return table.freq[:, None] + table.time
    return table.table


def read(table, shape, **step):
    places = table.places(shape, **{**STEP, **step})
    return table(places).reshape(*shape, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_as_long_as_the_table_reads_it_as_it_is(kind):
    table = PositionTable(kind(grid=GRID, **CELL), 8)
    assert torch.equal(read(table, GRID), full(table))


@pytest.mark.parametrize("kind", KINDS)
@given(columns=st.integers(1, 10), rows=st.integers(1, 3))
def test_a_shorter_clip_reads_the_beginning(kind, columns, rows):
    table = PositionTable(kind(grid=GRID, **CELL), 8)
    assert torch.equal(read(table, FreqTime(rows, columns)), full(table)[:rows, :columns])


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_frame_shift_reads_places_half_as_far_apart(kind):
    table = PositionTable(kind(grid=GRID, **CELL), 8)
    fine = read(table, FreqTime(3, 19), step_ms=80.0)
    cells = full(table)
    torch.testing.assert_close(fine[:, ::2], cells)
    torch.testing.assert_close(fine[:, 1::2], (cells[:, :-1] + cells[:, 1:]) / 2)


@pytest.mark.parametrize("kind", KINDS)
@given(columns=st.integers(11, 50))
def test_a_clip_beyond_the_table_is_squeezed_into_it(kind, columns):
    table = PositionTable(kind(grid=GRID, **CELL), 8)
    vectors, cells = read(table, FreqTime(3, columns)), full(table)
    torch.testing.assert_close(vectors[:, 0], cells[:, 0])
    torch.testing.assert_close(vectors[:, -1], cells[:, -1])
    oracle = torch.nn.functional.interpolate(
        cells.permute(2, 0, 1)[None], (3, columns), mode="bilinear", align_corners=True
    )[0].permute(1, 2, 0)
    torch.testing.assert_close(vectors, oracle, atol=1e-5, rtol=1e-5)


def test_a_full_table_is_interpolated_along_both_axes():
    table = PositionTable(LearnedGrid(grid=GRID, **CELL), 8)
    vectors = read(table, FreqTime(5, 19), step_mels=8.0, step_ms=80.0)
    oracle = torch.nn.functional.interpolate(
        full(table).permute(2, 0, 1)[None], (5, 19), mode="bilinear", align_corners=True
    )[0].permute(1, 2, 0)
    torch.testing.assert_close(vectors, oracle, atol=1e-5, rtol=1e-5)


def test_the_extent_of_a_table_is_in_mels_and_seconds():
    assert LearnedGrid(grid=GRID, **CELL).extent == (48.0, 1.6)
