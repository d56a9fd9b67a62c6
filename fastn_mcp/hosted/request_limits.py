"""Bodies of calls: their size, what is read of them before a handler, and rejections."""

from dataclasses import dataclass
from typing import Any, cast

from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from pydantic import JsonValue
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive

from fastn_mcp.channels.http_server import read_body


class RequestRejected(Exception):
    """Request rejected before it reached a handler. Nothing was sent."""

    def __init__(
        self, status: int, message: str, code: int = INVALID_REQUEST, headers: dict[str, str] | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self._status = status
        self._error: dict[str, JsonValue] = {"code": code, "message": f"{message} Nothing was sent."}
        if facts:
            self._error["data"] = {"outcome": "refused", **facts}
        self._headers = {"Cache-Control": "no-store"} | (headers or {})

    def response(self, id_: str | int | None) -> JSONResponse:
        """Return the JSON-RPC error for the request of this id, since clients show its message."""
        body = {"jsonrpc": "2.0", "id": id_, "error": self._error}
        return JSONResponse(body, self._status, self._headers)


def unavailable(message: str, seconds: int) -> RequestRejected:
    """Return a 503 rejection that allows a retry after `seconds`."""
    return RequestRejected(503, message, INTERNAL_ERROR, {"Retry-After": str(seconds)})


async def read(request: Request, largest: int) -> bytes:
    """Return the body of a request. Raises `RequestRejected` if it is too large."""
    if (body := await read_body(request, largest)) is None:
        raise RequestRejected(413, f"The request is larger than {largest} bytes.")
    return body


def body_message(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


def replay(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that replays `first` and then receives as before."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return first

    return receive_again


@dataclass(frozen=True, slots=True)
class Summary:
    """Id and tool call of a request, as far as they can be parsed. The request itself is not validated."""

    id: str | int | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None


def summarize(body: bytes) -> Summary:
    """Parse the id and the tool call of any body. Invalid parts are None."""
    try:
        message: object = from_json(body)
    except (ValueError, RecursionError):
        return Summary()
    if not isinstance(message, dict):
        return Summary()
    fields = cast("dict[str, object]", message)
    id_ = fields.get("id")
    request_id = id_ if isinstance(id_, (str, int)) and not isinstance(id_, bool) else None
    params = fields.get("params")
    if fields.get("method") != "tools/call" or not isinstance(params, dict):
        return Summary(request_id)
    call = cast("dict[str, object]", params)
    name, values = call.get("name"), call.get("arguments")
    arguments = cast("dict[str, Any]", values) if isinstance(values, dict) else None
    return Summary(request_id, name if isinstance(name, str) else None, arguments)
