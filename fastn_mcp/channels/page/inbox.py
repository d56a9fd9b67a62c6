"""Inbox of one approver: the requests of their accounts that wait, and their decisions."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.approval.votes import NotCounted, Record, TypedValue, count_vote, withdraw
from fastn_mcp.guard.approval_form import BY_SEVERAL, VERIFIED
from fastn_mcp.guard.budgets import Limits
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import record_expired
from fastn_mcp.guard.undo import approver
from fastn_mcp.ledger.approval_request import REFUSED, ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.identity import who, without_issuers
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.question import Question
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System

LOCAL = "local_page"

T = TypeVar("T")


def name_of(vote: Vote) -> str:
    """Return the displayed name of an approver."""
    return without_issuers(who(vote.approver, vote.name))


def decided_by(request: ApprovalRequest, name_of: Callable[[Vote], str] = name_of) -> str:
    """Return who or what decided a request; empty if it is void, which is not the doing of its approvers."""
    if request.state is RequestState.STALE:
        return ""
    votes = request.votes if request.by in (VERIFIED, BY_SEVERAL) else ()
    names = " and ".join(name_of(vote) for vote in votes if vote.approves is (request.state not in REFUSED))
    return names or approver(request.by or "")


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A pending request, as seen by one person."""

    request: ApprovalRequest
    barred: str | None = None
    """Sentence that says why they cannot approve it, or None."""
    progress: str | None = None
    """Sentence about the approvals given so far, or None."""
    presence: tuple[str, float] = ("", 0.0)
    """Sentence about the call that asks, empty if nothing is known of it, and until when it is true."""
    needs_sign_in: bool = False
    """Whether they have to sign in again before they can approve it."""


@dataclass(frozen=True, slots=True)
class DecidedRequest:
    """A decided request, and what they may still do about it."""

    request: ApprovalRequest
    by: str = ""
    """Who or what decided it."""
    changes: tuple[Change, ...] = ()
    """What was sent because of it, by a temporary approval that came with it too; oldest first."""
    may_undo: bool = False


class ChangeUndo(Protocol):
    """Undoes changes of one account by guarded calls of the person on the page. Raises a `FastnError`."""

    async def preview_undo(self, change: str, asker: Asker) -> Question:
        """Return what the undo would do, from fresh reads. No change is sent."""
        ...

    async def undo(self, change: str, asker: Asker) -> bool:
        """Undo a change. False if that waits for an approval, after which it has to be called again."""
        ...


@dataclass(frozen=True, slots=True)
class InboxAccount:
    """An account whose calls people decide. Without a `name`, every account in its ledger."""

    name: str | None
    ledger: Ledger
    record: Record
    typed: TypedSecrets
    """Keeps the secrets that they type."""
    tenant: str = ""
    limits: Limits | None = None
    dispatch: "ChangeUndo | None" = None
    """Undoes its changes; None where no call can be made from the page."""
    presence: Callable[[str], tuple[str, float]] = lambda _: ("", 0.0)
    """Says whether the call of a request waits, as far as this process knows (`DecisionWait.presence`)."""

    def has(self, request: ApprovalRequest) -> bool:
        """Whether a request belongs to this account and tenant, since several can share a ledger."""
        return self.name in (None, request.account) and self.tenant in ("", request.tenant)


class Inbox:
    """Inbox of the local page. Whoever opens the page can decide every request of one account."""

    approved_by = LOCAL
    """Kind of approval in the ledger, if one person approves."""
    approver = LOCAL
    """Principal of the votes."""
    approver_name = ""
    """Name of that person, if they signed in."""
    tells_people_apart = False
    shared: Ledger | None = None
    """Ledger of all accounts, if they share one."""

    def __init__(self, system: System, account: InboxAccount | None = None) -> None:
        self._system = system
        self._account = account

    @property
    def tenants(self) -> frozenset[str]:
        """Names of the tenants whose requests they may see, if there are tenants."""
        return frozenset()

    async def accounts(self) -> AsyncIterator[InboxAccount]:
        if self._account is not None:
            yield self._account

    def sees(self, tenant: str, principal: str, effects: frozenset[str]) -> bool:  # noqa: ARG002
        """Whether they may see a call of a principal with these effects."""
        return True

    def barred(self, tenant: str, request: ApprovalRequest) -> str | None:  # noqa: ARG002
        """Return a sentence that says why they cannot approve a request, or None."""
        if request.step_up is not None:
            return request.step_up.elsewhere
        if request.needed == 1:
            return None
        return "Two different people have to approve this call, and this page cannot tell people apart."

    def covers(self, tenant: str, effects: frozenset[str]) -> bool:  # noqa: ARG002
        """Whether they may approve calls of others with these effects."""
        return True

    def asker(self, tenant: str) -> Asker:  # noqa: ARG002
        """Return who asks for what they undo on the page."""
        return Asker(is_by_hand=True)

    def may_revoke(self, tenant: str, request: ApprovalRequest) -> bool:  # noqa: ARG002
        return True

    def may_stop(self, tenant: str) -> bool:  # noqa: ARG002
        """Whether they may stop the changes of a tenant, and allow them again; empty: of all."""
        return True

    def may_lift(self, stop: Stop) -> bool:  # noqa: ARG002
        """Whether they may allow again what a stop forbids."""
        return True

    def approval(self, now: float, *, is_temporary: bool = False) -> Vote:
        """Return the vote by which they approve a request."""
        return Vote(self.approver, approves=True, at=now, name=self.approver_name, is_temporary=is_temporary)

    def name_of(self, vote: Vote) -> str:
        """Return the displayed name of an approver, as they see it themselves."""
        return "you" if self.tells_people_apart and vote.approver == self.approver else name_of(vote)

    async def revision(self) -> str:
        """Return a text that differs after any change of a ledger by any process."""
        if self.shared is not None:
            return str(await self.shared.revision())
        return ".".join([str(revision) async for _, revision in self._read(lambda ledger: ledger.revision())])

    async def waiting(self, now: float) -> list[PendingRequest]:
        """Return the pending requests, oldest first. Audit the expired ones."""
        async for account in self.accounts():
            if account.name is not None:
                await record_expired(account.ledger, account.name, now, account.record)
        pending = [
            await self._pending(account, request)
            async for account, requests in self._read(lambda ledger: ledger.waiting(now))
            for request in requests
            if self._is_theirs(account, request)
        ]
        return sorted(pending, key=lambda each: each.request.created)

    async def temporary_approvals(self, now: float) -> list[ApprovalRequest]:
        """Return the requests with an active temporary approval that they may end."""
        return [
            request
            async for account, requests in self._read(lambda ledger: ledger.temporary_approvals(now))
            for request in requests
            if account.has(request) and self.may_revoke(account.tenant, request)
        ]

    async def decided(self, limit: int) -> list[DecidedRequest]:
        """Return the latest decided requests, newest first."""

        async def read(ledger: Ledger) -> tuple[list[ApprovalRequest], list[Change]]:
            # More than `limit`, since a shared ledger also has requests that they may not see.
            requests = await ledger.decided(limit * 4)
            return requests, await ledger.changes_by([request.id for request in requests if request.used])

        decided = [
            DecidedRequest(
                request,
                decided_by(request, self.name_of),
                tuple(each for each in changes if each.approval == request.id),
                account.dispatch is not None and self.barred(account.tenant, request) is None,
            )
            async for account, (requests, changes) in self._read(read)
            for request in requests
            if self._is_theirs(account, request)
        ]
        return sorted(decided, key=lambda entry: entry.request.decided or entry.request.created, reverse=True)[:limit]

    async def find(self, request: str) -> PendingRequest | None:
        """Return the request of this id in any state, or None if they may not see it."""
        async for account, match in self._read(lambda ledger: ledger.find(request)):
            if match is not None and self._is_theirs(account, match):
                return await self._pending(account, match)
        return None

    async def approve(
        self, pending: PendingRequest, now: float, secret: JsonValue = None, *, is_temporary: bool = False
    ) -> str | NotCounted:
        """Approve a request. Return a sentence about the next step, or why it was not decided.

        `secret` is the argument that they typed, if the request asks for one.
        """
        counted = await self._vote(pending.request, self.approval(now, is_temporary=is_temporary), None, secret)
        if isinstance(counted, NotCounted):
            return counted
        if not counted.is_approved_enough:
            return "One more person has to approve it before it can be sent."
        try:
            async with self._account_of(counted) as account:
                if account.dispatch is not None and counted.undoes:
                    own = self.asker(account.tenant)
                    asker = own if own.principal == counted.principal else counted.asker
                    is_undone = await account.dispatch.undo(counted.undoes, asker)
                    return "The change was undone." if is_undone else "The undo needs another approval."
        except FastnError as error:
            return error.message
        return "If the agent is still waiting, the call runs now. Otherwise it runs when the agent makes it again."

    async def decline(self, pending: PendingRequest, now: float, note: str | None) -> ApprovalRequest | NotCounted:
        """Decline a request. Return it, or why it was not decided."""
        vote = Vote(self.approver, approves=False, at=now, name=self.approver_name)
        return await self._vote(pending.request, vote, note)

    async def withdraw(self, request: ApprovalRequest, now: float, note: str | None) -> ApprovalRequest | NotCounted:
        """Withdraw an approval that is not used up. Return the request, or why it was not withdrawn."""
        vote = Vote(self.approver, approves=False, at=now, name=self.approver_name)
        async with self._account_of(request) as account:
            return await withdraw(vote, request, account.ledger, by=self.approved_by, note=note, record=account.record)

    async def undo(self, request: str, change: str) -> str:
        """Undo a change that a request allowed. Return a sentence about what follows. Raises a `FastnError`."""
        async with self._undoable(request, change) as (_, dispatch, asker, _):
            if await dispatch.undo(change, asker):
                return "Undone."
            return "The undo is waiting for your approval below. Nothing has been sent yet."

    async def undo_preview(self, request: str, change: str) -> tuple[Change, Question]:
        """Return such a change, and what its undo would do. Raises a `FastnError` if it cannot be undone."""
        async with self._undoable(request, change) as (undone, _, _, preview):
            return undone, preview

    @asynccontextmanager
    async def _undoable(self, request: str, change: str) -> AsyncGenerator[tuple[Change, ChangeUndo, Asker, Question]]:
        """Open a change whose undo they may approve, with the preview of that undo, which is another effect."""
        if (pending := await self.find(request)) is not None:
            async with self._account_of(pending.request) as account:
                changes = {each.id: each for each in await account.ledger.changes_by([request])}
                if change in changes and account.dispatch and self.barred(account.tenant, pending.request) is None:
                    asker = self.asker(account.tenant)
                    preview = await account.dispatch.preview_undo(change, asker)
                    if self.covers(account.tenant, preview.effects):
                        yield changes[change], account.dispatch, asker, preview
                        return
        raise Refused("You may not undo this change, or it does not exist.")

    async def revoke(self, id_: str, now: float) -> bool:
        """End the temporary approval of a request. Return False if there is none that they may end."""
        request = next((each for each in await self.temporary_approvals(now) if each.id == id_), None)
        if request is None:
            return False
        async with self._account_of(request) as account:
            is_revoked = await account.ledger.revoke_temporary(id_) is not None
            if is_revoked:
                account.record(AuditEvent.TEMPORARY_APPROVAL_REVOKED, request, None)
            return is_revoked

    async def _vote(
        self, request: ApprovalRequest, vote: Vote, note: str | None, secret: JsonValue = None
    ) -> ApprovalRequest | NotCounted:
        """Count a vote. Return the updated request, or why it does not count."""
        async with self._account_of(request) as account:
            # Check again right before the vote, whatever the page showed.
            if vote.approves and (barred := self.barred(account.tenant, request)) is not None:
                return NotCounted(f"{barred} Nothing was decided.")
            typed = TypedValue(account.typed, secret)
            return await count_vote(
                vote,
                request,
                account.ledger,
                by=self.approved_by,
                note=note,
                record=account.record,
                typed=typed,
            )

    def _is_theirs(self, account: InboxAccount, request: ApprovalRequest) -> bool:
        sees = self.sees(account.tenant, request.principal, request.question.effects)
        return request.out_of_band and account.has(request) and sees

    async def _pending(self, account: InboxAccount, request: ApprovalRequest) -> PendingRequest:
        own = self.approval(self._system.timestamp())
        barred = self.barred(account.tenant, request)
        progress = None
        if self.tells_people_apart and request.needed > 1:
            votes = [vote for vote in request.votes if vote.approves]
            progress = request.progress([self.name_of(vote) for vote in votes])
            earlier = next((vote for vote in votes if vote.is_of(own)), None)
            if earlier is not None:
                named = self.name_of(earlier)
                has = "You have" if named == "you" else f"{named}, who may be you, has"
                barred = f"{has} already approved. One more person has to approve."
        return PendingRequest(
            request,
            barred=barred,
            progress=progress,
            presence=account.presence(request.id),
            needs_sign_in=request.needs_sign_in(own),
        )

    @asynccontextmanager
    async def _account_of(self, request: ApprovalRequest) -> AsyncGenerator[InboxAccount]:
        """Open the account of a request. Raises `Refused` if it is no longer available."""
        async for account in self.accounts():
            if account.has(request):
                yield account
                return
        raise Refused("The account of this call cannot be opened at the moment.")

    async def _read(self, read: Callable[[Ledger], Awaitable[T]]) -> AsyncGenerator[tuple[InboxAccount, T]]:
        """Yield each account with the value that `read` returns. A shared ledger is read once."""
        values: list[T] = []
        async for account in self.accounts():
            if not values or self.shared is None:
                values = [await read(account.ledger)]
            yield account, values[0]
