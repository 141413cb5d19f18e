"""``melastic models``, ``recipes`` and ``info``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import tyro

from melastic.architecture import model_config
from melastic.checkpoints.store import BUNDLED, CARD, bundled, load_folder, locate
from melastic.classifier import Classifier
from melastic.cli.parse import parse, print_json, print_table
from melastic.config import FrontendConfig, MambaConfig
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs_per_second
from melastic.native.library import kernels
from melastic.presets import PRESETS, list_models
from melastic.recipes import load_recipe, recipe_names, summary
from melastic.serialize import to_json


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    """List what ships with the package."""

    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """Shell-style, such as 'as*'."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


@dataclass(frozen=True, kw_only=True)
class NameArguments:
    """Show one thing."""

    name: Annotated[str, tyro.conf.Positional]
    """Its name."""


@dataclass(frozen=True, kw_only=True)
class InfoArguments:
    """Describe a model."""

    model: Annotated[str, tyro.conf.Positional]
    """Run folder, model folder, or name."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document."""


def _matching(names: list[str], pattern: str) -> list[str]:
    """Names that were found, of which there must be some."""
    if not names:
        raise InputError(f"no name matches {pattern!r}; '*' lists all")
    return names


def models(arguments: Sequence[str], prog: str) -> int:
    """List presets and bundled weights."""
    args = parse(ListArguments, arguments, prog)
    rows = [_model_row(name) for name in _matching(list_models(args.pattern), args.pattern)]
    if args.json:
        print_json(rows)
        return 0
    print_table(
        ["name", "weights", "classes", "parameters", "GMACs/s"],
        [
            [
                row["name"],
                "bundled" if row["bundled"] else "random",
                row["classes"] or "",
                f"{row['parameters']:,}",
                f"{row['gmacs_per_second']:.3f}",
            ]
            for row in rows
        ],
    )
    return 0


def recipes(arguments: Sequence[str], prog: str) -> int:
    """List training recipes."""
    args = parse(ListArguments, arguments, prog)
    names = _matching(recipe_names(args.pattern), args.pattern)
    rows = [{"name": name, "summary": summary(name)} for name in names]
    if args.json:
        print_json(rows)
        return 0
    print_table(["recipe", "what it does"], [[row["name"], row["summary"]] for row in rows])
    return 0


def recipe(arguments: Sequence[str], prog: str) -> int:
    """Print a recipe as a config.json."""
    args = parse(NameArguments, arguments, prog)
    print_json(to_json(load_recipe(args.name)))
    return 0


def info(arguments: Sequence[str], prog: str) -> int:
    """Describe a model."""
    args = parse(InfoArguments, arguments, prog)
    folder = locate(args.model)
    model = load_folder(folder)
    if args.json:
        print_json({**_cost(model), "config": to_json(model.config)})
        return 0
    config, cost = model.config, _cost(model)
    frontend, patches, table = config.frontend, config.patches, config.positions
    mels, seconds = config.extent
    rows = [
        ("model", config.name),
        ("parameters", f"{cost['parameters']:,}"),
        ("cost of a second", f"{cost['gmacs_per_second']:.4f} GMACs"),
        ("task", config.task),
        ("labels", f"{len(config.labels)}: {', '.join(config.labels) or 'none'}"),
        (
            "front end",
            f"{frontend.num_mels} mels, hop {frontend.hop_ms:g} ms, window {frontend.window_ms:g} "
            f"ms, {frontend.sample_rate} Hz, mean {frontend.mean:.4f}, std {frontend.std:.4f}",
        ),
        ("mel scale", _mel_scale(frontend)),
        ("patches", f"{patches.patch.freq} x {patches.patch.time} (mels x frames)"),
        ("stride", f"{patches.stride.freq} x {patches.stride.time}, rest: {patches.remainder}"),
        ("made for", f"{mels:g} mels x {seconds:g} s"),
        ("positions", "none" if table is None else type(table).__name__),
        *([("fold", str(patches.fold))] if patches.fold is not None else []),
        ("encoder", str(config.encoder)),
        ("pooling", str(config.pooling)),
        *([("CPU kernels", kernels().said)] if isinstance(config.encoder, MambaConfig) else []),
        *(
            (
                "within a budget",
                f"{point.view}: {100 * point.accuracy:.2f} %, "
                f"{point.gmacs_per_clip:.4f} GMACs for {point.seconds_per_clip:.2g} s",
            )
            for point in config.curve
        ),
    ]
    print_table(["", ""], rows)
    card = folder / CARD
    if folder.parent == BUNDLED and card.is_file():
        sys.stdout.write("\n" + card.read_text(encoding="utf-8").partition("\n# ")[2] + "\n")
    return 0


def _model_row(name: str) -> dict[str, Any]:
    """What ``models --json`` says of one model."""
    ships = name in bundled()
    if ships:
        model = load_folder(BUNDLED / name)
    else:
        labels = tuple(str(i) for i in range(527))
        with torch.device("meta"):
            model = Classifier(model_config(PRESETS[name], name=name, labels=labels))
    classes = len(model.labels) if ships else None
    return {"name": name, "bundled": ships, "classes": classes, **_cost(model)}


def _mel_scale(frontend: FrontendConfig) -> str:
    """Whose log-mels a front end computes."""
    slaney = frontend.slaney
    if slaney is None:
        return "Kaldi's"
    return f"librosa's (Slaney), {slaney.low_hz:g} to {slaney.high_hz:g} Hz"


def _cost(model: Classifier) -> dict[str, Any]:
    """Size and compute of a model."""
    return {
        "parameters": model.num_parameters,
        "gmacs_per_second": gmacs_per_second(model.config),
    }
