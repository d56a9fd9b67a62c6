"""Answers' envelopes. Pure: JSON in, JSON out.

Fastn was seen to wrap one resource as {data}, {data: {data}} or not at all; lists keep what stands around their rows.
"""

from pydantic import JsonValue

_WRAPPERS = ("data", "result", "results", "item", "items")


def unwrap(body: JsonValue) -> JsonValue:
    """The resource or the list inside the envelopes."""
    for _ in range(3):
        if not isinstance(body, dict) or "id" in body:
            return body
        inner = next((body[name] for name in _WRAPPERS if isinstance(body.get(name), dict)), None)
        if inner is None:
            return body
        body = inner
    return body
