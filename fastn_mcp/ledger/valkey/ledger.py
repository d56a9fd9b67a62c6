"""Ledger on Valkey (or Redis 7 and newer), shared by replicas.

Each atomic operation is a Lua script on the server (`scripts/`). The braces around the ledger's name put all its keys
into one slot of a cluster, so that a vote, its request and the lists of requests change together. The load, a few
commands for each change, is far below the capacity of one server.

If the reply to `begin` is lost, the call counts as begun: it is not sent, and a list does not begin it again.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastn_mcp.errors import Refused
from fastn_mcp.ledger.approval_request import (
    ApprovalRequest,
    RequestState,
    SealedSecret,
    Transition,
    declines_after,
)
from fastn_mcp.ledger.change import BEGUN, FINAL_OUTCOMES, KEPT_DAYS, OUTCOME_FIELDS, Change, Journal
from fastn_mcp.ledger.identity import holder
from fastn_mcp.ledger.ledger import (
    MAX_WAITING,
    SAME_REQUEST,
    ApprovalRequests,
    BudgetLimit,
    BudgetUses,
    Ledger,
    Marks,
    Stop,
    StopOrders,
    TooManyWaiting,
    rate_free_at,
)
from fastn_mcp.ledger.serialization import StoredValue, load, store
from fastn_mcp.ledger.storage_limits import (
    MAX_JOURNAL_BYTES,
    MAX_OPEN_BYTES,
    MAX_REQUEST_BYTES,
    JournalFull,
    RequestsFull,
    StoredItem,
    is_past,
    is_settled,
    items_to_drop,
    stored_size,
)
from fastn_mcp.ledger.valkey.server import MAX_READ, Address, Durability, Server
from fastn_mcp.policy.decision import PLANNED
from fastn_mcp.redaction import sanitize
from fastn_mcp.runtime import System

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
"""Milliseconds for which a record is kept after it expires, since clocks differ."""

_HISTORY_MS = KEPT_DAYS * _DAY_MS
"""Milliseconds for which requests and changes are kept, for the history."""

_BUDGET_MS = 90 * _DAY_MS
"""Milliseconds for which a budget's count is kept after its last use. Its period ends long before."""

_YEARS = 2 * 366 * _DAY_MS
"""Milliseconds for which the mark of an audit log is kept after it was last set."""


class UnreadableRequest(Refused):
    """A stored request that was damaged or written by another version. It approves nothing."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.id = sanitize(fields.get("id", "?")[:64])
        super().__init__(
            f"The stored approval {self.id} cannot be read.",
            "A person has to update this server, or wait until the approval has expired.",
        )


def _read(fields: Mapping[str, str]) -> ApprovalRequest:
    try:
        return load(ApprovalRequest, {name: value for name, value in fields.items() if name != "version"})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnreadableRequest(fields) from None


def _flat(values: Mapping[str, StoredValue]) -> list[str | float]:
    """Flatten fields and values into one list, without None values."""
    return [part for name, value in values.items() if value is not None for part in (name, value)]


def _lifetime(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class _ValkeyPart:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._key = server.key
        self._revision = server.key("revision")


@dataclass(frozen=True, slots=True)
class _CallerRecords:
    """A caller's requests or changes, with their sizes (`storage_limits`)."""

    server: Server
    listing: str
    """Key of their ids by time."""
    sizes: str
    """Key of their sizes by id. The field '' is the sum."""
    prefix: str
    """Key of a record, without its id."""
    can_be_dropped: Callable[[Mapping[str, str]], bool]
    """Whether a record with these `fields` may be dropped."""
    fields: tuple[str, ...]

    async def make_room(self, size: int, limit: int) -> bool:
        """Drop the oldest that may be dropped if `size` more bytes exceed the limit. False if too little may be.

        Dropped are only those whose fields are still as they were read.
        """
        ids: list[str] = await self.server.read("ZRANGE", self.listing, 0, -1)
        found = await self.server.look("fields", [f"{self.prefix}{id_}" for id_ in ids], *self.fields)
        rows = await self.server.gather([self.sizes])
        sizes = rows[0] if rows else {}
        records = {
            id_: dict(zip(self.fields, map(_text, values), strict=True)) for id_, values in zip(ids, found, strict=True)
        }
        items = [self._item(id_, int(sizes.get(id_, 0)), record) for id_, record in records.items()]
        excess = int(sizes.get("", 0)) + size - limit
        if excess <= 0:
            return True
        dropped = items_to_drop(items, excess)
        if dropped:
            keys = [self.listing, self.sizes, self.server.key("revision")]
            keys += [f"{self.prefix}{item.id}" for item in dropped]
            each = [part for item in dropped for part in (item.id, int(item.has_state), *records[item.id].values())]
            await self.server.run("drop", keys, len(self.fields), *self.fields, *each)
        return bool(dropped)

    def _item(self, id_: str, size: int, record: Mapping[str, str]) -> StoredItem:
        if not any(record.values()):  # Valkey has let it expire
            return StoredItem(id_, size, can_be_dropped=True)
        try:
            can_be_dropped = self.can_be_dropped(record)
        except ValueError:  # damaged, or written by another version
            can_be_dropped = False
        return StoredItem(id_, size, can_be_dropped, record.get("is_state_dropped") == "0")


def _text(value: str | None) -> str:
    return value or ""


class ValkeyApprovalRequests(_ValkeyPart, ApprovalRequests):
    def _request(self, id_: str) -> str:
        return self._key("request", id_)

    def _lists(self, request: ApprovalRequest) -> list[str]:
        """Return the keys of a request and of the lists that index it by state."""
        open_, expiring = self._key("open", request.holder), self._key("expiring", request.account)
        waiting, decided = self._key("waiting"), self._key("decided")
        return [self._request(request.id), open_, expiring, waiting, decided, self._revision]

    def _request_sizes(self, request: ApprovalRequest) -> str:
        return self._key("request_sizes", request.holder)

    async def open(self, request: ApprovalRequest) -> str:
        def can_be_dropped(fields: Mapping[str, str]) -> bool:
            expires, temporary_until = float(fields["expires"]), float(fields["temporary_until"])
            return is_past(RequestState(fields["state"]), expires, temporary_until, request.created)

        stored = _CallerRecords(
            self._server,
            self._key("requests", request.holder),
            self._request_sizes(request),
            self._request(""),
            can_be_dropped,
            fields=("state", "expires", "temporary_until"),
        )
        while (opened := await self._open(request, stored)) == -3:
            if not await stored.make_room(stored_size(request), MAX_REQUEST_BYTES):
                raise RequestsFull(waiting=False)
        if isinstance(opened, str):
            return opened
        if opened == 0:
            raise TooManyWaiting
        if opened == -2:
            raise RequestsFull(waiting=True)
        if opened != 1:
            raise ValueError("a request of this id exists already")
        return request.id

    async def _open(self, request: ApprovalRequest, stored: _CallerRecords) -> int | str:
        values = store(request)
        return await self._server.run(
            "open",
            [*self._lists(request), stored.listing, stored.sizes, self._key("call", request.call)],
            request.id,
            request.created,
            request.expires,
            int(request.out_of_band),
            MAX_WAITING,
            _HISTORY_MS,
            self._request(""),
            *SAME_REQUEST,
            *(str(values[name]) for name in SAME_REQUEST),
            stored_size(request),
            MAX_OPEN_BYTES,
            MAX_REQUEST_BYTES,
            *_flat(values),
        )

    async def find(self, request: str) -> ApprovalRequest | None:
        hashes = await self._server.gather([self._request(request)])
        return _read(hashes[0]) if hashes else None

    async def still_open(self, requests: Collection[str]) -> set[str]:
        ids = [*requests]
        rows: list[list[str | None]] = await self._server.look("fields", [self._request(id_) for id_ in ids], "state")
        return {id_ for id_, row in zip(ids, rows, strict=True) if row == [RequestState.OPEN.value]}

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        ids = await self._server.read("ZRANGE", self._key("call", call), 0, -1, "REV")
        hashes = await self._server.gather([self._request(id_) for id_ in ids])
        return next((request for request in map(_read, hashes) if request.is_found(now)), None)

    async def change_request(
        self, request: str, transition: Transition, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        """Compare the version and retry, so that only one of several concurrent changes is made at a time."""
        while hashes := await self._server.gather([self._request(request)]):
            before = _read(hashes[0])
            after = transition(before)
            if after is None:
                return None
            earlier = store(before)
            typed = ("", "", 0) if secret is None else (secret.approver, secret.text, _lifetime(secret.lifetime))
            declines, stream = self._key("declines", after.holder), self._key("changes")
            temporary = [self._covering(after.similar or ""), self._key("temporary")]
            changed = await self._server.run(
                "change",
                [*self._lists(after), declines, stream, self._sealed(after.id), *temporary, self._request_sizes(after)],
                after.id,
                hashes[0]["version"],
                "" if after.state is RequestState.OPEN else after.decided or 0.0,
                after.expires,
                int(after.out_of_band),
                {None: "", 0: "approved", 1: "declined"}[declines_after(before, after)],
                _HISTORY_MS,
                int(after.is_over),
                *typed,
                after.temporary_until,
                stored_size(after),
                *_flat({name: value for name, value in store(after).items() if value != earlier[name]}),
            )
            if changed == 1:
                return after
        return None

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:  # noqa: ARG002 - the server waits
        stream = self._key("changes")
        if not seen:
            newest = await self._server.read("XREVRANGE", stream, "+", "-", "COUNT", 1)
            return newest[0][0] if newest else "0-0"
        longest = max(1, round(min(seconds, MAX_READ) * 1000))
        streams = await self._server.read("XREAD", "BLOCK", longest, "STREAMS", stream, seen)
        return streams[0][1][-1][0] if streams else seen

    async def expiring(self, account: str, now: float) -> list[str]:
        return await self._server.read("ZRANGE", self._key("expiring", account), "-inf", repr(now), "BYSCORE")

    async def open_requests(self, account: str, now: float) -> list[ApprovalRequest]:
        return await self._open_in(self._key("expiring", account), now)

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        return sorted(await self._open_in(self._key("waiting"), now), key=lambda request: request.created)

    async def _open_in(self, key: str, now: float) -> list[ApprovalRequest]:
        ids = await self._server.read("ZRANGE", key, f"({now!r}", "+inf", "BYSCORE")
        return [request for request in await self._readable(ids) if request.state is RequestState.OPEN]

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        return await self._readable(await self._server.read("ZRANGE", self._key("decided"), 0, limit - 1, "REV"))

    async def _readable(self, ids: Iterable[str]) -> list[ApprovalRequest]:
        """Return the readable requests and log the ids of the others. For listings only, never for a decision."""
        requests: list[ApprovalRequest] = []
        unreadable: list[str] = []
        for fields in await self._server.gather([self._request(id_) for id_ in ids]):
            try:
                requests.append(_read(fields))
            except UnreadableRequest as request:
                unreadable.append(request.id)
        if unreadable:
            names = ", ".join(unreadable[:10])
            _log.warning("approval requests left out, which this version cannot read: %d (%s)", len(unreadable), names)
        return requests

    def _covering(self, similar: str) -> str:
        return self._key("covering", similar)

    async def find_temporary(self, similar: str, now: float) -> ApprovalRequest | None:
        ids = await self._server.read("ZRANGE", self._covering(similar), f"({now!r}", "+inf", "BYSCORE")
        requests = map(_read, await self._server.gather([self._request(id_) for id_ in ids]))
        return next((request for request in requests if request.temporary_until > now), None)

    async def temporary_approvals(self, now: float) -> list[ApprovalRequest]:
        ids = await self._server.read("ZRANGE", self._key("temporary"), f"({now!r}", "+inf", "BYSCORE")
        return [request for request in await self._readable(ids) if request.temporary_until > now]

    async def declines(self, principal: str) -> tuple[int, float]:
        count, last = await self._server.read("HMGET", self._key("declines", principal), "count", "last")
        return int(count or 0), float(last or 0)

    def _sealed(self, request: str) -> str:
        return self._key("sealed", request)

    async def sealed(self, request: str, approver: str, now: float) -> str | None:  # noqa: ARG002 - the server forgets it in time
        return await self._server.read("HGET", self._sealed(request), approver)


class ValkeyBudgetUses(_ValkeyPart, BudgetUses):
    def _budget(self, budget: str, period: str) -> str:
        return self._key("budget", self._server.digest(budget, period))

    async def spent(self, budget: str, period: str) -> int:
        return int(await self._server.read("GET", self._budget(budget, period)) or 0)

    async def spend_all(self, limits: Sequence[BudgetLimit]) -> bool:
        keys = [self._budget(each.budget, each.period) for each in limits]
        arguments = list[int]()
        for each in limits:
            # A plan can be valid for years, and its count must not expire before it.
            arguments += [each.limit, 0 if each.period == PLANNED else _BUDGET_MS]
        return await self._server.run("spend", [*keys, self._revision], *arguments) == 1

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        keys = [self._key("rate", budget), self._revision]
        if await self._server.run("rate", keys, now, now - seconds, most, _lifetime(seconds)) == 1:
            return 0.0
        return rate_free_at(await self.rate_uses(budget, seconds, now), most, seconds) or now

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        uses = await self._server.read("ZRANGE", self._key("rate", budget), f"({now - seconds!r}", "+inf", "BYSCORE")
        return [float(use.partition(" ")[0]) for use in uses]


class ValkeyMarks(_ValkeyPart, Marks):
    async def set_mark(self, name: str, until: float, now: float, *, unless: float) -> bool:
        kept = round(max(0.0, until - now) * 1000) + _DAY_MS
        return await self._server.run("mark", [self._key("mark", name), self._revision], until, unless, kept) == 1

    async def marked(self, name: str) -> float:
        return float(await self._server.read("GET", self._key("mark", name)) or 0)


class ValkeyJournal(_ValkeyPart, Journal):
    def _change(self, id_: str) -> str:
        return self._key("change", id_)

    def _unsettled(self, call: str) -> str:
        return self._key("unsettled", call)

    def _change_sizes(self, change: Change) -> str:
        return self._key("change_sizes", holder(change.principal, change.account))

    async def begin(self, change: Change) -> bool:
        def can_be_dropped(fields: Mapping[str, str]) -> bool:
            unsettled_until, undone_at = float(fields["unsettled_until"]), float(fields["undone_at"])
            return is_settled(fields["outcome"], unsettled_until, undone_at, change.at)

        stored = _CallerRecords(
            self._server,
            self._key("changes_by", holder(change.principal, change.account)),
            self._change_sizes(change),
            self._change(""),
            can_be_dropped,
            fields=("outcome", "unsettled_until", "undone_at", "is_state_dropped"),
        )
        while (begun := await self._begin(change, stored)) == -2:
            if not await stored.make_room(stored_size(change), MAX_JOURNAL_BYTES):
                raise JournalFull
        if begun == -1:
            raise ValueError("a change of this id exists already")
        return begun == 1

    async def _begin(self, change: Change, stored: _CallerRecords) -> int:
        batch, unsettled = self._key("batch", change.batch), self._unsettled(change.call)
        changes, under_way = self._key("changes", change.account), self._key("under_way")
        by = [self._key("approved", change.approval)] if change.approval else []
        lists = [changes, self._revision, batch, under_way, unsettled, stored.listing, stored.sizes, *by]
        return await self._server.run(
            "begin",
            [self._change(change.id), *lists],
            change.id,
            change.at,
            change.unsettled_until,
            _HISTORY_MS,
            self._change(""),
            change.number,
            change.call,
            len(FINAL_OUTCOMES),
            *FINAL_OUTCOMES,
            stored_size(change),
            MAX_JOURNAL_BYTES,
            *_flat(store(change)),
        )

    async def changes_of(self, batch: str) -> list[Change]:
        numbers = await self._server.gather([self._key("batch", batch)])
        changes = await self._gathered(numbers[0].values() if numbers else ())
        return sorted(
            (change for change in changes if change.outcome in FINAL_OUTCOMES), key=lambda change: change.number
        )

    async def settle(self, change: Change) -> None:
        values = store(change)
        settled = {name: values[name] for name in OUTCOME_FIELDS}
        indexes = [self._key("under_way"), self._unsettled(change.call), self._change_sizes(change)]
        await self._set(change.id, "id", "", settled, *indexes, size=stored_size(change))

    async def unsettled(self, call: str, now: float) -> dict[str, float]:
        flat: list[str] = await self._server.read(
            "ZRANGE", self._unsettled(call), f"({now!r}", "+inf", "BYSCORE", "WITHSCORES"
        )
        return {id_: float(until) for id_, until in zip(flat[::2], flat[1::2], strict=True)}

    async def change(self, account: str, change: str) -> Change | None:
        return next((each for each in await self._gathered([change]) if each.account == account), None)

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        key, page = self._key("changes", account), ("LIMIT", 0, limit)
        return await self._gathered(
            await self._server.read("ZRANGE", key, f"({before!r}", "-inf", "BYSCORE", "REV", *page)
        )

    async def changes_by(self, approvals: Collection[str]) -> list[Change]:
        hashes = await self._server.gather([self._key("approved", id_) for id_ in approvals])
        changes = await self._gathered([id_ for each in hashes for id_ in each])
        return sorted(changes, key=lambda change: change.at)

    async def _gathered(self, ids: Iterable[str]) -> list[Change]:
        hashes = await self._server.gather([self._change(id_) for id_ in ids])
        return [load(Change, fields) for fields in hashes]

    async def under_way(self, since: float) -> list[Change]:
        ids = await self._server.read("ZRANGE", self._key("under_way"), f"({since!r}", "+inf", "BYSCORE")
        return [change for change in await self._gathered(ids) if change.outcome == BEGUN]

    async def claim(self, change: str, now: float) -> bool:
        return await self._set(change, "undone_at", "0.0", {"undone_at": now})

    async def release(self, change: str) -> None:
        await self._set(change, "undone_at", "", {"undone_at": 0.0})

    async def _set(
        self, change: str, field: str, expected: str, values: Mapping[str, StoredValue], *indexes: str, size: int = 0
    ) -> bool:
        keys = [self._change(change), self._revision, *indexes]
        return await self._server.run("settle", keys, change, field, expected, size, *_flat(values)) == 1


class ValkeyStops(_ValkeyPart, StopOrders):
    """Stops in one hash: each by its id, and beside it, once it was lifted, as it was lifted."""

    async def add_stop(self, stop: Stop) -> None:
        forgotten = stop.at - KEPT_DAYS * 86_400
        old = [each.id for each in await self.stops() if each.lifted is not None and each.lifted < forgotten]
        await self._write(stop.id, stop, *old, *map(self._lifted, old))

    async def lift_stop(self, stop: Stop) -> bool:
        return any(each.id == stop.id for each in await self.stops()) and await self._write(self._lifted(stop.id), stop)

    async def stops(self) -> list[Stop]:
        fields = next(iter(await self._server.gather([self._key("stops")])), dict[str, str]())
        newest = (fields.get(self._lifted(id_), text) for id_, text in fields.items() if " " not in id_)
        return sorted((load(Stop, json.loads(text)) for text in newest), key=lambda stop: stop.at)

    @staticmethod
    def _lifted(stop: str) -> str:
        return f"{stop} lifted"

    async def _write(self, field: str, stop: Stop, *old: str) -> bool:
        keys = [self._key("stops"), self._revision, self._key("changes")]
        return await self._server.run("stop", keys, field, json.dumps(store(stop)), *old) == 1


class ValkeyLedger(
    ValkeyApprovalRequests, ValkeyBudgetUses, ValkeyMarks, ValkeyJournal, ValkeyStops,
    Ledger,
):  # fmt: skip
    """Ledger at this address."""

    def __init__(self, address: Address, system: System) -> None:
        super().__init__(Server(address, system))

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        await self._server.run("audit", [self._key("audit", log)], n, head, _YEARS)

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        n, head = await self._server.read("HMGET", self._key("audit", log), "n", "head")
        return None if n is None else (int(n), str(head))

    async def revision(self) -> int:
        return int(await self._server.read("GET", self._revision) or 0)

    async def durability(self) -> Durability:
        return await self._server.durability()

    async def aclose(self) -> None:
        await self._server.aclose()
