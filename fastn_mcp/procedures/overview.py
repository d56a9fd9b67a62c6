"""The account at a glance, the worst first. A read that fails costs what it would have shown, and is named."""

from collections import Counter
from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.offer import Effect, Record
from fastn_mcp.procedures.focus import About, focused
from fastn_mcp.procedures.procedure import Means, Procedure
from fastn_mcp.procedures.survey import Gap, Survey, survey
from fastn_mcp.procedures.troubles import limits, runs, worst_first
from fastn_mcp.procedures.wrongs import NO_TOTALS, customers, findings, not_checked, told, totals

MOST = 12
"""Findings in an answer; the others are counted."""

_ROOM = 3_000
"""Characters for the findings; beyond, they are told with fewer examples."""


class Overview(Record):
    """An account at a glance."""


class GetOverview(Procedure[Overview]):
    """The account at a glance: what fails, expires, never fires or is open, worst first; counts, quotas. Start here."""

    effect = Effect.READ

    hours: Annotated[int, Field(ge=1, le=720, description="Period for runs: 1-720, default 24.")] = 24
    about: Annotated[About | None, Field(description="Only this, in full.")] = None

    async def run(self, means: Means) -> Overview:
        period = runs.Period(self.hours, means.system.now())
        answer = await (_glance(period, means) if self.about is None else focused(self.about, period, means))
        return Overview.model_validate(answer)


async def _glance(period: runs.Period, means: Means) -> dict[str, JsonValue]:
    """Everything, in little."""
    found = await survey(period.since, means.send, means.report)
    subjects = findings(found, await customers(found, means), period)
    wrong = worst_first(finding for of_subject in subjects.values() for finding in of_subject)
    answer: dict[str, JsonValue] = {"findings": told(wrong[:MOST], _ROOM)}
    if rest := Counter(finding.severity.value for finding in wrong[MOST:]):
        answer["more_findings"] = dict(rest)
    if summary := runs.summary(totals(found)):
        answer["runs"] = {"hours": period.hours, **summary}
    else:
        found.gaps.append(NO_TOTALS)
    answer["counts"] = {_field(kind): found.all[kind].count for kind in _COUNTED if _is_counted(found, kind)}
    if "billing" in found.answers and (plan := limits.plan(found.answers["billing"])):
        answer["plan"] = plan
    try:
        answer["guard"] = await means.allowance()
    except FastnError as error:
        found.gaps.append(Gap("budgets", error.what))
    return answer | not_checked(found)


_COUNTED = (
    "customers",
    "connectors",
    "connections",
    "workflows",
    "triggers",
    "users",
    "API keys",
    "secrets",
    "executions",
)


def _is_counted(found: Survey, kind: str) -> bool:
    """Of the runs only one row was read, which says nothing without a total."""
    return kind in found.all and (kind != "executions" or found.all[kind].total is not None)


def _field(kind: str) -> str:
    return kind.lower().replace(" ", "_")
