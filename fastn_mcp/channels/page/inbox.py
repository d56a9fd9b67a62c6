"""What waits for a person, over the accounts that they may decide about, and their decisions on it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval import quorum
from fastn_mcp.guard.approval.request import temporary_approval
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.audit.recorder import record_expired
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, RequestState, TemporaryApproval, Vote
from fastn_mcp.runtime import System

LOCAL = "local_page"

T = TypeVar("T")

Record = Callable[[AuditEvent, ApprovalRequest, str | None], None]
"""Records what was decided, about which request, with the note to the agent."""


def unrecorded(_: AuditEvent, __: ApprovalRequest, ___: str | None) -> None:
    """Record nothing."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request, as one person has it before them."""

    request: ApprovalRequest
    barred: str | None = None
    """Why they cannot approve it, in a sentence; None where they can."""
    so_far: str | None = None
    """What others have decided of it already, in a sentence."""


@dataclass(frozen=True, slots=True)
class DecidedRequest:
    """A request that was decided, and by whom, where people are told apart."""

    request: ApprovalRequest
    who: str | None = None


@dataclass(frozen=True, slots=True)
class InboxAccount:
    """An account about whose calls people decide. Without a `name`, all that are in its ledger."""

    name: str | None
    ledger: Ledger
    record: Record
    tenant: str = ""

    def has(self, found: ApprovalRequest | TemporaryApproval) -> bool:
        """Whether it is of this account: several can share a ledger."""
        return self.name in (None, found.account)


class Inbox:
    """Of the local page: who has the page decides about every request of one account."""

    consent = LOCAL
    """How the ledger names an approval by one person here."""
    approver = LOCAL
    """Whose vote it counts."""
    tells_people_apart = False

    def __init__(self, system: System, account: InboxAccount | None = None) -> None:
        self._system = system
        self._account = account

    async def accounts(self) -> AsyncIterator[InboxAccount]:
        """The accounts that they may decide about."""
        if self._account is not None:
            yield self._account

    shares_ledger = False
    """Whether all accounts are in one ledger."""

    def sees(self, tenant: str, request: ApprovalRequest) -> bool:  # noqa: ARG002 - everything, here
        """Whether a request is before them at all."""
        return True

    def barred(self, tenant: str, request: ApprovalRequest) -> str | None:  # noqa: ARG002
        """Why they cannot approve what they see; None where they can."""
        if request.needed == 1:
            return None
        return "Two different people have to approve this call, and this page cannot tell people apart."

    def may_revoke(self, tenant: str, scope: TemporaryApproval) -> bool:  # noqa: ARG002
        """Whether a temporary approval is theirs to end."""
        return True

    def name_of(self, approver: str) -> str:
        """An approver, as the page names them."""
        return approver

    async def revision(self) -> str:
        """A text that differs after any change, by whatever process."""
        return ".".join([str(revision) async for _, revision in self._read(lambda ledger: ledger.revision())])

    async def waiting(self, now: float) -> list[PendingRequest]:
        """What waits, the oldest first."""
        async for account in self.accounts():
            if account.name is not None:
                await record_expired(account.ledger, account.name, now, account.record)
        found = [
            await self._pending(account, request)
            async for account, requests in self._read(lambda ledger: ledger.waiting(now))
            for request in requests
            if self._is_theirs(account, request)
        ]
        return sorted(found, key=lambda pending: pending.request.created)

    async def scopes(self, now: float) -> list[TemporaryApproval]:
        """The temporary approvals that hold."""
        return [
            scope
            async for account, scopes in self._read(lambda ledger: ledger.temporary_approvals(now))
            for scope in scopes
            if account.has(scope) and self.may_revoke(account.tenant, scope)
        ]

    async def decided(self, limit: int) -> list[DecidedRequest]:
        """What was decided, the newest first."""
        # More than are shown: a ledger that is shared holds those of others too.
        found = [
            DecidedRequest(request, self._who(request) if self.tells_people_apart else None)
            async for account, requests in self._read(lambda ledger: ledger.decided(limit * 4))
            for request in requests
            if self._is_theirs(account, request)
        ]
        return sorted(found, key=lambda one: one.request.decided or one.request.created, reverse=True)[:limit]

    async def find(self, request: str) -> PendingRequest | None:
        """The request of this id, whatever became of it."""
        async for account, found in self._read(lambda ledger: ledger.find(request)):
            if found is not None and self._is_theirs(account, found):
                return await self._pending(account, found)
        return None

    async def approve(self, pending: PendingRequest, now: float) -> str | None:
        """Approve it: what follows, in a sentence; None where it was not open to them any more."""
        approved = await self._vote(pending.request, now, approves=True, note=None)
        if approved is None:
            return None
        needed = pending.request.needed
        if approved < needed:
            return f"{approved} of {needed} people approved it: another has to, before it can be sent."
        return "It is sent when the agent makes the call again."

    async def approve_similar(self, pending: PendingRequest, now: float) -> None:
        """Approve such calls on its target for a while. It is approved already."""
        async with self._account_of(pending.request) as account:
            scope = temporary_approval(pending.request, self._system.token(), now, self.consent)
            await account.ledger.add_temporary(scope)

    async def decline(self, pending: PendingRequest, now: float, note: str | None) -> bool:
        """Decline it; False where it was not open to them any more."""
        return await self._vote(pending.request, now, approves=False, note=note) is not None

    async def revoke(self, scope: str, now: float) -> bool:
        """End a temporary approval; False where there is none of theirs."""
        async for account in self.accounts():
            for found in await account.ledger.temporary_approvals(now):
                if found.id == scope and account.has(found) and self.may_revoke(account.tenant, found):
                    return await account.ledger.revoke_temporary(scope)
        return False

    async def _vote(self, request: ApprovalRequest, now: float, *, approves: bool, note: str | None) -> int | None:
        """How many approve it from now on; None where nothing was counted."""
        async with self._account_of(request) as account:
            # Once more, at the last moment: whatever was shown, this is who may.
            if approves and self.barred(account.tenant, request) is not None:
                return None
            vote = Vote(self.approver, approves, now)

            def record(event: AuditEvent, said: str | None) -> None:
                account.record(event, request, said)

            counted = await quorum.count(vote, request, account.ledger, self.consent, note, record)
            return None if counted is None else len(counted.approvers)

    def _is_theirs(self, account: InboxAccount, request: ApprovalRequest) -> bool:
        return request.out_of_band and account.has(request) and self.sees(account.tenant, request)

    async def _pending(self, account: InboxAccount, request: ApprovalRequest) -> PendingRequest:
        barred, so_far = self.barred(account.tenant, request), None
        if self.tells_people_apart and (needed := request.needed) > 1:
            votes = [vote for vote in request.votes if vote.approves]
            named = f" ({', '.join(self.name_of(vote.approver) for vote in votes)})" if votes else ""
            so_far = f"{needed} different people have to approve this call: {len(votes)} did so far{named}."
            if any(vote.approver == self.approver for vote in votes):
                barred = "You approved it, and another has to."
        return PendingRequest(request, barred, so_far)

    def _who(self, request: ApprovalRequest) -> str | None:
        approves = request.state is not RequestState.DECLINED
        votes = [vote for vote in request.votes if vote.approves is approves]
        return " and ".join(self.name_of(vote.approver) for vote in votes) or None

    @asynccontextmanager
    async def _account_of(self, request: ApprovalRequest) -> AsyncGenerator[InboxAccount]:
        """The account of a request, which is one of theirs. Raises `Refused` where it is gone meanwhile."""
        async for account in self.accounts():
            if account.has(request):
                yield account
                return
        raise Refused("The account of this call cannot be opened now.")

    async def _read(self, read: Callable[[Ledger], Awaitable[T]]) -> AsyncGenerator[tuple[InboxAccount, T]]:
        """Their accounts, each with what is read for it: once for all where they share one ledger."""
        found: list[T] = []
        async for account in self.accounts():
            if not found or not self.shares_ledger:
                found = [await read(account.ledger)]
            yield account, found[0]
