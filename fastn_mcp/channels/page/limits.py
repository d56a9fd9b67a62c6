"""The place Limits: what agents may do on an account, what is left of it, and the rules with their lines."""

import re
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.channels.page.view import View
from fastn_mcp.guard.allowance import Limits, budgets_left, plan_left
from fastn_mcp.ledger.identity import holder
from fastn_mcp.policy.decision import Decision, least
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.formats import counted, lasting
from fastn_mcp.redaction import sanitize
from fastn_mcp.tools.tool import Effect

_LOCAL = "local"
"""Principal of the calls of the person whose page this is."""
CHANGES = {
    Effect.WRITE: "Create or change what nobody uses yet",
    Effect.EXTERNAL: "Run a workflow; change what is in use",
    Effect.SPEND: "Ask Fastn's AI",
    Effect.ACCESS: "Invitations, roles, API keys, secrets",
    Effect.TRASH: "Move to Trash",
    Effect.DESTROY: "Delete, revoke",
}
_HOW = {
    Decision.ALLOW: "Sent without asking",
    Decision.CONFIRM: "A person approves",
    Decision.TYPED: "A person approves, and types the name",
    Decision.OUT_OF_BAND: "A person approves, outside of the client",
    Decision.FOUR_EYES: "Two people approve",
    Decision.DENY: "Refused",
}
_SOURCE = re.compile(r"(.+? line \d+): (.*)", re.DOTALL)


async def limits(inbox: Inbox, tenant: str, now: datetime) -> View:
    """Return the template variables of an account: of that of `tenant`, or else of the first that they may see."""
    shown: View = {"tenants": [], "tenant": "", "mode": None}
    async for account in inbox.accounts():
        if account.limits is not None:
            shown["tenants"].append(account.tenant)
            if shown["mode"] is None and tenant in ("", account.tenant):
                shown |= {"tenant": account.tenant} | await _of_account(account, account.limits, inbox, now)
    return shown


async def _of_account(account: InboxAccount, limits: Limits, inbox: Inbox, now: datetime) -> View:
    policy, principal = limits.policy, inbox.approver if inbox.tells_people_apart else _LOCAL
    (declined, rest), plan = policy.breaker, policy.plan
    declines, last = await account.ledger.declines(holder(principal, account.name or ""))
    declines = declines if now.timestamp() - last < rest else 0
    then = f"After {declined}, changes are refused for {rest / 60:g} minutes."
    notes = [f"{counted(declines, 'decline')} in a row so far. {then}"]
    if policy.destroy_rate is not None:
        most, seconds = policy.destroy_rate
        left = max(0, most - await limits.budgets.destroyed(principal))
        notes.insert(0, f"You can approve {counted(left, 'more deletion')} in the next {seconds / 60:g} minutes.")
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    budgets = await budgets_left(policy, limits.budgets, principal, now)
    return {
        "mode": policy.mode,
        "key": policy.key,
        "defaults": [(what, _how(policy, effect)) for effect, what in CHANGES.items()],
        "budgets": [
            {**each, "what": CHANGES[Effect(each["effect"])]}
            for each in cast("list[dict[str, int | str]]", budgets)
            if each["per"] in ("day", "run")
        ],
        "renewed": f"New budgets at 00:00 UTC, in {lasting(midnight - now)}.",
        "notes": notes,
        "plan": plan and sanitize(next(plan.words())),
        "entries": [
            (f"{sanitize(each.words())}: {left or 'none'} left", sanitize(each.name))
            for each, left in await plan_left(policy, limits.budgets)
        ],
        "rules": [_with_source(line) for line in (policy.rules.words() if policy.rules else ())],
    }


def _how(policy: Policy, effect: Effect) -> str:
    """Return what happens with calls of an effect that no rule is about."""
    own = policy.rules.default(effect, live=policy.live) if policy.rules else None
    decision = own.decision if own else least(policy.mode, effect, live=policy.live)
    asks = decision not in (Decision.ALLOW, Decision.DENY)
    if asks and not policy.asks:
        return "Refused, unless the plan allows it"
    within = asks and effect is Effect.SPEND and policy.mode == "guarded" and own is None
    return f"Sent within a budget, or else: {_HOW[decision].lower()}" if within else _HOW[decision]


def _with_source(line: str) -> tuple[str, str]:
    """Split a line of `FileRules.words` into a sentence, and the file and the line of the file."""
    found = _SOURCE.fullmatch(line)
    return (sanitize(found[2]), sanitize(found[1])) if found else (sanitize(line), "")
