"""The account at a glance, the worst first. A read that fails costs what it would have shown, and is named."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import FastnError
from fastn_mcp.offer import Effect, Record
from fastn_mcp.procedures.procedure import Means, Procedure
from fastn_mcp.procedures.survey import Gap, Seen, Survey, survey
from fastn_mcp.procedures.troubles import Finding, access, limits, runs, triggers, worst_first
from fastn_mcp.procedures.troubles.rows import key_of, name_of, word

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

    async def run(self, means: Means) -> Overview:
        now = means.system.now()
        period = runs.Period(self.hours, now)
        found = await survey(period.since, means.send, means.report)
        findings = worst_first(_findings(found, await _customers(found, means), period))
        answer: dict[str, JsonValue] = {"findings": _told(findings[:MOST])}
        if rest := Counter(finding.severity.value for finding in findings[MOST:]):
            answer["more_findings"] = dict(rest)
        if summary := runs.summary(_totals(found)):
            answer["runs"] = {"hours": self.hours, **summary}
        else:
            found.gaps.append(Gap("success rate", "Fastn gives no totals that surely are of this period."))
        answer["counts"] = {_field(kind): found.all[kind].count for kind in _COUNTED if _is_counted(found, kind)}
        if "billing" in found.answers and (plan := limits.plan(found.answers["billing"])):
            answer["plan"] = plan
        try:
            answer["guard"] = await means.allowance()
        except FastnError as error:
            found.gaps.append(Gap("budgets", error.what))
        answer["not_checked"] = [{"what": gap.what, "why": gap.why} for gap in _together(found.gaps)]
        return Overview.model_validate(answer)


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


def _told(findings: list[Finding]) -> list[JsonValue]:
    """The findings, with as many examples as there is room for, and one at least."""
    said: list[JsonValue] = []
    for most in (3, 2, 1):
        said = [finding.data(most) for finding in findings]
        if len(to_json(said)) <= _ROOM:
            break
    return said


def _field(kind: str) -> str:
    return kind.lower().replace(" ", "_")


def _findings(found: Survey, customers: Mapping[str, str], period: runs.Period) -> list[Finding]:
    """Everything that is wrong, in the order in which equals are told."""
    failed = [found.all[kind] for kind in ("failed runs", "timed-out runs") if kind in found.all]
    more = any(seen.more for seen in failed)
    workflows = {key_of(row): name_of(row) for row in found.rows("workflows")}
    waiting = found.chosen("customers")
    every = [row for seen in failed for row in seen.rows]
    return [
        *runs.failing(every, workflows, period, more),
        *access.broken(found.rows("connections"), customers, found.chosen("connections").more),
        *triggers.wrong_with(found.rows("triggers"), found.rows("workflows")),
        *limits.near(found.answers.get("quotas")),
        *limits.credits_left(found.answers.get("billing", {})),
        *access.pending(waiting.rows, waiting.total if "customers" in found.matching else None, waiting.more),
        *access.keys(found.rows("API keys"), period.now),
        *access.invited(found.rows("users"), period.now, found.chosen("users").more),
    ]


async def _customers(found: Survey, means: Means) -> dict[str, str]:
    """Names by id: those on the page that was read, and those of the first broken connections."""
    read = found.all.get("customers", Seen())
    names = {key_of(row): name_of(row) for row in (*read.rows, *found.rows("customers"))}
    wanted: list[str] = []
    for status in ("failed", "expired"):
        owners = [access.owner_of(row) for row in found.rows("connections") if word(row, "status") == status]
        wanted += [owner for owner in owners[: access.NAMED] if owner and owner not in names]
    return names | await means.directory.names("customer", wanted, means.send)


def _totals(found: Survey) -> runs.Totals:
    def total(kind: str) -> int | None:
        seen = found.all.get(kind)
        return None if seen is None else seen.total

    return runs.Totals(
        ever=total("executions"),
        all=total("runs"),
        completed=total("completed runs"),
        failed=total("failed runs"),
        timeout=total("timed-out runs"),
    )


def _together(gaps: list[Gap]) -> list[Gap]:
    """What was not checked for the same reason, said once."""
    by_reason: dict[str, list[str]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.why, []).append(gap.what)
    return [Gap(", ".join(what), why) for why, what in by_reason.items()]
