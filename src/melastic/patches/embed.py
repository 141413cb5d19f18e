"""Spectrograms to patch tokens."""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from melastic.patches.config import PatchConfig
from melastic.patches.fold import folded
from melastic.patches.grid import FreqTime, PatchGrid
from melastic.patches.resize import resize_kernel


class PatchEmbed(nn.Module):
    """Project each patch of a spectrogram to a vector, at the kernel's own patch size or another.

    Source: AST (arXiv:2104.01778), section 2.1; FlexiAST (arXiv:2307.09286) for other sizes.
    """

    def __init__(self, config: PatchConfig, dim: int, num_mels: int) -> None:
        """Make a kernel of the configured patch size with random weights."""
        super().__init__()
        self.config = config
        self.kernel = nn.Parameter(torch.empty(dim, *config.patch))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(self.kernel, std=1 / math.sqrt(math.prod(config.patch)))
        bins = num_mels if config.bin_scale else 0
        self.bin_scale = nn.Parameter(torch.ones(bins)) if bins else None
        self.bin_shift = nn.Parameter(torch.zeros(bins)) if bins else None
        self.norm = None if config.norm_eps is None else nn.LayerNorm(dim, eps=config.norm_eps)

    def forward(
        self, groups: Sequence[Float[Tensor, "_ freq _"]], patch: FreqTime | None = None
    ) -> list[Float[Tensor, "_ _ dim"]]:
        """Tokens of each group, ``clips tokens dim``, those of a clip or an image frequency-major.

        Args:
            groups: spectrograms ``clips freq time`` of equal length in each group.
            patch: mel bins and frames of a patch; None: the kernel's own.
        """
        patch = self.config.patch if patch is None else patch
        kernel = resize_kernel(self.kernel, patch, self.config.resize)
        grids = [self.config.grid(FreqTime(*group.shape[1:]), patch) for group in groups]
        pairs = zip(map(self._scaled, groups), grids, strict=True)
        fitted = [self._fitted(group, grid) for group, grid in pairs]
        if any(grid.stride != grid.patch for grid in grids):
            pairs = zip(fitted, grids, strict=True)
            maps = [self._convolve(group, kernel, grid.stride) for group, grid in pairs]
            return maps if self.norm is None else [self.norm(tokens) for tokens in maps]
        pixels = torch.cat([cut(group, patch) for group in fitted])
        tokens = functional.linear(pixels, kernel.flatten(1), self.bias)
        tokens = tokens if self.norm is None else self.norm(tokens)
        shapes = [(len(g), grid.num_patches) for g, grid in zip(groups, grids, strict=True)]
        pieces = tokens.split([clips * length for clips, length in shapes])
        return [piece.unflatten(0, shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def _scaled(self, spectrograms: Tensor) -> Tensor:
        """Each mel bin scaled and shifted, where the model learns how."""
        if self.bin_scale is None or self.bin_shift is None:
            return spectrograms
        return torch.addcmul(self.bin_shift[:, None], spectrograms, self.bin_scale[:, None])

    def _fitted(self, spectrograms: Tensor, grid: PatchGrid) -> Tensor:
        """Images that whole patches fill."""
        if self.config.fold is not None:
            return folded(spectrograms, grid.patch, self.config.fold)
        return _fit(spectrograms, grid)

    def _convolve(
        self, spectrograms: Tensor, kernel: Tensor, stride: FreqTime
    ) -> Float[Tensor, "clips tokens dim"]:
        """Tokens of overlapping patches, without copying each pixel several times."""
        maps = functional.conv2d(spectrograms[:, None], kernel[:, None], self.bias, stride)
        return rearrange(maps, "clips dim freq time -> clips (freq time) dim")


def _fit(spectrograms: Tensor, grid: PatchGrid) -> Tensor:
    """Crop or pad at the end of both axes to what the patches span."""
    size, covered = grid.size, grid.covered
    if covered == size:
        return spectrograms
    return functional.pad(spectrograms, (0, covered.time - size.time, 0, covered.freq - size.freq))


def cut(
    spectrograms: Float[Tensor, "clips freq time"], patch: FreqTime
) -> Float[Tensor, "tokens pixels"]:
    """Pixels of patches that do not overlap, those of a clip row by row.

    Args:
        spectrograms: of a size that whole patches fill.
        patch: mel bins and frames of one.
    """
    return rearrange(
        spectrograms,
        "clips (freq pf) (time pt) -> (clips freq time) (pf pt)",
        pf=patch.freq,
        pt=patch.time,
    )
