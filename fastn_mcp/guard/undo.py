"""Undo of a change: the call that reverts it, what that restores and what stays lost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from fastn_mcp.ledger.change import NEVER_REPEATED, Change
from fastn_mcp.ledger.identity import without_issuers
from fastn_mcp.ledger.storage_limits import MAX_JOURNAL_BYTES, MEGABYTE
from fastn_mcp.records.formats import counted
from fastn_mcp.records.platform import PEOPLE, ROLES, TRASH
from fastn_mcp.records.rows import FastnObject, text, word
from fastn_mcp.redaction import is_redacted, redact_object, redact_row
from fastn_mcp.tools.access import NewApiKey
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Call, Create, Operation, Update
from fastn_mcp.tools.related_reads import fields_sent
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.triggers import CreateTrigger


@dataclass(frozen=True, slots=True)
class Rule:
    """How changes of one operation are undone. Its texts appear in previews, approval requests, receipts and pages."""

    by: str | None
    """The operation that undoes them; None if there is none, and `lost` then says what can be done."""
    restores: str
    lost: str = ""


_FIELDS_RESTORED = "The earlier values can be restored with undo_change."
_RUNS_STAY = "Runs that the trigger has already started are not undone."
_LABELS = frozenset({"name", "description"})
"""Fields whose change has no effect but itself, so that nothing is lost beside the earlier values."""

RULES: Mapping[str, Rule] = {
    "create_customer": Rule("delete_customer", "The customer can be deleted with undo_change."),
    "update_customer": Rule("update_customer", _FIELDS_RESTORED),
    "delete_customer": Rule(
        "create_customer",
        "The customer can be created again under a new id.",
        "Its connections, credentials and secrets are lost. Its triggers stay off.",
    ),
    "create_connector": Rule("delete_connector", "The connector can be deleted with undo_change."),
    "update_connector": Rule("update_connector", _FIELDS_RESTORED),
    "delete_connector": Rule(
        "create_connector",
        "The connector can be created again under a new id.",
        "Its actions, events, connections and credentials are lost. Triggers and workflows that use it stay off.",
    ),
    "create_connection": Rule("delete_connection", "The connection can be deleted with undo_change."),
    "delete_connection": Rule(
        None,
        "",
        "Its credentials are lost: the customer has to authorise the app again. Triggers that use it stay off.",
    ),
    "create_workflow": Rule("delete_workflow", "The workflow can be moved to Trash with undo_change."),
    "update_workflow": Rule("update_workflow", _FIELDS_RESTORED),
    "delete_workflow": Rule(None, "", TRASH),
    "run_workflow": Rule(None, "", "The run's effects in other systems cannot be undone from here."),
    "create_trigger": Rule("delete_trigger", "The trigger can be deleted with undo_change.", _RUNS_STAY),
    "update_trigger": Rule("update_trigger", _FIELDS_RESTORED, _RUNS_STAY),
    "delete_trigger": Rule("create_trigger", "The trigger can be created again under a new id."),
    "invite_user": Rule(None, "", f"The invitation e-mail has already gone out. {PEOPLE}"),
    "create_role": Rule(None, "", ROLES),
    "create_api_key": Rule(
        "revoke_api_key",
        "The key can be revoked with undo_change.",
        "Calls already made with it are not undone.",
    ),
    "revoke_api_key": Rule(None, "", "A revoked key never works again; create_api_key makes another."),
    "create_secret": Rule("delete_secret", "The secret can be deleted with undo_change."),
    "delete_secret": Rule(None, "", "Its value cannot be read: a person has to enter it again with create_secret."),
    "ai_chat": Rule(None, "", "The credits have been spent. What Fastn's AI changes has to be undone separately."),
    "ai_build": Rule(None, "", "The credits have been spent. What Fastn's AI builds can be deleted."),
}
"""By operation: one rule for each that changes something."""

PERMITTED_BY = {
    "policy": "the policy",
    "plan": "a signed plan",
    "temporary_approval": "a temporary approval",
    "client_form": "a person in the client's form",
    "local_page": "a person on the approval page",
    "terminal": "a person at a terminal",
    "verified": "an authenticated person",
    "four_eyes": "two authenticated people",
}
"""By code: what permitted a change, in words."""
_AUTHENTICATED = ("verified", "four_eyes")
"""Codes of approvals by people who are known by a credential of their own."""
_NO_PERSON = ("policy", "plan")

_ALL_TOOLS = EnabledTools({})

_MAX_VALUE = 200
"""Bytes of JSON up to which a receipt shows a value."""

STATE_DROPPED = (
    "Its earlier state is no longer kept:"
    f" the journal keeps {MAX_JOURNAL_BYTES // MEGABYTE} MB of a caller's newest changes."
)
_INVITED = "An invitation that was sent to an administrator cannot be recalled."
_NOT_SHOWN = "Values that Fastn did not show before cannot be restored."
_OVERWRITTEN = {
    "create_secret": "The secret of this name was overwritten: its earlier value is lost, and has to be entered again.",
    "create_connection": (
        "The connection existed before and is kept. If its credentials were replaced, the earlier ones are lost: the"
        " customer has to authorise the app again."
    ),
}
"""Why an overwritten object is not restored, by operation. One that existed before is never deleted."""

_TO_BE_MADE = "the-id-of-what-is-made"


@dataclass(frozen=True, slots=True)
class Undo:
    """The call that undoes a change."""

    call: Call
    restores: str
    """Text for people: what it restores."""
    lost: str = ""
    """Text for people: what stays lost."""
    not_restored: tuple[str, ...] = ()
    """Fields that it does not restore."""


@dataclass(frozen=True, slots=True)
class NotUndoable:
    """A change that cannot be undone by a call."""

    why: str


def undo_of(change: Change) -> Undo | NotUndoable:
    """Return the call that undoes `change`, built from its journal entry, or the reason why there is none."""
    if change.outcome not in NEVER_REPEATED:
        return NotUndoable(f"The change was not made ({change.outcome}).")
    operation = OPERATIONS.get(change.tool)
    rule = RULES.get(change.tool)
    if operation is None or rule is None:
        return NotUndoable("How to undo it is unknown.")
    if rule.by is None:
        return NotUndoable(rule.lost)
    if change.is_state_dropped:
        return NotUndoable(STATE_DROPPED)
    by = OPERATIONS[rule.by]
    if "adminEmail" in change.sent:
        rule = replace(rule, lost=f"{rule.lost} {_INVITED}".strip())
    if issubclass(operation, Update) and change.sent.keys() <= _LABELS:
        rule = replace(rule, lost="")
    if issubclass(by, Update) or operation.route.method == "DELETE":
        if change.before is None:
            return NotUndoable("Its earlier state could not be read.")
        if issubclass(by, Update):
            return _restoring(by, rule, change, change.before)
        return _making_again(by, rule, change.before)
    return _undoing_create(by, rule, change)


def has_undo(call: Call) -> bool:
    """Whether changes of this operation can be undone by a call."""
    rule = RULES.get(call.tool_name())
    return rule is not None and rule.by is not None


def in_words(undo: Undo | NotUndoable) -> str:
    """Describe what can be undone and what stays lost, in a sentence or two."""
    return undo.why if isinstance(undo, NotUndoable) else f"{undo.restores} {undo.lost}".strip()


def foreseen(call: Call, target: FastnObject | None) -> Undo | NotUndoable:
    """Return the undo of a call before it is sent. Raises a `RefusedValue`."""
    rule = RULES.get(call.tool_name())
    if rule is None or rule.by is None:
        return NotUndoable("How to undo it is unknown." if rule is None else rule.lost)
    sent = {} if call.route.method == "DELETE" else fields_sent(call)
    if isinstance(call, Update) and not sent:  # which fields change is not known yet
        return Undo(call, rule.restores, rule.lost)
    before = None if target is None else without_secrets(target)
    id_ = call.target or str((before or {}).get("id") or _TO_BE_MADE)
    made = Change(
        id="",
        principal="",
        account="",
        tool=call.tool_name(),
        arguments={},
        target=id_,
        name=None,
        before=before,
        sent=sent,
        at=0.0,
        outcome="done",
    )
    return undo_of(made)


def without_secrets(record: FastnObject) -> dict[str, JsonValue]:
    """Return the fields of a record with secrets redacted, as the journal stores them."""
    fields = record.model_dump(exclude_unset=True)
    return redact_row(fields) if isinstance(record, NewApiKey) else redact_object(fields)


def receipt(change: Change, tools: EnabledTools = _ALL_TOOLS) -> dict[str, JsonValue]:
    """Return the receipt of a change: target, changed fields, what approved it, how to undo it, or else why not.

    It lacks names and earlier values of rows that none of the `tools` reads.
    """
    facts: dict[str, JsonValue] = {"change_id": change.id}
    changed = changed_fields(change)
    stopped = [*change.stopped_triggers]
    name = change.name
    if hides_target(change, tools):
        changed = {name: {"to": each["to"]} for name, each in changed.items()}
        name = None
    elif tools.hides_any:  # its label names what it refers to
        name = text(change.before or change.sent, "name", "slug", "email") or None
    facts |= {"name": name} if name else {}
    facts |= {"changed": cast(JsonValue, changed)} if changed else {}
    if stopped and tools.hides("triggers"):
        *others, last = stopped
        further = re.fullmatch(r"(\d+) more", last)
        stopped = [counted(len(others) + (int(further[1]) if further else 1), "trigger")]
    facts |= {"stopped_triggers": cast(JsonValue, stopped)} if stopped else {}
    facts |= {"approved_by": approver(change.approved_by)} if change.approved_by else {}
    undo = undo_of(change)
    if isinstance(undo, NotUndoable):
        return facts | {"why": undo.why}
    facts |= {"undo": "undo_change", "restores": undo.restores}
    facts |= {"lost": undo.lost} if undo.lost else {}
    if undo.not_restored:
        facts["not_restored"] = [*undo.not_restored]
    return facts


def approver(approved_by: str) -> str:
    """Describe what permitted a change, from `Change.approved_by`."""
    code, _, detail = approved_by.partition(": ")
    how = PERMITTED_BY.get(code, without_issuers(code))
    if code in _NO_PERSON:
        how = f"{how}; no person was asked"
    if not detail:
        return how
    if detail in PERMITTED_BY:
        return f"{how}, given by {PERMITTED_BY[detail]}"
    names = without_issuers(detail).splitlines()
    if code in _AUTHENTICATED:
        return f"{' and '.join(names)}, {'both ' if len(names) == 2 else ''}authenticated"
    return f"{' and '.join(names)}: {how}"


def hides_target(change: Change, tools: EnabledTools) -> bool:
    """Whether none of the tools reads what was changed."""
    operation = OPERATIONS.get(change.tool)
    return operation is None or tools.hides(operation.toolset())


def changed_fields(change: Change) -> dict[str, dict[str, JsonValue]]:
    """Return the changed fields: `from`, if Fastn showed it, and `to`. Long values are given by their size.

    None for what was not made, and for what changes no field: a message to Fastn's AI, or a run.
    """
    before = change.before or {}
    operation = OPERATIONS.get(change.tool, Operation)
    if change.outcome not in NEVER_REPEATED or not issubclass(operation, (Update, Create)) or change.is_of_another:
        return {}
    return {
        name: ({"from": _brief(before[name])} if name in before else {}) | {"to": _brief(value)}
        for name, value in change.sent.items()
        if before and before.get(name) != value
    }


def _brief(value: JsonValue) -> JsonValue:
    size = len(to_json(value))
    return value if size <= _MAX_VALUE else f"[{counted(size, 'character')}]"


def drift(change: Change, now: Mapping[str, JsonValue]) -> list[str]:
    """Return the updated fields that were changed again since: they hold neither the new nor the earlier value."""
    before = change.before or {}
    return sorted(
        name
        for name, value in change.sent.items()
        if not is_redacted(value) and now.get(name) not in (value, before.get(name))
    )


def already(change: Change, now: Mapping[str, JsonValue]) -> bool:
    """Whether all updated fields have their earlier values."""
    before = change.before or {}
    return all(now.get(name) == before.get(name) for name in change.sent)


def _restoring(operation: Any, rule: Rule, change: Change, before: Mapping[str, JsonValue]) -> Undo | NotUndoable:
    """Return the update that sets the fields to their earlier values."""
    unknown = change.sent.keys() - before.keys()
    was = {name: before[name] for name in change.sent if name in before}
    lost = [name for name, value in was.items() if is_redacted(value)]
    if was and not lost and was == change.sent:
        return NotUndoable("It had these values already: there is nothing to undo.")
    arguments, refused = _arguments(operation, {name: value for name, value in was.items() if name not in lost})
    parameter = operation.route.parameters[-1]
    try:
        call = operation.model_validate({parameter: change.target} | arguments)
    except ValidationError:
        return NotUndoable("None of the changed fields can be set to its earlier value.")
    losses = (rule.lost, "Secrets are not kept in the journal." if lost else "", _NOT_SHOWN if unknown else "")
    return Undo(call, rule.restores, " ".join(filter(None, losses)), tuple(sorted({*lost, *refused, *unknown})))


def _undoing_create(by: Any, rule: Rule, change: Change) -> Undo | NotUndoable:
    if change.target is None:
        return NotUndoable("What it created is unknown; find it with the list tool.")
    if change.before is not None and not change.is_of_another:
        return _undoing_overwrite(change, change.before)
    return Undo(by.model_validate({by.route.parameters[-1]: change.target}), rule.restores, rule.lost)


def _undoing_overwrite(change: Change, before: Mapping[str, JsonValue]) -> Undo | NotUndoable:
    """Restore what a create overwrote, as Fastn handled it as an update. Never delete an object that existed before."""
    if not before:
        return NotUndoable("Whether it overwrote something is unknown; find it with the list tool.")
    updating = change.tool.replace("create_", "update_")
    if updating not in RULES:
        return NotUndoable(_OVERWRITTEN.get(change.tool, "It existed before: its earlier values are lost."))
    changed = {name: value for name, value in change.sent.items() if value != before.get(name)}
    return _restoring(OPERATIONS[updating], RULES[updating], replace(change, sent=changed), before)


def _making_again(operation: Any, rule: Rule, before: Mapping[str, JsonValue]) -> Undo | NotUndoable:
    values = {name: value for name, value in before.items() if value is not None and not is_redacted(value)}
    known = {operation.wire(name) for name in operation.model_fields}
    arguments, refused = _arguments(operation, {name: value for name, value in values.items() if name in known})
    try:
        call = operation.model_validate(arguments)
    except ValidationError:
        return NotUndoable("Too little is known to create it again.")
    left = (before.keys() - known - _KEPT_BY_FASTN) | set(refused)
    not_restored = tuple(sorted(name for name in left if before[name] is not None))
    is_webhook = isinstance(call, CreateTrigger) and word(before, "type") not in ("scheduler", "app event")
    return Undo(call, rule.restores, "Its webhook gets a new URL." if is_webhook else rule.lost, not_restored)


_KEPT_BY_FASTN = frozenset({"id", "createdAt", "createdBy", "updatedAt", "updatedBy", "version"})


def _arguments(
    operation: type[Operation[Any]], values: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], list[str]]:
    """Convert fields by Fastn's names to arguments of `operation`. Also return the names of the rejected fields."""
    names = {operation.wire(name): name for name in operation.model_fields if name not in operation.ours() | {"extra"}}
    # Null clears a field, which only `extra` can express.
    extra = {wire: value for wire, value in values.items() if value is None or wire not in names}
    arguments = {names[wire]: value for wire, value in values.items() if wire not in extra}
    refused: list[str] = []
    try:
        operation.model_validate(arguments)
    except ValidationError as error:
        wrong = {problem["loc"][:1] for problem in error.errors(include_url=False, include_input=False)}
        refused = [name for name in arguments if (name,) in wrong]
    taken: dict[str, JsonValue] = {name: value for name, value in arguments.items() if name not in refused}
    if extra:
        taken["extra"] = extra
    return taken, list(map(operation.wire, refused))
