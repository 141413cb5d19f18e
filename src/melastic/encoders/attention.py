"""Multi-head attention within each clip of a ragged batch. One entry; the kernel is chosen here."""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from melastic.patches.batch import Layout
from melastic.patches.packing import best_fit, fill_ratio

Kernel = Literal["runs", "rows", "varlen"]
ROW_LENGTH = 2048
"""Tokens of a row where clips are packed in rows; ElasticAST's (arXiv:2407.08691)."""
FEW_RUNS = 8
"""Different lengths up to which one call for each is faster on a GPU than rows with a mask."""


def attention(
    q: Float[Tensor, "tokens head dim"],
    k: Float[Tensor, "tokens head dim"],
    v: Float[Tensor, "tokens head dim"],
    layout: Layout,
) -> Float[Tensor, "tokens head dim"]:
    """Softmax attention in which no token sees another clip.

    Equal lengths are one dense call. Different lengths are one call for each run of equal lengths
    on a CPU (no padding, no mask: the fastest way there), and on CUDA the variable-length kernel of
    torch for half precision, else rows of clips with a mask.
    """
    kernel, varlen = chosen_kernel(layout, q.device.type, q.dtype), variable_length_kernel()
    if kernel == "varlen" and varlen is not None:
        ends, longest = layout.cu_seqlens(q.device), max(layout.lengths)
        return varlen(q, k, v, ends, ends, longest, longest)
    if kernel == "rows":
        return _in_rows(q, k, v, layout)
    pieces = zip(layout.split(q), layout.split(k), layout.split(v), strict=True)
    return layout.join([_dense(*piece) for piece in pieces])


def chosen_kernel(layout: Layout, device: str, dtype: torch.dtype) -> Kernel:
    """The fastest way for some lengths on a device.

    Args:
        layout: the lengths.
        device: type of the device.
        dtype: number format of queries, keys and values.
    """
    if device == "cpu" or len(layout.runs) == 1:
        return "runs"
    if (
        device == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and variable_length_kernel() is not None
    ):
        return "varlen"
    return "runs" if len(layout.runs) <= FEW_RUNS else "rows"


def packing_text(lengths: Sequence[int], device: str, dtype: torch.dtype) -> str:
    """How full the rows are that some clips are packed in, as people read it; empty: in none.

    Args:
        lengths: tokens of each clip of a batch.
        device: type of the device.
        dtype: number format of queries, keys and values.
    """
    layout = Layout(tuple(sorted(lengths)))
    if chosen_kernel(layout, device, dtype) != "rows":
        return ""
    rows = _rows(layout)
    filled = 100 * fill_ratio(layout.lengths, rows)
    return f"attention in rows of {_fullest(layout, rows):,} tokens, {filled:.0f} % filled"


def _rows(layout: Layout) -> list[list[int]]:
    """Which clips lie in which row of ``ROW_LENGTH`` tokens, or as long as the longest clip."""
    return best_fit(layout.lengths, max(ROW_LENGTH, *layout.lengths))


def _fullest(layout: Layout, rows: Sequence[Sequence[int]]) -> int:
    """Tokens of the fullest row, which all are as long as."""
    return max(sum(layout.lengths[i] for i in row) for row in rows)


def _in_rows(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Attention among the clips of each row; a row's padding is a clip of its own."""
    rows = _rows(layout)
    length = _fullest(layout, rows)
    firsts = [0, *accumulate(layout.lengths)]
    index = torch.zeros(len(rows), length, dtype=torch.long)
    clip = torch.full((len(rows), length), -1)
    for number, row in enumerate(rows):
        place = 0
        for i in row:
            ahead = place + layout.lengths[i]
            index[number, place:ahead] = torch.arange(firsts[i], firsts[i + 1])
            clip[number, place:ahead] = i
            place = ahead
    taken = clip.flatten() >= 0
    back = index.flatten()[taken].argsort()
    places = taken.nonzero()[:, 0][back].to(q.device)
    mask = (clip[:, None, :, None] == clip[:, None, None, :]).to(q.device)
    index = index.to(q.device)
    packed = _dense(q[index], k[index], v[index], mask)
    return packed.flatten(0, 1)[places]


def _dense(
    q: Float[Tensor, "clips queries head dim"],
    k: Float[Tensor, "clips keys head dim"],
    v: Float[Tensor, "clips keys head dim"],
    mask: Bool[Tensor, "clips 1 queries keys"] | None = None,
) -> Float[Tensor, "clips queries head dim"]:
    """Attention among clips of equal length; the mask is True where a query may look."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)


@lru_cache(maxsize=1)
def variable_length_kernel() -> Callable[..., Any] | None:
    """Torch's variable-length attention, where this torch has it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    needed = {"query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"}
    return varlen_attn if needed <= set(inspect.signature(varlen_attn).parameters) else None


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, dim: int, num_heads: int) -> None:
        """Make projections with random weights."""
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Let every token look at its clip."""
        heads = "tokens (qkv head dim) -> qkv tokens head dim"
        q, k, v = rearrange(self.qkv(x), heads, qkv=3, head=self.num_heads)
        return self.out(attention(q, k, v, layout).flatten(1))


class AttentionPool(nn.Module):
    """One learned query looks at each clip.

    Source: ElasticAST (arXiv:2407.08691), masked attention pooling.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        """Make a query and projections with random values."""
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(dim))
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips dim"]:
        """One vector for each clip."""
        q = rearrange(self.to_q(self.query), "(head dim) -> 1 1 head dim", head=self.num_heads)
        heads = "tokens (kv head dim) -> kv tokens head dim"
        k, v = rearrange(self.to_kv(x), heads, kv=2, head=self.num_heads)
        pooled = [
            _dense(q.expand(len(keys), -1, -1, -1), keys, values).flatten(1)
            for keys, values in zip(layout.split(k), layout.split(v), strict=True)
        ]
        return self.out(torch.cat(pooled))
