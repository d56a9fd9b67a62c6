"""What somebody who mistyped a name may have meant. Pure."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """(did you mean …?), where a known name is near."""
    close = difflib.get_close_matches(name[:64], list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
