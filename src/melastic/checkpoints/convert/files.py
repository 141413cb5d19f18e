"""Files of other projects: checkpoints, and lists of class names."""

import csv
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from melastic.errors import InputError

NAME_COLUMNS = ("display_name", "label", "name")
"""Columns that hold names of classes, the first that is there counts."""
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
)
"""What torch raises about files that are none of its own, cut short or hold more than tensors."""


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Tensors by name, and what a training script saved with them; no code of the file is run.

    Args:
        path: a file of ``torch.save``, or a safetensors file (told by its ending).

    Raises:
        InputError: if it is missing or no checkpoint.
    """
    if path.is_dir():
        raise InputError(f"{path}: a checkpoint is a file, this is a folder; name the file in it")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *UNREADABLE) as error:
        if "Unsupported global" in str(error):
            raise InputError(
                f"{path}: holds Python objects beside tensors, which are not loaded; save only "
                "model.state_dict() with torch.save"
            ) from None
        raise InputError(
            f"{path}: no checkpoint of torch.save or safetensors, or cut short; check that it is "
            "the right file and fetch it again"
        ) from None
    if not isinstance(found, Mapping):
        raise InputError(
            f"{path}: a checkpoint maps names to tensors, this file holds a "
            f"{type(found).__name__}; save model.state_dict()"
        )
    return found


def read_class_names(path: Path) -> list[str]:
    """Names of classes, in the order of the logits.

    Args:
        path: a text file with a name on each line; or a CSV file with a header, names in a column
            ``display_name``, ``label`` or ``name`` and, where there is one, numbers in ``index``,
            as the data sets around AudioSet have it.

    Raises:
        InputError: if it is missing, empty, or a CSV file without such columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read as class names ({reason}); check it") from None
    lines = [line for line in lines if line.strip()]
    if path.suffix.lower() == ".csv" and lines:
        names = _named_column(lines, path)
    else:
        names = [line.strip() for line in lines]
    if not names:
        raise InputError(f"{path}: holds no class names; write one on each line")
    return names


def _named_column(lines: list[str], path: Path) -> list[str]:
    """Names in a table with a header."""
    rows = list(csv.DictReader(lines))
    header = next(csv.reader(lines))
    column = next((name for name in NAME_COLUMNS if name in header), None)
    if column is None:
        raise InputError(
            f"{path}: a CSV file of class names has a column {', '.join(NAME_COLUMNS)}, got "
            f"{', '.join(header)}; write one name on each line of a .txt file instead"
        )
    for number, row in enumerate(rows, 1):
        if not (row[column] or "").strip():
            raise InputError(f"{path}: row {number} below the header has no {column}; name it")
    if "index" not in header:
        return [row[column] for row in rows]
    numbers = [row["index"] for row in rows]
    if sorted(numbers) != sorted(map(str, range(len(rows)))):
        raise InputError(f"{path}: the column index counts from 0 without gaps; correct it")
    return [row[column] for row in sorted(rows, key=lambda row: int(row["index"]))]
