"""Add an entry to a configuration document and remove it; everything else stays as it is.

In TOML a table is put at the end: its header opens it there whatever stands before, so nothing has to be rewritten.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import tomlkit

from fastn_mcp.config.strict_toml import without_tables
from fastn_mcp.install import json_text
from fastn_mcp.install.addition import Addition, NoPlace, Trace, UnreadableConfig, pruned, with_, without
from fastn_mcp.install.clients import Format

_BOM = b"\xef\xbb\xbf"


def load(format_: Format, content: bytes) -> Any:
    """What it says. Raises `UnreadableConfig`."""
    return _parsed(format_, _opened(content).text)


def put(format_: Format, content: bytes, additions: Sequence[Addition]) -> tuple[bytes, list[Trace]]:
    """The content with the additions. Raises `UnreadableConfig` and `NoPlace`."""
    opened, traces = _opened(content), list[Trace]()
    text, document = opened.text, _parsed(format_, opened.text)
    for addition in additions:
        wanted = with_(document, addition) if _takes(document, addition) else None
        text, trace = _insert_toml(text, addition) if format_ is Format.TOML else json_text.insert(text, addition)
        traces.append(trace)
        document = _parsed(format_, text)
        if not same(document, wanted):
            raise NoPlace(".".join(addition.path))
    return opened.closed(text), traces


def take(format_: Format, content: bytes, additions: Sequence[Addition], traces: Sequence[Trace]) -> bytes:
    """The content without the additions. Raises `UnreadableConfig` and `NoPlace`."""
    opened = _opened(content)
    text = opened.text
    for addition, trace in reversed(list(zip(additions, traces, strict=True))):
        rest = without(_parsed(format_, text), addition)
        bare = pruned(rest, addition)
        texts: Iterable[str] = (
            _removals_toml(text, addition, trace)
            if format_ is Format.TOML
            else (json_text.remove(text, addition, trace),)
        )
        found = next((one for one in texts if _says(format_, one, (rest, bare))), None)
        if found is None:
            raise NoPlace(".".join(addition.path))
        text = found
    return opened.closed(text)


def same(one: Any, other: Any) -> bool:
    """Whether two documents say the same: 1 is neither 1.0 nor true, and what is no number is the same as itself.

    Raises `UnreadableConfig`.
    """
    return _canonical(one) == _canonical(other)


def _canonical(document: Any) -> str:
    try:
        return json.dumps(document, sort_keys=True, default=lambda value: [type(value).__name__, str(value)])
    except RecursionError:
        raise UnreadableConfig("it is nested too deeply") from None


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
        raise UnreadableConfig("it is not UTF-8") from None


def _parsed(format_: Format, text: str) -> Any:
    if format_ is Format.TOML:
        return _load_toml(text)
    return json_text.load(text, comments=format_ is Format.JSONC)


def _takes(document: Any, addition: Addition) -> bool:
    """Whether the document holds objects where the addition wants them. Where not, inserting says so."""
    for step in addition.path:
        if not isinstance(document, dict):
            return False
        document = cast(dict[str, Any], document).get(step, {} if addition.key is not None else [])
    return isinstance(cast(object, document), list if addition.key is None else dict)


def _says(format_: Format, text: str, any_of: Sequence[Any]) -> bool:
    try:
        said = _canonical(_parsed(format_, text))
    except UnreadableConfig:
        return False
    return any(said == _canonical(wanted) for wanted in any_of)


def _load_toml(text: str) -> dict[str, Any]:
    """What a text says. Raises `UnreadableConfig`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableConfig(str(error)) from None
    except RecursionError:
        raise UnreadableConfig("it is nested too deeply") from None


def _insert_toml(text: str, addition: Addition) -> tuple[str, Trace]:
    """The text with the addition in place of what has its name. Raises `UnreadableConfig` and `NoPlace`."""
    tables: Any = _load_toml(text)
    for step in addition.path:
        tables = cast(dict[str, Any], tables).get(step, {}) if isinstance(tables, dict) else None
    if not isinstance(tables, dict):
        raise NoPlace(".".join(addition.path))
    if addition.key in tables:
        text = without_tables(text, (*addition.path, str(addition.key)))
    newline = "\r\n" if "\r\n" in text else "\n"
    value: dict[str, Any] = {cast(str, addition.key): addition.value}
    for step in reversed(addition.path):
        value = {step: value}
    block = tomlkit.dumps(value)  # pyright: ignore[reportUnknownMemberType]
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    added = (gap + block).replace("\n", newline)
    try:
        _load_toml(text + added)
    except UnreadableConfig:
        raise NoPlace(".".join(addition.path)) from None
    return text + added, Trace(added=added)


def _removals_toml(text: str, addition: Addition, trace: Trace) -> Iterator[str]:
    """The text without the addition: as it was put in, or else, where somebody has changed it, as it is now."""
    before, ours, after = text.partition(trace.added)
    if ours:
        broken = before and after and not before.endswith("\n")
        yield before + ("\n" if broken else "") + after
    yield without_tables(text, (*addition.path, str(addition.key)), gap=trace.added[:1] in ("\r", "\n"))
