"""What a model sees of a clip through a view: its frames, its cost, the spectrogram itself."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melastic.classifier import Classifier, Prediction
from melastic.config import FrontendConfig, ModelConfig
from melastic.data.loader import longest_frames, seen_frames
from melastic.data.manifest import Clip
from melastic.errors import InputError, about
from melastic.evaluation.cost import gmacs, kept_tokens
from melastic.frontend.audio import PathOrWaveform, duration_s, samples_of
from melastic.frontend.compress import pool_time
from melastic.frontend.normalize import (
    frames_of,
    normalise,
    raw_spectrogram_of,
)
from melastic.inputs import Inputs
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import View
from melastic.randomness import generator


def spectrogram_through(
    waveform: Float[Tensor, " samples"], frontend: FrontendConfig, view: View
) -> Float[Tensor, "freq time"]:
    """Normalised log-mels of one clip, as evaluation computes them.

    Args:
        waveform: samples at the front end's rate.
        frontend: how spectrograms are computed.
        view: time resolution, pooling and length.

    Raises:
        InputError: if the clip is too short for the view.
    """
    whole = raw_spectrogram_of(waveform, frontend, hop_ms=view.hop_ms)
    pooled = pool_time(whole, view.pooling)[:, : longest_frames(view, frontend)]
    return normalise(pooled, frontend, view.step_ms(frontend.hop_ms))


def clip_through(model: Classifier, waveform: Float[Tensor, " samples"], view: View) -> Inputs:
    """What a model is called with, or its ``embed``, to see one clip through a view.

    Args:
        model: that sees it.
        waveform: samples at the model's rate.
        view: how it is seen.

    Raises:
        InputError: if the clip is too short for the view.
    """
    bias = model.patch_embed.bias
    spectrogram = spectrogram_through(waveform.to(bias.device), model.config.frontend, view)
    return inputs_through(model.config, spectrogram.to(bias), view)


def classify_through(
    model: Classifier, path_or_waveform: PathOrWaveform, view: View, *, top: int
) -> list[Prediction]:
    """The likeliest classes of one clip, best first.

    Args:
        model: that sees it.
        path_or_waveform: an audio file, or samples (tensor, array) at the model's sample rate.
        view: how it is seen.
        top: how many classes.

    Raises:
        InputError: if the clip cannot be read, or cannot be seen so.
    """
    waveform, named = samples_of(path_or_waveform, model.config.frontend.sample_rate)
    with about(named):
        logits = model(*clip_through(model, waveform, view))
    return model.likeliest(logits[0], top)


def inputs_through(
    config: ModelConfig, spectrogram: Float[Tensor, "freq time"], view: View, index: int = 0
) -> Inputs:
    """What a model is called with to see one spectrogram through a view.

    Args:
        config: the model.
        spectrogram: normalised log-mels through the view, where the model computes.
        view: how it is seen.
        index: number of the clip, which decides what is kept of it.

    Raises:
        InputError: if the clip holds no such patch.
    """
    kept = None
    if view.keep < 1:
        kept = [kept_patches(config, spectrogram.shape[1], view, index)]
    return Inputs([spectrogram], view.patch, view.step_ms(config.frontend.hop_ms), kept)


def kept_patches(
    config: ModelConfig, frames: int, view: View, index: int
) -> Int[Tensor, " patches"]:
    """Which patches of a clip are used: evenly drawn, the same for the same clip, in order.

    Args:
        config: the model.
        frames: of the clip.
        view: patch size, and the share that is kept.
        index: number of the clip.

    Raises:
        InputError: if the clip holds no such patch.
    """
    patch = None if view.patch is None else freq_time(view.patch)
    patches = config.patches.grid(FreqTime(config.frontend.num_mels, frames), patch).num_patches
    drawn = torch.randperm(patches, generator=generator(0, "kept", index))
    return drawn[: kept_tokens(patches, view.keep)].sort().values


def frames_through(samples: int, frontend: FrontendConfig, view: View) -> int:
    """Frames of such a spectrogram, from the geometry alone; 0 if the clip is too short.

    Args:
        samples: of the clip, at the front end's rate.
        frontend: how spectrograms are computed.
        view: time resolution, pooling and length.

    Raises:
        InputError: if the frame shift is shorter than a sample.
    """
    frames = frames_of(samples, frontend, hop_ms=view.hop_ms) // view.pooling.factor
    return frames and seen_frames(frames, view, frontend)


def gmacs_through(samples: int, config: ModelConfig, view: View) -> float:
    """Multiply-adds (10^9) of a model for one clip, exactly.

    Args:
        samples: of the clip, at the model's rate.
        config: the model.
        view: how the clip becomes tokens.

    Raises:
        InputError: if the clip is too short for the view.
    """
    frontend = config.frontend
    frames = frames_through(samples, frontend, view)
    if not frames:
        raise InputError(
            f"a clip of {samples} samples is too short for the view '{view}'; give a longer clip"
        )
    patch = None if view.patch is None else freq_time(view.patch)
    return gmacs(config, FreqTime(frontend.num_mels, frames), patch=patch, keep=view.keep)


def readable_samples(clips: Sequence[Clip], sample_rate: int) -> dict[int, int]:
    """Samples of the clips that can be opened, by index, from the headers of their files.

    Args:
        clips: from a manifest.
        sample_rate: samples per second (Hz).
    """
    found: dict[int, int] = {}
    for index, clip in enumerate(clips):
        try:
            length_s = duration_s(clip.path)
        except InputError:
            continue
        end_s = length_s if clip.end_s is None else min(clip.end_s, length_s)
        found[index] = round(max(0.0, end_s - clip.start_s) * sample_rate)
    return found
