"""Create spans and record metrics on the given providers."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fastn_mcp import __version__
from fastn_mcp.errors import FastnError
from fastn_mcp.telemetry import attributes as names

Attributes = Mapping[str, str | int | float]

_W3C = TraceContextTextMapPropagator()


class Instruments:
    """One tracer, and the instruments of `names.METRICS`."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer = tracers.get_tracer("fastn_mcp", __version__)
        meter = meters.get_meter("fastn_mcp", __version__)
        self._counters = {m: meter.create_counter(m.name, m.unit, m.says) for m in names.METRICS if m.kind == "counter"}
        self._active = meter.create_up_down_counter(names.ACTIVE.name, names.ACTIVE.unit, names.ACTIVE.says)
        self._gauges = {m: meter.create_gauge(m.name, m.unit, m.says) for m in names.METRICS if m.kind == "gauge"}
        self._histograms = {
            m: meter.create_histogram(m.name, m.unit, m.says, explicit_bucket_boundaries_advisory=m.bounds)
            for m in names.METRICS
            if m.kind == "histogram"
        }

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: Context | None = None,
        link: Context | None = None,
    ) -> Generator[Span]:
        """A span of what is done meanwhile; `link` names another that it has to do with."""
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=attributes,
            links=None if link is None else [Link(trace.get_current_span(link).get_span_context())],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    def count(self, metric: names.Metric, said: Mapping[str, object]) -> None:
        """One more."""
        self._counters[metric].add(1, _of(metric, said))

    def active(self, change: int) -> None:
        """So many calls more are being made."""
        self._active.add(change)

    def measure(self, metric: names.Metric, seconds: float, said: Mapping[str, object]) -> None:
        """It took so long."""
        self._histograms[metric].record(seconds, _of(metric, said))

    def level(self, metric: names.Metric, value: int, said: Mapping[str, object]) -> None:
        """It is so much now."""
        self._gauges[metric].set(value, _of(metric, said))


def _of(metric: names.Metric, said: Mapping[str, object]) -> dict[str, str | int]:
    """Of what was said, what the metric holds: bounded in number, whatever else a span says."""
    return {name: value for name in metric.attributes if isinstance(value := said.get(name), (str, int))}


def kind_of(error: BaseException) -> str:
    """What went wrong, without a word of its text."""
    return error.outcome if isinstance(error, FastnError) else type(error).__name__


def fail(span: Span, kind: str) -> None:
    """It went wrong."""
    span.set_attribute(names.ERROR, kind)
    span.set_status(StatusCode.ERROR)


def incoming(carrier: Mapping[str, object]) -> Context | None:
    """The context that a `traceparent` names; None where there is none that is one.

    Of what a client sends only these ids go on: `tracestate` and `baggage` can hold anything.
    """
    given = carrier.get("traceparent")
    found = _W3C.extract({"traceparent": given} if isinstance(given, str) else {})
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def current_trace() -> str | None:
    """The span that is open, as a `traceparent`; None where there is none that is recorded."""
    span = trace.get_current_span()
    if not span.is_recording():
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def link_to(span: Span, trace_parent: str | None) -> None:
    """Link a span to another, which began in an earlier request, perhaps of another process."""
    if trace_parent is None or (found := incoming({"traceparent": trace_parent})) is None:
        return
    other = trace.get_current_span(found).get_span_context()
    if other.span_id != span.get_span_context().span_id:
        span.add_link(other)
