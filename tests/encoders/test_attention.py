from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.encoders import attention as module
from melastic.patches.batch import Layout
from tests.models import COMBINATIONS, MELS, small


def by_ends(q, k, v, ends, ends_of_keys, longest, longest_key):
    """What torch's variable-length kernel computes from its arguments."""
    assert torch.equal(ends, ends_of_keys)
    assert ends.dtype == torch.int32
    lengths = ends.diff().tolist()
    assert longest == longest_key == max(lengths)
    return clip_by_clip(q, k, v, lengths)


@contextmanager
def forced(kernel, row_length):
    """A context in which one way of computing attention is taken whatever the device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "chosen_kernel", lambda *_: kernel)
        patch.setattr(module, "ROW_LENGTH", row_length)
        patch.setattr(module, "variable_length_kernel", lambda: by_ends)
        yield


def clip_by_clip(q, k, v, lengths):
    """Softmax attention, written out, one clip after the other."""
    results, first = [], 0
    for length in lengths:
        here = slice(first, first + length)
        scores = torch.einsum("qhd,khd->hqk", q[here], k[here]) / q.shape[-1] ** 0.5
        results.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[here]))
        first += length
    return torch.cat(results)


@pytest.mark.parametrize("kernel", ["runs", "rows", "varlen"])
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3), st.integers(1, 8))
def test_attention_is_softmax_attention_within_each_clip(kernel, lengths, heads, dim):
    q, k, v = torch.randn(3, sum(lengths), heads, dim, requires_grad=True)
    expected = clip_by_clip(q, k, v, lengths)
    with forced(kernel, row_length=12):
        found = module.attention(q, k, v, Layout(tuple(lengths)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), (q, k, v))
    theirs = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("pooling", "patch", "positions"), COMBINATIONS)
def test_a_clip_has_the_same_logits_when_clips_are_packed_in_rows(pooling, patch, positions):
    model = small(pooling, patch, positions)
    clips = [torch.randn(MELS, frames) for frames in (40, 17, 90, 3, 40)]
    for view in (None, 8, (20, 12)):
        expected = model(clips, view)
        with forced("rows", row_length=30):
            packed = model(clips, view)
        torch.testing.assert_close(packed, expected, atol=2e-6, rtol=1e-5)


def test_the_fastest_kernel_is_chosen_for_device_format_and_lengths(monkeypatch):
    one, few, many = Layout((4, 4)), Layout((4, 5)), Layout(tuple(range(1, 30)))
    half, single = torch.bfloat16, torch.float32
    monkeypatch.setattr(module, "variable_length_kernel", lambda: print)
    for layout in (one, few, many):
        assert module.chosen_kernel(layout, "cpu", single) == "runs"
        assert module.chosen_kernel(layout, "cpu", half) == "runs"
    assert module.chosen_kernel(one, "cuda", half) == "runs", "equal lengths are one dense call"
    assert module.chosen_kernel(few, "cuda", half) == "varlen"
    assert module.chosen_kernel(few, "cuda", single) == "runs"
    assert module.chosen_kernel(many, "cuda", single) == "rows"
    assert module.chosen_kernel(many, "cuda", torch.float64) == "rows"
    monkeypatch.setattr(module, "variable_length_kernel", lambda: None)
    assert module.chosen_kernel(many, "cuda", half) == "rows"
    assert module.chosen_kernel(many, "mps", single) == "rows"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_joining_what_was_split_gives_the_batch_back(lengths):
    layout, x = Layout(tuple(lengths)), torch.randn(sum(lengths), 4)
    assert torch.equal(layout.join(layout.split(x)), x)
    assert sum(clips for clips, _ in layout.runs) == len(lengths)


def test_cumulative_lengths_say_where_clips_begin_and_end():
    ends = Layout((3, 1, 2)).cu_seqlens(torch.device("cpu"))
    assert ends.tolist() == [0, 3, 4, 6]
    assert ends.dtype == torch.int32


def test_where_attention_needs_rows_people_are_told_how_full_they_are():
    assert module.packing_text(range(1, 30), "cpu", torch.float32) == ""
    assert module.packing_text([4] * 9, "cuda", torch.float32) == ""
    with forced("rows", row_length=40):
        said = module.packing_text([30, 10, 25, 15, 20], "cpu", torch.float32)
        long = module.packing_text([50, 10, 25], "cpu", torch.float32)
    assert said == "attention in rows of 40 tokens, 83 % filled"
    assert long == "attention in rows of 50 tokens, 85 % filled"
