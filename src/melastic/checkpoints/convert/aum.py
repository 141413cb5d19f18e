"""Audio Mamba: Fo-Fo, Fo-Bi and Bi-Bi, for any patch size.

Source: kaistmm/Audio-Mamba-AuM b0eb85d, ``src/models/mamba_models.py``; Audio Mamba
    (arXiv:2406.03344).

Absorbed here: the names say which directions there are; positions of class tokens lie in front of
those of the patches wherever the tokens stand; taps of the convolution have an axis of length 1.
Where a single class token stands, and the input size, are not stored.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.architecture import position_grid
from melastic.checkpoints.convert.ast import read_patches
from melastic.checkpoints.convert.common import (
    FRONTEND,
    Facts,
    assemble,
    read_frontend,
    read_labels,
    read_task,
)
from melastic.checkpoints.convert.tensors import OfficialState
from melastic.classifier import Classifier
from melastic.config import (
    ClassTokenPooling,
    LearnedGrid,
    MambaConfig,
    MeanPooling,
    ModelConfig,
    PatchConfig,
    Standing,
    Variant,
)
from melastic.errors import InputError, unknown_name
from melastic.patches.grid import FreqTime, PatchGrid, freq_time

STANDINGS: tuple[Standing, ...] = get_args(Standing)
TOKENS: dict[Standing, tuple[str, ...]] = {
    "first": ("cls_token",),
    "middle": ("cls_token",),
    "last": ("cls_token",),
    "both": ("cls_token_head", "cls_token_tail"),
    "none": (),
}
"""Names of the class tokens for each place."""
BACK = ("conv1d_b.weight", "conv1d_b.bias", "x_proj_b.weight", "dt_proj_b.weight", "D_b")
"""What only Bi-Bi has: the direction back with weights of its own."""
BACK_DECAY = "A_b_log"
"""Decays of the direction back, which Fo-Bi and Bi-Bi have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AumFacts(Facts):
    """What an AuM file does not hold."""

    input_size: tuple[int, int] | None = None
    """Mel bins and frames that the positions were learned on; None: 128 mel bins, and the frames
    that the positions fill."""
    fixed_frames: int | Literal["input"] | None = "input"
    """Audio is cut or zero-padded to this many frames; "input": to those of ``input_size``, as the
    official models were trained; None: keep every frame."""
    stride: int | tuple[int, int] | None = None
    """Mel bins and frames from one patch to the next; None: read off the number of positions."""
    class_token: str | None = None
    """Where the class token stands: "first", "middle", "last", "both" (one at each end) or "none"
    (the mean of all tokens); None: read off, and "middle" where the file holds a single one."""


def convert(state: OfficialState, facts: AumFacts) -> Classifier:
    """An AuM with the official numbers.

    Raises:
        InputError: if tensors are missing or unknown, or a fact is missing or contradicted.
    """
    patch = state.take_linear("patch_embed.proj", "patch_embed", None, 1, None, None)
    kernel = patch["patch_embed.weight"][:, 0]
    place, tokens = take_class_tokens(state, facts.class_token, len(kernel))
    rows = state.take("pos_embed.pos_embed", 1, None, len(kernel))[0]
    encoder, tensors = take_mamba(state, len(kernel))
    head = state.take_linear("head", "head.linear", None, len(kernel))
    state.finish()
    own, cells = FreqTime(*kernel.shape[1:]), rows[len(tokens) :]
    size = _input_size(state, facts, own, len(cells))
    stride = None if facts.stride is None else freq_time(facts.stride)
    patches = read_patches(size, own, len(cells), stride)
    config = model_config(
        state,
        facts,
        labels=read_labels(facts, len(head["head.linear.weight"])),
        size=size,
        frames=size.time if facts.fixed_frames == "input" else facts.fixed_frames,
        patches=patches,
        encoder=encoder,
        place=place,
    )
    if len(tokens):
        state.absorb("positions of class tokens lie in front, wherever the tokens stand")
        tensors |= {"class_tokens": tokens, "class_positions": rows[: len(tokens)]}
    tensors |= {
        "patch_embed.kernel": kernel,
        "patch_embed.bias": patch["patch_embed.bias"],
        "positions.table": cells.reshape(*patches.grid(size).shape, -1),
    }
    return assemble(config, tensors | head)


def take_class_tokens(
    state: OfficialState, said: str | None, dim: int
) -> tuple[Standing, Float[Tensor, "added {dim}"]]:
    """Take the class tokens, and find out where they stand.

    Args:
        state: where they are.
        said: where they stand as the user says; None: read off, or the middle.
        dim: width of a token.

    Raises:
        InputError: if the file holds other ones than the user says.
    """
    if said is not None and said not in STANDINGS:
        raise unknown_name("place of the class token:", str(said), STANDINGS)
    two = any(name in state for name in TOKENS["both"])
    standing: Standing = "both" if two else "middle" if "cls_token" in state else "none"
    if said is None:
        if standing == "middle":
            state.assume("class_token", standing)
    elif len(TOKENS[said]) != len(TOKENS[standing]):
        held = {"both": "two class tokens", "middle": "one class token", "none": "no class token"}
        right = "first, middle or last" if standing == "middle" else standing
        raise InputError(
            f"{state.origin} weights: the file holds {held[standing]}, got class_token={said!r}; "
            f"give {right}, or leave class_token out"
        )
    else:
        standing = said
    taken = [state.take(name, 1, 1, dim)[0] for name in TOKENS[standing]]
    return standing, torch.cat([torch.empty(0, dim), *taken])


def take_mamba(state: OfficialState, dim: int) -> tuple[MambaConfig, dict[str, Tensor]]:
    """Take all blocks; their number, their sizes and their directions are read off.

    Args:
        state: where their tensors are.
        dim: width of a token.

    Returns:
        The encoder's configuration, and its tensors under the names of our classifier.

    Raises:
        InputError: if tensors are missing or of another shape.
    """
    depth = max(1, state.count("layers.{}."))
    variant = _variant(state, depth)
    ours: dict[str, Tensor] = {}
    for i in range(depth):
        there, here = f"layers.{i}.", f"encoder.blocks.{i}."
        ours[f"{here}norm.weight"] = state.take(f"{there}norm.weight", dim)
        ours |= _take_mixer(state, f"{there}mixer.", f"{here}mixer.", dim, variant)
    ours["encoder.norm.weight"] = state.take("norm_f.weight", dim)
    width, numbers = ours["encoder.blocks.0.mixer.ahead.log_decay"].shape
    config = MambaConfig(
        dim=dim,
        depth=depth,
        variant=variant,
        state=numbers,
        expand=width // dim,
        taps=ours["encoder.blocks.0.mixer.ahead.taps"].shape[1],
        norm_eps=1e-5,
    )
    return config, ours


def _variant(state: OfficialState, depth: int) -> Variant:
    """The directions, by the names of their tensors."""
    mixers = [f"layers.{i}.mixer." for i in range(depth)]
    if any(mixer + name in state for mixer in mixers for name in BACK):
        return "bi-bi"
    return "fo-bi" if any(mixer + BACK_DECAY in state for mixer in mixers) else "fo-fo"


def _take_mixer(
    state: OfficialState, there: str, here: str, dim: int, variant: Variant
) -> dict[str, Tensor]:
    """Take one mixer.

    Args:
        state: where its tensors are.
        there: start of their official names.
        here: start of ours.
        dim: width of a token.
        variant: which directions there are.
    """
    into = state.take(f"{there}in_proj.weight", None, dim)
    width = len(into) // (2 * dim) * dim
    if not width or len(into) != 2 * width:
        raise InputError(
            f"{state.origin} weights: {there}in_proj.weight must have a multiple of {2 * dim} "
            f"rows, got {len(into)}; check the origin"
        )
    ours = {
        f"{here}into.weight": into,
        f"{here}out.weight": state.take(f"{there}out_proj.weight", dim, width),
    }
    ours |= _take_direction(state, there, f"{here}ahead.", "", dim, width)
    numbers = ours[f"{here}ahead.log_decay"].shape[1]
    if variant == "bi-bi":
        ours |= _take_direction(state, there, f"{here}back.", "_b", dim, width)
    if variant == "fo-bi":
        back = state.take(there + BACK_DECAY, width, numbers)
        ours[f"{here}ahead.log_decay_back"] = back
    return ours


def _take_direction(
    state: OfficialState, there: str, here: str, suffix: str, dim: int, width: int
) -> dict[str, Tensor]:
    """Take the weights of one direction.

    Args:
        state: where its tensors are.
        there: start of their official names.
        here: start of ours.
        suffix: end of the official names of its parts.
        dim: width of a token.
        width: channels of the state space.
    """
    decay = state.take(there + (BACK_DECAY if suffix else "A_log"), width, None)
    rank, numbers = -(-dim // 16), decay.shape[1]
    taps = state.take_linear(f"{there}conv1d{suffix}", "taps", width, 1, None)
    project = state.take(f"{there}x_proj{suffix}.weight", rank + 2 * numbers, width)
    return {
        f"{here}taps": taps["taps.weight"][:, 0],
        f"{here}taps_bias": taps["taps.bias"],
        f"{here}project.weight": project,
        **state.take_linear(f"{there}dt_proj{suffix}", f"{here}step", width, rank),
        f"{here}log_decay": decay,
        f"{here}skip": state.take(f"{there}D{suffix}", width),
    }


def model_config(
    state: OfficialState,
    facts: Facts,
    *,
    labels: tuple[str, ...],
    size: FreqTime,
    frames: int | None,
    patches: PatchConfig,
    encoder: MambaConfig,
    place: Standing,
) -> ModelConfig:
    """What an AuM is made of.

    Args:
        state: where its tensors were taken from.
        facts: what the file does not hold.
        labels: names of the classes.
        size: mel bins and frames that the positions cover.
        frames: audio is cut or zero-padded to so many; None: it is not.
        patches: its own.
        encoder: its blocks.
        place: where the class tokens stand.
    """
    grid = patches.grid(size).shape
    tokens = len(TOKENS[place])
    return ModelConfig(
        name=state.origin,
        labels=labels,
        task=read_task(facts),
        frontend=read_frontend(facts, size.freq, frames),
        patches=patches,
        positions=position_grid(LearnedGrid, grid, patches.stride, facts.hop_ms, reading="stretch"),
        encoder=encoder,
        pooling=MeanPooling()
        if place == "none"
        else ClassTokenPooling(tokens=tokens, place=place, positioned=True),
        head_norm_eps=None,
    )


def _input_size(state: OfficialState, facts: AumFacts, patch: FreqTime, cells: int) -> FreqTime:
    """Mel bins and frames that the positions were learned on."""
    if facts.input_size is not None:
        return freq_time(facts.input_size)
    stride = patch if facts.stride is None else freq_time(facts.stride)
    mels = max(FRONTEND.num_mels, patch.freq)
    rows = PatchGrid(size=FreqTime(mels, patch.time), patch=patch, stride=stride).shape.freq
    if not cells or cells % rows:
        raise InputError(
            f"{state.origin} weights have positions for {cells} patches, which fill no grid of "
            f"{rows} rows ({mels} mel bins); give input_size=(mel bins, frames)"
        )
    size = FreqTime(mels, (cells // rows - 1) * stride.time + patch.time)
    state.assume("input_size", list(size))
    return size
