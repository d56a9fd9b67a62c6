"""Add an entry to a client's JSON or TOML document, or remove it; comments and the other members stay as they are.

Comments and trailing commas in JSON are replaced by spaces before the standard library decodes it, so that positions
hold in the text. In JSON an entry becomes the first member, so that no comma and no comment before it matters. A TOML
table is appended: at the end its header is valid whatever comes before.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, cast

import tomlkit

from fastn_mcp.config.strict_toml import without_tables
from fastn_mcp.errors import NOTHING_CHANGED, FastnError

_BOM = b"\xef\xbb\xbf"


class Format(Enum):
    JSON = "JSON"
    JSONC = "JSON with comments"
    TOML = "TOML"


@dataclass(frozen=True, slots=True)
class Addition:
    """A `value` to put under `key` of the object `section` of a document; without a key, into the list `section`."""

    section: str
    key: str | None
    value: Any

    @property
    def contents(self) -> Any:
        """The section if it holds nothing else."""
        return [self.value] if self.key is None else {self.key: self.value}


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


def insert(format_: Format, content: bytes, additions: Sequence[Addition]) -> bytes:
    """Return the content with the additions. Raises `UnreadableConfig` and `NoPlace`."""
    mark, text = _decoded(content)
    document = _parsed(format_, text)
    for addition in additions:
        if not isinstance(document, dict):
            raise NoPlace("the document")
        before = cast(dict[str, Any], document)
        if not isinstance(before.get(addition.section, addition.contents), type(addition.contents)):
            raise NoPlace(addition.section)
        text = _removed(format_, text, addition)  # an entry that it replaces
        text = _insert_toml(text, addition) if format_ is Format.TOML else _insert_json(text, addition)
        document = _parsed(format_, text)
        _verify(before, document, addition, addition.value)
    return mark + text.encode("utf-8")


def remove(format_: Format, content: bytes, additions: Sequence[Addition]) -> bytes:
    """Return the content without the additions. Raises `UnreadableConfig` and `NoPlace`."""
    mark, text = _decoded(content)
    for addition in reversed(additions):
        document = _parsed(format_, text)
        text = _removed(format_, text, addition)
        _verify(document, _parsed(format_, text), addition, None)
    return mark + text.encode("utf-8")


def _removed(format_: Format, text: str, addition: Addition) -> str:
    if format_ is Format.TOML:
        return without_tables(text, (addition.section, str(addition.key)))
    return _remove_json(text, addition)


def _verify(before: Any, after: Any, addition: Addition, value: Any) -> None:
    """Raise `NoPlace` unless the addition's place has this value now, and all else is as it was."""
    if not same([find(after, addition), _rest(after, addition)], [value, _rest(before, addition)]):
        raise NoPlace(addition.section)


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
    section = cast(dict[str, Any], document).get(addition.section) if isinstance(document, dict) else None
    if addition.key is not None:
        return cast(dict[str, Any], section).get(addition.key) if isinstance(section, dict) else None
    items = cast(list[Any], section) if isinstance(section, list) else []
    return next((item for item in items if _id(item) == _id(addition.value)), None)


def _rest(document: Any, addition: Addition) -> Any:
    """Return the document without the addition, and without its section if that is empty then."""
    members = cast(dict[str, Any], document) if isinstance(document, dict) else {}
    section: Any = members.get(addition.section)
    if not isinstance(section, type(addition.contents)):
        return cast(Any, document)
    left: Any
    if addition.key is None:
        left = [item for item in section if _id(item) != _id(addition.value)]
    else:
        left = {name: value for name, value in section.items() if name != addition.key}
    others = {name: value for name, value in members.items() if name != addition.section}
    return {**others, addition.section: left} if left else others


def _id(item: Any) -> Any:
    return cast(dict[str, Any], item).get("id") if isinstance(item, dict) else None


# --- TOML --------------------------------------------------------------------------------------------------------


def _insert_toml(text: str, addition: Addition) -> str:
    """Append the addition. Raises `NoPlace`."""
    newline = "\r\n" if "\r\n" in text else "\n"
    block: str = tomlkit.dumps({addition.section: addition.contents})  # pyright: ignore[reportUnknownMemberType]
    gap = ""  # to a blank line
    if text:
        gap = "\n" if text.endswith("\n") else "\n\n"
    added = (gap + block).replace("\n", newline)
    try:
        tomllib.loads(text + added)
    except tomllib.TOMLDecodeError:
        raise NoPlace(addition.section) from None
    return text + added


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


def _insert_json(text: str, addition: Addition) -> str:
    """Insert the addition as the first member of its object or list, which the text has to have a place for."""
    newline = "\r\n" if "\r\n" in text else "\n"
    indented = re.search(r"\n([ \t]+)[^ \t\r\n]", text)
    unit = indented[1] if indented else "  "

    def render(value: Any, indent: str) -> str:
        return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + indent)

    boxes = _boxes(text, addition.section)
    if not boxes:
        gap = newline if text and not text.endswith("\n") else ""
        return text + gap + render({addition.section: addition.contents}, "") + newline
    box = boxes[-1]
    if len(boxes) > 1:
        key = addition.key
        value = addition.value
    else:
        key = addition.section
        value = addition.contents
    name = "" if key is None else json.dumps(key, ensure_ascii=False) + ": "
    lead = text[box.start : min(each.start for each in box.members.values())] if box.members else "\n"
    if "\n" not in lead:
        added = f"{name}{json.dumps(value, ensure_ascii=False)}, "
        return text[: box.start] + added + text[box.start :]
    outer = _indent_of_line(text, box.start)
    indent = lead.rpartition("\n")[2]
    if not box.members or indent.strip(_BLANK):
        indent = outer + unit
    end = ""
    if box.members:
        end = ","
    elif "\n" not in text[box.start : box.end]:
        end = newline + outer
    return text[: box.start] + newline + indent + name + render(value, indent) + end + text[box.start :]


def _indent_of_line(text: str, at: int) -> str:
    """Return the blanks at the beginning of the line that a position is in."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _remove_json(text: str, addition: Addition) -> str:
    """Remove the addition from a valid text, with its comma. Comments around it stay."""
    boxes = _boxes(text, addition.section)
    if len(boxes) < 2:
        return text
    box = boxes[1]
    if addition.key is not None:
        ours = box.members.get(addition.key)
    else:
        ours = next((each for each in box.members.values() if each.decoded == addition.value), None)
    if ours is None:
        return text
    bare = _without_comments(text)
    comma = _skip(bare, ours.end)
    if bare[comma] == ",":  # the next one, or the end of the box, takes its place
        return text[: ours.start] + text[ours.end : comma] + text[_skip(text, comma + 1) :]
    before = bare.rfind(",", box.start, ours.start)
    head = text[: ours.start] if before < 0 else text[:before] + text[before + 1 : ours.start]
    kept = head.rstrip(_BLANK)
    rest = text[ours.end :]
    if not _without_comments(f"{kept}}}").endswith("}"):  # it ends with a line comment, which needs its line break
        return kept + rest if rest.lstrip(" \t").startswith(("\r", "\n")) else head + rest.lstrip(_BLANK)
    return kept + (rest.lstrip(_BLANK) if kept[-1] in "{[" else rest)


class _Member(NamedTuple):
    """Where a member begins, where its value begins and ends, and that value."""

    start: int
    value: int
    end: int
    decoded: Any


class _Box(NamedTuple):
    """An object or a list: where its inside begins and ends, and its members by key or place; none of another value.

    Of a repeated key it has the last one.
    """

    start: int
    end: int
    members: dict[str | int, _Member]


def _boxes(text: str, section: str) -> list[_Box]:
    """Return the document and its section, as far as there is one. Empty for an empty text."""
    plain = _without_last_commas(_without_comments(text))
    if not plain.strip(_BLANK):
        return []
    document = _box(plain, _skip(plain, 0))
    member = document.members.get(section)
    return [document] if member is None else [document, _box(plain, member.value)]


def _box(plain: str, start: int) -> _Box:
    opening = plain[start]
    if opening not in "{[":
        return _Box(start, start, {})
    members: dict[str | int, _Member] = {}
    at = _skip(plain, start + 1)
    while plain[at] not in "}]":
        begin = at
        key = len(members)
        if opening == "{":
            key, at = _DECODER.raw_decode(plain, at)
            at = _skip(plain, _skip(plain, at) + 1)
        decoded, end = _DECODER.raw_decode(plain, at)
        members[key] = _Member(begin, at, end, decoded)
        at = _skip(plain, end)
        if plain[at] == ",":
            at = _skip(plain, at + 1)
    return _Box(start + 1, at, members)


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
