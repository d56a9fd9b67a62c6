"""Ledger on Valkey (or Redis 7 and newer), shared by replicas.

Each atomic operation is a Lua script on the server (`scripts/`). The braces around the ledger's name put all its keys
into one slot of a cluster, so that a vote, its request and the lists of requests change together. The load, a few
commands for each change, is far below the capacity of one server.

If the reply to `begin` is lost, the call counts as begun: it is not sent, and a list does not begin it again.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict

from fastn_mcp.errors import Refused
from fastn_mcp.guard.changes import FINAL, Change
from fastn_mcp.ledger.ledger import (
    MOST_WAITING,
    ApprovalRequest,
    BudgetLimit,
    Ledger,
    RequestState,
    SealedSecret,
    TemporaryApproval,
    TooManyWaiting,
    Transition,
    declines_after,
    rate_free_at,
    read_change,
    read_request,
    stored_change,
    stored_request,
)
from fastn_mcp.ledger.valkey.server import KEPT, LONGEST_READ, Address, Durability, Server
from fastn_mcp.policy.policy import PLANNED
from fastn_mcp.redaction import sanitize
from fastn_mcp.runtime import System

_log = logging.getLogger(__name__)

_SAME = ("calls", "required", "principal", "account")
"""Fields by which two requests for one call are the same."""

_OPTIONAL = ("target", "expected", "by", "note", "decided", "trace", "similar")
"""Fields of a request that are left out if they are None."""

_QUARTER = 90 * 86_400_000
"""Milliseconds for which a budget's count is kept after its last use. Its period ends long before."""

_DAY = 86_400_000
"""Milliseconds for which a record is kept after it expires, since clocks differ."""

_YEARS = 2 * 366 * _DAY
"""Milliseconds for which the mark of an audit log is kept after it was last set."""


class ValkeyLedger(Ledger):
    """Ledger at this address."""

    def __init__(self, address: Address, system: System) -> None:
        self._server = server = Server(address, system)
        self._revision = server.key("revision")
        self._waiting = server.key("waiting")
        self._decided = server.key("decided")
        self._changes = server.key("changes")
        self._scopes = server.key("scopes")

    def _request(self, id_: str) -> str:
        return self._server.key("request", id_)

    def _lists(self, request: ApprovalRequest) -> list[str]:
        """Return the keys of a request and of the lists that index it by state."""
        open_ = self._server.key("open", request.holder)
        expiring = self._server.key("expiring", request.account)
        return [self._request(request.id), open_, expiring, self._waiting, self._decided, self._revision]

    async def open(self, request: ApprovalRequest) -> str:
        opened = await self._server.run(
            "open",
            [*self._lists(request), self._server.key("call", request.call)],
            request.id,
            request.created,
            request.expires,
            int(request.out_of_band),
            MOST_WAITING,
            KEPT,
            self._request(""),
            *_SAME,
            *(stored_request(request)[name] or "" for name in _SAME),
            *_flat(stored_request(request)),
        )
        if isinstance(opened, str):
            return opened
        if opened == 0:
            raise TooManyWaiting
        if opened != 1:
            raise ValueError("a request of this id exists already")
        return request.id

    async def find(self, request: str) -> ApprovalRequest | None:
        found = await self._server.gather([self._request(request)])
        return _read(found[0]) if found else None

    async def still_open(self, requests: Collection[str]) -> set[str]:
        ids = [*requests]
        states: list[str | None] = await self._server.look("states", [self._request(id_) for id_ in ids])
        return {id_ for id_, state in zip(ids, states, strict=True) if state == RequestState.OPEN.value}

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        ids = await self._server.read("ZRANGE", self._server.key("call", call), 0, -1, "REV")
        found = await self._server.gather([self._request(id_) for id_ in ids])
        return next((request for request in map(_read, found) if request.is_found(now)), None)

    async def change_request(
        self, request: str, transition: Transition, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        """Compare the version and retry, so that only one of several concurrent changes is made at a time."""
        while found := await self._server.gather([self._request(request)]):
            before = _read(found[0])
            after = transition(before)
            if after is None:
                return None
            is_open = after.state is RequestState.OPEN
            was = stored_request(before)
            typed = ("", "", 0) if secret is None else (secret.approver, secret.text, _lifetime(secret.lifetime))
            declines, sealed = self._server.key("declines", after.holder), self._sealed(after.id)
            changed = await self._server.run(
                "change",
                [*self._lists(after), declines, self._changes, sealed],
                after.id,
                found[0]["version"],
                "" if is_open else after.decided or 0.0,
                after.expires,
                int(after.out_of_band),
                {None: "", 0: "approved", 1: "declined"}[declines_after(before, after)],
                KEPT,
                int(after.is_over),
                *typed,
                *_flat({name: value for name, value in stored_request(after).items() if value != was[name]}),
            )
            if changed == 1:
                return after
        return None

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:  # noqa: ARG002 - the server waits
        if not seen:
            newest = await self._server.read("XREVRANGE", self._changes, "+", "-", "COUNT", 1)
            return newest[0][0] if newest else "0-0"
        longest = max(1, round(min(seconds, LONGEST_READ) * 1000))
        streams = await self._server.read("XREAD", "BLOCK", longest, "STREAMS", self._changes, seen)
        return streams[0][1][-1][0] if streams else seen

    async def expiring(self, account: str, now: float) -> list[str]:
        return await self._server.read("ZRANGE", self._server.key("expiring", account), "-inf", repr(now), "BYSCORE")

    async def open_requests(self, account: str, now: float) -> list[ApprovalRequest]:
        return await self._open_in(self._server.key("expiring", account), now)

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        return sorted(await self._open_in(self._waiting, now), key=lambda request: request.created)

    async def _open_in(self, key: str, now: float) -> list[ApprovalRequest]:
        ids = await self._server.read("ZRANGE", key, f"({now!r}", "+inf", "BYSCORE")
        return [request for request in await self._readable(ids) if request.state is RequestState.OPEN]

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        return await self._readable(await self._server.read("ZRANGE", self._decided, 0, limit - 1, "REV"))

    async def _readable(self, ids: Iterable[str]) -> list[ApprovalRequest]:
        """Return the readable requests and log the ids of the others. For listings only, never for a decision."""
        found: list[ApprovalRequest] = []
        unreadable: list[str] = []
        for fields in await self._server.gather([self._request(id_) for id_ in ids]):
            try:
                found.append(_read(fields))
            except UnreadableRequest as request:
                unreadable.append(request.id)
        if unreadable:
            names = ", ".join(unreadable[:10])
            _log.warning("approval requests left out, which this version cannot read: %d (%s)", len(unreadable), names)
        return found

    def _scope(self, id_: str) -> str:
        return self._server.key("scope", id_)

    def _covering(self, principal: str, account: str, tool: str, target: str, similar: str) -> str:
        return self._server.key("covering", self._server.digest(principal, account, tool, target, similar))

    async def add_temporary(self, approval: TemporaryApproval) -> None:
        of = (approval.principal, approval.account, approval.tool, approval.target, approval.similar)
        covering = self._covering(*of)
        keys = [self._scope(approval.id), covering, self._scopes, self._revision]
        lives = _lifetime(approval.expires - approval.created)
        fields = json.dumps(asdict(approval))
        await self._server.run("scope", keys, approval.id, fields, approval.created, approval.expires, lives)

    async def find_temporary(
        self, principal: str, account: str, tool: str, target: str, similar: str, now: float
    ) -> TemporaryApproval | None:
        covering = self._covering(principal, account, tool, target, similar)
        return next(iter(await self._holding(covering, now)), None)

    async def temporary_approvals(self, now: float) -> list[TemporaryApproval]:
        return sorted(await self._holding(self._scopes, now), key=lambda scope: scope.created)

    async def revoke_temporary(self, approval: str) -> bool:
        return await self._server.run("remove", [self._scope(approval), self._revision]) == 1

    async def _holding(self, listed: str, now: float) -> list[TemporaryApproval]:
        ids: list[str] = await self._server.read("ZRANGE", listed, f"({now!r}", "+inf", "BYSCORE")
        if not ids:
            return []
        found: list[str | None] = await self._server.read("MGET", *map(self._scope, ids))
        return [TemporaryApproval(**json.loads(text)) for text in found if text is not None]

    def _budget(self, budget: str, period: str) -> str:
        return self._server.key("budget", self._server.digest(budget, period))

    async def spent(self, budget: str, period: str) -> int:
        return int(await self._server.read("GET", self._budget(budget, period)) or 0)

    async def spend_all(self, limits: Sequence[BudgetLimit]) -> bool:
        keys = [self._budget(each.budget, each.period) for each in limits]
        arguments = list[int]()
        for each in limits:
            # A plan can be valid for years, and its count must not expire before it.
            arguments += [each.limit, 0 if each.period == PLANNED else _QUARTER]
        return await self._server.run("spend", [*keys, self._revision], *arguments) == 1

    def _rate(self, budget: str) -> str:
        return self._server.key("rate", budget)

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        keys, kept = [self._rate(budget), self._revision], _lifetime(seconds)
        if await self._server.run("rate", keys, now, now - seconds, most, kept) == 1:
            return 0.0
        return rate_free_at(await self.rate_uses(budget, seconds, now), most, seconds) or now

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        recent = await self._server.read("ZRANGE", self._rate(budget), f"({now - seconds!r}", "+inf", "BYSCORE")
        return [float(use.partition(" ")[0]) for use in recent]

    async def declines(self, principal: str) -> tuple[int, float]:
        count, last = await self._server.read("HMGET", self._server.key("declines", principal), "count", "last")
        return int(count or 0), float(last or 0)

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        keys = [self._server.key("nonce", nonce), self._revision]
        return await self._server.run("nonce", keys, until, now, _kept(until, now)) == 1

    def _sealed(self, request: str) -> str:
        return self._server.key("sealed", request)

    async def sealed(self, request: str, approver: str, now: float) -> str | None:  # noqa: ARG002 - the server forgets it in time
        return await self._server.read("HGET", self._sealed(request), approver)

    async def distrust(self, principal: str, channel: str, until: float) -> None:
        await self._mark(self._distrusted(principal, channel), until, _DAY)

    async def distrusted(self, principal: str, channel: str, now: float) -> bool:
        return await self._until(self._distrusted(principal, channel)) > now

    def _distrusted(self, principal: str, channel: str) -> str:
        return self._server.key("distrust", channel, principal)

    async def note_limit(self, key: str, until: float, now: float) -> None:
        await self._mark(self._server.key("limit", key), until, _kept(until, now))

    async def limited(self, key: str) -> float:
        return await self._until(self._server.key("limit", key))

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        await self._server.run("audit", [self._server.key("audit", log)], n, head, _YEARS)

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        n, head = await self._server.read("HMGET", self._server.key("audit", log), "n", "head")
        return None if n is None else (int(n), str(head))

    async def _mark(self, key: str, until: float, kept: int) -> None:
        await self._server.run("mark", [key, self._revision], until, kept)

    async def _until(self, key: str) -> float:
        return float(await self._server.read("GET", key) or 0)

    def _change(self, id_: str) -> str:
        return self._server.key("change", id_)

    def _unsettled(self, call: str) -> str:
        return self._server.key("unsettled", call)

    async def begin(self, change: Change) -> bool:
        batch, unsettled = self._server.key("batch", change.batch), self._unsettled(change.call)
        keys = [self._change(change.id), self._server.key("changes", change.account), self._revision, batch, unsettled]
        begun = await self._server.run(
            "begin",
            keys,
            change.id,
            change.at,
            change.unsettled_until,
            KEPT,
            self._change(""),
            change.number,
            change.call,
            len(FINAL),
            *FINAL,
            *_flat(stored_change(change)),
        )
        if begun == -1:
            raise ValueError("a change of this id exists already")
        return begun == 1

    async def changes_of(self, batch: str) -> list[Change]:
        numbers = await self._server.gather([self._server.key("batch", batch)])
        ids = numbers[0].values() if numbers else ()
        found = [_read_change(fields) for fields in await self._server.gather([self._change(id_) for id_ in ids])]
        return sorted((change for change in found if change.outcome in FINAL), key=lambda change: change.number)

    async def settle(self, change: Change) -> None:
        said = {
            "outcome": change.outcome,
            "target": change.target,
            "name": change.name,
            "sent": json.dumps(change.sent),
            "unsettled_until": repr(change.unsettled_until),
        }
        await self._set(change.id, "id", "", said, change.call)

    async def unsettled(self, call: str, now: float) -> dict[str, float]:
        found = ("ZRANGE", self._unsettled(call), f"({now!r}", "+inf", "BYSCORE", "WITHSCORES")
        flat: list[str] = await self._server.read(*found)
        return {id_: float(until) for id_, until in zip(flat[::2], flat[1::2], strict=True)}

    async def change(self, account: str, change: str) -> Change | None:
        found = await self._server.gather([self._change(change)])
        return _read_change(found[0]) if found and found[0]["account"] == account else None

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        key, most = self._server.key("changes", account), ("LIMIT", 0, limit)
        ids = await self._server.read("ZRANGE", key, f"({before!r}", "-inf", "BYSCORE", "REV", *most)
        return [_read_change(fields) for fields in await self._server.gather([self._change(id_) for id_ in ids])]

    async def claim(self, change: str) -> bool:
        return await self._set(change, "undone", "0", {"undone": "1"})

    async def release(self, change: str) -> None:
        await self._set(change, "undone", "1", {"undone": "0"})

    async def _set(
        self, change: str, field: str, expected: str, values: Mapping[str, str | None], call: str = ""
    ) -> bool:
        keys = [self._change(change), self._revision, *([self._unsettled(call)] if call else [])]
        return await self._server.run("settle", keys, change, field, expected, *_flat(values)) == 1

    async def revision(self) -> int:
        return int(await self._server.read("GET", self._revision) or 0)

    async def durability(self) -> Durability:
        """How the server keeps its data."""
        return await self._server.durability()

    async def aclose(self) -> None:
        await self._server.aclose()


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
        return read_request(
            dict.fromkeys(_OPTIONAL) | {name: value for name, value in fields.items() if name != "version"}
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnreadableRequest(fields) from None


def _read_change(fields: Mapping[str, str]) -> Change:
    return read_change({"target": None, "name": None, "unsettled_until": 0, "number": 0, **fields})


def _flat(values: Mapping[str, str | float | None]) -> list[str | float]:
    """Flatten fields and values into one list, without None values."""
    return [part for name, value in values.items() if value is not None for part in (name, value)]


def _lifetime(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _kept(until: float, now: float) -> int:
    return round(max(0.0, until - now) * 1000) + _DAY
