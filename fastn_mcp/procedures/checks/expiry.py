"""When keys and connections expire."""

from datetime import datetime, timedelta

from fastn_mcp.procedures.checks.check import EXPIRY_NOTICE
from fastn_mcp.records.formats import counted
from fastn_mcp.records.rows import Row, timestamp, word
from fastn_mcp.tools.access import EXPIRY_FIELDS


def expiry_of(row: Row) -> datetime | None:
    return timestamp(row, *EXPIRY_FIELDS)


def is_ended(key: Row) -> bool:
    return word(key, "status") in ("revoked", "expired", "disabled")


def expires_within(row: Row, now: datetime, time: timedelta) -> bool:
    """Whether a key that is not revoked, or a connection, expires in this time, or has expired."""
    at = expiry_of(row)
    return not is_ended(row) and at is not None and at <= now + time


def within(time: timedelta) -> str:
    """Return a time in words: `within two weeks`, `within 30 days`."""
    hours = round(time.total_seconds() / 3600)
    words = counted(hours // 24, "day") if hours % 24 == 0 else counted(hours, "hour")
    return f"within {'two weeks' if time == EXPIRY_NOTICE else words}"
