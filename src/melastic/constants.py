"""Tensors that depend on sizes alone: computed once, whoever asks first."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def constant(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep what a function of sizes returns, for every later caller.

    It is computed on the CPU unless the function moves it, outside inference mode, so that the next
    caller can train with it. While a graph is traced nothing is kept: what tracing makes is of no
    use outside.

    Args:
        maxsize: results that are kept; the oldest give way.
    """

    def keeping(compute: Callable[P, T]) -> Callable[P, T]:
        @lru_cache(maxsize)
        def kept(*args: Any, **kwargs: Any) -> T:
            with torch.inference_mode(mode=False), torch.device("cpu"):
                return compute(*args, **kwargs)

        @wraps(compute)
        def found(*args: P.args, **kwargs: P.kwargs) -> T:
            if torch.compiler.is_compiling():
                return compute(*args, **kwargs)
            return kept(*args, **kwargs)  # type: ignore[arg-type]  # sizes are hashable

        return found

    return keeping
