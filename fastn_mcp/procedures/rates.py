"""How well the workflows that fail do: of each the runs of a period in numbers, and why most of them failed.

Reads three counts for each of the worst by the sender that it is given; a count that cannot be believed is not told.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.rows import Row
from fastn_mcp.procedures.ages import aged
from fastn_mcp.procedures.diagnosis import DiagnoseWorkflow
from fastn_mcp.procedures.following import following
from fastn_mcp.procedures.procedure import Means
from fastn_mcp.procedures.troubles.runs import Failing, Period, at, by_workflow, cause
from fastn_mcp.tools.executions import ListExecutions
from fastn_mcp.tools.listing import Listed

WORST = 8
"""Workflows of which the runs are counted."""

_ERRORS = 5
_STATUSES = ("completed", "failed", "timeout")


async def rates(
    failures: Sequence[Row], names: Mapping[str, str], period: Period, overall: Mapping[str, JsonValue], means: Means
) -> dict[str, JsonValue]:
    """The workflows of these failed runs, the worst first. `names` are of workflows by id, `overall` all runs."""
    found = by_workflow(failures, names)
    counts = await _counted([workflow.key for workflow in found[:WORST] if workflow.key], period, means)
    worst = sorted(found[:WORST], key=lambda workflow: -_failed(counts.get(workflow.key, {}), workflow))
    workflows = [_told(workflow, counts.get(workflow.key, {}), overall, period) for workflow in worst]
    answer: dict[str, JsonValue] = {"workflows": [*workflows]}
    if len(found) > WORST:
        answer["more_failing_workflows"] = len(found) - WORST
    errors = Counter(why for run in failures if (why := cause(run)))
    answer["top_errors"] = [{"error": why, "runs": count} for why, count in errors.most_common(_ERRORS)]
    if worst and worst[0].key:
        answer["next"] = following(DiagnoseWorkflow, workflow_id=worst[0].key, hours=period.hours)
    return answer


async def _counted(keys: list[str], period: Period, means: Means) -> dict[str, dict[str, int]]:
    """How many runs of each workflow ended how, where Fastn says so."""
    found: dict[str, dict[str, int]] = {key: {} for key in keys}

    async def count(key: str, status: str) -> None:
        reading: Any = ListExecutions(limit=1, workflow_id=key, status=status, since=period.since)
        try:
            page = cast("Listed[Any]", await means.send(reading))
        except FastnError:
            return
        total = page.total if page.total is not None or page.next_cursor else len(page.items)
        if total is not None:
            found[key][status] = total

    await means.report("Counting the runs of the worst workflows", 0, None)
    async with anyio.create_task_group() as group:
        for key in keys:
            for status in _STATUSES:
                group.start_soon(count, key, status)
    return found


def _failed(counts: Mapping[str, int], workflow: Failing) -> int:
    return max(counts.get("failed", 0) + counts.get("timeout", 0), len(workflow.runs))


def _told(
    workflow: Failing, counts: Mapping[str, int], overall: Mapping[str, JsonValue], period: Period
) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = {"id": workflow.key, "name": workflow.name}
    if believable(counts, overall, len(workflow.runs)):
        ended = sum(counts.values())
        told |= {status: count for status, count in counts.items() if count}
        told["success_rate"] = f"{100 * counts['completed'] / ended:.1f} %"
    else:
        told["failed_at_least"] = len(workflow.runs)
    if (when := at(workflow.last)) is not None:
        told["last_failure"] = aged(when, period.now)
    if why := cause(workflow.last):
        told["why"] = why
    return told


def believable(counts: Mapping[str, int], overall: Mapping[str, JsonValue], seen: int) -> bool:
    """Whether these can be one workflow's: a Fastn that ignores a filter counts the same runs each time."""
    whole = [overall.get(status) for status in _STATUSES]
    if any(status not in counts for status in _STATUSES) or any(not isinstance(number, int) for number in whole):
        return False
    fits = all(counts[status] <= cast(int, number) for status, number in zip(_STATUSES, whole, strict=True))
    return fits and seen <= counts["failed"] + counts["timeout"]
