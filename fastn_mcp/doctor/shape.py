"""What an answer looks like: its envelope, its fields and their types. Pure, and blind to values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

DECLARED = "data"
"""The envelope that Fastn documents."""

_WRAPPERS = ("data", "items", "results", "result", "item")
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """`fields` are the top ones of a row, each with the types that it had. What lies in them is not looked at."""

    envelope: str
    fields: Mapping[str, tuple[str, ...]]


def envelope_of(body: JsonValue) -> str:
    """The wrappers around a row or the rows, as `data.data`; `bare` where there are none."""
    path: list[str] = []
    while isinstance(body, dict) and "id" not in body and len(path) < _DEEPEST:
        name = next((n for n in _WRAPPERS if isinstance(body.get(n), (dict, list))), None)
        if name is None:
            break
        path.append(name)
        body = body[name]
    return ".".join(path) or "bare"


def fields_of(rows: Iterable[Mapping[str, JsonValue]]) -> dict[str, tuple[str, ...]]:
    """Each name with its types, in the order in which they came."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, {})[_type(value)] = None
    return {name: tuple(types) for name, types in found.items()}


def _type(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    for kind, name in ((str, "string"), (int, "integer"), (float, "number"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "null"
