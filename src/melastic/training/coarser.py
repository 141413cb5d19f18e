"""Model, view and draws of a phase: those of the whole run at a lower time resolution."""

from dataclasses import replace
from typing import Any, Literal

from melastic.patches.dials import Pooling, plain_size
from melastic.patches.grid import FreqTime, Size, freq_time
from melastic.patches.view import View
from melastic.training.config import ModelChoice, TrainConfig
from melastic.training.curriculum import Draws
from melastic.training.phases import Phase


def coarser_model(choice: ModelChoice, phase: Phase) -> ModelChoice:
    """The model of a phase: the same places in time, fewer of them.

    Args:
        choice: the whole run's model.
        phase: what lowers its resolution, and how much.
    """
    factor, own = phase.factor, choice.architecture
    size = freq_time(own.input_size)
    if phase.operator == "patch":
        stride = None if own.stride is None else _wider(own.stride, factor)
        change: dict[str, Any] = {"patch": _wider(own.patch, factor), "stride": stride}
    else:
        frames = max(1, round(size.time / factor))
        change = {"hop_ms": own.hop_ms * factor, "input_size": (size.freq, frames)}
    return choice if factor == 1 else replace(choice, architecture=replace(own, **change))


def coarser_view(config: TrainConfig, phase: Phase) -> View:
    """How clips become tokens in a phase.

    Args:
        config: the whole run's.
        phase: what lowers its resolution, and how much.
    """
    view, own = config.view, config.model.architecture.hop_ms
    if phase.factor == 1:
        return view
    if phase.operator == "hop":
        return view if view.hop_ms is None else replace(view, hop_ms=view.hop_ms * phase.factor)
    if phase.operator == "patch":
        return view if view.patch is None else replace(view, patch=_wider(view.patch, phase.factor))
    hop_ms = own if view.hop_ms is None else view.hop_ms
    return replace(view, hop_ms=hop_ms, pooling=_pooled(view.pooling, phase))


def coarser_draws(draws: Draws, phase: Phase) -> Draws:
    """What is drawn in a phase: as much coarser as its model.

    Args:
        draws: the whole run's.
        phase: what lowers its resolution, and how much.
    """
    factor = phase.factor
    if factor == 1:
        return draws
    if phase.operator == "hop":
        return replace(draws, hops_ms=tuple(factor * hop_ms for hop_ms in draws.hops_ms))
    if phase.operator == "patch":
        return replace(draws, patches=tuple(_wider(size, factor) for size in draws.patches))
    return replace(draws, poolings=tuple(_pooled(one, phase) for one in draws.poolings))


def _wider(size: Size, factor: float) -> int | tuple[int, int]:
    """A patch size with more frames."""
    patch = freq_time(size)
    return plain_size(FreqTime(patch.freq, int(patch.time * factor)))


def _pooled(own: Pooling, phase: Phase) -> Pooling:
    """The pooling of a phase on top of one that is there anyway."""
    kind: Literal["mean", "max"] = "max" if phase.operator == "max" else "mean"
    return Pooling(kind=kind, factor=own.factor * int(phase.factor))
