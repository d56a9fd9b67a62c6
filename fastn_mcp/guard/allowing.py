"""What the policy allows without a question is counted, and what it does not is refused with the rule that says so."""

from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.judging import Judge
from fastn_mcp.guard.ledger import Ledger, rate_free_at
from fastn_mcp.guard.plans import would_allow
from fastn_mcp.guard.policy import PLANNED, Decision, Verdict
from fastn_mcp.guard.recording import Consent
from fastn_mcp.operation import Effect, Record
from fastn_mcp.procedures.target import Call

_ANY_NUMBER = 1 << 31


class Allowing:
    """Allows calls on one account."""

    def __init__(self, judge: Judge, ledger: Ledger) -> None:
        self._judge = judge
        self._ledger = ledger

    async def allowed(
        self,
        call: Call,
        principal: str,
        verdict: Verdict,
        effect: Effect,
        target: Record | None = None,
        name: str | None = None,
    ) -> Consent:
        """The policy's own consent, counted. Raises a `Refused` for every verdict but one that allows.

        `target` and what people call it are given where they were read.
        """
        if verdict.decision is not Decision.ALLOW:
            raise self.refused(call, verdict)
        if verdict.permit is not None and not await self._ledger.spend(
            verdict.permit.budget, PLANNED, verdict.permit.count
        ):
            raise self.refused(call, Verdict(Decision.DENY, verdict.rule, "All calls of this entry were made."))
        await self.spend(effect, principal, is_counted=verdict.permit is not None)
        return Consent("policy" if verdict.permit is None else "plan", verdict, effect, target=target, name=name)

    async def spend(self, effect: Effect, principal: str, *, is_counted: bool = False) -> None:
        """Count a call that is about to be sent. Raises a `Refused` where a budget is used up.

        `is_counted` says that the approval was counted for `destroy_rate` before, with others or by a plan.
        """
        if not is_counted:
            await self.spend_rate(effect, principal)
        for limit, period in self._judge.limits(effect, principal):
            # Beyond its budget, spending is asked about rather than refused: what was approved is counted and made.
            most = _ANY_NUMBER if effect is Effect.SPEND else limit
            if not await self._ledger.spend(effect.value, period, most):
                raise Refused(
                    f"The budget of {limit} calls that {effect.value} is used up.",
                    "A person can raise it in the policy.",
                )

    async def spend_rate(self, effect: Effect, principal: str, *, is_check: bool = False) -> None:
        """Count an approval that destroys, or only check that it can be. Raises a `Refused` that says when it can."""
        rate = self._judge.policy.destroy_rate
        if effect is not Effect.DESTROY or rate is None:
            return
        (most, seconds), now = rate, self._judge.now()
        budget = self._judge.destroy_budget(principal)
        if is_check:
            free = rate_free_at(await self._ledger.rate_uses(budget, seconds, now), most, seconds)
        else:
            free = await self._ledger.spend_rate(budget, most, seconds, now)
        if free:
            at = datetime.fromtimestamp(free, UTC)
            raise Refused(
                f"The budget for destroying is used up: {most} approvals in {seconds / 60:g} minutes."
                f" The next is free at {at:%H:%M:%S} UTC.",
                "Call again then. A person can change destroy_rate under [budget] in the policy file.",
                facts={"rule": "destroy_rate", "free_at": f"{at:%Y-%m-%dT%H:%M:%SZ}"},
            )

    def refused(self, call: Call, verdict: Verdict, where: str = "") -> Refused:
        """Why a call is refused; `where` names it, where it is one of several."""
        facts: dict[str, JsonValue] = {"rule": verdict.rule}
        if not self._judge.policy.asks:
            facts["would_allow"] = would_allow(call)
        return Refused(
            f"{where}The policy refuses it ({verdict.rule}). {verdict.reason}".strip(),
            "Only a person can change the policy." if self._judge.policy.asks else "Go on with the rest; report this.",
            facts=facts,
        )
