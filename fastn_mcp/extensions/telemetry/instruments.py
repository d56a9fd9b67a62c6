"""Spans and metrics of MCP requests, tool calls, guard decisions, approval requests and requests to Fastn."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INVALID_PARAMS
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import ValidationError

from fastn_mcp import __version__
from fastn_mcp.build.extensions import Telemetry
from fastn_mcp.client.exchange import NotSentError
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.telemetry import attributes as names
from fastn_mcp.procedures.catalog import TOOLS
from fastn_mcp.runtime import SpanFacts, System
from fastn_mcp.server.prompts import RECIPES

Attributes = dict[str, str | int | float]

_W3C = TraceContextTextMapPropagator()


class Instruments:
    """One tracer, and the instruments of `names.METRICS`."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer = tracers.get_tracer("fastn_mcp", __version__)
        meter = meters.get_meter("fastn_mcp", __version__)
        self._recorders = {metric: _recorder(meter, metric) for metric in names.METRICS}

    def span(
        self,
        name: str,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: Context | None = None,
        link: Context | None = None,
    ) -> AbstractContextManager[Span]:
        """Open a span, with a link to a related one."""
        return self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=attributes,
            links=None if link is None else [Link(trace.get_current_span(link).get_span_context())],
            record_exception=False,
            set_status_on_exception=False,
        )

    def record(self, metric: names.Metric, value: float, attributes: Mapping[str, object] = {}) -> None:
        """Record `value` with the attributes that the metric declares, which bounds their number."""
        known: dict[str, str | int] = {}
        for name in metric.attributes:
            attribute = attributes.get(name)
            if isinstance(attribute, (str, int)):
                known[name] = attribute
        self._recorders[metric](value, known)


def _recorder(meter: Meter, metric: names.Metric) -> Callable[..., None]:
    name = metric.name
    unit = metric.unit
    text = metric.description
    match metric.kind:
        case "counter":
            return meter.create_counter(name, unit, text).add
        case "updowncounter":
            return meter.create_up_down_counter(name, unit, text).add
        case "gauge":
            return meter.create_gauge(name, unit, text).set
        case _:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=metric.bounds).record


def kind_of(error: BaseException) -> str:
    """Return the kind of an error, without its text."""
    return error.outcome if isinstance(error, FastnError) else type(error).__name__


def fail(span: Span, kind: str) -> None:
    """Mark a span as failed."""
    span.set_attribute(names.ERROR, kind)
    span.set_status(StatusCode.ERROR)


def incoming(carrier: Mapping[str, object]) -> Context | None:
    """Return the context of a valid `traceparent`; None if there is none.

    Only these ids of a client are passed on, as `tracestate` and `baggage` can hold anything.
    """
    header = carrier.get("traceparent")
    context = _W3C.extract({"traceparent": header} if isinstance(header, str) else {})
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def current_trace() -> str | None:
    """Return the open span as a `traceparent`; None if none is recorded."""
    carrier: dict[str, str] = {}
    if trace.get_current_span().is_recording():
        _W3C.inject(carrier)
    return carrier.get("traceparent")


def _link(span: Span, trace_parent: object) -> None:
    """Link a span to one of an earlier request, possibly of another process."""
    context = incoming({"traceparent": trace_parent})
    if context is None:
        return
    other = trace.get_current_span(context).get_span_context()
    if other.span_id != span.get_span_context().span_id:
        span.add_link(other)


_call: ContextVar[Attributes | None] = ContextVar("call", default=None)
"""Attributes of the current tool call."""


@contextmanager
def counted(instruments: Instruments, tool: str) -> Generator[Attributes]:
    """Count the tool call in this context, with the attributes that it has at its end."""
    call: Attributes = {names.TOOL: tool, names.REQUESTS: 0}
    token = _call.set(call)
    instruments.record(names.ACTIVE, 1)
    try:
        yield call
    except BaseException as error:
        call.setdefault(names.OUTCOME, "failed" if isinstance(error, Exception) else "cancelled")
        raise
    finally:
        _call.reset(token)
        instruments.record(names.ACTIVE, -1)
        trace.get_current_span().set_attributes(call)
        instruments.record(names.CALLED, 1, call)
        instruments.record(names.SENT, float(call[names.REQUESTS]), call)


class AccountSpans:
    """`System.span` for one account."""

    def __init__(self, instruments: Instruments, profile: str) -> None:
        self._instruments = instruments
        self._profile = profile

    def __call__(self, kind: str, subject: str, facts: SpanFacts) -> AbstractContextManager[SpanFacts]:
        if kind == "execute_tool":
            return self._tool_call(subject, facts)
        return self._wait(facts) if kind == "wait" else self._span(kind, subject, facts)

    @contextmanager
    def _tool_call(self, tool: str, facts: SpanFacts) -> Generator[SpanFacts]:
        """Count a tool call. Opens a span unless a client's request has one."""
        with ExitStack() as opened:
            call = _call.get()
            span = None
            if call is None:
                attributes: Attributes = {"gen_ai.operation.name": "execute_tool", names.TOOL: tool}
                span = opened.enter_context(self._instruments.span(f"execute_tool {tool}", attributes))
                call = opened.enter_context(counted(self._instruments, tool))
            call |= self._attributes(facts)
            try:
                yield facts
            except BaseException as error:
                if isinstance(error, FastnError):
                    call[names.OUTCOME] = error.outcome
                if span is not None:
                    fail(span, kind_of(error))
                raise
            call |= self._attributes(facts)

    @contextmanager
    def _wait(self, facts: SpanFacts) -> Generator[SpanFacts]:
        """Add an event to the open span, and count a retry."""
        attributes = self._attributes(facts)
        event = {name: attributes[name] for name in ("fastn_mcp.wait.cause", "fastn_mcp.wait.seconds")}
        trace.get_current_span().add_event("wait", event)
        self._instruments.record(names.WAITED, event["fastn_mcp.wait.seconds"], attributes)  # type: ignore[arg-type]
        yield facts
        if facts["cause"] == "retry":
            self._instruments.record(names.RETRIED, 1, attributes)

    @contextmanager
    def _span(self, kind: str, subject: str, facts: SpanFacts) -> Generator[SpanFacts]:
        began = time.monotonic()
        name = f"{kind} {subject}"
        span_kind = SpanKind.INTERNAL
        if kind == "http":
            name = f"{facts['method']} {subject}"
            span_kind = SpanKind.CLIENT
            facts |= _server(str(facts["base_url"]))
        with self._instruments.span(name, self._attributes(facts), span_kind) as span:
            try:
                yield facts
            except BaseException as error:
                _note_failure(kind, facts, error)
                raise
            finally:
                status = facts.get("status")
                if isinstance(status, int) and status >= 400:
                    facts["error"] = str(status)
                attributes = self._attributes(facts)
                _link(span, facts.get("asked"))
                span.set_attributes(attributes)
                if names.ERROR in attributes:
                    fail(span, str(attributes[names.ERROR]))
                self._measure(kind, time.monotonic() - began, facts, attributes)

    def _measure(self, kind: str, seconds: float, facts: SpanFacts, attributes: Attributes) -> None:
        if kind == "guard":
            self._instruments.record(names.DECIDED, 1, attributes)
        elif kind == "ask" and facts.get("is_answered"):
            self._instruments.record(names.ASKED, seconds, attributes)
        elif kind == "http":
            self._instruments.record(names.REQUESTED, seconds, attributes)
            call = _call.get()
            if call is not None and facts.get("error") != NotSentError.__name__:
                call[names.REQUESTS] = int(call[names.REQUESTS]) + 1
            remaining = str(facts.get("remaining"))
            if remaining.isascii() and remaining.isdecimal() and len(remaining) < 10:
                self._instruments.record(names.REMAINING, int(remaining), attributes)

    def _attributes(self, facts: SpanFacts) -> Attributes:
        attributes: Attributes = {names.PROFILE: self._profile}
        for key, name in names.ATTRIBUTES.items():
            value = facts.get(key)
            if value is not None:
                attributes[name] = _FORMS[key](str(value)) if key in _FORMS else value
        return attributes


_FORMS = {"rule": names.rule, "approved_by": names.approved_by}


def _server(base_url: str) -> dict[str, Any]:
    parts = urlsplit(base_url)
    return {"address": parts.hostname or "", "port": parts.port or (80 if parts.scheme == "http" else 443)}


def _note_failure(kind: str, facts: SpanFacts, error: BaseException) -> None:
    """Add the outcome, and the error if it is one. A refusal is a decision of the guard, not a failure."""
    decides = kind in ("guard", "ask")
    if isinstance(error, FastnError):
        facts["outcome"] = error.outcome
        rule = error.facts.get("rule")
        if isinstance(rule, str):
            facts |= {"decision": "deny", "rule": rule}
        if decides:
            return
    elif decides:
        facts["outcome"] = "cancelled"
    facts["error"] = kind_of(error)


_PROMPTS = frozenset(recipe.name for recipe in RECIPES)
_MAX_ID = 64
_OUTCOMES = frozenset({"not_sent", "refused", "declined"})
"""Outcomes of calls that end before they are dispatched."""


class ProcessTelemetry(Telemetry):
    """Spans and metrics by these instruments."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def of_account(self, system: System, profile: str) -> System:
        return replace(system, trace=current_trace, span=AccountSpans(self._instruments, profile))

    def observe(self, server: Server[Any]) -> None:
        observe(server, self._instruments)


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
            with instruments.span(name, attributes, SpanKind.SERVER, parent=parent, link=link) as span:
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
    outcome = _error_outcome(result)
    if outcome is not None:
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
