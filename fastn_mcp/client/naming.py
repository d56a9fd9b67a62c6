"""Fields that an account calls otherwise. Pure but for `add_ours`, which fills in rows that were just decoded."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from fastn_mcp.operation import Request
from fastn_mcp.procedures.target import Call
from fastn_mcp.tools.listing import List, rows_of

Names = Mapping[str, str]
"""Our name of a field, and the account's."""


def theirs(request: Request, names: Names) -> Request:
    """The request with the account's names in its body."""
    if request.body is None:
        return request
    body = {name: value for name, value in request.body.items() if name not in names}
    return replace(request, body=body | {names[name]: request.body[name] for name in names if name in request.body})


def add_ours(call: Call, body: JsonValue, names: Names) -> None:
    """Let each row have our names too, beside the account's."""
    rows = rows_of(body)[0] if isinstance(call, List) else [body] if isinstance(body, dict) else []
    for row in rows:
        for our, their in names.items():
            if our not in row and their in row:
                row[our] = row[their]
