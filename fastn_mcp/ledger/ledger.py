"""The ledger, on any store: what is recorded, and the steps that may change it. Each step is atomic.

A step reads documents, and writes what follows from them if no other process has changed one of them meanwhile; else it
is taken again. Times are Unix seconds. If a method raises, the call that needed it is refused.

What cannot be read never decides in favour of a call: a method that a decision needs raises `Unreadable`. Lists for
people leave it out, and the log names it.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf, nextafter
from typing import TypeVar
from weakref import WeakValueDictionary

import anyio

from fastn_mcp.errors import Refused
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, SealedSecret, Transition, Vote
from fastn_mcp.ledger.change import NEVER_REPEATED, OUTCOME_FIELDS, Change
from fastn_mcp.ledger.change_start import BudgetLimit, ChangeStart, StartResult, UsageRate
from fastn_mcp.ledger.documents import (
    DAY,
    HISTORY,
    LAYOUT,
    AuditMark,
    BudgetUse,
    CallerState,
    Documents,
    ListedCalls,
    Mark,
    RateUses,
    RequestDocuments,
    Typed,
    Unreadable,
    deletion,
    is_of,
    key_of,
    layout_write,
    listed_write,
    load,
    loaded,
    write,
)
from fastn_mcp.ledger.known_documents import KnownDocuments
from fastn_mcp.ledger.stop import Stop, StopOrders
from fastn_mcp.ledger.storage_limits import (
    MAX_DROPPED,
    SPARE_BYTES,
    JournalFull,
    RequestsFull,
    has_state,
    is_past,
    is_settled,
    stored_bytes,
    without_state,
)
from fastn_mcp.ledger.store import Document, LedgerLost, Store, Write

_log = logging.getLogger(__name__)

MAX_WAITING = 32
"""Limit of open requests of one principal on one account."""

_STOPS = key_of(StopOrders, "all")

_MAX_ATTEMPTS = 1_000
"""Number of times that a step is taken while others change the same documents. Each time, one of them succeeds."""

Record = TypeVar("Record")
Stored = TypeVar("Stored", ApprovalRequest, Change)
Result = TypeVar("Result")
Step = Callable[[Documents], tuple[Result, Sequence[Write]]]
"""Result of a step on these documents, and what it writes. It has no other effect, since it may be taken again."""


class TooManyWaiting(Refused):
    """The principal has `MAX_WAITING` open requests: more than a person can be expected to answer."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_WAITING} calls are already waiting for approval.", "Let a person decide on them first.")


class Ledger:
    """All that is stored of approvals, budgets, changes and stops, in one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known = KnownDocuments()
        self._turns = WeakValueDictionary[str, anyio.Lock]()
        """By caller: one change of a caller begins after another in this process, since all of them count there. They
        would only make each other begin again."""

    # --- steps and reads ------------------------------------------------------------------------------------------

    async def _step(
        self, keys: Iterable[str], step: Step[Result], *, new: str | None = None, is_news: bool = False
    ) -> Result:
        """Take a step on the documents of these keys, and return its result.

        It is taken first on what is known of them, which may be old: it counts only once a commit has confirmed that.
        `new` is a key that is probably free. Raises `NewerLayout`.
        """
        keys = [*keys, LAYOUT]
        documents = self._known.recall(keys, new)
        is_confirmed = False
        for _ in range(_MAX_ATTEMPTS):
            if documents is None:
                documents = await self._read(keys)
                is_confirmed = True
            try:
                layout = layout_write(documents.get(LAYOUT))
                result, writes = step(documents)
            except Exception:
                if is_confirmed:
                    raise
                documents = None
                continue
            if writes:
                writes = [*writes, layout] if layout else writes
                documents = await self._commit(keys, documents, writes, is_news=is_news)
                is_confirmed = True
                if documents is None:
                    return result
            elif is_confirmed:
                return result
            else:
                documents = None
        raise LedgerLost("other processes keep changing the same records")

    async def _read(self, keys: Collection[str]) -> Documents:
        documents = await self.store.read(keys)
        self._known.note(keys, documents)
        return documents

    async def _commit(
        self, keys: Collection[str], documents: Documents, writes: Sequence[Write], *, is_news: bool
    ) -> Documents | None:
        """Return None if it was written, or else the documents as they are."""
        expected = {key: documents[key].version if key in documents else 0 for key in keys}
        try:
            commit = await self.store.commit(expected, writes, is_news=is_news)
        except BaseException:
            self._known.clear()  # it may have been written, or the store may be another one after a failover
            raise
        if not commit.version:
            self._known.note(keys, commit.found)
            return commit.found
        made = {each.key: Document(each.key, each.value, commit.version) for each in writes if each.value is not None}
        self._known.note([each.key for each in writes], made)
        return None

    async def _one(self, record: type[Record], *id_: str) -> Record | None:
        """Return a record; None if there is none. Raises `Unreadable`."""
        key = key_of(record, *id_)
        return loaded(record, await self._read([key]), key)

    async def _all(
        self,
        record: type[Record],
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Record]:
        """Return the records of some indexes, for a decision. Raises `Unreadable`."""
        documents = await self.store.scan(indexes, low, high, newest=newest, limit=limit)
        self._known.note([each.key for each in documents], {each.key: each for each in documents})
        return [load(record, each) for each in documents]

    # --- approval requests, with the votes and declines of people -------------------------------------------------

    async def open(self, request: ApprovalRequest) -> str:
        """Record a request, and return its id.

        If it is out of band and the same request is open already, return the id of that one and record nothing, so
        that concurrent replicas open one request. Raises `TooManyWaiting`, or `RequestsFull` (`storage_limits`) if the
        caller's requests take too much; the oldest past decisions of the caller are deleted to stay below that.
        """
        key = key_of(ApprovalRequest, request.id)
        caller_key = key_of(CallerState, request.holder)

        def step(documents: Documents) -> tuple[str, Sequence[Write]]:
            if key in documents:
                raise ValueError("a request of this id already exists")
            caller = (loaded(CallerState, documents, caller_key) or CallerState()).unexpired(request.created)
            same = caller.same_as(request)
            if same is not None:
                return same, ()
            if len(caller.open) >= MAX_WAITING:
                raise TooManyWaiting
            stored = write(request, request.id)
            after = caller.opened(request, stored.value)
            after.check_requests(request.created)
            return request.id, (stored, write(after, request.holder))

        while True:
            try:
                opened = await self._step([key, caller_key], step, new=key)
            except RequestsFull as full:
                if full.waiting or not await self._delete_past_requests(request.holder, full.excess, request.created):
                    raise
            else:
                break
        await self.store.forget(request.created)
        return opened

    async def find(self, approval_id: str) -> ApprovalRequest | None:
        """Return the request with this id, in any state; None if there is none."""
        return await self._one(ApprovalRequest, approval_id)

    async def still_open(self, approval_ids: Collection[str]) -> set[str]:
        """Return which of these requests are open, in one read. One that cannot be read is not."""
        if not approval_ids:
            return set()
        documents = await self.store.read([key_of(ApprovalRequest, id_) for id_ in approval_ids])
        requests = _readable(ApprovalRequest, documents.values())
        return {request.id for request in requests if request.state is RequestState.OPEN}

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        """Return the request that a repeated call finds: the newest one, by `ApprovalRequest.found_order`, or None."""
        of_call = await self._all(ApprovalRequest, [f"call {call}"], now)
        usable = (request for request in of_call if request.is_found(now))
        return max(usable, key=lambda request: request.found_order, default=None)

    async def change_request(
        self, approval_id: str, transition: Transition, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        """Replace a request by the result of `transition`, atomically. None if `transition` returns None.

        In the same step, update what is counted of its caller, and store `secret` or, if the request `is_over`, delete
        all that was typed for it.
        """
        request_documents = await self._request_documents(approval_id)
        if request_documents is None:
            return None

        def step(documents: Documents) -> tuple[ApprovalRequest | None, Sequence[Write]]:
            before = loaded(ApprovalRequest, documents, request_documents.key)
            after = None if before is None else transition(before)
            if before is None or after is None:
                return None, ()
            return after, request_documents.writes(documents, before, after, secret)

        return await self._step(request_documents.keys, step, is_news=True)

    async def _request_documents(self, approval_id: str) -> RequestDocuments | None:
        """Return the documents that change with a request; None if there is none. Raises `Unreadable`."""
        key = key_of(ApprovalRequest, approval_id)
        documents = self._known.recall([key]) or await self._read([key])
        request = loaded(ApprovalRequest, documents, key)
        return None if request is None else RequestDocuments(approval_id, request.holder)

    async def expiring(self, account: str, now: float) -> list[str]:
        """Return the ids of open requests on an account that have expired. Delete what was typed and has expired."""
        over = await self.store.scan([f"open {account}", "typed"], high=now)
        typed = [Write(each.key, None, is_secret=True) for each in over if is_of(Typed, each)]
        if typed:
            await self._step([each.key for each in typed], lambda _: (None, typed))
        requests = _readable(ApprovalRequest, (each for each in over if is_of(ApprovalRequest, each)))
        return [request.id for request in requests]

    async def decide(
        self,
        request: ApprovalRequest,
        vote: Vote,
        by: str,
        note: str | None = None,
        secret: SealedSecret | None = None,
    ) -> ApprovalRequest | None:
        """Count a vote, given through the channel that `request` had when it was shown, with what was typed for it.

        Return the updated request, or None if the vote does not count: the request is not open, has expired or was
        moved to another channel, or this approver has voted already (a decline may still replace an approval). One with
        a `secret` does not count either if `request` lacks a vote, with which it was not compared.
        """

        def counted(current: ApprovalRequest) -> ApprovalRequest | None:
            if secret is not None and current.votes != request.votes:
                return None
            return current.with_vote(vote, by, note, out_of_band=request.out_of_band)

        return await self.change_request(request.id, counted, secret)

    async def void(
        self, approval_id: str, state: RequestState, now: float, *, by: str | None = None, note: str | None = None
    ) -> ApprovalRequest | None:
        """Void an open request or an approval that is not used up; None if there was nothing to void."""
        return await self.change_request(approval_id, lambda current: current.without_effect(state, now, by, note))

    async def withdraw(self, approval_id: str, vote: Vote, by: str, note: str | None = None) -> ApprovalRequest | None:
        """Take back an approval that is not used up; None if there is none. Calls that were sent stay sent."""
        return await self.change_request(approval_id, lambda current: current.withdrawn(vote, by, note))

    async def offer(self, approval_id: str, expires: float) -> ApprovalRequest | None:
        """Move a request from the form to the out-of-band channel; None if it was decided or moved before."""
        return await self.change_request(approval_id, lambda current: current.offered(expires))

    async def expire(self, account: str, now: float) -> list[ApprovalRequest]:
        """Mark expired open requests UNANSWERED as of their expiry, and return them, each to only one process."""
        ids = await self.expiring(account, now)
        ended = [await self.change_request(id_, lambda current: current.expired(now)) for id_ in ids]
        return [request for request in ended if request is not None]

    async def sealed(self, approval_id: str, approver: str, now: float) -> str | None:
        """Return what an approver typed for a request, sealed; None if nothing, or if the request is over."""
        typed = await self._one(Typed, approval_id)
        return None if typed is None or typed.expires <= now else typed.by_approver.get(approver)

    async def open_requests(self, account: str, now: float) -> list[ApprovalRequest]:
        """Return the open requests of an account that have not expired, in forms too."""
        return await self._all(ApprovalRequest, [f"open {account}"], now)

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        """Return the open out-of-band requests, oldest first."""
        waiting = _readable(ApprovalRequest, await self.store.scan(["waiting"], now))
        return sorted(waiting, key=lambda request: request.created)

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        """Return at most `limit` requests that are no longer open, newest first."""
        return _readable(ApprovalRequest, await self.store.scan(["decided"], newest=True, limit=limit))

    async def permits_of(self, holder: str, now: float) -> list[ApprovalRequest]:
        """Return the requests of a caller whose temporary approvals hold, for a decision. Raises `Unreadable`."""
        return await self._all(ApprovalRequest, [f"permits {holder}"], now)

    async def temporary_approvals(self, now: float) -> list[ApprovalRequest]:
        """Return the requests with a temporary approval that has not expired, oldest first."""
        return _readable(ApprovalRequest, await self.store.scan(["permits"], now))

    async def revoke_temporary(self, approval_id: str) -> ApprovalRequest | None:
        """End the temporary approval of a request at once; None if there is none."""
        return await self.change_request(approval_id, lambda current: current.with_permit_until(0.0))

    async def declines(self, holder: str) -> tuple[int, float]:
        """Return the number of consecutive declines of a caller, and the time of the last one."""
        caller = await self._one(CallerState, holder) or CallerState()
        return caller.declines, caller.last_decline

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        """Wait until a request may have changed, by any process, since an earlier call returned `seen`.

        Return what to pass next: at once where `seen` is empty, and after `seconds` at the latest.
        """
        return await self.store.wait(seen, seconds, sleep)

    # --- budgets: counts of what was done -------------------------------------------------------------------------

    async def spent(self, budget: str, period: str) -> int:
        """Return the uses of a budget in a period, such as a day."""
        return (await self._one(BudgetUse, budget, period) or BudgetUse()).count

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        """Return the times at which a rate budget was used within the last `seconds`, oldest first."""
        return (await self._one(RateUses, budget) or RateUses()).within(seconds, now)

    # --- marks: facts that hold until a time (a nonce was used, a key is rate limited, a session has ended) -------

    async def set_mark(self, name: str, until: float, now: float, *, unless: float) -> bool:
        """Record that something holds until `until`, atomically; False if it holds until `unless` or later already."""
        key = key_of(Mark, name)

        def step(documents: Documents) -> tuple[bool, Sequence[Write]]:
            before = loaded(Mark, documents, key)
            if before is not None and before.until >= unless:
                return False, ()
            return True, [replace(write(Mark(until), name), lifetime=max(0.0, until - now) + DAY)]

        is_set = await self._step([key], step, new=key)
        await self.store.forget(now)
        return is_set

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        """Record the use of a nonce, atomically, and keep it until `until`; False if it was used before."""
        return await self.set_mark(f"nonce {nonce}", until, now, unless=now)

    async def mark(self, name: str, until: float, now: float) -> None:
        """Record that something holds until `until`. A later time is kept."""
        await self.set_mark(name, until, now, unless=until)

    async def marked(self, name: str) -> float:
        """Return until when something holds: a past time or 0 if it does not."""
        return (await self._one(Mark, name) or Mark()).until

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        """Store the number and hash of an entry of an audit log. A greater number is kept."""
        key = key_of(AuditMark, log)

        def step(documents: Documents) -> tuple[None, Sequence[Write]]:
            before = loaded(AuditMark, documents, key)
            is_greater = before is None or before.n < n
            return None, [write(AuditMark(n, head), log)] if is_greater else ()

        await self._step([key], step)

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        """Return the stored number and hash of an audit log; None if there are none."""
        mark = await self._one(AuditMark, log)
        return None if mark is None else (mark.n, mark.head)

    # --- journal: a repeated list resumes where it stopped --------------------------------------------------------

    async def begin(
        self,
        change: Change,
        *,
        undoes: str = "",
        limits: Sequence[BudgetLimit] = (),
        rate: UsageRate | None = None,
        approval_id: str = "",
        temporary_approval_id: str = "",
    ) -> StartResult:
        """Record a change that is about to be sent, with all that permits it, in one step.

        `approval_id`: the approval that is used for its call. Its first use counts in `rate`, as does a call without
        one. `temporary_approval_id`: the request whose temporary approval still has to hold. `undoes`: the change that
        it undoes, which nothing else may undo. If this raises, the call is not sent; what it writes may have been
        written.

        States before the oldest settled changes of the caller are dropped to stay below `MAX_JOURNAL_BYTES`
        (`storage_limits`). Raises `JournalFull` if they do not make enough room.
        """
        approval = await self._request_documents(approval_id) if approval_id else None
        if approval_id and approval is None:
            return StartResult.NO_APPROVAL
        start = ChangeStart(
            change,
            undoes=undoes,
            limits=tuple(limits),
            rate=rate,
            approval=approval,
            temporary_approval=temporary_approval_id,
        )
        async with self._turns.setdefault(change.holder, anyio.Lock(fast_acquire=True)):
            result = await self._begin(start)
        await self.store.forget(change.at)
        return result

    async def _begin(self, start: ChangeStart) -> StartResult:
        """Take the step, and drop what the change leaves no room for. Raises `JournalFull`."""
        change = start.change
        is_news = start.approval is not None
        while True:
            try:
                return await self._step(start.keys, start.step, new=start.key, is_news=is_news)
            except JournalFull as full:
                if not await self._drop_states(change.holder, full.excess, change.at, kept=start.undoes):
                    raise

    async def settle(self, change: Change) -> None:
        """Update the `OUTCOME_FIELDS` that are not None."""
        if not await self._settle(change, can_count=False):
            await self._settle(change, can_count=True)

    async def _settle(self, change: Change, *, can_count: bool) -> bool:
        """Settle a change, and count its new size for its caller.

        Most outcomes change no size, and need no look at what is counted. False if this one `can_count` nothing, but
        has to: nothing was written.
        """
        key = key_of(Change, change.id)
        list_key = key_of(ListedCalls, change.list_id)
        caller_key = key_of(CallerState, change.holder)
        fields = {name: getattr(change, name) for name in OUTCOME_FIELDS}
        outcome = {name: value for name, value in fields.items() if value is not None}

        def step(documents: Documents) -> tuple[bool, Sequence[Write]]:
            before = loaded(Change, documents, key)
            if before is None:
                return True, ()
            after = replace(before, **outcome)
            if before.is_state_dropped:
                after = without_state(after)
            stored = write(after, after.id)
            writes = [stored]
            listed = loaded(ListedCalls, documents, list_key) or ListedCalls()
            if listed.newest(after.call_id) == after.id:
                writes += listed_write(after, listed)
            if stored_bytes(stored.value) != stored_bytes(documents[key].value):
                if not can_count:
                    return False, ()
                caller = loaded(CallerState, documents, caller_key) or CallerState()
                writes.append(write(caller.with_change(after, stored.value, documents[key].value), after.holder))
            return True, writes

        keys = [key, list_key] if change.list_id else [key]
        return await self._step([*keys, caller_key] if can_count else keys, step)

    async def unsettled(self, call: str, now: float) -> Mapping[str, float]:
        """Return the unsettled changes with this call digest: id to the end of the unsettled time."""
        changes = await self._all(Change, [f"unsettled {call}"], now)
        return {change.id: change.unsettled_until for change in changes}

    async def change(self, account: str, change_id: str) -> Change | None:
        """Return the change with this id on this account; None if there is none."""
        change = await self._one(Change, change_id)
        return change if change is not None and change.account == account else None

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        """Return at most `limit` changes older than `before`, newest first."""
        newest_first = await self.store.scan(
            [f"changes {account}"], high=nextafter(before, -inf), newest=True, limit=limit
        )
        return _readable(Change, newest_first)

    async def recent_changes(self, account: str, limit: int) -> list[Change]:
        """Return at most `limit` of the newest changes, newest first, for a decision that needs all of them."""
        return await self._all(Change, [f"changes {account}"], newest=True, limit=limit)

    async def changes_by(self, approval_ids: Collection[str]) -> list[Change]:
        """Return the changes that these approval requests allowed, oldest first."""
        indexes = [f"approved {id_}" for id_ in approval_ids if id_]
        changes = _readable(Change, await self.store.scan(indexes)) if indexes else []
        return sorted(changes, key=lambda change: change.at)

    async def release(self, change_id: str) -> None:
        """Let a change be undone again: its undo was not made."""
        key = key_of(Change, change_id)

        def step(documents: Documents) -> tuple[None, Sequence[Write]]:
            before = loaded(Change, documents, key)
            if before is None or not before.undone:
                return None, ()
            return None, [write(replace(before, undone_at=0.0), change_id)]

        await self._step([key], step)

    async def under_way(self, since: float) -> list[Change]:
        """Return the changes of all accounts that were begun after `since` and have no known outcome, oldest first."""
        return _readable(Change, await self.store.scan(["under way"], since))

    async def changes_of(self, list_id: str) -> list[Change]:
        """Return the calls of a list whose outcome is in `NEVER_REPEATED`, ordered by number."""
        listed = await self._one(ListedCalls, list_id) or ListedCalls()
        keys = [key_of(Change, id_) for id_, outcome in listed.calls.values() if outcome in NEVER_REPEATED]
        changes = [load(Change, each) for each in (await self._read(keys)).values()] if keys else []
        return sorted(changes, key=lambda change: change.number)

    # --- what is stored for a caller ------------------------------------------------------------------------------

    async def _delete_past_requests(self, holder: str, excess: int, now: float) -> bool:
        """Delete a caller's oldest requests that can no longer decide anything. False if that would not free enough."""
        past = await self._oldest(ApprovalRequest, f"decided {holder}", excess, now, lambda _: True)
        if sum(past.values()) < excess:
            return False
        caller_key = key_of(CallerState, holder)
        keys = [key_of(ApprovalRequest, id_) for id_ in past][:MAX_DROPPED]

        def step(documents: Documents) -> tuple[None, Sequence[Write]]:
            caller = loaded(CallerState, documents, caller_key) or CallerState()
            writes = list[Write]()
            for key in keys:
                request = loaded(ApprovalRequest, documents, key)
                if request is not None and is_past(request, now):
                    caller = caller.closed(request, documents[key].value)
                    writes.append(deletion(ApprovalRequest, request.id))
            return None, [*writes, write(caller, holder)] if writes else ()

        await self._step([*keys, caller_key], step)
        return True

    async def _drop_states(self, holder: str, excess: int, now: float, kept: str) -> bool:
        """Drop the states before a caller's oldest settled changes, or, once there are none, the oldest changes.

        `kept`: the id of a change to keep. False if all of this would not free enough.
        """

        def can_be_dropped(change: Change) -> bool:
            return change.id != kept and is_settled(change, now)

        chosen = await self._oldest(Change, f"states {holder}", excess, inf, can_be_dropped)
        if sum(chosen.values()) < excess:
            whole = await self._oldest(Change, f"settled {holder}", excess, inf, can_be_dropped)
            if sum(chosen.values()) + sum(whole.values()) < excess:
                return False
            chosen = chosen or whole
        caller_key = key_of(CallerState, holder)
        keys = [key_of(Change, id_) for id_ in chosen][:MAX_DROPPED]

        def step(documents: Documents) -> tuple[None, Sequence[Write]]:
            caller = loaded(CallerState, documents, caller_key) or CallerState()
            writes = list[Write]()
            for key in keys:
                change = loaded(Change, documents, key)
                if change is None or not can_be_dropped(change):
                    continue
                text = documents[key].value
                bare = write(without_state(change), change.id)
                dropped = bare if has_state(change, text) else deletion(Change, change.id)
                caller = caller.with_change(change, dropped.value, text)
                writes.append(dropped)
            return None, [*writes, write(caller, holder)] if writes else ()

        await self._step([*keys, caller_key], step)
        return True

    async def _oldest(
        self, record: type[Stored], index: str, excess: int, until: float, can_be_dropped: Callable[[Stored], bool]
    ) -> dict[str, int]:
        """Return the ids and bytes of the first records of an index that can be dropped.

        So many that they have `excess` bytes and some to spare, or else all. What cannot be read is kept.
        """
        limit = 1
        while True:
            documents = await self.store.scan([index], high=until, limit=limit)
            sizes = dict[str, int]()
            left = excess + SPARE_BYTES
            for document in documents:
                for each in _readable(record, [document]):
                    if left > 0 and can_be_dropped(each):
                        sizes[each.id] = stored_bytes(document.value)
                        left -= sizes[each.id]
            if left <= 0 or len(documents) < limit:
                return sizes
            limit *= 8

    # --- stops ----------------------------------------------------------------------------------------------------

    async def add_stop(self, stop: Stop) -> Stop:
        """Record a stop, and forget stops that were lifted more than `KEPT_DAYS` (`change`) before it.

        That is far longer than an approval that they made void could be used. Return it with its epoch.
        """

        def step(documents: Documents) -> tuple[Stop, Sequence[Write]]:
            orders = (loaded(StopOrders, documents, _STOPS) or StopOrders()).added(stop, stop.at - HISTORY)
            return orders.stops[-1], [write(orders, "all")]

        return await self._step([_STOPS], step, is_news=True)

    async def lift_stop(self, stop: Stop) -> bool:
        """Record that a stop was lifted. False if it was lifted before, or there is none."""

        def step(documents: Documents) -> tuple[bool, Sequence[Write]]:
            orders = (loaded(StopOrders, documents, _STOPS) or StopOrders()).lifted(stop)
            return orders is not None, [] if orders is None else [write(orders, "all")]

        return await self._step([_STOPS], step, is_news=True)

    async def stops(self) -> list[Stop]:
        """Return the stops in force and the stops that were lifted recently, oldest first. Raises `Unreadable`."""
        orders = await self._one(StopOrders, "all")
        return [] if orders is None else [*orders.stops]

    async def holding(self) -> list[Stop]:
        """Return the stops that hold, oldest first."""
        return [stop for stop in await self.stops() if stop.lifted is None]

    # --------------------------------------------------------------------------------------------------------------

    async def check_layout(self) -> None:
        """Raise `NewerLayout` if this version can change nothing here (used by `doctor`), or `Unreadable`."""
        layout_write((await self._read([LAYOUT])).get(LAYOUT))

    async def revision(self) -> int:
        """Return a number that changes after any change by any process."""
        return await self.store.revision()

    async def aclose(self) -> None:
        """Close the connections. The next use opens them again."""
        self._known.clear()
        await self.store.aclose()


def _readable(record: type[Record], documents: Iterable[Document]) -> list[Record]:
    """Return the records that can be read, for a list that people read, and log what is left out."""
    records = list[Record]()
    unreadable = list[Unreadable]()
    for document in documents:
        try:
            records.append(load(record, document))
        except Unreadable as error:
            unreadable.append(error)
    if unreadable:
        names = ", ".join(f"{error.kind} {error.id}" for error in unreadable[:10])
        _log.warning("left out of a list, since this version cannot read them: %d (%s)", len(unreadable), names)
    return records
