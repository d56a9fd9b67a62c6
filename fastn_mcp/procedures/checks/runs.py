"""Checks of runs and workflows: those that fail, those that hang, and those that cannot run."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from fastn_mcp.procedures.checks.check import Reading, RowCheck, first_problem
from fastn_mcp.procedures.checks.finding import UNREAD_NAME, Finding, Severity, TableRow
from fastn_mcp.procedures.checks.remedies import PUBLISH
from fastn_mcp.procedures.checks.stuck_runs import UNKNOWN_LIMIT, StuckRun
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.records.labels import ACCOUNT, name_of
from fastn_mcp.records.rows import Row, key_of
from fastn_mcp.records.states import State, workflow_state

STARTED = "workflows that triggers start"
"""The list of the workflows that a trigger starts, unless it is switched off."""

MAX_STUCK = 10
"""Maximum number of runs under way that are shown beside a table of workflows."""


def failing_workflows(reading: Reading) -> list[Finding]:
    """Report the workflows of failed runs, the one with most failed runs first."""
    counts = reading.counts
    runs = counts.failures
    if not runs:
        return []
    more = counts.is_lower_bound
    customers = {run.customer for run in runs if run.customer}
    workflows = {run.workflow for run in runs}
    whom = f", for {counted(len(customers), 'customer', at_least=more)}" if customers else ""
    failing = f"{counted(len(workflows), 'workflow', at_least=more)} failed"
    what = f"{failing}: {counts.failures_of_runs} in {counts.period}{whom}."
    if counts.counted_since is not None:
        of_window = f"{counted(len(runs), 'run')} {counts.window}{whom}"
        what = f"{failing}: {of_window}; {counts.failures_of_runs} in {counts.period}."
    fix = "See diagnose for the causes."
    return [Finding(Severity.HIGH, sentence(what), fix, rows=reading.failing)]


def hanging_runs(reading: Reading) -> list[Finding]:
    """Report the runs that take far longer than usual, the longest first."""
    runs = reading.stuck
    others = reading.unjudged
    longest = _up_to(others)
    if not runs:
        if not others or others[0].age < UNKNOWN_LIMIT:
            return []
        has = "has" if len(others) == 1 else "have"
        what = f"{counted(len(others), 'run')} {has} been under way for {longest}, which may be far longer than usual."
        return [Finding(Severity.MEDIUM, what, "See diagnose.")]
    names = {key_of(row): name_of(row) for row in reading.of("workflows").rows}
    rows = [_stuck_row(run, names) for run in runs]
    what = f"{stuck_in_words(runs, at_least=not reading.counts.knows_under_way)} ({_up_to(runs)})"
    what += f"; so may {counted(len(others), 'other')} ({longest}): see diagnose." if others else "."
    return [Finding(Severity.HIGH, sentence(what), rows=rows, shown=rows[:MAX_STUCK])]


def _up_to(runs: Sequence[StuckRun]) -> str:
    """Return how long runs have been under way, the longest first: `22 h`, or `up to 22 h` of several."""
    lengths = [run.length for run in runs[:1]]
    return f"{'up to ' if len(runs) > 1 else ''}{''.join(lengths)}"


def stuck_in_words(runs: Sequence[StuckRun], *, at_least: bool) -> str:
    """Return how many runs hang: `2 runs are taking far longer than usual`."""
    is_ = "is" if len(runs) == 1 else "are"
    return f"{counted(len(runs), 'run', at_least=at_least)} {is_} taking far longer than usual"


def _stuck_row(run: StuckRun, names: Mapping[str, str]) -> TableRow:
    cells = {**run.data(names), "customer": UNREAD_NAME if run.run.customer else ACCOUNT}
    return TableRow(cells, at=run.run.at, customer=run.run.customer)


def _is_draft(row: Row, _: datetime) -> bool:
    return workflow_state(row) is State.DRAFT


def _is_off(row: Row, _: datetime) -> bool:
    return workflow_state(row) is State.OFF


WORKFLOW_CHECKS = (
    RowCheck(
        "workflows that were never published",
        STARTED,
        Severity.HIGH,
        "workflow",
        _is_draft,
        sentence=f"Triggers start {{rows}} that {{was}} {State.DRAFT.value}, so nothing runs.",
        fix=PUBLISH,
        problem=lambda _, __: (
            f"was {State.DRAFT.value}: every run of it is refused (WORKFLOW_NOT_PUBLISHED) until somebody publishes it "
            "in the dashboard"
        ),
    ),
    RowCheck(
        "workflows that are switched off",
        STARTED,
        Severity.LOW,
        "workflow",
        _is_off,
        sentence=f"Triggers start {{rows}} that {{is_}} {State.OFF.value}, so nothing runs.",
        fix="Switch {it} on, or the triggers off.",
        problem=lambda _, __: f"is {State.OFF.value}: no trigger starts it, and run_workflow still does",
    ),
)


def blocked(workflow: Row, now: datetime) -> str:
    """Return what the state of a workflow prevents, as a predicate, for example `is …`; empty if nothing."""
    return first_problem(WORKFLOW_CHECKS, workflow, now).what
