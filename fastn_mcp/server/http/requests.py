"""Requests to MCP over HTTP: their bodies, and the JSON-RPC error of one that is rejected before a handler."""

from dataclasses import dataclass
from typing import Any, cast

from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from pydantic import JsonValue
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive

from fastn_mcp.channels.http_server import read_body
from fastn_mcp.procedures.catalog import TOOLS
from fastn_mcp.server.pipes import id_in
from fastn_mcp.tools.bounds import MAX_SIZE, message_problem, size_problem


class RequestRejected(Exception):
    """Request rejected before it reached a handler. Nothing was sent."""

    def __init__(
        self,
        status: int,
        message: str,
        code: int = INVALID_REQUEST,
        headers: dict[str, str] | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
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
    body = await read_body(request, largest)
    if body is None:
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
    name = call.get("name")
    values = call.get("arguments")
    arguments = cast("dict[str, Any]", values) if isinstance(values, dict) else None
    return Summary(request_id, name if isinstance(name, str) else None, arguments)


class OversizedMessage(RequestRejected):
    """A message that is not passed on, with the id to answer."""

    def __init__(self, status: int, message: str, code: int, id_: str | int | None) -> None:
        super().__init__(status, message, code)
        self.id = id_


def check_size(body: bytes) -> None:
    """Reject a body that the SDK, which parses it several times, would need long for.

    Raises `OversizedMessage`, which names the oversized argument of a tool.
    """
    problem = message_problem(body)
    if problem is not None:
        raise OversizedMessage(413, problem, INVALID_REQUEST, id_in(body))
    if len(body) <= MAX_SIZE:
        return
    summary = summarize(body)
    if summary.tool not in TOOLS:
        problem = f"The message has {len(body) // 1000:,} kB; at most {MAX_SIZE // 1000} kB are accepted."
        raise OversizedMessage(413, problem, INVALID_REQUEST, summary.id)
    problem = size_problem(TOOLS[summary.tool], summary.arguments or {})
    if problem is not None:
        raise OversizedMessage(200, f"{problem}.", INVALID_PARAMS, summary.id)
