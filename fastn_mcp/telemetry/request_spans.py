"""Spans and metrics of MCP requests."""

import time
from collections.abc import Mapping
from typing import Any, cast

from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INVALID_PARAMS
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from fastn_mcp.procedures.catalog import TOOLS
from fastn_mcp.server.prompts import RECIPES
from fastn_mcp.telemetry import attributes as names
from fastn_mcp.telemetry.instruments import Attributes, Instruments, counted, incoming, kind_of

_PROMPTS = frozenset(recipe.name for recipe in RECIPES)
_MAX_ID = 64
_OUTCOMES = frozenset({"not_sent", "refused", "declined"})
"""Outcomes of calls that end before they are dispatched."""


def observe(server: Server[Any], instruments: Instruments) -> None:
    """Add a middleware for spans and metrics to a server."""

    async def middleware(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        attributes, target = _request_attributes(ctx)
        name = f"{attributes[names.METHOD]} {target}" if target else str(attributes[names.METHOD])
        headers: object = getattr(ctx.request, "headers", None)
        transport = incoming(cast("Mapping[str, object]", headers)) if isinstance(headers, Mapping) else None
        # The message's own context comes first, as one HTTP request can carry several messages.
        own = incoming(ctx.meta or {})
        parent, link = (transport, None) if own is None else (own, transport)
        began = time.monotonic()
        try:
            with instruments.span(name, attributes, SpanKind.SERVER, parent, link) as span:
                try:
                    if ctx.method != "tools/call":
                        return await call_next(ctx)
                    with counted(instruments, target or names.OTHER_METHOD) as call:
                        return await _tool_call(ctx, call_next, call, attributes)
                except BaseException as error:
                    attributes |= _failure(error)
                    raise
                finally:
                    if names.ERROR in attributes:
                        span.set_attributes(attributes)
                        span.set_status(StatusCode.ERROR)
        finally:
            instruments.record(names.MCP_DURATION, time.monotonic() - began, attributes)

    server.middleware.insert(0, middleware)


async def _tool_call(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext, call: Attributes, attributes: Attributes
) -> HandlerResult:
    """Return the result of a tool call. An error before dispatch sets its outcome."""
    try:
        result = await call_next(ctx)
    except (MCPError, ValidationError):
        call.setdefault(names.OUTCOME, "not_sent")
        raise
    if (outcome := _error_outcome(result)) is not None:
        call.setdefault(names.OUTCOME, outcome)
        attributes[names.ERROR] = "tool_error"
    return result


def _request_attributes(ctx: ServerRequestContext[Any, Any]) -> tuple[Attributes, str | None]:
    """Return the attributes known before a request is answered, and its tool or prompt."""
    attributes: Attributes = {
        names.METHOD: ctx.method if ctx.method in names.METHODS else names.OTHER_METHOD,
        "mcp.protocol.version": ctx.protocol_version,
        "network.transport": "pipe" if ctx.request is None else "tcp",
    }
    if ctx.request_id is not None:
        attributes["jsonrpc.request.id"] = str(ctx.request_id)[:_MAX_ID]
    target_name = (ctx.params or {}).get("name")
    target = None
    if ctx.method == "tools/call":
        attributes["gen_ai.operation.name"] = "execute_tool"
        if isinstance(target_name, str) and target_name in TOOLS:
            attributes[names.TOOL] = target = target_name
    elif ctx.method == "prompts/get" and target_name in _PROMPTS:
        attributes["gen_ai.prompt.name"] = target = target_name
    return attributes, target


def _error_outcome(result: object) -> str | None:
    """Return the outcome of a tool error; None for any other result, which is in wire form here."""
    match result:
        case {"isError": True, "structuredContent": {"outcome": str(outcome)}}:
            return outcome if outcome in _OUTCOMES else "failed"
        case {"isError": True}:
            return "failed"
        case _:
            return None


def _failure(error: BaseException) -> Attributes:
    if isinstance(error, (MCPError, ValidationError)):
        code = str(error.error.code if isinstance(error, MCPError) else INVALID_PARAMS)
        return {names.ERROR: code, names.STATUS_CODE: code}
    return {names.ERROR: kind_of(error)}
