"""Calling the compiled kernels on tensors."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from melastic.errors import InputError
from melastic.native.library import kernels

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Number formats of the kernels, by their number in ``abi.h``."""


WRONG_CLIPS = 3
"""What a kernel answers to impossible borders: the same word of ``entry.cpp``."""


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
        InputError: if clips do not lie one behind the other.
        MemoryError: if there is none left.
    """
    function: Callable[..., int] = getattr(kernels().library, name)
    failed = function(ctypes.byref(arguments))
    if failed == WRONG_CLIPS:
        raise InputError(
            "cu_seqlens rises from 0 to the length in steps of at least 1, with a batch of 1; got "
            "other borders"
        )
    if failed:
        raise MemoryError(f"{name}: no memory for its working space; use shorter clips")
