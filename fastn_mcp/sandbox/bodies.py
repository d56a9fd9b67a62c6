"""The bytes of a list, written row by row: a long one is held once, as the JSON that it becomes. Pure."""

from collections.abc import Iterable
from io import BytesIO

from pydantic_core import to_json

from fastn_mcp.sandbox.behaviour import Envelope, wrapped
from fastn_mcp.sandbox.state import Row


def list_body(envelope: Envelope, rows: Iterable[Row], around: Row) -> bytes:
    """The rows in their envelope, with what stands beside them."""
    # An envelope begins with the rows, so that the first empty list is where they go.
    head, tail = to_json(wrapped(envelope, [], around)).split(b"[]", 1)
    body = BytesIO()
    body.write(head)
    separator = b"["
    for row in rows:
        body.write(separator)
        body.write(to_json(row))
        separator = b","
    body.write(b"[]" if separator == b"[" else b"]")
    body.write(tail)
    return body.getvalue()
