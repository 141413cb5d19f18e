"""Fields of a view as axes and words of a figure."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from melastic.patches.dials import size_text
from melastic.patches.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """One field of a view, as an axis of a figure."""

    name: str
    """What the axis is called."""
    short: str
    """What a legend is called."""
    of: Callable[[View], Hashable]
    """The value of a view."""
    text: Callable[[Any], str]
    """A value on the axis."""
    order: Callable[[Any], Any]
    """Sorts values."""
    usual: Callable[[Sequence[Any]], Any]
    """The value that stands for the dial where the model's own was not measured."""


DIALS = (
    Dial(
        name="patch (mels \u00d7 frames)",
        short="patch",
        of=lambda view: view.patch,
        text=lambda patch: size_text(patch).replace("x", "\u00d7"),
        order=lambda patch: (
            (patch * patch, patch, patch)
            if isinstance(patch, int)
            else (patch[0] * patch[1], *patch)
        ),
        usual=lambda values: values[len(values) // 2],
    ),
    Dial(
        name="frame shift (ms)",
        short="frame shift (ms)",
        of=lambda view: view.hop_ms,
        text="{:g}".format,
        order=lambda hop_ms: hop_ms,
        usual=lambda values: values[0],
    ),
    Dial(
        name="temporal pooling",
        short="pooling",
        of=lambda view: view.pooling,
        text=str,
        order=lambda pooling: (pooling.factor > 1, pooling.kind == "max", pooling.factor),
        usual=lambda values: values[0],
    ),
    Dial(
        name="length of a clip (s)",
        short="length (s)",
        of=lambda view: view.seconds,
        text=lambda seconds: "all" if seconds is None else f"{seconds:g}",
        order=lambda seconds: (seconds is None, seconds or 0.0),
        usual=lambda values: values[-1],
    ),
    Dial(
        name="share of tokens kept",
        short="tokens kept",
        of=lambda view: view.keep,
        text="{:g}".format,
        order=lambda keep: keep,
        usual=lambda values: values[-1],
    ),
)


def usual_values(values: Sequence[Sequence[Any]], own: View) -> list[Any]:
    """Where each dial stands while another is turned: the model's own, if that was measured."""
    return [
        dial.of(own) if dial.of(own) in found else dial.usual(found)
        for dial, found in zip(DIALS, values, strict=True)
    ]


def some_of(values: Sequence[Any], always: Any, most: int) -> list[Any]:
    """At most so many values (two or more), evenly spaced, one of which is always there."""
    if len(values) <= most:
        return list(values)
    chosen = {round(k * (len(values) - 1) / (most - 1)) for k in range(most)}
    place = values.index(always)
    if place not in chosen:
        inner = chosen - {0, len(values) - 1}
        chosen.remove(min(inner or chosen, key=lambda k: abs(k - place)))
        chosen.add(place)
    return [values[k] for k in sorted(chosen)]


def label_of(view: View, dials: Sequence[Dial]) -> str:
    """What is particular about a view, in few characters."""
    words = {
        "patch": size_text(view.patch or 1).replace("x", "\u00d7"),
        "frame shift (ms)": f"{view.hop_ms:g} ms",
        "pooling": "" if view.pooling.factor == 1 else str(view.pooling),
        "length (s)": "" if view.seconds is None else f"{view.seconds:g} s",
        "tokens kept": "" if view.keep == 1 else f"keep {view.keep:g}",
    }
    return " · ".join(words[dial.short] for dial in dials if words[dial.short])
