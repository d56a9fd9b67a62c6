"""The tool `diagnose`: why runs fail or do not come, since when and for whom, and what would help."""

from collections import Counter
from typing import Annotated, cast

from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import LeftOut
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.answer import answer
from fastn_mcp.procedures.diagnosis.evidence import Subject, gather
from fastn_mcp.procedures.diagnosis.failures import Period
from fastn_mcp.procedures.lookup import resolve
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.fields import CustomerId, TriggerId, WorkflowId
from fastn_mcp.tools.tool import Effect

LONGEST = 6_000
"""Maximum size of the answer as JSON in characters."""

_CUTS = (
    *((name, 5, 0) for name in ("connections", "triggers", "changes", "not_checked")),
    ("without_failures", 8, 0),
    ("changes", 2, LONGEST),
    ("without_failures", 1, LONGEST),
    ("connections", 2, LONGEST),
    ("triggers", 1, LONGEST),
    ("not_checked", 3, LONGEST),
    ("causes", 1, LONGEST),
)
"""Cuts in order: a list, its minimum number of entries, and the size in characters above which it is shortened."""


class Diagnosis(FastnObject):
    """Diagnosis of runs, with remedies."""

    shape = (("verdict", "string"), ("causes", "array"))


class Diagnose(Procedure[Diagnosis]):
    """Why runs fail or do not come, since when, and what helps: of a customer, workflow or trigger, or of all."""

    effect = Effect.READ

    customer_id: Annotated[CustomerId | None, Field(description="Id or name.")] = None
    workflow_id: Annotated[WorkflowId | None, Field(description="Id or name.")] = None
    trigger_id: Annotated[TriggerId | None, Field(description="Id or name.")] = None
    hours: Annotated[int, Field(ge=1, le=720, description="1-720, default 72.")] = 72

    @property
    def target(self) -> str | None:
        return self.workflow_id or self.trigger_id or self.customer_id

    async def run(self, context: ProcedureContext) -> Diagnosis:
        typed = {"customer": self.customer_id, "workflow": self.workflow_id, "trigger": self.trigger_id}
        try:
            resources = {kind: await resolve(kind, name, context) for kind, name in typed.items() if name is not None}
        except LeftOut as error:
            verdict = f"It is not known which resource is meant. {error.what}"
            return Diagnosis.model_validate({"verdict": verdict, "causes": [], "not_checked": [error.what]})
        evidence = await gather(Subject(resources), Period(self.hours, context.look.snapshot.instant()), context)
        return Diagnosis.model_validate(_fitting(answer(evidence)) | context.look.age())


def _fitting(entries_by_name: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Shorten the answer to `LONGEST`: apply the `_CUTS`, those of causes after their suggestions and messages."""
    left_out: Counter[str] = Counter()
    for name, least, longest in _CUTS:
        if name == "causes":
            for cause in cast("list[dict[str, JsonValue]]", entries_by_name["causes"]):
                for detail in ("fastn_suggests", "message", "also"):
                    if len(to_json(entries_by_name)) > LONGEST:
                        cause.pop(detail, None)
        entries = cast("list[JsonValue]", entries_by_name.get(name, []))
        while len(entries) > least and len(to_json(entries_by_name)) > longest:
            entries.pop()
            left_out[name] += 1
    if left_out:
        entries_by_name["left_out"] = {**left_out, "see": "get_overview (about) or the lists"}
    return entries_by_name
