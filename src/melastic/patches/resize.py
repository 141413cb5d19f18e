"""Matrices that resize: patch kernels to other patch sizes, position tables to other grids.

Resizing is linear and works on each axis by itself, so one small matrix for each axis is all there
is. The matrices are constants, computed once in float64; gradients flow through the products.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from melastic.config import KernelResize
from melastic.constants import constant
from melastic.patches.grid import FreqTime


def resize_kernel(
    kernel: Float[Tensor, "dim freq time"], new: FreqTime, rule: KernelResize
) -> Float[Tensor, "dim {new.freq} {new.time}"]:
    """A patch kernel at another patch size; the kernel itself at its own.

    Under ``"pi"`` an enlarged kernel answers to an enlarged patch exactly as the kernel answers to
    the patch; a reduced one comes as close as least squares allow. Resizing twice loses more than
    resizing once: always start from the stored kernel.

    Args:
        kernel: the stored kernel.
        new: mel bins and frames of the patches that it shall read.
        rule: how it is resized.

    Source: FlexiViT (arXiv:2212.08013), section 3.4; FlexiAST (arXiv:2307.09286) with
        ``antialias=False``.
    """
    own = FreqTime(*kernel.shape[1:])
    if own == new:
        return kernel
    along = [_kernel_matrix(a, b, rule).to(kernel) for a, b in zip(own, new, strict=True)]
    return resample(kernel, *along)


def resample(
    maps: Float[Tensor, "dim freq time"],
    rows: Float[Tensor, "new_freq freq"],
    columns: Float[Tensor, "new_time time"],
) -> Float[Tensor, "dim new_freq new_time"]:
    """Apply one matrix along each axis."""
    return torch.einsum("af,dft,bt->dab", rows, maps, columns)


@constant(maxsize=512)
def _kernel_matrix(old: int, new: int, rule: KernelResize) -> Float[Tensor, "{new} {old}"]:
    """What turns a kernel's axis of one size into one of another size."""
    forward = interpolation_matrix(old, new, mode=rule.interpolation, antialias=rule.antialias)
    return torch.linalg.pinv(forward.T) if rule.method == "pi" else forward


@constant(maxsize=512)
def interpolation_matrix(
    old: int, new: int, *, mode: str, antialias: bool
) -> Float[Tensor, "{new} {old}"]:
    """What ``torch.nn.functional.interpolate`` does to an axis, in float64."""
    basis = rearrange(torch.eye(old, dtype=torch.float64), "old cells -> old 1 1 cells")
    resized = functional.interpolate(basis, size=(1, new), mode=mode, antialias=antialias)
    return rearrange(resized, "old 1 1 new -> new old").contiguous()


@constant(maxsize=4096)
def reading_matrix(
    count: int, cells: int, *, scale: float, offset: float, antialias: bool
) -> Float[Tensor, "{count} {cells}"]:
    """What reads a table along one axis at evenly spaced places, in float64.

    Place ``i`` is ``offset + i * scale``, in cells. Between cells the reading is linear, beyond the
    outermost cells it stays at their values. With ``antialias`` a reading that steps over cells
    averages them, with weights that fall linearly to zero one step away.

    Args:
        count: places.
        cells: cells of the table.
        scale: cells from one place to the next.
        offset: the first place.
        antialias: average over cells that would be stepped over.

    Source: with ``scale = cells / count`` and ``offset = (scale - 1) / 2`` this is
        ``torch.nn.functional.interpolate(mode="bilinear", antialias=…)``.
    """
    places = offset + scale * torch.arange(count, dtype=torch.float64)[:, None]
    reach = max(scale, 1.0) if antialias else 1.0
    if reach == 1.0:
        places = places.clamp(0, cells - 1)
    distance = (torch.arange(cells, dtype=torch.float64) - places).abs() / reach
    weights = (1 - distance).clamp_min(0)
    return _normalised(weights, places, cells)


def _normalised(weights: Tensor, places: Tensor, cells: int) -> Tensor:
    """Weights that sum to one; places too far from any cell read the nearest."""
    total = weights.sum(1, keepdim=True)
    nearest = places.round().clamp(0, cells - 1).long()
    alone = torch.zeros_like(weights).scatter_(1, nearest, 1.0)
    return torch.where(total > 0, weights / total.clamp_min(1e-300), alone)
