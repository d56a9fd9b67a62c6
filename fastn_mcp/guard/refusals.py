"""Refusals of calls that the policy denies."""

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.call_evaluation import Evaluation
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.plan import would_allow
from fastn_mcp.policy.policy import NO_PLAN, Policy
from fastn_mcp.tools.operation import Call


def refusal(call: Call, decision: PolicyDecision, policy: Policy, where: str = "") -> Refused:
    """Return the refusal of a call. `where` is the prefix that identifies a call of a list."""
    facts: dict[str, JsonValue] = {"rule": decision.rule}
    if not policy.asks:
        facts["would_allow"] = would_allow(call)
    by = "" if decision.rule == NO_PLAN else f" by {decision.rule}"
    return Refused(
        f"{where}Refused{by}. {decision.why}".strip(),
        "Only a person can change the policy." if policy.asks else "Continue with the rest; report this.",
        facts=facts,
    )


def batch_refusal(evaluation: Evaluation, policy: Policy) -> Refused:
    """Return the refusal of a batch, which names every call that the policy denies."""
    denied = {number: one for number, one in evaluation.calls.items() if one.verdict.decision is Decision.DENY}
    first = next(iter(denied))
    error = refusal(denied[first].call, denied[first].verdict, policy, evaluation.batch.prefix(first))
    if len(denied) > 1:
        error.facts["refused_calls"] = [*denied]
    if "would_allow" in error.facts:
        error.facts["would_allow"] = "\n\n".join(would_allow(one.call) for one in denied.values())
    return error
