"""Approvals, votes and temporary approvals on Valkey. Each transition is one script."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fastn_mcp.errors import Refused
from fastn_mcp.guard.ledger.ledger import (
    MOST_WAITING,
    ApprovalRequest,
    RequestState,
    TemporaryApproval,
    TooManyWaiting,
    Vote,
    holder,
)
from fastn_mcp.guard.ledger.valkey.server import KEPT, Server
from fastn_mcp.redaction import sanitize

_log = logging.getLogger(__name__)

_SAME = ("binding", "required", "principal", "account")
"""What two grants of one call have in common, if they ask the same."""


class Grants:
    """The grants of one ledger."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting = server.key("waiting")
        self._decided = server.key("decided")
        self._revision = server.key("revision")

    def _grant(self, id_: str) -> str:
        return self._server.key("grant", id_)

    def _open_of(self, holder: str) -> str:
        return self._server.key("open", holder)

    def _expiring_of(self, account: str) -> str:
        return self._server.key("expiring", account)

    async def open(self, grant: ApprovalRequest) -> str:
        at = grant.created if grant.decided is None else grant.decided
        opened = await self._server.run(
            "open",
            [
                self._grant(grant.id),
                self._open_of(grant.holder),
                self._server.key("call", grant.call),
                self._waiting,
                self._decided,
                self._revision,
                self._expiring_of(grant.account),
            ],
            grant.id,
            grant.created,
            grant.expires,
            int(grant.out_of_band),
            MOST_WAITING,
            KEPT,
            "" if grant.state is RequestState.OPEN else at,
            self._grant(""),
            *_SAME,
            *(getattr(grant, name) for name in _SAME),
            *_flat(_written(grant)),
        )
        if isinstance(opened, str):
            return opened
        if opened == 0:
            raise TooManyWaiting
        if opened != 1:
            raise ValueError("a grant of this id exists already")
        return grant.id

    async def find(self, grant: str) -> ApprovalRequest | None:
        found = await self._server.gather([self._grant(grant)])
        return _read(found[0]) if found else None

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        ids = await self._server.read("ZRANGE", self._server.key("call", call), 0, -1, "REV")
        usable = (RequestState.OPEN, RequestState.APPROVED, RequestState.DECLINED)
        return next((grant for grant in await self._all(ids) if grant.state in usable and grant.expires > now), None)

    async def move(
        self,
        grant: str,
        before: Iterable[RequestState],
        after: RequestState,
        now: float,
        *,
        by: str | None = None,
        note: str | None = None,
    ) -> bool:
        # Of whom a grant is never changes, so that it can be asked for first: a script names all keys that it touches.
        principal, account = await self._server.read("HMGET", self._grant(grant), "principal", "account")
        if principal is None:
            return False
        states = [state.value for state in before]
        keys = [
            self._grant(grant),
            self._open_of(holder(principal, account)),
            self._waiting,
            self._decided,
            self._revision,
        ]
        said = _flat({"by": by, "note": note})
        moved = await self._server.run("move", keys, grant, now, after.value, KEPT, len(states), *states, *said)
        return moved == 1

    async def vote(self, vote: Vote, needed: int, *, by: str, note: str | None = None) -> RequestState | None:
        principal, account = await self._server.read("HMGET", self._grant(vote.grant), "principal", "account")
        if principal is None:
            return None
        keys = [
            self._grant(vote.grant),
            self._server.key("votes", vote.grant),
            self._open_of(holder(principal, account)),
            self._waiting,
            self._decided,
            self._revision,
        ]
        counted = (vote.grant, vote.approver, int(vote.approves), vote.at, needed, KEPT)
        after = await self._server.run("vote", keys, *counted, *_flat({"by": by, "note": note}))
        return RequestState(after) if after else None

    async def votes(self, grant: str) -> list[Vote]:
        found = await self._server.gather([self._server.key("votes", grant)])
        votes = [(approver, *text.split(" ")) for approver, text in (found[0] if found else {}).items()]
        votes.sort(key=lambda vote: (float(vote[2]), int(vote[3])))
        return [Vote(grant, approver, approves == "1", float(at)) for approver, approves, at, _ in votes]

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        ids = await self._server.read("ZRANGE", self._waiting, f"({now!r}", "+inf", "BYSCORE")
        open_ = [grant for grant in await self._readable(ids) if grant.state is RequestState.OPEN]
        return sorted(open_, key=lambda grant: grant.created)

    async def expire(self, account: str, now: float) -> list[ApprovalRequest]:
        expiring = self._expiring_of(account)
        ids = await self._server.read("ZRANGE", expiring, "-inf", repr(now), "BYSCORE")
        found = {fields["id"]: fields for fields in await self._server.gather([self._grant(id_) for id_ in ids])}
        expired: list[str] = []
        for id_ in ids:
            holding = holder(found.get(id_, {}).get("principal", ""), account)
            keys = [self._grant(id_), self._open_of(holding), self._waiting, self._decided, self._revision, expiring]
            if await self._server.run("expire", keys, id_, now, KEPT) == 1:
                expired.append(id_)
        return await self._readable(expired)

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        return await self._readable(await self._server.read("ZRANGE", self._decided, 0, limit - 1, "REV"))

    async def _all(self, ids: Iterable[str]) -> list[ApprovalRequest]:
        return [_read(fields) for fields in await self._server.gather([self._grant(id_) for id_ in ids])]

    async def _readable(self, ids: Iterable[str]) -> list[ApprovalRequest]:
        """Those that can be read; the others are named in the log. For lists only: nothing is decided by them."""
        found: list[ApprovalRequest] = []
        unreadable: list[str] = []
        for fields in await self._server.gather([self._grant(id_) for id_ in ids]):
            try:
                found.append(_read(fields))
            except UnreadableGrant as grant:
                unreadable.append(grant.id)
        if unreadable:
            names = ", ".join(unreadable[:10])
            _log.warning("approval requests left out, which this version cannot read: %d (%s)", len(unreadable), names)
        return found


def _written(grant: ApprovalRequest) -> Mapping[str, str | float | None]:
    values: dict[str, Any] = {name: getattr(grant, name) for name in ApprovalRequest.__dataclass_fields__}
    values |= {"preview": json.dumps(grant.preview), "text": json.dumps(grant.text), "state": grant.state.value}
    values["dependents"] = None if grant.dependents is None else json.dumps(grant.dependents)
    return values | {"allows_temporary": int(grant.allows_temporary), "out_of_band": int(grant.out_of_band)}


_OPTIONAL = ("target", "expected", "by", "note", "decided", "trace", "dependents", "similar")


class UnreadableGrant(Refused):
    """A stored approval that another version wrote, or that was damaged. It approves nothing."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.id = sanitize(fields.get("id", "?")[:64])
        super().__init__(
            f"The stored approval {self.id} cannot be read.",
            "A person has to update this server, or wait until the approval has expired.",
        )


def _read(fields: Mapping[str, str]) -> ApprovalRequest:
    try:
        return _parsed(fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UnreadableGrant(fields) from None


def _parsed(fields: Mapping[str, str]) -> ApprovalRequest:
    values: dict[str, Any] = dict.fromkeys(_OPTIONAL) | dict(fields)
    values |= {"preview": json.loads(values["preview"]), "text": tuple(json.loads(values["text"]))}
    values |= {name: values[name] == "1" for name in ("allows_temporary", "out_of_band")}
    values |= {name: float(values[name]) for name in ("created", "expires", "decided") if values[name] is not None}
    values["state"] = RequestState(values["state"])
    values["dependents"] = json.loads(values["dependents"] or "null")
    return ApprovalRequest(**values)


def _flat(values: Mapping[str, str | float | None]) -> list[str | float]:
    """Fields and values in turn, without those that are not there."""
    return [part for name, value in values.items() if value is not None for part in (name, value)]


class Scopes:
    """The scopes of one ledger."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._every = server.key("scopes")
        self._revision = server.key("revision")

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
