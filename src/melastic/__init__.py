"""Audio classifiers that stretch: any clip length, any time resolution, any patch size."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melastic.checkpoints.convert import from_official
    from melastic.checkpoints.store import load
    from melastic.classifier import Classifier, Prediction
    from melastic.errors import DivergedError, InputError
    from melastic.frontend.audio import load_audio
    from melastic.frontend.fbank import log_mel
    from melastic.patches.dials import Pooling
    from melastic.patches.grid import FreqTime, PatchGrid
    from melastic.patches.view import View
    from melastic.presets import create_model, list_models
    from melastic.scan.selective import scan_kernel, selective_scan

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "DivergedError",
    "FreqTime",
    "InputError",
    "PatchGrid",
    "Pooling",
    "Prediction",
    "View",
    "create_model",
    "from_official",
    "list_models",
    "load",
    "load_audio",
    "log_mel",
    "scan_kernel",
    "selective_scan",
]

_HOMES = {
    "Classifier": "melastic.classifier",
    "DivergedError": "melastic.errors",
    "FreqTime": "melastic.patches.grid",
    "InputError": "melastic.errors",
    "PatchGrid": "melastic.patches.grid",
    "Pooling": "melastic.patches.dials",
    "Prediction": "melastic.classifier",
    "View": "melastic.patches.view",
    "create_model": "melastic.presets",
    "from_official": "melastic.checkpoints.convert",
    "list_models": "melastic.presets",
    "load": "melastic.checkpoints.store",
    "load_audio": "melastic.frontend.audio",
    "log_mel": "melastic.frontend.fbank",
    "scan_kernel": "melastic.scan.selective",
    "selective_scan": "melastic.scan.selective",
}
"""Where each public name lives; it is imported when it is first used."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import melastic`` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'melastic' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted([*globals(), *__all__])
