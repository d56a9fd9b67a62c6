"""Use of an approval: it is checked against the calls as they are now, and used up once for each of them."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.errors import Declined, TargetChanged
from fastn_mcp.guard.approval.votes import sent_words
from fastn_mcp.guard.approval_form import used_up
from fastn_mcp.guard.approved_call import Approval, ApprovedCall, covers, covers_call
from fastn_mcp.guard.call_evaluation import CallEvaluation, Evaluation
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluator
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest, RequestState
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System


class ApprovalUse:
    """Checks approvals of one account right before the calls are sent, and uses them up."""

    def __init__(self, evaluator: Evaluator, ledger: Ledger, recorder: Recorder, stops: Stops, system: System) -> None:
        self._evaluator = evaluator
        self._budgets = evaluator.budgets
        self._ledger = ledger
        self._recorder = recorder
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
        if evaluation.batch.is_list and not request.used:
            self._recorder.agreed(evaluation.batch.tool, request, approval.by)

    async def use(
        self, approval: Approval, number: int, current: CallEvaluation, evaluation: Evaluation, caller: Caller
    ) -> ApprovedCall | None:
        """Use up the approval of one call and count its budgets. Raises a `FastnError` if it may not be sent now.

        None if a budget or a plan entry allowed it, and other calls used that up meanwhile: it has to be evaluated
        again.
        """
        request, asker, by, reference = approval.request, caller.asker, approval.by, None
        given = approval.given
        stops = await (self._stops.check(asker, given.stops, given.asker) if given else self._stops.check(asker))
        if request is not None:
            if not covers_call(request, number, current):
                raise _changed("Look at it; call the batch again to ask again for the rest.")
            used = await self._use_request(request, number)
            if len(used.used) == 1:  # after use: a repeated approval must not be counted again, and a list counts once
                await self._budgets.spend_rate(evaluation.effect, asker.counted)
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


def declined(note: str = "", why: str = "", request: ApprovalRequest | None = None) -> Declined:
    """Return the refusal of a call that a person declined. `request`: it stays declined for as long as that lives."""
    if why:
        return Declined(f"{why} That counts as declined.", "If the person wants it after all, call again to ask again.")
    facts: dict[str, JsonValue] = {"note": note} if note else {}
    if request is None:
        return Declined("A person declined this call.", "Do not repeat it; ask what to do instead.", facts=facts)
    what, certainty = "A person declined this call.", None
    if request.state is RequestState.WITHDRAWN:
        what, certainty = "A person withdrew their approval.", sent_words(request)
    facts["declined_until"] = ends = stamp(datetime.fromtimestamp(request.expires, UTC))
    holds = f"The same call stays declined until {ends}. Do not repeat it; ask what to do instead."
    return Declined(what, holds, certainty=certainty, facts=facts)
