"""Calling the compiled kernels on tensors."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from melastic.native.library import kernels

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Number formats of the kernels, by their number in ``abi.h``."""


def serves(*inputs: Tensor | None) -> bool:
    """Whether the kernels are there and take all of some tensors.

    Args:
        inputs: of a kernel; None where one is absent.
    """
    given = [x for x in inputs if x is not None]
    known = all(x.device.type == "cpu" and x.dtype in DTYPES for x in given)
    return known and kernels().library is not None


def call(name: str, arguments: ctypes.Structure) -> None:
    """Run a kernel.

    Args:
        name: of its function.
        arguments: what it takes.

    Raises:
        MemoryError: if there is none left.
    """
    function: Callable[..., int] = getattr(kernels().library, name)
    if function(ctypes.byref(arguments)):
        raise MemoryError(f"{name}: no memory for its working space; use shorter clips")
