"""One subject of the overview, in full: more is read of it, and nothing of the others."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.rows import Row, owner_of, text
from fastn_mcp.procedures.ages import aged
from fastn_mcp.procedures.breakage import Breakage, not_working
from fastn_mcp.procedures.directory import LOOKUPS
from fastn_mcp.procedures.procedure import Means
from fastn_mcp.procedures.rates import rates
from fastn_mcp.procedures.survey import Gap, Survey, survey
from fastn_mcp.procedures.troubles import runs, worst_first
from fastn_mcp.procedures.wrongs import FAILED, NO_TOTALS, customers, failures, findings, not_checked, told, totals

About = Literal["runs", "connections", "triggers", "access"]

_ROOM = 7_000
"""Characters for findings."""

_MANY = 20
"""Examples of a finding at most."""

_PAGES = 5
"""Pages of failed runs."""

_COUNTS = ("completed runs", "the number of runs", "the number of all runs")


async def focused(about: About, period: runs.Period, means: Means) -> dict[str, JsonValue]:
    """All that is known of this subject. Raises a `FastnError`."""
    match about:
        case "runs":
            return await _runs(period, means)
        case "connections":
            return await _connections(period, means)
        case "triggers":
            return await _findings(about, ("triggers", "workflows"), period, means)
        case "access":
            return await _findings(about, ("customers", "users", "API keys"), period, means)


async def _findings(about: About, read: Sequence[str], period: runs.Period, means: Means) -> dict[str, JsonValue]:
    """What is wrong, with as many examples as there is room for."""
    found = await survey(period.since, means.send, means.report, read)
    wrong = worst_first(findings(found, await customers(found, means), period)[about])
    answer: dict[str, JsonValue] = {"findings": told(wrong, _ROOM, _MANY)}
    return answer | not_checked(found)


async def _runs(period: runs.Period, means: Means) -> dict[str, JsonValue]:
    """The workflows that fail, in numbers."""
    found = await survey(period.since, means.send, means.report, (*FAILED, *_COUNTS), _PAGES)
    overall = runs.summary(totals(found))
    answer: dict[str, JsonValue] = {"runs": {"hours": period.hours, **overall}}
    if not overall:
        found.gaps.append(NO_TOTALS)
    failed = failures(found)
    if (since := _read_since(found)) is not None:
        failed = [row for row in failed if (when := runs.at(row)) is None or when >= since]
        answer["looked_at"] = f"The failures since {aged(since, period.now)}; the numbers are of the whole period."
    return answer | await rates(failed, await _names(failed, means), period, overall, means) | not_checked(found)


def _read_since(found: Survey) -> datetime | None:
    """From when on all failures were read, where there are older ones: or else what is frequent looks rare."""
    cut = [found.all[kind].rows for kind in FAILED if kind in found.all and found.all[kind].more]
    oldest = [min(when for row in rows if (when := runs.at(row))) for rows in cut if any(map(runs.at, rows))]
    return max(oldest, default=None)


async def _names(failed: Sequence[Row], means: Means) -> dict[str, str]:
    """Of workflows by id, where runs do not say them themselves."""
    wanted = [text(row, "workflowId") for row in failed if not text(row, "workflowName")]
    return await means.directory.names("workflow", filter(None, wanted), means.send)


async def _connections(period: runs.Period, means: Means) -> dict[str, JsonValue]:
    """The connections that no longer work, and what fails for want of them."""
    found = await survey(period.since, means.send, means.report, (*FAILED, "connections", "workflows"), _PAGES)
    rows = not_working(found.rows("connections"))
    if found.chosen("connections").more:
        found.gaps.append(Gap("more broken connections", "Only the first hundred were read; list_connections goes on."))
    owners = list(dict.fromkeys(owner for row in rows if (owner := owner_of(row))))
    if len(owners) > LOOKUPS:
        try:
            await means.directory.contents("customer", means.send)
        except FastnError as error:
            found.gaps.append(Gap("names of customers", error.what))
    names = await means.directory.names("customer", owners, means.send)
    failed = failures(found)
    failing = runs.by_workflow(failed, await _names(failed, means))
    answer: dict[str, JsonValue] = {"hours": period.hours}
    if (since := _read_since(found)) is not None:
        answer["looked_at"] = f"The failures since {aged(since, period.now)}."
    seen = Breakage(rows, found.rows("workflows"), failing, names, period.now)
    return answer | seen.data() | not_checked(found)
