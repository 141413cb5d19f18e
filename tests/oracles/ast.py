"""AST as published, on official tensors: plain functions, nothing shared with the package.

Source: AST (arXiv:2104.01778); YuanGongND/ast 31088be, ``src/models/ast_models.py``.
"""

import math

import torch


def norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def attend(x, state, block, heads):
    batch, tokens, dim = x.shape
    fused = x @ state[f"{block}attn.qkv.weight"].T + state[f"{block}attn.qkv.bias"]
    q, k, v = fused.reshape(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(dim // heads)
    mixed = torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), v).reshape(batch, tokens, dim)
    return mixed @ state[f"{block}attn.proj.weight"].T + state[f"{block}attn.proj.bias"]


def perceive(x, state, block):
    hidden = x @ state[f"{block}mlp.fc1.weight"].T + state[f"{block}mlp.fc1.bias"]
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ state[f"{block}mlp.fc2.weight"].T + state[f"{block}mlp.fc2.bias"]


def ast_logits(state, spectrograms, stride, heads):
    """Logits of spectrograms (batch, time, freq), from tensors under their official names."""
    images = spectrograms[:, None].transpose(2, 3)
    weight, bias = state["v.patch_embed.proj.weight"], state["v.patch_embed.proj.bias"]
    x = torch.nn.functional.conv2d(images, weight, bias, stride).flatten(2).transpose(1, 2)
    leading = [state[name] for name in ("v.cls_token", "v.dist_token") if name in state]
    x = torch.cat([*(token.expand(len(x), -1, -1) for token in leading), x], dim=1)
    x = x + state["v.pos_embed"]
    for i in range(100):
        block = f"v.blocks.{i}."
        if f"{block}norm1.weight" not in state:
            break
        first = norm(x, state[f"{block}norm1.weight"], state[f"{block}norm1.bias"], 1e-6)
        x = x + attend(first, state, block, heads)
        second = norm(x, state[f"{block}norm2.weight"], state[f"{block}norm2.bias"], 1e-6)
        x = x + perceive(second, state, block)
    x = norm(x, state["v.norm.weight"], state["v.norm.bias"], 1e-6)
    pooled = sum(x[:, i] for i in range(len(leading))) / len(leading)
    pooled = norm(pooled, state["mlp_head.0.weight"], state["mlp_head.0.bias"], 1e-5)
    return pooled @ state["mlp_head.1.weight"].T + state["mlp_head.1.bias"]


def image_positions(table, freq, time):
    """Positions (rows, columns, dim) of an image for a spectrogram: time first, then frequency."""
    return fit_axis(fit_axis(table.transpose(0, 1), time).transpose(0, 1), freq)


def fit_axis(table, count):
    """The middle of the first axis where it is long enough, else a line between neighbours."""
    have = len(table)
    if count <= have:
        first = have // 2 - count // 2
        return table[first : first + count]
    rows = []
    for i in range(count):
        place = max((i + 0.5) * have / count - 0.5, 0.0)
        low = math.floor(place)
        high = min(low + 1, have - 1)
        rows.append(table[low] * (1 - (place - low)) + table[high] * (place - low))
    return torch.stack(rows)
