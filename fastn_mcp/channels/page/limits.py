"""The place Limits: what agents may do on an account, what is left of it, and the rules with their lines."""

from datetime import datetime
from typing import Any

from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.channels.page.view import View
from fastn_mcp.guard.allowance import Limits, budgets_left, plan_left
from fastn_mcp.ledger.identity import holder
from fastn_mcp.policy.asker import LOCAL
from fastn_mcp.policy.decision import Decision, least
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.redaction import sanitize
from fastn_mcp.tools.tool import Effect

_CHANGES = {
    "write": "Create or change what nobody uses yet",
    "external": "Run a workflow; change what is in use",
    "spend": "Ask Fastn's AI",
    "access": "Invitations, roles, API keys, secrets",
    "trash": "Move to Trash",
    "destroy": "Delete, revoke",
}
_HOW = {
    Decision.ALLOW: "Sent without asking",
    Decision.CONFIRM: "A person approves",
    Decision.TYPED: "A person approves, and types the name",
    Decision.OUT_OF_BAND: "A person approves, outside of the client",
    Decision.FOUR_EYES: "Two people approve",
    Decision.DENY: "Refused",
}


async def limits_of(inbox: Inbox, account: InboxAccount, limits: Limits, now: datetime) -> View:
    """Return the template variables of an account."""
    policy, principal = limits.policy, inbox.approver if inbox.tells_people_apart else LOCAL
    declines, last = await account.ledger.declines(holder(principal, account.name or ""))
    most, seconds = policy.breaker
    so_far = counted(declines if now.timestamp() - last < seconds else 0, "decline")
    notes = [f"{so_far} in a row so far. After {most}, changes are refused for {seconds / 60:g} minutes."]
    if policy.destroy_rate is not None:
        most, seconds = policy.destroy_rate
        deletions = counted(max(0, most - await limits.budgets.destroyed(principal)), "more deletion")
        notes.append(f"You can approve {deletions} in the next {seconds / 60:g} minutes.")
    budgets: Any = await budgets_left(policy, limits.budgets, principal, now)
    plan = await plan_left(policy, limits.budgets)
    lines = [line.partition(": ") for line in (policy.rules.words() if policy.rules else ())]
    return {
        "mode": f"{policy.mode}, {policy.key} key",
        "defaults": [(what, _how(limits, Effect(effect))) for effect, what in _CHANGES.items()],
        "budgets": [each | {"what": _CHANGES[each["effect"]]} for each in budgets if each["per"] in ("day", "run")],
        "notes": notes,
        "lines": {
            "Plan": [(sanitize(f"{each.words()}: {left} left"), sanitize(each.name)) for each, left in plan],
            "Rules and protected resources": [
                (sanitize(sentence(words)), sanitize(name)) for name, _, words in lines if " line " in name
            ],
        },
        "signed": policy.plan and sanitize(next(policy.plan.words())),
    }


def _how(limits: Limits, effect: Effect) -> str:
    """Return what happens with calls of an effect that no rule is about."""
    policy = limits.policy
    own = policy.rules.default(effect, live=policy.live) if policy.rules else None
    decision = own.decision if own else least(policy.mode, effect, live=policy.live)
    if decision in (Decision.ALLOW, Decision.DENY) or policy.asks:
        within = effect is Effect.SPEND and not own and decision is Decision.CONFIRM and policy.mode == "guarded"
        step_up = None if decision in (Decision.ALLOW, Decision.DENY) else policy.step_up
        signed_in = ", with a fresh sign-in" if step_up and step_up.concerns([effect.value]) else ""
        return f"{'Sent within a budget, or else: ' if within else ''}{_HOW[decision]}{signed_in}"
    return "Refused, unless the plan allows it"
