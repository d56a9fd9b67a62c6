"""Puts one table at the end of a TOML text, and takes it out, and leaves all the rest as it is. Pure.

A table's header at the end of a text opens that table whatever stands before it, so nothing there has to be rewritten.
"""

import tomllib
from collections.abc import Iterator, MutableMapping
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from fastn_mcp.installing.addition import Addition, NoPlace, Trace, Unreadable


def load(text: str) -> dict[str, Any]:
    """What a text says. Raises `Unreadable`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(str(error)) from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


def insert(text: str, addition: Addition) -> tuple[str, Trace]:
    """The text with the addition in it, in place of what is there under its name. Raises `Unreadable` and `NoPlace`."""
    tables: Any = load(text)
    for step in addition.path:
        tables = cast(dict[str, Any], tables).get(step, {}) if isinstance(tables, dict) else None
    if not isinstance(tables, dict):
        raise NoPlace(".".join(addition.path))
    if addition.key in tables:
        text = _edited(text, addition)
    newline = "\r\n" if "\r\n" in text else "\n"
    value: dict[str, Any] = {cast(str, addition.key): addition.value}
    for step in reversed(addition.path):
        value = {step: value}
    block = tomlkit.dumps(value)  # pyright: ignore[reportUnknownMemberType]
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    added = (gap + block).replace("\n", newline)
    try:
        load(text + added)
    except Unreadable:
        raise NoPlace(".".join(addition.path)) from None
    return text + added, Trace(added=added)


def removals(text: str, addition: Addition, trace: Trace) -> Iterator[str]:
    """The text without the addition: as it was put in, or else, where somebody has changed it, as it is now."""
    before, ours, after = text.partition(trace.added)
    # What stands after it and does not open a table of its own belongs to it.
    if ours and not after.lstrip().startswith(trace.added) and after.lstrip()[:1] in ("", "["):
        broken = before and after and not before.endswith("\n")
        yield before + ("\n" if broken else "") + after
    yield _edited(text, addition)


def _edited(text: str, addition: Addition) -> str:
    try:
        document = tomlkit.parse(text)
        tables = cast(MutableMapping[str, Any], document)
        for step in addition.path:
            tables = tables.get(step, {})
        tables.pop(cast(str, addition.key), None)
        after = tomlkit.dumps(document)  # pyright: ignore[reportUnknownMemberType]
    except TOMLKitError as error:
        raise NoPlace(str(error)) from None
    rest = iter(text.splitlines(keepends=True))
    if not all(line in rest for line in after.splitlines(keepends=True)):
        raise NoPlace(".".join(addition.path))
    return after
