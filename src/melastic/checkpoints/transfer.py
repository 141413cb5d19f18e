"""Carry the weights of a trained model over to one with another patch size, grid, length or head.

Source: FlexiAST (arXiv:2307.09286) starts from a trained AST this way: the kernel is resized with
    the pseudo-inverse, positions bilinearly with antialias.
"""

import dataclasses
import math
from collections.abc import Collection

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from melastic.classifier import Classifier
from melastic.config import (
    TAPS,
    FactorisedGrid,
    MeanPooling,
    ModelConfig,
    TokenSemanticPooling,
)
from melastic.errors import InputError
from melastic.frontend.normalize import fixed_frames
from melastic.patches.grid import FreqTime, PatchGrid
from melastic.patches.position import placement
from melastic.patches.resize import resize_kernel


@torch.no_grad()
def transfer(source: Classifier, target: Classifier, *, leave: Collection[str] = ()) -> list[str]:
    """Give a new model the weights of a trained one.

    Kernel and positions are fitted to the new patch size, hop and grid; a pooling's own weights are
    taken over where it is of the same kind, the head where it is for the same labels, whatever the
    pooling; a model without a head was trained without its pooling.

    Args:
        source: the trained model; unchanged.
        target: the new model; its weights are overwritten.
        leave: parts that keep their random weights, such as ``"positions"``.

    Returns:
        The parts of the new model that keep their random weights.

    Raises:
        InputError: if the encoders differ, or the models read other spectrograms.
    """
    _check(source, target)
    theirs, new = source.state_dict(), target.state_dict()
    fitted = {
        "patch_embed.kernel": _kernel(source, target),
        **_positions(source, target),
        **_bin_scale(source, target),
        **_head(source, target),
    }
    fresh: set[str] = set(leave)
    if target.labels and source.labels != target.labels:
        fresh.add("head")
    if not source.labels and any(name.startswith("pool.") for name in new):
        fresh.add("pool")
    given = {name: fitted.get(name, theirs.get(name)) for name in new}
    for name, value in new.items():
        held = given[name]
        if held is None or held.shape != value.shape:
            fresh.add(_part(name))
    for name, value in new.items():
        held = given[name]
        if held is not None and _part(name) not in fresh:
            value.copy_(held)
    return sorted(fresh)


def _part(name: str) -> str:
    """The part of a model that a tensor belongs to."""
    return name.partition(".")[0]


def dropped(source: Classifier, target: Classifier) -> list[str]:
    """Parts of a trained model that the new one has no place for.

    Args:
        source: the trained model.
        target: the new one.
    """
    theirs, new = ({*map(_part, model.state_dict())} for model in (source, target))
    return sorted(theirs - new)


def beginning_as(new: ModelConfig, trained: ModelConfig, *, native: bool = False) -> ModelConfig:
    """The configuration of a new model that starts from a trained one.

    Statistics, a fixed length (in seconds), what LayerNorms add to variances, and tokens that lead
    a clip without being pooled belong to the weights; where mel bins are scaled one by one, that
    can make up for other statistics.

    Args:
        new: what the model shall be.
        trained: what the weights come from.
        native: whether clips keep their own lengths even where the trained model fixed them.
    """
    fixed = None if native else fixed_frames(trained.frontend, new.frontend.hop_ms)
    frontend = dataclasses.replace(new.frontend, fixed_frames=fixed)
    if not trained.patches.bin_scale:
        mean, std = trained.frontend.mean, trained.frontend.std
        frontend = dataclasses.replace(frontend, mean=mean, std=std)
    both = isinstance(new.pooling, MeanPooling) and isinstance(trained.pooling, MeanPooling)
    return dataclasses.replace(
        new,
        frontend=frontend,
        pooling=trained.pooling if both else new.pooling,
        encoder=dataclasses.replace(new.encoder, norm_eps=trained.encoder.norm_eps),
        head_norm_eps=trained.head_norm_eps,
    )


def _check(source: Classifier, target: Classifier) -> None:
    """Refuse models that cannot share weights."""
    ours, theirs = target.config, source.config
    if ours.encoder != theirs.encoder:
        raise InputError(
            f"weights are carried over between equal encoders, got {theirs.encoder} for "
            f"{ours.encoder}; give the new model the sizes of the trained one"
        )
    statistics = () if ours.patches.bin_scale and theirs.patches.bin_scale else ("mean", "std")
    for field in ("sample_rate", "num_mels", "window_ms", "slaney", "level", *statistics):
        there, here = (getattr(config.frontend, field) for config in (theirs, ours))
        if there != here:
            raise InputError(
                f"weights are carried over between equal front ends, {field} is {there} in the "
                f"trained model and {here} in the new one; make them equal"
            )


def _bin_scale(source: Classifier, target: Classifier) -> dict[str, Tensor]:
    """Scale and shift of mel bins that make up for other statistics of the front end."""
    scale, shift = source.patch_embed.bin_scale, source.patch_embed.bin_shift
    if scale is None or shift is None:
        return {}
    theirs, ours = source.config.frontend, target.config.frontend
    return {
        "patch_embed.bin_scale": scale * (ours.std / theirs.std),
        "patch_embed.bin_shift": shift + scale * (ours.mean - theirs.mean) / (2 * theirs.std),
    }


def _head(source: Classifier, target: Classifier) -> dict[str, Tensor]:
    """The weights of a token-semantic head for another number of rows.

    Each row of the one stands for several of the other, or for a part of one.
    """
    there, here = source.config.pooling, target.config.pooling
    if not isinstance(there, TokenSemanticPooling) or not isinstance(here, TokenSemanticPooling):
        return {}
    if source.labels != target.labels or not source.labels:
        return {}
    weight = source.head.get_parameter("linear.weight")
    apart = "classes (dim rows taps) -> classes dim taps rows"
    split = rearrange(weight, apart, taps=TAPS, rows=there.rows)
    common = math.lcm(there.rows, here.rows)
    finer = split.repeat_interleave(common // there.rows, dim=-1) * (there.rows / common)
    joined = finer.unflatten(-1, (here.rows, -1)).sum(-1)
    together = "classes dim taps rows -> classes (dim rows taps)"
    return {"head.linear.weight": rearrange(joined, together)}


def _kernel(source: Classifier, target: Classifier) -> Float[Tensor, "dim freq time"]:
    """The trained kernel at the new patch size."""
    patches = target.config.patches
    return resize_kernel(source.patch_embed.kernel, patches.patch, patches.resize)


def _positions(source: Classifier, target: Classifier) -> dict[str, Tensor]:
    """The trained positions at the places of the new table's cells."""
    new, patches = target.config.positions, target.config.patches
    if source.positions is None or source.config.positions is None or new is None:
        return {}
    spans = zip(new.grid, patches.stride, patches.patch, strict=True)
    size = FreqTime(*((count - 1) * step + patch for count, step, patch in spans))
    places = placement(
        dataclasses.replace(source.config.positions, reading="place"),
        source.config.patches,
        PatchGrid(size=size, patch=patches.patch, stride=patches.stride),
        hop_ms=target.config.frontend.hop_ms,
        own_hop_ms=source.config.frontend.hop_ms,
    )
    table = source.positions(places)
    if not isinstance(new, FactorisedGrid):
        return {"positions.table": table}
    rows = table.mean(1)
    return {"positions.freq": rows, "positions.time": table.mean(0) - rows.mean(0)}
