"""The ledger: approvals, temporary approvals, budgets, journal and batches. One contract for SQLite and Valkey.

Times are Unix seconds. An exception from any method is a refusal of the call that it was asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.changes import Journal

MOST_WAITING = 32
"""Grants of one principal on one account about which a person is asked at the same time."""


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
    """What became of a grant. Only what is OPEN or APPROVED can be spent, and only once."""

    OPEN = "open"
    APPROVED = "approved"
    USED = "burnt"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """The right to make one exact call once, on one exact state of its target, until it expires."""

    id: str
    principal: str
    account: str
    tool: str
    target: str | None
    call: str
    """Digest of who calls what, with which arguments, on which account."""
    binding: str
    """Digest of that, the target's state and the policy."""
    required: str
    """The decision of the policy: confirm, typed, out_of_band, four_eyes."""
    expected: str | None
    """What has to be typed, where typing is asked."""
    allows_temporary: bool
    """Whether the approval may cover this tool on this target for a while."""
    out_of_band: bool
    """Whether it is answered on the page or a terminal; otherwise in the client's own form."""
    preview: Mapping[str, JsonValue]
    """The preview, as data."""
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
    dependents: Mapping[str, float | None] | None = None
    """Dependents by kind, as they were shown (`Dependence.counts`). Without them the approval covers nothing."""
    similar: str | None = None
    """Digest of the calls that a temporary approval would cover."""
    extent: str = ""
    """Those calls, in words."""

    @property
    def holder(self) -> str:
        """Whose open requests and declines it is counted with."""
        return holder(self.principal, self.account)


@dataclass(frozen=True, slots=True)
class TemporaryApproval:
    """A temporary approval: the right to make similar calls of one tool on one target, until it ends or is revoked."""

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


@dataclass(frozen=True, slots=True)
class Vote:
    """What one approver, told from all others by a credential, said of a grant."""

    grant: str
    approver: str
    approves: bool
    at: float


def rate_free_at(uses: Sequence[float], most: int, seconds: float) -> float:
    """When a budget that allows `most` within any `seconds` can be used after `uses`; 0 for at once."""
    return 0.0 if len(uses) < most else uses[-most] + seconds


class Ledger(Journal, Protocol):
    """Keeps approval requests, votes, temporary approvals, budgets, declines, the journal and batches."""

    async def open(self, grant: ApprovalRequest) -> str:
        """Record a grant as it is: one about which a person is asked, or one that was approved with others.

        If the same is asked elsewhere already, the id of that grant is returned and nothing is recorded: of replicas
        that ask at once one opens a request. Raises `TooManyWaiting`.
        """
        ...

    async def find(self, grant: str) -> ApprovalRequest | None:
        """The grant of this id, whatever became of it."""
        ...

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        """The newest grant for this exact call that was asked elsewhere, is not spent, and has not expired."""
        ...

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
        """Move a grant from one of `before` to `after`, atomically.

        False where it is in none of them, or has expired: only one of any number of attempts succeeds. Only OPEN and
        APPROVED can be left, and nothing is opened again, whatever `before` and `after` say.
        """
        ...

    async def vote(self, vote: Vote, needed: int, *, by: str, note: str | None = None) -> RequestState | None:
        """Count a vote on what is asked elsewhere, atomically, at the time of the vote.

        One no declines; the yes of the `needed`-th approver approves; `by` and `note` are then the grant's. The state
        after it, or None where nothing was counted: the grant is not open, has expired, or this approver has said it
        already. A yes can be taken back as long as the grant is open.
        """
        ...

    async def votes(self, grant: str) -> list[Vote]:
        """What was counted on a grant, the oldest first."""
        ...

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        """Note that a nonce was used, atomically, and keep it until `until`; False where it was used before."""
        ...

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        """What is asked elsewhere and not decided, the oldest first."""
        ...

    async def expire(self, account: str, now: float) -> list[ApprovalRequest]:
        """Move what was asked on an account and ran out unanswered to UNANSWERED, by nobody and at its end.

        Atomically: of any number of processes one is given each of them.
        """
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

    async def note_answer(self, principal: str, *, declined: bool, now: float) -> None:
        """Count declines in a row; an approval begins anew."""
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
