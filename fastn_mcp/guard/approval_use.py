"""Approvals, what they cover, and their use: checked against the calls as they are now, once for each of them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue

from fastn_mcp.account.resolve import read_label
from fastn_mcp.client.cost import received
from fastn_mcp.client.reads import read_target
from fastn_mcp.errors import Declined, FastnError, TargetChanged
from fastn_mcp.guard.approval_form import BY_SEVERAL, VERIFIED, sent_words, used_up
from fastn_mcp.guard.batch import CallEvaluation, Evaluation
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.guard.journal import IDEMPOTENT, UNSETTLED
from fastn_mcp.guard.stops import Stops
from fastn_mcp.guard.undo import without_secrets
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest, RequestState
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System, work_on
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
    before = None if target is None else await work_on(received(), partial(without_secrets, target))
    now, is_idempotent = system.timestamp(), call.route.method in IDEMPOTENT
    return Change(
        id=f"chg_{system.token()}",
        principal=approved.asker.principal,
        account=account,
        tool=call.tool_name(),
        arguments=call.shown(),
        target=call.target,
        name=str(label) if label else None,
        before=before,
        sent=fields_sent(call),
        at=now,
        approved_by=f"{approved.by}: {approved.detail}" if approved.detail else approved.by,
        call="" if is_idempotent else current.repeat_digest or current.digest,
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
    is_same = before.binding == now.binding and (before.is_unsettled or not now.is_unsettled)
    return is_same and _no_more(now.dependents, before.dependents)


_RUN_KIND = "executions"
"""Past runs. Their number grows by itself while a person decides, so only the first one voids an approval."""


def _no_more(now: Mapping[str, float | None], asked_about: Mapping[str, float | None]) -> bool:
    """Whether there are no more dependents of any kind than were shown. A kind shown as not checked covers any number;
    a kind that was checked then and cannot be checked now fails."""
    for kind, count in now.items():
        before = asked_about.get(kind, 0.0)
        grows = kind.endswith(_RUN_KIND) and before
        if before is not None and (count is None or (count > before and not grows)):
            return False
    return True


class ApprovalUse:
    """Checks approvals of one account right before the calls are sent, and uses them up."""

    def __init__(self, budgets: Budgets, ledger: Ledger, stops: Stops, system: System) -> None:
        self._budgets = budgets
        self._ledger = ledger
        self._stops = stops
        self._system = system

    async def check(self, approval: Approval, evaluation: Evaluation) -> None:
        """Check that the approval still covers these calls.

        Raises `TargetChanged` if the target, its dependents or the policy changed since the approval was requested.
        """
        request = approval.request
        if request is None:
            return
        if not covers(request, evaluation.calls) or not request.is_approved_enough:
            await self._ledger.void(request.id, RequestState.STALE, self._system.timestamp())
            raise _changed("Look at the preview; call again to ask again.", {"preview": evaluation.preview.data()})

    async def use(
        self, approval: Approval, number: int, current: CallEvaluation, evaluation: Evaluation, asker: Asker
    ) -> ApprovedCall | None:
        """Use up the approval of one call and count its budgets. Raises a `FastnError` if it may not be sent now.

        None if a budget or a plan entry allowed it, and other calls used that up meanwhile: it has to be evaluated
        again.
        """
        request, by, reference = approval.request, approval.by, None
        if (approved := request or approval.temporary) is None:
            stops = await self._stops.check(asker)
        else:
            stops = await self._stops.check(asker, approved.stops, approved.asker)
        if request is not None:
            if not covers_call(request, number, current):
                raise _changed("Look at it; call the batch again to ask again for the rest.")
            stored = await self._ledger.find(request.id)
            if stored is not None and not stored.used:  # a list counts once
                await self._budgets.spend_rate(evaluation.effect, asker.counted)
            used = await self._use_request(request, number)
            await self._budgets.spend_approved(current.effects, asker.counted)
            if used.opens_temporary:  # here and nowhere else: the target was checked
                until = self._system.timestamp() + TEMPORARY_MINUTES * 60
                await self._ledger.open_temporary(request.id, until)
            reference = f"{request.id}.{number}" if evaluation.batch.is_list else request.id
        elif approval.temporary is not None:
            await self._check_not_revoked(approval.temporary)
            await self._budgets.spend_rate(current.effect, asker.counted)
            await self._budgets.spend_approved(current.effects, asker.counted)
            reference = f"{approval.temporary.id}.temporary"
        elif current.verdict.decision not in (Decision.ALLOW, Decision.DENY):
            tool, rule = current.call.tool_name(), current.verdict.rule
            raise TargetChanged(
                f"{tool} now needs an approval ({rule}); it did not when the batch started.",
                "Call the batch again. A person is asked about the remaining calls.",
            )
        elif (allowed := await self._budgets.spend_allowed(current, asker.counted)) is None:
            return None
        else:
            by = allowed
        trace = None if request is None else request.trace
        return ApprovedCall(current, asker, by, reference, trace, evaluation.id, number, approval.detail, stops)

    async def _use_request(self, request: ApprovalRequest, number: int) -> ApprovalRequest:
        """Use up an approved request for one of its calls. Raises a `FastnError` if it was used or withdrawn."""
        used = await self._ledger.use(request.id, number, self._system.timestamp())
        if used is not None:
            return used
        current = await self._ledger.find(request.id)
        if current is not None and current.state is RequestState.WITHDRAWN:
            raise declined(current.note or "", request=current)
        raise used_up()

    async def _check_not_revoked(self, temporary: ApprovalRequest) -> None:
        """Raise a `FastnError` if a person has revoked its temporary approval since it was looked up."""
        current = await self._ledger.find(temporary.id)
        if current is None or current.temporary_until <= self._system.timestamp():
            raise used_up()


def _changed(next_step: str, facts: Mapping[str, JsonValue] | None = None) -> TargetChanged:
    return TargetChanged("The target is no longer in the state that was approved.", next_step, facts=facts)


DECLINED_NEXT_STEP = "Do not repeat it; ask what to do instead."


def declined(note: str = "", why: str = "", request: ApprovalRequest | None = None) -> Declined:
    """Return the refusal of a call that a person declined. `request`: it stays declined for as long as that lives."""
    if why:
        return Declined(f"{why} That counts as declined.", "If the person wants it after all, call again to ask again.")
    facts: dict[str, JsonValue] = {"note": note} if note else {}
    if request is None:
        return Declined("A person declined this call.", DECLINED_NEXT_STEP, facts=facts)
    what, certainty = "A person declined this call.", None
    if request.state is RequestState.WITHDRAWN:
        what, certainty = "A person withdrew their approval.", sent_words(request)
    facts["declined_until"] = ends = stamp(datetime.fromtimestamp(request.expires, UTC))
    holds = f"The same call stays declined until {ends}. {DECLINED_NEXT_STEP}"
    return Declined(what, holds, certainty=certainty, facts=facts)
