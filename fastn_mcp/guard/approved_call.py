"""Approval of a batch, and a call that may be sent once because of it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from fastn_mcp.account.resolve import read_label
from fastn_mcp.client.reads import read_target
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval_form import BY_SEVERAL, VERIFIED
from fastn_mcp.guard.call_evaluation import CallEvaluation
from fastn_mcp.guard.journal import IDEMPOTENT, UNSETTLED
from fastn_mcp.guard.undo import without_secrets
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Send
from fastn_mcp.tools.related_reads import fields_sent


@dataclass(frozen=True, slots=True)
class Approval:
    """Permission to send the calls of a batch. Nothing is used up yet."""

    by: str
    """`policy`, `plan`, `temporary_approval`, or how people approved it, such as `client_form`."""
    request: ApprovalRequest | None = None
    """The request that people approved, for all calls of the batch."""
    temporary: ApprovalRequest | None = None
    """The request whose temporary approval covers the call."""
    has_waited: bool = False
    """Whether the calls have to be evaluated again, since time has passed while a person decided."""

    @property
    def given(self) -> ApprovalRequest | None:
        """The request that people approved for these or similar calls; None if nobody was asked."""
        return self.request or self.temporary

    @property
    def detail(self) -> str:
        """The people who approved it, one per line, if they are known, or how a temporary approval was given."""
        if self.temporary is not None:
            return self.temporary.by or ""
        return "\n".join(self.request.people) if self.request is not None and self.by in (BY_SEVERAL, VERIFIED) else ""


@dataclass(frozen=True, slots=True)
class ApprovedCall:
    """A call that may be sent once, and what permits it."""

    current: CallEvaluation
    asker: Asker
    by: str
    """As in `Approval.by`."""
    approval: str | None = None
    """Id of the approval request, with `.` and the number of a call of a list or `.temporary` for the temporary
    approval that came with it; None if the policy permits the call."""
    trace: str | None = None
    """Trace in which its approval was requested, as `System.trace` returns it."""
    batch: str = ""
    """Id of its list (`BatchResult.id`), empty for a single call; `number` is its place in the list, from 1."""
    number: int = 0
    detail: str = ""
    """See `Approval.detail`."""
    stops: tuple[str, ...] = ()
    """Stops that had been lifted when its approval was used (`Stops.check`)."""


async def change_of(approved: ApprovedCall, account: str, read: Send, deadline: float, system: System) -> Change:
    """Return the journal entry of a call that is about to be sent, with its target as read now if it was not yet.

    `deadline` is the timeout of the call in seconds.
    """
    current, call = approved.current, approved.current.call
    target = current.resolved.target
    if target is None and call.target is not None:
        with suppress(FastnError):  # the call is made, but cannot be undone
            target = await read_target(call, read)
    label = current.name or await read_label(call, target, read)
    now, is_idempotent = system.timestamp(), call.route.method in IDEMPOTENT
    return Change(
        id=f"chg_{system.token()}",
        principal=approved.asker.principal,
        account=account,
        tool=call.tool_name(),
        arguments=call.shown(),
        target=call.target,
        name=str(label) if label else None,
        before=None if target is None else without_secrets(target),
        sent=fields_sent(call),
        at=now,
        approved_by=f"{approved.by}: {approved.detail}" if approved.detail else approved.by,
        call="" if is_idempotent else current.digest,
        unsettled_until=0.0 if is_idempotent else now + deadline + UNSETTLED,
        batch=approved.batch,
        number=approved.number if approved.batch else 0,
        approval=(approved.approval or "").partition(".")[0],
    )


def covers(request: ApprovalRequest, calls: Mapping[int, CallEvaluation]) -> bool:
    """Whether the request still covers these calls and was used for none of them."""
    return all(number not in request.used and covers_call(request, number, one) for number, one in calls.items())


def covers_call(request: ApprovalRequest, number: int, current: CallEvaluation) -> bool:
    """Whether the binding is the same, there are no more dependents, and the policy is no stricter than before."""
    before, verdict = request.calls.get(number), current.verdict
    is_stricter = Decision(request.required).rank < verdict.decision.rank
    if before is None or is_stricter or not {*verdict.second} <= {*request.second}:
        return False
    now = current.shown()
    return before.binding == now.binding and _no_more(now.dependents, before.dependents)


_RUN_KIND = "executions"
"""Past runs. Their number grows by itself while a person decides, so only the first one voids an approval."""


def _no_more(now: Mapping[str, float | None], shown: Mapping[str, float | None]) -> bool:
    """Whether there are no more dependents of any kind than were shown. A kind shown as not checked covers any number;
    a kind that was checked then and cannot be checked now fails."""
    for kind, count in now.items():
        before = shown.get(kind, 0.0)
        grows = kind.endswith(_RUN_KIND) and before
        if before is not None and (count is None or (count > before and not grows)):
            return False
    return True
