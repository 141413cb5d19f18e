import pytest
from hypothesis import given
from hypothesis import strategies as st

from melastic.errors import InputError
from melastic.patches.packing import best_fit, fill_ratio

lengths_of = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def by_hand(lengths, row_length):
    """Longest first, each into the row with the least room that is enough."""
    rows = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        room = [row_length - sum(lengths[i] for i in row) for row in rows]
        fitting = [(left, number) for number, left in enumerate(room) if left >= lengths[index]]
        if fitting:
            rows[min(fitting)[1]].append(index)
        else:
            rows.append([index])
    return rows


@given(lengths_of, st.integers(50, 120))
def test_every_clip_lies_whole_in_one_row(lengths, row_length):
    rows = best_fit(lengths, row_length)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= row_length for row in rows)


@given(lengths_of, st.integers(50, 120))
def test_rows_are_those_of_the_slow_definition(lengths, row_length):
    assert best_fit(lengths, row_length) == by_hand(lengths, row_length)


def test_clips_that_fill_rows_exactly_waste_nothing():
    lengths = [6, 4, 5, 5, 7, 3]
    rows = best_fit(lengths, 10)
    assert len(rows) == 3
    assert fill_ratio(lengths, rows) == 1.0


def test_the_fill_ratio_counts_places_up_to_the_fullest_row():
    assert fill_ratio([4, 2, 2], [[0], [1], [2]]) == pytest.approx(8 / 12)


def test_a_clip_longer_than_a_row_is_refused():
    with pytest.raises(InputError, match="12 tokens and a row 10; use longer rows"):
        best_fit([3, 12], 10)
