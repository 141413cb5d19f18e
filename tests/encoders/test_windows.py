"""Attention in windows against one written out token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from melastic.encoders.config import WindowConfig
from melastic.encoders.windows import Merge, WindowAttention, WindowEncoder
from melastic.errors import InputError
from melastic.patches.batch import Grid, Layout
from melastic.patches.grid import FreqTime

HEADS, WIDTH = 2, 6


def layout_of(*shapes):
    """A clip of one image for each shape."""
    grids = tuple(Grid(1, 1, FreqTime(*shape), shape[1]) for shape in shapes)
    return Layout(tuple(rows * columns for rows, columns in shapes), grids)


def place_in_window(i, size, window, shifted):
    """Number of the window along one axis, and the place in it."""
    shift = window // 2 if shifted and size > window else 0
    side = min(window, size)
    return divmod(i + (side - shift if shift else 0), side)


def pair_by_pair(attention, x, rows, columns):
    """Each token looks at those in its window; windows are shifted, and end with the image."""
    window, tokens = attention.window, [(r, c) for r in range(rows) for c in range(columns)]
    q, k, v = attention.qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(1)
    sizes = (rows, columns)
    homes = [
        [place_in_window(i, n, window, attention.shifted)[0] for i, n in zip(t, sizes, strict=True)]
        for t in tokens
    ]
    outputs = []
    for i, (row, column) in enumerate(tokens):
        seen = [j for j, home in enumerate(homes) if home == homes[i]]
        apart = [(row - tokens[j][0], column - tokens[j][1]) for j in seen]
        offsets = [(r + window - 1) * (2 * window - 1) + c + window - 1 for r, c in apart]
        scores = torch.einsum("hd,khd->kh", q[i], k[seen]) / q.shape[-1] ** 0.5
        weights = (scores + attention.offsets[offsets]).softmax(0)
        outputs.append(torch.einsum("kh,khd->hd", weights, v[seen]).flatten())
    return attention.out(torch.stack(outputs))


@settings(max_examples=40)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    window=st.integers(1, 5),
    shifted=st.booleans(),
)
def test_a_token_looks_at_its_window_and_at_nothing_else(shapes, window, shifted):
    attention = WindowAttention(WIDTH, HEADS, window, shifted=shifted)
    x = torch.randn(sum(r * c for r, c in shapes), WIDTH)
    found = attention(x, layout_of(*shapes))
    pieces = x.split([r * c for r, c in shapes])
    oracle = [pair_by_pair(attention, p, *s) for p, s in zip(pieces, shapes, strict=True)]
    assert_close(found, torch.cat(oracle), atol=2e-6, rtol=1e-5)


def test_four_neighbours_become_one_in_the_official_order():
    merge, x = Merge(1, 1e-5), torch.arange(16.0)[:, None]
    merge.norm = torch.nn.Identity()
    merge.reduction = torch.nn.Identity()
    merged = merge(x, layout_of((4, 4)))
    assert merged.tolist() == [[0, 4, 1, 5], [2, 6, 3, 7], [8, 12, 9, 13], [10, 14, 11, 15]]


def test_tokens_that_leave_are_those_of_the_halved_layout():
    config = WindowConfig(embed_dim=4, depths=(1, 2, 1), num_heads=(1, 2, 2), windows=(3, 3, 3))
    layout = layout_of((8, 4), (4, 12))
    found = WindowEncoder(config)(torch.randn(layout.num_tokens, 4), layout)
    assert found.shape == (layout.halved().halved().num_tokens, config.dim)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"depths": (2, 2)}, "one positive number for each group"),
        ({"windows": (8, 8, 0, 8)}, "one positive number for each group"),
        ({"num_heads": (5, 8, 16, 32)}, "must divide its width, got 5 and 96; try num_heads=4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, words):
    with pytest.raises(InputError, match=words):
        WindowConfig(**sizes)


def test_who_asks_for_a_cut_first_does_not_matter():
    attention, layout = WindowAttention(WIDTH, HEADS, 3, shifted=True), layout_of((7, 11))
    x = torch.randn(layout.num_tokens, WIDTH)
    with torch.inference_mode():
        attention(x, layout)
    attention(x, layout).sum().backward()
    with torch.device("meta"):
        WindowAttention(WIDTH, HEADS, 3, shifted=True)(x[:55].to("meta"), layout_of((5, 11)))
    attention(x[:55], layout_of((5, 11))).sum().backward()
    assert attention.offsets.grad.isfinite().all()
