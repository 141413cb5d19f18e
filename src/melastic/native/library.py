"""Find and load the compiled kernels; say why where there are none."""

import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from melastic.native.build import FOLDER, NAME, fingerprint

ABI = 4
"""Version of the interface: ``MELASTIC_ABI`` of ``abi.h``."""
CHOICE = "MELASTIC_INSTRUCTIONS"
"""Environment variable that names an instruction set, or ``none`` for no kernels at all."""


class View(Structure):
    """``View`` of ``abi.h``."""

    _fields_ = (
        ("data", c_void_p),
        ("row", c_int64),
        ("step", c_int64),
        ("channel", c_int64),
        ("dtype", c_int64),
    )


class Clips(Structure):
    """``Clips`` of ``abi.h``."""

    _fields_ = (
        ("rows", c_int64),
        ("length", c_int64),
        ("clips", c_int64),
        ("bounds", c_void_p),
    )


class ScanArguments(Structure):
    """``ScanArguments`` of ``abi.h``."""

    _fields_ = (
        ("clips", Clips),
        *((name, c_int64) for name in ("dim", "state")),
        *((name, View) for name in ("u", "delta", "B", "C", "z")),
        *((name, c_void_p) for name in ("A", "A_back", "D", "bias")),
        *((name, c_int64) for name in ("softplus", "reverse", "threads")),
        ("y", View),
        *((name, c_void_p) for name in ("state_in", "state_out", "starts")),
        *((name, View) for name in ("du", "ddelta", "dz")),
        *((name, c_void_p) for name in ("dB", "dC", "dA", "dA_back", "dD", "dbias")),
    )


class ConvArguments(Structure):
    """``ConvArguments`` of ``abi.h``."""

    _fields_ = (
        ("clips", Clips),
        *((name, c_int64) for name in ("dim", "width", "reverse", "threads")),
        *((name, View) for name in ("x", "y")),
        *((name, c_void_p) for name in ("weight", "bias")),
        ("dx", View),
        *((name, c_void_p) for name in ("dweight", "dbias")),
    )


class NormArguments(Structure):
    """``NormArguments`` of ``abi.h``."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "dim", "dtype", "threads")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("x", "weight", "more", "sum", "normed", "rate")),
        *((name, c_void_p) for name in ("dsum", "dx", "dweight")),
    )


ARGUMENTS: dict[str, type[Structure]] = {
    "scan": ScanArguments,
    "convolve": ConvArguments,
    "norm": NormArguments,
}
"""What the functions ``melastic_NAME_forward`` and ``melastic_NAME_backward`` take."""


class Kernels(NamedTuple):
    """The loaded kernels, or why there are none."""

    library: ctypes.CDLL | None
    reason: str
    """Empty where they are loaded."""

    @property
    def instructions(self) -> str:
        """The instruction set in use, such as ``avx512``; ``none`` without kernels."""
        if self.library is None:
            return "none"
        name: bytes = self.library.melastic_instructions()
        return name.decode()

    @property
    def said(self) -> str:
        """The instruction set, or why there is none and what serves instead."""
        return self.instructions if not self.reason else f"none ({self.reason}); torch code serves"

    def supported(self) -> list[str]:
        """Instruction sets that this machine has and the kernels are built for, best first."""
        if self.library is None:
            return []
        names = ("avx512", "avx2", "baseline")
        return [name for name in names if self.library.melastic_supports(name.encode())]

    def use(self, instructions: str) -> None:
        """Choose an instruction set.

        Raises:
            ValueError: if this machine lacks it.
        """
        if self.library is None or self.library.melastic_use(instructions.encode()):
            raise ValueError(f"no kernels for {instructions!r} here; there are {self.supported()}")


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The kernels that the package was installed with."""
    choice = os.environ.get(CHOICE, "")
    if choice == "none":
        return Kernels(None, f"{CHOICE}=none")
    found = _loaded(FOLDER / NAME)
    if choice and not found.reason:
        try:
            found.use(choice)
        except ValueError as error:
            return Kernels(None, f"{CHOICE}: {error}")
    return found


def _loaded(path: Path) -> Kernels:
    """Load a library and see whether it is that of this package."""
    remedy = "with a C++ compiler: python -m melastic.native.build"
    if not path.is_file():
        return Kernels(None, f"not built; {remedy}")
    try:
        library = ctypes.CDLL(str(path))
        library.melastic_instructions.restype = c_char_p
        library.melastic_sources.restype = c_char_p
        library.melastic_abi.restype = c_int64
        for name in ("melastic_supports", "melastic_use"):
            getattr(library, name).argtypes = (c_char_p,)
            getattr(library, name).restype = c_int64
        for name, kind in ARGUMENTS.items():
            for way in ("forward", "backward"):
                call = getattr(library, f"melastic_{name}_{way}")
                call.argtypes, call.restype = (POINTER(kind),), c_int64
    except (OSError, AttributeError) as error:
        return Kernels(None, f"cannot be loaded ({error}); {remedy}")
    if library.melastic_abi() != ABI:
        return Kernels(None, f"built for another version of the package; {remedy}")
    if library.melastic_sources().decode() != fingerprint():
        return Kernels(None, f"built from other sources than those beside it; {remedy}")
    return Kernels(library, "")
