"""A report of the doctor for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from melastic.data.doctor import Contents, Environment, Lengths, Report
from melastic.data.doctor_checks import Problem

_BAR = 40
"""Characters of the longest bar."""
_MOST_PROBLEMS = 20
"""Problems of one severity that are shown; ``--json`` prints all."""
_MOST_LABELS = 12
"""Labels that are shown, half of them the most frequent and half the rarest."""


def render(report: Report) -> RenderableType:
    """Tables, bars and problems, one below the other."""
    parts: list[RenderableType] = [_environment(report.environment)]
    if report.contents is not None:
        parts += _contents(report.contents)
        parts += _problems(report.problems)
    return Group(*parts)


def _environment(environment: Environment) -> Table:
    """Versions, devices and what can be used."""
    usable = [name for name, there in environment.usable.items() if there]
    absent = [name for name, there in environment.usable.items() if not there]
    devices = [*environment.cuda, *(["Apple GPU (MPS)"] if environment.mps else [])]
    return _table(
        "Environment",
        {
            "melastic": environment.melastic,
            "python": f"{environment.python} on {environment.system}",
            "torch": environment.torch,
            "CPU": f"{environment.cpu_capability}, {environment.threads} threads on "
            f"{environment.cpus} cores",
            "CPU kernels": environment.kernels,
            "GPU": ", ".join(devices) or "none",
            "usable": ", ".join(usable) or "nothing optional",
            "not usable": ", ".join(absent) or "nothing",
        },
    )


def _contents(contents: Contents) -> list[RenderableType]:
    """What the manifest lists."""
    rows = {
        "clips": f"{contents.clips} in {contents.files} files, {contents.readable} readable",
        "sample rates": _shares({f"{hz} Hz": n for hz, n in contents.sample_rates.items()}),
        "channels": _shares(contents.channels),
        "labels": f"{len(contents.labels)}",
    }
    rows |= {column: _shares(counts) for column, counts in contents.splits.items()}
    if contents.log_mels is not None:
        stats = contents.log_mels
        rows["log-mels"] = f"mean {stats.mean:.3f}, std {stats.std:.3f} over {stats.clips} clips"
    if contents.lengths is not None:
        rows["length"] = f"{contents.lengths.total_s / 3600:.2f} hours in all"
        rows["quantiles (s)"] = ", ".join(
            f"{name} {value:.3g}" for name, value in contents.lengths.quantiles_s.items()
        )
    parts: list[RenderableType] = [_table(str(contents.manifest), rows)]
    if contents.lengths is not None:
        parts.append(_bars("Lengths (s)", *_bins(contents.lengths)))
    parts.append(_labels(contents.labels))
    return parts


def _labels(counts: Mapping[str, int]) -> Table:
    """The most frequent and the rarest labels."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) <= _MOST_LABELS:
        return _bars("Labels", [name for name, _ in ordered], [count for _, count in ordered])
    half = _MOST_LABELS // 2
    shown = [*ordered[:half], *ordered[-half:]]
    title = f"Labels ({half} most frequent and {half} rarest of {len(ordered)})"
    return _bars(title, [name for name, _ in shown], [count for _, count in shown])


def _bins(lengths: Lengths) -> tuple[list[str], Sequence[int]]:
    """Names and counts of the bins."""
    pairs = zip(lengths.edges_s, lengths.edges_s[1:], strict=False)
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairs]
    return names if len(names) > 1 else [f"{lengths.edges_s[0]:.3g}"], lengths.counts


def _bars(title: str, names: Sequence[str], counts: Sequence[int]) -> Table:
    """One bar for each count."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right", overflow="fold")
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    unit = _BAR / max([1, *counts])
    for name, count in zip(names, counts, strict=True):
        bar = "█" * max(round(count * unit), 1 if count else 0)
        table.add_row(Text(name), Text(str(count)), Text(bar, style="cyan"))
    return table


def _problems(problems: Sequence[Problem]) -> list[RenderableType]:
    """Errors and warnings, the first few of each."""
    if not problems:
        return [Text("No problems found.", style="green")]
    lines: list[RenderableType] = []
    for severity, style in (("error", "red"), ("warning", "yellow")):
        found = [problem for problem in problems if problem.severity == severity]
        for problem in found[:_MOST_PROBLEMS]:
            lines.append(Text.assemble((f"{severity}: ", style), problem.message))
        if len(found) > _MOST_PROBLEMS:
            more = f"and {len(found) - _MOST_PROBLEMS} more {severity}s; --json lists all"
            lines.append(Text(more, style=style))
    return lines


def _shares(counts: Mapping[Any, int]) -> str:
    """Counts in a line."""
    return ", ".join(f"{value}: {count}" for value, count in counts.items()) or "none"


def _table(title: str, rows: Mapping[str, str]) -> Table:
    """Names and values."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    return table
