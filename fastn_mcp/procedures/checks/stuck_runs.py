"""Runs that are queued or running far longer than usual. A run that hangs is no failure, and no success either."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from pydantic import JsonValue

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.client.reads import read_each, read_page
from fastn_mcp.procedures.checks.failures import EndedRun, workflow_of
from fastn_mcp.procedures.checks.run_counts import RunCounts
from fastn_mcp.records.formats import counted, lasting, quoted, stamp
from fastn_mcp.records.rows import Row, key_of, number, without_empty
from fastn_mcp.records.states import run_state
from fastn_mcp.tools.workflows import ListExecutions

TIMES_USUAL = 3
"""A run is stuck after this many times the longest run seen of its workflow, and not before `SHORTEST`."""

SHORTEST = timedelta(minutes=5)

IN_QUEUE = timedelta(minutes=15)
"""Time from which on a run is stuck in the queue."""

UNKNOWN_LIMIT = timedelta(hours=1)
"""Time from which on a run is stuck if no run of its workflow was seen, and it has no timeout."""

_MAX_WORKFLOWS = 5
"""Maximum number of workflows whose newest runs are read to see how long they take."""


@dataclass(frozen=True, slots=True)
class StuckRun:
    """A run under way far longer than usual."""

    run: EndedRun
    age: timedelta
    """Time since it was created."""
    length: str
    """The same in words: `22 h`."""
    usual: str
    limit: str
    """Timeout of its workflow in words; empty if not known."""

    def in_words(self, names: Mapping[str, str]) -> str:
        """Return which run it is, for how long, and how long is usual. `names` are by id of customer and workflow."""
        row = self.data(names)
        workflow, customer, status = (quoted(str(row.get(name, ""))) for name in ("workflow", "customer", "status"))
        return f"{workflow}{customer and f' for {customer}'}, {status} for {self.length} (usual: {self.usual})"

    def data(self, names: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return it as a row. `names` are names of customers and workflows by id."""
        run = self.run
        facts: Row = {
            "run": run.id,
            "workflow": names.get(run.workflow, run.workflow_name or run.workflow),
            "customer": run.customer and names.get(run.customer, run.customer),
            "status": run.status,
            "for": self.length,
            "since": stamp(run.at) if run.at else None,
            "usual": self.usual,
            "limit": self.limit,
            "started_by": run.started_by,
        }
        return without_empty(facts)


class StuckRuns(NamedTuple):
    """The runs under way, as far as they were read, oldest first."""

    stuck: Sequence[StuckRun]
    unjudged: Sequence[StuckRun]
    """Runs that may be stuck: how long their workflow usually takes was not read."""
    has_more: bool
    """Whether others than `stuck` may be stuck."""


async def read_stuck_runs(
    counts: RunCounts, workflows: Iterable[Row], look: AnswerReads, most: int = _MAX_WORKFLOWS
) -> StuckRuns:
    """Return the stuck runs among those under way, and those that may be.

    The newest runs of `most` of their workflows are read, if the account's newest runs do not tell how long they take.
    """
    now = counts.period.now
    newest = look.stored(ListExecutions(limit=100)).rows
    waiting = [(run, now - run.at) for run in reversed(counts.under_way) if run.at and now - run.at >= SHORTEST]
    waiting_for = list(dict.fromkeys(run.workflow for run, _ in waiting))
    read = waiting_for[:most]

    async def lengths(workflow: str) -> list[timedelta]:
        ended = [row for row in newest if workflow_of(row) == workflow and run_state(row).has_ended]
        if not ended and workflow in read:
            page = await read_page(ListExecutions(workflow_id=workflow, limit=100), look)
            ended = [row for row in page.rows if run_state(row).has_ended]
        known = (number(row, "durationMs") for row in ended)
        return [timedelta(milliseconds=length) for length in known if length is not None]

    usual = await read_each(waiting_for, lengths)
    by_id = {key_of(row): row for row in workflows}
    stuck = list[StuckRun]()
    unjudged = list[StuckRun]()
    for run, length in waiting:
        timeout = number(by_id.get(run.workflow, {}), "timeoutMs")
        seen = usual.get(run.workflow, [])
        limit = None if timeout is None else timedelta(milliseconds=timeout)
        longest, why = _usual_length(run, seen, limit)
        unit = timedelta(hours=1) if length >= timedelta(hours=2) else timedelta(minutes=1)
        in_words = lasting(length - length % unit)  # in whole units, as ages are
        found = StuckRun(run, length, in_words, why, lasting(limit) if limit else "")
        if length > longest:
            stuck.append(found)
        elif not seen and run.workflow not in read:
            unjudged.append(found)
    return StuckRuns(stuck, unjudged, bool(unjudged) or not counts.knows_under_way)


def _usual_length(run: EndedRun, seen: Sequence[timedelta], limit: timedelta | None) -> tuple[timedelta, str]:
    """Return how long a run may take before it is stuck, and how that is known: by runs `seen`, or by its limit."""
    if seen:
        longest = max(min(TIMES_USUAL * max(seen), limit or timedelta.max), SHORTEST)
        return longest, f"at most {lasting(max(seen))} in {counted(len(seen), 'run')} seen"
    if run.status in ("queued", "pending"):
        return IN_QUEUE, f"at most {lasting(IN_QUEUE)} in the queue"
    return (limit, "its limit") if limit else (UNKNOWN_LIMIT, "no run or limit of it known")
