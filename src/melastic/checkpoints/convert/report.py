"""A conversion and what is to be known about it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melastic.checkpoints.convert import ORIGINS
from melastic.checkpoints.convert.common import Facts
from melastic.checkpoints.convert.parity import LIMIT, Comparison, compare
from melastic.checkpoints.convert.tensors import OfficialState
from melastic.classifier import Classifier
from melastic.config import ClassTokenPooling, MambaConfig, ModelConfig, WindowConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an official file."""

    origin: str
    tensors: int
    """How many the classifier has its numbers from."""
    dropped: tuple[str, ...]
    """Names of those that the official forward pass does not use."""
    absorbed: tuple[str, ...]
    """Peculiarities of the official code that the numbers make up for."""
    given: Mapping[str, Any]
    """Facts that were given."""
    read_off: Mapping[str, Any]
    """Facts that the file says."""
    assumed: Mapping[str, Any]
    """Facts that nobody said."""
    parameters: int
    comparisons: tuple[Comparison, ...]
    """Against the official maths; none where the head is new."""

    @property
    def passed(self) -> bool:
        """Whether every difference is one of rounding."""
        return all(comparison.passed for comparison in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            **{name: getattr(self, name) for name in ("origin", "tensors", "parameters")},
            **{name: list(getattr(self, name)) for name in ("dropped", "absorbed")},
            **{name: dict(getattr(self, name)) for name in ("given", "read_off", "assumed")},
            "comparisons": [dataclasses.asdict(comparison) for comparison in self.comparisons],
            "limit": LIMIT,
            "passed": self.passed,
        }


def convert(state_dict: Mapping[str, Any], origin: str, facts: Facts) -> tuple[Classifier, Report]:
    """A classifier with official numbers, compared with the official maths.

    Args:
        state_dict: tensors by name, as :func:`melastic.from_official` takes them.
        origin: where they come from.
        facts: what the file does not hold, of the kind that the origin has.

    Raises:
        InputError: if tensors or facts do not fit the origin.
    """
    state = OfficialState(state_dict, origin)
    model = ORIGINS[origin](state, facts)
    said = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    usual = {field.name: field.default for field in dataclasses.fields(facts)}
    given = {name: value for name, value in said.items() if value != usual[name]}
    read = {
        name: value
        for name, value in _read_off(model).items()
        if name not in given and name not in state.assumed
    }
    assumed = {n: v for n, v in said.items() if n not in given and n not in read and v}
    report = Report(
        origin=origin,
        tensors=len(state.taken),
        dropped=tuple(state.dropped),
        absorbed=tuple(state.absorbed),
        given=given,
        read_off=read,
        assumed=assumed | state.assumed,
        parameters=model.num_parameters,
        comparisons=tuple(compare(model, state_dict, origin)),
    )
    return model, report


def _read_off(model: Classifier) -> dict[str, Any]:
    """What a file says about its model, by the names of facts where there are such."""
    config = model.config
    encoder = dataclasses.asdict(config.encoder)
    usual = ("dim", "depth", "depths", "num_heads", "mlp_ratio", "variant", "state")
    return {
        "num_classes": len(model.labels),
        "patch": list(config.patches.patch),
        "stride": list(config.patches.stride),
        **({} if config.positions is None else {"positions": list(config.positions.grid)}),
        **{name: encoder[name] for name in usual if name in encoder},
        "learned_tokens": config.pooling.added,
        **({"class_token": _standing(model)} if isinstance(config.encoder, MambaConfig) else {}),
        **_image(config),
    }


def _image(config: ModelConfig) -> dict[str, Any]:
    """The image that clips are folded into, and its windows; nothing where they are not."""
    if config.patches.fold is None or not isinstance(config.encoder, WindowConfig):
        return {}
    return {
        "spec_size": config.patches.fold.frames,
        "num_mels": config.frontend.num_mels,
        "window_size": max(config.encoder.windows),
        "fold": config.patches.fold.rule,
    }


def _standing(model: Classifier) -> str:
    """Where the class tokens stand."""
    pooling = model.config.pooling
    return pooling.place if isinstance(pooling, ClassTokenPooling) else "none"
