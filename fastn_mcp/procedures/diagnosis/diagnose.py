"""The tool `diagnose`: why runs fail or do not come, since when and for whom, and what would help."""

from collections import Counter
from typing import Annotated, cast

from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import InvalidArgument, LeftOut
from fastn_mcp.procedures.checks.failures import Period
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.answer import answer
from fastn_mcp.procedures.diagnosis.evidence import MAX_CAUSES, gather
from fastn_mcp.procedures.diagnosis.subject import Subject
from fastn_mcp.procedures.lookup import resolve
from fastn_mcp.records.formats import counted
from fastn_mcp.records.rows import FastnObject, owner_of, started_workflows
from fastn_mcp.tools.fields import ConnectorId, Cursor, CustomerId, TriggerId, WorkflowId
from fastn_mcp.tools.tool import CONTROL, Effect

MAX_CHARACTERS = 7_000
"""Maximum size of the answer as JSON in characters."""

_OTHERS = 8
"""Number of less frequent causes in a line each in the whole answer."""

_PAGE = 30
"""Number of them on a later page."""

_CURSOR = r"^\d{1,5}$"

_REDUCTIONS = (
    *((name, 5, False) for name in ("connections", "triggers", "changes", "not_checked")),
    ("without_failures", 8, False),
    ("changes", 2, True),
    ("findings", 1, True),
    ("without_failures", 1, True),
    ("connections", 2, True),
    ("triggers", 1, True),
    ("not_checked", 3, True),
    ("causes", 1, True),
    ("customers", 12, True),
    ("stuck_runs", 5, True),
)
"""Cuts in order: a list, its minimum number of entries, and whether it is shortened only while the answer is too
large."""

_DETAILS = {"findings": ("rows",), "causes": ("fastn_suggests", "message", "also")}
"""What entries lose before their list is shortened."""

_FIELDS = {
    "workflow": ("connectors", "executionTier", "timeoutMs", "status", "updatedAt", "updatedBy"),
    "trigger": ("routes", "status", "endOrgId"),
}
"""Fields by kind that a diagnosis needs, and that the row of a list may lack."""


class Diagnosis(FastnObject):
    """Diagnosis of runs, with remedies."""

    shape = (("verdict", "string"), ("causes", "array"))


class Diagnose(Procedure[Diagnosis]):
    """Why no data comes, or a sync or run fails or hangs: the cause, since when, for whom, what helps."""

    effect = Effect.READ
    _control_characters = CONTROL

    customer_id: CustomerId | None = None
    connector_id: ConnectorId | None = None
    workflow_id: WorkflowId | None = None
    trigger_id: TriggerId | None = None
    cursor: Annotated[Cursor, Field(pattern=_CURSOR)] = None
    hours: Annotated[int, Field(ge=1, le=720, description="1-720, default 72.")] = 72

    @property
    def target(self) -> str | None:
        return self.workflow_id or self.trigger_id or self.customer_id or self.connector_id

    async def run(self, context: ProcedureContext) -> Diagnosis:
        begin = int(self.cursor or 0)
        typed = {kind: getattr(self, f"{kind}_id") for kind in ("customer", "connector", "workflow", "trigger")}
        try:
            resources = {
                kind: await resolve(kind, name, context, fields=_FIELDS.get(kind, ()))
                for kind, name in typed.items()
                if name is not None
            }
        except LeftOut as error:
            verdict = f"The resource could not be identified. {error.what}"
            return Diagnosis.model_validate({"verdict": verdict, "causes": [], "not_checked": [error.what]})
        _check(Subject(resources))
        evidence = await gather(Subject(resources), Period(self.hours, context.look.snapshot.instant()), context)
        diagnosis: dict[str, JsonValue] = answer(evidence)
        others = cast("list[JsonValue]", diagnosis.pop("other_causes", []))
        end = begin + (_PAGE if begin else _OTHERS)
        if begin:
            first = begin + MAX_CAUSES + 1
            last = min(end, len(others)) + MAX_CAUSES
            diagnosis = {"verdict": f"Causes {first} to {last} of {len(evidence.causes)}.", "causes": []}
        page = others[begin:end]
        more = [len(cause.runs) for cause in evidence.causes[MAX_CAUSES + end :]]
        if more:
            page.append(f"{len(more)} more causes, see next_cursor: {counted(sum(more), 'run')}")
            diagnosis["next_cursor"] = str(end)
        diagnosis |= {"other_causes": page} if page else {}
        return Diagnosis.model_validate(_fitting(diagnosis) | context.look.age())


def _check(subject: Subject) -> None:
    """Raise `NotSent` if the trigger does not start the workflow, or is another customer's."""
    trigger = subject.trigger
    resources = subject.resources
    if not trigger:
        return
    if "routes" in trigger and "workflow" in resources and resources["workflow"].id not in started_workflows(trigger):
        raise InvalidArgument("trigger_id: this trigger does not start the workflow.", "Give only one of them.")
    if "customer" in resources and owner_of(trigger) not in (None, resources["customer"].id):
        raise InvalidArgument("trigger_id: this trigger is another customer's.", "Give only one of them.")


def _least_first(name: str, entries: list[dict[str, JsonValue]]) -> list[dict[str, JsonValue]]:
    """Return the entries in the order in which they lose details: findings the least severe first."""
    return entries[::-1] if name == "findings" else entries


def _fitting(entries_by_name: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Shorten the answer to `MAX_CHARACTERS` by the `_REDUCTIONS`."""
    left_out: Counter[str] = Counter()

    def is_too_large() -> bool:
        return len(to_json(entries_by_name)) > MAX_CHARACTERS

    for name, least, only_if_too_large in _REDUCTIONS:
        entries = cast("list[dict[str, JsonValue]]", entries_by_name.get(name, []))
        for entry in _least_first(name, entries):
            for detail in _DETAILS.get(name, ()):
                if is_too_large():
                    entry.pop(detail, None)
        while len(entries) > least and (is_too_large() or not only_if_too_large):
            entries.pop()
            left_out[name] += 1
    if left_out:
        entries_by_name["left_out"] = {**left_out, "see": "get_overview (about) or the lists"}
    return entries_by_name
