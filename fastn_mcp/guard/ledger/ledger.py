"""The ledger: approvals, temporary approvals, budgets, journal and batches. One contract for SQLite and Valkey.

Times are Unix seconds. An exception from any method is a refusal of the call that it was asked for.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.changes import Journal
from fastn_mcp.guard.policy import Decision

MOST_WAITING = 32
"""Open requests of one principal on one account ."""


class TooManyWaiting(Refused):
    """More questions are open than a person can be expected to answer."""

    def __init__(self) -> None:
        super().__init__(
            f"{MOST_WAITING} calls are waiting for an approval already.", "Let a person decide about them first."
        )


class LedgerLost(Refused):
    """The ledger did not do it, or its answer was lost: then it may have. What may have been spent counts as spent."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The shared ledger cannot be used ({why}).",
            "Reads go on. Call again later; an approval that was just being used may have to be given anew.",
        )


class LedgerUnusable(Refused):
    """The ledger's file cannot be used. `cure` is what a person has to do."""

    def __init__(self, file: str, why: str, cure: str) -> None:
        super().__init__(f"The ledger {file} cannot be used: {why}.", f"Reads go on. A person has to act: {cure}")


_KEY = " key:"


def bound_account(name: str, key: str) -> str:
    """An account as the ledger knows it: its name, and the digest of its key. Accounts of one name share nothing."""
    return f"{name}{_KEY}{key}" if key else name


def account_name(account: str) -> str:
    """The name of an account, for people."""
    return account.rpartition(_KEY)[0] or account


def holder(principal: str, account: str) -> str:
    """Who calls on which account: whose declines, distrusted channels and open requests are counted together."""
    name, _, key = account.rpartition(_KEY)
    return f"{key} {principal}" if name else principal


class RequestState(Enum):
    """What became of an approval request. Only what is OPEN can be decided, and only what is APPROVED can be used."""

    OPEN = "open"
    APPROVED = "approved"
    USED = "used"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class ShownCall:
    """One call of an approval request, as a person saw it."""

    binding: str
    """Digest of the call, its target's state and the policy. A change to any of them voids the approval."""
    dependents: Mapping[str, float | None]
    """By kind (`Dependence.counts`): fewer of them are no change."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one approver said of a request: a person told from all others by a credential, or else the channel."""

    approver: str
    approves: bool
    at: float


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What a person is asked: one call or one batch. It is decided once, then used once for each call."""

    id: str
    principal: str
    account: str
    tool: str
    target: str | None
    call: str
    """Digest of who calls what, with which arguments, on which account; or the id of a batch."""
    calls: Mapping[int, ShownCall]
    """The calls by number, as they were shown."""
    required: str
    """The decision of the policy: confirm, typed, out_of_band, four_eyes."""
    expected: str | None
    """What has to be typed, where typing is required."""
    allows_temporary: bool
    """Whether the approval may cover this tool on this target for a while."""
    out_of_band: bool
    """The channel that can decide it now: the approval page, a terminal or a webhook; otherwise the client's form."""
    preview: Mapping[str, JsonValue]
    text: tuple[str, ...]
    """The preview, in words."""
    created: float
    expires: float
    state: RequestState = RequestState.OPEN
    by: str | None = None
    note: str | None = None
    decided: float | None = None
    trace: str | None = None
    """In what it was asked, as `System.trace` names it."""
    similar: str | None = None
    """Digest of the calls that a temporary approval would cover."""
    extent: str = ""
    """Those calls, in words."""
    votes: tuple[Vote, ...] = ()
    """The oldest first. One of each approver: an approval can be taken back as long as the request is open."""
    used: tuple[int, ...] = ()
    """The numbers of the calls for which it was used."""

    @property
    def holder(self) -> str:
        """Whose open requests and declines it is counted with."""
        return holder(self.principal, self.account)

    @property
    def needed(self) -> int:
        """How many people have to approve it."""
        return 2 if self.required == Decision.FOUR_EYES.value else 1

    @property
    def approvers(self) -> list[str]:
        """Who approves it so far."""
        return [vote.approver for vote in self.votes if vote.approves]

    def is_found(self, now: float) -> bool:
        """Whether the same call, made again, finds it. A form answers its own call, or all calls of one batch."""
        answered = self.state is RequestState.APPROVED and len(self.calls) > 1
        usable = self.state in (RequestState.OPEN, RequestState.APPROVED, RequestState.DECLINED)
        return usable and self.expires > now and (self.out_of_band or answered)

    def with_vote(self, vote: Vote, by: str, note: str | None, *, out_of_band: bool) -> "ApprovalRequest | None":
        """The request once a vote is counted, at the time of the vote; None where it does not count.

        One no declines, and the last approval that is needed approves. A batch has its whole time from then on.
        """
        if self.state is not RequestState.OPEN or self.expires <= vote.at or self.out_of_band is not out_of_band:
            return None
        before = next((one for one in self.votes if one.approver == vote.approver), None)
        if before is not None and (vote.approves or not before.approves):
            return None
        counted = replace(self, votes=(*(one for one in self.votes if one is not before), vote))
        if vote.approves and len(counted.approvers) < self.needed:
            return counted
        state = RequestState.APPROVED if vote.approves else RequestState.DECLINED
        until = vote.at + self.expires - self.created if vote.approves and len(self.calls) > 1 else self.expires
        return replace(counted, state=state, by=by, note=note or self.note, decided=vote.at, expires=until)

    def with_use(self, number: int, now: float) -> "ApprovalRequest | None":
        """The request once it is used for one of its calls; None where it cannot be."""
        if self.state is not RequestState.APPROVED or self.expires <= now:
            return None
        if number in self.used or number not in self.calls:
            return None
        used = (*self.used, number)
        state = RequestState.USED if len(used) == len(self.calls) else self.state
        return replace(self, used=used, state=state, decided=now)

    def without_effect(
        self, state: RequestState, now: float, by: str | None, note: str | None
    ) -> "ApprovalRequest | None":
        """The request without effect from now on; None where it has none already."""
        if self.state not in (RequestState.OPEN, RequestState.APPROVED) or self.expires <= now:
            return None
        return replace(self, state=state, by=by or self.by, note=note or self.note, decided=now)

    def expired(self, now: float) -> "ApprovalRequest | None":
        """The request without an answer, if its time is over."""
        if self.state is not RequestState.OPEN or self.expires > now:
            return None
        return replace(self, state=RequestState.UNANSWERED, decided=self.expires)

    def offered(self, expires: float) -> "ApprovalRequest | None":
        """The request of a form that nobody answered, now decided out of band; None where it is decided already."""
        if self.state is not RequestState.OPEN or self.out_of_band:
            return None
        return replace(self, out_of_band=True, expires=expires)


def declines_after(before: ApprovalRequest, after: ApprovalRequest) -> int | None:
    """1 where a change is one more decline of its holder, 0 where it ends their count, None where it is neither.

    An approval out of band ends it at once, one in a form when it is used: a person who reads may overlook others.
    """
    if after.state is RequestState.DECLINED and before.state is RequestState.OPEN:
        return 1
    approved = after.out_of_band and after.state is RequestState.APPROVED and before.state is RequestState.OPEN
    return 0 if approved or after.used != before.used else None


Transition = Callable[[ApprovalRequest], ApprovalRequest | None]


def stored_request(request: ApprovalRequest) -> dict[str, str | int | float | None]:
    """The fields of a request as texts and numbers; structures as JSON."""
    values: dict[str, Any] = {name: getattr(request, name) for name in ApprovalRequest.__dataclass_fields__}
    calls = {number: (shown.binding, shown.dependents) for number, shown in request.calls.items()}
    votes = [(vote.approver, vote.approves, vote.at) for vote in request.votes]
    values |= {"preview": json.dumps(request.preview), "text": json.dumps(request.text), "state": request.state.value}
    values |= {"calls": json.dumps(calls), "votes": json.dumps(votes), "used": json.dumps(request.used)}
    return values | {name: int(values[name]) for name in ("allows_temporary", "out_of_band")}


def read_request(stored: Mapping[str, Any]) -> ApprovalRequest:
    """The reverse of `stored_request`, of numbers or their texts. Raises where it was not written so."""
    values: dict[str, Any] = dict(stored)
    values |= {name: json.loads(values[name]) for name in ("preview", "text", "calls", "votes", "used")}
    values |= {name: int(values[name]) == 1 for name in ("allows_temporary", "out_of_band")}
    values |= {name: float(values[name]) for name in ("created", "expires", "decided") if values[name] is not None}
    values["calls"] = {int(number): ShownCall(*shown) for number, shown in values["calls"].items()}
    values |= {"votes": tuple(Vote(*vote) for vote in values["votes"]), "used": tuple(values["used"])}
    values |= {"text": tuple(values["text"]), "state": RequestState(values["state"])}
    return ApprovalRequest(**values)


@dataclass(frozen=True, slots=True)
class TemporaryApproval:
    """The right to make similar calls of one tool on one target, until it ends or is revoked."""

    id: str
    principal: str
    account: str
    tool: str
    target: str
    created: float
    expires: float
    by: str
    similar: str = ""
    """Digest of what they share: key, policy, principal, target, argument names and the values that are not free."""
    extent: str = ""
    """The same in words."""


def rate_free_at(uses: Sequence[float], most: int, seconds: float) -> float:
    """When a budget that allows `most` within any `seconds` can be used after `uses`; 0 for at once."""
    return 0.0 if len(uses) < most else uses[-most] + seconds


class Ledger(Journal, Protocol):
    """Keeps approval requests, votes, temporary approvals, budgets, declines, the journal and batches."""

    async def open(self, request: ApprovalRequest) -> str:
        """Record a request, and return its id.

        If the same is asked out of band already, the id of that request is returned and nothing is recorded: of
        replicas that ask at once one opens a request. Raises `TooManyWaiting`.
        """
        ...

    async def find(self, request: str) -> ApprovalRequest | None:
        """The request of this id, whatever became of it."""
        ...

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        """The newest request for this exact call that it finds (`ApprovalRequest.is_found`)."""
        ...

    async def change_request(self, request: str, transition: Transition) -> ApprovalRequest | None:
        """Replace a request by what `transition` makes of it, atomically; None where it makes nothing of it.

        Counts the declines of its holder in the same step (`declines_after`).
        """
        ...

    async def expiring(self, account: str, now: float) -> Sequence[str]:
        """The ids of open requests on an account whose time is over."""
        ...

    async def decide(
        self, request: ApprovalRequest, vote: Vote, by: str, note: str | None = None
    ) -> ApprovalRequest | None:
        """Count a person's answer, given through the channel that `request` had when they were asked.

        The request after it, or None where it does not count: it is not open, has expired, is at another channel, or
        this approver has said it already.
        """
        return await self.change_request(
            request.id, lambda found: found.with_vote(vote, by, note, out_of_band=request.out_of_band)
        )

    async def use(self, request: str, number: int, now: float) -> ApprovalRequest | None:
        """Use an approval for one of its calls. None for all attempts but the first, and where it is not approved."""
        return await self.change_request(request, lambda found: found.with_use(number, now))

    async def void(
        self, request: str, state: RequestState, now: float, *, by: str | None = None, note: str | None = None
    ) -> ApprovalRequest | None:
        """Void a request, or an approval that is not used up; None where there was nothing to void."""
        return await self.change_request(request, lambda found: found.without_effect(state, now, by, note))

    async def offer(self, request: str, expires: float) -> ApprovalRequest | None:
        """Move the request of a form to the out-of-band channel; None where it was decided, or moved, before."""
        return await self.change_request(request, lambda found: found.offered(expires))

    async def expire(self, account: str, now: float) -> list[ApprovalRequest]:
        """Move what ran out unanswered to UNANSWERED, by nobody and at its end: of several processes one gets each."""
        ids = await self.expiring(account, now)
        ended = [await self.change_request(id_, lambda found: found.expired(now)) for id_ in ids]
        return [request for request in ended if request is not None]

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        """Note that a nonce was used, atomically, and keep it until `until`; False where it was used before."""
        ...

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        """What waits out of band and is not decided, the oldest first."""
        ...

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        """What was decided or spent, or has expired, the newest first."""
        ...

    async def add_temporary(self, approval: TemporaryApproval) -> None:
        """Record a temporary approval."""
        ...

    async def find_temporary(
        self, principal: str, account: str, tool: str, target: str, similar: str, now: float
    ) -> TemporaryApproval | None:
        """The temporary approval that covers this, if there is one."""
        ...

    async def temporary_approvals(self, now: float) -> list[TemporaryApproval]:
        """The temporary approvals that hold."""
        ...

    async def revoke_temporary(self, approval: str) -> bool:
        """End a temporary approval at once; False where there is none."""
        ...

    async def spent(self, budget: str, period: str) -> int:
        """How much of a budget is used in a period, as a day."""
        ...

    async def spend(self, budget: str, period: str, limit: int) -> bool:
        """Use one of a budget, atomically; False where the limit is reached."""
        ...

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        """Use one of a budget that allows `most` within any `seconds`, atomically: 0, or when the next one is free."""
        ...

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        """When such a budget was used within the last `seconds`, the oldest first."""
        ...

    async def declines(self, principal: str) -> tuple[int, float]:
        """Declines in a row, and when the last one was."""
        ...

    async def distrust(self, principal: str, channel: str, until: float) -> None:
        """Note that a channel does not reach a person."""
        ...

    async def distrusted(self, principal: str, channel: str, now: float) -> bool:
        """Whether a channel was found not to reach a person."""
        ...

    async def note_limit(self, key: str, until: float, now: float) -> None:
        """Remember that the rate limit of an API key, which `key` stands for, is used up; a later `until` stays."""
        ...

    async def limited(self, key: str) -> float:
        """Until when it is; a time that is over, or 0, where it is not."""
        ...

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        """Keep the number and hash of an entry of an audit log; a greater number stays."""
        ...

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        """The number and hash that were kept of an audit log."""
        ...

    async def aclose(self) -> None:
        """Close what was opened. The next use opens it again."""
        ...

    async def revision(self) -> int:
        """A number that differs after any change, by whatever process."""
        ...
