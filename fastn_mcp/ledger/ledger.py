"""Interface of the ledger (SQLite or Valkey): approvals, temporary approvals, budgets, journal and batches.

Times are Unix seconds. If a method raises, the call that needed it is refused.
"""

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.changes import Change, Journal
from fastn_mcp.policy.policy import Decision

MOST_WAITING = 32
"""Limit of open requests of one principal on one account."""


class TooManyWaiting(Refused):
    """The principal has `MOST_WAITING` open requests: more than a person can be expected to answer."""

    def __init__(self) -> None:
        super().__init__(
            f"{MOST_WAITING} calls are waiting for an approval already.", "Let a person decide about them first."
        )


class LedgerLost(Refused):
    """The ledger failed, or its reply was lost. An approval or budget that may have been used counts as used."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The shared ledger cannot be used ({why}).",
            "Reads go on. Call again later; an approval that was just being used may have to be given anew.",
        )


class LedgerUnusable(Refused):
    """The ledger's file cannot be used. `cure` tells a person what to do."""

    def __init__(self, file: str, why: str, cure: str) -> None:
        super().__init__(f"The ledger {file} cannot be used: {why}.", f"Reads go on. A person has to act: {cure}")


_KEY = " key:"


def bound_account(name: str, key: str) -> str:
    """Return the ledger's id of an account: its name and the digest of its key. Accounts of one name share nothing."""
    return f"{name}{_KEY}{key}" if key else name


def account_name(account: str) -> str:
    """Return the display name of a bound account."""
    return account.rpartition(_KEY)[0] or account


def who(principal: str, name: str | None) -> str:
    """Return a person as recorded: their name beside the principal, or the principal alone."""
    return f"{name} ({principal})" if name and name != principal.partition("|")[2] else principal


def without_issuers(people: str) -> str:
    """Return a text of `who` without the issuers of the principals, for people of the same issuer."""
    return _ISSUER.sub("", people)


_ISSUER = re.compile(r"https?://[^\s|()]+\|")


def holder(principal: str, account: str) -> str:
    """Return the key under which declines, distrusted channels and open requests of a caller are counted."""
    name, _, key = account.rpartition(_KEY)
    return f"{key} {principal}" if name else principal


class RequestState(Enum):
    """State of an approval request. Only an OPEN one can be decided, and only an APPROVED one can be used."""

    OPEN = "open"
    APPROVED = "approved"
    USED = "used"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class ShownCall:
    """One call of an approval request, as it was shown."""

    binding: str
    """Digest of the call, its target's state and the policy. A change to any of them voids the approval."""
    dependents: Mapping[str, float | None]
    """Counts by kind (`Dependence.counts`). Fewer of them do not void the approval."""


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote of one approver: a person identified by a credential of their own, or else the channel.

    A person has one identity on every channel, which `approver` holds.
    """

    approver: str
    approves: bool
    at: float
    name: str = ""
    """Name of the person at the time, for people. It identifies nobody."""
    is_temporary: bool = False
    """Whether it also approves similar calls for a while, once the request's approval is used."""

    def is_of(self, approver: str) -> bool:
        """Whether it may be of this approver. Identities that differ only in case count as one person."""
        return self.approver.casefold() == approver.casefold()


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """What an approver typed, sealed. It is stored with their vote, and deleted with what the vote is good for."""

    approver: str
    text: str = field(repr=False)
    lifetime: float
    """Seconds for which it is kept at most."""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """Request for approval of one call or one batch. It is decided once, then used once for each call."""

    id: str
    principal: str
    account: str
    tool: str
    target: str | None
    call: str
    """Digest of the call (`CallEvaluation.digest`), or the id of the batch."""
    calls: Mapping[int, ShownCall]
    """The calls as they were shown, by number."""
    required: str
    """Policy decision: confirm, typed, out_of_band or four_eyes."""
    expected: str | None
    """Text that has to be typed to approve; None if none is required."""
    allows_temporary: bool
    """Whether a temporary approval may be given."""
    out_of_band: bool
    """Whether it is decided out of band (approval page, terminal or webhook) rather than in the client's form."""
    preview: Mapping[str, JsonValue]
    text: tuple[str, ...]
    """Lines of the preview."""
    created: float
    expires: float
    state: RequestState = RequestState.OPEN
    by: str | None = None
    note: str | None = None
    decided: float | None = None
    trace: str | None = None
    """Trace in which it was opened, as `System.trace` returns it."""
    similar: str | None = None
    """Digest of the calls that a temporary approval would cover."""
    extent: str = ""
    """Description of those calls."""
    votes: tuple[Vote, ...] = ()
    """Oldest first, one per approver. While the request is open, an approver can replace an approval by a decline."""
    used: tuple[int, ...] = ()
    """Numbers of the calls for which it was used."""

    @property
    def holder(self) -> str:
        """Key under which its open requests and declines are counted."""
        return holder(self.principal, self.account)

    @property
    def asked_by(self) -> str | None:
        """Name of the person or the client that asked, as it was given then; None if it was not."""
        name = self.preview.get("asked_by")
        return name if isinstance(name, str) else None

    @property
    def person(self) -> str | None:
        """Name of the person who asked, from their sign-in; None without one."""
        return self.asked_by if "|" in self.principal else None

    @property
    def people(self) -> list[str]:
        """Approvers who have approved it so far, each with their name."""
        return [who(vote.approver, vote.name) for vote in self.votes if vote.approves]

    @property
    def needed(self) -> int:
        """Number of people who have to approve it."""
        return 2 if self.required == Decision.FOUR_EYES.value else 1

    @property
    def approvers(self) -> list[str]:
        """Approvers who have approved it so far."""
        return [vote.approver for vote in self.votes if vote.approves]

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of it. What was typed for it is deleted then."""
        return self.state not in (RequestState.OPEN, RequestState.APPROVED)

    def is_found(self, now: float) -> bool:
        """Whether a repeated call finds it. A request in a form is found only if it is an approved batch."""
        answered = self.state is RequestState.APPROVED and len(self.calls) > 1
        usable = self.state in (RequestState.OPEN, RequestState.APPROVED, RequestState.DECLINED)
        return usable and self.expires > now and (self.out_of_band or answered)

    def with_vote(self, vote: Vote, by: str, note: str | None, *, out_of_band: bool) -> "ApprovalRequest | None":
        """Return the request with this vote, or None if the vote does not count.

        One decline declines it; the last approval needed approves it. The lifetime of an approved batch restarts then.
        """
        if self.state is not RequestState.OPEN or self.expires <= vote.at or self.out_of_band is not out_of_band:
            return None
        before = next((one for one in self.votes if one.is_of(vote.approver)), None)
        if before is not None and (vote.approves or not before.approves):
            return None
        counted = replace(self, votes=(*(one for one in self.votes if one is not before), vote))
        if vote.approves and len(counted.approvers) < self.needed:
            return counted
        state = RequestState.APPROVED if vote.approves else RequestState.DECLINED
        until = vote.at + self.expires - self.created if vote.approves and len(self.calls) > 1 else self.expires
        return replace(counted, state=state, by=by, note=note or self.note, decided=vote.at, expires=until)

    def with_use(self, number: int, now: float) -> "ApprovalRequest | None":
        """Return the request as used for one of its calls; None if it cannot be used for that."""
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
        """Return the request in the final `state`; None if it was neither open nor approved, or has expired."""
        if self.is_over or self.expires <= now:
            return None
        return replace(self, state=state, by=by or self.by, note=note or self.note, decided=now)

    def expired(self, now: float) -> "ApprovalRequest | None":
        """Return the request as UNANSWERED; None if it is not open or has not expired."""
        if self.state is not RequestState.OPEN or self.expires > now:
            return None
        return replace(self, state=RequestState.UNANSWERED, decided=self.expires)

    def offered(self, expires: float) -> "ApprovalRequest | None":
        """Return the request moved from the form to the out-of-band channel; None if it is decided or moved already."""
        if self.state is not RequestState.OPEN or self.out_of_band:
            return None
        return replace(self, out_of_band=True, expires=expires)


def declines_after(before: ApprovalRequest, after: ApprovalRequest) -> int | None:
    """Return 1 if the change adds a decline of its holder, 0 if it resets their count, None if it does neither.

    An out-of-band approval resets the count when it is given. Any approval resets it when it is used.
    """
    if after.state is RequestState.DECLINED and before.state is RequestState.OPEN:
        return 1
    approved = after.out_of_band and after.state is RequestState.APPROVED and before.state is RequestState.OPEN
    return 0 if approved or after.used != before.used else None


Transition = Callable[[ApprovalRequest], ApprovalRequest | None]


def stored_request(request: ApprovalRequest) -> dict[str, str | int | float | None]:
    """Serialize the fields of a request to strings and numbers. Structures become JSON."""
    values: dict[str, Any] = {name: getattr(request, name) for name in ApprovalRequest.__dataclass_fields__}
    calls = {number: (shown.binding, shown.dependents) for number, shown in request.calls.items()}
    votes = [astuple(vote) for vote in request.votes]
    values |= {"preview": json.dumps(request.preview), "text": json.dumps(request.text), "state": request.state.value}
    values |= {"calls": json.dumps(calls), "votes": json.dumps(votes), "used": json.dumps(request.used)}
    return values | {name: int(values[name]) for name in ("allows_temporary", "out_of_band")}


def read_request(stored: Mapping[str, Any]) -> ApprovalRequest:
    """Deserialize the fields of `stored_request`. Numbers may be strings. Raises if the format is not valid."""
    values: dict[str, Any] = dict(stored)
    values |= {name: json.loads(values[name]) for name in ("preview", "text", "calls", "votes", "used")}
    values |= {name: int(values[name]) == 1 for name in ("allows_temporary", "out_of_band")}
    values |= {name: float(values[name]) for name in ("created", "expires", "decided") if values[name] is not None}
    values["calls"] = {int(number): ShownCall(*shown) for number, shown in values["calls"].items()}
    values |= {"votes": tuple(Vote(*vote) for vote in values["votes"]), "used": tuple(values["used"])}
    values |= {"text": tuple(values["text"]), "state": RequestState(values["state"])}
    return ApprovalRequest(**values)


_JSON = ("arguments", "before", "sent")
"""Fields of a change that are stored as JSON."""


def stored_change(change: Change) -> dict[str, str | int | float | None]:
    """Serialize the fields of a change to strings and numbers. Structures become JSON."""
    values: dict[str, Any] = {name: getattr(change, name) for name in Change.__dataclass_fields__}
    return values | {name: json.dumps(values[name]) for name in _JSON} | {"undone": int(change.undone)}


def read_change(stored: Mapping[str, Any]) -> Change:
    """Deserialize the fields of `stored_change`. Numbers may be strings."""
    values: dict[str, Any] = dict(stored)
    values |= {name: json.loads(values[name]) for name in _JSON}
    values |= {name: float(values[name]) for name in ("at", "unsettled_until")}
    values |= {"undone": int(values["undone"]) == 1, "number": int(values["number"])}
    return Change(**values)


@dataclass(frozen=True, slots=True)
class TemporaryApproval:
    """Approval of similar calls of one tool on one target, until it expires or is revoked."""

    id: str
    principal: str
    account: str
    tool: str
    target: str
    created: float
    expires: float
    by: str
    similar: str = ""
    """Digest of principal, account, key, tool, argument names, values that are not free, policy and effect."""
    extent: str = ""
    """Description of the calls that it covers."""
    person: str = ""
    """Name of the person who asked for it, if they signed in."""


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """A budget in a period, such as a day, and how many uses it allows there."""

    budget: str
    period: str
    limit: int


def rate_free_at(uses: Sequence[float], most: int, seconds: float) -> float:
    """Return when a rate budget of `most` uses within any `seconds` can be used again after `uses`; 0 if now."""
    return 0.0 if len(uses) < most else uses[-most] + seconds


class Ledger(Journal, Protocol):
    """Storage of approval requests, votes, temporary approvals, budgets, declines, the journal and batches."""

    async def open(self, request: ApprovalRequest) -> str:
        """Record a request, and return its id.

        If it is out of band and the same request is open already, return the id of that one and record nothing, so
        that concurrent replicas open one request. Raises `TooManyWaiting`.
        """
        ...

    async def find(self, request: str) -> ApprovalRequest | None:
        """Return the request with this id, in any state; None if there is none."""
        ...

    async def still_open(self, requests: Collection[str]) -> set[str]:
        """Return which of these requests are open, in one read."""
        ...

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        """Return the newest request for this exact call for which `ApprovalRequest.is_found` is true, or None."""
        ...

    async def change_request(
        self, request: str, transition: Transition, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        """Replace a request by the result of `transition`, atomically. None if `transition` returns None.

        In the same step, update the decline count of its holder (`declines_after`), and store `secret` or, if the
        request `is_over`, delete all that was typed for it.
        """
        ...

    async def expiring(self, account: str, now: float) -> Sequence[str]:
        """Return the ids of open requests on an account that have expired."""
        ...

    async def decide(
        self, request: ApprovalRequest, vote: Vote, by: str, note: str | None = None, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        """Count a vote, given through the channel that `request` had when it was shown, with what was typed for it.

        Return the updated request, or None if the vote does not count: the request is not open, has expired or was
        moved to another channel, or this approver has voted already (a decline may still replace an approval). One with
        a `secret` does not count either if `request` lacks a vote, with which it was not compared.
        """

        def counted(found: ApprovalRequest) -> ApprovalRequest | None:
            if secret is not None and found.votes != request.votes:
                return None
            return found.with_vote(vote, by, note, out_of_band=request.out_of_band)

        return await self.change_request(request.id, counted, secret)

    async def use(self, request: str, number: int, now: float) -> ApprovalRequest | None:
        """Use an approval for one of its calls. None if it was used for that call before or is not approved."""
        return await self.change_request(request, lambda found: found.with_use(number, now))

    async def void(
        self, request: str, state: RequestState, now: float, *, by: str | None = None, note: str | None = None
    ) -> ApprovalRequest | None:
        """Void an open request or an approval that is not used up; None if there was nothing to void."""
        return await self.change_request(request, lambda found: found.without_effect(state, now, by, note))

    async def offer(self, request: str, expires: float) -> ApprovalRequest | None:
        """Move a request from the form to the out-of-band channel; None if it was decided or moved before."""
        return await self.change_request(request, lambda found: found.offered(expires))

    async def expire(self, account: str, now: float) -> list[ApprovalRequest]:
        """Mark expired open requests UNANSWERED as of their expiry, and return them, each to only one process."""
        ids = await self.expiring(account, now)
        ended = [await self.change_request(id_, lambda found: found.expired(now)) for id_ in ids]
        return [request for request in ended if request is not None]

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        """Record the use of a nonce, atomically, and keep it until `until`; False if it was used before."""
        ...

    async def sealed(self, request: str, approver: str, now: float) -> str | None:
        """Return what an approver typed for a request, sealed; None if nothing, or if the request is over."""
        ...

    async def open_requests(self, account: str, now: float) -> list[ApprovalRequest]:
        """Return the open requests of an account that have not expired, in forms too."""
        ...

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        """Return the open out-of-band requests, oldest first."""
        ...

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        """Return at most `limit` requests that are no longer open, newest first."""
        ...

    async def add_temporary(self, approval: TemporaryApproval) -> None:
        """Record a temporary approval."""
        ...

    async def find_temporary(
        self, principal: str, account: str, tool: str, target: str, similar: str, now: float
    ) -> TemporaryApproval | None:
        """Return the temporary approval that covers a call; None if there is none."""
        ...

    async def temporary_approvals(self, now: float) -> list[TemporaryApproval]:
        """Return the temporary approvals that have not expired."""
        ...

    async def revoke_temporary(self, approval: str) -> bool:
        """Revoke a temporary approval at once; False if there is none."""
        ...

    async def spent(self, budget: str, period: str) -> int:
        """Return the uses of a budget in a period, such as a day."""
        ...

    async def spend_all(self, limits: Sequence[BudgetLimit]) -> bool:
        """Count one use of each budget, atomically; False, and none is counted, if one of the limits is reached."""
        ...

    async def spend(self, budget: str, period: str, limit: int) -> bool:
        """Count one use of a budget, atomically; False if the limit is reached."""
        return await self.spend_all([BudgetLimit(budget, period, limit)])

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        """Count one use of a budget of `most` within any `seconds`, atomically. Return 0, or when it is free again."""
        ...

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        """Return the times at which a rate budget was used within the last `seconds`, oldest first."""
        ...

    async def declines(self, principal: str) -> tuple[int, float]:
        """Return the number of consecutive declines and the time of the last one."""
        ...

    async def distrust(self, principal: str, channel: str, until: float) -> None:
        """Record that a channel does not reach a person, until `until`."""
        ...

    async def distrusted(self, principal: str, channel: str, now: float) -> bool:
        """Whether a channel is recorded as not reaching a person."""
        ...

    async def note_limit(self, key: str, until: float, now: float) -> None:
        """Record that an API key, identified by `key`, is rate limited until `until`. A later time is kept."""
        ...

    async def limited(self, key: str) -> float:
        """Return until when an API key is rate limited: a past time or 0 if it is not."""
        ...

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        """Store the number and hash of an entry of an audit log. A greater number is kept."""
        ...

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        """Return the stored number and hash of an audit log; None if there are none."""
        ...

    async def aclose(self) -> None:
        """Close the connections. The next use opens them again."""
        ...

    async def revision(self) -> int:
        """Return a number that changes after any change by any process."""
        ...

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        """Wait until a request may have changed, by any process, since an earlier call returned `seen`.

        Return what to pass next: at once where `seen` is empty, and after `seconds` at the latest.
        """
        ...
