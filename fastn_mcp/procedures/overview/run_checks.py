"""Findings about runs and triggers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue

from fastn_mcp.fastn.names import counted, sentence
from fastn_mcp.fastn.rows import Row, key_of, number, short, started_workflows, text, word
from fastn_mcp.fastn.states import MANY_FAILURES, State, switched_off, trigger_state, workflow_state
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.procedures.diagnosis.failure_groups import failed_at, failed_why
from fastn_mcp.procedures.overview.snapshot import AccountFinding, Example, Severity, examples
from fastn_mcp.procedures.tables import age
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.triggers import GetTrigger, ListTriggers
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions, ListWorkflows

_NAMED = 3
"""Failing workflows that are findings of their own."""

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Period:
    """The last `hours` before `now`."""

    hours: int
    now: datetime

    @property
    def since(self) -> str:
        """Its beginning, as ISO 8601."""
        return (self.now - timedelta(hours=self.hours)).isoformat(timespec="seconds")

    def __str__(self) -> str:
        return "the last hour" if self.hours == 1 else f"{self.hours} hours"


@dataclass(slots=True)
class Failing:
    """A workflow whose runs failed."""

    key: str
    name: str
    runs: list[Row] = field(default_factory=list[Row])

    @property
    def last(self) -> Row:
        return max(self.runs, key=lambda run: failed_at(run) or _NEVER)


@dataclass(frozen=True, slots=True)
class Totals:
    """Runs as Fastn counts them; None where it does not say."""

    ever: int | None
    all: int | None
    completed: int | None
    failed: int | None
    timeout: int | None


def failing(runs: Sequence[Row], names: Mapping[str, str], period: Period, more: bool) -> list[AccountFinding]:
    """The workflows of these failed runs, those that failed most first. `more`: there are older ones."""
    ordered = by_workflow(runs, names)
    rest = ordered[_NAMED:]
    findings = [_finding(workflow, period, more) for workflow in ordered[:_NAMED]]
    if rest:
        count = counted(sum(len(workflow.runs) for workflow in rest), "time", at_least=more)
        what = f"{counted(len(rest), 'more workflow', at_least=more)} failed {count} in {period}."
        examples = tuple(Example(workflow.key, workflow.name) for workflow in rest if workflow.key)
        shows = ListExecutions(status="failed", since=period.since)
        findings.append(AccountFinding(Severity.HIGH, sentence(what), shows, examples))
    return findings


def by_workflow(runs: Sequence[Row], names: Mapping[str, str]) -> list[Failing]:
    """The workflows of these failed runs, those that failed most first. `names` are of workflows, by id."""
    found: dict[str, Failing] = {}
    for run in runs:
        key = text(run, "workflowId", "workflow.id", "workflowSlug")
        name = (
            text(run, "workflowName", "workflow.name")
            or names.get(key)
            or text(run, "workflowSlug")
            or key
            or "A workflow"
        )
        found.setdefault(key, Failing(key, short(name))).runs.append(run)
    return sorted(found.values(), key=lambda workflow: -len(workflow.runs))


def _finding(workflow: Failing, period: Period, more: bool) -> AccountFinding:
    last = workflow.last
    when = failed_at(last)
    what = f'"{workflow.name}" failed {counted(len(workflow.runs), "time", at_least=more)} in {period}'
    what += f", last {age(when, period.now)}" if when else ""
    why = failed_why(last)
    examples = (Example(workflow.key, workflow.name),) if workflow.key else ()
    shows: Tool[Any] = ListExecutions(status="failed", since=period.since)
    if workflow.key.startswith("wf_"):  # and not a slug, which is all that some rows have
        shows = DiagnoseWorkflow(workflow_id=workflow.key)
    elif key := key_of(last):
        shows = GetExecution(execution_id=key)
    return AccountFinding(Severity.HIGH, f"{what}{f': {why}' if why else ''}.", shows, examples)


def summary(totals: Totals) -> dict[str, JsonValue]:
    """The period in numbers, with a success rate where the numbers can be believed.

    A Fastn that ignores filters counts the same runs each time, which then do not add up.
    """
    known: dict[str, JsonValue] = {}
    parts = (totals.completed, totals.failed, totals.timeout)
    if totals.all is None or any(part is None for part in parts):
        return known
    completed, failed, timeout = (part or 0 for part in parts)
    ended = completed + failed + timeout
    # As many as ever there were: the period was perhaps ignored too.
    if ended > totals.all or totals.all == totals.ever:
        return known
    known |= {"runs": totals.all, "completed": completed, "failed": failed, "timeout": timeout}
    return known | ({"success_rate": f"{100 * completed / ended:.1f} %"} if ended else {})


def wrong_with(triggers: Sequence[Row], workflows: Sequence[Row]) -> list[AccountFinding]:
    """All that is wrong with these triggers, as far as they and the workflows say. One that is off starts nothing."""
    on = [row for row in triggers if trigger_state(row) is not State.OFF]
    off = [row for row in triggers if trigger_state(row) is State.OFF]
    starts = {key for row in on for key in started_workflows(row)}
    checks = (
        (_silent, [row for row in triggers if trigger_state(row) is State.BROKEN]),
        (_switched_off, [row for row in off if switched_off(row).is_platform]),
        (_drafts, [row for row in workflows if key_of(row) in starts and workflow_state(row) is State.DRAFT]),
        (_failing, [row for row in on if _failures(row) >= MANY_FAILURES]),
        (_public, [row for row in on if _is_public(row)]),
    )
    return [check(rows) for check, rows in checks if rows]


def _failures(row: Row) -> int:
    """How often it failed in a row."""
    return int(number(row, "consecutiveFailures") or 0)


def _shows(rows: Sequence[Row], wider: ListTriggers) -> GetTrigger | ListTriggers:
    return GetTrigger(trigger_id=key) if len(rows) == 1 and (key := key_of(rows[0])) else wider


def _silent(rows: Sequence[Row]) -> AccountFinding:
    states = ", ".join(sorted({text(row, "subscriptionStatus") for row in rows}))
    verb = "is not disabled and never fires: its" if len(rows) == 1 else "are not disabled and never fire: their"
    what = f"{counted(len(rows), 'trigger')} {verb} subscription at the app is {states[:60]}."
    return AccountFinding(Severity.HIGH, what, _shows(rows, ListTriggers(type="app_event")), examples(rows))


def _switched_off(rows: Sequence[Row]) -> AccountFinding:
    failures = max(map(_failures, rows))
    verb = f"{'was' if len(rows) == 1 else 'were'}{' probably' if switched_off(rows[0]).is_presumed else ''}"
    after = f" after {'' if len(rows) == 1 else 'up to '}{counted(failures, 'failure')} in a row" if failures else ""
    what = f"{counted(len(rows), 'trigger')} {verb} switched off by the platform{after}."
    return AccountFinding(Severity.HIGH, what, _shows(rows, ListTriggers(status="Disabled")), examples(rows))


def _failing(rows: Sequence[Row]) -> AccountFinding:
    times = counted(max(map(_failures, rows)), "time")
    what = f"{counted(len(rows), 'trigger')} failed {'' if len(rows) == 1 else 'up to '}{times} in a row."
    return AccountFinding(Severity.MEDIUM, what, _shows(rows, ListTriggers(status="Active")), examples(rows))


def _is_public(row: Row) -> bool:
    said = word(row, "authentication.type", "authentication", "auth")
    return "webhook" in (word(row, "type") or "webhook") and said in ("none", "public", "no auth")


def _public(rows: Sequence[Row]) -> AccountFinding:
    verb = "takes" if len(rows) == 1 else "take"
    what = f"{counted(len(rows), 'webhook')} {verb} calls from anybody: authentication is NONE."
    return AccountFinding(Severity.MEDIUM, what, _shows(rows, ListTriggers(type="webhook")), examples(rows))


def _drafts(rows: Sequence[Row]) -> AccountFinding:
    """Workflows that triggers start, and that nobody ever published."""
    what = f"Triggers start {counted(len(rows), 'workflow')} that {'was' if len(rows) == 1 else 'were'} "
    what += "never published, so that nothing runs."
    shows = GetWorkflow(workflow_id=key_of(rows[0])) if len(rows) == 1 else ListWorkflows(status="draft")
    return AccountFinding(Severity.HIGH, what, shows, examples(rows))
