"""Enable telemetry by OpenTelemetry's own environment variables.

An invalid variable never stops a start, since clients pass their own variables on to the servers that they start. It
is logged, and no telemetry is sent.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from fastn_mcp import install_extra
from fastn_mcp.audit.outbox import MAX_WAIT, Outbox
from fastn_mcp.build.extensions import AtTheEnd
from fastn_mcp.build.stores import audit_logs, replica_log_name
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.telemetry.instruments import ProcessTelemetry
from fastn_mcp.extensions.telemetry.settings import audit_export_of
from fastn_mcp.server.log import JsonLines

log = logging.getLogger(__name__)

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_SIGNALS = ("traces", "metrics", "logs")


def _has_collector(signal: str, otel: Mapping[str, str]) -> bool:
    """Whether there is an OTLP collector for a signal. An unsupported exporter or protocol is logged."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    if _ENDPOINT not in otel and f"{own}_ENDPOINT" not in otel:
        return False
    chosen = f"OTEL_{signal.upper()}_EXPORTER"
    exporter = otel.get(chosen, "otlp")
    if exporter == "none":
        return False
    if exporter != "otlp":
        log.warning("%s is %s, but only otlp is supported: no %s are sent", chosen, exporter, signal)
        return False
    problem = _unsupported_protocol(signal, otel)
    if problem is not None:
        log.warning("%s: no %s are sent", problem, signal)
        return False
    return True


def _unsupported_protocol(signal: str, otel: Mapping[str, str]) -> str | None:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    named = own if own in otel else _PROTOCOL
    protocol = otel.get(named, "http/protobuf")
    return None if protocol == "http/protobuf" else f"{named} is {protocol}, but only http/protobuf is supported"


def begin(environment: Mapping[str, str], lines: JsonLines, at_the_end: AtTheEnd) -> ProcessTelemetry | None:
    """Start sending telemetry. Returns None if there is no collector or the exporter cannot be set up."""
    otel = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()}
    signals = [signal for signal in _SIGNALS if _has_collector(signal, otel)]
    if not signals:
        return None
    try:
        from fastn_mcp.extensions.telemetry.exporter import export  # deferred: the slowest import
    except ImportError:
        log.warning("a collector is set, but the exporter is not installed: %s", install_extra("otel"))
        return None
    try:
        instruments, end = export(signals, environment, lines)
    except Exception as error:  # the SDK raises various errors for invalid variables
        log.warning("no telemetry is sent: invalid OpenTelemetry variable (%s)", type(error).__name__)
        return None
    at_the_end(end)
    return ProcessTelemetry(instruments)


def audit_outboxes(
    settings: Settings, state: Path, environment: Mapping[str, str], at_the_end: AtTheEnd
) -> Callable[[Path], Outbox] | None:
    """Start exporting the audit logs in the folder `state`, if that is set, and return the outboxes of logs.

    Raises `SettingsError` if there is nowhere to export to.
    """
    mode = audit_export_of(settings)
    if mode == "off":
        return None
    setting = f"audit_export is {mode}"
    own = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
    if not environment.get(own) and not environment.get(_ENDPOINT):
        raise SettingsError(f"{setting}, but no collector is named.", f"Set {own} or {_ENDPOINT}.")
    problem = _unsupported_protocol("logs", environment)
    if problem is not None:
        raise SettingsError(f"{setting}. {problem}.", "See docs/observability.md.")
    try:
        from fastn_mcp.extensions.telemetry.exporter import AuditExport  # deferred: slow to import
    except ImportError:
        raise SettingsError(f"{setting}, but the exporter is not installed.", f"Run: {install_extra('otel')}") from None

    limit = MAX_WAIT if mode == "fail-closed" else None
    try:
        export = AuditExport(partial(audit_logs, state), replica_log_name, environment, limit)
    except Exception as error:  # the SDK raises various errors for invalid variables
        raise SettingsError(f"{setting}. An OpenTelemetry variable is invalid ({type(error).__name__}).", "") from error
    export.start()
    at_the_end(export.end)
    return export.outbox
