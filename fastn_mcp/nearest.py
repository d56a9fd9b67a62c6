"""What somebody who misspelt a name or a value may have meant, and what is wrong with it, in words."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean …?)`, where a known name is near; else nothing."""
    close = closest(name, known)
    return "" if close is None else f" (did you mean {close!r}?)"


def closest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is most like this one: from 0, which any name is, to 1, which only itself is.

    Case, hyphens and underscores make no difference.
    """
    plain = {_plain(each): each for each in known}
    close = difflib.get_close_matches(_plain(name[:64]), plain, 1, likeness)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")


def reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, by an error of pydantic: no part of the value, only the nearest known one."""
    if problem["type"] not in ("literal_error", "enum"):
        return str(problem["msg"]).removeprefix("Value error, ")
    expected, given = str(problem["ctx"]["expected"]), problem.get("input")
    known = re.findall(r"'([^']*)'", expected)
    return f"must be {expected}{nearest(given, known) if isinstance(given, str) else ''}"
