"""Check of the audit log's export."""

from fastn_mcp.audit.outbox import MAX_WAIT, Outbox
from fastn_mcp.build.check import Check, CheckGroup
from fastn_mcp.build.extensions import CheckedAccount
from fastn_mcp.errors import os_reason
from fastn_mcp.extensions.telemetry.settings import audit_export_of
from fastn_mcp.records.formats import counted


async def check(account: CheckedAccount) -> list[Check]:
    """Check that the audit logs are exported, if they are to be."""
    group = CheckGroup.SETTINGS
    name = "audit export"
    mode = audit_export_of(account.settings)
    if mode == "off":
        return []
    try:
        waiting = [entry.time for log in account.audit_logs for entry in Outbox(log).unsent(1)]
    except OSError as error:
        reason = os_reason(error)
        return [
            group.failed(name, f"The record of exported entries cannot be read: {reason}.", "Fix the state folder.")
        ]
    if not waiting:
        return [group.ok(name, f"No entry is waiting ({mode}).")]
    seconds = (account.now - min(waiting)).total_seconds()
    oldest = counted(round(seconds), "second")
    finding = f"Entries of {counted(len(waiting), 'audit log')} wait, the oldest for {oldest} ({mode})."
    if seconds <= MAX_WAIT:
        return [group.ok(name, finding)]
    refused = " Changes are refused." if mode == "fail-closed" else ""
    return [
        group.differs(name, finding + refused, "Start a server, or see its log: it says why the collector refuses.")
    ]
