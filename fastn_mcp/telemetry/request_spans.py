"""MCP requests and tool calls as spans and metrics.

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
from fastn_mcp.telemetry import attributes
from fastn_mcp.telemetry.call_spans import Calling, counted
from fastn_mcp.telemetry.instruments import Instruments, incoming, kind_of
from fastn_mcp.tools.parsing import current

_PROMPTS = frozenset(recipe.name for recipe in RECIPES)
_LONGEST_ID = 64

Attributes = dict[str, str | int | float]


class Messages:
    """The middleware."""

    def __init__(self, signals: Instruments) -> None:
        self._signals = signals

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        said, target = _said(ctx)
        name = f"{said[attributes.METHOD]} {target}" if target else str(said[attributes.METHOD])
        own, ambient = incoming(ctx.meta or {}), _of_the_transport(ctx)
        # What the message says of itself comes first, since one HTTP request can carry several.
        parent, link = (own, ambient) if own is not None else (ambient, None)
        began = time.monotonic()
        try:
            with self._signals.span(name, said, SpanKind.SERVER, parent, link) as span:
                try:
                    if ctx.method != "tools/call":
                        return await call_next(ctx)
                    return await self._called(ctx, call_next, Calling(target or attributes.OTHER), said)
                except BaseException as error:
                    said |= _failed(error)
                    raise
                finally:
                    if attributes.ERROR in said:
                        span.set_attributes({name: said[name] for name in _OF_ERRORS if name in said})
                        span.set_status(StatusCode.ERROR)
        finally:
            self._signals.measure(attributes.MCP_DURATION, time.monotonic() - began, said)

    async def _called(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext, calling: Calling, said: Attributes
    ) -> HandlerResult:
        with counted(self._signals, calling):
            try:
                result = await call_next(ctx)
            except (MCPError, ValidationError):
                calling.outcome = calling.outcome or "not_sent"
                raise
            if (outcome := _error(result)) is not None:
                calling.outcome = calling.outcome or outcome
                said[attributes.ERROR] = "tool_error"
            return result


def observe(server: Server[Any], signals: Instruments) -> None:
    """Have the requests of a server observed."""
    others = [each for each in server.middleware if not isinstance(each, OpenTelemetryMiddleware)]
    server.middleware[:] = [Messages(signals), *others]


def _said(ctx: ServerRequestContext[Any, Any]) -> tuple[Attributes, str | None]:
    """What is known of a request before it is answered; the tool or the prompt that it is about."""
    said: Attributes = {
        attributes.METHOD: ctx.method if ctx.method in attributes.METHODS else attributes.OTHER,
        attributes.PROTOCOL: ctx.protocol_version,
        attributes.TRANSPORT: "pipe" if ctx.request is None else "tcp",
    }
    if ctx.request_id is not None:
        said[attributes.REQUEST_ID] = str(ctx.request_id)[:_LONGEST_ID]
    given = (ctx.params or {}).get("name")
    target = None
    if ctx.method == "tools/call":
        said[attributes.GEN_AI] = "execute_tool"
        if isinstance(given, str) and (tool := current(given)) in BY_NAME:
            said[attributes.TOOL] = target = tool
    elif ctx.method == "prompts/get" and given in _PROMPTS:
        said[attributes.PROMPT] = target = given
    return said, target


def _of_the_transport(ctx: ServerRequestContext[Any, Any]) -> Any:
    headers: object = getattr(ctx.request, "headers", None)
    return incoming(cast("Mapping[str, object]", headers)) if isinstance(headers, Mapping) else None


def _error(result: object) -> str | None:
    """The outcome of a result that is an error."""
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


def _failed(error: BaseException) -> Attributes:
    if isinstance(error, (MCPError, ValidationError)):
        code = str(error.error.code if isinstance(error, MCPError) else INVALID_PARAMS)
        return {attributes.ERROR: code, attributes.STATUS_CODE: code}
    return {attributes.ERROR: kind_of(error)}


_OF_ERRORS = (attributes.ERROR, attributes.STATUS_CODE)
_OUTCOMES = frozenset({"not_sent", "refused", "declined"})
"""Of what ends before it is dispatched."""
