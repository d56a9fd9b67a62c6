"""Checks that report problems of an account. A row with a missing field is never reported for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from pydantic import JsonValue

from fastn_mcp.procedures.diagnosis.blockers import failures_in_a_row, is_public, listed, trigger_states
from fastn_mcp.procedures.overview.table import Cells, TableRow, unread_names
from fastn_mcp.records.formats import counted, date_age, dated, sentence
from fastn_mcp.records.labels import label_of, name_of
from fastn_mcp.records.quotas import Quota
from fastn_mcp.records.rows import Row, key_of, owner_of, short, started_workflows, text, timestamp, word
from fastn_mcp.records.states import (
    State,
    is_pending,
    is_unused,
    switched_off,
    trigger_state,
    workflow_state,
)
from fastn_mcp.tools.access import EXPIRY_FIELDS
from fastn_mcp.tools.paging import created
from fastn_mcp.tools.triggers import PROBLEMS

EXPIRY_NOTICE = timedelta(days=14)
"""Time before its expiry in which a key is reported."""

UNUSED_AFTER = timedelta(days=7)
"""Time until an unused key, or an invitation that was not accepted, is reported."""

NEAR_LIMIT_PERCENT = 80
"""Usage in percent from which a limit is reported."""


class Severity(Enum):
    """Severity of a finding, highest first."""

    HIGH = "high"
    """Something is broken."""
    MEDIUM = "medium"
    """Something will stop working, or gives access to the wrong people."""
    LOW = "low"
    """Something to tidy up."""


@dataclass(frozen=True, slots=True)
class AccountFinding:
    """One problem: `what` is a sentence with numbers."""

    severity: Severity
    what: str
    rows: Sequence[TableRow] = ()
    """All resources concerned, in a stated order."""
    shown: Sequence[TableRow] = ()
    """Those that the finding itself shows; the table has the others."""
    more: JsonValue = None
    """Call that shows all of them, if there are more."""

    def data(self, names: Mapping[str, str]) -> JsonValue:
        """Return the finding as JSON. `names` are names of customers."""
        entry: Cells = {"severity": self.severity.value, "what": self.what}
        entry |= {"rows": [row.named(names) for row in self.shown]} if self.shown else {}
        return entry | ({"of": len(self.rows), "more": self.more} if self.more else {})


_ONE = {"is_": "is", "was": "was", "has": "has", "its": "its", "s": "s"}
_MANY = {"is_": "are", "was": "were", "has": "have", "its": "their", "s": ""}
"""Words of a finding on one row, and on several."""


@dataclass(frozen=True, slots=True)
class FindingCheck:
    """A problem that rows can have: whether a row has it, and the sentence about the rows that do.

    In `sentence`, `{rows}` is the number of rows with the noun, and `{detail}` what `detail` returns for the rows. The
    words of `_ONE` are replaced by words of `_MANY` if there are several rows.
    """

    severity: Severity
    noun: str
    applies: Callable[[Row, datetime], bool]
    sentence: str
    detail: Callable[[Sequence[Row], datetime], str] | None = None
    name: Callable[[Row], str] = name_of
    cells: Callable[[Row, datetime], Cells] = lambda _, __: {}
    """Further cells of a row."""
    at: Callable[[Row], datetime | None] = created
    """What rows are ordered by in time."""

    def findings(
        self, rows: Iterable[Row], now: datetime, *, total: int | None = None, more: bool = False
    ) -> list[AccountFinding]:
        """Return a finding if the check applies to any row. `total`: Fastn's count; `more`: some rows were not read."""
        affected = [row for row in rows if self.applies(row, now)]
        if not affected:
            return []
        resources = [self._resource(row, now) for row in affected if key_of(row)]
        count = counted(total or len(affected), self.noun, at_least=more and total is None)
        detail = self.detail(affected, now) if self.detail else ""
        words = _ONE if (total or len(affected)) == 1 else _MANY
        what = self.sentence.format(rows=count, detail=detail, **words)
        return [AccountFinding(self.severity, sentence(what), resources)]

    def _resource(self, row: Row, now: datetime) -> TableRow:
        cells = {"id": key_of(row), "name": self.name(row)} | self.cells(row, now)
        return TableRow(cells, at=self.at(row), customer=owner_of(row))


def _most_failures(triggers: Sequence[Row]) -> str:
    """Return the most consecutive failures of a trigger; empty if there are none."""
    failures = max(map(failures_in_a_row, triggers))
    return f"{'' if len(triggers) == 1 else 'up to '}{counted(failures, 'failure')} in a row" if failures else ""


def _stopped(triggers: Sequence[Row], _: datetime) -> str:
    probably = "probably " if switched_off(triggers[0]).is_presumed else ""
    failures = _most_failures(triggers)
    return f"{probably}switched off by Fastn{failures and f' after {failures}'}"


def _subscriptions(triggers: Sequence[Row], _: datetime) -> str:
    statuses = ", ".join(sorted({text(row, "subscriptionStatus") for row in triggers}))[:60]
    is_one = len(triggers) == 1
    if statuses.upper() == "FAILED":
        return "subscription at the app has failed" if is_one else "subscriptions at the apps have failed"
    return f"subscription at the app is {statuses}" if is_one else f"subscriptions at the apps are {statuses}"


TRIGGER_CHECKS = (
    FindingCheck(
        Severity.HIGH,
        "trigger",
        lambda row, _: PROBLEMS["broken"](row),
        sentence="{rows} {is_} on but never fire{s}: {its} {detail}.",
        detail=_subscriptions,
    ),
    FindingCheck(
        Severity.HIGH,
        "trigger",
        lambda row, _: PROBLEMS["stopped"](row),
        sentence="{rows} {was} {detail}.",
        detail=_stopped,
    ),
    FindingCheck(
        Severity.MEDIUM,
        "trigger",
        lambda row, _: PROBLEMS["failing"](row),
        sentence="{rows} {has} had {detail}.",
        detail=lambda rows, _: _most_failures(rows),
    ),
    FindingCheck(
        Severity.MEDIUM,
        "webhook",
        lambda row, _: trigger_state(row) is not State.OFF and is_public(row),
        "Anybody can call {rows}: {its} authentication is NONE.",
    ),
)

UNPUBLISHED = FindingCheck(
    Severity.HIGH,
    "workflow",
    lambda row, _: workflow_state(row) is State.DRAFT,
    f"Triggers start {{rows}} that {{was}} {State.DRAFT.value}, so nothing runs.",
)


def trigger_findings(triggers: Sequence[Row], workflows: Sequence[Row], now: datetime) -> list[AccountFinding]:
    """Report problems of triggers, and drafts that triggers start. Disabled triggers start nothing."""
    started = {key for row in triggers if trigger_state(row) is not State.OFF for key in started_workflows(row)}
    drafts = UNPUBLISHED.findings((row for row in workflows if key_of(row) in started), now)
    names = {key_of(row): name_of(row) for row in workflows}

    def cells(row: Row, now: datetime) -> Cells:
        (trigger,) = trigger_states([row], now, unread_names([row]))
        starts = listed([names.get(key, key) for key in started_workflows(row)], 2)
        why = "" if trigger.state is State.BROKEN else trigger.problem.partition(";")[0]  # the finding itself says it
        return {"customer": trigger.customer and trigger.owner, "starts": starts, "why": why}

    checks = [replace(check, cells=cells) for check in TRIGGER_CHECKS]
    return [*(finding for check in checks for finding in check.findings(triggers, now)), *drafts]


def expires_within(key: Row, now: datetime, time: timedelta) -> bool:
    """Whether a key that is not revoked, or a connection, expires in this time, or has expired."""
    at = timestamp(key, *EXPIRY_FIELDS)
    return not _is_ended(key) and at is not None and at <= now + time


def _expiry(row: Row, now: datetime) -> Cells:
    at = timestamp(row, *EXPIRY_FIELDS)
    return {"expires": dated(at, now)} if at else {}


def _is_usable(key: Row, now: datetime) -> bool:
    return not _is_ended(key) and not expires_within(key, now, timedelta())


def _is_ended(key: Row) -> bool:
    return word(key, "status") in ("revoked", "expired", "disabled")


def _is_older(row: Row, now: datetime) -> bool:
    created = timestamp(row, "createdAt", "addedAt", "invitedAt")
    return created is not None and created < now - UNUSED_AFTER


def expiring_keys(keys: Iterable[Row], now: datetime, time: timedelta = EXPIRY_NOTICE) -> list[AccountFinding]:
    """Report the keys that expire in this time, the first first."""
    check = FindingCheck(
        Severity.MEDIUM,
        "API key",
        lambda row, now: _is_usable(row, now) and expires_within(row, now, time),
        sentence=(
            f"{{rows}} expire{{s}} {within(time)}, the first {{detail}}. A key is not renewed: create another, put it "
            "where this one is used, then revoke this one."
        ),
        detail=lambda rows, now: date_age(min(timestamp(row, *EXPIRY_FIELDS) or now for row in rows), now),
        cells=_expiry,
        at=lambda row: timestamp(row, *EXPIRY_FIELDS),
    )
    return check.findings(sorted(keys, key=lambda row: timestamp(row, *EXPIRY_FIELDS) or now), now)


def within(time: timedelta) -> str:
    """Return a time in words: `within two weeks`, `within 30 days`."""
    hours = round(time.total_seconds() / 3600)
    words = counted(hours // 24, "day") if hours % 24 == 0 else counted(hours, "hour")
    return f"within {'two weeks' if time == EXPIRY_NOTICE else words}"


KEY_CHECKS = (
    FindingCheck(
        Severity.MEDIUM,
        "API key",
        lambda row, now: (
            _is_usable(row, now) and word(row, "permissions.preset", "permissions", "preset") == "full access"
        ),
        "{rows} {has} Full access.",
    ),
    FindingCheck(
        Severity.LOW,
        "API key",
        lambda row, now: expires_within(row, now, timedelta()),
        "{rows} {has} expired.",
        cells=_expiry,
    ),
    FindingCheck(
        Severity.LOW,
        "API key",
        lambda row, now: _is_usable(row, now) and is_unused(row) is True and _is_older(row, now),
        "{rows} {has} never been used and could be revoked.",
    ),
)

UNANSWERED_INVITATIONS = FindingCheck(
    Severity.LOW,
    "invitation",
    lambda row, now: word(row, "status") in ("invited", "pending") and _is_older(row, now),
    "{rows} {has} not been accepted for over a week.",
    name=lambda row: short(str(label_of("user", row) or key_of(row))),
)

ADMINISTRATORS = FindingCheck(
    Severity.LOW,
    "administrator",
    lambda row, _: word(row, "role.name", "role") in ("owner", "admin"),
    "{rows}: people with the role Owner or Admin. See list_users for the others.",
    name=lambda row: short(str(label_of("user", row) or key_of(row))),
    cells=lambda row, _: {"role": text(row, "role.name", "role")},
)

PENDING_CUSTOMERS = FindingCheck(
    Severity.MEDIUM,
    "customer",
    lambda row, _: is_pending(row),
    "{rows} wait{s} for activation by the admin; nothing runs there yet.",
)


def full_quotas(quotas: Sequence[Quota], now: datetime) -> list[AccountFinding]:
    """Report the quotas that are nearly used up, the fullest first."""
    near = [quota for quota in quotas if quota.percent >= NEAR_LIMIT_PERCENT]
    if not near:
        return []
    severity = Severity.HIGH if near[0].percent >= 100 else Severity.MEDIUM
    count = counted(len(near), "quota")
    is_ = "is" if len(near) == 1 else "are"
    what = f"{count} {is_} at {NEAR_LIMIT_PERCENT} % or more: {listed([str(quota) for quota in near])}."
    return [AccountFinding(severity, what, [TableRow(quota.data(now)) for quota in near])]
