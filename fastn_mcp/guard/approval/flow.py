"""Obtain an approval: by the client's elicitation form or an out-of-band channel, and act on the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from pydantic import JsonValue

from fastn_mcp.errors import Declined, Refused, TargetChanged
from fastn_mcp.guard.approval import quorum
from fastn_mcp.guard.approval.quorum import Rights
from fastn_mcp.guard.approval.request import (
    Answer,
    ApprovalForm,
    Approve,
    Decline,
    NoAnswer,
    PendingApproval,
    PendingForm,
    Submitted,
    can_be_temporary,
    extent,
    question,
    temporary_approval,
)
from fastn_mcp.guard.audit.recorder import Consent, Recorder, record_expired
from fastn_mcp.guard.evaluation import BudgetCheck, CallEvaluation, Evaluation
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, RequestState, TemporaryApproval, holder
from fastn_mcp.guard.policy import Decision, PolicyDecision
from fastn_mcp.guard.preview import Shown
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

_TOO_FAST = 1.0
"""Seconds within which nobody reads a question: any answer, yes or no, then comes from a program."""

_DISTRUST = 900.0
"""Seconds that a channel is left alone after it was found not to reach a person."""

ASKABLE = (RequestState.OPEN, RequestState.APPROVED)


class FormChannel(Protocol):
    """The client's own way to ask its person."""

    name: str
    trusts_fast_answers: bool
    """Whether the answer is typed at a terminal after the question was shown, where even a quick one is a person's."""

    @property
    def submitted(self) -> tuple[str, Answer | Submitted] | None:
        """The grant whose question this call answers, with the answer, where it does."""
        ...

    async def ask(self, question: ApprovalForm) -> Answer | PendingForm:
        """Ask, and wait for the answer where that can be done."""
        ...


class OutOfBandChannel(Protocol):
    """Where questions lie that no form can ask: the approval page, a terminal, a webhook."""

    identifies_people: bool
    """Whether it tells people apart by credentials of theirs, so that two can be known to be two."""

    async def show(self, grant: str) -> str:
        """Bring a question before a person, and say where it is answered. Never a secret."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and the client's form, where it has one."""

    principal: str
    form: FormChannel | None
    rights: Rights | None = None
    """What their sign-in allows; None where nobody signs in, since whoever has this process has the account."""

    def check(self, tool: str, effect: Effect) -> None:
        """Raises `InsufficientScope` where they may not make a call of this effect."""
        if self.rights is not None:
            self.rights.check(tool, effect)


@dataclass(frozen=True, slots=True)
class Approval:
    """By what right the calls of a batch may be sent. Nothing is used yet."""

    by: str
    """`policy`, `scope`, or who approved it and how."""
    grants: Mapping[int, ApprovalRequest] = field(default_factory=dict[int, ApprovalRequest])
    """The grant of each call, by number, where a person approved it."""
    scope: TemporaryApproval | None = None
    """The temporary approval that it is by."""
    answer: ApprovalRequest | None = None
    """The grant that a person has answered just now, for all calls of the batch."""
    is_stale: bool = False
    """Whether the calls have to be evaluated again. A person takes time."""
    temporary_approval: bool = False
    """Whether they approved such calls on its target for a while, too."""


class ApprovalFlow:
    """Obtains approvals on one account, from the policy, a temporary approval or a person, and uses them up."""

    def __init__(
        self,
        account: str,
        ledger: Ledger,
        recorder: Recorder,
        system: System,
        desk: OutOfBandChannel | None,
        budgets: BudgetCheck,
        lifetime: float,
    ) -> None:
        """`lifetime` is for how many seconds a request can be answered, and the approved call made."""
        self._account = account
        self._lifetime = lifetime
        self._ledger = ledger
        self._recorder = recorder
        self._system = system
        self._desk = desk
        self._budgets = budgets

    async def obtain(self, matter: Evaluation, caller: Caller) -> Approval | PendingForm | PendingApproval:
        """The approval of these calls, or the one request about them that is open. Raises a `FastnError`."""
        if matter.verdict.decision is Decision.ALLOW:
            return Approval("policy")
        if (scope := await self._scope(matter, caller)) is not None:
            return Approval("scope", scope=scope)
        if (held := await self._held(matter)) is not None:
            return held
        await self._budgets.spend_rate(matter.effect, caller.principal, is_check=True)
        return await self._ask(matter, caller)

    async def accept(self, approval: Approval, matter: Evaluation) -> Approval:
        """Check that the answered grant still covers these calls, and open a grant for each call of a list.

        Raises `TargetChanged` if the target, its dependents or the policy changed since the person was asked.
        """
        grant, now = approval.answer, self._system.now().timestamp()
        if grant is None:
            return approval
        holds = covers(grant, matter.binding, matter.verdict, matter.preview)
        if not holds or await quorum.incomplete(grant, self._ledger):
            await self._ledger.move(grant.id, ASKABLE, RequestState.STALE, now)
            raise _changed("Look at the preview; call again to ask anew.", {"preview": matter.preview.data()})
        if not matter.batch.is_list:
            return replace(approval, grants={1: grant})
        await self._burn(approval, grant)
        await self._budgets.spend_rate(matter.effect, grant.principal)  # once for the whole list
        return await self._granted(matter, grant, approval.by)

    async def use(self, approval: Approval, number: int, current: CallEvaluation, principal: str) -> Consent:
        """Use up the approval of one call, and its budgets. Raises a `FastnError` where it may not be sent now."""
        verdict, effect, preview = current.verdict, current.effect, current.preview
        if approval.scope is not None:
            await self._budgets.spend(effect, principal)
            return Consent("scope", verdict, effect, approval.scope.id, current.target, current.name)
        grant = approval.grants.get(number)
        if grant is None or preview is None:
            if verdict.decision not in (Decision.ALLOW, Decision.DENY):
                raise TargetChanged(
                    f"It needs an approval now ({verdict.rule}), which it did not when the batch was begun.",
                    "Call the batch again: what is left of it is asked about.",
                )
            return await self._budgets.allow(current, principal)
        if not covers(grant, current.binding, verdict, preview):
            raise _changed("Look at it; call the batch again to be asked anew about what is left.")
        await self._burn(approval, grant)
        # Only now: repeats of one approval must not use up the budget of others.
        await self._budgets.spend(effect, principal, is_counted=approval.answer is None)
        return Consent(grant.by or approval.by, verdict, effect, grant.id, current.target, current.name, grant.trace)

    async def _burn(self, approval: Approval, grant: ApprovalRequest) -> None:
        now = self._system.now().timestamp()
        if not await self._ledger.move(grant.id, ASKABLE, RequestState.USED, now, by=grant.by or approval.by):
            raise used_up()
        if grant is not approval.answer:
            return
        await self._ledger.note_answer(grant.holder, declined=False, now=now)
        if approval.temporary_approval:  # only now: an answer that comes again opens nothing
            await self._ledger.add_temporary(temporary_approval(grant, self._system.token(), now, approval.by))

    async def _scope(self, matter: Evaluation, caller: Caller) -> TemporaryApproval | None:
        """The temporary approval that covers a call; none for one about which a person has just answered."""
        tool, answered = matter.batch.tool, caller.form is not None and caller.form.submitted is not None
        if answered or matter.similar is None or tool.target is None:
            return None
        now = self._system.now().timestamp()
        return await self._ledger.find_temporary(
            caller.principal, self._account, tool.tool_name(), tool.target, matter.similar, now
        )

    async def _held(self, matter: Evaluation) -> Approval | None:
        """The approval given for a list earlier; None unless a valid grant covers each call that is left."""
        if not matter.batch.is_list:
            return None
        kept = {step.number: step.grant for step in await self._ledger.steps(matter.id)}
        now, grants = self._system.now().timestamp(), dict[int, ApprovalRequest]()
        for number, current in matter.calls.items():
            grant = None if (id_ := kept.get(number)) is None else await self._ledger.find(id_)
            if grant is None or grant.state is not RequestState.APPROVED or grant.expires <= now:
                return None
            if current.preview is None or not covers(grant, current.binding, current.verdict, current.preview):
                return None
            grants[number] = grant
        return Approval(next(grant.by or "elsewhere" for grant in grants.values()), grants)

    async def _granted(self, matter: Evaluation, asked: ApprovalRequest, by: str) -> Approval:
        """Open a grant for each call of a list whose request was approved as a whole."""
        now = self._system.now().timestamp()
        for step in await self._ledger.steps(matter.id):
            if step.grant is not None:  # of an earlier answer, which this one replaces
                await self._ledger.move(step.grant, ASKABLE, RequestState.STALE, now)
        grants: dict[int, ApprovalRequest] = {}
        for number, current in matter.calls.items():
            assert current.preview is not None  # noqa: S101 - the calls of a list are always read
            grants[number] = replace(
                asked,
                id=f"{asked.id}.{number}",
                tool=current.call.tool_name(),
                target=current.call.target,
                call=current.digest,
                binding=current.binding,
                expected=None,
                out_of_band=False,
                preview=current.preview.data(),
                text=tuple(current.preview.lines()),
                created=now,
                expires=now + self._lifetime,
                state=RequestState.APPROVED,
                by=by,
                note=None,
                decided=now,
                dependents=current.preview.dependents(),
            )
            await self._ledger.open(grants[number])
        await self._ledger.hold_steps(matter.id, {number: grant.id for number, grant in grants.items()}, now)
        self._recorder.agreed(matter.batch.tool, asked, by)
        return Approval(by, grants)

    async def _ask(self, matter: Evaluation, caller: Caller) -> Approval | PendingForm | PendingApproval:
        """Ask, or find the answer to what was asked before. Raises a `FastnError` where it may not be made."""
        tool = matter.batch.tool.tool_name()
        if matter.verdict.decision is Decision.FOUR_EYES and not (self._desk and self._desk.identifies_people):
            raise Refused(
                f"{tool} needs two people ({matter.verdict.rule}), and this server cannot tell people apart.",
                "The operator can set up a webhook with approvers; or a person does it in the dashboard.",
                facts={"preview": matter.preview.data()},
            )
        now = self._system.now().timestamp()
        await record_expired(self._ledger, self._account, now, self._recorder.decided)
        if caller.form is not None and (submitted := caller.form.submitted) is not None:
            return await self._resumed(matter, caller, caller.form, *submitted)
        form, why_not = caller.form, await self._why_no_form(caller, matter, now)
        if (earlier := await self._ledger.latest(matter.digest, now)) is not None:
            if form is None or why_not is not None or earlier.state is not RequestState.OPEN:
                return await self._earlier(earlier, matter, caller)
            # The person is at a form now: what another client put elsewhere is not asked twice.
            await self._ledger.move(
                earlier.id, [RequestState.OPEN], RequestState.STALE, now, note="asked in a form instead"
            )
        if form is None or why_not is not None:
            return await self._elsewhere(matter, caller, why_not or "")
        grant = self._grant(matter, caller, out_of_band=False)
        await self._open(grant, matter)
        with self._system.span("ask", form.name, {"channel": form.name}) as said:
            given = await form.ask(question(grant))
            said["is_answered"] = not isinstance(given, PendingForm)
        if isinstance(given, PendingForm):
            return given
        return await self._answered(matter, caller, form, grant, given, fresh=False)

    async def _why_no_form(self, caller: Caller, matter: Evaluation, now: float) -> str | None:
        """Why the client's form is not used, in words for the agent; None where it is."""
        if caller.form is None:
            return "This client cannot ask. "
        if matter.verdict.decision is Decision.OUT_OF_BAND:
            return "The policy requires approval outside of the client. "
        if matter.verdict.decision is Decision.FOUR_EYES:
            return "The policy requires two people to approve it. "
        if not matter.preview.fits_form and not caller.form.trusts_fast_answers:
            return "Its arguments must be shown in full and are too long for a form. "
        if await self._ledger.distrusted(holder(caller.principal, self._account), caller.form.name, now):
            return "This client's form was recently answered faster than a person can read, so it is not used for now. "
        return None

    async def _resumed(
        self, matter: Evaluation, caller: Caller, form: FormChannel, grant_id: str, given: Answer | Submitted
    ) -> Approval | PendingApproval:
        grant = await self._ledger.find(grant_id)
        if grant is None or grant.out_of_band or grant.call != matter.digest:
            raise Refused(
                "There is no such approval request for this call.", "Call again without it, to be asked anew."
            )
        if grant.state is not RequestState.OPEN:
            raise used_up()
        answer = given.answer(question(grant)) if isinstance(given, Submitted) else given
        return await self._answered(matter, caller, form, grant, answer, fresh=True)

    async def _answered(
        self,
        matter: Evaluation,
        caller: Caller,
        form: FormChannel,
        grant: ApprovalRequest,
        answer: Answer,
        *,
        fresh: bool,
    ) -> Approval | PendingApproval:
        """What follows from the answer that the client's form brought."""
        by = form.name
        now = self._system.now().timestamp()
        quick = now - grant.created < _TOO_FAST and not form.trusts_fast_answers
        if quick and not isinstance(answer, NoAnswer):
            answer = NoAnswer("the form was answered in less than a second, which only a program does")
        match answer:
            case NoAnswer(reason):
                ended = await self._ledger.move(grant.id, ASKABLE, RequestState.UNANSWERED, now, by=by, note=reason)
                if not ended and now < grant.expires:
                    raise used_up()
                if quick or not ended:
                    await self._ledger.distrust(grant.holder, by, now + _DISTRUST)
                return await self._elsewhere(matter, caller, f"No person answered: {reason}. ")
            case Decline(note, why):
                await self._decline(grant, now, by, note or why)
                raise _declined(note, why)
            case Approve(typed, minutes):
                if grant.expected is not None and typed != grant.expected:
                    await self._decline(grant, now, by, "another text was typed")
                    raise _declined(why="The text that was typed is not the one that approves this call.")
                temporary_approval = bool(minutes) and can_be_temporary(grant)
                return Approval(by, answer=grant, is_stale=not fresh, temporary_approval=temporary_approval)

    async def _earlier(self, grant: ApprovalRequest, matter: Evaluation, caller: Caller) -> Approval | PendingApproval:
        """What became of a question that was put elsewhere."""
        if grant.state is RequestState.DECLINED:
            raise _declined(grant.note or "", until=grant.expires)
        if grant.state is RequestState.APPROVED:
            return Approval(grant.by or "elsewhere", answer=grant)
        if not covers(grant, matter.binding, matter.verdict, matter.preview):
            await self._ledger.move(grant.id, ASKABLE, RequestState.STALE, self._system.now().timestamp())
            return await self._elsewhere(matter, caller, "The target has changed since it was asked. ")
        where = await self._where(grant.id)
        return PendingApproval(matter.preview, "It is still waiting for an answer. " + where, grant.expires)

    async def _elsewhere(self, matter: Evaluation, caller: Caller, why: str) -> PendingApproval:
        tool = matter.batch.tool.tool_name()
        if self._desk is None:
            raise Refused(
                f"{why}{tool} needs the approval of a person.",
                f"Use a client that shows forms, or a terminal: fastn-mcp call {tool}",
                facts={"preview": matter.preview.data()},
            )
        grant = self._grant(matter, caller, out_of_band=True)
        opened = await self._open(grant, matter)
        return PendingApproval(matter.preview, why + await self._where(opened.id), opened.expires)

    async def _open(self, grant: ApprovalRequest, matter: Evaluation) -> ApprovalRequest:
        """Record that a person is asked; or find the request that another replica has opened at the same time."""
        opened = await self._ledger.open(grant)
        if opened != grant.id:
            return await self._ledger.find(opened) or grant
        self._recorder.asked(
            matter.batch.tool, grant.principal, matter.verdict, matter.effect, grant.id, matter.preview.name
        )
        return grant

    async def _where(self, grant: str) -> str:
        assert self._desk is not None  # noqa: S101 - only a desk opens what lies elsewhere
        return await self._desk.show(grant)

    async def _decline(self, grant: ApprovalRequest, now: float, by: str, note: str) -> None:
        await self._ledger.move(grant.id, ASKABLE, RequestState.DECLINED, now, by=by, note=note or None)
        await self._ledger.note_answer(grant.holder, declined=True, now=now)

    def _grant(self, matter: Evaluation, caller: Caller, *, out_of_band: bool) -> ApprovalRequest:
        now, tool = self._system.now().timestamp(), matter.batch.tool
        asks = matter.verdict.decision
        severe = asks in (Decision.OUT_OF_BAND, Decision.FOUR_EYES)
        typed = asks is Decision.TYPED or (severe and matter.effect is Effect.DESTROY)
        return ApprovalRequest(
            id=self._system.token(),
            principal=caller.principal,
            account=self._account,
            tool=tool.tool_name(),
            target=tool.target,
            call=matter.digest,
            binding=matter.binding,
            required=asks.value,
            expected=matter.preview.expected if typed else None,
            allows_temporary=matter.similar is not None and tool.target is not None,
            out_of_band=out_of_band,
            preview=matter.preview.data(),
            text=tuple(matter.preview.lines()),
            created=now,
            expires=now + self._lifetime,
            trace=self._system.trace(),
            dependents=matter.preview.dependents(),
            similar=matter.similar,
            extent=extent(tool) if isinstance(tool, Operation) else "",
        )


def covers(grant: ApprovalRequest, binding: str, verdict: PolicyDecision, shown: Shown) -> bool:
    """Whether a grant still covers this call: same binding, no more dependents, no stricter decision of the policy."""
    same = grant.binding == binding and not quorum.less_than(grant.required, verdict.decision)
    return same and grant.dependents is not None and _no_more(shown.dependents(), grant.dependents)


_HISTORY = "executions"
"""Past runs, which grow by themselves while a person decides: the first one counts, more of them do not."""


def _no_more(now: Mapping[str, float | None], shown: Mapping[str, float | None]) -> bool:
    """Whether there are no more dependents of any kind than were shown. A kind shown as not checked covers any number;
    one that was checked and cannot be checked now does not hold."""
    for kind, count in now.items():
        before = shown.get(kind, 0.0)
        grows = kind.endswith(_HISTORY) and before
        if before is not None and (count is None or (count > before and not grows)):
            return False
    return True


def _changed(next_step: str, facts: Mapping[str, JsonValue] | None = None) -> TargetChanged:
    return TargetChanged("The target is no longer in the state that was approved.", next_step, facts=facts)


def used_up() -> Refused:
    """An approval that is no longer one."""
    return Refused("This approval was already used, or has expired.", "Call again to ask anew.")


def _declined(note: str = "", why: str = "", until: float | None = None) -> Declined:
    """`until` is how long the same call stays declined, where it does."""
    if why:
        return Declined(f"{why} It counts as declined.", "Ask the person, then call again.")
    said: Mapping[str, JsonValue] = {"note": note} if note else {}
    if until is None:
        return Declined("A person declined this call.", "Do not repeat it; ask what to do instead.", facts=said)
    ends = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    holds = f"The same call stays declined until {ends}. Do not repeat it; ask what to do instead."
    return Declined("A person declined this call.", holds, facts={**said, "declined_until": ends})
