"""The text of a page as people read it, for golden files: a line for each block, and in brackets what they can use.

`{…}` is what only a screen reader says, and `▸` begins a part that opens with a click.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from typing_extensions import override

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_UNSEEN = frozenset({"script", "style"})
_INLINE = frozenset({"a", "b", "bdi", "button", "code", "del", "em", "input", "ins", "kbd", "label", "option", "q"}) | {
    *("select", "small", "span", "svg", "textarea", "time")
}
_APART = frozenset({"a", "b", "button", "code", "input", "option", "select", "small", "span", "textarea", "time"})
"""Inline elements that a style sheet sets apart from what is before them."""
_SECOND = frozenset({"dd", "td"})
"""Elements beside the one before them: the value of a name."""
_FIRST = frozenset({"dt", "th"})
_MARKS = {"title": "Title: ", "h1": "# ", "h2": "## ", "h3": "### ", "li": "- ", "summary": "▸ "}
"""Beginnings of the first line of an element."""


@dataclass
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    children: "list[Element | str]" = field(default_factory=list["Element | str"])

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    @property
    def label(self) -> str:
        """What a screen reader says of it besides its text."""
        return self.attributes.get("aria-label", "")

    @property
    def is_shown(self) -> bool:
        is_hidden = "hidden" in self.attributes or self.attributes.get("type") == "hidden"
        return not is_hidden and self.tag not in _UNSEEN

    def is_part(self, part: str) -> bool:
        """Whether this is the part `tag`, `#id`, `.class` or `@role`."""
        names = {self.tag, f"#{self.attributes.get('id')}", f"@{self.attributes.get('role')}"}
        return part in names or part.removeprefix(".") in self.classes


class _Tree(HTMLParser):
    """Parser of a page. The first of `open` holds the page, the last is the element that is being read."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    @override
    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def page_text(page: str, *parts: str) -> str:
    """Return the text of a page, or only of its `parts`: `tag`, `#id`, `.class` or `@role`."""
    tree = _Tree()
    tree.feed(page)
    writer = _Writer()
    for element in _elements(tree.open[0], parts):
        writer.block(element)
    return "\n".join(writer.lines)


def _elements(element: Element, parts: tuple[str, ...]) -> Iterator[Element]:
    """Yield the outermost elements that are one of these parts, or this one if none is named."""
    if not parts or any(map(element.is_part, parts)):
        yield element
        return
    for child in element.children:
        if isinstance(child, Element):
            yield from _elements(child, parts)


class _Writer:
    """Writes elements as lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._line = ""
        self._marks = ""
        """Beginning of the next line."""
        self._depth = 0

    def block(self, element: Element) -> None:
        """Write an element on lines of its own."""
        self.end_line()
        if element.label:
            self._line = f"{{{element.label}}}"
            self.end_line()
        self._marks += _MARKS.get(element.tag, "")
        is_nested = element.tag in ("li", "details")
        self._depth += is_nested
        self.content(element)
        self.end_line()
        self._depth -= is_nested

    def content(self, element: Element) -> None:
        """Write the children of an element."""
        for child in element.children:
            if isinstance(child, str):
                self._add(child)
            elif not child.is_shown:
                continue
            elif child.tag in _INLINE:
                self._add(f"{' ' if child.tag in _APART else ''}{_inline_text(child)}")
            elif child.tag in _FIRST:
                self._add(f"{' | ' if self._line else ''}{_text_of(child)}")
            elif child.tag in _SECOND:
                self._add(f": {_text_of(child)}")
            else:
                self.block(child)

    def _add(self, text: str) -> None:
        """Add a text to the line, with one space wherever it has any."""
        added = re.sub(r"\s+", " ", text)
        is_spaced = not self._line or self._line.endswith((" ", "("))
        self._line += added.lstrip() if is_spaced else added

    def end_line(self) -> None:
        """End the line if there is one."""
        line = self._line.strip()
        if line:
            is_marked = self._marks.startswith(("-", "▸"))
            self.lines.append(f"{'  ' * (self._depth - is_marked)}{self._marks}{line}")
            self._marks = ""
        self._line = ""


def _text_of(element: Element) -> str:
    """Return the text of an element on one line."""
    writer = _Writer()
    writer.content(element)
    writer.end_line()
    return " ".join(writer.lines)


def _inline_text(element: Element) -> str:
    """Return the text of an element of a line, with brackets around what can be used."""
    text = _text_of(element)
    spoken = f" {{{element.label}}}" if element.label else ""
    match element.tag:
        case "svg":
            return f"{spoken} " if spoken else ""
        case "a" | "button":
            kind = "link" if element.tag == "a" else "button"
            current = ", current" if "aria-current" in element.attributes else ""
            return f"[{kind}{current}: {text}{spoken}]"
        case "input" | "textarea":
            return _field_text(element, text)
        case "select":
            return f"[choose: {text.removeprefix('| ')}]"
        case "option":
            return f"| {text}{' (chosen)' if 'selected' in element.attributes else ''}"
        case "q":
            return f"“{text}”"
        case "code":
            return f"`{text}`"
        case _:
            return f"{{{text}}}" if "unseen" in element.classes else text + spoken


def _field_text(element: Element, text: str) -> str:
    """Return a field of a form, with its value or else what is shown in its place."""
    kind = element.attributes.get("type", "text")
    value = text or element.attributes.get("value", "")
    placeholder = element.attributes.get("placeholder", "")
    if kind == "checkbox":
        return "[checkbox]"
    if value:
        return f"[{kind}: {value}]"
    return f"[{kind}, empty: {placeholder}]" if placeholder else f"[{kind}]"
