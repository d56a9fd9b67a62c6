"""Append a table to a TOML text, and remove it.

A table's header at the end of a text opens that table whatever stands before it, so nothing there has to be rewritten.
"""

import tomllib
from collections.abc import Iterator
from typing import Any, cast

import tomlkit

from fastn_mcp.config.strict_toml import headers
from fastn_mcp.install.addition import Addition, NoPlace, Trace, UnreadableConfig


def load(text: str) -> dict[str, Any]:
    """What a text says. Raises `UnreadableConfig`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableConfig(str(error)) from None
    except RecursionError:
        raise UnreadableConfig("it is nested too deeply") from None


def insert(text: str, addition: Addition) -> tuple[str, Trace]:
    """The text with the addition in place of what has its name. Raises `UnreadableConfig` and `NoPlace`."""
    tables: Any = load(text)
    for step in addition.path:
        tables = cast(dict[str, Any], tables).get(step, {}) if isinstance(tables, dict) else None
    if not isinstance(tables, dict):
        raise NoPlace(".".join(addition.path))
    if addition.key in tables:
        text = _without_tables(text, addition)
    newline = "\r\n" if "\r\n" in text else "\n"
    value: dict[str, Any] = {cast(str, addition.key): addition.value}
    for step in reversed(addition.path):
        value = {step: value}
    block = tomlkit.dumps(value)  # pyright: ignore[reportUnknownMemberType]
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    added = (gap + block).replace("\n", newline)
    try:
        load(text + added)
    except UnreadableConfig:
        raise NoPlace(".".join(addition.path)) from None
    return text + added, Trace(added=added)


def removals(text: str, addition: Addition, trace: Trace) -> Iterator[str]:
    """The text without the addition: as it was put in, or else, where somebody has changed it, as it is now."""
    before, ours, after = text.partition(trace.added)
    if ours:
        broken = before and after and not before.endswith("\n")
        yield before + ("\n" if broken else "") + after
    yield _without_tables(text, addition, gap=trace.added[:1] in ("\r", "\n"))


def _without_tables(text: str, addition: Addition, *, gap: bool = False) -> str:
    """The text without the table and those below it, each from its header, or the gap before it, to its last line."""
    path = (*addition.path, str(addition.key))
    opened = headers(text)
    kept: list[str] = []
    held: list[str] = []
    inside = False
    for number, line in enumerate(text.split("\n"), 1):
        line += "\n"
        if (table := opened.get(number)) is not None:
            kept, held, inside = [*kept, *held], [], table[: len(path)] == path
            if inside and gap and kept and not kept[-1].strip():
                kept.pop()
            gap = gap and not inside
        if not inside:
            kept.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            held = []
        else:  # of the next table, if no line of this one follows
            held.append(line)
    return "".join([*kept, *held]).removesuffix("\n")
