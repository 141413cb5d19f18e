"""What a model sees of a clip through a view: its frames, its cost, the spectrogram itself."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from melastic.config import FrontendConfig, ModelConfig
from melastic.data.loader import longest_frames, seen_frames
from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs
from melastic.frontend.audio import duration_s
from melastic.frontend.compress import pool_time
from melastic.frontend.normalize import (
    frames_of,
    normalise,
    raw_spectrogram_of,
)
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import View


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
