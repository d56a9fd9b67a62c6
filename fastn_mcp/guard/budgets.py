"""Budgets of an account: how many calls of an effect, and of a plan entry, may be sent in a period.

They are counted in the ledger, in one step with their limits, when a call is about to be sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.errors import Refused
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.ledger.change_start import BudgetLimit, UsageRate, rate_free_at
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import PLANNED
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

_UNLIMITED = 1 << 31
"""Limit of what is only counted."""

EarlierUses = Mapping[tuple[str, str], int]
"""Uses that earlier calls of the same list will add to the ledger, by budget and period."""

NO_EARLIER_USES: EarlierUses = {}


class Budgets:
    """Counts the calls of one account, `bound_account`, against the limits of its policy and plan."""

    def __init__(
        self, policy: Policy, ledger: Ledger, system: System, bound_account: str, run: str | None = None
    ) -> None:
        """`run` identifies the run that budgets per run count in. By default it is the life of this object."""
        self.policy = policy
        self._ledger = ledger
        self._system = system
        self._account = bound_account
        self._run = run or system.token()

    def period(self, period: str, principal: str) -> str:
        """Return the ledger's name for a period of `FileRules.budgets`, of a caller on this account."""
        return f"{f'run {self._run}' if period == 'run' else period} {principal} {self._account}"

    def rate_budget(self, principal: str) -> str:
        """Return the ledger's name for `destroy_rate`, of a caller on this account."""
        return f"destroy {principal} {self._account}"

    async def spent(
        self, effect: Effect, principal: str, now: datetime, earlier: EarlierUses = NO_EARLIER_USES
    ) -> dict[str, int]:
        """Return the calls of an effect by period of `FileRules.budgets`."""
        periods = {period: self.period(period, principal) for period in self.policy.rules.budgets(effect, now)}
        return {
            period: await self._ledger.spent(effect.value, name) + earlier.get((effect.value, name), 0)
            for period, name in periods.items()
        }

    async def planned(self, permit: Permit, earlier: EarlierUses = NO_EARLIER_USES) -> int:
        """Return the calls of a plan entry."""
        return await self._ledger.spent(permit.budget, PLANNED) + earlier.get((permit.budget, PLANNED), 0)

    async def permit(
        self, covering: Iterable[Permit], earlier_uses: EarlierUses
    ) -> tuple[Permit | None, Permit | None]:
        """Return the covering plan entry that has calls left, or else the last entry that is used up."""
        used_up: Permit | None = None
        for permit in covering:
            if await self.planned(permit, earlier_uses) < permit.count:
                return permit, None
            used_up = permit
        return None, used_up

    async def plan_left(self) -> list[tuple[Permit, int]]:
        """Return each entry of the plan, with the number of calls left."""
        permits = self.policy.plan.permits if self.policy.plan else ()
        return [(each, max(0, each.count - await self.planned(each))) for each in permits]

    async def left(self, principal: str, now: datetime) -> list[JsonValue]:
        """Return what is left of each budget, and of `destroy_rate` once it was used."""
        left = list[JsonValue]()
        for effect in Effect:
            used = await self.spent(effect, principal, now)
            for period, limit in self.policy.rules.budgets(effect, now).items():
                per = "run" if period == "run" else "day"
                left.append({"effect": effect.value, "per": per, "left": max(0, limit - used[period]), "of": limit})
        if self.policy.destroy_rate is not None and (destroyed := await self.destroyed(principal)):
            most, seconds = self.policy.destroy_rate
            per = f"{seconds / 60:g} minutes"
            left.append({"effect": Effect.DESTROY.value, "per": per, "left": max(0, most - destroyed), "of": most})
        return left

    async def destroyed(self, principal: str) -> int:
        """Return the number of approvals counted within the interval of the policy's `destroy_rate`."""
        rate = self.policy.destroy_rate
        if rate is None:
            return 0
        return len(await self._rate_uses(principal, rate[1]))

    def limits(self, current: Evaluation, asker: Asker, *, is_approved: bool) -> list[BudgetLimit]:
        """Return the budgets and the plan entry that a call counts in, with their limits.

        What people or a plan permit may spend beyond its budget, since beyond it spending needs just that.
        """
        permit = current.verdict.permit
        limits = list[BudgetLimit]()
        if permit is not None and permit.budget:
            limits.append(BudgetLimit(permit.budget, PLANNED, permit.count))
        may_spend = is_approved or permit is not None
        for effect in current.effects:
            for period, limit in self.policy.rules.budgets(effect, self._system.now()).items():
                most = _UNLIMITED if may_spend and effect is Effect.SPEND else limit
                limits.append(BudgetLimit(effect.value, self.period(period, asker.counted), most))
        return limits

    def rate(self, effect: Effect, asker: Asker) -> UsageRate | None:
        """Return `destroy_rate` as what destroys counts in it; None for another effect."""
        if effect is not Effect.DESTROY or self.policy.destroy_rate is None:
            return None
        most, seconds = self.policy.destroy_rate
        return UsageRate(self.rate_budget(asker.counted), most, seconds)

    async def check_rate(self, effect: Effect, principal: str) -> None:
        """Raise a `Refused` that says when to call again if `destroy_rate` is used up."""
        if effect is not Effect.DESTROY or (rate := self.policy.destroy_rate) is None:
            return
        if free_at := rate_free_at(await self._rate_uses(principal, rate[1]), *rate):
            raise _rate_used_up(free_at, *rate)

    async def _rate_uses(self, principal: str, seconds: float) -> Sequence[float]:
        return await self._ledger.rate_uses(self.rate_budget(principal), seconds, self._system.timestamp())


def _rate_used_up(free_at: float, most: int, seconds: float) -> Refused:
    at = datetime.fromtimestamp(free_at, UTC)
    return Refused(
        f"The budget for destroying is used up: {most} approvals in {seconds / 60:g} minutes."
        f" The next is free at {at:%H:%M:%S} UTC.",
        "Call again then. A person can change destroy_rate under [budget] in the policy file.",
        facts={"rule": "destroy_rate", "free_at": stamp(at)},
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What limits the calls of an account, and the log of this process that records them."""

    policy: Policy
    budgets: Budgets
    audit: AuditFile
