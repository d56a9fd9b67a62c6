"""What cannot be seen in a text, made visible. Pure.

Control, bidirectional, invisible and filler characters can hide text from a person, or move what a terminal shows: they
become `\\u{...}`. Letters keep their marks, but no more than a script needs, since many in a row cover other lines.
"""

import re
import unicodedata

_MARKS = 3
"""Combining marks in a row that a script may need."""

# Categories C (control, format, unassigned, private, surrogate), Zl and Zp, and letters that show nothing.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF), (0x180B, 0x180F))

_PLAIN = re.compile(r"[\x20-\x7e\n\t]*")


def visible(text: str, *, keep: str = "") -> str:
    """The text with what cannot be seen in it as `\\u{...}`; `keep` are characters that may stay."""
    if _PLAIN.fullmatch(text) and not any(letter in text for letter in "\n\t" if letter not in keep):
        return text
    marks = 0
    shown: list[str] = []
    for letter in text:
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        hidden = letter not in keep and (marks > _MARKS or _unseen(letter))
        shown.append(f"\\u{{{ord(letter):x}}}" if hidden else letter)
    return "".join(shown)


def _unseen(letter: str) -> bool:
    if unicodedata.category(letter).startswith(("C", "Zl", "Zp")) or letter in _FILLERS:
        return True
    return any(first <= ord(letter) <= last for first, last in _SELECTORS)
