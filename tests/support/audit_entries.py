"""Entries of an audit log, at a fixed time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fastn_mcp.audit.files import lines_of, log_files
from fastn_mcp.audit.log import AuditEvent, about
from fastn_mcp.audit.reader import Entry, parsed
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.customers import DeleteCustomer

NOW = datetime(2026, 11, 25, 1, 40, 35, 532_000, tzinfo=UTC)
ACCOUNT = "default at live.fastn.ai"
INTENT = about(AuditEvent.INTENT, DeleteCustomer(customer_id="cus_1"), Asker(), ACCOUNT)


def entries(log: Path) -> Iterator[Entry]:
    """Yield the entries of a log over all its files, in order."""
    return parsed(lines_of(log_files(log)))
