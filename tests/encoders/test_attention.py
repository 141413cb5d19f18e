import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.encoders.attention import attention
from melastic.patches.batch import Layout


def clip_by_clip(q, k, v, lengths):
    """Softmax attention, written out, one clip after the other."""
    results, first = [], 0
    for length in lengths:
        here = slice(first, first + length)
        scores = torch.einsum("qhd,khd->hqk", q[here], k[here]) / q.shape[-1] ** 0.5
        results.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[here]))
        first += length
    return torch.cat(results)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3), st.integers(1, 8))
def test_attention_is_softmax_attention_within_each_clip(lengths, heads, dim):
    q, k, v = torch.randn(3, sum(lengths), heads, dim)
    found = attention(q, k, v, Layout(tuple(lengths)))
    torch.testing.assert_close(found, clip_by_clip(q, k, v, lengths), atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_joining_what_was_split_gives_the_batch_back(lengths):
    layout, x = Layout(tuple(lengths)), torch.randn(sum(lengths), 4)
    assert torch.equal(layout.join(layout.split(x)), x)
    assert sum(clips for clips, _ in layout.runs) == len(lengths)


def test_cumulative_lengths_say_where_clips_begin_and_end():
    ends = Layout((3, 1, 2)).cu_seqlens(torch.device("cpu"))
    assert ends.tolist() == [0, 3, 4, 6]
    assert ends.dtype == torch.int32
