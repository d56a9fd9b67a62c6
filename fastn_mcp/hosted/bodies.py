"""A request's body, read whole and within bounds, and given again to whoever is next."""

from dataclasses import dataclass
from typing import Any, cast

import anyio
from pydantic_core import from_json
from starlette.types import Message, Receive

from fastn_mcp.hosted.challenge import Turned

_PATIENCE = 10.0
"""Seconds for a body to arrive."""


async def read(receive: Receive, largest: int) -> bytes:
    """Raises `Turned` where it is too large or too slow, or the client left."""
    body = bytearray()
    with anyio.move_on_after(_PATIENCE):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Turned(400, "The request broke off.")
            body += message.get("body", b"")
            if len(body) > largest:
                raise Turned(413, f"The request is larger than {largest} bytes.")
            if not message.get("more_body", False):
                return bytes(body)
    raise Turned(408, "The request took too long to arrive.")


def whole(body: bytes) -> Message:
    """The message that holds a whole body."""
    return {"type": "http.request", "body": body, "more_body": False}


def again(first: Message, receive: Receive) -> Receive:
    """What was received already, and from then on what really comes."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first

    return receive_again


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as that can be told. Whether it is one of the protocol is for others to say."""

    id: str | int | None = None
    tool: str | None = None
    """The tool that it calls."""
    arguments: dict[str, Any] | None = None


def asked(body: bytes) -> Asked:
    """What is in a body, whatever it is."""
    try:
        message: object = from_json(body)
    except (ValueError, RecursionError):
        return Asked()
    if not isinstance(message, dict):
        return Asked()
    fields = cast("dict[str, object]", message)
    id_ = fields.get("id")
    known = id_ if isinstance(id_, (str, int)) and not isinstance(id_, bool) else None
    params = fields.get("params")
    if fields.get("method") != "tools/call" or not isinstance(params, dict):
        return Asked(known)
    called = cast("dict[str, object]", params)
    name, given = called.get("name"), called.get("arguments")
    arguments = cast("dict[str, Any]", given) if isinstance(given, dict) else None
    return Asked(known, name if isinstance(name, str) else None, arguments)
