"""Entries of an audit log, at a fixed time."""

from datetime import UTC, datetime

from fastn_mcp.audit.log import AuditEvent, about
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.customers import DeleteCustomer

NOW = datetime(2026, 11, 25, 1, 40, 35, 532_000, tzinfo=UTC)
ACCOUNT = "default at live.fastn.ai"
INTENT = about(AuditEvent.INTENT, DeleteCustomer(customer_id="cus_1"), Asker(), ACCOUNT)
