"""Choose whether parts are observed, by OpenTelemetry's own variables.

Telemetry never stops a start: clients hand their own variables on to the servers that they start. What cannot be done
is said in the log.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fastn_mcp import install_extra
from fastn_mcp.build.account import Instrumentation, not_instrumented
from fastn_mcp.server.log import JsonLines

if TYPE_CHECKING:
    from fastn_mcp.telemetry.exporter import Export
    from fastn_mcp.telemetry.instruments import Instruments

log = logging.getLogger(__name__)

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_SIGNALS = ("traces", "metrics", "logs")


def wanted(environment: Mapping[str, str]) -> list[str]:
    """What there is a collector for. What another exporter or protocol is named for is logged, and left out."""
    given = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()}
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    return [signal for signal in _SIGNALS if _sent(signal, given)]


def _sent(signal: str, given: Mapping[str, str]) -> bool:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    if _ENDPOINT not in given and f"{own}_ENDPOINT" not in given:
        return False
    chosen = f"OTEL_{signal.upper()}_EXPORTER"
    if (exporter := given.get(chosen, "otlp")) == "none":
        return False
    if exporter != "otlp":
        log.warning("%s is %s, but only otlp is supported: no %s are sent", chosen, exporter, signal)
        return False
    named = f"{own}_PROTOCOL" if f"{own}_PROTOCOL" in given else _PROTOCOL
    if (protocol := given.get(named, "http/protobuf")) != "http/protobuf":
        log.warning("%s is %s, but only http/protobuf is supported: no %s are sent", named, protocol, signal)
        return False
    return True


def exporting(environment: Mapping[str, str], lines: JsonLines) -> "Export | None":
    """What sends telemetry from now on; None where nobody collects it, or it cannot be sent."""
    if not (signals := wanted(environment)):
        return None
    try:
        from fastn_mcp.telemetry.exporter import Export  # only where asked for: it takes longer than all the rest
    except ImportError:
        log.warning("a collector is set, but the exporter is not installed: %s", install_extra("otel"))
        return None
    try:
        export = Export(signals, environment, lines)
    except Exception as error:  # a value of theirs, in whatever way it is wrong
        log.warning("no telemetry is sent: invalid OpenTelemetry variable (%s)", type(error).__name__)
        return None
    if export.records is not None:
        logging.getLogger().addHandler(export.records)
    return export


def observed(instruments: "Instruments", profile: str) -> Instrumentation:
    """Have the parts of an account observed."""
    from fastn_mcp.telemetry.instruments import AccountSpans, current_trace
    from fastn_mcp.telemetry.request_spans import observe

    spans = AccountSpans(instruments, profile)
    return Instrumentation(
        lambda system: replace(system, trace=current_trace, span=spans), partial(observe, instruments=instruments)
    )


def instrumentation_of(
    environment: Mapping[str, str], lines: JsonLines, at_the_end: Callable[[Callable[[], None]], object]
) -> Callable[[str], Instrumentation]:
    """What makes the parts of the account of a profile; what was begun for it ends with `at_the_end`."""
    export = exporting(environment, lines)
    if export is None:
        return not_instrumented
    at_the_end(export.end)
    return partial(observed, export.signals)
