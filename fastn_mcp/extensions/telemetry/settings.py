"""Settings of telemetry: the table [extensions.telemetry]. Where to send it, OpenTelemetry's own variables say."""

from typing import Literal

from pydantic import Field

from fastn_mcp.config.model import Settings
from fastn_mcp.config.sections import Section

AuditExportMode = Literal["off", "fail-open", "fail-closed"]


class TelemetrySection(Section):
    audit_export: AuditExportMode = Field(
        "off",
        description=(
            "Also send the audit log to the OpenTelemetry collector. fail-closed refuses changes while that takes too"
            " long (observability.md)."
        ),
    )


section = TelemetrySection


def audit_export_of(settings: Settings) -> AuditExportMode:
    telemetry = settings.extensions.get("telemetry")
    return telemetry.audit_export if isinstance(telemetry, TelemetrySection) else "off"
