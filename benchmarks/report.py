"""Time several candidates in turn, in one run, and write a table."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from melastic.devices import machine
from melastic.native.library import kernels


def need_kernels() -> None:
    """Stop where the compiled kernels are missing or older than their sources.

    Torch code would serve in their place, and its times would stand in the table under their name.
    """
    if kernels().library is None:
        raise SystemExit(f"this benchmark needs the compiled kernels: {kernels().reason}")


def in_turn(
    candidates: Mapping[str, Callable[[], object]], rounds: int, *, calls: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call of each candidate.

    They take turns, so that what else the machine does meanwhile meets all of them alike.

    Args:
        candidates: what is timed, by name.
        rounds: turns of each, after one call that is not counted.
        calls: in a row per turn; the first of them finds the caches full of what another
            candidate has left there.
    """
    for call in candidates.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            for _ in range(calls):
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times faster, by the fastest round of each, which other load has met least."""
    return min(slower) / min(faster)


def peak_mb() -> float:
    """Most memory that this process has held (MB); what its parent held does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6


def write(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str,
    *,
    part: str = "",
) -> None:
    """Write ``benchmarks/NAME.md`` or ``NAME-PART.md`` and print it.

    Args:
        name: of the benchmark; its script is ``bench_NAME.py``.
        title: of the table.
        header: names of the columns.
        rows: cells.
        note: how to read it.
        part: word behind the command that measures this table alone; empty: there is no other.
    """
    command, file = f"python -m benchmarks.bench_{name} {part}".strip(), f"{name}-{part}".strip("-")
    lines = [f"# {title}", "", f"`{command}` on {machine()}", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", note]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_name(f"{file}.md").write_text(text)
    print(text)
