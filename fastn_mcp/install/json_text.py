"""Insert a member into a JSON text, with or without comments, and remove it.

Positions come from the decoder of the standard library, which reads the text after comments and trailing commas have
been painted over with as many spaces. Pure.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastn_mcp.install.addition import Addition, NoPlace, Trace, UnreadableConfig

# Each also matches what has no end, so that a search begins nowhere twice and takes linear time.
_STRING = r'"(?:[^"\\]+|\\.)*+"?'
_COMMENTS = re.compile(rf"{_STRING}|(?P<comment>//[^\r\n]*|/\*.*?\*/)|/\*.*", re.DOTALL)
_COMMAS = re.compile(rf"{_STRING}|(?P<comma>,)[ \t\r\n]*+(?=[\]}}])", re.DOTALL)
_BLANK = " \t\r\n"


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def load(text: str, *, comments: bool = True) -> Any:
    """What a text says; nothing at all says an empty object. Raises `UnreadableConfig`."""
    with suppress(ValueError, RecursionError):
        return _DECODER.decode(text)  # as most files are: nothing has to be painted over
    plain = _without_last_commas(_without_comments(text))
    if not comments and plain != text:
        raise UnreadableConfig("it has comments or trailing commas, which the client does not read")
    if not plain.strip(_BLANK):
        return {}
    try:
        return _DECODER.decode(plain)
    except json.JSONDecodeError as error:
        raise UnreadableConfig(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise UnreadableConfig("it is nested too deeply") from None
    except ValueError as error:
        raise UnreadableConfig(str(error)) from None


def insert(text: str, addition: Addition) -> tuple[str, Trace]:
    """The text, which can be read, with the addition in it, in place of what is there under its key.

    Raises `NoPlace`.
    """
    reading = _JsonLayout(text)
    if reading.start is None:
        gap = reading.newline if text and not text.endswith("\n") else ""
        document = _nested(addition, 0)
        return text + gap + reading.written(document, "") + reading.newline, Trace(made=0, blank=gap)
    box, depth = reading.box(reading.start), 0
    _must_be(box, addition, 0)
    for depth, step in enumerate(addition.path):
        member = box.last(step)
        if member is None:
            return _put(reading, box, step, _nested(addition, depth + 1)), Trace(depth + 1, reading.blank(box))
        box = reading.box(member.value)
        _must_be(box, addition, depth + 1)
    there = box.last(addition.key) if addition.key is not None else None
    if there is not None:
        value = reading.written(addition.value, reading.indent_at(there.start))
        return text[: there.value] + value + text[there.end :], Trace()
    return _put(reading, box, addition.key, addition.value), Trace(None, reading.blank(box))


def remove(text: str, addition: Addition, trace: Trace) -> str:
    """The text, which can be read, without the addition, and without what was made for it and is empty now."""
    reading = _JsonLayout(text)
    if reading.start is None:
        return text
    boxes = [reading.box(reading.start)]
    members: list[_Member] = []
    for step in addition.path:
        member = boxes[-1].last(step)
        if member is None:
            return text
        members.append(member)
        boxes.append(reading.box(member.value))
    ours = boxes[-1].last(addition.key) if addition.key is not None else boxes[-1].like(reading, addition.value)
    if ours is None:
        return text
    members.append(ours)
    depth = len(members) - 1
    made = len(members) if trace.made is None else trace.made
    while depth >= made and depth > 0 and reading.holds_only(boxes[depth], members[depth]):
        depth -= 1
    if depth == 0 == made and reading.holds_only(boxes[0], members[0]):
        before, after = text[: boxes[0].start], text[boxes[0].end + 1 :]
        return before.removesuffix(trace.blank or "") + after.removeprefix(reading.newline)
    return _cut(reading, boxes[depth], members[depth], trace.blank)


@dataclass(frozen=True, slots=True)
class _Member:
    key: str | None
    start: int
    value: int
    end: int


@dataclass(frozen=True, slots=True)
class _Box:
    """An object or a list: where its brackets are, and what is in it."""

    start: int
    end: int
    kind: str
    members: Sequence[_Member]

    def last(self, key: str) -> _Member | None:
        """The member that counts where a key is there twice."""
        return next((member for member in reversed(self.members) if member.key == key), None)

    def like(self, reading: "_JsonLayout", value: Any) -> _Member | None:
        return next((one for one in reversed(self.members) if reading.value(one) == value), None)


class _JsonLayout:
    """One text, and how it is laid out."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.bare = _without_comments(text)
        self.plain = _without_last_commas(self.bare)
        start = self.skip(self.plain, 0)
        self.start = start if start < len(text) else None
        self.newline = "\r\n" if "\r\n" in text else "\n"
        found = re.search(r"\n([ \t]+)[^ \t\r\n]", text)
        self._unit = found[1] if found else "  "

    def skip(self, text: str, at: int) -> int:
        while at < len(text) and text[at] in _BLANK:
            at += 1
        return at

    def value(self, member: _Member) -> Any:
        return _DECODER.raw_decode(self.plain, member.value)[0]

    def box(self, start: int) -> _Box:
        kind = self.plain[start]
        if kind not in "{[":
            return _Box(start, start, "", ())
        closing = "}" if kind == "{" else "]"
        members: list[_Member] = []
        at = self.skip(self.plain, start + 1)
        while self.plain[at] != closing:
            begin, key = at, None
            if kind == "{":
                key, at = _DECODER.raw_decode(self.plain, at)
                at = self.skip(self.plain, self.skip(self.plain, at) + 1)
            value = at
            _, at = _DECODER.raw_decode(self.plain, at)
            members.append(_Member(key, begin, value, at))
            at = self.skip(self.plain, at)
            if self.plain[at] == ",":
                at = self.skip(self.plain, at + 1)
        return _Box(start, at, kind, members)

    def content_end(self, box: _Box) -> int:
        """Where the last thing in it ends, be it a comment."""
        return box.start + 1 + len(self.text[box.start + 1 : box.end].rstrip(_BLANK))

    def blank(self, box: _Box) -> str | None:
        return None if box.members else self.text[self.content_end(box) : box.end]

    def holds_only(self, box: _Box, member: _Member) -> bool:
        around = self.text[box.start + 1 : member.start] + self.text[member.end : box.end]
        return len(box.members) == 1 and not around.strip(_BLANK + ",")

    def indent_at(self, position: int) -> str:
        line = self.text.rfind("\n", 0, position) + 1
        return self.text[line : line + len(self.text[line:position]) - len(self.text[line:position].lstrip(" \t"))]

    def indent_in(self, box: _Box) -> str:
        if box.members:
            first = box.members[0].start
            if not self.text[self.text.rfind("\n", 0, first) + 1 : first].strip(" \t") and "\n" in self.text[:first]:
                return self.indent_at(first)
        return self.indent_at(box.start) + self._unit

    def written(self, value: Any, indent: str) -> str:
        lines = json.dumps(value, indent=self._unit, ensure_ascii=False).split("\n")
        return (self.newline + indent).join(lines)


def _nested(addition: Addition, depth: int) -> Any:
    value = [addition.value] if addition.key is None else {addition.key: addition.value}
    if depth > len(addition.path):
        return addition.value
    for step in reversed(addition.path[depth:]):
        value = {step: value}
    return value


def _must_be(box: _Box, addition: Addition, depth: int) -> None:
    is_last = depth == len(addition.path)
    wanted = "[" if is_last and addition.key is None else "{"
    if box.kind != wanted:
        raise NoPlace(".".join(addition.path[:depth]) or "the document")


def _put(reading: _JsonLayout, box: _Box, key: str | None, value: Any) -> str:
    text, end = reading.text, reading.content_end(box)
    name = "" if key is None else json.dumps(key, ensure_ascii=False) + ": "
    if not box.members:
        indent = reading.indent_in(box)
        item = name + reading.written(value, indent)
        return (
            text[:end]
            + reading.newline
            + indent
            + item
            + reading.newline
            + reading.indent_at(box.start)
            + text[box.end :]
        )
    last = box.members[-1].end
    comma = reading.skip(reading.bare, last)
    has_comma = reading.bare[comma] == ","
    if "\n" in text[box.start : box.end]:
        indent = reading.indent_in(box)
        item = reading.newline + indent + name + reading.written(value, indent)
    else:
        item, end = " " + name + json.dumps(value, ensure_ascii=False), comma + 1 if has_comma else last
    if has_comma:
        return text[:end] + item + "," + text[end:]
    return text[:last] + "," + text[last:end] + item + text[end:]


def _cut(reading: _JsonLayout, box: _Box, member: _Member, blank: str | None) -> str:
    text, bare = reading.text, reading.bare
    begin, end = member.start, member.end
    while text[begin - 1] in " \t":
        begin -= 1
    if text[begin - 1] == "\n":
        begin -= 2 if text[begin - 2] == "\r" else 1
    elif member is box.members[0]:
        begin = member.start
    comma = reading.skip(bare, end)
    if bare[comma] == ",":
        rest = reading.skip(text, comma + 1) if begin == member.start and len(box.members) > 1 else comma + 1
        return text[:begin] + text[end:comma] + text[rest:]
    if len(box.members) > 1:
        earlier = len(bare[: member.start].rstrip(_BLANK)) - 1
        return text[:earlier] + text[earlier + 1 : begin] + text[end:]
    rest = box.end if blank is not None and not text[end : box.end].strip(_BLANK) else end
    return text[:begin] + (blank or "" if rest == box.end else "") + text[rest:]


def _without_comments(text: str) -> str:
    if "/" not in text:
        return text
    parts: list[str] = []
    end = 0
    for found in _COMMENTS.finditer(text):
        if found["comment"] is not None:
            parts += text[end : found.start()], re.sub(r"[^\r\n]", " ", found[0])
            end = found.end()
    return "".join((*parts, text[end:]))


def _without_last_commas(bare: str) -> str:
    parts: list[str] = []
    end = 0
    for found in _COMMAS.finditer(bare):
        if found["comma"] is None:
            continue
        before = found.start() - 1
        while before >= 0 and bare[before] in _BLANK:
            before -= 1
        if before >= 0 and bare[before] not in "{[,:":
            parts += bare[end : found.start()], " "
            end = found.start() + 1
    return "".join((*parts, bare[end:]))
