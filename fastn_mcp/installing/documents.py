"""A configuration as bytes: additions go in, and come out, and everything else is proven to be what it was. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fastn_mcp.installing import json_text, toml_text
from fastn_mcp.installing.addition import Addition, NoPlace, Trace, Unreadable, pruned, with_, without
from fastn_mcp.installing.clients import Format

_BOM = b"\xef\xbb\xbf"


def load(format_: Format, content: bytes) -> Any:
    """What it says. Raises `Unreadable`."""
    return _parsed(format_, _opened(content).text)


def put(format_: Format, content: bytes, additions: Sequence[Addition]) -> tuple[bytes, list[Trace]]:
    """The content with the additions. Raises `Unreadable` and `NoPlace`."""
    opened, traces = _opened(content), list[Trace]()
    text = opened.text
    for addition in additions:
        wanted = with_(_parsed(format_, text), addition) if _takes(format_, text, addition) else None
        text, trace = toml_text.insert(text, addition) if format_ is Format.TOML else json_text.insert(text, addition)
        traces.append(trace)
        if not same(_parsed(format_, text), wanted):
            raise NoPlace(".".join(addition.path))
    return opened.closed(text), traces


def take(format_: Format, content: bytes, additions: Sequence[Addition], traces: Sequence[Trace]) -> bytes:
    """The content without the additions. Raises `Unreadable` and `NoPlace`."""
    opened = _opened(content)
    text = opened.text
    for addition, trace in reversed(list(zip(additions, traces, strict=True))):
        rest = without(_parsed(format_, text), addition)
        bare = pruned(rest, addition)
        texts: Iterable[str] = (
            toml_text.removals(text, addition, trace)
            if format_ is Format.TOML
            else (json_text.remove(text, addition, trace),)
        )
        left = (one for one in texts if _says(format_, one, rest) or _says(format_, one, bare))
        found = next(left, None)
        if found is None:
            raise NoPlace(".".join(addition.path))
        text = found
    return opened.closed(text)


def same(one: Any, other: Any) -> bool:
    """Whether two documents say the same; what is no number is the same as itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast(dict[str, Any], one), cast(dict[str, Any], other)
        return first.keys() == second.keys() and all(same(value, second[name]) for name, value in first.items())
    if isinstance(one, list) and isinstance(other, list):
        left, right = cast(list[Any], one), cast(list[Any], other)
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(cast(object, one)) is type(cast(object, other)) and bool(one == other)


@dataclass(frozen=True, slots=True)
class _Opened:
    mark: bytes
    text: str

    def closed(self, text: str) -> bytes:
        return self.mark + text.encode("utf-8")


def _opened(content: bytes) -> _Opened:
    mark = _BOM if content.startswith(_BOM) else b""
    try:
        return _Opened(mark, content[len(mark) :].decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None


def _parsed(format_: Format, text: str) -> Any:
    if format_ is Format.TOML:
        return toml_text.load(text)
    return json_text.load(text, comments=format_ is Format.JSONC)


def _takes(format_: Format, text: str, addition: Addition) -> bool:
    """Whether the document holds objects where the addition wants them. Where not, inserting says so."""
    document: Any = _parsed(format_, text)
    for step in addition.path:
        if not isinstance(document, dict):
            return False
        document = cast(dict[str, Any], document).get(step, {} if addition.key is not None else [])
    return isinstance(cast(object, document), list if addition.key is None else dict)


def _says(format_: Format, text: str, wanted: Any) -> bool:
    try:
        return same(_parsed(format_, text), wanted)
    except Unreadable:
        return False
