"""Which device a command runs on, and how its processes share the cores."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch


def best_device() -> torch.device:
    """A CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """This machine in words: processor, instruction set, threads, GPU, version of torch."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    features = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model} ({features}), {threads} threads{gpu}; torch {torch.__version__}"


def usable_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def reading_threads() -> int:
    """Threads that read clips ahead: half of the cores, the other half is the model's."""
    return max(1, usable_cores() // 2)


@contextlib.contextmanager
def cores_shared_with(workers: int) -> Iterator[None]:
    """A context in which torch leaves cores to others: more of its threads only get in the way.

    Args:
        workers: threads that are busy with something else meanwhile.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, max(1, usable_cores() - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A context for many small operations, which several threads only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compute_alone() -> None:
    """A thread computes by itself: how many share a sum decides how it is rounded."""
    torch.set_num_threads(1)
