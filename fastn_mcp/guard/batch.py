"""Batches of calls: their evaluation, with effect, policy decision, preview and binding, and their results."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.preview import ListPreview, Preview, Shown
from fastn_mcp.ledger.approval_request import ShownCall
from fastn_mcp.ledger.change import Change
from fastn_mcp.policy.decision import Decision, PolicyDecision, effects_below, of_groups, strictest
from fastn_mcp.policy.plan import would_allow
from fastn_mcp.policy.policy import NO_PLAN, Policy
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.tool import Effect, Tool


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that are approved together and sent in order. A single call is a batch of one."""

    tool: Tool[Any]
    """The single call itself, or the tool that received the list of calls."""
    calls: tuple[Call, ...]
    name: str | None = None
    """Distinguishes this list from an earlier list of the same calls."""
    keep_going: bool = False
    """Whether the calls after a failed one are still sent."""
    undoes: Change | None = None
    """The earlier change that its call undoes."""

    @property
    def is_list(self) -> bool:
        """Whether it is a list of calls. A repeated list resumes where it stopped; a repeated call is made again."""
        return self.tool is not self.calls[0]

    def prefix(self, number: int) -> str:
        """Return the prefix of an error message about one call of a list; empty for a single call."""
        return f"Call {number}, {self.calls[number - 1].tool_name()}: " if self.is_list else ""


@dataclass(frozen=True, slots=True)
class Done:
    """A call that succeeded: its result and its journal entry, if there is one."""

    result: FastnObject
    change: Change | None = None
    notes: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What its receipt says besides."""


@dataclass(frozen=True, slots=True)
class NotDone:
    """A call that was refused or failed, or whose outcome is unknown."""

    error: FastnError


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Results of the calls of a batch by number, from this or an earlier execution. Missing calls were not made."""

    id: str
    """Stable for the same list, name and caller in every process; empty for a single call."""
    results: dict[int, Done | NotDone | Change]

    def single(self) -> Done:
        """Return the result of a single call. Raises its error if it did not succeed."""
        match self.results[1]:
            case Done() as done:
                return done
            case NotDone(error):
                raise error
            case Change():
                raise TypeError("only a list is resumed")


@dataclass(frozen=True, slots=True)
class CallEvaluation:
    """One call with its effect on the current state, its preview and the policy decision."""

    resolved: ResolvedCall
    digest: str
    """Digest of the principal, tenant, account, key, tool and exact arguments."""
    effect: Effect
    verdict: PolicyDecision
    preview: Preview | None = None
    """None if the policy decided without a read."""
    binding: str = ""
    """Digest of the resolved call, its label and the policy. Its effect follows from these and its dependents."""
    similar: str | None = None
    """Digest of the calls that a temporary approval would cover; None if none may be given."""
    reads: Send | None = field(default=None, repr=False, compare=False)
    """Repeats the reads that were made for it."""
    is_unsettled: bool = False
    """Whether it may have been made before."""
    repeat_digest: str = ""
    """Digest by which a repeated call is recognised: that of the call without its idempotency key."""
    began: float = 0.0
    """When its reads began, as a timestamp."""

    @property
    def call(self) -> Call:
        return self.resolved.call

    @property
    def effects(self) -> list[Effect]:
        """Its effect and the lower ones from which it was raised: it counts in the budgets of each."""
        return [self.effect, *effects_below(self.call, self.effect)]

    @property
    def name(self) -> str | None:
        """Display name of its target."""
        return None if self.preview is None else self.preview.name

    @property
    def why(self) -> str:
        """Reason of the decision, for the agent."""
        agent = None if self.preview is None else self.preview.for_agent
        return self.verdict.why if agent is None else self.verdict.reason

    def shown(self) -> ShownCall:
        """Return what an approval of this call is bound to. Raises `TypeError` if nothing was read."""
        if self.preview is None:
            raise TypeError("the policy decided without a read")
        return ShownCall(self.binding, self.resolved.dependence.counts(), self.is_unsettled)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The remaining calls of a batch, by number, and what applies to all of them."""

    batch: Batch
    id: str
    """See `BatchResult.id`."""
    calls: Mapping[int, CallEvaluation]
    effect: Effect
    """The most severe effect among the calls."""
    verdict: PolicyDecision
    """The strictest decision among the calls. It applies to all of them."""
    digest: str
    """Digest of the single call, or the id of the list, and whether its calls are sent after one that fails."""
    similar: str | None
    """Digest of the calls that a temporary approval would cover. Always None for a list."""
    shown: Shown | None
    """Preview of the calls; None if the policy decided without a read."""
    is_stopped: bool = False
    """Whether a person has stopped the caller's changes. Only a preview looks; a call is refused before."""

    @property
    def effects(self) -> frozenset[Effect]:
        """The effects of all calls."""
        return frozenset(effect for call in self.calls.values() for effect in call.effects)

    @property
    def typed(self) -> TypedArgument | None:
        """What a person types with their approval. Always None for a list."""
        return None if self.batch.is_list else self.calls[1].resolved.typed

    @property
    def preview(self) -> Shown:
        """Preview of the calls. Raises `TypeError` if the policy decided without a read."""
        if self.shown is None:
            raise TypeError("the policy decided without a read")
        return self.shown

    def needs_another(self, caller: Caller) -> bool:
        """Whether somebody other than the person behind the caller has to approve it, if anybody has to."""
        return not caller.may_approve(self.effects)

    def preview_for_agent(self, caller: Caller) -> Shown:
        """Preview of the calls that says whose approval they need."""
        if self.is_stopped:
            return replace(self.preview, approval=_STOPPED)
        named = {
            "person": "somebody else" if self.needs_another(caller) else "a person",
            "rule": self.verdict.rule,
            "expected": self.preview.expected_in_words,
            "second": of_groups(self.verdict.second),
        }
        return replace(self.preview, approval=_APPROVAL[self.verdict.decision].format(**named))


_APPROVAL = {
    Decision.ALLOW: "none: the policy allows it",
    Decision.CONFIRM: "{person} has to approve it",
    Decision.TYPED: "{person} has to approve it by typing {expected}",
    Decision.OUT_OF_BAND: "{person} has to approve it outside of the client",
    Decision.FOUR_EYES: "two people have to approve it{second}",
    Decision.DENY: "refused by the policy ({rule})",
}
"""By decision: whose approval a call needs."""

_STOPPED = "none is possible now: a person has stopped changes"


def list_digest(batch: Batch, id_: str) -> str:
    """Return `Evaluation.digest` of a list with this id."""
    return f"{id_} keep_going" if batch.keep_going else id_


def batch_of(digest: str) -> str:
    """Return the id of the list that a digest of `list_digest` is of."""
    return digest.partition(" ")[0]


def evaluation_of(batch: Batch, id_: str, calls: Mapping[int, CallEvaluation]) -> Evaluation:
    """Return the evaluation of a batch from those of its calls."""
    if not batch.is_list:
        one = calls[1]
        return Evaluation(batch, id_, calls, one.effect, one.verdict, one.digest, one.similar, one.preview)
    verdict = strictest(call.verdict for call in calls.values())
    refused = {number: call.verdict.rule for number, call in calls.items() if call.verdict.decision is Decision.DENY}
    previews = {number: call.preview for number, call in calls.items() if call.preview is not None}
    return Evaluation(
        batch,
        id_,
        calls,
        max((call.effect for call in calls.values()), key=lambda effect: effect.rank),
        replace(verdict, permit=None),
        list_digest(batch, id_),
        None,
        ListPreview(batch.tool.tool_name(), previews, refused, batch.keep_going),
    )


def refusal(evaluation: CallEvaluation, policy: Policy, where: str = "") -> Refused:
    """Return the refusal of a call. `where` is the prefix that identifies a call of a list."""
    call, decision = evaluation.call, evaluation.verdict
    facts: dict[str, JsonValue] = {"rule": decision.rule}
    if decision.rule == NO_PLAN:  # no entry allows what another rule refuses
        facts["would_allow"] = would_allow(call)
    by = "" if decision.rule == NO_PLAN else f" by {decision.rule}"
    return Refused(
        f"{where}Refused{by}. {evaluation.why}".strip(),
        "Only a person can change the policy." if policy.asks else "Continue with the rest; report this.",
        facts=facts,
    )


def batch_refusal(evaluation: Evaluation, policy: Policy) -> Refused:
    """Return the refusal of a batch, which names every call that the policy denies."""
    denied = {number: one for number, one in evaluation.calls.items() if one.verdict.decision is Decision.DENY}
    first = next(iter(denied))
    error = refusal(denied[first], policy, evaluation.batch.prefix(first))
    if len(denied) > 1:
        error.facts["refused_calls"] = [*denied]
    if missing := [would_allow(one.call) for one in denied.values() if one.verdict.rule == NO_PLAN]:
        error.facts["would_allow"] = "\n\n".join(missing)
    return error
