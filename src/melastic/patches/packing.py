"""Put clips of different lengths in rows, where a kernel needs rows."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from melastic.errors import InputError


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Rows that together hold every clip, each clip in one row.

    Longest clips first, each into the fullest row that still has room ("best-fit decreasing": at
    most 11/9 of the fewest rows, and a few more; D. S. Johnson, 1973).

    Args:
        lengths: tokens of each clip.
        row_length: most tokens of a row.

    Returns:
        Indices of the clips in each row, in the order in which they lie there.

    Raises:
        InputError: if a clip is longer than a row.
    """
    if max(lengths, default=0) > row_length:
        raise InputError(
            f"a row must hold the longest clip, it has {max(lengths)} tokens and a row "
            f"{row_length}; use longer rows"
        )
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (room left, row), the fullest first
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(room, (lengths[index], -1))
        if place == len(room):
            rows.append([])
            room.append((row_length, len(rows) - 1))
        left, row = room.pop(place)
        rows[row].append(index)
        insort(room, (left - lengths[index], row))
    return rows


def fill_ratio(lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> float:
    """Share of the rows' places that hold tokens; rows are as long as the fullest one.

    Args:
        lengths: tokens of each clip.
        rows: indices of the clips in each row.
    """
    longest = max(sum(lengths[i] for i in row) for row in rows)
    return sum(lengths) / (longest * len(rows))
