"""Evaluation of a call: its effect, the state of its target and dependents, and the policy decision."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import anyio
from pydantic_core import to_jsonable_python

from fastn_mcp.account.dependents import describe_dependents
from fastn_mcp.account.outlook import Outlook, outlook_of
from fastn_mcp.account.resolve import by_arguments, check_settings, resolve, with_owners, without_hidden
from fastn_mcp.account.resolved_call import ResolvedCall, Surroundings
from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.client.cost import received
from fastn_mcp.client.reads import RecordedReads, after_creates, remembered
from fastn_mcp.errors import NOTHING_SENT, FastnError, Forbidden, InvalidArgument, NotFound, NotSent
from fastn_mcp.guard.ai_sessions import AiSessions
from fastn_mcp.guard.approval_form import FREE
from fastn_mcp.guard.batch import Batch, CallEvaluation, Evaluation, batch_of, evaluation_of, list_digest
from fastn_mcp.guard.budgets import NO_EARLIER_USES, Budgets, EarlierUses
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.preview import Preview, as_agent_reads, preview
from fastn_mcp.ledger.identity import bound_account, holder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import PLANNED, Decision, PolicyDecision, Situation, effects_below
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import CUSTOMERS_UNREADABLE
from fastn_mcp.records.formats import age
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System, work_on
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Call, Create, RefusedValue, Send
from fastn_mcp.tools.related_reads import no_such, reader_of
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import Effect

log = logging.getLogger(__name__)

_MAX_DESCRIBED = 10
"""Maximum number of calls of a list for which further facts are read."""

_MAX_DESCRIPTION_SECONDS = 10.0
"""Maximum time for reading them in seconds."""


@dataclass(frozen=True, slots=True)
class GuardedAccount:
    """The account whose calls are evaluated, as this server reaches it."""

    name: str
    """Display name."""
    owns: Callable[[FastnObject], bool]
    """Whether an API key's record may be that of the key that this server uses."""
    key_digest: str = ""
    """Opaque identifier of that key and of the host it is sent to."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    tools: EnabledTools = field(default_factory=lambda: EnabledTools({}))
    """The tools that are enabled. An agent is shown no rows of a kind that none of them reads."""


class Evaluator:
    """Evaluates calls on one account."""

    def __init__(
        self,
        account: GuardedAccount,
        policy: Policy,
        budgets: Budgets,
        ledger: Ledger,
        journalling: ChangeJournal,
        system: System,
        read: Send,
    ) -> None:
        """`read` sends read calls only."""
        self.policy = policy
        self.budgets = budgets
        self.ai_sessions = AiSessions()
        self.bound_account = bound_account(account.name, account.key_digest)
        self._account = account
        self._surroundings = account.surroundings
        self.tools = account.tools
        self._ledger = ledger
        self._journalling = journalling
        self._system = system
        self._read = read
        self._has_warned = False
        """Whether it was logged that the key may not read customers."""

    def batch_id(self, batch: Batch, asker: Asker) -> str:
        """Return `BatchResult.id`. Two lists of the same calls are the same batch unless their names differ."""
        if not batch.is_list:
            return ""
        return f"batch_{_sha256([[self.digest(call, asker) for call in batch.calls], batch.name])[:24]}"

    async def evaluate_without_reads(self, batch: Batch, asker: Asker) -> Evaluation | None:
        """Evaluate a single call without reads; None unless that is enough to allow or deny it."""
        call = batch.calls[0]
        check_settings(call, self._surroundings)
        if batch.is_list or call.person_types is not None or self.policy.needs_facts(call):
            return None
        resolved = by_arguments(call, self._surroundings)
        if self.policy.needs_records(resolved):
            return None
        digest, repeat_digest = self.digest(call, asker), self.digest(_without_key(call), asker)
        if await self._is_awaited(resolved, {digest}):
            return None
        if await self._journalling.unsettled(call, repeat_digest) is not None:
            return None
        verdict = self.policy.decide(await self._situation(resolved, call.effective, asker, NO_EARLIER_USES, None))
        if verdict.decision not in (Decision.ALLOW, Decision.DENY):
            return None
        one = CallEvaluation(resolved, digest, call.effective, verdict, repeat_digest=repeat_digest)
        return evaluation_of(batch, "", {1: one})

    async def evaluate(self, batch: Batch, asker: Asker, skip: Collection[int] = ()) -> Evaluation:
        """Evaluate the calls of a batch by fresh reads, except the numbers in `skip`. Raises a `FastnError`.

        Each call counts against the budgets and the plan of those after it, so that a shortage is found up front.
        """
        undoes = ""
        if (undone := batch.undoes) is not None:
            undoes = f"what was done {age(datetime.fromtimestamp(undone.at, UTC), self._system.now())}"
        earlier_uses: Counter[tuple[str, str]] = Counter()
        evaluations: dict[int, CallEvaluation] = {}
        reads, id_ = remembered(self._read), self.batch_id(batch, asker)
        request = list_digest(batch, id_)
        for number, call in enumerate(batch.calls, 1):
            if number in skip:
                continue
            try:
                one = await self.evaluate_call(call, asker, earlier_uses, undoes, reads, request=request)
                evaluations[number] = one
                if batch.is_list and (typed := one.resolved.typed) is not None:
                    raise NotSent(
                        f"a person can type the {typed.name} of a single call only.",
                        f"Call {call.tool_name()} by itself.",
                    )
            except FastnError as error:
                where = batch.prefix(number)
                error.what, error.args = where + error.what, (where + str(error),)
                raise
            if (permit := one.verdict.permit) is not None:
                earlier_uses[permit.budget, PLANNED] += 1
            for effect in one.effects:
                for period in self.policy.rules.budgets(effect, self._system.now()):
                    earlier_uses[effect.value, self.budgets.period(period, asker.counted)] += 1
        return evaluation_of(batch, id_, evaluations)

    async def evaluate_call(
        self,
        call: Call,
        asker: Asker,
        earlier_uses: EarlierUses = NO_EARLIER_USES,
        undoes: str = "",
        reads: Send | None = None,
        at: datetime | None = None,
        request: str = "",
    ) -> CallEvaluation:
        """Evaluate one call by fresh reads, with the uses in `earlier_uses` already counted. Raises a `FastnError`.

        `undoes`: the earlier change that it undoes, for people. `reads`: those of its list, each made once. `at`: the
        time to decide it for, instead of now. `request`: digest that the approval request of its list is found by.
        """
        digest, repeat_digest = self.digest(call, asker), self.digest(_without_key(call), asker)
        reads, began = reads or remembered(self._read), self._system.timestamp()
        resolved = await self._resolve(call, reads, {digest, request})
        verdict, is_unsettled = await self._decide(resolved, repeat_digest, asker, earlier_uses, at, batch_of(request))
        parties, policy = self._parties(asker), self.policy.digest
        bind = partial(_bind, resolved, digest, parties, policy, verdict, is_unsettled=is_unsettled)
        binding, similar = await work_on(received(), bind)
        show = partial(preview, resolved, resolved.effect, self._account.name, verdict.why, undoes)
        shown = await work_on(received(), show)
        if self.tools.hides_any:
            readable = without_hidden(resolved, self.tools, self._surroundings)
            shown = replace(shown, for_agent=as_agent_reads(shown, readable, verdict.reason))
        return CallEvaluation(
            resolved,
            digest,
            resolved.effect,
            verdict,
            shown,
            binding,
            similar,
            reads,
            is_unsettled,
            repeat_digest,
            began,
        )

    async def explain(self, call: Call, asker: Asker, at: datetime | None = None) -> tuple[CallEvaluation, Situation]:
        """Evaluate one call, for now or another time, and return the facts that decide it."""
        evaluation = await self.evaluate_call(call, asker, at=at)
        return evaluation, await self._situation(evaluation.resolved, evaluation.effect, asker, NO_EARLIER_USES, at)

    async def describe(self, evaluation: Evaluation) -> Evaluation:
        """Add what helps to decide to the previews. An approval is not bound to it.

        Each gets what this server did lately to its records, and the credits of a message to Fastn's AI; the first ones
        also what else has to be read.
        """
        calls, now = dict(evaluation.calls), self._system.now()
        deadline = anyio.current_time() + _MAX_DESCRIPTION_SECONDS
        for place, (number, one) in enumerate(evaluation.calls.items()):
            if one.preview is None or one.reads is None:
                continue
            history, dependence, outlook = await self._journalling.history(one.resolved), None, Outlook()
            costs = await self.ai_sessions.costs(one.reads) if isinstance(one.call, (AiChat, AiBuild)) else ""
            reads = RecordedReads(one.reads)
            if place < _MAX_DESCRIBED:
                with anyio.CancelScope(deadline=deadline):
                    dependence = await describe_dependents(one.call, one.resolved.target, reads, now)
                    outlook = await outlook_of(one.resolved, reads, now, self._surroundings)
            facts = one.preview.facts
            facts = replace(facts, history=history, dependence=dependence or facts.dependence)
            described = replace(one.preview, facts=facts, outlook=outlook, costs=costs)
            if described.for_agent is not None:
                for_agent = await self._described_for_agent(described, described.for_agent, reads, now)
                described = replace(described, for_agent=for_agent)
            calls[number] = replace(one, preview=described)
        return evaluation_of(evaluation.batch, evaluation.id, calls)

    async def _described_for_agent(
        self, shown: Preview, agent: Preview, recorded: RecordedReads, now: datetime
    ) -> Preview:
        """Describe a call from those of the recorded reads that the agent may make too; what else was found by number.

        If the agent may not read its target, nothing is added but numbers.
        """

        async def read(call: Call) -> FastnObject:
            self.tools.check(call)
            return await recorded.repeated(call)

        facts, resolved = agent.facts, agent.facts.resolved
        dependence, outlook = shown.facts.dependence.counted(), Outlook(shown.outlook.defaults)
        if resolved.target is shown.facts.resolved.target:
            readable = await describe_dependents(resolved.call, resolved.target, read, now)
            dependence = shown.facts.dependence.shown_as(readable, self.tools.hides)
            outlook = await outlook_of(resolved, read, now, self._surroundings)
        costs = "" if self.tools.hides("billing") else shown.costs
        return replace(agent, facts=replace(facts, dependence=dependence), outlook=outlook, costs=costs)

    async def check_customers(self) -> None:
        """Log, once, that the key may not read customers which the policy compares by name."""
        if self.policy.rules.compares_customers and not self._has_warned:
            with suppress(FastnError):  # a call that needs a customer says so itself
                await self._may_read_customers()

    def digest(self, call: Call, asker: Asker) -> str:
        """Return the digest of the principal, machine, tenant, account, key, tool and exact arguments."""
        return _sha256([*self._parties(asker), call.tool_name(), call.arguments()])

    def _parties(self, asker: Asker) -> list[str]:
        # A person and a machine may have the same subject where the team names people by another claim than `sub`.
        return [asker.principal, asker.machine, asker.tenant, self._account.name, self._account.key_digest]

    async def _resolve(self, call: Call, reads: Send, own: Collection[str]) -> ResolvedCall:
        session = self.ai_sessions.target(call) if isinstance(call, (AiChat, AiBuild)) else None
        try:
            call.request()
            resolved = await resolve(call, self._surroundings, reads, session)
            resolved = await with_owners(resolved, reads) if self.policy.rules.needs_owners(call) else resolved
        except RefusedValue as error:
            raise InvalidArgument(
                f"{error.argument}: {error.problem}.", "Correct the argument and call again."
            ) from None
        except NotSent:
            raise
        except FastnError as error:
            raise NotSent(
                f"Its target could not be read first. {error.what}", error.next_step, facts=error.facts
            ) from None
        _check_exists(resolved)
        if self.policy.rules.compares_customers and any(each.is_forbidden for each in resolved.records):
            resolved = await self._excused(resolved)
        return replace(resolved, is_awaited=True) if await self._is_awaited(resolved, own) else resolved

    async def _excused(self, resolved: ResolvedCall) -> ResolvedCall:
        """Recognise customers by their ids only, if the key may read none. One that it may not read is unknown."""
        with suppress(FastnError):
            if not await self._may_read_customers():
                return resolved
        return replace(resolved, records=tuple(replace(each, error=None) for each in resolved.records))

    async def _may_read_customers(self) -> bool:
        """Return whether the key may list customers, and log once if it may not. Raises a `FastnError`."""
        try:
            await self._read(ListCustomers(limit=1))
        except Forbidden:
            if not self._has_warned:
                self._has_warned = True
                log.warning(CUSTOMERS_UNREADABLE)
            return False
        return True

    async def _is_awaited(self, resolved: ResolvedCall, own: Collection[str]) -> bool:
        """Return whether an open approval request names what a call changes, except requests by its `own` digests."""
        if resolved.changed is None or resolved.call.effective is not Effect.WRITE:
            return False
        requests = await self._ledger.open_requests(self.bound_account, self._system.timestamp())
        others = (request for request in requests if request.call not in own)
        return any(resolved.changed in request.records for request in others)

    async def _decide(
        self, resolved: ResolvedCall, repeat_digest: str, asker: Asker, earlier_uses: EarlierUses, at: datetime | None,
        batch: str,
    ) -> tuple[PolicyDecision, bool]:  # fmt: skip
        """Return the decision on a call, and whether it may have been made already."""
        verdict = self.policy.decide(await self._situation(resolved, resolved.effect, asker, earlier_uses, at))
        if verdict.decision is Decision.DENY:
            return verdict, False
        earlier = await self._journalling.unsettled(resolved.call, repeat_digest, batch)
        if earlier is not None and verdict.decision is Decision.ALLOW:
            decision = Decision.CONFIRM if self.policy.asks else Decision.DENY
            verdict = PolicyDecision(decision, "outcome unknown", earlier, step_up=verdict.step_up)
        elif earlier is not None:
            verdict = replace(verdict, reason=f"{earlier} {verdict.reason}".rstrip())
        if resolved.typed is not None and verdict.decision is not Decision.DENY:
            verdict = _with_typed(resolved.typed, verdict, asks=self.policy.asks)
        return verdict, earlier is not None

    async def _situation(
        self, resolved: ResolvedCall, effect: Effect, asker: Asker, earlier_uses: EarlierUses, at: datetime | None
    ) -> Situation:
        now = at or self._system.now()
        declines, last = await self._ledger.declines(holder(asker.principal, self.bound_account))
        _, rest = self.policy.rules.breaker
        is_resting = bool(declines) and now.timestamp() - last < rest
        permit = used_up = None
        if self.policy.plan is not None:
            permit, used_up = await self.budgets.permit(self.policy.plan.covering(resolved, now), earlier_uses)
        revoked = resolved.target if resolved.call.tool_name() == "revoke_api_key" else None
        in_list = {Effect(counted): uses for (counted, period), uses in earlier_uses.items() if period != PLANNED}
        return Situation(
            resolved,
            effect,
            now,
            asker,
            own_key=revoked is not None and self._account.owns(revoked),
            spent={
                each: await self.budgets.spent(each, asker.counted, now, earlier_uses)
                for each in (effect, *effects_below(resolved.call, effect))
            },
            in_list=in_list,
            declines=declines if is_resting else 0,
            declined_at=datetime.fromtimestamp(last, UTC) if is_resting else None,
            permit=permit,
            used_up=used_up,
            destroyed=await self.budgets.destroyed(asker.counted) if effect is Effect.DESTROY else 0,
        )


def _without_key(call: Call) -> Call:
    """Return a call without its idempotency key: with another key, Fastn makes the same call again."""
    has_key = getattr(call, "idempotency_key", None) is not None
    return call.model_copy(update={"idempotency_key": None}) if has_key else call


def _check_exists(resolved: ResolvedCall) -> None:
    """Raise `NotFound` if the target does not exist, or a customer that an argument names."""
    if resolved.is_missing:
        raise NotFound(*no_such(resolved.call), certainty=NOTHING_SENT)
    if unknown := resolved.unknown_customers:
        raise NotFound(
            f"No customer has the id {quote(unknown[0])}, or this API key has no access to it.",
            "Find it with find or list_customers.",
            certainty=NOTHING_SENT,
        )


def _with_typed(typed: TypedArgument, verdict: PolicyDecision, *, asks: bool) -> PolicyDecision:
    """Return the decision on a call with a secret that a person types: at least confirmed, or denied if nobody asks."""
    if not asks:
        return PolicyDecision(Decision.DENY, verdict.rule, f"Nobody is there to type the {typed.name}.")
    strictest = max(verdict.decision, Decision.CONFIRM, key=lambda decision: decision.rank)
    return replace(verdict, decision=strictest, permit=None)


def _bind(
    resolved: ResolvedCall, digest: str, parties: Sequence[str], policy: str, verdict: PolicyDecision, *,
    is_unsettled: bool,
) -> tuple[str, str | None]:  # fmt: skip
    """Return `CallEvaluation.binding` and `similar`. `policy` is its digest."""
    call, binding = resolved.call, _sha256([digest, resolved.bound(), str(resolved.label), policy])
    # No temporary approval for a call that destroys, changes access, needs a step-up or may have been made already.
    each_time = is_unsettled or verdict.step_up is not None or resolved.effect in (Effect.DESTROY, Effect.ACCESS)
    if call.target is None or verdict.decision is not Decision.CONFIRM or each_time:
        return binding, None
    # A temporary approval covers calls that differ in free values only.
    arguments = call.arguments()
    fixed = {name: value for name, value in arguments.items() if name not in FREE}
    same = [*parties, call.tool_name(), sorted(arguments), fixed]
    return binding, _sha256([*same, policy, resolved.effect.value, resolved.fixed()])


def rereads(evaluation: Evaluation, number: int, read: Send) -> Send | None:
    """Return the reads by which a call of a list is evaluated again. None reads everything again.

    After creates that overwrite nothing, a further create reads only what they added to the list of its kind.
    """
    one, lister = evaluation.calls[number], reader_of(type(evaluation.calls[number].call))
    until_now = [each for key, each in evaluation.calls.items() if key <= number]
    only_adds = all(isinstance(each.call, Create) and each.resolved.target is None for each in until_now)
    if one.reads is None or lister is None or not only_adds:
        return None
    return remembered(after_creates(lister, one.reads, read))


def _sha256(parts: object) -> str:
    """Return the SHA-256 hex digest of the values as JSON, in which the order of an object's names does not matter."""
    return hashlib.sha256(json.dumps(to_jsonable_python(parts), sort_keys=True).encode()).hexdigest()
