"""MCP requests and tool calls as spans and metrics.

In place of the SDK's own middleware, which puts what clients send into names, and texts of errors into spans.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server._otel import OpenTelemetryMiddleware
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INVALID_PARAMS, CallToolResult
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError
from typing_extensions import override

from fastn_mcp.client.client import FastnClient
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.approval.request import Asking, PendingApproval
from fastn_mcp.guard.audit.recorder import Recorder
from fastn_mcp.guard.changes import Done
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.journal import Journalling
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.guard.preview import Shown
from fastn_mcp.procedures.catalog import BY_NAME
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.runtime import Report, System, no_progress
from fastn_mcp.server.prompts import RECIPES
from fastn_mcp.telemetry import attributes
from fastn_mcp.telemetry.instruments import Instruments, fail, incoming, kind_of
from fastn_mcp.tools.parsing import current
from fastn_mcp.tools.tool import Tool


@dataclass(slots=True)
class Calling:
    """What is known of a call."""

    tool: str = attributes.OTHER
    effect: str | None = None
    outcome: str | None = None
    profile: str | None = None

    def said(self) -> dict[str, str]:
        """As attributes."""
        known = {
            attributes.TOOL: self.tool,
            attributes.EFFECT: self.effect,
            attributes.OUTCOME: self.outcome,
            attributes.PROFILE: self.profile,
        }
        return {name: value for name, value in known.items() if value is not None}


_calling: ContextVar[Calling | None] = ContextVar("calling", default=None)


@contextmanager
def counted(signals: Instruments, calling: Calling) -> Generator[Calling]:
    """The call that is made meanwhile, counted at its end."""
    token = _calling.set(calling)
    signals.active(1)
    try:
        yield calling
    except BaseException as error:
        calling.outcome = calling.outcome or ("failed" if isinstance(error, Exception) else "cancelled")
        raise
    finally:
        _calling.reset(token)
        signals.active(-1)
        trace.get_current_span().set_attributes(calling.said())
        signals.count(attributes.CALLED, calling.said())


class ObservedDispatcher(Dispatcher):
    """A dispatcher whose calls are counted; a span of their own have those that no request of a client made."""

    def __init__(
        self, client: FastnClient, guard: Guard, recorder: Recorder, journalling: Journalling, secrets: SecretValues,
        system: System, signals: Instruments, profile: str,
    ) -> None:  # fmt: skip
        super().__init__(client, guard, recorder, journalling, secrets, system)
        self._signals = signals
        self._profile = profile

    @override
    async def __call__(
        self, call: Tool[Any], caller: Caller, report: Report = no_progress
    ) -> Done | Asking | PendingApproval:
        with self._observed(call) as calling:
            outcome = await super().__call__(call, caller, report)
            calling.outcome = "done" if isinstance(outcome, Done) else "approval_required"
            return outcome

    @override
    async def preview(self, call: Tool[Any], caller: Caller) -> Shown:
        with self._observed(call) as calling:
            shown = await super().preview(call, caller)
            calling.outcome = "previewed"
            return shown

    @contextmanager
    def _observed(self, call: Tool[Any]) -> Generator[Calling]:
        if (calling := _calling.get()) is not None:
            with self._known(calling, call):
                yield calling
            return
        tool = call.tool_name()
        said = {attributes.GEN_AI: "execute_tool", attributes.TOOL: tool}
        with (
            self._signals.span(f"execute_tool {tool}", said) as span,
            counted(self._signals, Calling(tool)) as calling,
            self._known(calling, call),
        ):
            try:
                yield calling
            except BaseException as error:
                fail(span, kind_of(error))
                raise

    @contextmanager
    def _known(self, calling: Calling, call: Tool[Any]) -> Generator[None]:
        calling.effect, calling.profile = call.effective.value, self._profile
        try:
            yield
        except FastnError as error:
            calling.outcome = error.outcome
            raise


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
