"""Change journal: the state before a call and the call's outcome, without secrets.

While a non-idempotent call is unsettled, repeating it needs approval, or is refused in the mode `unattended`. A call is
unsettled if its outcome is unknown or its response has not reached the client. A change is written before its request
is sent and settled once the response was delivered: cancelled calls, killed processes and power loss are covered.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import anyio

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.client.cost import received
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.undo import without_secrets
from fastn_mcp.ledger.change import MADE_OUTCOMES, NEVER_REPEATED, PERHAPS_MADE, Change
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult, UsageRate
from fastn_mcp.ledger.identity import without_issuers
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.records.formats import age, counted
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System, work_on
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.related_reads import kind_of

log = logging.getLogger(__name__)

UNSETTLED = 600.0
"""Seconds for which repeating a call needs approval after its outcome or its response was lost."""

_RECENT_SECONDS = 86_400.0
"""Seconds for which people are told what this server did to a record."""

_RECENT_CHANGES = 100
"""Number of the newest changes among which a record's changes are looked for."""

IDEMPOTENT = ("GET", "PUT", "DELETE")

DISCONNECT_GRACE = 0.5
"""Seconds to wait for a disconnect to be noticed: the client's retry may arrive before its old connection closes."""

MAX_DELIVERY_WAIT = 2.0
"""Maximum seconds to wait until it is known whether a response was received: the time until a transport takes it for
received, and what a busy machine may take."""


class Delivery(Protocol):
    """Delivery of the response to one request, over a transport that can tell whether it was received."""

    def on_received(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Have `settle` called once the client has received the response."""
        ...

    async def decided(self) -> None:
        """Wait until it is known whether the client received the response."""
        ...


class ChangeJournal:
    """Journals the changes on one account; `account` is its name in the journal.

    `begins`: the Unix time at which the account began, if it is a sandbox that each process begins anew. Changes
    before it are of another sandbox.
    """

    def __init__(self, ledger: Ledger, account: str, system: System, begins: float = 0.0) -> None:
        self._ledger = ledger
        self.account = account
        self._system = system
        self._begins = begins
        self._sending: dict[str, tuple[str, anyio.Event]] = {}
        """By change id: the digest of its call, and an event that is set when sending ends."""
        self._claims: dict[str, str] = {}
        """By change id, while it is sent: the change that it undoes."""
        self._lost: dict[str, float] = {}
        """By digest of a call: until when it is unsettled. Kept in memory too, since writing to the ledger may fail."""
        self._deliveries = WeakValueDictionary[str, Delivery]()
        """By change id, while its request is being answered."""

    async def unsettled(self, call: Call, digest: str, list_id: str = "") -> str | None:
        """Return why repeating `call` needs approval: an earlier one was or may have been made. None if it does not.

        An earlier call does not count while this process is sending it, or if it is of the list `list_id`.
        """
        if call.route.method in IDEMPOTENT:
            return None
        with anyio.move_on_after(DISCONNECT_GRACE):
            for ended in [ended for of, ended in self._sending.values() if of == digest]:
                await ended.wait()
        if self._lost.get(digest, 0.0) > self._system.timestamp():
            return _UNKNOWN
        open_ = await self._unsettled(digest, list_id)
        # The last response may still be in transit: wait to learn whether it arrived. Of one that another process has
        # written it is known after DISCONNECT_GRACE.
        wait = max(open_.values(), default=0.0) - UNSETTLED + DISCONNECT_GRACE - self._system.timestamp()
        known = [self._deliveries.get(id_) for id_ in open_]
        here = [delivery for delivery in known if delivery is not None]
        if here:
            with anyio.move_on_after(MAX_DELIVERY_WAIT):
                for delivery in here:
                    await delivery.decided()
        elif wait > 0:
            await self._system.sleep(min(wait, DISCONNECT_GRACE))
        if here or wait > 0:
            open_ = {id_: until for id_, until in (await self._unsettled(digest, list_id)).items() if id_ in open_}
        if not open_:
            return None
        last = await self._ledger.change(self.account, max(open_, key=lambda id_: open_[id_]))
        if last is None or last.outcome not in MADE_OUTCOMES:
            return _UNKNOWN
        what = f"{last.id}, {quote(last.target)}" if last.target else last.id
        ago = counted(max(0, round(self._system.timestamp() - last.at)), "second")
        return f"The same call was made {ago} ago and was done ({what}); you may not have received the response."

    async def _unsettled(self, digest: str, list_id: str) -> dict[str, float]:
        sending = set(self._sending)
        unsettled = await self._ledger.unsettled(digest, self._system.timestamp())
        own = {each.id for each in await self._ledger.changes_of(list_id)} if list_id and unsettled else set[str]()
        return {id_: until for id_, until in unsettled.items() if id_ not in own | sending | self._sending.keys()}

    async def changes(self, limit: int, before: float) -> list[Change]:
        """Return changes that began before a Unix time, newest first."""
        return [each for each in await self._ledger.changes(self.account, limit, before) if each.at >= self._begins]

    async def change(self, id_: str) -> Change | None:
        """Return the change with this id."""
        change = await self._ledger.change(self.account, id_)
        return None if change is None or change.at < self._begins else change

    async def changes_of(self, list_id: str) -> list[Change]:
        """Return the changes of a list."""
        return [each for each in await self._ledger.changes_of(list_id) if each.at >= self._begins]

    async def history(self, resolved: ResolvedCall) -> tuple[tuple[str, str], ...]:
        """Return what this server did lately to the records of a call: a heading and a sentence each, newest first.

        Of several changes of one field, the oldest: what it was before all of them.
        """
        records = set(resolved.references)
        if not records:
            return ()
        now = self._system.now()
        try:
            changes = await self._ledger.recent_changes(self.account, _RECENT_CHANGES)
        except Exception:
            log.exception("the journal could not be read")
            return (("Not checked", "recent changes by this server"),)
        oldest = now.timestamp() - _RECENT_SECONDS
        recent = [
            each for each in changes if each.outcome in NEVER_REPEATED and each.at > oldest and each.at >= self._begins
        ]
        facts: dict[tuple[str | None, str], tuple[str, str]] = {}
        if len(recent) == _RECENT_CHANGES:
            unread = f"changes by this server before its last {_RECENT_CHANGES}"
            facts[None, ""] = "Not checked", unread
        for change in recent:
            facts |= {(change.target, heading): (heading, fact) for heading, fact in recent_facts(change, records, now)}
        return tuple(facts.values())

    async def begin(
        self,
        change: Change,
        *,
        undoes: Change | None = None,
        limits: Sequence[BudgetLimit] = (),
        rate: UsageRate | None = None,
        approval_id: str = "",
        temporary_approval_id: str = "",
    ) -> StartResult:
        """Record a change before its call is sent, with what permits it (`Ledger.begin`). The caller must `end` it.

        If it is not begun, nothing was recorded. Raises a `FastnError` if the journal cannot be written.
        """
        self._sending[change.id] = change.repeat_id, anyio.Event()
        if undoes is not None:
            self._claims[change.id] = undoes.id
        undone = "" if undoes is None else undoes.id
        try:
            started = await self._ledger.begin(
                change,
                undoes=undone,
                limits=limits,
                rate=rate,
                approval_id=approval_id,
                temporary_approval_id=temporary_approval_id,
            )
        except BaseException as error:
            await self.end(change, "not_sent")
            if isinstance(error, FastnError) or not isinstance(error, Exception):
                raise
            log.exception("%s could not be journalled", change.tool)
            raise Refused(
                f"The journal could not be written ({type(error).__name__}).",
                "Tell the operator; the server log has the details.",
            ) from error
        if started is not StartResult.STARTED:
            self._claims.pop(change.id, None)
            self._sent(change)
        return started

    async def end(
        self, change: Change, outcome: str, result: FastnObject | None = None, delivery: Delivery | None = None
    ) -> Change:
        """Record the outcome. A failure to write it is logged, not raised, since the call may have been made.

        Without a `delivery`, the caller has the response as soon as the call returns.
        """
        returned = {} if result is None else await work_on(received(), partial(without_secrets, result))
        target = change.target or (str(returned["id"]) if isinstance(returned.get("id"), (str, int)) else None)
        delivery = delivery if outcome in MADE_OUTCOMES and change.repeat_id else None
        is_unsettled = bool(change.repeat_id) and (outcome in PERHAPS_MADE or delivery is not None)
        now = self._system.timestamp()
        claimed = self._claims.pop(change.id, None)
        ended = replace(
            change,
            outcome=outcome,
            target=target,
            sent={name: returned.get(name, value) for name, value in change.sent.items()},
            stopped_triggers=change.stopped_triggers if outcome in NEVER_REPEATED else (),
            unsettled_until=now + UNSETTLED if is_unsettled else 0.0,
        )
        if target is not None and ended.is_of_another and isinstance(name := returned.get("name"), str):
            ended = replace(ended, name=name)
        if outcome in PERHAPS_MADE:
            self._lost = {call: until for call, until in self._lost.items() if until > now}
            self._lost[change.repeat_id] = ended.unsettled_until
        if delivery is not None:
            delivery.on_received(partial(self._settle, ended))
            self._deliveries[ended.id] = delivery
        try:
            with anyio.CancelScope(shield=True):
                await self._ledger.settle(ended)
                if outcome not in NEVER_REPEATED and claimed is not None:
                    await self._ledger.release(claimed)
        except Exception:
            log.exception("the outcome %s of %s could not be journalled", outcome, change.tool)
        finally:
            self._sent(change)
        return ended

    async def _settle(self, change: Change) -> None:
        """Record that the client has the response, so that a repeated call is a new one."""
        try:
            await self._ledger.settle(replace(change, unsettled_until=0.0))
        except Exception:
            log.exception("the delivery of %s could not be journalled", change.id)

    def _sent(self, change: Change) -> None:
        _, ended = self._sending.pop(change.id)
        ended.set()


_UNKNOWN = "The same call was made a few minutes ago, and its outcome is not known: it may have happened."


def recent_facts(change: Change, records: Collection[tuple[str, str]], now: datetime) -> Iterator[tuple[str, str]]:
    """Yield what a change did to one of these records that people recognise it by or that receives credentials."""
    operation = OPERATIONS.get(change.tool)
    if operation is None or (kind_of(operation), change.target) not in records:
        return
    what = kind_of(operation).replace("_", " ")
    when = age(datetime.fromtimestamp(change.at, UTC), now)
    if change.is_state_dropped:
        yield "Not checked", f"a change of the {what} by this server {when}, whose details are no longer kept"
        return
    if (change.before is None or change.is_of_another) and operation.route.method == "POST":
        yield "Created", f"{what} {quote(change.name or change.target)} by this server {when}"
        return
    by = f" by {quote(without_issuers(change.principal))}" if "|" in change.principal else ""
    for name, (heading, it_was) in RECENT.items():
        before = (change.before or {}).get(name)
        after = change.sent.get(name)
        if after is not None and before != after:
            was = "not set" if before is None else quote(before)
            perhaps = "" if change.outcome in MADE_OUTCOMES else "perhaps "
            yield heading, f"{perhaps}{when}{by}, {it_was} {was}"


RECENT = {
    "name": ("Renamed", "it was called"),
    "slug": ("Slug changed", "it was"),
    "domain": ("Address changed", "it was"),
    "authMethods": ("Sign-in changed", "it was"),
    "routes": ("Routes changed", "they were"),
    "adminEmail": ("Administrator changed", "it was"),
}
"""Fields by which people recognise a record, that receive something, or that decide what a trigger starts: a heading,
and how the earlier value is told."""
