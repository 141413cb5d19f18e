"""Random draws as pure functions of a seed and of what is drawn for."""

import hashlib

import torch


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """A generator for one draw: the same keys give the same numbers in any process, at any time.

    Args:
        seed: seed of the run.
        *keys: what is drawn for, such as ``("clip", epoch, index)``.
    """
    text = ":".join(map(str, (seed, *keys)))
    state = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
    return torch.Generator().manual_seed(state)


def uniform(low: float, high: float, draw: torch.Generator) -> float:
    """A number between two bounds."""
    return low + (high - low) * torch.rand((), generator=draw).item()


def integer(below: int, draw: torch.Generator) -> int:
    """A whole number from 0 to ``below - 1``."""
    return int(torch.randint(below, (), generator=draw).item())
