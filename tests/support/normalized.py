"""The one normaliser of golden files: what differs from run to run becomes its name in angle brackets."""

import re
from collections.abc import Mapping

from fastn_mcp import __version__

_SECONDS = r"(:\d\d(\.\d+)?)?"
_ZONE = r"( ?UTC|Z|[+-]\d\d:\d\d)"

_PATTERNS = (
    (rf"\b\d{{4}}-\d\d-\d\d[T ]\d\d:\d\d{_SECONDS}{_ZONE}?", "<time>"),
    (rf"\b\d\d:\d\d{_SECONDS}( ?UTC|Z)", "<time>"),
    (r"\b(at|until) (\d{4}-\d\d-\d\d )?\d\d:\d\d\b", r"\1 <time>"),
    (r"(?<!protocol )\b\d{4}-\d\d-\d\d\b", "<date>"),
    (r"\bfor \d+ days(?=, since <date>)", "for <days>"),
    (r"\b(just now|(less than )?a minute ago|\d+ (seconds?|minutes?|hours?|days?|months?) ago|yesterday)\b", "<age>"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{16})\b", "<hash>"),
    (r"\bchg_[\w-]{20,}", "<change>"),
    (r'("next_cursor": )"[^"]+"', r'\1"<cursor>"'),
    (r'(public_key = )"[^"]+"', r'\1"<key>"'),
    (r"\b\d+(\.\d+)? ms\b", "<ms>"),
    (r"(?m)(?<=\t)\d+\.\d(?=\t*$)", "<ms>"),
    (r"(?<=127\.0\.0\.1:)\d{5}\b", "<port>"),
    (rf"(?<=fastn-mcp )(version )?{re.escape(__version__)}|(?<=version ){re.escape(__version__)}", "<version>"),
)
"""What differs, and its name, in the order in which they are replaced."""


def normalized(text: str, places: Mapping[str, str]) -> str:
    """Replace folders and files by their names, the longest first, then times, ages, ids, hashes and durations."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    for pattern, name in _PATTERNS:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.splitlines())
