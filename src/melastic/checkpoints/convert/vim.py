"""ImageNet weights of Vision Mamba (ViM) as a start for an AuM; the head is new.

Source: kaistmm/Audio-Mamba-AuM b0eb85d, ``src/models/mamba_models.py``, for how images become
    spectrograms: the kernel is averaged over colours, and the square grid of positions is
    interpolated along both axes (bilinear, antialias on), never cropped. hustvl/Vim (arXiv:
    2401.09417) for the weights.

Absorbed here: the position of a class token lies where the token stands, among those of the
patches; tables of rotary positions are left out.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.checkpoints.convert.aum import (
    model_config,
    take_class_tokens,
    take_mamba,
)
from melastic.checkpoints.convert.common import Facts, assemble, new_head, read_labels
from melastic.checkpoints.convert.tensors import OfficialState
from melastic.checkpoints.convert.vit import square
from melastic.classifier import Classifier
from melastic.config import PatchConfig, Standing
from melastic.errors import InputError
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.resize import interpolation_matrix, resample

UNUSED = ("head.", "rope.")
"""The classifier of images, and tables that AuM does not use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VimFacts(Facts):
    """What the model shall be; ``num_classes`` or ``labels`` are needed."""

    input_size: tuple[int, int] = (128, 1024)
    """Mel bins and frames that the positions shall cover."""
    stride: int | tuple[int, int] | None = None
    """Mel bins and frames from one patch to the next; None: the patch size."""
    fixed_frames: int | None = None
    """Audio is cut or zero-padded to this many frames; None: keep every frame."""
    class_token: str | None = None
    """Where the class token stands, in the file and in the model: "first", "middle", "last", "both"
    or "none"; None: read off, and "middle" where the file holds a single one."""


def convert(state: OfficialState, facts: VimFacts) -> Classifier:
    """An AuM that starts from a model of images; its head is drawn from torch's global generator.

    Raises:
        InputError: if tensors are missing or unknown, or the facts do not fit.
    """
    state.drop(*UNUSED)
    patch = state.take_linear("patch_embed.proj", "patch_embed", None, None, None, None)
    kernel = _averaged(patch["patch_embed.weight"])
    place, tokens = take_class_tokens(state, facts.class_token, len(kernel))
    rows = state.take("pos_embed", 1, None, len(kernel))[0]
    encoder, tensors = take_mamba(state, len(kernel))
    state.finish()
    learned, cells = parted(rows, place)
    own = FreqTime(*kernel.shape[1:])
    stride = own if facts.stride is None else freq_time(facts.stride)
    size = freq_time(facts.input_size)
    patches = PatchConfig(patch=own, stride=stride, remainder="crop")
    config = model_config(
        state,
        facts,
        labels=read_labels(facts, None),
        size=size,
        frames=facts.fixed_frames,
        patches=patches,
        encoder=encoder,
        place=place,
    )
    state.absorb("the kernel is averaged over the colours of images")
    state.absorb("the square of positions is interpolated to the spectrogram's grid")
    if len(tokens):
        state.absorb("a class token's position is taken out of those of the patches")
        tensors |= {"class_tokens": tokens, "class_positions": learned}
    tensors |= {
        "patch_embed.kernel": kernel,
        "patch_embed.bias": patch["patch_embed.bias"],
        "positions.table": fit_positions(square(cells), patches.grid(size).shape),
    }
    return assemble(config, tensors | new_head(config))


def parted(
    rows: Float[Tensor, "tokens dim"], place: Standing
) -> tuple[Float[Tensor, "added dim"], Float[Tensor, "cells dim"]]:
    """Positions of the class tokens, and those of the patches.

    Args:
        rows: of all tokens, in the order in which they stand.
        place: where the class tokens stand.
    """
    last = len(rows) - 1
    places = {"first": [0], "middle": [last // 2], "last": [last], "both": [0, last], "none": []}
    learned = torch.zeros(len(rows), dtype=torch.bool)
    learned[places[place]] = True
    return rows[learned], rows[~learned]


def fit_positions(
    table: Float[Tensor, "rows columns dim"], grid: FreqTime
) -> Float[Tensor, "{grid.freq} {grid.time} dim"]:
    """Positions of one grid of patches for another, by AuM's rule: all of them are interpolated.

    Args:
        table: positions of the square.
        grid: patches of a spectrogram.
    """
    along = [
        interpolation_matrix(old, new, mode="bilinear", antialias=True).to(table)
        for old, new in zip(table.shape[:2], grid, strict=True)
    ]
    return resample(table.permute(2, 0, 1), *along).permute(1, 2, 0).contiguous()


def _averaged(kernel: Float[Tensor, "dim colours freq time"]) -> Float[Tensor, "dim freq time"]:
    """A kernel for one channel, as AuM makes it of one for colours."""
    if kernel.shape[1] not in (1, 3):
        raise InputError(
            f"a patch kernel has 1 or 3 input channels, got {kernel.shape[1]}; use weights for "
            "RGB images"
        )
    return kernel.mean(1)
