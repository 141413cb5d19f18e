"""What the C library does with memory that is given back to it."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's numbers of two settings (``malloc.h``)."""
KEPT = 2**31 - 1
"""Bytes that may lie unused before any go back to the system."""
LARGEST = 32 * 2**20
"""Bytes of the largest piece that comes out of what was kept; glibc takes no more."""


def keep_freed_memory() -> None:
    """Keep what a step gives back for the next one, for the whole process.

    By default glibc returns a few megabytes to the system as soon as they are free, which hands
    them out again page by page, each filled with zeros, in the next step. Other C libraries are
    left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(TRIM_THRESHOLD, KEPT)
    mallopt(MMAP_THRESHOLD, LARGEST)
