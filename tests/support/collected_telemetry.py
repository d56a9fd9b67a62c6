"""Spans and metrics of a world, kept in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastn_mcp.extensions.telemetry.instruments import Instruments, ProcessTelemetry
from support.world import World

Point = dict[str, Any]


class Collected:
    """Spans and metrics of this process."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.signals = Instruments(tracers, self._meters)

    def world(self, folder: Path, **more: Any) -> World:
        telemetry = ProcessTelemetry(self.signals)
        return World(folder, watching=lambda system: telemetry.of_account(system, "acme-profile"), **more)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Spans in the order of their start."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def clear(self) -> None:
        self._spans.clear()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def tree(self) -> list[str]:
        """Return the spans, each indented below its parent."""
        return list(_lines(self.spans, None, 0))

    def points(self, metric: str) -> list[tuple[Point, Any]]:
        """Return the attributes of each data point, with its value or its count."""
        data = self._metrics.get_metrics_data()
        return [
            (dict(point.attributes or {}), point.value if isinstance(point, NumberDataPoint) else point.count)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for measured in scope.metrics
            if measured.name == metric
            for point in measured.data.data_points
        ]

    def everything(self) -> str:
        """Return all exported data as text."""
        data = self._metrics.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), data.to_json() if data else ""])


def _lines(spans: list[ReadableSpan], parent: int | None, depth: int) -> Iterator[str]:
    known = {span.context.span_id for span in spans if span.context}
    for span in spans:
        above = span.parent.span_id if span.parent and span.parent.span_id in known else None
        if above == parent and span.context is not None:
            yield "  " * depth + span.name
            yield from _lines(spans, span.context.span_id, depth + 1)
