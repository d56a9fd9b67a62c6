"""Evaluations: what a call, or a list of calls, would do, what the policy decides, and what a person is asked.

`judge.Judge` makes them from fresh reads. Everything that follows uses them: refusals, previews, approval requests,
the check of an approval, records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.client.reads import RecordedReads
from fastn_mcp.errors import Refused
from fastn_mcp.guard.caller import Caller
from fastn_mcp.ledger.approval_request import ApprovalRequest, ShownCall
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.decision import Decision, PolicyDecision, effects_below, strictest
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.plan import would_allow
from fastn_mcp.policy.policy import NO_PLAN, Policy
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.tool import Effect, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A call, or the calls of a list that are still to be made, as judged at one moment."""

    tool: Tool[Any]
    """The call itself, or the tool that received the list."""
    id: str
    """Digest that finds the call again: of the caller, the account, the tool and the arguments (`Judge.call_id`).

    The id of a list is a digest of the ids of its calls, in order, and of its name.
    """
    effect: Effect
    """Effect on the current state. For a list, the most severe effect among its calls."""
    verdict: PolicyDecision
    """Decision of the policy. For a list, the strictest one among its calls: it applies to all of them."""
    hides_any: bool = False
    """Whether there may be something among what was read that the agent may not read."""
    question: Question | None = None
    """What people read before they decide; None unless it was made (`guard.questions`)."""
    question_for_agent: Question | None = None
    """The question without what the agent may not read; None if it may read all."""
    list_calls: tuple["Evaluation", ...] = ()
    """Evaluations of the calls of a list that are still to be made, in order; empty for a single call."""
    number: int = 1
    """Place in its list, from 1, for people."""
    resolved_call: ResolvedCall | None = None
    """The call with all records that it touches; None for a list."""
    binding: str = ""
    """Digest of the resolved call, its label and the policy. An approval of the call holds for this binding only."""
    permit: Permit | None = None
    """Temporary approval that people may give besides; None if there is none."""
    given_by: ApprovalRequest | None = None
    """Approval whose temporary approval covers the call; None if there is none."""
    is_unsettled: bool = False
    """Whether the call may have been made before."""
    repeat_id: str = ""
    """Id by which a repeated call is recognised: the id of the call without its idempotency key."""
    began: float = 0.0
    """When its reads began, as a timestamp."""
    reads: RecordedReads | None = field(default=None, repr=False, compare=False)
    """Repeats the reads that were made for it."""
    undoes: Change | None = None
    """The earlier change that the call undoes."""
    is_stopped: bool = False
    """Whether a person has stopped the caller's changes. Only a preview looks; a call is refused before."""

    @property
    def is_list(self) -> bool:
        """Whether it is a list of calls. A repeated list resumes where it stopped; a repeated call is made again."""
        return self.resolved_call is None

    @property
    def calls(self) -> tuple["Evaluation", ...]:
        """Evaluations of the calls that are to be sent, in order."""
        return self.list_calls if self.is_list else (self,)

    @property
    def resolved(self) -> ResolvedCall:
        """The resolved call of a single call. Raises `TypeError` for a list."""
        if self.resolved_call is None:
            raise TypeError("a list has no resolved call of its own")
        return self.resolved_call

    @property
    def call(self) -> Call:
        """The single call. Raises `TypeError` for a list."""
        return self.resolved.call

    @property
    def effects(self) -> list[Effect]:
        """Effect of a call and the lower ones from which it was raised: it counts in the budgets of each.

        For a list, the effects of all its calls.
        """
        if self.is_list:
            return list(dict.fromkeys(effect for each in self.calls for effect in each.effects))
        return [self.effect, *effects_below(self.call, self.effect)]

    @property
    def why(self) -> str:
        """Reason of the decision, for the agent: without what it may not read."""
        return self.verdict.reason if self.hides_any else self.verdict.why

    def needs_another(self, caller: Caller) -> bool:
        """Whether somebody other than the person behind the caller has to approve it, if anybody has to."""
        return not caller.may_approve(self.effects)

    @property
    def name(self) -> str | None:
        """Display name of the target, as it was read. None for a list, and if the policy decided without a read."""
        if self.resolved_call is None or not self.binding:
            return None
        label = self.resolved_call.label
        return str(label) if label else None

    @property
    def typed(self) -> TypedArgument | None:
        """What a person types with their approval. Always None for a list."""
        return None if self.resolved_call is None else self.resolved_call.typed

    @property
    def people_question(self) -> Question:
        """What people read. Raises `TypeError` if it was not made."""
        if self.question is None:
            raise TypeError("there is no question about this evaluation")
        return self.question

    @property
    def agent_question(self) -> Question:
        """What the agent may read of the question. Raises `TypeError` if it was not made."""
        return self.question_for_agent or self.people_question

    def bound(self) -> ShownCall:
        """Return what an approval of a single call is bound to. Raises `TypeError` if nothing was read."""
        if not self.binding:
            raise TypeError("the policy decided without a read")
        return ShownCall(self.binding, self.resolved.dependence.counts(), self.is_unsettled)

    def preview(self, caller: Caller) -> Question:
        """Return what the agent may read of the question, with whose approval the call or the list needs."""
        if self.is_stopped:
            return replace(self.agent_question, approval=_STOPPED)
        words = _APPROVAL[self.verdict.decision].format(
            person="somebody else" if self.needs_another(caller) else "a person",
            rule=self.verdict.rule,
            expected=self._expected_in_words(),
        )
        return replace(self.agent_question, approval=words)

    def _expected_in_words(self) -> str:
        """Return the text that people type, for the agent: not if it is of a record that the agent may not read."""
        people = (self.people_question, *self.people_question.calls)
        agent = (self.agent_question, *self.agent_question.calls)
        is_known = all(asked.expected == read.expected for asked, read in zip(people, agent, strict=True))
        return quote(self.people_question.expected) if is_known else "what the request asks for"


_APPROVAL = {
    Decision.ALLOW: "none, since the policy allows it",
    Decision.CONFIRM: "{person} has to approve it",
    Decision.TYPED: "{person} has to approve it by typing {expected}",
    Decision.OUT_OF_BAND: "{person} has to approve it outside the client",
    Decision.FOUR_EYES: "two people have to approve it",
    Decision.DENY: "refused by the policy ({rule})",
}
"""By decision: whose approval a call needs."""

_STOPPED = "none is possible now: a person has stopped changes"


def evaluation_of_list(tool: Tool[Any], list_id: str, calls: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation of a list from the evaluations of its calls."""
    verdict = strictest(each.verdict for each in calls)
    return Evaluation(
        tool=tool,
        id=list_id,
        effect=max((each.effect for each in calls), key=lambda effect: effect.rank),
        verdict=replace(verdict, permit=None),
        list_calls=tuple(calls),
    )


def place_in_list(tool: Tool[Any], number: int) -> str:
    """Return the prefix of a message about one call of a list; empty if `tool` is a single call."""
    calls = tool.inner_calls
    return f"Call {number}, {calls[number - 1].tool_name()}: " if calls else ""


def refusal(evaluation: Evaluation, policy: Policy, place: str = "") -> Refused:
    """Return the refusal of a call. `place` is the prefix that identifies a call of a list."""
    decision = evaluation.verdict
    facts: dict[str, JsonValue] = {"rule": decision.rule}
    if decision.rule == NO_PLAN:  # no entry allows what another rule refuses
        facts["would_allow"] = would_allow(evaluation.call)
    by = "" if decision.rule == NO_PLAN else f" by {decision.rule}"
    return Refused(
        f"{place}Refused{by}. {evaluation.why}".strip(),
        "Only a person can change the policy." if policy.asks else "Continue with the rest; report this.",
        facts=facts,
    )


def denial(evaluation: Evaluation, policy: Policy) -> Refused:
    """Return the refusal of a call or a list, which names every call that the policy denies."""
    denied = [each for each in evaluation.calls if each.verdict.decision is Decision.DENY]
    first = denied[0]
    error = refusal(first, policy, place_in_list(evaluation.tool, first.number))
    if len(denied) > 1:
        error.facts["refused_calls"] = [each.number for each in denied]
    missing = [would_allow(each.call) for each in denied if each.verdict.rule == NO_PLAN]
    if missing:
        error.facts["would_allow"] = "\n\n".join(missing)
    return error
