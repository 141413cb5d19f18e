"""Lower the time resolution of a finished spectrogram."""

from einops import reduce
from jaxtyping import Float
from torch import Tensor

from melastic.errors import InputError
from melastic.patches.dials import Pooling


def pool_time(
    spectrogram: Float[Tensor, "*clips freq time"], pooling: Pooling
) -> Float[Tensor, "*clips freq frames"]:
    """Let one frame stand for several; frames that fill no whole group are left out.

    Raises:
        InputError: if the spectrogram is shorter than one group.

    Source: From Coarse to Fine (arXiv:2401.08415), temporal compression by pooling.
    """
    if pooling.factor == 1:
        return spectrogram
    frames = spectrogram.shape[-1] // pooling.factor
    if not frames:
        raise InputError(
            f"a clip of {spectrogram.shape[-1]} frames cannot be pooled by {pooling.factor}; use a "
            "smaller factor"
        )
    whole = spectrogram[..., : frames * pooling.factor]
    return reduce(whole, "... (frames n) -> ... frames", pooling.kind, n=pooling.factor)
