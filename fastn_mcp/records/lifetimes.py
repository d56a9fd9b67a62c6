"""How long credentials and runs last: what Fastn renews by itself, and which runs take far too long."""

from datetime import datetime, timedelta

from fastn_mcp.records.rows import Row, number, timestamp, word
from fastn_mcp.records.states import run_state

_RENEWS_ITSELF = {
    **dict.fromkeys(("oauth", "oauth 2", "oauth 2.0", "oauth2"), True),
    **dict.fromkeys(("api key", "bearer", "basic", "digest", "input"), False),
}
"""By auth type: Fastn refreshes OAuth tokens; EXPIRED means that it failed. It cannot renew what a person entered."""

_LIMITS = {"instant": timedelta(minutes=2), "standard": timedelta(minutes=15), "long": timedelta(hours=36)}
"""Longest time limit that Fastn documents, by tier."""

_ANY_LIMIT, _QUEUED = timedelta(hours=1), timedelta(minutes=15)
"""Limit presumed where neither the workflow nor its tier tells, and of a run that has not started."""


def renews_itself(connection: Row) -> bool | None:
    """Return whether Fastn renews a connection's credentials, while its refresh token is valid; None if not known."""
    return _RENEWS_ITSELF.get(word(connection, "authType", "auth.type"))


def overdue_limit(run: Row, workflow: Row, now: datetime) -> timedelta | None:
    """Return the limit that a run under way has passed, by its workflow's timeout or tier; None if it has not."""
    began = timestamp(run, "startedAt", "createdAt")
    if began is None or run_state(run).has_ended:
        return None
    if word(run, "status") in ("queued", "pending"):
        limit = _QUEUED
    elif timeout := number(workflow, "timeoutMs"):
        limit = timedelta(milliseconds=timeout)
    else:
        limit = _LIMITS.get(word({**workflow, **run}, "executionTier", "tier"), _ANY_LIMIT)
    return limit if now - began > 2 * limit else None
