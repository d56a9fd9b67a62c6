"""Approval of a call or a list by the policy, a plan, a temporary approval or people."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval.votes import NotCounted, TypedValue, count_vote
from fastn_mcp.guard.approval.wait import DecisionWait
from fastn_mcp.guard.approval_form import (
    Answer,
    Approve,
    Decline,
    NoAnswer,
    PendingApproval,
    SubmittedForm,
    is_typed,
    read_answer,
    used_up,
)
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.channel import Announcement, Channel
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.judge import Judge
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.permission import Permission, Permissions, covers, declined
from fastn_mcp.guard.recorder import Recorder, record_expired
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import REFUSED, ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.identity import holder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.formats import stamp
from fastn_mcp.redaction import quote, redact_text
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

_RECENT_DECISIONS = 30
"""Number of the newest decided requests, of all callers, among which a caller's requests are looked for."""

_MIN_READING_SECONDS = 1.0
"""Time in which nobody can read a form: a faster answer, approved or declined, comes from a program."""

_BY_A_PROGRAM = (
    "the client's software answered the form in less than a second, before anyone could read it, so the answer does"
    " not count"
)

_KNOWN_VALUE = (
    "If the value is in this conversation, the model knows it: a person should rotate it and enter the new one."
)
"""What to do with a secret that the agent was told."""

_BY_ANOTHER = (
    "Somebody other than the requester has to approve it, since it deletes, changes access or has another effect that"
    " `own` of the team file leaves out."
)

_DISTRUST_SECONDS = 900.0
"""Time for which a form is not used after it was found not to reach a person."""


class Approvals:
    """Obtains the approvals of one account from the policy, a plan, a temporary approval or people."""

    def __init__(
        self,
        judge: Judge,
        ledger: Ledger,
        journal: ChangeJournal,
        recorder: Recorder,
        system: System,
        channel: Channel | None,
        typed: TypedSecrets,
        stops: Stops,
    ) -> None:
        self.channel = channel
        self.stops = stops
        self.decisions = DecisionWait(ledger, stops, system)
        self.permissions = Permissions(judge.budgets, journal, ledger, stops=stops, system=system)
        self._judge = judge
        self._budgets = judge.budgets
        self._account = judge.bound_account
        self._ledger = ledger
        self._recorder = recorder
        self._system = system
        self._typed = typed

    async def allowance(self, asker: Asker) -> dict[str, JsonValue]:
        """Return the mode, the remaining budgets and plan entries, a stop, and the caller's requests.

        Includes only unexpired requests, and where waiting requests can be decided.
        """
        now = self._system.now()
        ledger = self._ledger
        waiting = await ledger.waiting(now.timestamp())
        decided = await ledger.decided(_RECENT_DECISIONS)
        parts: dict[str, JsonValue] = {
            "budgets": await self._budgets.left(asker.counted, now),
            "plan": [{"entry": each.words(), "left": left} for each, left in await self._budgets.plan_left()],
            "waiting": self._own_requests(waiting, asker, now),
            "decided": self._own_requests(decided, asker, now),
            "stopped": await self.stops.facts(asker),
        }
        if parts["waiting"] and self.channel is not None:
            parts["page"] = self.channel.capabilities.page
        return {"mode": self._judge.policy.mode, **{name: part for name, part in parts.items() if part}}

    async def obtain(self, evaluation: Evaluation, caller: Caller) -> Permission | PendingApproval:
        """Return the approval of these calls, or the one open request for them. Raises a `FastnError`.

        The first of these cases applies:

        1. The caller brings a person's answer to an approval request. If the policy allows the calls by now, an
           approval is not needed, and only a decline counts.
        2. A person has lately declined the same calls.
        3. The policy, a plan or a temporary approval allows the calls.
        4. The approval of a list was used for other calls of it, and covers the rest.
        5. An earlier request for the same calls was approved, or is open.
        6. A person is asked, by the client's form or out of band (`_why_no_form`).

        Rates and people are checked only where a person is needed.
        """
        form = caller.form
        if form is not None and caller.submitted is not None:
            request, answer = await self._submitted(evaluation, caller, caller.submitted)
            if evaluation.verdict.decision is not Decision.ALLOW or isinstance(answer, Decline):
                return await self._count(evaluation, caller, form, request=request, answer=answer)
        earlier = await self._find_earlier(evaluation, caller)
        if earlier is not None and earlier.state in REFUSED:
            raise declined(earlier.note or "", request=earlier)
        if evaluation.verdict.decision is Decision.ALLOW:
            return _allowed(evaluation)
        if earlier is not None and earlier.used:
            if covers(earlier, evaluation.calls):
                return Permission(earlier.by or "", earlier)
            earlier = None  # it covered calls that were made, or that have changed since
        await self._check_limits(evaluation, caller)
        if earlier is not None and earlier.state is RequestState.APPROVED:
            return Permission(earlier.by or "", earlier)  # `Guard.execute` checks that it still covers the calls
        evaluation = await self._judge.questions.describe(evaluation)
        why_no_form = await self._why_no_form(evaluation, caller)
        if earlier is None:
            return await self._ask(evaluation, caller, why_no_form)
        return await self._ask_again(earlier, evaluation, caller, why_no_form)

    async def _check_limits(self, evaluation: Evaluation, caller: Caller) -> None:
        """Raise a `Refused` if no person may approve these calls now. Close the requests that have expired."""
        await self._budgets.check_rate(evaluation.effect, caller.asker.counted)
        problem = _no_people(evaluation, self.channel)
        if problem is not None:
            problem.facts["preview"] = (
                await self._judge.questions.with_question(evaluation)
            ).agent_question.data_for_agent()
            raise problem
        await record_expired(self._ledger, self._account, self._system.timestamp(), self._recorder.decided)

    async def _find_earlier(self, evaluation: Evaluation, caller: Caller) -> ApprovalRequest | None:
        """Return the newest request for the same calls, unless a stop has made it void."""
        now = self._system.timestamp()
        earlier = await self._ledger.latest(evaluation.id, now)
        if earlier is None or earlier.is_over:
            return earlier
        if not await self.stops.has_voided(caller.asker, earlier.stop_epoch, earlier.asker):
            return earlier
        await self._ledger.void(earlier.id, RequestState.STOPPED, now)
        return None

    async def _why_no_form(self, evaluation: Evaluation, caller: Caller) -> str | None:
        """Return the reason why the out-of-band channel asks, for the agent; None if the client's form does."""
        form = caller.form
        decision = evaluation.verdict.decision
        another = ""
        if evaluation.needs_another(caller) and decision is not Decision.FOUR_EYES:
            another = f"{_BY_ANOTHER} "
        if evaluation.verdict.step_up is not None:
            return f"{another}{evaluation.verdict.step_up.elsewhere} "
        if evaluation.typed is not None and not (form is not None and form.capabilities.takes_secrets):
            return f"{another}A person types the {evaluation.typed.name} outside the client. {_KNOWN_VALUE} "
        if another:
            return another
        if form is None:
            return "This client cannot show an approval form. "
        if decision is Decision.OUT_OF_BAND:
            return "The policy requires approval outside the client. "
        if decision is Decision.FOUR_EYES:
            return "The policy requires two people to approve it. "
        if not evaluation.people_question.fits_form and not form.capabilities.is_terminal:
            return "Its arguments must be shown in full and are too long for a form. "
        distrusted = await self._ledger.marked(_distrust(holder(caller.asker.principal, self._account), form))
        if distrusted > self._system.timestamp():
            return "This client's form was recently answered faster than a person can read, so it is not used for now. "
        return None

    async def _ask_again(
        self, earlier: ApprovalRequest, evaluation: Evaluation, caller: Caller, why_no_form: str | None
    ) -> Permission | PendingApproval:
        """Announce an open request again if it still covers the calls, or replace it."""
        now = self._system.timestamp()
        if why_no_form is None:
            await self._ledger.void(earlier.id, RequestState.STALE, now, note="asked in a form instead")
        elif self.channel is not None and covers(earlier, evaluation.calls):
            pending = await _announce(self.channel, earlier, evaluation, "Approval has already been requested. ")
            return _without_useless_link(pending, evaluation, caller)
        else:
            await self._ledger.void(earlier.id, RequestState.STALE, now)
            why_no_form = "The target has changed since approval was requested. "
        return await self._ask(evaluation, caller, why_no_form)

    def _own_requests(self, requests: Iterable[ApprovalRequest], asker: Asker, now: datetime) -> JsonValue:
        """Return a caller's unexpired requests, without the ids that decide them. Their sentences name records."""
        own = (asker.principal, self._account)
        rows: list[JsonValue] = []
        for request in requests:
            if (request.principal, request.account) != own or request.expires <= now.timestamp():
                continue
            row: dict[str, JsonValue] = {"tool": request.tool}
            if not self._judge.tools.hides_any:
                row["what"] = request.question.lines()[0]
            row["until"] = stamp(datetime.fromtimestamp(request.expires, UTC))
            if request.state is not RequestState.OPEN:
                row["state"] = request.state.value
            rows.append(row)
        return rows

    async def _ask(
        self, evaluation: Evaluation, caller: Caller, why_no_form: str | None
    ) -> Permission | PendingApproval:
        """Open an approval request in the client's form, or out of band for the reason that is given."""
        if caller.form is None or why_no_form is not None:
            return await self._ask_out_of_band(evaluation, caller, why_no_form or "")
        form = caller.form
        request = await self._open(evaluation, caller, out_of_band=False)
        with self._system.span("ask", form.name, {"channel": form.name}) as span:
            answer = await form.ask(request)
            span["is_answered"] = answer is not None
        if answer is None:
            return PendingApproval(request, evaluation.agent_question)
        if isinstance(answer, Announcement):
            raise TypeError(f"the form {form.name} has not asked within the call")
        return await self._count(evaluation, caller, form, request=request, answer=answer)

    async def _ask_out_of_band(self, evaluation: Evaluation, caller: Caller, why: str) -> PendingApproval:
        tool = evaluation.tool.tool_name()
        channel = self.channel
        if channel is None:
            raise Refused(
                f"{why}{tool} needs a person's approval.",
                f"Use a client that shows forms, or a terminal: fastn-mcp call {tool}",
                facts={"preview": evaluation.agent_question.data_for_agent()},
            )
        if evaluation.typed is not None and not channel.capabilities.takes_secrets:
            by_variable = "Name a variable that holds it, or a" if evaluation.typed.name == "value" else "A"
            raise Refused(
                f"Nobody can type the {evaluation.typed.name} where this server asks.",
                f"{by_variable} person makes the call at a terminal: fastn-mcp call {tool}",
            )
        request = await self._open(evaluation, caller, out_of_band=True)
        pending = await _announce(channel, request, evaluation, why)
        tells_first = evaluation.typed is not None and (not pending.page or pending.needs_link)
        return _without_useless_link(replace(pending, tells_first=tells_first), evaluation, caller)

    async def _open(self, evaluation: Evaluation, caller: Caller, *, out_of_band: bool) -> ApprovalRequest:
        """Open and record a request, or return the same request that another replica has opened meanwhile."""
        stop_epoch = await self.stops.check(caller.asker)
        lifetime = self._judge.policy.approval_lifetime
        request = _request(
            evaluation, caller, stop_epoch, self._account, lifetime, self._system, out_of_band=out_of_band
        )
        opened = await self._ledger.open(request)
        if opened != request.id:
            return await self._ledger.find(opened) or request
        self._recorder.asked(evaluation, request)
        return request

    async def _submitted(
        self, evaluation: Evaluation, caller: Caller, submitted: SubmittedForm
    ) -> tuple[ApprovalRequest, Answer]:
        """Return the request that came with this call, and the answer to it. A decline is not subject to limits."""
        request = await self._ledger.find(submitted.approval_id)
        if request is None or request.out_of_band or request.call != evaluation.id:
            raise Refused("This call has no approval request with that id.", "Call again to open a new request.")
        if request.state is not RequestState.OPEN:
            raise used_up()
        answer = read_answer(request, submitted.action, submitted.content)
        if isinstance(answer, Approve) and evaluation.needs_another(caller):
            answer = NoAnswer("nobody may approve such a call of their own")
        if evaluation.verdict.decision is not Decision.ALLOW and not isinstance(answer, Decline):
            await self._check_limits(evaluation, caller)
        return request, answer

    async def _count(
        self, evaluation: Evaluation, caller: Caller, form: Channel, request: ApprovalRequest, answer: Answer
    ) -> Permission | PendingApproval:
        """Record a person's decision in the ledger. A request that no person answered is asked about out of band."""
        now = self._system.timestamp()
        is_quick = now - request.created < _MIN_READING_SECONDS and not form.capabilities.is_terminal
        if is_quick and evaluation.verdict.decision is not Decision.ALLOW and not isinstance(answer, NoAnswer):
            answer = NoAnswer(_BY_A_PROGRAM)
        if isinstance(answer, NoAnswer):
            if is_quick or now >= request.expires:
                await self._ledger.mark(_distrust(request.holder, form), now + _DISTRUST_SECONDS, now)
            pending = await self._move_out_of_band(evaluation, caller, form, request=request, reason=answer.reason)
            return replace(pending, needs_link=False)
        if isinstance(answer, Approve) and not is_typed(request.expected, answer.typed):
            expected = "the expected one" if self._judge.tools.hides_any else quote(request.expected)
            why = f"The typed text was not {expected}."
            answer = Decline("another text was typed", why)
        if isinstance(answer, Decline):
            vote = Vote(form.name, approves=False, at=now)
            counted = await count_vote(
                vote, request, self._ledger, by=form.name, note=answer.note or answer.why or None
            )
        else:
            vote = Vote(form.name, approves=True, at=now, is_temporary=answer.is_temporary)
            typed = TypedValue(self._typed, answer.secret)
            counted = await count_vote(vote, request, self._ledger, form.name, typed=typed)
        if isinstance(counted, NotCounted):
            raise used_up()
        if isinstance(answer, Decline):
            raise declined(answer.note, answer.why)
        return Permission(form.name, counted, has_waited=caller.submitted is None)

    async def _move_out_of_band(
        self, evaluation: Evaluation, caller: Caller, form: Channel, request: ApprovalRequest, reason: str
    ) -> PendingApproval:
        """Move a request that no person answered in the form to the out-of-band channel."""
        now = self._system.timestamp()
        why = f"{_BY_ANOTHER} " if evaluation.needs_another(caller) else f"No person answered: {reason}. "
        same = await self._ledger.latest(evaluation.id, now)
        if self.channel is None or (same is not None and same.state is RequestState.OPEN):
            moved = await self._ledger.void(request.id, RequestState.UNANSWERED, now, by=form.name, note=reason)
        else:
            moved = await self._ledger.offer(request.id, now + self._judge.policy.approval_lifetime)
            if moved is not None:
                evaluation = await self._judge.questions.with_question(evaluation)
                return await _announce(self.channel, moved, evaluation, why)
        if moved is None and now < request.expires:
            raise used_up()
        return await self._ask_out_of_band(await self._judge.questions.describe(evaluation), caller, why)


def _allowed(evaluation: Evaluation) -> Permission:
    """Return what allows calls without a person: the policy, a plan or a temporary approval."""
    if evaluation.given_by is not None:
        return Permission("temporary_approval", given_by=evaluation.given_by)
    return Permission("policy" if evaluation.verdict.permit is None else "plan")


def _no_people(evaluation: Evaluation, channel: Channel | None) -> Refused | None:
    """Return a refusal if two people have to approve and no channel identifies them, or if none signs them in."""
    step_up = evaluation.verdict.step_up
    page = channel.capabilities.page if channel is not None else None
    if step_up is not None and step_up.page != page:
        return Refused(step_up.elsewhere, "Tell the operator: a tenant with caller_keys has no approval page.")
    if evaluation.verdict.decision is not Decision.FOUR_EYES:
        return None
    if channel is not None and channel.capabilities.identifies_people:
        return None
    return Refused(
        f"{evaluation.tool.tool_name()} needs two people ({evaluation.verdict.rule}), and this server cannot tell"
        " people apart.",
        "The operator can set up Slack or a webhook with approvers; or a person makes the change in the dashboard.",
    )


def _request(
    evaluation: Evaluation,
    caller: Caller,
    stop_epoch: int,
    account: str,
    lifetime: float,
    system: System,
    *,
    out_of_band: bool,
) -> ApprovalRequest:
    """Return the request that asks people to approve these calls within `lifetime` seconds."""
    now = system.timestamp()
    tool = evaluation.tool
    decision = evaluation.verdict.decision
    is_severe = decision in (Decision.OUT_OF_BAND, Decision.FOUR_EYES) and evaluation.effect is Effect.DESTROY
    return ApprovalRequest(
        id=f"ap_{system.token()}",
        principal=caller.asker.principal,
        stop_epoch=stop_epoch,
        tenant=caller.asker.tenant,
        login_names=caller.asker.login_names,
        client=caller.asker.client,
        client_name=redact_text(caller.asker.client_name),
        account=account,
        tool=tool.tool_name(),
        target=tool.target,
        call=evaluation.id,
        calls={each.id: each.bound() for each in evaluation.calls},
        required=decision.value,
        step_up=evaluation.verdict.step_up,
        expected=evaluation.people_question.expected if decision is Decision.TYPED or is_severe else None,
        out_of_band=out_of_band,
        question=evaluation.people_question,
        created=now,
        expires=now + lifetime,
        trace=system.trace(),
        permit=evaluation.permit if tool.target is not None else None,
        asked_by=redact_text(caller.asker.name) or None,
        typed=evaluation.typed,
        undoes=caller.undoes,
        records=tuple(each for current in evaluation.calls for each in current.resolved.references),
    )


def _distrust(holder: str, form: Channel) -> str:
    """Return the mark that a form does not reach a person."""
    return f"distrust {form.name} {holder}"


def _without_useless_link(pending: PendingApproval, evaluation: Evaluation, caller: Caller) -> PendingApproval:
    """Do not lead the person behind the caller to the page if they may not approve the request there."""
    return replace(pending, needs_link=False) if evaluation.needs_another(caller) else pending


async def _announce(channel: Channel, request: ApprovalRequest, evaluation: Evaluation, why: str) -> PendingApproval:
    announced = await channel.ask(request)
    if not isinstance(announced, Announcement):
        raise TypeError(f"the channel {channel.name} has not said where the request is decided")
    where = why + announced.sentence(request)
    page = channel.capabilities.page
    needs_link = page is not None and not announced.is_in_view
    return PendingApproval(request, evaluation.agent_question, where=where, page=page, needs_link=needs_link)
