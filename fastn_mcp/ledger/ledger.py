"""Interface of the ledger (SQLite or Valkey), composed of an interface for each thing that is stored.

Times are Unix seconds. If a method raises, the call that needed it is refused.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fastn_mcp.errors import Refused
from fastn_mcp.ledger.approval_request import (
    ApprovalRequest,
    RequestState,
    SealedSecret,
    Transition,
    Vote,
)
from fastn_mcp.ledger.change import Journal
from fastn_mcp.policy.asker import LOCAL, Asker
from fastn_mcp.redaction import name_as_read

MAX_WAITING = 32
"""Limit of open requests of one principal on one account."""

SAME_REQUEST = ("call", "calls", "required", "principal", "account")
"""Fields by which two open out-of-band requests are the same."""


class TooManyWaiting(Refused):
    """The principal has `MAX_WAITING` open requests: more than a person can be expected to answer."""

    def __init__(self) -> None:
        super().__init__(
            f"{MAX_WAITING} calls are waiting for an approval already.", "Let a person decide about them first."
        )


class LedgerLost(Refused):
    """The ledger failed, or its reply was lost. An approval or budget that may have been used counts as used."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The shared ledger cannot be used ({why}).",
            "Reading still works. Call again later; an approval in use may have to be given again.",
        )


class LedgerUnusable(Refused):
    """The ledger's file cannot be used. `cure` tells a person what to do."""

    def __init__(self, file: str, why: str, cure: str) -> None:
        super().__init__(f"The ledger {file} cannot be used: {why}.", f"Reading still works. To fix it: {cure}")


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """A budget in a period, such as a day, and how many uses it allows there."""

    budget: str
    period: str
    limit: int


def rate_free_at(uses: Sequence[float], most: int, seconds: float) -> float:
    """Return when a rate budget of `most` uses within any `seconds` can be used again after `uses`; 0 if now."""
    return 0.0 if len(uses) < most else uses[-most] + seconds


class ApprovalRequests(Protocol):
    """Storage of approval requests, with the votes and declines of people."""

    async def open(self, request: ApprovalRequest) -> str:
        """Record a request, and return its id.

        If it is out of band and the same request is open already, return the id of that one and record nothing, so
        that concurrent replicas open one request. Raises `TooManyWaiting`, or `RequestsFull` (`storage_limits`) if the
        caller's requests take too much; the oldest past decisions of the caller are deleted to stay below that.
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

        def counted(current: ApprovalRequest) -> ApprovalRequest | None:
            if secret is not None and current.votes != request.votes:
                return None
            return current.with_vote(vote, by, note, out_of_band=request.out_of_band)

        return await self.change_request(request.id, counted, secret)

    async def use(self, request: str, number: int, now: float) -> ApprovalRequest | None:
        """Use an approval for one of its calls. None if it was used for that call before or is not approved."""
        return await self.change_request(request, lambda current: current.with_use(number, now))

    async def void(
        self, request: str, state: RequestState, now: float, *, by: str | None = None, note: str | None = None
    ) -> ApprovalRequest | None:
        """Void an open request or an approval that is not used up; None if there was nothing to void."""
        return await self.change_request(request, lambda current: current.without_effect(state, now, by, note))

    async def withdraw(self, request: str, vote: Vote, by: str, note: str | None = None) -> ApprovalRequest | None:
        """Take back an approval that is not used up; None if there is none. Calls that were sent stay sent."""
        return await self.change_request(request, lambda current: current.withdrawn(vote, by, note))

    async def offer(self, request: str, expires: float) -> ApprovalRequest | None:
        """Move a request from the form to the out-of-band channel; None if it was decided or moved before."""
        return await self.change_request(request, lambda current: current.offered(expires))

    async def expire(self, account: str, now: float) -> list[ApprovalRequest]:
        """Mark expired open requests UNANSWERED as of their expiry, and return them, each to only one process."""
        ids = await self.expiring(account, now)
        ended = [await self.change_request(id_, lambda current: current.expired(now)) for id_ in ids]
        return [request for request in ended if request is not None]

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

    async def open_temporary(self, request: str, until: float) -> ApprovalRequest | None:
        """Have the approval of a request cover similar calls until a time."""
        return await self.change_request(request, lambda current: replace(current, temporary_until=until))

    async def find_temporary(self, similar: str, now: float) -> ApprovalRequest | None:
        """Return the request whose temporary approval covers the calls of this digest; None if there is none."""
        ...

    async def temporary_approvals(self, now: float) -> list[ApprovalRequest]:
        """Return the requests with a temporary approval that has not expired, oldest first."""
        ...

    async def revoke_temporary(self, request: str) -> ApprovalRequest | None:
        """End the temporary approval of a request at once; None if there is none."""

        def revoked(current: ApprovalRequest) -> ApprovalRequest | None:
            return replace(current, temporary_until=0.0) if current.temporary_until else None

        return await self.change_request(request, revoked)

    async def declines(self, principal: str) -> tuple[int, float]:
        """Return the number of consecutive declines and the time of the last one."""
        ...

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        """Wait until a request may have changed, by any process, since an earlier call returned `seen`.

        Return what to pass next: at once where `seen` is empty, and after `seconds` at the latest.
        """
        ...


class BudgetUses(Protocol):
    """Counts of what was done, by budget."""

    async def spent(self, budget: str, period: str) -> int:
        """Return the uses of a budget in a period, such as a day."""
        ...

    async def spend_all(self, limits: Sequence[BudgetLimit]) -> bool:
        """Count one use of each budget, atomically; False, and none is counted, if one of the limits is reached."""
        ...

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        """Count one use of a budget of `most` within any `seconds`, atomically. Return 0, or when it is free again."""
        ...

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        """Return the times at which a rate budget was used within the last `seconds`, oldest first."""
        ...


class Marks(Protocol):
    """Facts that hold until a time: a nonce was used, a key is rate limited, a session has ended."""

    async def set_mark(self, name: str, until: float, now: float, *, unless: float) -> bool:
        """Record that something holds until `until`, atomically; False if it holds until `unless` or later already."""
        ...

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        """Record the use of a nonce, atomically, and keep it until `until`; False if it was used before."""
        return await self.set_mark(f"nonce {nonce}", until, now, unless=now)

    async def mark(self, name: str, until: float, now: float) -> None:
        """Record that something holds until `until`. A later time is kept."""
        await self.set_mark(name, until, now, unless=until)

    async def marked(self, name: str) -> float:
        """Return until when something holds: a past time or 0 if it does not."""
        ...


@dataclass(frozen=True, slots=True)
class Stop:
    """Order that no change is sent for some callers, or for all: an empty `tenant`, `person` or `client` is any."""

    id: str
    at: float
    by: str
    """Who ordered it: the name and principal of a person, or the channel."""
    reason: str = ""
    tenant: str = ""
    person: str = ""
    """Principal, subject, user name, e-mail address or name."""
    client: str = ""
    """Id of an OAuth client, or what a client calls itself."""
    lifted: float | None = None
    lifted_by: str = ""
    is_operators: bool = True
    """Whether the operator ordered it, at a terminal or on a page without sign-in."""

    @property
    def whom(self) -> str:
        """Whose changes are stopped, in words."""
        named = (("the tenant", self.tenant), ("the person", self.person), ("the client", self.client))
        return " and ".join(f'{what} "{name}"' for what, name in named if name) or "everybody"

    def names(self, asker: Asker) -> bool:
        """Whether it names a caller, as far as is known of them. Names are compared as they read."""
        wanted = ((self.tenant, ("tenant",)), (self.person, ("person",)), (self.client, ("client", "client_name")))
        return all(not name or _is_any(name, asker, facts) for name, facts in wanted)

    def covers(self, asker: Asker) -> bool:
        """Whether it stops the changes of a caller: those whom it names, and who may be named and do not say enough."""
        is_local = asker.principal == LOCAL
        person = self.person if is_local or asker.knows("person") else ""
        names = ("client_name",) if is_local else ("client", "client_name")
        client = self.client if asker.is_by_hand or all(map(asker.knows, names)) else ""
        return replace(self, person=person, client=client).names(asker)

    def lift(self, by: str, now: float) -> "Stop":
        return replace(self, lifted=now, lifted_by=by)


def _is_any(name: str, asker: Asker, facts: Iterable[str]) -> bool:
    values = (value for fact in facts for value in asker.values(fact, verified=False))
    return name_as_read(name) in map(name_as_read, values)


class StopOrders(Protocol):
    """Storage of stops."""

    async def add_stop(self, stop: Stop) -> None:
        """Record a stop, and forget those that were lifted more than `KEPT_DAYS` (`change`) before it.

        That is far longer than an approval that they made void could be used.
        """
        ...

    async def lift_stop(self, stop: Stop) -> bool:
        """Record that a stop was lifted. False if it was lifted before, or there is none."""
        ...

    async def stops(self) -> list[Stop]:
        """Return the stops that hold and those that were lifted lately, oldest first."""
        ...

    async def holding(self) -> list[Stop]:
        """Return the stops that hold, oldest first."""
        return [stop for stop in await self.stops() if stop.lifted is None]


class Ledger(ApprovalRequests, BudgetUses, Marks, Journal, StopOrders, Protocol):
    """All that the guard stores. `mark_audit` and `audit_mark` are what the audit log needs."""

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        """Store the number and hash of an entry of an audit log. A greater number is kept."""
        ...

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        """Return the stored number and hash of an audit log; None if there are none."""
        ...

    async def revision(self) -> int:
        """Return a number that changes after any change by any process."""
        ...

    async def aclose(self) -> None:
        """Close the connections. The next use opens them again."""
        ...
