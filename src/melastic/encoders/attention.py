"""Multi-head attention within each clip of a ragged batch. One entry; the kernel is chosen here."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from melastic.patches.batch import Layout


def attention(
    q: Float[Tensor, "tokens head dim"],
    k: Float[Tensor, "tokens head dim"],
    v: Float[Tensor, "tokens head dim"],
    layout: Layout,
) -> Float[Tensor, "tokens head dim"]:
    """Softmax attention in which no token sees another clip.

    Equal lengths are one dense call. Different lengths are one call for each run of equal lengths
    (no padding, no mask: the fastest way on a CPU), or the variable-length kernel of torch for half
    precision on CUDA.
    """
    if len(layout.runs) > 1 and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        kernel = variable_length_kernel()
        if kernel is not None:
            ends, longest = layout.cu_seqlens(q.device), max(layout.lengths)
            return kernel(q, k, v, ends, ends, longest, longest)
    pieces = zip(layout.split(q), layout.split(k), layout.split(v), strict=True)
    return layout.join([_dense(*piece) for piece in pieces])


def _dense(
    q: Float[Tensor, "clips queries head dim"],
    k: Float[Tensor, "clips keys head dim"],
    v: Float[Tensor, "clips keys head dim"],
) -> Float[Tensor, "clips queries head dim"]:
    """Attention among clips of equal length."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


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
