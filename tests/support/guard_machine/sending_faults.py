"""Faults in how a change is begun, recorded, stopped, sent and told."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import pytest

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.client import client
from fastn_mcp.client.client import FastnClient
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.permission import Permission, Permissions
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.guard.result import ListResult
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger import change_start
from fastn_mcp.ledger.change import BEGUN, Change
from fastn_mcp.ledger.change_start import Begun, BudgetLimit, ChangeStart
from fastn_mcp.ledger.documents import Documents, Unreadable, loaded
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.store import Write
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures import apply_changes, undo_change
from support.guard_machine.planting import always, always_async

Record = TypeVar("Record")

# --- recording -----------------------------------------------------------------------------------------------------


def journal_after_send(patch: pytest.MonkeyPatch) -> None:
    """A change is stored once its outcome is known."""
    begin = Ledger.begin
    settle = Ledger.settle
    late = dict[str, Mapping[str, Any]]()

    async def begin_later(self: Ledger, change: Change, **permits: Any) -> Begun:  # noqa: ARG001
        late[change.id] = permits
        return Begun.YES

    async def begin_and_settle(self: Ledger, change: Change) -> None:
        if change.id in late:
            await begin(self, change, **late.pop(change.id))
        await settle(self, change)

    patch.setattr(Ledger, "begin", begin_later)
    patch.setattr(Ledger, "settle", begin_and_settle)


def journal_after_log(patch: pytest.MonkeyPatch) -> None:
    """The intent is logged before the change is stored."""
    new_change = Guard._new_change  # pyright: ignore[reportPrivateUsage]
    intent = Recorder.intent
    logged = dict[str, str | None]()

    async def logged_change(self: Guard, current: Any, evaluation: Any, grant: Any, made: Any, asker: Asker) -> Change:
        change = await new_change(self, current, evaluation, grant, made, asker)
        logged[change.id] = intent(self._recorder, current, change, asker)  # pyright: ignore[reportPrivateUsage]
        return change

    def logged_before(self: Recorder, current: Any, change: Change, asker: Asker) -> str | None:  # noqa: ARG001
        return logged.pop(change.id)

    patch.setattr(Guard, "_new_change", logged_change)
    patch.setattr(Recorder, "intent", logged_before)


def intent_is_not_logged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "intent", always("0"))


def log_is_not_chained_over_processes(patch: pytest.MonkeyPatch) -> None:
    """A process continues the log after its own last entry, whatever others have written since."""
    read = AuditFile._read  # pyright: ignore[reportPrivateUsage]

    def read_once(self: AuditFile, file: int, size: int) -> str | None:
        has_own = self._end.n > 0  # pyright: ignore[reportPrivateUsage]
        return None if has_own else read(self, file, size)

    patch.setattr(AuditFile, "_read", read_once)


# --- stops ---------------------------------------------------------------------------------------------------------


def stop_epoch_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A stop that was lifted voids nothing."""
    check = Stops.check

    async def of_now(self: Stops, asker: Asker, epoch: int | None = None, *others: Asker) -> int:  # noqa: ARG001
        return await check(self, asker)

    patch.setattr(Stops, "check", of_now)
    patch.setattr(Stops, "has_voided", always_async(False))


def stops_are_compared_by_clocks(patch: pytest.MonkeyPatch) -> None:
    """A stop voids the approvals that are older than it, by the clocks of whoever asked and whoever stopped."""

    async def by_clocks(self: Permissions, permission: Permission, asker: Asker) -> int:
        stops = self._stops  # pyright: ignore[reportPrivateUsage]
        epoch = await stops.check(asker)
        approved = permission.request or permission.given_by
        if approved is not None and any(stop.at >= approved.created for stop in await stops.ledger.stops()):
            raise Refused("A stop is newer than the approval.")
        return epoch

    patch.setattr(Permissions, "check_stops", by_clocks)
    patch.setattr(Stops, "has_voided", always_async(False))


def stops_are_not_read_before_the_send(patch: pytest.MonkeyPatch) -> None:
    """Stops are read when a call is judged, and not again before its request leaves."""
    check = Stops.check

    async def once(self: Stops, asker: Asker, epoch: int | None = None, *others: Asker) -> int:
        is_last_look = epoch is not None and not others
        return 0 if is_last_look else await check(self, asker, epoch, *others)

    patch.setattr(Stops, "check", once)


def unreadable_stop_is_none(patch: pytest.MonkeyPatch) -> None:
    """If the stops cannot be read, nothing is stopped."""
    check = Stops.check

    async def lenient(self: Stops, asker: Asker, epoch: int | None = None, *others: Asker) -> int:
        try:
            await self.ledger.stops()
        except FastnError:
            return 0
        return await check(self, asker, epoch, *others)

    patch.setattr(Stops, "check", lenient)
    patch.setattr(Stops, "has_voided", always_async(False))


# --- what cannot be stored or read ---------------------------------------------------------------------------------


def failed_use_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A change is sent although the store could not begin it."""
    begin = ChangeJournal.begin

    async def ignoring(self: ChangeJournal, change: Change, **permits: Any) -> Begun:
        try:
            return await begin(self, change, **permits)
        except Refused:
            self._sending[change.id] = change.repeat_id, anyio.Event()  # pyright: ignore[reportPrivateUsage]
            return Begun.YES

    patch.setattr(ChangeJournal, "begin", ignoring)


def unreadable_use_is_none(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read of uses counts as unused."""

    def lenient(record: type[Record], found: Documents, key: str) -> Record | None:
        try:
            return loaded(record, found, key)
        except Unreadable:
            return None

    patch.setattr(change_start, "loaded", lenient)


def unreadable_change_is_none(patch: pytest.MonkeyPatch) -> None:
    """A call whose earlier change cannot be read counts as never made."""
    unsettled = Ledger.unsettled

    async def lenient(self: Ledger, call: str, now: float) -> Mapping[str, float]:
        try:
            return await unsettled(self, call, now)
        except Unreadable:
            return {}

    patch.setattr(Ledger, "unsettled", lenient)


# --- limits --------------------------------------------------------------------------------------------------------


def limit_is_counted_apart(patch: pytest.MonkeyPatch) -> None:
    """A limit is compared, then counted: others may count in between."""
    begin = ChangeJournal.begin

    async def counted(
        self: ChangeJournal, change: Change, *, limits: Sequence[BudgetLimit] = (), **permits: Any
    ) -> Begun:
        ledger: Ledger = self._ledger  # pyright: ignore[reportPrivateUsage]
        for each in limits:
            if await ledger.spent(each.budget, each.period) >= each.limit:
                return Begun.NO_LIMIT
        unlimited = [replace(each, limit=1 << 31) for each in limits]
        return await begin(self, change, limits=unlimited, **permits)

    patch.setattr(ChangeJournal, "begin", counted)


def rate_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Budgets, "rate", always(None))


# --- calls that were begun, and how they are sent ------------------------------------------------------------------


def begun_call_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A call of a list that was begun and has no outcome counts as not made."""
    listed = ChangeStart._listed  # pyright: ignore[reportPrivateUsage]
    made_before = Guard._made_before  # pyright: ignore[reportPrivateUsage]

    def listed_again(self: ChangeStart, found: Documents) -> Begun | list[Write]:
        result = listed(self, found)
        return [] if result is Begun.BEFORE else result

    async def made_with_outcome(self: Guard, *args: Any) -> ListResult:
        made = await made_before(self, *args)
        for call_id, outcome in list(made.outcomes.items()):
            if isinstance(outcome, Change) and outcome.outcome == BEGUN:
                del made.outcomes[call_id]
        return made

    patch.setattr(ChangeStart, "_listed", listed_again)
    patch.setattr(Guard, "_made_before", made_with_outcome)


def begun_call_is_told_as_made(patch: pytest.MonkeyPatch) -> None:
    row_of = apply_changes._outcome_row  # pyright: ignore[reportPrivateUsage]

    def made(number: int, call: Any, outcome: Any, context: Any) -> dict[str, Any]:
        row = row_of(number, call, outcome, context)
        is_begun = isinstance(outcome, Change) and outcome.outcome == BEGUN
        return {**row, "outcome": "done"} if is_begun else row

    patch.setattr(apply_changes, "_outcome_row", made)


def begun_change_is_listed_as_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(undo_change, "BEGUN", "nothing")


def cancelled_call_is_sent(patch: pytest.MonkeyPatch) -> None:
    send = FastnClient.send

    async def shielded(self: FastnClient, *args: Any) -> Any:
        with anyio.CancelScope(shield=True):
            return await send(self, *args)

    patch.setattr(FastnClient, "send", shielded)


def scopes_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Caller, "check", always(None))


def lost_call_is_repeated(patch: pytest.MonkeyPatch) -> None:
    """A call whose outcome is unknown is not asked about."""
    patch.setattr(ChangeJournal, "unsettled", always_async(None))


def create_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A request that may have been made is sent again, also where Fastn would make it twice."""
    patch.setattr(client, "may_retry", always(True))
