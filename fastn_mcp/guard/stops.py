"""Stops: what they refuse, and how people order and lift them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent, LogEntry
from fastn_mcp.errors import Refused, Stopped
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.identity import without_issuers
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import EVERYBODY, Stop
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.formats import age, aged, sentence
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.runtime import System

_MAX_SEARCHED = 1_000
"""Number of the newest decided requests among which unused approvals are looked for. The others are void without it."""

MAX_SENDING = 3_660.0
"""Seconds after which a change that was begun cannot be under way any more: a call to the AI may take an hour."""


class Stops:
    """Refuses what a stop forbids."""

    def __init__(self, ledger: Ledger, system: System) -> None:
        self.ledger = ledger
        self._system = system

    async def check(self, asker: Asker, epoch: int | None = None, *others: Asker) -> int:
        """Return the epoch of the stops that concern a caller, which an approval asked for now outlives.

        With the `epoch` at which an approval was asked for, raise `Refused` if a stop was ordered since: the approval
        is void, also if the stop was lifted. No clocks are compared. `others` are the callers who asked for it. Raises
        `Stopped` if a stop holds, and a `Refused` if the ledger cannot be read.
        """
        now = 0
        for stop in _concerning(await self.ledger.stops(), asker, others):
            if stop.lifted is None:
                raise stopped(stop, self._system.now())
            now = max(now, stop.epoch)
        if epoch is not None and now > epoch:
            raise Refused(
                "Its approval is void, since changes were stopped after it was requested.",
                "Call again for a new approval request.",
            )
        return now

    async def has_voided(self, asker: Asker, epoch: int, *others: Asker) -> bool:
        """Return whether a stop made an approval void, as in `check`."""
        return any(stop.epoch > epoch for stop in _concerning(await self.ledger.stops(), asker, others))

    async def holding(self, askers: Collection[Asker]) -> set[Asker]:
        """Return the callers whose changes are stopped now."""
        holds = await self.ledger.holding()
        return {asker for asker in askers if any(stop.covers(asker) for stop in holds)}

    async def facts(self, asker: Asker) -> dict[str, JsonValue] | None:
        """Return the stop that holds for a caller, for an answer to read; None if there is none."""
        holds = [stop for stop in await self.ledger.holding() if stop.covers(asker)]
        return facts(holds[0], self._system.now()) if holds else None


def _concerning(stops: Iterable[Stop], asker: Asker, others: Iterable[Asker]) -> Iterator[Stop]:
    """Yield the stops that cover a caller or name one of the others, stops in force first."""
    for stop in sorted(stops, key=lambda stop: stop.lifted is not None):
        if stop.covers(asker) or any(map(stop.names, others)):
            yield stop


def facts(stop: Stop, now: datetime) -> dict[str, JsonValue]:
    """Return since when, by whom and why changes are stopped."""
    since = aged(datetime.fromtimestamp(stop.at, UTC), now)
    reason: dict[str, JsonValue] = {"reason": sanitize(stop.reason)} if stop.reason else {}
    return {"since": since, "by": sanitize(without_issuers(stop.by)), "covers": sanitize(stop.whom), **reason}


def stopped_changes(whom: str) -> str:
    """Return the subject of a sentence about a stop, by whose changes it stops (`Stop.whom`)."""
    return "All changes" if whom == EVERYBODY else f"Changes of {whom}"


def in_words(stop: Stop, now: datetime) -> str:
    """Return a sentence that says what is stopped, since when, by whom and why."""
    parts = facts(stop, now)
    at = datetime.fromtimestamp(stop.at, UTC)
    day = "" if at.date() == now.astimezone(UTC).date() else f"{at:%Y-%m-%d} "
    reason = f" Reason: {quote(stop.reason)}." if stop.reason else ""
    by = str(parts["by"])
    who = sentence(by) if by.startswith("a person") else by
    changes = stopped_changes(sanitize(stop.whom))
    what = "all changes" if stop.whom == EVERYBODY else f"the c{changes[1:]}"
    return f"{who} stopped {what} at {day}{at:%H:%M} UTC ({age(at, now)}).{reason}"


STOPPED_NEXT_STEP = (
    "Reading still works. Only a person can allow changes again: report this, and do not repeat the call."
)
"""What an agent does next."""


def stopped(stop: Stop, now: datetime) -> Stopped:
    return Stopped(in_words(stop, now), STOPPED_NEXT_STEP, facts={"stop": facts(stop, now)})


def stop_entry(stop: Stop, account: str) -> LogEntry:
    """Return the audit entry of a stop, or of its end."""
    event, by = (AuditEvent.STOPPED, stop.by) if stop.lifted is None else (AuditEvent.ALLOWED_AGAIN, stop.lifted_by)
    entry = LogEntry(event, by, account, "stop", target=stop.whom, grant=stop.id)
    return replace(entry, message=stop.reason or None)


async def void_approvals(
    ledger: Ledger, stop: Stop, now: float, record: Callable[[AuditEvent, ApprovalRequest, str | None], None]
) -> "Counter[str]":
    """End what a stop voids in a ledger, and count it by kind, for example "waiting call". Each request is recorded.

    While it holds, no request is opened that it names. It only makes the end visible at once: the guard refuses by
    the epoch of the stop.
    """
    ended = Counter[str]()
    for request in (*await ledger.waiting(now), *await ledger.decided(_MAX_SEARCHED)):
        if request.is_over or not stop.names(request.asker):
            continue
        reason = stop.reason or None
        voided = await ledger.void(request.id, RequestState.STOPPED, now, by=stop.by, note=reason)
        if voided:
            record(AuditEvent.STOPPED, voided, reason)
            ended["waiting call" if request.state is RequestState.OPEN else "unused approval"] += 1
    for approval in await ledger.temporary_approvals(now):
        if stop.names(approval.asker):
            ended["temporary approval"] += await ledger.revoke_temporary(approval.id) is not None
    return ended
