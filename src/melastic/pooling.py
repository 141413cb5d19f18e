"""Tokens to one vector for each clip."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from melastic.config import (
    TAPS,
    AttentionPooling,
    ClassTokenPooling,
    MeanPooling,
    PoolingConfig,
    TokenSemanticPooling,
)
from melastic.encoders.attention import AttentionPool
from melastic.errors import InputError
from melastic.patches.batch import Grid, Layout, runs_of


def with_class_tokens(
    clips: Float[Tensor, "clips length dim"],
    tokens: Float[Tensor, "added dim"],
    config: PoolingConfig,
) -> Float[Tensor, "clips _ dim"]:
    """Put learned tokens where a pooling wants them.

    Args:
        clips: tokens of clips of equal length.
        tokens: the learned ones.
        config: of the pooling.
    """
    learned = tokens.to(clips.dtype).expand(len(clips), -1, -1)
    place = config.place if isinstance(config, ClassTokenPooling) else "first"
    if place == "both":
        return torch.cat([learned[:, :1], clips, learned[:, 1:]], dim=1)
    before = {"first": 0, "middle": clips.shape[1] // 2, "last": clips.shape[1]}[place]
    return torch.cat([clips[:, :before], learned, clips[:, before:]], dim=1)


def without_class_tokens(
    clips: Float[Tensor, "clips length dim"], config: PoolingConfig
) -> Float[Tensor, "clips _ dim"]:
    """The patches' tokens: the inverse of :func:`with_class_tokens`.

    Args:
        clips: tokens of clips of equal length, with the learned ones among them.
        config: of the pooling.
    """
    added, place = config.added, "first"
    if isinstance(config, ClassTokenPooling):
        place = config.place
    if place == "both":
        return clips[:, 1:-1]
    patches = clips.shape[1] - added
    before = {"first": 0, "middle": patches // 2, "last": patches}[place]
    return torch.cat([clips[:, :before], clips[:, before + added :]], dim=1)


class ClassTokenPool(nn.Module):
    """The mean of each clip's class tokens, wherever they stand."""

    def __init__(self, config: ClassTokenPooling) -> None:
        """Remember where they stand."""
        super().__init__()
        self.config = config

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips dim"]:
        """One vector for each clip."""
        return torch.cat([self._read(clips) for clips in layout.split(x)])

    def _read(self, clips: Float[Tensor, "clips length dim"]) -> Float[Tensor, "clips dim"]:
        """The vectors of clips of equal length."""
        place, length = self.config.place, clips.shape[1]
        if place == "both":
            return (clips[:, 0] + clips[:, -1]) / 2
        if place == "first":
            return clips[:, : self.config.tokens].mean(1)
        return clips[:, (length - 1) // 2 if place == "middle" else length - 1]


class MeanPool(nn.Module):
    """The mean of each clip's tokens: leading ones, and those beyond the clip, are left out."""

    def __init__(self, config: MeanPooling) -> None:
        """Remember how many lead."""
        super().__init__()
        self.leading = config.leading

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips dim"]:
        """One vector for each clip."""
        if layout.grids:
            return torch.cat([steps.mean((1, 2, 3)) for _, steps in steps_of(x, layout)])
        return torch.cat([clips[:, self.leading :].mean(1) for clips in layout.split(x)])

    def frames(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> list[Float[Tensor, "_ dim"]]:
        """One vector for each step in time of each folded clip.

        Raises:
            InputError: if a clip has no single line of time.
        """
        return [step for grid, steps in steps_of(x, layout) for step in _line(grid, steps).mean(2)]


class TokenSemanticPool(nn.Module):
    """What a linear layer weighs to tell the classes: each step in time with its two neighbours.

    A convolution over steps, averaged over the clip, is a linear layer on averages: so this returns
    ``dim * rows * TAPS`` averages, and the head does the rest.

    Source: HTS-AT (arXiv:2202.00874; RetroCirce/HTS-Audio-Transformer, ``tscam_conv``).
    """

    def __init__(self, config: TokenSemanticPooling) -> None:
        """Remember the rows that are told apart."""
        super().__init__()
        self.rows = config.rows

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "clips _"]:
        """One vector for each clip."""
        return torch.cat([self._mean(self._fitted(steps)) for _, steps in steps_of(x, layout)])

    def frames(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> list[Float[Tensor, "_ _"]]:
        """One vector for each step in time of each clip.

        Raises:
            InputError: if a clip has no single line of time.
        """
        found: list[Tensor] = []
        for grid, steps in steps_of(x, layout):
            line = self._fitted(_line(grid, steps)[:, None])[:, 0]
            around = functional.pad(line, (0, 0, 0, 0, 1, 1)).unfold(1, TAPS, 1)
            found += rearrange(around, "clips time rows dim taps -> clips time (dim rows taps)")
        return found

    def _fitted(
        self, steps: Float[Tensor, "clips images time _ dim"]
    ) -> Float[Tensor, "clips images time rows dim"]:
        """Rows averaged, or repeated, to as many as the head weighs."""
        if steps.shape[3] == self.rows:
            return steps
        flat = steps.flatten(0, 2).transpose(1, 2)
        fitted = functional.adaptive_avg_pool1d(flat, self.rows).transpose(1, 2)
        return fitted.unflatten(0, steps.shape[:3])

    @staticmethod
    def _mean(steps: Float[Tensor, "clips images time rows dim"]) -> Float[Tensor, "clips _"]:
        """The mean over time of each step's left neighbour, itself and its right neighbour."""
        total = steps.sum(2)
        taps = torch.stack([total - steps[:, :, -1], total, total - steps[:, :, 0]], dim=-1)
        mean = taps.mean(1) / steps.shape[2]
        return rearrange(mean, "clips rows dim taps -> clips (dim rows taps)")


def steps_of(
    x: Float[Tensor, "tokens dim"], layout: Layout
) -> list[tuple[Grid, Float[Tensor, "clips images time rows dim"]]]:
    """For each run of equal grids of folded clips: the grid, and its tokens in order of time.

    Columns in which nothing of the clip lies are left out.
    """
    runs = runs_of(layout.grids)
    sizes = [clips * grid.images * math.prod(grid.shape) for clips, grid in runs]
    found = []
    for (clips, grid), piece in zip(runs, x.split(sizes), strict=True):
        lay = "(clips images bands rows time) dim -> clips images (bands time) rows dim"
        known = {"clips": clips, "images": grid.images, "bands": grid.bands}
        steps = rearrange(piece, lay, **known, time=grid.shape.time)
        found.append((grid, steps[:, :, : grid.used]))
    return found


def _line(
    grid: Grid, steps: Float[Tensor, "clips images time rows dim"]
) -> Float[Tensor, "clips time rows dim"]:
    """The steps of clips that are one image each."""
    if grid.images > 1:
        raise InputError(
            "a clip that is read in overlapping pieces has no single line of time; use the fold "
            "rule 'bands', or a shorter clip"
        )
    return steps[:, 0]


def embedding_of(
    vectors: Float[Tensor, "clips values"], config: PoolingConfig
) -> Float[Tensor, "clips dim"]:
    """The vector that stands for a clip, out of what a head reads.

    Args:
        vectors: what the pooling gave.
        config: of the pooling.
    """
    if not isinstance(config, TokenSemanticPooling):
        return vectors
    taps = rearrange(vectors, "clips (dim rows t) -> clips dim rows t", rows=config.rows, t=TAPS)
    return taps[..., TAPS // 2].mean(-1)


def build_pool(config: PoolingConfig, dim: int) -> nn.Module:
    """The pooling that a configuration names.

    Raises:
        InputError: if the heads do not divide the width.
    """
    if isinstance(config, ClassTokenPooling):
        return ClassTokenPool(config)
    if isinstance(config, AttentionPooling):
        if config.num_heads < 1 or dim % config.num_heads:
            raise InputError(
                f"pooling heads must divide dim, got {config.num_heads} and {dim}; "
                "use the encoder's number of heads"
            )
        return AttentionPool(dim, config.num_heads)
    if isinstance(config, TokenSemanticPooling):
        return TokenSemanticPool(config)
    return MeanPool(config)
