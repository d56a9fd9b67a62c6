"""Evaluation of a call: its effect, the state of its target and dependents, and the policy decision."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

import anyio
from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.account.credentials import TypedArgument
from fastn_mcp.account.dependents import describe_dependents
from fastn_mcp.account.outlook import outlook_of
from fastn_mcp.account.resolve import by_arguments, check_settings, resolve, with_owners
from fastn_mcp.account.resolved_call import ResolvedCall, Surroundings
from fastn_mcp.account.targets import Call, Send, kind_of, no_such, remembered
from fastn_mcp.errors import NOTHING_SENT, FastnError, Forbidden, NotFound, NotSent, Refused
from fastn_mcp.guard.approval.request import FREE
from fastn_mcp.guard.budgets import NO_EARLIER_USES, Budgets, EarlierUses
from fastn_mcp.guard.changes import Batch
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.preview import ListPreview, Preview, Shown, preview, references_of
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, ShownCall
from fastn_mcp.ledger.identity import bound_account, holder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.plan import PlannedCalls, would_allow
from fastn_mcp.policy.policy import PLANNED, Decision, Policy, PolicyDecision, Situation
from fastn_mcp.policy.warnings import UNREADABLE
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.quotas import credits_of, credits_used
from fastn_mcp.records.rows import row_of
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System
from fastn_mcp.tools.account import GetBilling
from fastn_mcp.tools.ai import AiBuild, AiChat, normalize_reply
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import RefusedValue
from fastn_mcp.tools.tool import Effect, FastnObject

log = logging.getLogger(__name__)

_DECIDED = 30
"""Number of the newest decided requests, of all callers, among which those of a caller are looked for."""

_MOST_DESCRIBED = 10
"""Maximum number of calls of a list for which further facts are read."""

_DESCRIBING = 10.0
"""Maximum time for reading them in seconds."""

_MOST = 1000
"""Sessions that are remembered. The least recently updated one is dropped first."""

NOT_HEARD = "This server has seen no answer in this session, and Fastn has no way to read what is pending there."


class AiSessions:
    """AI sessions of one account, with the plan, approvals and questions that are pending in each."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[list[JsonValue] | None, JsonValue]] = {}
        """Approvals and questions that are pending in each session, None if that is not known, and its plan."""
        self.last_price: float | None = None
        """Credits that the last message used, according to its answer."""

    def note(self, call: Call, answer: FastnObject | None) -> None:
        """Remember what is pending according to `answer`. None, before a call is sent, forgets the session's state.

        A plan is kept until another replaces it: Fastn may ask for its approval in a later answer.
        """
        if not isinstance(call, (AiChat, AiBuild)):
            return
        if answer is None:
            if call.session_id in self._sessions:
                self._sessions[call.session_id] = None, self._sessions[call.session_id][1]
            return
        said = cast("dict[str, JsonValue]", answer.model_dump(exclude_unset=True))
        reply = normalize_reply(said, call.session_id)
        session = reply.get("session_id")
        self.last_price = credits_used(reply)
        if isinstance(session, str):
            _, plan = self._sessions.pop(session, (None, None))
            asked = (reply.get(name) for name in ("pending_approvals", "questions"))
            pending = [item for items in asked if isinstance(items, list) for item in items]
            self._sessions[session] = pending, reply.get("plan") or plan
            if len(self._sessions) > _MOST:
                del self._sessions[next(iter(self._sessions))]

    def target(self, call: Call) -> FastnObject | None:
        """Return the session that a message continues, with what is pending there; None for a new session.

        The approval is bound to it: if the pending questions change, the approval is void.
        """
        session = call.session_id if isinstance(call, (AiChat, AiBuild)) else None
        if session is None:
            return None
        pending, plan = self._sessions.get(session, (None, None))
        if pending and plan:
            pending = [{"plan": plan}, *pending]
        return FastnObject.model_validate({"id": session, "pending": NOT_HEARD if pending is None else pending})


def sha256(parts: object) -> str:
    """Return the SHA-256 hex digest of the values as JSON."""
    return hashlib.sha256(to_json(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class CallEvaluation:
    """One call with its effect on the current state, its preview and the policy decision."""

    resolved: ResolvedCall
    digest: str
    """Digest of the principal, account, key, tool and exact arguments."""
    effect: Effect
    verdict: PolicyDecision
    preview: Preview | None = None
    """None if the policy decided without a read."""
    binding: str = ""
    """Digest of the resolved call, its label, the policy, the effect, and whether it may have been made."""
    similar: str | None = None
    """Digest of the calls that a temporary approval would cover; None if none may be given."""
    reads: Send | None = field(default=None, repr=False, compare=False)
    """Repeats the reads that were made for it."""

    @property
    def call(self) -> Call:
        return self.resolved.call

    @property
    def target(self) -> FastnObject | None:
        return self.resolved.target

    @property
    def typed(self) -> TypedArgument | None:
        """What a person types with their approval, if anything."""
        return self.resolved.typed

    @property
    def name(self) -> str | None:
        """Display name of its target."""
        return None if self.preview is None else self.preview.name

    def shown(self) -> ShownCall:
        """Return what an approval of this call is bound to. Raises `TypeError` if nothing was read."""
        if self.preview is None:
            raise TypeError("the policy decided without a read")
        return ShownCall(self.binding, self.preview.dependence.counts())


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
    """Digest of the single call, or the id of the list."""
    similar: str | None
    """Digest of the calls that a temporary approval would cover. Always None for a list."""
    shown: Shown | None
    """Preview of the calls; None if the policy decided without a read."""

    @property
    def typed(self) -> TypedArgument | None:
        """What a person types with their approval. Always None for a list."""
        return None if self.batch.is_list else self.calls[1].typed

    @property
    def preview(self) -> Shown:
        """Preview of the calls. Raises `TypeError` if the policy decided without a read."""
        if self.shown is None:
            raise TypeError("the policy decided without a read")
        return self.shown

    def preview_for_agent(self) -> Shown:
        """Preview of the calls that says whose approval they need."""
        decision, shown = self.verdict.decision, self.preview
        named = {"rule": self.verdict.rule, "expected": quote(shown.expected)}
        return replace(shown, approval=_APPROVAL[decision].format(**named))


_APPROVAL = {
    Decision.ALLOW: "none: the policy allows it",
    Decision.CONFIRM: "a person has to approve it",
    Decision.TYPED: "a person has to approve it by typing {expected}",
    Decision.OUT_OF_BAND: "a person has to approve it outside of the client",
    Decision.FOUR_EYES: "two people have to approve it",
    Decision.DENY: "refused by the policy ({rule})",
}
"""By decision: whose approval a call needs."""


def _evaluation(batch: Batch, id_: str, calls: Mapping[int, CallEvaluation]) -> Evaluation:
    if not batch.is_list:
        one = calls[1]
        return Evaluation(batch, id_, calls, one.effect, one.verdict, one.digest, one.similar, one.preview)
    verdict = max((call.verdict for call in calls.values()), key=lambda verdict: verdict.decision.rank)
    refused = {
        number: f"{call.verdict.rule}. {call.verdict.why}".strip()
        for number, call in calls.items()
        if call.verdict.decision is Decision.DENY
    }
    previews = {number: call.preview for number, call in calls.items() if call.preview is not None}
    return Evaluation(
        batch,
        id_,
        calls,
        max((call.effect for call in calls.values()), key=lambda effect: effect.rank),
        replace(verdict, permit=None),
        id_,
        None,
        ListPreview(batch.tool.tool_name(), previews, refused),
    )


class Evaluator:
    """Evaluates calls on one account, and holds their budgets; `account` is its display name.

    `read` sends read calls only. `owns` tests whether an API key's record is that of the key this server uses.
    `bound` is an opaque identifier of that key and of the host it is sent to.
    """

    def __init__(
        self,
        policy: Policy,
        account: str,
        ledger: Ledger,
        journalling: ChangeJournal,
        system: System,
        read: Send,
        owns: Callable[[FastnObject], bool],
        bound: str = "",
        run: str | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        """`run`: see `Budgets`."""
        self.policy = policy
        self.account = account
        self._ledger = ledger
        self._journalling = journalling
        self._system = system
        self._read = read
        self._owns = owns
        self._bound = bound
        self.bound_account = bound_account(account, bound)
        self.ai_sessions = AiSessions()
        self.budgets = Budgets(policy, ledger, system, self.bound_account, run)
        self._is_told = False
        """Whether it was logged that the key may not read customers."""
        self._surroundings = surroundings or Surroundings()

    def batch_id(self, batch: Batch, principal: str) -> str:
        """Return `BatchResult.id`. Two lists of the same calls are the same batch unless their names differ."""
        if not batch.is_list:
            return ""
        return f"batch_{sha256([[self.digest(call, principal) for call in batch.calls], batch.name])[:24]}"

    async def at_once(self, batch: Batch, principal: str) -> Evaluation | None:
        """Evaluate a single call without reads; None unless that is enough to allow or deny it."""
        call = batch.calls[0]
        check_settings(call, self._surroundings)
        resolved = by_arguments(call, self._surroundings)
        if batch.is_list or self.policy.needs_facts(resolved) or call.person_types is not None:
            return None
        if await self._is_awaited(call):
            return None
        digest = self.digest(call, principal)
        if await self._journalling.unsettled(call, digest) is not None:
            return None
        verdict = self.policy.decide(await self._situation(resolved, principal, call.effective))
        if verdict.decision not in (Decision.ALLOW, Decision.DENY):
            return None
        return _evaluation(batch, "", {1: CallEvaluation(resolved, digest, call.effective, verdict)})

    async def evaluate(self, batch: Batch, principal: str, skip: Collection[int] = ()) -> Evaluation:
        """Evaluate the calls of a batch by fresh reads, except the numbers in `skip`. Raises a `FastnError`.

        Each call counts against the budgets and the plan of those after it, so that a shortage is found up front.
        """
        if not batch.is_list:
            one = await self.evaluate_call(batch.calls[0], principal, undoes=batch.undoes)
            return _evaluation(batch, "", {1: one})
        earlier_uses: Counter[tuple[str, str]] = Counter()
        found: dict[int, CallEvaluation] = {}
        reads = remembered(self._read)
        for number, call in enumerate(batch.calls, 1):
            if number in skip:
                continue
            try:
                found[number] = one = await self.evaluate_call(call, principal, earlier_uses, reads=reads)
                if one.typed is not None:
                    raise NotSent(
                        f"a person can type the {one.typed.name} of a single call only.",
                        f"Call {call.tool_name()} by itself.",
                    )
            except FastnError as error:
                where = batch.prefix(number)
                error.what, error.args = where + error.what, (where + str(error),)
                raise
            if (permit := one.verdict.permit) is not None:
                earlier_uses[permit.budget, PLANNED] += 1
            for period in self.policy.budgets(one.effect, self._system.now()):
                earlier_uses[one.effect.value, self.budgets.period(period, principal)] += 1
        return _evaluation(batch, self.batch_id(batch, principal), found)

    async def evaluate_call(
        self,
        call: Call,
        principal: str,
        earlier_uses: EarlierUses = NO_EARLIER_USES,
        undoes: str = "",
        reads: Send | None = None,
    ) -> CallEvaluation:
        """Evaluate one call by fresh reads, with the uses in `earlier_uses` already counted. Raises a `FastnError`.

        `undoes`: the earlier change that it undoes, for people. `reads`: those of its batch, each made once.
        """
        reads = reads or remembered(self._read)
        resolved, digest = await self._resolve(call, reads), self.digest(call, principal)
        verdict, is_unsettled = await self._decide(resolved, digest, principal, earlier_uses)
        binding, similar = self._bind(resolved, digest, principal, verdict, is_unsettled=is_unsettled)
        shown = await self._preview(resolved, verdict, undoes)
        return CallEvaluation(resolved, digest, resolved.effect, verdict, shown, binding, similar, reads)

    async def explain(self, call: Call, principal: str) -> tuple[CallEvaluation, list[PolicyDecision]]:
        """Evaluate one call, and return every rule that matches it."""
        evaluation = await self.evaluate_call(call, principal)
        situation = await self._situation(evaluation.resolved, principal, evaluation.effect)
        return evaluation, self.policy.matches(situation)

    async def check_customers(self) -> None:
        """Log, once, that the key may not read customers which the policy compares by name."""
        if not self.policy.compares_customers or self._is_told:
            return
        with suppress(FastnError):  # a call that needs a customer says so itself
            await self._may_read_customers()

    async def _may_read_customers(self) -> bool:
        """Return whether the key may list customers, and log once if it may not. Raises a `FastnError`."""
        try:
            await self._read(ListCustomers(limit=1))
        except Forbidden:
            if not self._is_told:
                self._is_told = True
                log.warning(UNREADABLE)
            return False
        return True

    async def _excused(self, resolved: ResolvedCall) -> ResolvedCall:
        """Recognise customers by their ids only, if the key may read none. One that it may not read is unknown."""
        with suppress(FastnError):
            if not await self._may_read_customers():
                return resolved
        return replace(resolved, records=tuple(replace(each, is_forbidden=False) for each in resolved.records))

    async def _resolve(self, call: Call, reads: Send) -> ResolvedCall:
        try:
            call.request()
            resolved = await resolve(call, self._surroundings, reads, self.ai_sessions.target(call))
            resolved = await with_owners(resolved, reads) if self.policy.compares_customers else resolved
        except RefusedValue as error:
            raise NotSent(f"{error.argument}: {error.problem}.", "Correct the argument and call again.") from None
        except NotSent:
            raise
        except FastnError as error:
            raise NotSent(
                f"Its target could not be read first. {error.what}", error.next_step, facts=error.facts
            ) from None
        if resolved.is_missing:
            raise NotFound(*no_such(call), certainty=NOTHING_SENT)
        if self.policy.compares_customers and any(each.is_forbidden for each in resolved.records):
            resolved = await self._excused(resolved)
        return replace(resolved, is_awaited=await self._is_awaited(call))

    async def _is_awaited(self, call: Call) -> bool:
        """Return whether an open approval request names the target of a call."""
        if call.target is None or call.effective is not Effect.WRITE:
            return False
        requests = await self._ledger.open_requests(self.bound_account, self._system.timestamp())
        return any([kind_of(call), call.target] in references_of(request.preview) for request in requests)

    async def _decide(
        self, resolved: ResolvedCall, digest: str, principal: str, earlier_uses: EarlierUses
    ) -> tuple[PolicyDecision, bool]:
        """Return the decision on a call, and whether it may have been made already."""
        call = resolved.call
        verdict = self.policy.decide(await self._situation(resolved, principal, resolved.effect, earlier_uses))
        denied = verdict.decision is Decision.DENY
        earlier = None if denied else await self._journalling.unsettled(call, digest)
        if earlier is not None and verdict.decision is Decision.ALLOW:
            decision = Decision.CONFIRM if self.policy.asks else Decision.DENY
            verdict = PolicyDecision(decision, "outcome unknown", earlier)
        elif earlier is not None:
            verdict = replace(verdict, reason=f"{earlier} {verdict.reason}".rstrip())
        return self._typed(resolved.typed, verdict), earlier is not None

    def _bind(
        self, resolved: ResolvedCall, digest: str, principal: str, verdict: PolicyDecision, *, is_unsettled: bool
    ) -> tuple[str, str | None]:
        """Return `CallEvaluation.binding` and `similar`."""
        parts = [digest, resolved.bound(), str(resolved.label), self.policy.digest, resolved.effect.value, is_unsettled]
        parts += [] if resolved.typed is None else [[each.name for each in resolved.typed.fields]]
        # No temporary approval for a call that destroys, changes access or may have been made already.
        each_time = is_unsettled or resolved.effect in (Effect.DESTROY, Effect.ACCESS)
        may_repeat = resolved.call.target is not None and verdict.decision is Decision.CONFIRM and not each_time
        return sha256(parts), self._similar(resolved, principal) if may_repeat else None

    async def _preview(self, resolved: ResolvedCall, verdict: PolicyDecision, undoes: str) -> Preview:
        shown = preview(resolved, resolved.effect, self.account, verdict.why, undoes)
        is_ai = isinstance(resolved.call, (AiChat, AiBuild))
        return replace(shown, costs=await self._costs()) if is_ai else shown

    async def describe(self, evaluation: Evaluation) -> Evaluation:
        """Add what helps to decide to the previews of the first calls. An approval is not bound to it."""
        calls, now = dict(evaluation.calls), self._system.now()
        with anyio.move_on_after(_DESCRIBING):
            for number, one in list(calls.items())[:_MOST_DESCRIBED]:
                if one.preview is not None and one.reads is not None:
                    dependence = await describe_dependents(one.call, one.target, one.reads, now)
                    outlook = await outlook_of(one.resolved, one.reads, now, self._surroundings)
                    history = await self._journalling.history(one.resolved)
                    calls[number] = replace(one, preview=one.preview.with_facts(dependence, outlook, history))
        return _evaluation(evaluation.batch, evaluation.id, calls)

    async def _costs(self) -> str:
        """Describe the credits of a message to Fastn's AI: the balance, and the price as far as it is known."""
        last = self.ai_sessions.last_price
        price = f"the last message used {last:,.10g}" if last is not None else "Fastn tells the price only afterwards"
        try:
            balance = credits_of(row_of(await self._read(GetBilling()))).balance or "Fastn does not tell the balance."
        except FastnError as error:
            balance = f"The balance could not be read: {error.what}"
        return f"Spends AI credits; {price}. {balance}"

    def _typed(self, typed: TypedArgument | None, verdict: PolicyDecision) -> PolicyDecision:
        """Return the decision on a call with a secret that a person types: at least confirmed, or denied."""
        if typed is None or verdict.decision is Decision.DENY:
            return verdict
        if not self.policy.asks:
            return PolicyDecision(Decision.DENY, verdict.rule, f"Nobody is there to type the {typed.name}.")
        strictest = max(verdict.decision, Decision.CONFIRM, key=lambda decision: decision.rank)
        return replace(verdict, decision=strictest, permit=None)

    def raise_if_denied(self, evaluation: Evaluation) -> None:
        """Raise a `Refused` that names every call of the batch that the policy denies, if there is one."""
        denied = {n: one for n, one in evaluation.calls.items() if one.verdict.decision is Decision.DENY}
        if not denied:
            return
        first = next(iter(denied))
        error = self.refused(denied[first].call, denied[first].verdict, evaluation.batch.prefix(first))
        if len(denied) > 1:
            error.facts["refused_calls"] = [*denied]
        if "would_allow" in error.facts:
            error.facts["would_allow"] = "\n\n".join(would_allow(one.call) for one in denied.values())
        raise error

    def refused(self, call: Call, verdict: PolicyDecision, where: str = "") -> Refused:
        """Return the refusal of a call. `where` is the prefix that identifies a call of a list."""
        facts: dict[str, JsonValue] = {"rule": verdict.rule}
        if not self.policy.asks:
            facts["would_allow"] = would_allow(call)
        return Refused(
            f"{where}Refused by {verdict.rule}. {verdict.why}".strip(),
            "Only a person can change the policy." if self.policy.asks else "Continue with the rest; report this.",
            facts=facts,
        )

    async def allowance(self, principal: str) -> dict[str, JsonValue]:
        """Return the mode, the remaining budgets and plan entries, and the caller's requests that have not expired."""
        budgets, entries = await self.budgets.left(principal), await self.budgets.planned_left()
        found: dict[str, JsonValue] = {"mode": self.policy.mode}
        if budgets:
            found["budgets"] = budgets
        if entries:
            found["plan"] = entries
        waiting, decided = await self._ledger.waiting(self._system.timestamp()), await self._ledger.decided(_DECIDED)
        return found | self._requests("waiting", waiting, principal) | self._requests("decided", decided, principal)

    def _requests(self, name: str, requests: Iterable[ApprovalRequest], principal: str) -> dict[str, JsonValue]:
        """Return those of a caller that have not expired, if any, without the ids that decide them."""
        now = self._system.timestamp()
        rows: list[JsonValue] = [
            {
                "tool": request.tool,
                "what": request.text[0],
                "until": stamp(datetime.fromtimestamp(request.expires, UTC)),
                **({} if request.state is RequestState.OPEN else {"state": request.state.value}),
            }
            for request in requests
            if (request.principal, request.account) == (principal, self.bound_account) and request.expires > now
        ]
        return {name: rows} if rows else {}

    def digest(self, call: Call, principal: str) -> str:
        """Return the digest of the principal, account, key, tool and exact arguments."""
        return sha256([principal, self.account, self._bound, call.tool_name(), call.arguments()])

    def _similar(self, resolved: ResolvedCall, principal: str) -> str:
        """Return the digest of the calls that a temporary approval covers: those that differ in free values only."""
        call = resolved.call
        given = call.arguments()
        fixed = {name: value for name, value in given.items() if name not in FREE}
        parts = [principal, self.account, self._bound, call.tool_name(), sorted(given), fixed]
        return sha256([*parts, self.policy.digest, resolved.effect.value, resolved.fixed()])

    async def _situation(
        self, resolved: ResolvedCall, principal: str, effect: Effect, earlier_uses: EarlierUses = NO_EARLIER_USES
    ) -> Situation:
        now = self._system.now()
        declines, last = await self._ledger.declines(holder(principal, self.bound_account))
        _, rest = self.policy.breaker
        resting = declines if now.timestamp() - last < rest else 0
        spent = await self.budgets.spent(effect, principal, now, earlier_uses)
        declined_at = datetime.fromtimestamp(last, UTC) if resting else None
        permit, used_up = await self._permit(resolved, now, earlier_uses)
        revoked = resolved.target if resolved.call.tool_name() == "revoke_api_key" else None
        return Situation(
            resolved,
            effect,
            now,
            spent=spent,
            declines=resting,
            declined_at=declined_at,
            own_key=revoked is not None and self._owns(revoked),
            permit=permit,
            used_up=used_up,
            destroyed=await self.budgets.destroyed(principal) if effect is Effect.DESTROY else 0,
        )

    async def _spent(self, budget: str, period: str, earlier_uses: EarlierUses) -> int:
        return await self._ledger.spent(budget, period) + earlier_uses.get((budget, period), 0)

    async def _permit(
        self, resolved: ResolvedCall, now: datetime, earlier_uses: EarlierUses
    ) -> tuple[PlannedCalls | None, PlannedCalls | None]:
        """Return the plan entry that covers the call, or else the last covering entry that is used up."""
        used_up: PlannedCalls | None = None
        for permit in self.policy.plan.covering(resolved, now) if self.policy.plan else ():
            if await self._spent(permit.budget, PLANNED, earlier_uses) < permit.count:
                return permit, None
            used_up = permit
        return None, used_up

    async def allow(self, current: CallEvaluation, principal: str) -> str | None:
        """Count an allowed call and return `policy` or `plan`; None if other calls used up what allowed it.

        Raises a `Refused` if it is not allowed.
        """
        call, verdict = current.call, current.verdict
        if verdict.decision is not Decision.ALLOW:
            raise self.refused(call, verdict)
        if verdict.permit is None:
            return "policy" if await self.budgets.spend(current.effect, principal) else None
        is_counted = await self.budgets.spend_planned(current.effect, principal, verdict.permit)
        return "plan" if is_counted else None
