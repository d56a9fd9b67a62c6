"""What would undo a change, and what nothing brings back. Pure: no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue, ValidationError

from fastn_mcp.operation import Operation
from fastn_mcp.procedures.journal import PERHAPS_MADE, Change
from fastn_mcp.redaction import is_redacted
from fastn_mcp.renamed import current
from fastn_mcp.tools import BY_NAME
from fastn_mcp.tools.updating import Update

Call = Operation[Any]

_MADE = ("done", "applied_unreadable")

# What was made, and what takes it away again.
_TAKES_AWAY = {
    "create_customer": "delete_customer",
    "create_connector": "delete_connector",
    "create_connection": "delete_connection",
    "create_workflow": "delete_workflow",
    "create_trigger": "delete_trigger",
    "create_secret": "delete_secret",
    "create_api_key": "revoke_api_key",
}
_BRINGS_BACK = {
    "delete_customer": "create_customer",
    "delete_connector": "create_connector",
    "delete_trigger": "create_trigger",
}
# What a deletion takes with it for good, whatever is made again.
_LOST = {
    "delete_customer": "It gets another id. Its connections, their credentials and its secrets stay lost.",
    "delete_connector": "It gets another id. Its actions, events and the credentials of its connections stay lost.",
    "delete_trigger": "It gets another id, and a webhook another address.",
    "create_secret": "A value that it overwrote stays lost.",
}
_NEVER = {
    "delete_workflow": "Only the dashboard can restore it from Trash; its slug and history come back with it.",
    "delete_connection": "Its credentials are gone; the customer has to authorise again.",
    "delete_secret": "Its value was never readable; somebody has to enter it again with create_secret.",
    "revoke_api_key": "A revoked key never comes back; create_api_key makes another.",
    "invite_user": "Only the dashboard can take the access back.",
    "create_role": "Only the dashboard can delete it.",
    "run_workflow": "What a run did elsewhere is not undone by anything here.",
    "ai_chat": "Credits are spent; what the agent changed has to be undone by itself.",
    "ai_build": "Credits are spent; what it built can be deleted.",
}


@dataclass(frozen=True, slots=True)
class Undo:
    """The call that undoes a change."""

    call: Call
    lost: str = ""
    """What it does not bring back, in words."""
    not_restored: tuple[str, ...] = ()
    """Fields that it leaves as they are."""


@dataclass(frozen=True, slots=True)
class Never:
    """A change that no call undoes, and why."""

    why: str


def undo_of(change: Change) -> Undo | Never:
    """What would undo `change`, by what the journal holds of it."""
    if change.outcome not in _MADE + PERHAPS_MADE:
        return Never(f"It was not made ({change.outcome}).")
    change = replace(change, tool=current(change.tool))
    operation = BY_NAME.get(change.tool)
    if operation is None or change.tool in _NEVER:
        return Never(_NEVER.get(change.tool, "It is not known how."))
    if change.tool in _TAKES_AWAY:
        if change.target is None:
            return Never("What it made is not known; look for it with the list tool.")
        updating = BY_NAME.get(change.tool.replace("create_", "update_"))
        if change.before is not None and updating is not None:
            return _undoing_overwrite(updating, change, change.before)
        away = BY_NAME[_TAKES_AWAY[change.tool]]
        return Undo(away.model_validate({away.route.parameters[-1]: change.target}), _LOST.get(change.tool, ""))
    if change.before is None:
        return Never("What it was could not be read before.")
    if issubclass(operation, Update):
        return _restoring(operation, change, change.before)
    return _making_again(BY_NAME[_BRINGS_BACK[change.tool]], change, change.before)


def receipt(change: Change) -> dict[str, JsonValue]:
    """What a result says of undoing it."""
    undo = undo_of(change)
    if isinstance(undo, Never):
        return {"change_id": change.id, "undo": None, "why": undo.why}
    said: dict[str, JsonValue] = {"change_id": change.id, "undo": "undo_change"}
    return said | ({"lost": undo.lost} if undo.lost else {})


def drift(change: Change, now: Mapping[str, JsonValue]) -> list[str]:
    """The fields of an update that are neither as it left them nor as they were before."""
    before = change.before or {}
    return sorted(
        name
        for name, value in change.sent.items()
        if not is_redacted(value) and now.get(name) not in (value, before.get(name))
    )


def already(change: Change, now: Mapping[str, JsonValue]) -> bool:
    """Whether all is as it was before an update."""
    before = change.before or {}
    return all(now.get(name) == before.get(name) for name in change.sent)


def _restoring(operation: type[Operation[Any]], change: Change, before: Mapping[str, JsonValue]) -> Undo | Never:
    """The update that gives the fields their values of before."""
    was = {name: before.get(name) for name in change.sent}
    lost = sorted(name for name, value in was.items() if is_redacted(value))
    given, refused = _arguments(operation, {name: value for name, value in was.items() if name not in lost})
    parameter = operation.route.parameters[-1]
    try:
        call = operation.model_validate({parameter: change.target} | given)
    except ValidationError:
        return Never("None of the fields that it changed can be given their values of before.")
    said = "Secrets are not journalled." if lost else ""
    return Undo(call, said, tuple(sorted({*lost, *refused})))


def _undoing_overwrite(
    operation: type[Operation[Any]], change: Change, before: Mapping[str, JsonValue]
) -> Undo | Never:
    """Restore what a create overwrote, where Fastn took it for an update; never delete what was there before."""
    if not before:
        return Never("Whether it overwrote something could not be learnt; look for it with the list tool.")
    if str(before.get("id")) != change.target:
        away = BY_NAME[_TAKES_AWAY[change.tool]]
        return Undo(away.model_validate({away.route.parameters[-1]: change.target}))
    changed = {name: value for name, value in change.sent.items() if value != before.get(name)}
    return _restoring(operation, replace(change, sent=changed), before)


def _making_again(operation: type[Operation[Any]], change: Change, before: Mapping[str, JsonValue]) -> Undo | Never:
    there = {name: value for name, value in before.items() if value is not None and not is_redacted(value)}
    known = {operation.wire(name) for name in operation.model_fields}
    given, refused = _arguments(operation, {name: value for name, value in there.items() if name in known})
    try:
        call = operation.model_validate(given)
    except ValidationError:
        return Never("Too little is known of it to make it again.")
    left = (before.keys() - known - _KEPT_BY_FASTN) | set(refused)
    return Undo(call, _LOST[change.tool], tuple(sorted(name for name in left if before[name] is not None)))


_KEPT_BY_FASTN = frozenset({"id", "createdAt", "createdBy", "updatedAt", "updatedBy", "version"})


def _arguments(
    operation: type[Operation[Any]], values: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], list[str]]:
    """Fields by Fastn's names as arguments of `operation`, and those that it does not take."""
    names = {operation.wire(name): name for name in operation.model_fields if name not in operation.ours() | {"extra"}}
    given: dict[str, JsonValue] = {}
    extra: dict[str, JsonValue] = {}
    refused: list[str] = []
    for wire, value in values.items():
        name = names.get(wire)
        if value is None or name is None:
            extra[wire] = value  # a null clears a field, which only `extra` can say
        elif _takes(operation, name, value):
            given[name] = value
        else:
            refused.append(wire)
    if extra:
        given["extra"] = extra
    return given, refused


def _takes(operation: type[Operation[Any]], name: str, value: JsonValue) -> bool:
    """Whether an argument takes this value, whatever the others are."""
    try:
        operation.model_validate({name: value})
    except ValidationError as error:
        return all(problem["loc"][:1] != (name,) for problem in error.errors(include_url=False, include_input=False))
    return True
