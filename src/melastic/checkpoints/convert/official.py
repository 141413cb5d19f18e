"""The official maths once more, straight on official tensors, to check a conversion against.

Plain functions that share nothing with the model: another order of operations, explicit softmaxes,
dense masks, whole resize matrices. Slow, and for inputs that the official code takes.

Source: YuanGongND/ast 31088be, YuanGongND/ssast a1a3eec, FlexiAST 74a6ee8, ElasticAST da75493,
    transformers v5.23; as their papers and notes on their code describe them, not copied.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

Tensors = Mapping[str, Tensor]
HF_NAMES = (
    (r"^audio_spectrogram_transformer\.", "v."),
    (r"^v\.(encoder\.layer|layers)\.", "v.blocks."),
    (r"^v\.embeddings\.cls_token$", "v.cls_token"),
    (r"^v\.embeddings\.distillation_token$", "v.dist_token"),
    (r"^v\.embeddings\.position_embeddings$", "v.pos_embed"),
    (r"^v\.embeddings\.patch_embeddings\.projection\.", "v.patch_embed.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.fc2)\.", ".mlp.fc2."),
    (r"^v\.layernorm\.", "v.norm."),
    (r"^classifier\.layernorm\.", "mlp_head.0."),
    (r"^classifier\.dense\.", "mlp_head.1."),
)
"""What transformers calls the parts of an AST, in its files and in memory, and what AST does."""


def ast_logits(
    tensors: Tensors,
    spectrograms: Float[Tensor, "clips freq time"],
    stride: Sequence[int],
    num_heads: int,
    *,
    eps: float = 1e-6,
    head_eps: float = 1e-5,
    pooling: Literal["class", "mean"] = "class",
) -> Float[Tensor, "clips classes"]:
    """AST and SSAST, under AST's names.

    Args:
        tensors: by name, positions as many as the input has patches.
        spectrograms: the input.
        stride: mel bins and frames from one patch to the next.
        num_heads: attention heads.
        eps: added to the variance in the encoder's LayerNorms.
        head_eps: and in the head's.
        pooling: the mean of the leading tokens, or of all others.
    """
    kernel, bias = tensors["v.patch_embed.proj.weight"], tensors["v.patch_embed.proj.bias"]
    x = functional.conv2d(spectrograms[:, None], kernel, bias, tuple(stride))
    x = x.flatten(2).transpose(1, 2)
    leading = [tensors[n] for n in ("v.cls_token", "v.dist_token") if n in tensors]
    x = torch.cat([token.expand(len(x), 1, -1) for token in leading] + [x], dim=1)
    x = x + tensors["v.pos_embed"]

    def fused(block: str, x: Tensor) -> Sequence[Tensor]:
        return _linear(tensors, f"{block}attn.qkv", x).chunk(3, dim=-1)

    dim = x.shape[-1]
    scale = 1 / math.sqrt(dim / num_heads)
    x = _blocks(tensors, "v.blocks", x, fused, num_heads, scale, eps)
    x = _norm(tensors, "v.norm", x, eps)
    count = len(leading)
    pooled = x[:, :count].mean(1) if pooling == "class" else x[:, count:].mean(1)
    return _linear(tensors, "mlp_head.1", _norm(tensors, "mlp_head.0", pooled, head_eps))


def flexiast_logits(
    tensors: Tensors,
    spectrograms: Float[Tensor, "clips freq time"],
    grid: Sequence[int],
    patch: Sequence[int],
    num_heads: int,
) -> Float[Tensor, "clips classes"]:
    """FlexiAST at any patch size: an AST whose kernel and positions are resized.

    Args:
        tensors: by their official names.
        spectrograms: the input, of the size that the positions were learned on.
        grid: rows and columns of the stored positions.
        patch: mel bins and frames of a patch.
        num_heads: attention heads.
    """
    rows, columns = (n // p for n, p in zip(spectrograms.shape[1:], patch, strict=True))
    kernel, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed.pos_embed"]
    resized = {
        "v.patch_embed.proj.weight": kernel_at(kernel, patch),
        "v.patch_embed.proj.bias": tensors["patch_embed.proj.bias"],
        "v.pos_embed": positions_at(positions, grid, rows, columns),
    }
    return ast_logits({**tensors, **resized}, spectrograms, patch, num_heads)


def elasticast_logits(
    tensors: Tensors,
    spectrograms: Sequence[Float[Tensor, "freq _"]],
    patch: Sequence[int],
    num_heads: int,
    *,
    row_tokens: int,
    pooling: Literal["attention", "mean"] = "attention",
) -> Float[Tensor, "clips classes"]:
    """ElasticAST: clips packed in rows, a mask for each row, attention without its scale.

    Args:
        tensors: by their official names.
        spectrograms: the clips, whole numbers of patches long.
        patch: mel bins and frames of a patch.
        num_heads: attention heads.
        row_tokens: most tokens in a row.
        pooling: a query's attention, or the mean.
    """
    clips = [_placed(tensors, clip, patch) for clip in spectrograms]
    logits = []
    for row in _packed([len(clip) for clip in clips], row_tokens):
        x = torch.cat([clips[i] for i in row])[None]
        owner = torch.tensor([i for i in row for _ in range(len(clips[i]))])
        same = (owner[:, None] == owner[None, :])[None]

        def apart(block: str, x: Tensor) -> Sequence[Tensor]:
            keys = _linear(tensors, f"{block}attn.to_kv", x).chunk(2, dim=-1)
            return [_linear(tensors, f"{block}attn.to_q", x), *keys]

        x = _blocks(tensors, "blocks.modules_list", x, apart, num_heads, 1.0, 1e-6, same)
        x = _norm(tensors, "norm", x, 1e-6)
        own = torch.tensor(row)[:, None] == owner[None, :]
        if pooling == "mean":
            pooled = torch.stack([x[0, mine].mean(0) for mine in own])
        else:
            query = tensors["attn_pool_queries"].expand(1, len(row), -1)
            keys, values = _linear(tensors, "attn_pool.to_kv", x).chunk(2, dim=-1)
            query = _linear(tensors, "attn_pool.to_q", query)
            mixed = _attention(query, keys, values, num_heads, 1.0, own[None])
            pooled = _linear(tensors, "attn_pool.proj", mixed)[0]
        logits.append(_linear(tensors, "head", _norm(tensors, "mlp_norm", pooled, 1e-6)))
    return torch.cat(logits)


def hf_as_ast(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors of transformers under AST's names, queries, keys and values in one."""
    found = {}
    for name, value in tensors.items():
        for theirs, ours in HF_NAMES:
            name = re.sub(theirs, ours, name)
        found[name] = value
    for name in [name for name in found if re.search(r"\.attn\.(query|q)\.", name)]:
        long = ".query." in name
        parts = ("query", "key", "value") if long else ("q", "k", "v")
        three = [found.pop(name.replace(f".{parts[0]}.", f".{part}.")) for part in parts]
        found[name.replace(f".{parts[0]}.", ".qkv.")] = torch.cat(three)
    return found


def _linear(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(tensors: Tensors, name: str, x: Tensor, eps: float) -> Tensor:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, seen: Tensor | None
) -> Float[Tensor, "rows queries dim"]:
    """Softmax written out; ``seen`` is True where a query may look at a key."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(2, 3) * scale
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _blocks(
    tensors: Tensors,
    start: str,
    x: Tensor,
    project: Callable[[str, Tensor], Sequence[Tensor]],
    heads: int,
    scale: float,
    eps: float,
    seen: Bool[Tensor, "rows queries keys"] | None = None,
) -> Tensor:
    """Pre-norm transformer blocks, as many as there are."""
    block = 0
    while f"{start}.{block}.norm1.weight" in tensors:
        name = f"{start}.{block}."
        q, k, v = project(name, _norm(tensors, f"{name}norm1", x, eps))
        x = x + _linear(tensors, f"{name}attn.proj", _attention(q, k, v, heads, scale, seen))
        hidden = _linear(tensors, f"{name}mlp.fc1", _norm(tensors, f"{name}norm2", x, eps))
        x = x + _linear(tensors, f"{name}mlp.fc2", functional.gelu(hidden))
        block += 1
    return x


def positions_at(
    positions: Float[Tensor, "1 tokens dim"], grid: Sequence[int], rows: int, columns: int
) -> Float[Tensor, "1 _ dim"]:
    """Positions for another grid of patches; those of the leading tokens stay.

    Args:
        positions: the stored ones, of the leading tokens first.
        grid: rows and columns of patches that the others were learned on.
        rows: of the new grid.
        columns: of the new grid.
    """
    count = positions.shape[1] - math.prod(grid)
    table = positions[0, count:].T.reshape(1, -1, *grid).double()
    table = table.expand(-1, -1, -1, max(2, grid[1]))  # torch errs where one column is enlarged
    table = _resized(_resized(table, rows, table.shape[3]), rows, columns).float()
    return torch.cat([positions[:, :count], table.flatten(2).transpose(1, 2)], dim=1)


def kernel_at(kernel: Float[Tensor, "dim 1 freq time"], patch: Sequence[int]) -> Tensor:
    """A kernel for patches of another size: the pseudo-inverse of their whole resizing."""
    own = kernel.shape[2:]
    if tuple(own) == tuple(patch):
        return kernel
    matrix = _pseudo_inverse(tuple(own), tuple(patch))
    return (kernel.double().flatten(2) @ matrix.T).unflatten(-1, tuple(patch)).float()


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _pseudo_inverse(own: tuple[int, int], patch: tuple[int, int]) -> Float[Tensor, "new old"]:
    """What turns a flattened kernel of one size into one of another."""
    pixels = torch.eye(math.prod(own), dtype=torch.float64).reshape(-1, 1, *own)
    resized = functional.interpolate(pixels, patch, mode="bilinear").flatten(1)
    return torch.linalg.pinv(resized)


def _resized(table: Tensor, rows: int, columns: int) -> Tensor:
    """A picture of positions, bilinear with antialiasing."""
    return functional.interpolate(table, (rows, columns), mode="bilinear", antialias=True)


def _placed(tensors: Tensors, clip: Tensor, patch: Sequence[int]) -> Tensor:
    """Tokens of a clip with their positions, row by row."""
    (tall, wide), (mels, frames) = patch, clip.shape
    cells = [
        (row, column, clip[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide])
        for row in range(mels // tall)
        for column in range(frames // wide)
    ]
    pixels = torch.stack([cell.flatten() for _, _, cell in cells])
    rows, columns, _ = zip(*cells, strict=True)
    places = tensors["pos_embed_freq"][list(rows)] + tensors["pos_embed_time"][list(columns)]
    return _linear(tensors, "patch_embed.0", pixels) + places


def _packed(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Clips in rows, in their order: a new row where the next would make one too long."""
    rows: list[list[int]] = [[]]
    for clip, length in enumerate(lengths):
        if rows[-1] and sum(lengths[i] for i in rows[-1]) + length > most:
            rows.append([])
        rows[-1].append(clip)
    return rows
