"""Questions about judged calls: what people read, and what the agent may read of that."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.account.dependents import describe_dependents
from fastn_mcp.account.outlook import Outlook, outlook_of
from fastn_mcp.account.resolve import without_hidden
from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.client.cost import received
from fastn_mcp.client.reads import RecordedReads
from fastn_mcp.guard.ai_sessions import AiSessions
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.guarded_account import GuardedAccount
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.sentences.access import power
from fastn_mcp.guard.sentences.catalog import describe, describe_list, phrase
from fastn_mcp.guard.sentences.facts import Facts
from fastn_mcp.guard.undo import foreseen, has_undo, in_words
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.question import PERMISSION_ARGUMENTS, FieldChange, Question
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.formats import age
from fastn_mcp.records.labels import typed_id
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import redact, redact_object, sanitize
from fastn_mcp.runtime import System, work_on
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.operation import Call, Create, Operation, Update
from fastn_mcp.tools.related_reads import kind_of
from fastn_mcp.tools.tool import Effect

_CHANGES = 12
"""Maximum number of changed fields of a question. The others are counted."""


_MAX_DESCRIBED = 10
"""Maximum number of calls of a list for which further facts are read."""

_MAX_DESCRIPTION_SECONDS = 10.0
"""Maximum time for reading them in seconds."""


class Questions:
    """Makes the questions about judged calls on one account."""

    def __init__(
        self, account: GuardedAccount, journal: ChangeJournal, ai_sessions: AiSessions, system: System
    ) -> None:
        self._account = account
        self._journal = journal
        self._ai_sessions = ai_sessions
        self._system = system

    async def with_question(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation with its question, from what was read to judge it. One that it has stays."""
        if evaluation.question is not None:
            return evaluation
        if evaluation.is_list:
            return _with_list_question([await self.with_question(each) for each in evaluation.calls], evaluation)
        facts = await work_on(received(), partial(self._facts, evaluation))
        return await self._with_facts(evaluation, facts)

    async def describe(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation with a question that says all that helps to decide. An approval is not bound to it.

        For each call, it says what this server did lately to its records, and the credits of a message to Fastn's AI;
        for the first ones also what else has to be read.
        """
        deadline = anyio.current_time() + _MAX_DESCRIPTION_SECONDS
        described: list[Evaluation] = []
        for each in evaluation.calls:
            may_read = len(described) < _MAX_DESCRIBED
            described.append(await self._describe_call(each, deadline, may_read=may_read))
        return _with_list_question(described, evaluation) if evaluation.is_list else described[0]

    async def _describe_call(self, evaluation: Evaluation, deadline: float, *, may_read: bool) -> Evaluation:
        """Return one call with its question, with further reads until `deadline` if it `may_read`."""
        reads = evaluation.reads
        if reads is None:
            return await self.with_question(evaluation)
        call = evaluation.call
        now = self._system.now()
        facts = await work_on(received(), partial(self._facts, evaluation))
        facts.history = await self._journal.history(evaluation.resolved)
        facts.costs = await self._ai_sessions.costs(reads) if isinstance(call, (AiChat, AiBuild)) else ""
        if may_read:
            with anyio.CancelScope(deadline=deadline):
                dependence = await describe_dependents(
                    call, evaluation.resolved.target, reads, now, earlier=reads.earlier
                )
                facts.dependence = dependence or facts.dependence
                outlook = await outlook_of(evaluation.resolved, reads, now, self._account.surroundings)
                facts.defaults = outlook.defaults
                facts.notes = outlook.notes
        return await self._with_facts(evaluation, facts, reads)

    def _facts(self, evaluation: Evaluation) -> Facts:
        undoes = self._undone(evaluation.undoes)
        return facts_of(evaluation.resolved, evaluation.effect, evaluation.verdict.why, undoes)

    async def _with_facts(
        self, evaluation: Evaluation, facts: Facts, recorded: RecordedReads | None = None
    ) -> Evaluation:
        """Return a call with the question that these facts make, and what the agent may read of it."""
        resolved = evaluation.resolved
        is_refused = evaluation.verdict.decision is Decision.DENY
        placed = {"number": evaluation.number, "refused": evaluation.verdict.rule if is_refused else ""}
        make = partial(question_of, facts, self._account.shown_name, target_id(resolved))
        question = replace(await work_on(received(), make), **placed)
        if not self._account.tools.hides_any:
            return replace(evaluation, question=question)
        readable = without_hidden(resolved, self._account.tools, self._account.surroundings)
        of_agent = facts_for_agent(facts, readable, evaluation.verdict.reason)
        if recorded is not None:
            of_agent = await self._described_for_agent(facts, of_agent, recorded)
        make = partial(question_of, of_agent, self._account.shown_name, target_id(readable))
        for_agent = replace(await work_on(received(), make), **placed)
        return replace(evaluation, question=question, question_for_agent=for_agent)

    async def _described_for_agent(self, facts: Facts, of_agent: Facts, recorded: RecordedReads) -> Facts:
        """Describe a call from those of the recorded reads that the agent may make too; what else was found by number.

        If the agent may not read its target, nothing is added but numbers.
        """

        async def read(call: Call) -> FastnObject:
            self._account.tools.check(call)
            return await recorded.repeated(call)

        now = self._system.now()
        resolved = of_agent.resolved
        dependence = facts.dependence.counted()
        outlook = Outlook(facts.defaults)
        if resolved.target is facts.resolved.target:
            found = await describe_dependents(resolved.call, resolved.target, read, now, earlier=recorded.earlier)
            dependence = facts.dependence.shown_as(found, self._account.tools.hides)
            outlook = await outlook_of(resolved, read, now, self._account.surroundings)
        return replace(
            of_agent,
            dependence=dependence,
            defaults=outlook.defaults,
            notes=outlook.notes,
            costs="" if self._account.tools.hides("billing") else facts.costs,
        )

    def _undone(self, change: Change | None) -> str:
        """Return the change that a call undoes, in words for people; empty if there is none."""
        if change is None:
            return ""
        made = _MADE.get(change.tool.partition("_")[0], "change")
        return f"the {made} made {age(datetime.fromtimestamp(change.at, UTC), self._system.now())}"


_MADE = {"create": "creation", "delete": "deletion", "revoke": "revocation"}
"""What an earlier change is called, by the verb of its tool."""


def _with_list_question(calls: Sequence[Evaluation], evaluation: Evaluation) -> Evaluation:
    """Return the evaluation of a list with its question, from its calls with theirs."""
    question = question_of_list(evaluation.tool.tool_name(), [each.people_question for each in calls])
    for_agent = None
    if any(each.question_for_agent is not None for each in calls):
        for_agent = replace(question, calls=tuple(each.agent_question for each in calls))
    return replace(evaluation, list_calls=tuple(calls), question=question, question_for_agent=for_agent)


def facts_of(resolved: ResolvedCall, effect: Effect, because: str = "", undoes: str = "") -> Facts:
    """Return the facts of a judged call. `undoes`: the earlier change that it undoes, for people."""
    call = resolved.call
    target = resolved.target
    return Facts(
        resolved=resolved,
        effect=effect,
        arguments={name: by_power(name, value) for name, value in call.shown().items()},
        undo=foreseen(call, target),
        dependence=resolved.dependence,
        changes=_changes(call, target),
        pending=_pending(target) if isinstance(call, (AiChat, AiBuild)) else (),
        undoes=undoes,
        because=because,
    )


def facts_for_agent(facts: Facts, readable: ResolvedCall, because: str) -> Facts:
    """Return the facts of the same call as `readable`, which lacks what the agent may not read."""
    changes = facts.changes
    undo = facts.undo
    if readable.target is not facts.resolved.target:
        changes = ()
        undo = foreseen(readable.call, readable.target) if isinstance(readable.call, Create) else undo
    return replace(
        facts,
        resolved=readable,
        dependence=readable.dependence,
        changes=changes,
        undo=undo,
        history=(),
        because=because,
        costs="",
        defaults={},
        notes=(),
    )


def question_of(facts: Facts, account: str, target: str | None) -> Question:
    """Return the question about a call on an account, whose target has the id `target` (`target_id`)."""
    call = facts.call
    label = facts.resolved.label
    dependents: dict[str, Any] = facts.dependence.data()
    question = describe(facts)
    return replace(
        question,
        title=sanitize(question.title),
        button=sanitize(question.button),
        brief=sanitize(question.brief),
        lost=sanitize(question.lost),
        then=sanitize(question.then),
        unchecked=sanitize(question.unchecked),
        facts=tuple((name, sanitize(sentence)) for name, sentence in question.facts),
        costs=sanitize(facts.costs),
        because=sanitize(facts.because),
        notes=tuple(map(sanitize, facts.notes)),
        changes=tuple(facts.changes[:_CHANGES]),
        more_changes=len(facts.changes[_CHANGES:]),
        tool=call.tool_name(),
        arguments=_safe_arguments(facts.arguments),
        defaults=facts.defaults,
        pending=tuple(facts.pending),
        used_by=tuple(map(redact_object, dependents.get("used_by", ()))),
        may_be_used_by=tuple(map(redact_object, dependents.get("may_be_used_by", ()))),
        not_checked=tuple(map(redact_object, dependents.get("not_checked", ()))),
        account=account,
        effect=facts.effect,
        undo=in_words(facts.undo),
        has_undo=has_undo(call),
        kind=kind_of(call),
        target=target,
        name=str(label) if label else None,
        expected=(label.typed(target) if label else target and typed_id(target)) or call.tool_name(),
    )


def target_id(resolved: ResolvedCall) -> str | None:
    """Return the id of the target; for a create or a message to Fastn's AI, of the record that it would change."""
    call = resolved.call
    id_: object = getattr(resolved.target, "id", None) if isinstance(call, (Create, AiChat, AiBuild)) else None
    return call.target or (str(id_) if id_ else None)


def question_of_list(tool: str, calls: Sequence[Question]) -> Question:
    """Return the question about a list, from the questions on its calls."""
    losing = [call for call in calls if call.lost or call.effect is Effect.DESTROY]
    return replace(
        describe_list(calls),
        tool=tool,
        account=calls[0].account,
        effect=max((call.effect for call in calls), key=lambda effect: effect.rank),
        # The text of the only call that loses data for good, or else a short phrase.
        expected=losing[0].expected if len(losing) == 1 else phrase(losing, len(calls)),
        calls=tuple(calls),
    )


def by_power(name: str, value: JsonValue) -> JsonValue:
    """Sort permissions, the most powerful first so that none hides behind harmless ones. Leave other values as is."""
    if isinstance(value, dict):
        return {inner: by_power(inner, content) for inner, content in value.items()}
    if isinstance(value, list) and name in PERMISSION_ARGUMENTS:
        return sorted(value, key=power)
    return value


def _safe_arguments(arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the arguments redacted. Permissions stay: their names look like secrets, and people read them whole."""
    permissions = {name: value for name, value in arguments.items() if name in PERMISSION_ARGUMENTS}
    return redact_object(arguments) | permissions


def _pending(target: FastnObject | None) -> tuple[JsonValue, ...]:
    if target is None:
        return ()
    pending: JsonValue = getattr(target, "pending", None)
    if not isinstance(pending, list):
        return (pending,)
    return tuple(cast("list[JsonValue]", redact(pending))) or (
        "nothing, according to the last answer that this server saw",
    )


def _changes(call: Operation[Any], target: FastnObject | None) -> tuple[FieldChange, ...]:
    """Return the fields of the target that a call changes, redacted."""
    if not isinstance(call, (Update, Create)) or target is None:
        return ()
    current = target.model_dump()
    if not current:
        return ()
    body = call.model_copy(update=dict.fromkeys(call.secrets())).request().body or {}
    changed = {field: new for field, new in body.items() if current.get(field) != new}
    before = redact_object({field: current.get(field) for field in changed})
    after = redact_object(changed)
    is_shown = [field in current for field in changed]
    # All have the same order, even where names are redacted.
    fields = zip(after, before.values(), after.values(), is_shown, strict=True)
    return tuple(FieldChange(*field) for field in fields)
