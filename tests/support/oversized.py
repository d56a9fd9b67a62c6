"""Arguments that are far beyond every bound, in four shapes."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.tools.tool import DRY_RUN

SIZE = 900_000
"""Bytes of each value as JSON: less than the transports take."""

MAX_ANSWER = 64_000
"""Maximum bytes of an answer to a call that holds one."""


def many_values() -> list[int]:
    return [0] * (SIZE // 2)


def many_fields() -> dict[str, int]:
    return {f"f{number:06}": 0 for number in range(SIZE // 12)}


def long_text() -> str:
    """Return a list of unknown statuses, and thus a text with as many values as it can have."""
    return "failedd," * (SIZE // 8)


def deep() -> list[object]:
    """Return many lists that are nested as deep as a parser of JSON takes."""
    branch: list[object] = []
    for _ in range(90):
        branch = [branch]
    return [branch] * (SIZE // 184)


SHAPES: Mapping[str, Callable[[], object]] = {
    "many values": many_values,
    "many fields": many_fields,
    "long text": long_text,
    "deep": deep,
}


@cache
def shape_as_json(shape: str) -> str:
    """Return the value of a shape as JSON."""
    return json.dumps(SHAPES[shape](), separators=(",", ":"))


def every_argument() -> Iterator[tuple[str, str]]:
    """Yield the name of each tool with the name of each of its arguments."""
    for tool in ALL_TOOLS:
        for name in tool.input_schema()["properties"]:
            yield tool.tool_name(), name
        if tool.previews():
            yield tool.tool_name(), DRY_RUN
