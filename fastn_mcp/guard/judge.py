"""Judgement of calls: fresh reads, then the decision of the policy, the preview and the binding."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from pydantic_core import to_jsonable_python

from fastn_mcp.account.resolve import by_arguments, check_settings, resolve, with_owners
from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.client.cost import received
from fastn_mcp.client.reads import RecordedReads, after_creates
from fastn_mcp.errors import NOTHING_SENT, FastnError, Forbidden, InvalidArgument, NotFound, NotSent
from fastn_mcp.guard.ai_sessions import AiSessions
from fastn_mcp.guard.approval_form import FREE, extent
from fastn_mcp.guard.budgets import NO_EARLIER_USES, Budgets, EarlierUses
from fastn_mcp.guard.evaluation import Evaluation, evaluation_of_list, place_in_list
from fastn_mcp.guard.guarded_account import GuardedAccount
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.questions import Questions
from fastn_mcp.guard.result import ListResult
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.identity import bound_account, holder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import PLANNED, Decision, PolicyDecision, Situation, effects_below
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import CUSTOMERS_UNREADABLE
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System, work_on
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Call, Create, RefusedValue, Send
from fastn_mcp.tools.related_reads import no_such, reader_of
from fastn_mcp.tools.tool import Effect, Tool

log = logging.getLogger(__name__)

_SHARED_SECONDS = 90.0
"""Seconds for which the next evaluation of the same call may use what an earlier one has learned of long lists."""

_MAX_SHARED = 8
"""Maximum number of evaluations whose reads are kept for that."""

TEMPORARY = "temporary approval"
"""Name of a permit that is given with an approval."""


class Judge:
    """Judges calls on one account: what they will do, what the policy decides, what a person has to be asked."""

    def __init__(
        self,
        account: GuardedAccount,
        policy: Policy,
        budgets: Budgets,
        ledger: Ledger,
        journal: ChangeJournal,
        stops: Stops,
        system: System,
        read: Send,
    ) -> None:
        """`read` sends read calls only."""
        self.policy = policy
        self.budgets = budgets
        self.ai_sessions = AiSessions()
        self.questions = Questions(account, journal, self.ai_sessions, system)
        self.bound_account = bound_account(account.name, account.key_digest)
        self._account = account
        self.tools = account.tools
        self._ledger = ledger
        self._journal = journal
        self._stops = stops
        self._system = system
        self._read = read
        self._earlier: dict[str, tuple[float, RecordedReads]] = {}
        """Reads of evaluations by the id of the call or list, and when they began, on the monotonic clock."""
        self._has_warned = False
        """Whether it was logged that the key may not read customers."""

    def call_id(self, call: Tool[Any], asker: Asker) -> str:
        """Return the id of a call: the digest of principal, machine, tenant, account, key, tool and exact arguments."""
        return _sha256([*self._parties(asker), call.tool_name(), call.arguments()])

    def _ids(self, call: Call, asker: Asker) -> tuple[str, str]:
        """Return the id of a call, and the id by which a repeated call is recognised (`Evaluation.repeat_id`)."""
        call_id = self.call_id(call, asker)
        bare = _without_key(call)
        repeat_id = call_id if bare is call else self.call_id(bare, asker)
        return call_id, repeat_id

    def list_ids(self, tool: Tool[Any], asker: Asker) -> tuple[str, tuple[str, ...]]:
        """Return the id of a list and the ids of its calls, in order; nothing for a single call.

        Two lists of the same calls are the same unless their names differ.
        """
        if not tool.inner_calls:
            return "", ()
        call_ids = tuple(self.call_id(call, asker) for call in tool.inner_calls)
        return f"batch_{_sha256([call_ids, tool.list_name])[:24]}", call_ids

    async def judge_by_arguments(self, call: Call, asker: Asker, undoes: Change | None = None) -> Evaluation | None:
        """Judge a single call without reading the account; None unless that is enough to allow or deny it."""
        check_settings(call, self._account.surroundings)
        if call.person_types is not None or self.policy.needs_facts(call):
            return None
        resolved = by_arguments(call, self._account.surroundings)
        if self.policy.needs_records(resolved):
            return None
        call_id, repeat_id = self._ids(call, asker)
        if await self._is_awaited(resolved, {call_id}):
            return None
        if await self._journal.unsettled(call, repeat_id) is not None:
            return None
        situation = await self._situation(resolved, call.effective, asker)
        verdict = self.policy.decide(situation)
        if verdict.decision not in (Decision.ALLOW, Decision.DENY):
            return None
        return Evaluation(
            tool=call,
            id=call_id,
            effect=call.effective,
            verdict=verdict,
            resolved_call=resolved,
            repeat_id=repeat_id,
            undoes=undoes,
        )

    async def judge(self, tool: Tool[Any], asker: Asker, made: ListResult, undoes: Change | None = None) -> Evaluation:
        """Judge a call, or the calls of a list that are not `made` yet, by fresh reads.

        Raises a `FastnError`.

        Each call of a list counts against the budgets and the plan of those after it, so that a shortage is found up
        front. `undoes`: the earlier change that the call undoes.
        """
        reads = self._new_reads(made.id or self.call_id(tool, asker))
        if not tool.inner_calls:
            return await self.judge_call(cast("Call", tool), asker, reads=reads, undoes=undoes)
        earlier_uses: Counter[tuple[str, str]] = Counter()
        evaluations: list[Evaluation] = []
        for number, call in enumerate(cast("tuple[Call, ...]", tool.inner_calls), 1):
            if made.calls[number - 1] in made.outcomes:
                continue
            try:
                evaluation = await self.judge_call(call, asker, earlier_uses, reads=reads, list_id=made.id)
                if evaluation.typed is not None:
                    raise NotSent(
                        f"a person can type the {evaluation.typed.name} of a single call only.",
                        f"Call {call.tool_name()} by itself.",
                    )
            except FastnError as error:
                place = place_in_list(tool, number)
                error.what = place + error.what
                error.args = (place + str(error),)
                raise
            evaluations.append(replace(evaluation, number=number))
            earlier_uses.update(self._uses_of(evaluation, asker))
        return evaluation_of_list(tool, made.id, evaluations)

    def _uses_of(self, evaluation: Evaluation, asker: Asker) -> Iterator[tuple[str, str]]:
        """Yield the budgets and periods in which a call will count."""
        if evaluation.verdict.permit is not None:
            yield evaluation.verdict.permit.budget, PLANNED
        for effect in evaluation.effects:
            for period in self.policy.rules.budgets(effect, self._system.now()):
                yield effect.value, self.budgets.period(period, asker.counted)

    async def judge_call(
        self,
        call: Call,
        asker: Asker,
        earlier_uses: EarlierUses = NO_EARLIER_USES,
        *,
        reads: RecordedReads | None = None,
        list_id: str = "",
        undoes: Change | None = None,
        at: datetime | None = None,
    ) -> Evaluation:
        """Judge one call by fresh reads, with the uses in `earlier_uses` already counted. Raises a `FastnError`.

        `reads`: the reads of its list, each made once. `list_id`: the list that it belongs to. `at`: the time to decide
        it for, instead of now.
        """
        began = self._system.timestamp()
        call_id, repeat_id = self._ids(call, asker)
        reads = reads or RecordedReads(self._read)
        resolved = await self._resolve(call, reads, own={call_id, list_id})
        verdict, is_unsettled = await self._decide(
            resolved, repeat_id, asker, earlier_uses=earlier_uses, at=at, list_id=list_id
        )
        binding = await work_on(received(), partial(self._binding, resolved, call_id))
        permit = given_by = None
        if not list_id and _may_be_temporary(resolved, verdict, is_unsettled=is_unsettled):
            permit = await work_on(received(), partial(self._permit, resolved, asker))
            given_by = await self._giver(permit, resolved, asker)
            if given_by is not None:
                verdict = replace(verdict, decision=Decision.ALLOW, rule=TEMPORARY, permit=given_by.permit)
        return Evaluation(
            tool=call,
            id=call_id,
            effect=resolved.effect,
            verdict=verdict,
            hides_any=self.tools.hides_any,
            resolved_call=resolved,
            binding=binding,
            permit=permit,
            given_by=given_by,
            is_unsettled=is_unsettled,
            repeat_id=repeat_id,
            began=began,
            reads=reads,
            undoes=undoes,
        )

    def _binding(self, resolved: ResolvedCall, call_id: str) -> str:
        """Return the digest of a call, of all that it touches and of the policy."""
        return _sha256([call_id, resolved.bound(), str(resolved.label), self.policy.digest])

    def _permit(self, resolved: ResolvedCall, asker: Asker) -> Permit:
        """Return the temporary approval that people may give with an approval of a call.

        It covers the calls of the same caller that differ from this one in free values only, under the same policy.
        """
        call = resolved.call
        arguments = call.arguments()
        fixed = {name: value for name, value in arguments.items() if name not in FREE}
        same = [*self._parties(asker), call.tool_name(), sorted(arguments), fixed]
        pattern = _sha256([*same, self.policy.digest, resolved.effect.value, resolved.fixed()])
        targets = () if call.target is None else (call.target,)
        return Permit(name=TEMPORARY, tool=call.tool_name(), targets=targets, pattern=pattern, extent=extent(call))

    async def _giver(self, permit: Permit, resolved: ResolvedCall, asker: Asker) -> ApprovalRequest | None:
        """Return the approval of the caller whose temporary approval covers a call; None if there is none."""
        now = self._system.timestamp()
        for request in await self._ledger.permits_of(holder(asker.principal, self.bound_account), now):
            if request.permit is None or not request.permit.covers(resolved, permit.pattern):
                continue
            if not await self._stops.has_voided(asker, request.stop_epoch, request.asker):
                return request
        return None

    async def explain(self, call: Call, asker: Asker, at: datetime | None = None) -> tuple[Evaluation, Situation]:
        """Judge one call, for now or another time, and return the facts that decide it."""
        evaluation = await self.judge_call(call, asker, at=at)
        return evaluation, await self._situation(evaluation.resolved, evaluation.effect, asker, at=at)

    async def check_customers(self) -> None:
        """Log, once, that the key may not read customers which the policy compares by name."""
        if self.policy.rules.compares_customers and not self._has_warned:
            with suppress(FastnError):  # a call that needs a customer says so itself
                await self._may_read_customers()

    def _parties(self, asker: Asker) -> list[str]:
        # A person and a machine may have the same subject where the team names people by another claim than `sub`.
        return [asker.principal, asker.machine, asker.tenant, self._account.name, self._account.key_digest]

    def _new_reads(self, id_: str) -> RecordedReads:
        """Return the reads of a new evaluation, with those of an earlier one of the same call or list."""
        now = self._system.monotonic()
        self._earlier = {key: each for key, each in self._earlier.items() if now - each[0] <= _SHARED_SECONDS}
        if id_ in self._earlier:
            return RecordedReads(self._read, self._earlier[id_][1])
        if len(self._earlier) >= _MAX_SHARED:
            del self._earlier[next(iter(self._earlier))]
        reads = RecordedReads(self._read)
        self._earlier[id_] = now, reads
        return reads

    async def _resolve(self, call: Call, reads: RecordedReads, own: Collection[str]) -> ResolvedCall:
        session = self.ai_sessions.target(call) if isinstance(call, (AiChat, AiBuild)) else None
        try:
            call.request()
            resolved = await resolve(call, self._account.surroundings, reads, session, reads.earlier)
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
        self,
        resolved: ResolvedCall,
        repeat_id: str,
        asker: Asker,
        *,
        earlier_uses: EarlierUses,
        at: datetime | None,
        list_id: str,
    ) -> tuple[PolicyDecision, bool]:
        """Return the decision on a call, and whether it may have been made already."""
        verdict = self.policy.decide(
            await self._situation(resolved, resolved.effect, asker, earlier_uses=earlier_uses, at=at)
        )
        if verdict.decision is Decision.DENY:
            return verdict, False
        earlier = await self._journal.unsettled(resolved.call, repeat_id, list_id)
        if earlier is not None:
            verdict = _with_unsettled(earlier, verdict, asks=self.policy.asks)
        if resolved.typed is not None and verdict.decision is not Decision.DENY:
            verdict = _with_typed(resolved.typed, verdict, asks=self.policy.asks)
        return verdict, earlier is not None

    async def _situation(
        self,
        resolved: ResolvedCall,
        effect: Effect,
        asker: Asker,
        *,
        earlier_uses: EarlierUses = NO_EARLIER_USES,
        at: datetime | None = None,
    ) -> Situation:
        """Return the facts that decide a call with this effect, now or `at` another time."""
        now = at or self._system.now()
        declines, last_decline = await self._ledger.declines(holder(asker.principal, self.bound_account))
        _, rest = self.policy.rules.breaker
        is_resting = bool(declines) and now.timestamp() - last_decline < rest
        permit = used_up = None
        if self.policy.plan is not None:
            permit, used_up = await self.budgets.permit(self.policy.plan.covering(resolved, now), earlier_uses)
        revoked = resolved.target if resolved.call.tool_name() == "revoke_api_key" else None
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
            in_list={Effect(counted): uses for (counted, period), uses in earlier_uses.items() if period != PLANNED},
            declines=declines if is_resting else 0,
            declined_at=datetime.fromtimestamp(last_decline, UTC) if is_resting else None,
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
            f"No customer has the id {quote(unknown[0])}, or the server's API key has no access to it.",
            "Find it with find or list_customers.",
            certainty=NOTHING_SENT,
        )


def _with_typed(typed: TypedArgument, verdict: PolicyDecision, *, asks: bool) -> PolicyDecision:
    """Return the decision on a call with a secret that a person types: at least confirmed, or denied if nobody asks."""
    if not asks:
        return PolicyDecision(Decision.DENY, verdict.rule, f"Nobody is there to type the {typed.name}.")
    strictest = max(verdict.decision, Decision.CONFIRM, key=lambda decision: decision.rank)
    return replace(verdict, decision=strictest, permit=None)


def _with_unsettled(earlier: str, verdict: PolicyDecision, *, asks: bool) -> PolicyDecision:
    """Return the decision on a call that may have been made already: at least confirmed, or denied if nobody asks."""
    if verdict.decision is not Decision.ALLOW:
        return replace(verdict, reason=f"{earlier} {verdict.reason}".rstrip())
    decision = Decision.CONFIRM if asks else Decision.DENY
    return PolicyDecision(decision, "outcome unknown", earlier, step_up=verdict.step_up)


def _may_be_temporary(resolved: ResolvedCall, verdict: PolicyDecision, *, is_unsettled: bool) -> bool:
    """Whether an approval may also cover similar calls for a while.

    False for a call that deletes, changes access, needs a step-up or may have been made already.
    """
    if is_unsettled or verdict.step_up is not None:
        return False
    if resolved.effect in (Effect.TRASH, Effect.DESTROY, Effect.ACCESS):
        return False
    return resolved.call.target is not None and verdict.decision is Decision.CONFIRM


def rereads(evaluation: Evaluation, one: Evaluation, read: Send) -> RecordedReads | None:
    """Return the reads by which `one` call of a list is judged again. None reads everything again.

    After creates that overwrite nothing, a further create reads only what they added to the list of its kind.
    """
    lister = reader_of(type(one.call))
    until_now = [each for each in evaluation.calls if each.number <= one.number]
    only_adds = all(isinstance(each.call, Create) and each.resolved.target is None for each in until_now)
    if one.reads is None or lister is None or not only_adds:
        return None
    return RecordedReads(after_creates(lister, one.reads, read))


def _sha256(parts: object) -> str:
    """Return the SHA-256 hex digest of the values as JSON, in which the order of an object's names does not matter."""
    return hashlib.sha256(json.dumps(to_jsonable_python(parts), sort_keys=True).encode()).hexdigest()
