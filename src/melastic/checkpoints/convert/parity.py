"""How far a converted model is from the official maths."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.checkpoints.convert.official import (
    Tensors,
    ast_logits,
    elasticast_logits,
    flexiast_logits,
    hf_as_ast,
)
from melastic.checkpoints.convert.official_aum import aum_logits
from melastic.checkpoints.convert.official_htsat import htsat_logits
from melastic.checkpoints.convert.tensors import official_tensors
from melastic.classifier import Classifier
from melastic.config import ClassTokenPooling, MeanPooling, TransformerConfig
from melastic.patches.grid import FreqTime

LIMIT = 1e-3
"""Largest difference of logits that rounding explains."""
QUARTERS = ((4, 4), (2, 2), (3, 3), (5, 5), (8, 8), (12, 12), (4, 2), (4, 8))
"""Patch sizes that a flexible model is tried at, in quarters of its own."""
SCANNED = 2100
"""Most patches of an input that is scanned token by token, which is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A converted model and the official maths, given the same."""

    input: str
    """Mel bins x frames, and the patch size or the lengths where they vary."""
    difference: float
    """Largest absolute difference of a logit; not a number where one of the two is none."""

    @property
    def passed(self) -> bool:
        """Whether rounding explains the difference."""
        return self.difference <= LIMIT


@torch.no_grad()
def compare(model: Classifier, state_dict: Any, origin: str) -> list[Comparison]:
    """Logits of a converted model against those of the official maths, on made-up inputs.

    Args:
        model: what the tensors were converted to.
        state_dict: the official tensors.
        origin: where they come from.

    Returns:
        One comparison for each input; none where the official file makes no logits because the
        head is new.
    """
    tensors = {name: value.float() for name, value in official_tensors(state_dict)[0].items()}
    if origin == "flexiast":
        return list(_compare_flexiast(model, tensors))
    if origin == "elasticast":
        return list(_compare_elasticast(model, tensors))
    if origin == "aum":
        return list(_compare_aum(model, tensors))
    if origin == "htsat":
        return list(_compare_htsat(model, tensors))
    if origin == "hf-ast":
        return list(_compare_ast(model, hf_as_ast(tensors)))
    if origin in ("ast", "ssast") and "mlp_head.1.weight" in tensors:
        return list(_compare_ast(model, tensors))
    return []


def made_up(mels: int, frames: int, clip: int = 0) -> Float[Tensor, "{mels} {frames}"]:
    """A spectrogram from a formula: waves along both axes, one of them fast."""
    freq = torch.arange(mels, dtype=torch.float64)[:, None]
    time = torch.arange(frames, dtype=torch.float64)
    slow = torch.sin(0.031 * time * (1 + 0.1 * clip) + 0.17 * freq)
    mixed = 0.5 * torch.cos(0.0023 * time * freq / (1 + clip) + clip)
    return (0.5 * (slow + mixed + 0.3 * torch.sin(1.7 * time + 0.9 * freq))).float()


def _compare_ast(model: Classifier, tensors: Tensors) -> Iterator[Comparison]:
    """Inputs of the shortest and the longest size that has one patch for each position."""
    config, columns = model.config, _grid(model).time
    patch, stride = config.patches.patch.time, config.patches.stride.time
    shortest = (columns - 1) * stride + patch
    for frames in sorted({shortest, shortest + stride - 1}):
        x = made_up(config.frontend.num_mels, frames)[None]
        official = ast_logits(
            tensors,
            x,
            config.patches.stride,
            _heads(model),
            eps=config.encoder.norm_eps,
            head_eps=config.head_norm_eps or 0.0,
            pooling="class" if isinstance(config.pooling, ClassTokenPooling) else "mean",
        )
        yield _comparison(_size(x), official, model(x))


def _compare_flexiast(model: Classifier, tensors: Tensors) -> Iterator[Comparison]:
    """One input, cut into patches of several sizes."""
    config, own, grid = model.config, model.config.patches.patch, _grid(model)
    x = made_up(config.frontend.num_mels, grid.time * own.time)[None]
    for quarters in QUARTERS:
        patch = FreqTime(*(max(1, n * part // 4) for n, part in zip(own, quarters, strict=True)))
        if patch.freq <= x.shape[1] and patch.time <= x.shape[2]:
            official = flexiast_logits(tensors, x, grid, patch, _heads(model))
            yield _comparison(f"{_size(x)}, patch {patch}", official, model(x, patch))


def _compare_elasticast(model: Classifier, tensors: Tensors) -> Iterator[Comparison]:
    """Clips of several lengths in one call, packed in long rows and in short ones."""
    config, patch, grid = model.config, model.config.patches.patch, _grid(model)
    counts = (grid.time, max(1, grid.time // 2), min(3, grid.time), 1, max(1, grid.time // 5))
    mels = config.frontend.num_mels
    clips = [made_up(mels, count * patch.time, clip) for clip, count in enumerate(counts)]
    lengths, ours = ", ".join(str(clip.shape[1]) for clip in clips), model(clips)
    for most in (grid.freq * sum(counts), grid.freq * grid.time):
        official = elasticast_logits(
            tensors,
            clips,
            patch,
            _heads(model),
            row_tokens=most,
            pooling="mean" if isinstance(config.pooling, MeanPooling) else "attention",
        )
        yield _comparison(f"{mels} x ({lengths}), rows of {most} tokens", official, ours)


def _compare_aum(model: Classifier, tensors: Tensors) -> Iterator[Comparison]:
    """Two clips in patches of the model's own size, and one in patches of several sizes."""
    config, patches, grid = model.config, model.config.patches, _grid(model)
    pooling, mels = config.pooling, config.frontend.num_mels
    place = pooling.place if isinstance(pooling, ClassTokenPooling) else "none"
    frames = (grid.time - 1) * patches.stride.time + patches.patch.time
    clips = torch.stack([made_up(mels, frames, clip) for clip in range(2)])
    tries = [(f"{_size(clips)}, 2 clips", clips, patches.patch)]
    for quarters in ((8, 8), (2, 2), (4, 8), (3, 5)):
        pairs = zip(patches.patch, quarters, strict=True)
        patch = FreqTime(*(max(1, n * part // 4) for n, part in pairs))
        if patch.freq <= mels and patch.time <= frames:
            tries.append((f"{_size(clips)}, patch {patch}", clips[:1], patch))
    for name, x, patch in tries:
        cut = patches.grid(FreqTime(mels, frames), patch)
        if cut.num_patches <= SCANNED or patch == patches.patch:
            official = aum_logits(tensors, x, grid, patch, cut.stride, place)
            yield _comparison(name, official, model(x, patch))


def _compare_htsat(model: Classifier, tensors: Tensors) -> Iterator[Comparison]:
    """Clips that fill the image, are stretched or repeated to it, or are longer; in decibels.

    Our own rule has no official counterpart but for clips that fill all bands exactly.
    """
    fold, mels = model.config.patches.fold, model.config.frontend.num_mels
    if fold is None:
        return
    full = fold.frames * fold.bands
    lengths = {
        "bands": (full,),
        "tile": (full, full // 4),
        "stretch": (full, full // 4, 3 * full // 2),
    }
    for frames in lengths[fold.rule]:
        x = 20 * torch.stack([made_up(mels, frames, clip) for clip in range(2)]) - 30
        official = htsat_logits(tensors, x, fold.frames, fold.rule)
        yield _comparison(f"{_size(x)}, 2 clips", official, model(x))


def _grid(model: Classifier) -> FreqTime:
    """Cells of the position table; none where there is no table."""
    positions = model.config.positions
    return FreqTime(0, 0) if positions is None else positions.grid


def _heads(model: Classifier) -> int:
    """Attention heads; none where the encoder is no transformer."""
    encoder = model.config.encoder
    return encoder.num_heads if isinstance(encoder, TransformerConfig) else 0


def _size(x: Float[Tensor, "clips freq time"]) -> str:
    """Mel bins x frames."""
    return f"{x.shape[1]} x {x.shape[2]}"


def _comparison(name: str, official: Tensor, ours: Tensor) -> Comparison:
    """The largest difference."""
    return Comparison(input=name, difference=float((official - ours).abs().max()))
