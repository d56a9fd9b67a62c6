"""MCP requests as spans and metrics.

In place of the SDK's own middleware, which puts what clients send into names, and texts of errors into spans.
"""

import time
from collections.abc import Mapping
from typing import Any, cast

from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server._otel import OpenTelemetryMiddleware
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INVALID_PARAMS, CallToolResult
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from fastn_mcp.procedures.catalog import BY_NAME
from fastn_mcp.server.prompts import RECIPES
from fastn_mcp.telemetry import attributes as names
from fastn_mcp.telemetry.instruments import Attributes, Instruments, counted, incoming, kind_of
from fastn_mcp.tools.parsing import current

_PROMPTS = frozenset(recipe.name for recipe in RECIPES)
_LONGEST_ID = 64
_OUTCOMES = frozenset({"not_sent", "refused", "declined"})
"""Of calls that end before they are dispatched."""


def observe(server: Server[Any], instruments: Instruments) -> None:
    """Have the requests of a server observed."""

    async def middleware(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        said, target = _said(ctx)
        name = f"{said[names.METHOD]} {target}" if target else str(said[names.METHOD])
        headers: object = getattr(ctx.request, "headers", None)
        transport = incoming(cast("Mapping[str, object]", headers)) if isinstance(headers, Mapping) else None
        # What the message says of itself comes first, since one HTTP request can carry several.
        own = incoming(ctx.meta or {})
        parent, link = (transport, None) if own is None else (own, transport)
        began = time.monotonic()
        try:
            with instruments.span(name, said, SpanKind.SERVER, parent, link) as span:
                try:
                    if ctx.method != "tools/call":
                        return await call_next(ctx)
                    with counted(instruments, target or names.OTHER) as call:
                        return await _tool_call(ctx, call_next, call, said)
                except BaseException as error:
                    said |= _failure(error)
                    raise
                finally:
                    if names.ERROR in said:
                        span.set_attributes(said)
                        span.set_status(StatusCode.ERROR)
        finally:
            instruments.record(names.MCP_DURATION, time.monotonic() - began, said)

    others = [each for each in server.middleware if not isinstance(each, OpenTelemetryMiddleware)]
    server.middleware[:] = [middleware, *others]


async def _tool_call(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext, call: Attributes, said: Attributes
) -> HandlerResult:
    """The result of a tool call; an error of one that was not dispatched becomes its outcome."""
    try:
        result = await call_next(ctx)
    except (MCPError, ValidationError):
        call.setdefault(names.OUTCOME, "not_sent")
        raise
    if (outcome := _error_outcome(result)) is not None:
        call.setdefault(names.OUTCOME, outcome)
        said[names.ERROR] = "tool_error"
    return result


def _said(ctx: ServerRequestContext[Any, Any]) -> tuple[Attributes, str | None]:
    """What is known of a request before it is answered; the tool or the prompt that it is about."""
    said: Attributes = {
        names.METHOD: ctx.method if ctx.method in names.METHODS else names.OTHER,
        "mcp.protocol.version": ctx.protocol_version,
        "network.transport": "pipe" if ctx.request is None else "tcp",
    }
    if ctx.request_id is not None:
        said["jsonrpc.request.id"] = str(ctx.request_id)[:_LONGEST_ID]
    given = (ctx.params or {}).get("name")
    target = None
    if ctx.method == "tools/call":
        said["gen_ai.operation.name"] = "execute_tool"
        if isinstance(given, str) and (tool := current(given)) in BY_NAME:
            said[names.TOOL] = target = tool
    elif ctx.method == "prompts/get" and given in _PROMPTS:
        said["gen_ai.prompt.name"] = target = given
    return said, target


def _error_outcome(result: object) -> str | None:
    match result:
        case CallToolResult(is_error=True, structured_content={"outcome": str(outcome)}) | {
            "isError": True,
            "structuredContent": {"outcome": str(outcome)},
        }:
            return outcome if outcome in _OUTCOMES else "failed"
        case CallToolResult(is_error=True) | {"isError": True}:
            return "failed"
        case _:
            return None


def _failure(error: BaseException) -> Attributes:
    if isinstance(error, (MCPError, ValidationError)):
        code = str(error.error.code if isinstance(error, MCPError) else INVALID_PARAMS)
        return {names.ERROR: code, names.STATUS_CODE: code}
    return {names.ERROR: kind_of(error)}
