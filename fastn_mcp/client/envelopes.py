"""Envelopes and field names of responses.

Fastn was seen to wrap one resource as {data}, {data: {data}} or not at all. Lists keep the fields around their rows.
"""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from fastn_mcp.fastn.targets import Call
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.paging import List, rows_of

_WRAPPERS = ("data", "result", "results", "item", "items")


def unwrap(body: JsonValue) -> JsonValue:
    """Return the resource or the list inside the envelopes."""
    for _ in range(3):
        if not isinstance(body, dict) or "id" in body:
            return body
        inner = next((body[name] for name in _WRAPPERS if isinstance(body.get(name), dict)), None)
        if inner is None:
            return body
        body = inner
    return body


Names = Mapping[str, str]
"""Our field names, and those of the account."""


def to_wire(request: Request, names: Names) -> Request:
    """Return the request with the account's field names in its body."""
    if request.body is None:
        return request
    body = {name: value for name, value in request.body.items() if name not in names}
    return replace(request, body=body | {names[name]: request.body[name] for name in names if name in request.body})


def from_wire(call: Call, body: JsonValue, names: Names) -> None:
    """Add our field names to each row, beside the account's."""
    rows = rows_of(body)[0] if isinstance(call, List) else [body] if isinstance(body, dict) else []
    for row in rows:
        for our, their in names.items():
            if our not in row and their in row:
                row[our] = row[their]
