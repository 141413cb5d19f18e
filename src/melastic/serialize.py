"""Dataclasses to JSON and back, strictly: a missing, unknown or mistyped field is an error."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from melastic.errors import InputError, unknown_name

T = TypeVar("T")
KIND = "kind"
"""Key that says which dataclass of a union an object is."""
_FLOAT_OR_NOTHING = {float, type(None)}


def to_json(value: Any, hint: Any = None) -> Any:
    """Turn a dataclass into what ``json.dumps`` takes.

    Args:
        value: a dataclass, or any value that a field of one may hold.
        hint: the declared type of the field; tells whether the class must be named.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        fields = {
            field.name: to_json(getattr(value, field.name), hints[field.name])
            for field in dataclasses.fields(value)
        }
        return {KIND: type(value).__name__, **fields} if len(_classes(hint)) > 1 else fields
    if isinstance(value, tuple | list):
        inner = next(iter(typing.get_args(hint)), None)
        return [to_json(item, inner) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if type(value) is int and (hint is float or set(typing.get_args(hint)) == _FLOAT_OR_NOTHING):
        return float(value)  # so that settings written in code and read back are the same text
    return str(value) if isinstance(value, Path) else value


def plain(value: Any) -> Any:
    """A number of numpy's or torch's as Python's own; all else as it is.

    Args:
        value: any.
    """
    single = hasattr(value, "item") and getattr(value, "ndim", None) == 0
    return value.item() if single else value


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """Build a dataclass from parsed JSON.

    Args:
        kind: the dataclass.
        data: what ``json.loads`` gave.
        where: name of the value in messages, such as a file.

    Raises:
        InputError: if a field is missing, unknown or of another type.
    """
    return typing.cast(T, _read(kind, data, where or kind.__name__))


def _classes(hint: Any) -> list[type]:
    """The dataclasses among the members of a declared type."""
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    return [m for m in members if isinstance(m, type) and dataclasses.is_dataclass(m)]


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _read(hint: Any, data: Any, where: str) -> Any:
    """Read one value of a declared type."""
    if _is_union(hint):
        return _read_union(hint, data, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if data not in args:
            raise InputError(f"{where} must be one of {', '.join(map(repr, args))}, got {data!r}")
        return data
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, data, where)
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        items = _read(tuple[int, ...], data, where)
        if len(items) != len(hint._fields):
            raise InputError(f"{where} must hold {' and '.join(hint._fields)}, got {data!r}")
        return hint(*items)
    if origin is tuple and isinstance(data, list):
        kinds = [args[0]] * len(data) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(data):
            raise InputError(f"{where} must hold {len(kinds)} values, got {len(data)}")
        items = zip(kinds, data, strict=True)
        return tuple(_read(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(items))
    return _read_plain(hint, data, where)


def _read_plain(hint: Any, data: Any, where: str) -> Any:
    """Read a number, a string, a path or nothing."""
    if hint is Path and isinstance(data, str):
        return Path(data)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if hint is type(None) and data is None:
        return None
    plain = isinstance(hint, type) and isinstance(data, hint)
    if not plain or (isinstance(data, bool) and hint is not bool):
        name = getattr(hint, "__name__", str(hint))
        raise InputError(f"{where} must be of type {name}, got {data!r}")
    return data


def _read_union(hint: Any, data: Any, where: str) -> Any:
    """Read a value of one of several types; dataclasses are told apart by their name."""
    classes = {kind.__name__: kind for kind in _classes(hint)}
    if len(classes) > 1 and isinstance(data, dict):
        name = data.get(KIND)
        if not isinstance(name, str) or name not in classes:
            raise unknown_name(f"{where}.{KIND}", str(name), classes)
        rest = {key: value for key, value in data.items() if key != KIND}
        return _read_dataclass(classes[name], rest, where)
    if data is None and type(None) in typing.get_args(hint):
        return None
    errors = []
    for member in typing.get_args(hint):
        if member is type(None):
            continue
        try:
            return _read(member, data, where)
        except InputError as error:
            errors.append(str(error))
    raise InputError(errors[0] if errors else f"{where}: cannot read {data!r}")


def _read_dataclass(kind: type, data: Any, where: str) -> Any:
    """Read an object whose keys are exactly the fields of a dataclass."""
    if not isinstance(data, dict):
        raise InputError(f"{where} must be a JSON object, got {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for key in data:
        if key not in names:
            raise unknown_name(f"field in {where}:", key, names)
    missing = [name for name in names if name not in data]
    if missing:
        raise InputError(f"{where} lacks the field {missing[0]!r}; saved files hold every field")
    return kind(**{key: _read(hints[key], value, f"{where}.{key}") for key, value in data.items()})
