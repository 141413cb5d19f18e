"""HTS-AT: attention in shifted windows of a folded spectrogram, evidence for each class over time.

Source: RetroCirce/HTS-Audio-Transformer 2e29471, ``model/htsat.py``; HTS-AT (arXiv:2202.00874).

Absorbed here: the batch norm in front is a scale and a shift of each mel bin; log-mels are
decibels, which mean 0 and deviation ln(10)/20 make of natural logs; the convolution over the last
map and the mean over time behind it are one linear layer on means; a group whose grid is smaller
than the window has windows, and a table, of that size; kernels of the Fourier transform, filters,
masks, indices and an unused head are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from melastic.checkpoints.convert.common import (
    Facts,
    assemble,
    read_labels,
    read_task,
)
from melastic.checkpoints.convert.tensors import OfficialState, read_ratio
from melastic.classifier import Classifier
from melastic.config import (
    TAPS,
    Fold,
    FrontendConfig,
    MeanPooling,
    ModelConfig,
    PatchConfig,
    SlaneyMel,
    TokenSemanticPooling,
    WindowConfig,
)
from melastic.errors import InputError, unknown_name
from melastic.frontend.slaney import slaney_filters
from melastic.patches.fold import FoldRule, folded_grid
from melastic.patches.grid import FreqTime

BN_EPS = 1e-5
"""Added to the variance in the official batch norm."""
DECIBEL = math.log(10) / 20
"""Half a decibel in natural logs of power: the deviation that makes spectrograms decibels."""
SPEC_SIZE = 256
"""Side of the image where neither masks nor facts say it (frames)."""
TRANSFORM = 1024
"""Samples of the Fourier transform where the file holds no kernels."""
BLOCK = "layers.{}.blocks.{}."
SLANEY = SlaneyMel()


@dataclass(frozen=True, slots=True, kw_only=True)
class HtsatFacts(Facts):
    """What an HTS-AT file does not hold."""

    sample_rate: int = 32_000
    """Samples per second that the weights were trained on (Hz)."""
    mean: float = 0.0
    """Subtracted from log-mels; 0: the weights' own statistics follow."""
    std: float = DECIBEL
    """Half of what log-mels are divided by; ln(10)/20 makes them decibels."""
    low_hz: float = SLANEY.low_hz
    """Lower edge of the first mel filter (Hz)."""
    high_hz: float = SLANEY.high_hz
    """Upper edge of the last mel filter (Hz)."""
    spec_size: int | None = None
    """Side of the image (frames); None: read off the masks, or 256."""
    window_size: int | None = None
    """Side of a window (tokens); None: read off."""
    num_mels: int | None = None
    """Mel bins; None: read off."""
    num_heads: Sequence[int] | None = None
    """Attention heads of each group; None: read off."""
    fold: str = "stretch"
    """How clips of any length become images: "stretch" (official), "tile" (official inference of
    short clips), or "bands" (ours: nothing stretched, no clip too long)."""


def convert(state: OfficialState, facts: HtsatFacts) -> Classifier:
    """An HTS-AT.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is contradicted.
    """
    kernel = state.take("patch_embed.proj.weight", None, 1, None, None)[:, 0]
    dim, patch = len(kernel), FreqTime(*kernel.shape[1:])
    tensors = {
        "patch_embed.kernel": kernel,
        "patch_embed.bias": state.take("patch_embed.proj.bias", dim),
        **state.take_linear("patch_embed.norm", "patch_embed.norm", dim),
        **_bin_scale(state),
    }
    num_mels = len(tensors["patch_embed.bin_scale"])
    _agree("num_mels", facts.num_mels, num_mels)
    frontend = _frontend(state, facts, num_mels)
    masks = {name: state.shape(f"{name}attn_mask") for name in _blocks(state)}
    config, encoder = _encoder(state, dim)
    _agree(
        "num_heads", None if facts.num_heads is None else tuple(facts.num_heads), config.num_heads
    )
    _agree("window_size", facts.window_size, max(config.windows))
    fold = _fold(state, facts, masks, config, patch.time, num_mels)
    pooling, head = _head(state, config.dim)
    if isinstance(pooling, TokenSemanticPooling):
        rows = fold.frames // fold.bands // (patch.freq * 2**config.merges)
        if rows != pooling.rows:
            raise InputError(
                f"an image of {fold.frames} rows in {fold.bands} bands ends in {rows} rows a band, "
                f"the file's tscam_conv weighs {pooling.rows}; give another spec_size"
            )
    state.drop(ending=("attn_mask", "relative_position_index", "num_batches_tracked"))
    state.finish()
    return assemble(
        ModelConfig(
            name=state.origin,
            labels=read_labels(facts, len(head["head.linear.bias"])),
            task=read_task(facts),
            frontend=frontend,
            patches=PatchConfig(
                patch=patch, stride=patch, fold=fold, bin_scale=True, norm_eps=config.norm_eps
            ),
            positions=None,
            encoder=config,
            pooling=pooling,
            head_norm_eps=None,
        ),
        tensors | encoder | head,
    )


def _bin_scale(state: OfficialState) -> dict[str, Tensor]:
    """The batch norm of mel bins as a scale and a shift."""
    weight = state.take("bn0.weight", None)
    bins = len(weight)
    bias = state.take("bn0.bias", bins)
    if "bn0.running_mean" in state:
        mean, var = state.take("bn0.running_mean", bins), state.take("bn0.running_var", bins)
    else:
        mean, var = torch.zeros(bins), torch.ones(bins)
        state.assume("statistics", "mean 0, variance 1")
    scale = weight / torch.sqrt(var + BN_EPS)
    state.absorb("the batch norm in front is a scale and a shift of each mel bin")
    return {"patch_embed.bin_scale": scale, "patch_embed.bin_shift": bias - mean * scale}


def _frontend(state: OfficialState, facts: HtsatFacts, num_mels: int) -> FrontendConfig:
    """The front end that the facts describe, checked against filters that the file may hold."""
    kernels = state.shape("spectrogram_extractor.stft.conv_real.weight")
    size = TRANSFORM if kernels is None else kernels[-1]
    window_ms = 1000 * size / facts.sample_rate
    while int(facts.sample_rate * window_ms / 1000) < size:
        window_ms = math.nextafter(window_ms, math.inf)
    if "logmel_extractor.melW" in state:
        held = state.take("logmel_extractor.melW", size // 2 + 1, num_mels).T
        made = slaney_filters(num_mels, size, facts.sample_rate, facts.low_hz, facts.high_hz)
        if (held - made).abs().max() > 1e-3 * made.max():
            raise InputError(
                f"{facts.sample_rate} Hz with filters from {facts.low_hz:g} to {facts.high_hz:g} "
                "Hz are not what the file's filters (logmel_extractor.melW) were made with"
                f"{_remedy(held, size)}"
            )
    state.drop("spectrogram_extractor.", "logmel_extractor.")
    state.absorb("log-mels are decibels, as mean 0 and deviation ln(10)/20 make them")
    return FrontendConfig(
        sample_rate=facts.sample_rate,
        num_mels=num_mels,
        hop_ms=facts.hop_ms,
        window_ms=window_ms,
        mean=facts.mean,
        std=facts.std,
        slaney=SlaneyMel(low_hz=facts.low_hz, high_hz=facts.high_hz),
    )


def _remedy(held: Tensor, size: int) -> str:
    """Facts that make the filters of the file, in words."""
    for rate in (32_000, 16_000, 48_000, 44_100, 22_050, 8_000):
        for low in (50.0, 0.0, 20.0):
            for high in (14_000.0, rate / 2, 8_000.0):
                made = slaney_filters(len(held), size, rate, low, high)
                if (held - made).abs().max() <= 1e-3 * held.max():
                    return f"; give sample_rate {rate}, low_hz {low:g}, high_hz {high:g}"
    return "; give sample_rate, low_hz and high_hz"


def _blocks(state: OfficialState) -> list[str]:
    """Starts of the names in all blocks, in order."""
    groups = range(state.count("layers.{}."))
    return [
        BLOCK.format(i, j) for i in groups for j in range(state.count(f"layers.{i}.blocks.{{}}."))
    ]


def _encoder(state: OfficialState, dim: int) -> tuple[WindowConfig, dict[str, Tensor]]:
    """The groups and what is between them; all sizes are read off."""
    ours: dict[str, Tensor] = {}
    depths, heads, windows = [], [], []
    groups = max(1, state.count("layers.{}."))
    for i in range(groups):
        width = dim * 2**i
        depths.append(max(1, state.count(f"layers.{i}.blocks.{{}}.")))
        for j in range(depths[-1]):
            there, here = BLOCK.format(i, j), f"encoder.groups.{i}.{j}."
            ours |= state.take_linear(f"{there}norm1", f"{here}norm1", width)
            qkv = state.take_linear(f"{there}attn.qkv", f"{here}attention.qkv", 3 * width, width)
            ours |= qkv
            ours |= state.take_linear(f"{there}attn.proj", f"{here}attention.out", width, width)
            table = state.take(f"{there}attn.relative_position_bias_table", None, None)
            ours[f"{here}attention.offsets"] = table
            ours |= state.take_linear(f"{there}norm2", f"{here}norm2", width)
            ours |= state.take_linear(f"{there}mlp.fc1", f"{here}mlp.0", None, width)
            hidden = len(ours[f"{here}mlp.0.weight"])
            ours |= state.take_linear(f"{there}mlp.fc2", f"{here}mlp.2", width, hidden)
        heads.append(table.shape[1])
        windows.append((math.isqrt(len(table)) + 1) // 2)
        if i + 1 < groups:
            there, here = f"layers.{i}.downsample.", f"encoder.merges.{i}."
            ours |= state.take_linear(f"{there}norm", f"{here}norm", 4 * width)
            reduction = state.take(f"{there}reduction.weight", 2 * width, 4 * width)
            ours[f"{here}reduction.weight"] = reduction
    ours |= state.take_linear("norm", "encoder.norm", width)
    config = WindowConfig(
        embed_dim=dim,
        depths=tuple(depths),
        num_heads=tuple(heads),
        windows=tuple(windows),
        mlp_ratio=read_ratio(hidden, width),
    )
    return config, ours


def _fold(
    state: OfficialState,
    facts: HtsatFacts,
    masks: dict[str, tuple[int, ...] | None],
    config: WindowConfig,
    stride: int,
    num_mels: int,
) -> Fold:
    """The image: its side follows from the windows of a shifted block."""
    read = None
    for name, shape in masks.items():
        if shape is not None and read is None:
            group = int(name.split(".")[1])
            read = stride * 2**group * config.windows[group] * math.isqrt(shape[0])
    if read is not None:
        _agree("spec_size", facts.spec_size, read)
    elif facts.spec_size is None:
        state.assume("spec_size", SPEC_SIZE)
    size = read or facts.spec_size or SPEC_SIZE
    rules: tuple[FoldRule, ...] = get_args(FoldRule)
    for rule in rules:
        if rule == facts.fold:
            if num_mels > size:
                raise InputError(
                    f"an image holds at most as many mel bins as it has rows, got {num_mels} and "
                    f"{size}; give another spec_size"
                )
            bands = size // num_mels
            whole = Fold(frames=size, bands=bands, merges=config.merges, rule="stretch")
            folded_grid(FreqTime(num_mels, size * bands), FreqTime(stride, stride), whole)
            return replace(whole, rule=rule)
    raise unknown_name("fold", facts.fold, rules)


def _head(
    state: OfficialState, dim: int
) -> tuple[TokenSemanticPooling | MeanPooling, dict[str, Tensor]]:
    """The convolution over the last map as a linear layer; or the plain head, if there is none."""
    if "tscam_conv.weight" not in state:
        return MeanPooling(), state.take_linear("head", "head.linear", None, dim)
    state.drop("head.")
    weight = state.take("tscam_conv.weight", None, dim, None, TAPS)
    state.absorb("convolution and mean over time are a linear layer on means over time")
    return TokenSemanticPooling(rows=weight.shape[2]), {
        "head.linear.weight": weight.flatten(1),
        "head.linear.bias": state.take("tscam_conv.bias", len(weight)),
    }


def _agree(fact: str, given: object, read: object) -> None:
    """Refuse a fact that the file contradicts."""
    if given is not None and given != read:
        raise InputError(f"the file says {fact} {read}, got {given}; leave {fact} out")
