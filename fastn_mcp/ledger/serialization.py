"""How records are stored: each field of a dataclass becomes a column or a hash field, as its type says.

Text and numbers are stored as they are, booleans as 0 or 1, enums as their values. Structures become JSON, in which a
dataclass is the list of its fields.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, fields
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

Record = TypeVar("Record")
StoredValue = str | int | float | None

_AFFINITIES = {float: "REAL", int: "INTEGER", bool: "INTEGER"}
"""SQLite's types of numbers. Everything else is text."""


@cache
def _types(record: type[Any]) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field, apart from None, and whether it can be None."""
    types: dict[str, tuple[Any, bool]] = {}
    for each in fields(record):
        members = get_args(each.type) if isinstance(each.type, UnionType) else (each.type,)
        (kind,) = (member for member in members if member is not NoneType)
        types[each.name] = kind, NoneType in members
    return types


def columns(record: type[Any]) -> str:
    """Return the columns of a dataclass for CREATE TABLE. Its first field is the primary key."""
    key, *others = (
        " ".join([name, _AFFINITIES.get(kind, "TEXT"), *([] if is_optional else ["NOT NULL"])])
        for name, (kind, is_optional) in _types(record).items()
    )
    return ", ".join((f"{key} PRIMARY KEY", *others))


def store(record: object) -> dict[str, StoredValue]:
    return {name: _stored(getattr(record, name)) for name in _types(type(record))}


def _stored(value: object) -> StoredValue:
    match value:
        case Enum():
            return value.value
        case bool():
            return int(value)
        case None | str() | int() | float():
            return value
        case _:
            return json.dumps(value, default=astuple)


def load(record: type[Record], stored: Mapping[str, Any]) -> Record:
    """Deserialize the fields that `store` returned, where numbers may be strings and None left out.

    Raises `ValueError`, `TypeError`, `KeyError`, `AttributeError` or `RecursionError` if they are not of this class.
    """
    types = _types(record)
    if unknown := stored.keys() - types.keys():
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    return record(
        **{
            name: None if is_optional and stored.get(name) is None else _loaded(kind, stored[name])
            for name, (kind, is_optional) in types.items()
        }
    )


def _loaded(kind: Any, value: Any) -> Any:
    if kind is str:
        return value
    if kind is bool:
        return int(value) == 1
    if kind in _AFFINITIES or (isinstance(kind, type) and issubclass(kind, Enum)):
        return kind(value)
    return _structure(kind, json.loads(value))


def _structure(kind: Any, value: Any) -> Any:
    """Return a parsed JSON value as the type of a field has it."""
    if hasattr(kind, "__dataclass_fields__"):
        return kind(*(_structure(part, each) for (part, _), each in zip(_types(kind).values(), value, strict=False)))
    origin, members = get_origin(kind), get_args(kind)
    if origin is tuple:
        return tuple(_structure(members[0], item) for item in value)
    if origin is Mapping:
        return {members[0](key): _structure(members[1], item) for key, item in value.items()}
    return value
