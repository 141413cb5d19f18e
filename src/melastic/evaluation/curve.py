"""Accuracy against cost: which views are worth their cost, kept in the model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from melastic.checkpoints.store import CARD, WEIGHTS, load_folder, locate, save
from melastic.config import CurvePoint
from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.evaluation.seen import readable_samples
from melastic.evaluation.sweep_rows import Row


def worth_their_cost(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """The Pareto front: which points no other one beats, cheapest first.

    Of several points with the same cost and score only the first counts.

    Args:
        costs: of each point; less is better.
        scores: of each point; more is better.
    """
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i], i)):
        if not front or scores[i] > scores[front[-1]]:
            front.append(i)
    return front


def curve_of(
    rows: Sequence[Row], clips: Sequence[Clip], sample_rate: int
) -> tuple[CurvePoint, ...]:
    """The views of a sweep that are worth their cost, cheapest first.

    Args:
        rows: measured views.
        clips: what they were measured on; their lengths are read off the files' headers.
        sample_rate: of the model (Hz).
    """
    front = worth_their_cost([row.gmacs_per_clip for row in rows], [row.accuracy for row in rows])
    lengths = [samples / sample_rate for samples in readable_samples(clips, sample_rate).values()]
    return tuple(
        CurvePoint(
            view=rows[i].view,
            accuracy=rows[i].accuracy,
            gmacs_per_clip=rows[i].gmacs_per_clip,
            seconds_per_clip=sum(min(s, rows[i].seconds or s) for s in lengths) / len(lengths),
        )
        for i in front
    )


def writable_folder(path_or_name: str | Path) -> Path:
    """The folder of a model that may be changed.

    Args:
        path_or_name: run folder or model folder.

    Raises:
        InputError: if it is no folder of the user's.
    """
    folder = locate(path_or_name)
    if not Path(path_or_name).exists():
        raise InputError(
            f"a curve is stored in a folder of yours, {path_or_name} is a name; make one first: "
            f'melastic.load("{path_or_name}").save("FOLDER")'
        )
    return folder


def store_curve(folder: Path, curve: tuple[CurvePoint, ...]) -> None:
    """Write a model again with its measured curve; weights and model card stay as they are.

    Args:
        folder: the model's.
        curve: views worth their cost.
    """
    model = load_folder(folder)
    model.config = dataclasses.replace(model.config, curve=curve)
    card = folder / CARD
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        dtype = file.get_tensor(next(iter(file.keys()))).dtype
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    save(model, folder, card=text, dtype=dtype)
