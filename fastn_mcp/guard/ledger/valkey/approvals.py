"""Approval requests, votes and temporary approvals on Valkey. Each transition is one script."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict

from fastn_mcp.errors import Refused
from fastn_mcp.guard.ledger.ledger import (
    MOST_WAITING,
    ApprovalRequest,
    RequestState,
    TemporaryApproval,
    TooManyWaiting,
    Transition,
    declines_after,
    read_request,
    stored_request,
)
from fastn_mcp.guard.ledger.valkey.server import KEPT, LONGEST_READ, LedgerPart, Server
from fastn_mcp.redaction import sanitize

_log = logging.getLogger(__name__)

_SAME = ("calls", "required", "principal", "account")
"""Fields by which two requests for one call are the same."""


class Requests(LedgerPart):
    """Approval requests of one ledger."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._waiting = server.key("waiting")
        self._decided = server.key("decided")
        self._changes = server.key("changes")

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

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        ids = await self._server.read("ZRANGE", self._server.key("call", call), 0, -1, "REV")
        found = await self._server.gather([self._request(id_) for id_ in ids])
        return next((request for request in map(_read, found) if request.is_found(now)), None)

    async def change_request(self, request: str, transition: Transition) -> ApprovalRequest | None:
        """Compare the version and retry, so that only one of several concurrent changes is made at a time."""
        while found := await self._server.gather([self._request(request)]):
            before = _read(found[0])
            after = transition(before)
            if after is None:
                return None
            is_open = after.state is RequestState.OPEN
            was = stored_request(before)
            changed = await self._server.run(
                "change",
                [*self._lists(after), self._server.key("declines", after.holder), self._changes],
                after.id,
                found[0]["version"],
                "" if is_open else after.decided or 0.0,
                after.expires,
                int(after.out_of_band),
                {None: "", 0: "approved", 1: "declined"}[declines_after(before, after)],
                KEPT,
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

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        ids = await self._server.read("ZRANGE", self._waiting, f"({now!r}", "+inf", "BYSCORE")
        open_ = [request for request in await self._readable(ids) if request.state is RequestState.OPEN]
        return sorted(open_, key=lambda request: request.created)

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


_OPTIONAL = ("target", "expected", "by", "note", "decided", "trace", "similar")


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


def _flat(values: Mapping[str, str | float | None]) -> list[str | float]:
    """Flatten fields and values into one list, without None values."""
    return [part for name, value in values.items() if value is not None for part in (name, value)]


class Scopes(LedgerPart):
    """Temporary approvals of one ledger."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._every = server.key("scopes")

    def _scope(self, id_: str) -> str:
        return self._server.key("scope", id_)

    def _covering(self, principal: str, account: str, tool: str, target: str, similar: str) -> str:
        return self._server.key("covering", self._server.digest(principal, account, tool, target, similar))

    async def add_temporary(self, approval: TemporaryApproval) -> None:
        of = (approval.principal, approval.account, approval.tool, approval.target, approval.similar)
        covering = self._covering(*of)
        keys = [self._scope(approval.id), covering, self._every, self._revision]
        lives = max(1, round((approval.expires - approval.created) * 1000))
        fields = json.dumps(asdict(approval))
        await self._server.run("scope", keys, approval.id, fields, approval.created, approval.expires, lives)

    async def find_temporary(
        self, principal: str, account: str, tool: str, target: str, similar: str, now: float
    ) -> TemporaryApproval | None:
        covering = self._covering(principal, account, tool, target, similar)
        return next(iter(await self._holding(covering, now)), None)

    async def temporary_approvals(self, now: float) -> list[TemporaryApproval]:
        return sorted(await self._holding(self._every, now), key=lambda scope: scope.created)

    async def revoke_temporary(self, approval: str) -> bool:
        return await self._server.run("remove", [self._scope(approval), self._revision]) == 1

    async def _holding(self, listed: str, now: float) -> list[TemporaryApproval]:
        ids: list[str] = await self._server.read("ZRANGE", listed, f"({now!r}", "+inf", "BYSCORE")
        if not ids:
            return []
        found: list[str | None] = await self._server.read("MGET", *map(self._scope, ids))
        return [TemporaryApproval(**json.loads(text)) for text in found if text is not None]
