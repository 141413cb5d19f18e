"""What a classifier is called with: one form of it, after everything that could be wrong."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from melastic.errors import InputError
from melastic.patches.dials import check_hop
from melastic.patches.grid import Size

Spectrograms = Sequence[Float[Tensor, "freq _"]] | Float[Tensor, "clips freq time"]
Hops = float | Sequence[float] | None
"""A frame shift for all clips, or one for each clip (ms); None: the model's own."""


class Inputs(NamedTuple):
    """What a classifier is called with: ``model(*inputs)``, ``model.embed(*inputs)``."""

    spectrograms: Spectrograms
    """Normalised log-mels, ``freq time`` each."""
    patch: Size | None
    """Patch size (mel bins, frames); None: the model's own."""
    hop_ms: Hops
    kept: Sequence[Int[Tensor, " _"]] | None
    """For each clip, which of its patches are used; None: all."""


def checked(
    spectrograms: Spectrograms, num_mels: int, dtype: torch.dtype
) -> list[Float[Tensor, "freq _"]]:
    """The clips one by one.

    Args:
        spectrograms: of all clips.
        num_mels: mel bins that each must have.
        dtype: number format of the weights; under autocast others of at most 32 bits will do.

    Raises:
        InputError: if there are none, or one has another shape or, on a CPU, is not finite: a
            device would have to be waited for.
    """
    clips = list(spectrograms)
    if not clips:
        raise InputError("a batch needs at least one spectrogram, got none")
    if torch.compiler.is_exporting() and any(
        isinstance(size, torch.SymInt) for size in (len(spectrograms), *clips[0].shape)
    ):
        raise InputError(
            "a model is exported for one number of clips and frames, got a free one; leave "
            "dynamic_shapes out"
        )
    for i, clip in enumerate(clips):
        if not isinstance(clip, Tensor) or not clip.is_floating_point():
            kind = clip.dtype if isinstance(clip, Tensor) else type(clip).__name__
            raise InputError(
                f"spectrogram {i} must be a tensor of real numbers, got {kind}; use "
                "melastic.log_mel or model.spectrogram"
            )
        if clip.ndim != 2 or clip.shape[0] != num_mels or clip.shape[1] < 1:
            raise InputError(
                f"spectrogram {i} must have the shape ({num_mels} mel bins, frames), got "
                f"{tuple(clip.shape)}; use melastic.log_mel or model.spectrogram"
            )
        casts = torch.is_autocast_enabled(clip.device.type) and clip.dtype != torch.float64
        if clip.dtype != dtype and not casts:
            raise InputError(
                f"spectrogram {i} must have the number format of the weights, {dtype}, got "
                f"{clip.dtype}; use spectrogram.to({dtype})"
            )
        if not _finite(clip):
            raise InputError(
                f"spectrogram {i} must be finite, found NaN or infinity; check the audio"
            )
    return clips


def _finite(clip: Float[Tensor, "freq time"]) -> bool:
    """Whether a clip can be used, as far as that can be told without waiting."""
    if clip.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    total = clip.sum(dtype=torch.promote_types(clip.dtype, torch.float32))
    return bool(torch.isfinite(total))


def one_hop_each(hop_ms: Hops, clips: int, own_ms: float) -> list[float]:
    """A frame shift for each clip (ms).

    Args:
        hop_ms: one for all, or one for each; None: the model's own.
        clips: how many there are.
        own_ms: the model's own (ms).

    Raises:
        InputError: if there are more or fewer, or one is not positive.
    """
    if hop_ms is None:
        return [own_ms] * clips
    given: Any = hop_ms.tolist() if hasattr(hop_ms, "tolist") else hop_ms
    several = isinstance(given, Sequence) and not isinstance(given, str)
    hops = list(given) if several else [given] * clips
    if len(hops) != clips:
        raise InputError(f"hop_ms is one number or one for each of {clips} clips, got {hops}")
    for hop in hops:
        check_hop(hop)
    return hops


def stacked(
    clips: Sequence[Float[Tensor, "freq _"]], frames: int
) -> Float[Tensor, "_ freq {frames}"]:
    """Clips cut to, or padded with the mean (0) to, the same number of frames."""
    if all(clip.shape[1] == frames for clip in clips):
        return torch.stack(list(clips))
    return torch.stack([functional.pad(clip, (0, frames - clip.shape[1])) for clip in clips])
