"""Values as they may stand before a person. Pure.

No name and no value can speak for us: each is quoted, on one line, cut with a count, and shows what cannot be seen.
"""

import unicodedata

from pydantic_core import to_json

from fastn_mcp.operation import Record

LONGEST = 200
"""Characters of one value."""

_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"


def show(value: object, limit: int = LONGEST) -> str:
    """A value, quoted where it is text."""
    text = value if isinstance(value, str) else to_json(value, inf_nan_mode="strings").decode()
    cut = len(text) - limit
    shown = text[:limit]
    if isinstance(value, str):
        shown = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    quoted = visible(shown)
    return f"{quoted} [{cut} more characters]" if cut > 0 else quoted


def visible(text: str) -> str:
    """Text with each control, bidirectional, combining and invisible character as `\\u{...}`."""
    return "".join(_visible(letter) for letter in text)


def _visible(letter: str) -> str:
    category = unicodedata.category(letter)
    hidden = category.startswith(("C", "Zl", "Zp")) or category == "Mn" or letter in _FILLERS
    return f"\\u{{{ord(letter):x}}}" if hidden else letter


def name_of(record: Record | None) -> str | None:
    """What people call it."""
    for field in ("name", "slug", "email"):
        value: object = getattr(record, field, None)
        if isinstance(value, str) and value.strip():
            return value
    return None
