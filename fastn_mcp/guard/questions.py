"""Questions about calls: what was read for one, what people read of it, and what the agent may read of that."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.guard.sentences.access import power
from fastn_mcp.guard.sentences.catalog import describe, describe_list, phrase
from fastn_mcp.guard.sentences.facts import Facts
from fastn_mcp.guard.undo import foreseen, in_words
from fastn_mcp.ledger.question import PERMISSION_ARGUMENTS, FieldChange, Question
from fastn_mcp.records.labels import typed_id
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import redact, redact_object, sanitize
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.operation import Create, Operation, Update
from fastn_mcp.tools.related_reads import kind_of
from fastn_mcp.tools.tool import Effect

_CHANGES = 12
"""Maximum number of changed fields of a question. The others are counted."""


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
