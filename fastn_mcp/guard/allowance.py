"""What a caller has left: budgets, plan entries, and the approval requests that wait or were decided lately."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.plan import PlannedCalls
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.formats import stamp
from fastn_mcp.tools.tool import Effect

_RECENT_DECISIONS = 30
"""Number of the newest decided requests, of all callers, among which those of a caller are looked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What limits the calls of an account, and the log of this process that records them."""

    policy: Policy
    budgets: Budgets
    audit: AuditFile


async def allowance(
    policy: Policy, budgets: Budgets, ledger: Ledger, account: str, asker: Asker, now: datetime
) -> dict[str, JsonValue]:
    """Return the mode, the remaining budgets and plan entries, and the caller's requests that have not expired."""
    waiting, decided = await ledger.waiting(now.timestamp()), await ledger.decided(_RECENT_DECISIONS)
    parts: dict[str, list[JsonValue]] = {
        "budgets": await budgets_left(policy, budgets, asker.counted, now),
        "plan": [{"entry": each.words(), "left": left} for each, left in await plan_left(policy, budgets)],
        "waiting": _requests(waiting, account, asker.principal, now),
        "decided": _requests(decided, account, asker.principal, now),
    }
    return {"mode": policy.mode, **{name: part for name, part in parts.items() if part}}


async def plan_left(policy: Policy, budgets: Budgets) -> list[tuple[PlannedCalls, int]]:
    """Return each entry of the plan, with the number of calls left."""
    permits = policy.plan.permits if policy.plan else ()
    return [(each, max(0, each.count - await budgets.planned(each))) for each in permits]


async def budgets_left(policy: Policy, budgets: Budgets, principal: str, now: datetime) -> list[JsonValue]:
    """Return what is left of each budget, and of `destroy_rate` once it was used."""
    left = list[JsonValue]()
    for effect in Effect:
        used = await budgets.spent(effect, principal, now)
        for period, limit in policy.rules.budgets(effect, now).items():
            per = "run" if period == "run" else "day"
            left.append({"effect": effect.value, "per": per, "left": max(0, limit - used[period]), "of": limit})
    if policy.destroy_rate is not None and (destroyed := await budgets.destroyed(principal)):
        most, seconds = policy.destroy_rate
        per = f"{seconds / 60:g} minutes"
        left.append({"effect": Effect.DESTROY.value, "per": per, "left": max(0, most - destroyed), "of": most})
    return left


def _requests(requests: Iterable[ApprovalRequest], account: str, principal: str, now: datetime) -> list[JsonValue]:
    """Return those of a caller that have not expired, without the ids that decide them."""
    return [
        {
            "tool": request.tool,
            "what": request.text[0],
            "until": stamp(datetime.fromtimestamp(request.expires, UTC)),
            **({} if request.state is RequestState.OPEN else {"state": request.state.value}),
        }
        for request in requests
        if (request.principal, request.account) == (principal, account) and request.expires > now.timestamp()
    ]
