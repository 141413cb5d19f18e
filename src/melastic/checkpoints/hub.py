"""The Hugging Face Hub: fetch and publish models (extra ``melastic[hub]``)."""

import tempfile
from pathlib import Path
from types import ModuleType

from melastic.checkpoints.store import CARD, CONFIG, WEIGHTS, read_config, read_json, save
from melastic.classifier import Classifier
from melastic.errors import InputError


def fetch(name: str) -> Path:
    """Download a model, or find it in the local cache.

    Args:
        name: ``"owner/name"``.

    Returns:
        Folder with the model's files.

    Raises:
        InputError: if the extra is missing, there is no such model within reach, or it is not ours;
            the last is found out before its weights are downloaded.
    """
    hub = _hub(name)
    folder = _download(hub, name, [CONFIG, CARD])
    if not (folder / CONFIG).is_file():
        raise _without(name, CONFIG)
    read_config(read_json(folder / CONFIG), Path(name, CONFIG))
    folder = _download(hub, name, [WEIGHTS, CONFIG, CARD])
    if not (folder / WEIGHTS).is_file():
        raise _without(name, WEIGHTS)
    return folder


def push(model: Classifier, name: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a model.

    Args:
        model: what to publish.
        name: ``"owner/name"``; the repository is made if it does not exist.
        private: whether only its owner may see a newly made repository.
        token: access token; None: the one that ``hf auth login`` stored.

    Returns:
        Address of the commit.

    Raises:
        InputError: if the extra is missing, or the Hub refuses.
    """
    hub = _hub(name)
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder))
        try:
            api = hub.HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=name, folder_path=folder)
        except _troubles(hub) as error:
            raise InputError(
                f"{name}: the Hub did not take the model ({_first_line(error)}); check the name, "
                "the token and the network"
            ) from None
    return str(commit)


def _hub(name: str) -> ModuleType:
    """The ``huggingface_hub`` package."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise InputError(
            f"{name}: not a folder here, and the Hub needs the extra 'melastic[hub]'; install it "
            "or check the path"
        ) from None
    return huggingface_hub


def _download(hub: ModuleType, name: str, files: list[str]) -> Path:
    """Some files of a repository, as far as it has them.

    ``snapshot_download`` also for a single file: where there is no network it looks into the cache
    at once, and does not try again for half a minute.
    """
    try:
        return Path(hub.snapshot_download(name, allow_patterns=files))
    except _troubles(hub) as error:
        reason = _first_line(error)
        if isinstance(error, hub.errors.RepositoryNotFoundError):
            reason = "no such repository, or one that is private or gated"
        raise InputError(
            f"{name}: neither a folder here nor within reach on the Hub ({reason}); check the name "
            "and the network"
        ) from None


def _without(name: str, file: str) -> InputError:
    """The error for a repository that lacks a file."""
    return InputError(
        f"{name}: is not a melastic model on the Hub, it has no {file}; name a repository that "
        "model.push_to_hub wrote"
    )


def _troubles(hub: ModuleType) -> tuple[type[Exception], ...]:
    """What requests to the Hub may raise.

    The package's own errors, the base error of the HTTP library that it uses (another one from
    version to version; its errors module imports it), and those of files and uploading threads.
    """
    own = [kind for kind in vars(hub.errors).values() if isinstance(kind, type)]
    own = [kind for kind in own if issubclass(kind, Exception)]
    return (*own, OSError, ValueError, RuntimeError)


def _first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else repr(error)
