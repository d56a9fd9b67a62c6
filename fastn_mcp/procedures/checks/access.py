"""Checks of who has access: API keys, people and customers that wait, and of quotas."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fastn_mcp.procedures.checks.check import Reading, RowCheck
from fastn_mcp.procedures.checks.expiry import expires_within, expiry_of, is_ended, within
from fastn_mcp.procedures.checks.finding import Cells, Finding, Severity, TableRow
from fastn_mcp.procedures.checks.parts import listed
from fastn_mcp.procedures.checks.remedies import MORE_QUOTA
from fastn_mcp.records.formats import age, counted, dated
from fastn_mcp.records.labels import label_of
from fastn_mcp.records.quotas import Quota
from fastn_mcp.records.rows import Row, key_of, short, text, timestamp, word
from fastn_mcp.records.states import is_pending, is_unused

UNUSED_AFTER = timedelta(days=7)
"""Time until an unused key, or an invitation that was not accepted, is reported."""

ALL_USERS = "all users"
"""The list of all users, of whom the other has those with an open invitation, if there are many."""

NEAR_LIMIT_PERCENT = 80
"""Usage in percent from which a limit is reported."""


def _is_usable(key: Row, now: datetime) -> bool:
    return not is_ended(key) and not expires_within(key, now, timedelta())


def _is_older(row: Row, now: datetime) -> bool:
    created = timestamp(row, "createdAt", "addedAt", "invitedAt")
    return created is not None and created < now - UNUSED_AFTER


def _has_full_access(key: Row, now: datetime) -> bool:
    return _is_usable(key, now) and word(key, "permissions.preset", "permissions", "preset") == "full access"


def _expiry(row: Row, reading: Reading) -> Cells:
    at = expiry_of(row)
    return {"expires": dated(at, reading.now)} if at else {}


def _person(row: Row) -> str:
    return short(str(label_of("user", row) or key_of(row)))


def expiring_keys(reading: Reading) -> list[Finding]:
    """Report the keys that expire in the time looked ahead, the first first."""
    check = RowCheck(
        "keys that expire",
        "API keys",
        Severity.MEDIUM,
        "API key",
        lambda row, now: _is_usable(row, now) and expires_within(row, now, reading.ahead),
        sentence=f"{{rows}} expire{{s}} {within(reading.ahead)}, the first {{detail}}.",
        fix="A key is not renewed: create another, put it where this one is used, then revoke this one.",
        detail=lambda rows, now: age(min(expiry_of(row) or now for row in rows), now),
        cells=_expiry,
        at=expiry_of,
    )
    return [
        replace(each, rows=sorted(each.rows, key=lambda row: row.at or reading.now)) for each in check.find(reading)
    ]


KEY_CHECKS = (
    RowCheck(
        "keys with full access",
        "API keys",
        Severity.MEDIUM,
        "API key",
        _has_full_access,
        sentence="{rows} {has} Full access.",
        fix="Replace {it} where less is enough.",
    ),
    RowCheck(
        "expired keys",
        "API keys",
        Severity.LOW,
        "API key",
        lambda row, now: expires_within(row, now, timedelta()),
        sentence="{rows} {has} expired.",
        fix="Revoke {it}.",
        cells=_expiry,
    ),
    RowCheck(
        "unused keys",
        "API keys",
        Severity.LOW,
        "API key",
        lambda row, now: _is_usable(row, now) and is_unused(row) is True and _is_older(row, now),
        sentence="{rows} {has} never been used.",
        fix="Revoke {it} if nobody needs {it}.",
    ),
)

UNANSWERED_INVITATIONS = RowCheck(
    "unanswered invitations",
    "users",
    Severity.LOW,
    "invitation",
    lambda row, now: word(row, "status") in ("invited", "pending") and _is_older(row, now),
    sentence="{rows} {has} not been accepted for over a week.",
    fix="Invite them again.",
    label=_person,
)

_ADMINISTRATORS = RowCheck(
    "administrators",
    ALL_USERS,
    Severity.LOW,
    "administrator",
    lambda row, _: word(row, "role.name", "role") in ("owner", "admin"),
    sentence="{rows}: people with the role Owner or Admin. See list_users for the others.",
    label=_person,
    cells=lambda row, _: {"role": text(row, "role.name", "role")},
)


def administrators(reading: Reading) -> Sequence[Finding]:
    """Report the administrators, if the answer is about access."""
    return () if reading.is_whole else _ADMINISTRATORS.find(reading)


PENDING_CUSTOMERS = RowCheck(
    "customers that wait",
    "customers",
    Severity.MEDIUM,
    "customer",
    lambda row, _: is_pending(row),
    sentence="{rows} wait{s} for activation by {its} admin: nothing runs for {it} until then.",
    problem=lambda _, __: "waits for activation by its admin: nothing runs for it until then",
)


def full_quotas(quotas: Sequence[Quota], now: datetime) -> list[Finding]:
    """Report the quotas that are nearly used up, given the fullest first."""
    near = [quota for quota in quotas if quota.percent >= NEAR_LIMIT_PERCENT]
    if not near:
        return []
    severity = Severity.HIGH if is_used_up(near[0]) else Severity.MEDIUM
    is_ = "is" if len(near) == 1 else "are"
    named = listed([str(quota) for quota in near])
    what = f"{counted(len(near), 'quota')} {is_} at {NEAR_LIMIT_PERCENT} % or more: {named}."
    return [Finding(severity, what, MORE_QUOTA, rows=[TableRow(quota.data(now)) for quota in near])]


def is_used_up(quota: Quota) -> bool:
    return quota.percent >= 100
