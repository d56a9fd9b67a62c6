"""Bounds of arguments: how much each may hold, checked on what was sent before anything is computed from it.

A text has at most 256 characters unless its field declares another bound in its annotation. Schemas do not repeat
bounds, as they would cost tokens in every conversation.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, cast, get_args

from pydantic_core import to_json

from fastn_mcp.records.formats import counted
from fastn_mcp.tools.tool import DRY_RUN, AnyTool

MAX_ARGUMENTS = 64
"""Maximum number of arguments of one call, unknown ones included."""

MAX_SIZE = 256_000
"""Maximum size of all arguments of a call together, in bytes of JSON."""

MAX_CONTAINERS = 20_000
"""Maximum number of lists and objects in a message. To parse 100,000 takes a quarter of a second."""


@dataclass(frozen=True, slots=True)
class TextBound:
    """Bound of a text: its characters, and its values where it is a list with commas."""

    characters: int = 256
    values: int | None = None

    def excess(self, value: object) -> str | None:
        """Return how much a value holds and how much is taken; None if it is within the bound."""
        if not isinstance(value, str):
            return _OF_NO_TEXT.excess(value) or self._excess_of_list(value)
        if len(value) > self.characters:
            return _exceeds(counted(len(value), "character"), f"{self.characters:,}")
        count = value.count(",") + 1
        return None if self.values is None or count <= self.values else _exceeds(f"{count:,} values", f"{self.values}")

    def _excess_of_list(self, value: object) -> str | None:
        """Return the same of a list, which some arguments take in place of a text with commas."""
        items = cast("list[object]", value) if isinstance(value, list) else []
        return self.excess(",".join(item for item in items if isinstance(item, str))) if items else None


@dataclass(frozen=True, slots=True)
class JsonBound:
    """Bound of a list or an object: its values at any depth, its bytes as JSON, and its levels of nesting.

    It holds for the JSON text of one too, and for what that text holds.
    """

    values: int
    size: int
    depth: int = 20

    def excess(self, value: object) -> str | None:
        """Return how much a value holds and how much is taken; None if it is within the bound."""
        if isinstance(value, str) and len(value) > self.size:
            return _exceeds(counted(len(value), "character"), f"{self.size:,}")
        found = self._excess(value)
        if found is not None:
            return found
        if isinstance(value, list):
            items = cast("list[object]", value)
            return self._excess(list(map(parsed_json, items))) if any(isinstance(item, str) for item in items) else None
        return self._excess(parsed_json(value)) if isinstance(value, str) else None

    def _excess(self, value: object) -> str | None:
        # Level by level, so that neither depth nor what is beyond the bound costs anything.
        level = _containers([value])
        count = depth = 0
        while level:
            depth += 1
            if depth > self.depth:
                return _exceeds(f"more than {self.depth} levels of nesting", f"{self.depth}")
            held = [each.values() if isinstance(each, dict) else each for each in level]
            count += sum(map(len, held))
            children = chain.from_iterable(held)
            if count > self.values:
                is_nested = not {dict, list}.isdisjoint(map(type, children))
                return _exceeds(counted(count, "value", at_least=is_nested), f"{self.values:,}")
            level = _containers(children)
        with suppress(ValueError):  # not encodable, which `size_problem` reports
            size = len(to_json(value))
            if size > self.size:
                return _exceeds(_kilobytes(size), _kilobytes(self.size))
        return None


_OF_NO_TEXT = JsonBound(values=100, size=20_000)
"""Bound of a list or an object that was given in place of a text or a number."""

OF_CALLS = JsonBound(values=10_000, size=MAX_SIZE, depth=30)
"""Bound of an argument that holds calls, whose own arguments have their own bounds."""

_DEFAULT = TextBound()


def parsed_json(value: object) -> object:
    """Return what a JSON text holds; any other value as it is."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def message_problem(message: bytes) -> str | None:
    """Describe why a message of a client is not parsed, as a sentence. Brackets in its texts count too."""
    count = message.count(b"[") + message.count(b"{")
    return None if count <= MAX_CONTAINERS else f"{_exceeds(f'{count:,} lists and objects', f'{MAX_CONTAINERS:,}')}."


def size_problem(tool: AnyTool, arguments: Mapping[str, Any]) -> str | None:
    """Describe the first argument that exceeds its bound or cannot be sent as JSON, without a full stop."""
    if len(arguments) > MAX_ARGUMENTS:
        return _exceeds(counted(len(arguments), "argument"), f"{MAX_ARGUMENTS}")
    bounds = bounds_of(tool)
    for name, value in arguments.items():
        found = bounds[name].excess(value) if name in bounds else None
        if found is not None:
            return f"{name}: {found}"
    try:
        size = len(to_json(arguments))
    except ValueError:
        field = next(name for name, value in arguments.items() if not _is_encodable({name: value}))
        return f"{field[:64]!r} contains an incomplete character or is nested too deeply"
    if size <= MAX_SIZE:
        return None
    largest = max(arguments, key=lambda name: len(to_json({name: arguments[name]})))
    return f"arguments: {_exceeds(_kilobytes(size), _kilobytes(MAX_SIZE))}; the largest is {largest[:64]!r}"


@cache
def bounds_of(tool: AnyTool) -> Mapping[str, TextBound | JsonBound]:
    """Return the bound of each argument by the name that clients use."""
    bounds: dict[str, TextBound | JsonBound] = {DRY_RUN: _DEFAULT}
    for name, field in tool.model_fields.items():
        declared = chain(reversed(field.metadata), _metadata(field.annotation))
        found = (each for each in declared if isinstance(each, (TextBound, JsonBound)))
        bounds[str(field.validation_alias or name)] = next(found, _DEFAULT)
    return bounds


def _metadata(annotation: object) -> Iterator[object]:
    """Yield the metadata in an annotation, the outermost first: `Annotated` puts it last."""
    yield from reversed(getattr(annotation, "__metadata__", ()))
    for inner in get_args(annotation):
        yield from _metadata(inner)


def _containers(values: "Iterator[object] | list[object]") -> list[dict[str, object] | list[object]]:
    return [value for value in values if isinstance(value, (dict, list))]


def _is_encodable(value: object) -> bool:
    try:
        to_json(value)
    except ValueError:
        return False
    return True


def _exceeds(held: str, taken: str) -> str:
    return f"{held}; at most {taken} are accepted"


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.0f} kB"
