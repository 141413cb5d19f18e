"""Parameter values and inputs from names and formulas, so that a reference stores no weights."""

import hashlib
import math

import torch

EMBEDDINGS = {
    "pos_embed",
    "cls_token",
    "dist_token",
    "cls_token_head",
    "cls_token_tail",
    "pos_embed_freq",
    "pos_embed_time",
    "attn_pool_queries",
}


def fill(name, shape, seed=0):
    """The values of one parameter."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
    x = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("A_log", "A_b_log"):
        steps = torch.arange(1, shape[-1] + 1, dtype=torch.float64)
        return (torch.log(steps).expand(*shape) + 0.1 * x).float()
    if leaf in ("D", "D_b"):
        return (1 + 0.1 * x).float()
    if name.endswith(("dt_proj.bias", "dt_proj_b.bias")):
        return (-3.5 + 0.7 * x).float()
    if len(shape) == 1:
        return (1 + 0.1 * x if leaf == "weight" else 0.05 * x).float()
    if leaf in EMBEDDINGS:
        return (0.3 * x).float()
    return (x / math.sqrt(math.prod(shape[1:]))).float()


def filled(shapes, seed=0):
    """A whole state dict."""
    return {name: fill(name, shape, seed) for name, shape in shapes.items()}


def spectrogram(frames, bins=128, batch=1, seed=0):
    """A smooth input that looks like a log-mel, shape (batch, frames, bins)."""
    t = torch.arange(frames, dtype=torch.float64)[None, :, None]
    f = torch.arange(bins, dtype=torch.float64)[None, None, :]
    b = torch.arange(batch, dtype=torch.float64)[:, None, None] + seed
    x = (
        torch.sin(0.031 * t * (1 + 0.1 * b) + 0.17 * f)
        + 0.5 * torch.cos(0.0023 * t * f / (1 + b) + b)
        + 0.3 * torch.sin(1.7 * t + 0.9 * f * b)
    )
    return (x * 0.5).float()
