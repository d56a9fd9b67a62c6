"""Add an entry to a client's JSON or TOML document, or remove it; every other byte stays as it is.

Comments and trailing commas in JSON are replaced by spaces before the standard library decodes it, so that positions
hold in the text. A TOML table is appended: at the end its header is valid whatever comes before.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import tomlkit

from fastn_mcp.config.strict_toml import without_tables
from fastn_mcp.errors import NOTHING_CHANGED, FastnError
from fastn_mcp.install.clients import Format

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Addition:
    """A `value` to put under `key` of the object at `path`; without a key, at the end of the list there."""

    path: tuple[str, ...]
    key: str | None
    value: Any


@dataclass(frozen=True, slots=True)
class Trace:
    """How an addition changed the text: `added` replaced `removed`."""

    added: str = ""
    removed: str = ""
    made: int | None = None
    """First step of the path whose object was created for it; 0 is the document."""


class UnreadableConfig(ValueError):
    """The text is not valid in its format. The message says where."""


class NoPlace(ValueError):
    """The text is valid, but the value at the addition's place cannot hold it. The message names the place."""


class NotInstalled(FastnError):
    """Nothing was written. The message says why, and what to do."""

    outcome = "not_installed"
    certainty = NOTHING_CHANGED


def load(format_: Format, content: bytes) -> Any:
    """Parse the document. Raises `UnreadableConfig`."""
    return _parsed(format_, _decoded(content)[1])


def insert(format_: Format, content: bytes, additions: Sequence[Addition]) -> tuple[bytes, list[Trace]]:
    """Return the content with the additions, and a trace of each. Raises `UnreadableConfig` and `NoPlace`."""
    (mark, text), traces = _decoded(content), list[Trace]()
    document = _parsed(format_, text)
    for addition in additions:
        wanted = with_(document, addition)
        text, trace = _insert_toml(text, addition) if format_ is Format.TOML else _insert_json(text, addition)
        traces.append(trace)
        document = _parsed(format_, text)
        if not same(document, wanted):
            raise NoPlace(".".join(addition.path))
    return mark + text.encode("utf-8"), traces


def remove(format_: Format, content: bytes, additions: Sequence[Addition], traces: Sequence[Trace]) -> bytes:
    """Return the content without the additions. Raises `UnreadableConfig` and `NoPlace`."""
    mark, text = _decoded(content)
    for addition, trace in reversed(list(zip(additions, traces, strict=True))):
        document = _parsed(format_, text)
        wanted = [_canonical(without(document, addition, prune=prune)) for prune in (False, True)]
        removals = _removals(format_, text, addition, trace)
        candidate = next((removed for removed in removals if _comparable(format_, removed) in wanted), None)
        if candidate is None:
            raise NoPlace(".".join(addition.path))
        text = candidate
    return mark + text.encode("utf-8")


def _removals(format_: Format, text: str, addition: Addition, trace: Trace) -> Iterator[str]:
    """Yield candidates without the addition: the insertion reverted, then the value at its place removed."""
    before, ours, after = text.partition(trace.added) if trace.added else (text, "", "")
    if ours:
        joined = format_ is Format.TOML and before and after and not before.endswith("\n")
        yield before + ("\n" if joined else trace.removed) + after
    if format_ is Format.TOML:
        yield without_tables(text, (*addition.path, str(addition.key)), gap=trace.added[:1] in ("\r", "\n"))
    else:
        yield _remove_json(text, addition, trace.made)


def same(document: Any, other: Any) -> bool:
    """Whether two documents are equal, where 1 is neither 1.0 nor true, and NaN equals itself.

    Raises `UnreadableConfig`.
    """
    return _canonical(document) == _canonical(other)


def _canonical(document: Any) -> str:
    try:
        return json.dumps(document, sort_keys=True, default=lambda value: [type(value).__name__, str(value)])
    except RecursionError:
        raise UnreadableConfig("it is nested too deeply") from None


def _comparable(format_: Format, text: str) -> str | None:
    """Return a text's document in a form to compare, or None if it is not valid."""
    with suppress(UnreadableConfig):
        return _canonical(_parsed(format_, text))
    return None


def _decoded(content: bytes) -> tuple[bytes, str]:
    """Split content into byte order mark and text. Raises `UnreadableConfig`."""
    mark = _BOM if content.startswith(_BOM) else b""
    try:
        return mark, content[len(mark) :].decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableConfig("it is not UTF-8") from None


def _parsed(format_: Format, text: str) -> Any:
    try:
        return tomllib.loads(text) if format_ is Format.TOML else _parsed_json(text, comments=format_ is Format.JSONC)
    except json.JSONDecodeError as error:
        raise UnreadableConfig(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise UnreadableConfig("it is nested too deeply") from None
    except ValueError as error:
        raise UnreadableConfig(str(error)) from None


# --- documents ---------------------------------------------------------------------------------------------------


def find(document: Any, addition: Addition) -> Any:
    """Return the value at the addition's place, or None. In a list, it is the item with the same id."""
    for step in addition.path:
        document = cast(dict[str, Any], document).get(step) if isinstance(document, dict) else None
    if addition.key is not None:
        return cast(dict[str, Any], document).get(addition.key) if isinstance(document, dict) else None
    items = cast(list[Any], document) if isinstance(document, list) else []
    return next((item for item in items if _id(item) == _id(addition.value)), None)


def with_(document: Any, addition: Addition, depth: int = 0) -> Any:
    """Return the document with the addition. Raises `NoPlace`."""
    is_last = depth == len(addition.path)
    place = ".".join(addition.path[:depth]) or "the document"
    if is_last and addition.key is None:
        if not isinstance(document, list):
            raise NoPlace(place)
        return [*cast(list[Any], document), addition.value]
    if not isinstance(document, dict):
        raise NoPlace(place)
    if is_last:
        return {**cast(dict[str, Any], document), str(addition.key): addition.value}
    step = addition.path[depth]
    empty: Any = [] if addition.key is None and depth + 1 == len(addition.path) else {}
    inner = cast(dict[str, Any], document).get(step, empty)
    return {**cast(dict[str, Any], document), step: with_(inner, addition, depth + 1)}


def without(document: Any, addition: Addition, *, prune: bool = False) -> Any:
    """Return the document without the addition and, with `prune`, without the empty objects on its path."""
    if addition.path:
        if not isinstance(document, dict) or addition.path[0] not in document:
            return cast(Any, document)
        step, rest = addition.path[0], Addition(addition.path[1:], addition.key, addition.value)
        inner = without(document[step], rest, prune=prune)
        others = {name: value for name, value in cast(dict[str, Any], document).items() if name != step}
        return others if prune and not inner else {**others, step: inner}
    if addition.key is None:
        return [item for item in document if _id(item) != _id(addition.value)]
    return {name: value for name, value in document.items() if name != addition.key}


def _nested(addition: Addition, depth: int) -> Any:
    """Return the value to insert if only `depth` steps of the path exist."""
    value = [addition.value] if addition.key is None else {addition.key: addition.value}
    for step in reversed(addition.path[depth:]):
        value = {step: value}
    return value


def _id(item: Any) -> Any:
    return cast(dict[str, Any], item).get("id") if isinstance(item, dict) else None


# --- TOML --------------------------------------------------------------------------------------------------------


def _insert_toml(text: str, addition: Addition) -> tuple[str, Trace]:
    """Append the addition, and remove what has its name. Raises `NoPlace`."""
    if find(tomllib.loads(text), addition) is not None:
        text = without_tables(text, (*addition.path, str(addition.key)))
    newline = "\r\n" if "\r\n" in text else "\n"
    block: str = tomlkit.dumps(_nested(addition, 0))  # pyright: ignore[reportUnknownMemberType]
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    added = (gap + block).replace("\n", newline)
    try:
        tomllib.loads(text + added)
    except tomllib.TOMLDecodeError:
        raise NoPlace(".".join(addition.path)) from None
    return text + added, Trace(added)


# --- JSON, with and without comments -----------------------------------------------------------------------------

# Each also matches what is not terminated, so that no text is searched twice and a search takes linear time.
_STRING = r'"(?:[^"\\]+|\\.)*+"?'
_COMMENTS = re.compile(rf"{_STRING}|(?P<comment>//[^\r\n]*|/\*.*?\*/)|/\*.*", re.DOTALL)
_COMMAS = re.compile(rf'(?:{_STRING}|[^\s"{{\[,:])[ \t\r\n]*+(?P<comma>,)(?=[ \t\r\n]*+[\]}}])|{_STRING}', re.DOTALL)
_BLANK = " \t\r\n"


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _parsed_json(text: str, *, comments: bool) -> Any:
    with suppress(ValueError, RecursionError):
        return _DECODER.decode(text)  # like most files: without comments or trailing commas
    plain = _without_last_commas(_without_comments(text))
    if not comments and plain != text:
        raise UnreadableConfig("it has comments or trailing commas, which the client does not read")
    return _DECODER.decode(plain) if plain.strip(_BLANK) else {}


def _insert_json(text: str, addition: Addition) -> tuple[str, Trace]:
    """Insert the addition, or replace the value of its key. The text has to have a place for it."""
    layout = _JsonLayout(text)
    if not layout.plain.strip(_BLANK):
        gap = layout.newline if text and not text.endswith("\n") else ""
        added = gap + layout.render(_nested(addition, 0), "") + layout.newline
        return text + added, Trace(added, made=0)
    *_, (depth, box) = enumerate(layout.boxes(addition.path))
    if depth < len(addition.path):
        return layout.insert(box, addition.path[depth], _nested(addition, depth + 1), depth + 1)
    existing = None if addition.key is None else box.last(addition.key)
    if existing is None:
        return layout.insert(box, addition.key, addition.value)
    value = layout.render(addition.value, layout.indent_at(existing.start))
    return layout.replace(existing.value, existing.end, value)


def _remove_json(text: str, addition: Addition, made: int | None) -> str:
    """Remove the addition from a valid text, with the objects that were created for it and are empty now."""
    layout = _JsonLayout(text)
    boxes = list(layout.boxes(addition.path)) if layout.plain.strip(_BLANK) else []
    if len(boxes) <= len(addition.path):
        return text
    named = [box.last(key) for box, key in zip(boxes, (*addition.path, addition.key), strict=True) if key is not None]
    alike = [member for member in boxes[-1].members if layout.value(member) == addition.value]
    members = named if addition.key is not None else [*named, *alike[-1:]]
    depth = len(addition.path)
    if len(members) <= depth or (ours := members[depth]) is None:
        return text
    while made is not None and depth >= made and layout.holds_only(boxes[depth], ours):
        if depth == 0:
            return text[: boxes[0].start].rstrip(_BLANK) + text[boxes[0].end + 1 :].removeprefix(layout.newline)
        depth -= 1
        ours = cast(_Member, members[depth])
    return layout.without(boxes[depth], ours)


@dataclass(frozen=True, slots=True)
class _Member:
    key: str | None
    start: int
    value: int
    end: int


@dataclass(frozen=True, slots=True)
class _Box:
    """An object or a list: positions of its brackets, and its members. Another value has no members."""

    start: int
    end: int
    members: Sequence[_Member] = ()

    def last(self, key: str) -> _Member | None:
        """Return the member of a key; the last one if the key is repeated."""
        return next((member for member in reversed(self.members) if member.key == key), None)


class _JsonLayout:
    """Positions and indentation of a valid JSON text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.bare = _without_comments(text)
        self.plain = _without_last_commas(self.bare)
        self.newline = "\r\n" if "\r\n" in text else "\n"
        indented = re.search(r"\n([ \t]+)[^ \t\r\n]", text)
        self._unit = indented[1] if indented else "  "

    def value(self, member: _Member) -> Any:
        return _DECODER.raw_decode(self.plain, member.value)[0]

    def boxes(self, path: Sequence[str]) -> Iterator[_Box]:
        """Yield the document, then the box at each step of the path, as far as there is one."""
        box = self._box(_skip(self.plain, 0))
        yield box
        for step in path:
            if (member := box.last(step)) is None:
                return
            box = self._box(member.value)
            yield box

    def _box(self, start: int) -> _Box:
        opening = self.plain[start]
        if opening not in "{[":
            return _Box(start, start)
        members: list[_Member] = []
        at = _skip(self.plain, start + 1)
        while self.plain[at] not in "}]":
            begin, key = at, None
            if opening == "{":
                key, at = _DECODER.raw_decode(self.plain, at)
                at = _skip(self.plain, _skip(self.plain, at) + 1)
            value = at
            _, at = _DECODER.raw_decode(self.plain, at)
            members.append(_Member(key, begin, value, at))
            at = _skip(self.plain, at)
            if self.plain[at] == ",":
                at = _skip(self.plain, at + 1)
        return _Box(start, at, members)

    def holds_only(self, box: _Box, member: _Member) -> bool:
        around = self.text[box.start + 1 : member.start] + self.text[member.end : box.end]
        return len(box.members) == 1 and not around.strip(_BLANK + ",")

    def indent_at(self, position: int) -> str:
        line = self.text[self.text.rfind("\n", 0, position) + 1 : position]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _indent_in(self, box: _Box) -> str:
        if box.members:
            first = box.members[0].start
            if "\n" in self.text[:first] and not self.text[self.text.rfind("\n", 0, first) : first].strip(_BLANK):
                return self.indent_at(first)
        return self.indent_at(box.start) + self._unit

    def render(self, value: Any, indent: str) -> str:
        lines = json.dumps(value, indent=self._unit, ensure_ascii=False).split("\n")
        return (self.newline + indent).join(lines)

    def replace(self, start: int, end: int, new: str, made: int | None = None) -> tuple[str, Trace]:
        return self.text[:start] + new + self.text[end:], Trace(new, self.text[start:end], made)

    def insert(self, box: _Box, key: str | None, value: Any, made: int | None = None) -> tuple[str, Trace]:
        """Append a member to the box."""
        text, name = self.text, "" if key is None else json.dumps(key, ensure_ascii=False) + ": "
        end = box.start + 1 + len(text[box.start + 1 : box.end].rstrip(_BLANK))  # end of the last member or comment
        indent = self._indent_in(box)
        item = self.newline + indent + name + self.render(value, indent)
        if not box.members:
            return self.replace(end, box.end, item + self.newline + self.indent_at(box.start), made)
        last = box.members[-1].end
        comma = _skip(self.bare, last)
        has_comma = self.bare[comma] == ","
        if "\n" not in text[box.start : box.end]:
            item, end = " " + name + json.dumps(value, ensure_ascii=False), comma + 1 if has_comma else last
        if has_comma:
            return self.replace(end, end, item + ",", made)
        return self.replace(last, end, "," + text[last:end] + item, made)

    def without(self, box: _Box, member: _Member) -> str:
        """Remove a member from the box. Comments around it stay."""
        text, end = self.text, member.end
        comma = _skip(self.bare, end)
        has_comma = self.bare[comma] == ","
        if has_comma and member is not box.members[-1]:  # the next one takes its place
            return text[: member.start] + text[end:comma] + text[_skip(text, comma + 1) :]
        head, tail = text[: member.start], text[end:comma] + text[comma + 1 :] if has_comma else text[end:]
        if not has_comma and len(box.members) > 1:
            before = self.bare.rindex(",", 0, member.start)
            head = text[:before] + text[before + 1 : member.start]
        return head.rstrip(_BLANK) + tail


def _skip(text: str, at: int) -> int:
    """Return the next position that is not blank."""
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _without_comments(text: str) -> str:
    def blanked(token: re.Match[str]) -> str:
        return token[0] if token["comment"] is None else re.sub(r"[^\r\n]", " ", token[0])

    return _COMMENTS.sub(blanked, text) if "/" in text else text


def _without_last_commas(bare: str) -> str:
    def blanked(token: re.Match[str]) -> str:
        return token[0] if token["comma"] is None else f"{token[0][:-1]} "

    return _COMMAS.sub(blanked, bare)
