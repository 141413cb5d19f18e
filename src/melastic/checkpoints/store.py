"""Save and load classifiers: weights in safetensors, everything else in strict JSON."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from melastic.classifier import Classifier
from melastic.config import ModelConfig
from melastic.errors import InputError, unknown_name
from melastic.files import replacing
from melastic.serialize import from_json, to_json

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORMAT = "melastic-model"
VERSION = 4
"""Version of the configuration; older ones are upgraded on loading."""
BUNDLED = Path(__file__).parent.parent / "weights"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(path) as part:
        part.write_text(_json_text(value), encoding="utf-8")


def _json_text(value: Any) -> str:
    """A JSON document as files hold it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a JSON file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); write or fetch it again") from None


def save(
    model: Classifier,
    folder: Path,
    *,
    card: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``.

    The weights carry a digest of the configuration, so that a folder in which only one of the two
    is new is recognised.

    Args:
        model: what to save.
        folder: where; made if it does not exist.
        card: model card (Markdown); None: a short one.
        dtype: number format of the stored weights; loading always gives float32.

    Raises:
        InputError: if the folder holds files of the same names that are no model's, or the model
            could not be loaded again.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a model is saved to a folder, this is a file; name another")
    if (folder / CONFIG).exists() and not _is_of_a_model(folder / CONFIG):
        raise InputError(
            f"{folder}: holds a {CONFIG} that is of no model, such as a run's; name another folder"
        )
    for name in (CARD, WEIGHTS):
        if (folder / name).exists() and not (folder / CONFIG).exists():
            raise InputError(
                f"{folder}: holds a {name} that a model's would replace; name another folder"
            )
    config = {"format": FORMAT, "version": VERSION, "model": to_json(model.config)}
    from_json(ModelConfig, config["model"], model.config.name)
    for name, value in model.state_dict().items():
        if value.is_meta or not torch.isfinite(value).all():
            lack = "has no values" if value.is_meta else "is not finite"
            raise InputError(f"{folder}: {name} {lack}, so it is not saved; train it anew")
    state = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    # Whatever cannot be written, all three stay as they were. The settings, which mark the folder
    # as a model's, are the first to be put in place.
    with (
        replacing(folder / WEIGHTS) as weights,
        replacing(folder / CARD) as text,
        replacing(folder / CONFIG) as settings,
    ):
        text.write_text(card or _short_card(model), encoding="utf-8")
        settings.write_text(_json_text(config), encoding="utf-8")
        metadata = {"format": "pt", "config": digest(config)}
        write_tensors(state, weights, metadata, name=folder / WEIGHTS)


def _is_of_a_model(path: Path) -> bool:
    """Whether a settings file says that it is a model's."""
    try:
        raw = read_json(path)
    except InputError:
        return False
    return isinstance(raw, dict) and "format" in raw


def write_tensors(
    tensors: dict[str, torch.Tensor], part: Path, metadata: dict[str, str], *, name: Path
) -> None:
    """Write a file of tensors.

    Args:
        tensors: by their names.
        part: what :func:`replacing` has for it.
        metadata: text beside them.
        name: what the file shall be.

    Raises:
        InputError: if it cannot be written, such as on a full disk.
    """
    try:
        save_file(tensors, part, metadata=metadata)
    except SafetensorError as error:
        raise InputError(
            f"{name}: cannot be written ({error}); make room, or name another place"
        ) from None


def load(path_or_name: str | Path) -> Classifier:
    """A classifier from a folder, a bundled name, or the Hugging Face Hub.

    Args:
        path_or_name: a folder that :meth:`Classifier.save` or a training run wrote, a name of
            bundled weights, or ``"owner/name"`` on the Hub.

    Raises:
        InputError: if there is no such model, or its files are missing, damaged or do not match.
    """
    return load_folder(locate(path_or_name))


def locate(path_or_name: str | Path) -> Path:
    """The folder that holds a model's files.

    Raises:
        InputError: if there is none.
    """
    if not isinstance(path_or_name, str | Path):
        raise InputError(f"a model is a folder or a name, got {path_or_name!r}; try 'digits'")
    path, name = Path(path_or_name), str(path_or_name)
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if path.exists() and name not in bundled():
        raise InputError(
            f"{path}: holds no model (no {WEIGHTS} beside {CONFIG}); name a folder that "
            "model.save or melastic train wrote"
        )
    if name in bundled():
        return BUNDLED / name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from melastic.checkpoints.hub import fetch

        return fetch(name)
    from melastic.presets import PRESETS

    if name in PRESETS:
        raise InputError(
            f"{name} is a preset without weights; train one (melastic train RECIPE "
            f"--model.preset {name}) or name bundled weights: {', '.join(bundled())}"
        )
    raise unknown_name("model", name, bundled())


def bundled() -> list[str]:
    """Names of the trained weights that ship with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{WEIGHTS}"))


def load_folder(folder: Path) -> Classifier:
    """A classifier from a folder with its files."""
    raw = read_json(folder / CONFIG)
    config = read_config(raw, folder / CONFIG)
    with torch.device("meta"):
        model = Classifier(config)
    state = _read_weights(folder / WEIGHTS, digest(raw))
    check_state(model, state, folder / WEIGHTS)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True)


def read_config(raw: Any, path: Path) -> ModelConfig:
    """Parsed ``config.json`` to a configuration; older versions are upgraded.

    Raises:
        InputError: if it is not ours, newer than this package, or damaged.
    """
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise InputError(
            f"{path}: not a melastic model; for official weights use melastic.from_official"
        )
    version = raw.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InputError(
            f"{path}: written in version {version} of the format, this package reads up to "
            f"{VERSION}; update melastic"
        )
    return from_json(ModelConfig, upgraded(raw.get("model"), version), str(path))


def upgraded(model: Any, version: int) -> Any:
    """The configuration of a model in the present version of the format.

    Version 1 knew one patch size, positions by place, log-mels as they are, no tokens in front of a
    clip whose mean is taken, and no measured curve; version 2 one encoder, and class tokens in
    front of a clip; version 3 Kaldi's log-mels and patches of clips as they are.
    """
    if not isinstance(model, dict):
        return model
    if version < 2:
        model = _with_fields(
            {"curve": [], **model},
            frontend={"level": None},
            patches={"resize": {"method": "pi", "interpolation": "bilinear", "antialias": False}},
            positions={"reading": "place", "antialias": True, "init": "normal"},
            pooling={"leading": 0} if _kind(model, "pooling") == "MeanPooling" else {},
        )
    if version < 3:
        first = {"place": "first", "positioned": False}
        model = _with_fields(
            model,
            encoder={"kind": "TransformerConfig"},
            pooling=first if _kind(model, "pooling") == "ClassTokenPooling" else {},
        )
    if version < 4:
        plain = {"fold": None, "bin_scale": False, "norm_eps": None}
        model = _with_fields(model, frontend={"slaney": None}, patches=plain)
    return model


def _kind(model: dict[str, Any], part: str) -> Any:
    """Which of several kinds a part of a configuration is."""
    found = model.get(part)
    return found.get("kind") if isinstance(found, dict) else None


def _with_fields(model: dict[str, Any], **added: dict[str, Any]) -> dict[str, Any]:
    """A configuration with further fields in some of its parts, where there are such parts."""
    parts = {name: model.get(name, {}) for name in added}
    return {
        **model,
        **{name: {**old, **added[name]} for name, old in parts.items() if isinstance(old, dict)},
    }


def check_state(model: Classifier, state: dict[str, torch.Tensor], where: str | Path) -> None:
    """Refuse weights that do not fit a model.

    Raises:
        InputError: naming the first tensor that is missing, unknown, of another shape or not
            finite.
    """
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise InputError(f"{where}: lacks the tensor {name}; the file belongs to another model")
        if state[name].shape != value.shape:
            raise InputError(
                f"{where}: {name} has the shape {tuple(state[name].shape)}, the configuration "
                f"says {tuple(value.shape)}; the files belong to different models"
            )
        if not torch.isfinite(state[name]).all():
            raise InputError(f"{where}: {name} is not finite; the weights are damaged")
    for name in state:
        if name not in wanted:
            raise InputError(f"{where}: the tensor {name} is not part of this model")


def digest(config: Any) -> str:
    """Fingerprint of parsed JSON."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_weights(path: Path, config_digest: str) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file, as float32."""
    try:
        with safe_open(path, framework="pt") as file:
            written_for = (file.metadata() or {}).get("config")
            state = {
                name: file.get_tensor(name).to(torch.float32, copy=True)  # aligned, not mapped
                for name in file.keys()  # noqa: SIM118
            }
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: damaged or cut short ({str(error).strip()}); fetch or save it again"
        ) from None
    if written_for != config_digest:
        raise InputError(
            f"{path}: was saved with another {CONFIG} than the one beside it; copy both files from "
            "the same place"
        )
    return state


def _short_card(model: Classifier) -> str:
    """A model card from the configuration alone."""
    config = model.config
    labels = ", ".join(config.labels[:50]) + (" …" if len(config.labels) > 50 else "") or "none"
    return (
        f"---\nlibrary_name: melastic\npipeline_tag: audio-classification\n---\n\n"
        f"# {config.name}\n\n{model.num_parameters:,} parameters, "
        f"{len(config.labels)} classes: {labels}\n\n"
        '```python\nimport melastic\n\nmodel = melastic.load(".")\n'
        'model.classify("clip.wav")\n```\n'
    )
