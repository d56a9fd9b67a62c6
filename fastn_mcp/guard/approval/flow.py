"""Approval flow: ask in the client's elicitation form or an out-of-band channel, and act on the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from pydantic import JsonValue

from fastn_mcp.errors import Declined, Refused, TargetChanged
from fastn_mcp.guard.approval.caller import Caller, FormChannel
from fastn_mcp.guard.approval.request import (
    BY_SEVERAL,
    VERIFIED,
    Answer,
    Approve,
    Decline,
    NoAnswer,
    PendingApproval,
    PendingForm,
    Submitted,
    extent,
    opens_temporary,
    question,
    temporary_approval,
    used_up,
    with_typed,
)
from fastn_mcp.guard.approval.votes import NotCounted, TypedValue, count_vote
from fastn_mcp.guard.evaluation import ApprovedCall, CallEvaluation, Evaluation, Evaluator
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import Recorder, record_expired
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, TemporaryApproval, Vote
from fastn_mcp.ledger.identity import holder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.policy import Decision
from fastn_mcp.records.formats import stamp
from fastn_mcp.redaction import quote, redact_text
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

_TOO_FAST = 1.0
"""Seconds within which nobody can read a form: a faster answer, approved or declined, comes from a program."""

_BY_A_PROGRAM = (
    "the client's software answered the form in less than a second, before anyone could read it; that does not count"
)

_DISTRUST = 900.0
"""Seconds for which a form is not used after it was found not to reach a person."""


class OutOfBandChannel(Protocol):
    """Channel for approvals outside of the client: the approval page, a terminal or a webhook."""

    identifies_people: bool
    """Whether each person has a credential of their own, as four-eyes approval requires."""
    notifies: bool
    """Whether it brings a request before a person by itself. A terminal waits until somebody looks."""

    takes_secrets: bool
    """Whether a person can type a secret there."""

    @property
    def url(self) -> str | None:
        """URL of the page where requests are decided, without a key; None if there is none."""
        ...

    @property
    def is_in_view(self) -> bool:
        """Whether a browser of the person shows that page."""
        ...

    async def show(self, grant: str) -> str:
        """Publish an approval request, and return a sentence on where to answer it, without secrets."""
        ...


@dataclass(frozen=True, slots=True)
class Approval:
    """Permission to send the calls of a batch. Nothing is used up yet."""

    by: str
    """`policy`, `temporary_approval`, or how people approved it, such as `client_form`."""
    request: ApprovalRequest | None = None
    """The request that people approved, for all calls of the batch."""
    temporary: TemporaryApproval | None = None
    """The temporary approval that covers the call."""
    is_stale: bool = False
    """Whether the calls have to be evaluated again, since time has passed while a person decided."""

    @property
    def detail(self) -> str:
        """The people who approved it, one per line, if they are known, or how a temporary approval was given."""
        if self.temporary is not None:
            return self.temporary.by
        return "\n".join(self.request.people) if self.request is not None and self.by in (BY_SEVERAL, VERIFIED) else ""

    @property
    def reference(self) -> str | None:
        """Id of the approval request or temporary approval, for the audit log."""
        found = self.request or self.temporary
        return None if found is None else found.id


class ApprovalFlow:
    """Obtains approvals on one account (from the policy, a temporary approval or people) and uses them up."""

    def __init__(
        self,
        evaluator: Evaluator,
        ledger: Ledger,
        recorder: Recorder,
        system: System,
        out_of_band: OutOfBandChannel | None,
        typed: TypedSecrets,
    ) -> None:
        self._evaluator = evaluator
        self._budgets = evaluator.budgets
        self._account = evaluator.bound_account
        self._lifetime = evaluator.policy.approval_lifetime
        self._ledger = ledger
        self._recorder = recorder
        self._system = system
        self._out_of_band = out_of_band
        self._typed = typed

    @property
    def notifies(self) -> bool:
        """Whether a request is brought before a person without the help of the client."""
        return self._out_of_band is not None and self._out_of_band.notifies

    @property
    def page(self) -> str | None:
        """URL of the page where requests are decided, without a key; None if there is none."""
        return None if self._out_of_band is None else self._out_of_band.url

    async def obtain(self, evaluation: Evaluation, caller: Caller) -> Approval | PendingForm | PendingApproval:
        """Return the approval of these calls, or the one open request for them. Raises a `FastnError`."""
        if evaluation.verdict.decision is Decision.ALLOW:
            return Approval("policy")
        if (temporary := await self._find_temporary(evaluation, caller)) is not None:
            return Approval("temporary_approval", temporary=temporary)
        earlier = await self._ledger.latest(evaluation.digest, self._system.timestamp())
        if earlier is not None and earlier.used and not covers(earlier, evaluation.calls):
            earlier = None  # it covered calls that were made, or that have changed since
        if earlier is not None and earlier.used:
            return Approval(earlier.by or "", earlier)
        return await self._ask(evaluation, caller, earlier)

    async def _ask(
        self, evaluation: Evaluation, caller: Caller, earlier: ApprovalRequest | None
    ) -> Approval | PendingForm | PendingApproval:
        """Open an approval request, or act on the earlier one. Raises a `FastnError` if the calls may not be made."""
        await self._budgets.check_rate(evaluation.effect, caller.principal)
        self._check_people(evaluation)
        await record_expired(self._ledger, self._account, self._system.timestamp(), self._recorder.decided)
        form = caller.form
        if form is not None and form.submitted is not None:
            return await self._submitted(evaluation, caller, form, *form.submitted)
        why_not = await self._why_no_form(caller, evaluation)
        if earlier is not None and (form is None or why_not is not None or earlier.state is not RequestState.OPEN):
            return await self._earlier(earlier, evaluation, caller)
        if earlier is not None:  # the form replaces a request that is open out of band
            await self._ledger.void(
                earlier.id, RequestState.STALE, self._system.timestamp(), note="asked in a form instead"
            )
        if form is None or why_not is not None:
            return await self._ask_out_of_band(evaluation, caller, why_not or "")
        evaluation = await self._evaluator.describe(evaluation)
        request = await self._open(self._request(evaluation, caller, out_of_band=False), evaluation)
        with self._system.span("ask", form.name, {"channel": form.name}) as said:
            given = await form.ask(question(request))
            said["is_answered"] = not isinstance(given, PendingForm)
        if isinstance(given, PendingForm):
            return given
        return await self._answered(evaluation, caller, form, request, given)

    async def check(self, approval: Approval, evaluation: Evaluation) -> None:
        """Check that the approval still covers these calls.

        Raises `TargetChanged` if the target, its dependents or the policy changed since the approval was requested.
        """
        request = approval.request
        if request is None:
            return
        if not covers(request, evaluation.calls) or len(request.approvers) < request.needed:
            await self._ledger.void(request.id, RequestState.STALE, self._system.timestamp())
            raise _changed("Look at the preview; call again to ask anew.", {"preview": evaluation.preview.data()})
        if evaluation.batch.is_list and not request.used:
            self._recorder.agreed(evaluation.batch.tool, request, approval.by)

    async def use(
        self, approval: Approval, number: int, current: CallEvaluation, evaluation: Evaluation, caller: Caller
    ) -> ApprovedCall | None:
        """Use up the approval of one call and count its budgets. Raises a `FastnError` if it may not be sent now.

        None if a budget or a plan entry allowed it, and other calls used that up meanwhile: it has to be evaluated
        again.
        """
        request, is_list, by = approval.request, evaluation.batch.is_list, approval.by
        principal = caller.principal
        if request is not None:
            await self._use_request(request, number, current, evaluation)
            await self._budgets.spend_approved(current.effect, principal)
        elif approval.temporary is not None:
            await self._budgets.spend_rate(current.effect, principal)
            await self._budgets.spend_approved(current.effect, principal)
        elif current.verdict.decision not in (Decision.ALLOW, Decision.DENY):
            raise TargetChanged(
                f"It needs an approval now ({current.verdict.rule}), which it did not when the batch was begun.",
                "Call the batch again: what is left of it is asked about.",
            )
        elif (allowed := await self._evaluator.allow(current, principal)) is None:
            return None
        else:
            by = allowed
        if request is not None and opens_temporary(request):  # here and nowhere else: the target was checked
            opened = temporary_approval(request, self._system.token(), self._system.timestamp())
            await self._ledger.add_temporary(opened)
        trace = None if request is None else request.trace
        of = f"{approval.reference}.{number}" if request is not None and is_list else approval.reference
        return ApprovedCall(current, principal, by, of, trace, evaluation.id, number, approval.detail, caller.person)

    async def _use_request(
        self, request: ApprovalRequest, number: int, current: CallEvaluation, evaluation: Evaluation
    ) -> None:
        if not _covers(request, number, current):
            raise _changed("Look at it; call the batch again to be asked anew about what is left.")
        used = await self._ledger.use(request.id, number, self._system.timestamp())
        if used is None:
            raise used_up()
        if len(used.used) == 1:  # after use: a repeated approval must not be counted again, and a list counts once
            await self._budgets.spend_rate(evaluation.effect, request.principal)

    async def _find_temporary(self, evaluation: Evaluation, caller: Caller) -> TemporaryApproval | None:
        """Return the temporary approval that covers a call; None if the call brings a person's answer."""
        tool, answered = evaluation.batch.tool, caller.form is not None and caller.form.submitted is not None
        if answered or evaluation.similar is None or tool.target is None:
            return None
        return await self._ledger.find_temporary(
            caller.principal, self._account, tool.tool_name(), tool.target, evaluation.similar, self._system.timestamp()
        )

    def _check_people(self, evaluation: Evaluation) -> None:
        """Raise a `Refused` if two people have to approve and no channel identifies them."""
        if evaluation.verdict.decision is not Decision.FOUR_EYES:
            return
        if self._out_of_band is None or not self._out_of_band.identifies_people:
            rule, tool = evaluation.verdict.rule, evaluation.batch.tool.tool_name()
            raise Refused(
                f"{tool} needs two people ({rule}), and this server cannot tell people apart.",
                "The operator can set up a webhook with approvers; or a person does it in the dashboard.",
                facts={"preview": evaluation.preview.data()},
            )

    async def _why_no_form(self, caller: Caller, evaluation: Evaluation) -> str | None:
        """Return the reason why the client's form is not used, for the agent; None if it is used."""
        form, decision = caller.form, evaluation.verdict.decision
        if form is None:
            return "This client cannot ask. "
        if evaluation.typed is not None and not form.is_terminal:
            return f"A person types the {evaluation.typed.name} outside of the client. "
        if decision is Decision.OUT_OF_BAND:
            return "The policy requires approval outside of the client. "
        if decision is Decision.FOUR_EYES:
            return "The policy requires two people to approve it. "
        if not evaluation.preview.fits_form and not form.is_terminal:
            return "Its arguments must be shown in full and are too long for a form. "
        if await self._ledger.distrusted(holder(caller.principal, self._account), form.name, self._system.timestamp()):
            return "This client's form was recently answered faster than a person can read, so it is not used for now. "
        return None

    async def _submitted(
        self, evaluation: Evaluation, caller: Caller, form: FormChannel, id_: str, given: Answer | Submitted
    ) -> Approval | PendingApproval:
        """Act on the answer that came with this call."""
        request = await self._ledger.find(id_)
        if request is None or request.out_of_band or request.call != evaluation.digest:
            raise Refused("This call has no approval request with that id.", "Call again to open a new request.")
        if request.state is not RequestState.OPEN:
            raise used_up()
        answer = given.answer(question(request)) if isinstance(given, Submitted) else given
        return await self._answered(evaluation, caller, form, request, answer)

    async def _answered(
        self, evaluation: Evaluation, caller: Caller, form: FormChannel, request: ApprovalRequest, answer: Answer
    ) -> Approval | PendingApproval:
        """Act on an answer from the client's form. A decision is recorded in the ledger first."""
        by, now = form.name, self._system.timestamp()
        is_quick = now - request.created < _TOO_FAST and not form.is_terminal
        if is_quick and not isinstance(answer, NoAnswer):
            answer = NoAnswer(_BY_A_PROGRAM)
        if isinstance(answer, Approve) and request.expected not in (None, answer.typed):
            answer = Decline(
                "another text was typed", f"Another text was typed than {quote(request.expected)}, which approves it."
            )
        match answer:
            case NoAnswer(reason):
                left = await self._unanswered(evaluation, caller, form, request, reason, is_quick=is_quick)
                return replace(left, needs_link=False)
            case Decline(note, why):
                vote = Vote(by, approves=False, at=now)
                counted = await count_vote(vote, request, self._ledger, by, note or why or None)
                if isinstance(counted, NotCounted):
                    raise used_up()
                raise _declined(note, why)
            case Approve(_, is_temporary, secret):
                vote = Vote(by, approves=True, at=now, is_temporary=is_temporary)
                typed = TypedValue(self._typed, secret)
                counted = await count_vote(vote, request, self._ledger, by, typed=typed)
                if isinstance(counted, NotCounted):
                    raise used_up()
                is_stale = form.submitted is None  # an answer that came with the call took no time
                return Approval(by, counted, None, is_stale)

    async def _unanswered(
        self,
        evaluation: Evaluation,
        caller: Caller,
        form: FormChannel,
        request: ApprovalRequest,
        reason: str,
        *,
        is_quick: bool,
    ) -> PendingApproval:
        """Move a request that no person answered in the form to the out-of-band channel."""
        now, why = self._system.timestamp(), f"No person answered: {reason}. "
        if is_quick or now >= request.expires:
            await self._ledger.distrust(request.holder, form.name, now + _DISTRUST)
        same = await self._ledger.latest(evaluation.digest, now)
        if self._out_of_band is None or (same is not None and same.state is RequestState.OPEN):
            voided = await self._ledger.void(request.id, RequestState.UNANSWERED, now, by=form.name, note=reason)
            if voided is None and now < request.expires:
                raise used_up()
            return await self._ask_out_of_band(evaluation, caller, why)
        offered = await self._ledger.offer(request.id, now + self._lifetime)
        if offered is not None:
            return await self._shown(self._out_of_band, offered, evaluation, why)
        if now < request.expires:
            raise used_up()
        return await self._ask_out_of_band(evaluation, caller, why)

    async def _earlier(
        self, request: ApprovalRequest, evaluation: Evaluation, caller: Caller
    ) -> Approval | PendingApproval:
        """Act on an earlier request for the same call, by its state."""
        if request.state is RequestState.DECLINED:
            raise _declined(request.note or "", until=request.expires)
        if request.state is RequestState.APPROVED:
            return Approval(request.by or "", request)
        if self._out_of_band is None or not covers(request, evaluation.calls):
            await self._ledger.void(request.id, RequestState.STALE, self._system.timestamp())
            return await self._ask_out_of_band(evaluation, caller, "The target has changed since it was asked. ")
        evaluation = await self._evaluator.describe(evaluation)
        return await self._shown(self._out_of_band, request, evaluation, "It is still waiting for an answer. ")

    async def _ask_out_of_band(self, evaluation: Evaluation, caller: Caller, why: str) -> PendingApproval:
        tool, evaluation = evaluation.batch.tool.tool_name(), await self._evaluator.describe(evaluation)
        if self._out_of_band is None:
            raise Refused(
                f"{why}{tool} needs the approval of a person.",
                f"Use a client that shows forms, or a terminal: fastn-mcp call {tool}",
                facts={"preview": evaluation.preview.data()},
            )
        if evaluation.typed is not None and not self._out_of_band.takes_secrets:
            by_variable = "Name a variable that holds it, or a" if evaluation.typed.name == "value" else "A"
            raise Refused(
                f"Nobody can type the {evaluation.typed.name} where this server asks.",
                f"{by_variable} person makes the call at a terminal: fastn-mcp call {tool}",
            )
        opened = await self._open(self._request(evaluation, caller, out_of_band=True), evaluation)
        return await self._shown(self._out_of_band, opened, evaluation, why)

    async def _shown(
        self, channel: OutOfBandChannel, request: ApprovalRequest, evaluation: Evaluation, why: str
    ) -> PendingApproval:
        where = why + await channel.show(request.id)
        needs_link = channel.url is not None and not channel.is_in_view
        return PendingApproval(request.id, evaluation.preview, where, request.expires, channel.url, needs_link)

    async def _open(self, request: ApprovalRequest, evaluation: Evaluation) -> ApprovalRequest:
        """Open and record a request, or return the same one that another replica has opened meanwhile."""
        opened = await self._ledger.open(request)
        if opened != request.id:
            return await self._ledger.find(opened) or request
        self._recorder.asked(evaluation, request)
        return request

    def _request(self, evaluation: Evaluation, caller: Caller, *, out_of_band: bool) -> ApprovalRequest:
        now, tool, decision = self._system.timestamp(), evaluation.batch.tool, evaluation.verdict.decision
        is_severe = decision in (Decision.OUT_OF_BAND, Decision.FOUR_EYES) and evaluation.effect is Effect.DESTROY
        is_temporary = evaluation.similar is not None and tool.target is not None
        preview = with_typed(evaluation.preview.stored(), evaluation.typed)
        if caller.name:
            preview["asked_by"] = redact_text(caller.name)
        return ApprovalRequest(
            id=self._system.token(),
            principal=caller.principal,
            account=self._account,
            tool=tool.tool_name(),
            target=tool.target,
            call=evaluation.digest,
            calls={number: current.shown() for number, current in evaluation.calls.items()},
            required=decision.value,
            expected=evaluation.preview.expected if decision is Decision.TYPED or is_severe else None,
            allows_temporary=is_temporary,
            out_of_band=out_of_band,
            preview=preview,
            text=tuple(evaluation.preview.lines()),
            created=now,
            expires=now + self._lifetime,
            trace=self._system.trace(),
            similar=evaluation.similar,
            extent=extent(tool) if is_temporary and isinstance(tool, Operation) else "",
        )


def covers(request: ApprovalRequest, calls: Mapping[int, CallEvaluation]) -> bool:
    """Whether the request still covers these calls and was used for none of them."""
    return all(number not in request.used and _covers(request, number, current) for number, current in calls.items())


def _covers(request: ApprovalRequest, number: int, current: CallEvaluation) -> bool:
    """Whether the binding is the same, there are no more dependents, and the policy is no stricter than before."""
    before = request.calls.get(number)
    if before is None or Decision(request.required).rank < current.verdict.decision.rank:
        return False
    now = current.shown()
    return before.binding == now.binding and _no_more(now.dependents, before.dependents)


_HISTORY = "executions"
"""Past runs. Their number grows by itself while a person decides, so only the first one voids an approval."""


def _no_more(now: Mapping[str, float | None], shown: Mapping[str, float | None]) -> bool:
    """Whether there are no more dependents of any kind than were shown. A kind shown as not checked covers any number;
    a kind that was checked then and cannot be checked now fails."""
    for kind, count in now.items():
        before = shown.get(kind, 0.0)
        grows = kind.endswith(_HISTORY) and before
        if before is not None and (count is None or (count > before and not grows)):
            return False
    return True


def _changed(next_step: str, facts: Mapping[str, JsonValue] | None = None) -> TargetChanged:
    return TargetChanged("The target is no longer in the state that was approved.", next_step, facts=facts)


def _declined(note: str = "", why: str = "", until: float | None = None) -> Declined:
    """`until`: Unix seconds until which the same call stays declined, if it does."""
    if why:
        return Declined(
            f"{why} That counts as declined.", "If the person wants it after all, call again: they are asked anew."
        )
    said: Mapping[str, JsonValue] = {"note": note} if note else {}
    if until is None:
        return Declined("A person declined this call.", "Do not repeat it; ask what to do instead.", facts=said)
    ends = stamp(datetime.fromtimestamp(until, UTC))
    holds = f"The same call stays declined until {ends}. Do not repeat it; ask what to do instead."
    return Declined("A person declined this call.", holds, facts={**said, "declined_until": ends})
