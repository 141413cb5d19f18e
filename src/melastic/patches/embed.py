"""Spectrograms to patch tokens."""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from melastic.config import PatchConfig
from melastic.patches.grid import FreqTime, PatchGrid


class PatchEmbed(nn.Module):
    """Project each patch of a spectrogram to a vector.

    Source: AST (arXiv:2104.01778), section 2.1.
    """

    def __init__(self, config: PatchConfig, dim: int) -> None:
        """Make a kernel of the configured patch size with random weights."""
        super().__init__()
        self.config = config
        self.kernel = nn.Parameter(torch.empty(dim, *config.patch))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(self.kernel, std=1 / math.sqrt(math.prod(config.patch)))

    def grid(self, size: FreqTime) -> PatchGrid:
        """Where the patches of a spectrogram lie.

        Raises:
            InputError: if it holds no patch.
        """
        config = self.config
        return PatchGrid(
            size=size, patch=config.patch, stride=config.stride, remainder=config.remainder
        )

    def forward(self, groups: Sequence[Float[Tensor, "_ freq _"]]) -> Float[Tensor, "tokens dim"]:
        """Tokens of all clips, one behind the other, each frequency-major.

        Args:
            groups: spectrograms ``clips freq time`` of equal length in each group.
        """
        if self.config.stride == self.config.patch:
            pixels = torch.cat([self._cut(group) for group in groups])
            return functional.linear(pixels, self.kernel.flatten(1), self.bias)
        return torch.cat([self._convolve(group) for group in groups])

    def _fit(self, spectrograms: Tensor) -> Tensor:
        """Crop or pad at the end of both axes to what the patches span."""
        size = FreqTime(*spectrograms.shape[1:])
        covered = self.grid(size).covered
        if covered == size:
            return spectrograms
        return functional.pad(
            spectrograms, (0, covered.time - size.time, 0, covered.freq - size.freq)
        )

    def _cut(self, spectrograms: Tensor) -> Float[Tensor, "tokens pixels"]:
        """Pixels of patches that do not overlap."""
        patch = self.config.patch
        return rearrange(
            self._fit(spectrograms),
            "clips (freq pf) (time pt) -> (clips freq time) (pf pt)",
            pf=patch.freq,
            pt=patch.time,
        )

    def _convolve(self, spectrograms: Tensor) -> Float[Tensor, "tokens dim"]:
        """Tokens of overlapping patches, without copying each pixel several times."""
        images = self._fit(spectrograms)[:, None]
        maps = functional.conv2d(images, self.kernel[:, None], self.bias, self.config.stride)
        return rearrange(maps, "clips dim freq time -> (clips freq time) dim")


def grid_positions(shape: FreqTime, device: torch.device) -> Int[Tensor, "tokens 2"]:
    """Row and column of each patch of a grid, frequency-major."""
    rows, columns = (torch.arange(n, device=device) for n in shape)
    return torch.cartesian_prod(rows, columns).reshape(-1, 2)
