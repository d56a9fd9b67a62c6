"""Runs that ended, and those that failed grouped by cause and by workflow.

Nothing is known of an error's shape, so each part of it may be missing, or the whole be a text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastn_mcp.fastn.rows import Row, number, objects, owner_of, short, text, timestamp, value, word
from fastn_mcp.fastn.states import RunState, run_state

_LONGEST = 500
"""Characters of a message that are looked at."""

# What differs from run to run. An apostrophe within a word quotes nothing.
_VARYING = re.compile(
    r"""
    "[^"]*" | `[^`]*` | (?<!\w)'[^']*'(?!\w)   # quoted values
    | \S+@\S+                                  # addresses
    | [\w:.@-]*\d[\w:.@-]*                     # numbers, times, ids
    | \b[0-9a-f]{8,}\b                         # ids without a digit
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Period:
    """The last `hours` before `now`."""

    hours: int
    now: datetime

    @property
    def begin(self) -> datetime:
        return self.now - timedelta(hours=self.hours)

    @property
    def since(self) -> str:
        """Its beginning, as ISO 8601."""
        return self.begin.isoformat(timespec="seconds")

    def __str__(self) -> str:
        return "the last hour" if self.hours == 1 else f"{self.hours} hours"


@dataclass(frozen=True, slots=True)
class EndedRun:
    """One run, and why it failed as far as its row says. What is not known is empty."""

    row: Row
    id: str
    at: datetime | None
    customer: str | None
    timed_out: bool
    codes: tuple[str, ...]
    """Code, other code, category, tag and name of the error, as they are."""
    failed_at: str
    step: str
    headline: str
    message: str
    """Its first line."""
    category: str
    suggestion: str
    """How to mend it, in Fastn's words."""
    memory_used: float
    """Share of the memory limit, 0 where it is not known."""

    @property
    def cause(self) -> tuple[str, str, str]:
        """What it has in common with the others of the same cause."""
        code = " ".join(filter(None, self.codes)) or self.category or word(self.row, "status")
        return code, self.failed_at, normalised(self.message or self.headline)

    @property
    def text(self) -> str:
        """All that it says of its failure, in lower case."""
        said = (self.category, " ".join(filter(None, self.codes)), self.failed_at, self.headline, self.message)
        return " ".join(said).casefold()

    @property
    def reason(self) -> str:
        """Why it failed, in Fastn's words."""
        said = self.headline or self.message or self.codes[0]
        return short(said or ("it took too long" if self.timed_out else ""), 120).rstrip(".")

    def blames(self, names: Iterable[str]) -> bool:
        """Whether its error names one of these."""
        said = str(value(self.row, "error", "errorMessage") or "").casefold()
        return any(name and name.casefold() in said for name in names)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed runs of one cause, newest first."""

    runs: Sequence[EndedRun]

    @property
    def newest(self) -> EndedRun:
        return self.runs[0]

    @property
    def times(self) -> list[datetime]:
        return [run.at for run in self.runs if run.at]

    @property
    def customers(self) -> list[str]:
        """Ids of the customers concerned, the most concerned first."""
        return [key for key, _ in Counter(run.customer for run in self.runs if run.customer).most_common()]


@dataclass(frozen=True, slots=True)
class FailingWorkflow:
    """A workflow with its failed runs. `id` is its slug where runs say no more."""

    id: str
    name: str
    runs: Sequence[EndedRun]

    @property
    def last(self) -> EndedRun:
        return max(self.runs, key=time_of)


def time_of(run: EndedRun) -> float:
    """When it was, in Unix seconds, to sort by."""
    return run.at.timestamp() if run.at else 0.0


def ended_runs(rows: Iterable[Row]) -> list[EndedRun]:
    """These runs, each once."""
    return list({text(row, "id") or str(place): ended_run(row) for place, row in enumerate(rows)}.values())


def by_cause(failed: Iterable[EndedRun]) -> list[FailureGroup]:
    """The causes of failed runs, the most frequent first."""
    found: dict[tuple[str, str, str], list[EndedRun]] = {}
    for run in failed:
        found.setdefault(run.cause, []).append(run)
    return sorted(map(FailureGroup, found.values()), key=lambda group: -len(group.runs))


def by_workflow(failed: Iterable[EndedRun], names: Mapping[str, str]) -> list[FailingWorkflow]:
    """The workflows of failed runs, those that failed most first. `names` are of workflows, by id."""
    found: dict[str, tuple[str, list[EndedRun]]] = {}
    for run in failed:
        row = run.row
        key, slug = text(row, "workflowId", "workflow.id", "workflowSlug"), text(row, "workflowSlug")
        name = text(row, "workflowName", "workflow.name") or names.get(key) or slug or key or "A workflow"
        found.setdefault(key, (short(name), []))[1].append(run)
    workflows = [FailingWorkflow(key, name, runs) for key, (name, runs) in found.items()]
    return sorted(workflows, key=lambda workflow: -len(workflow.runs))


def normalised(message: str) -> str:
    """A message without what differs from run to run."""
    return " ".join(_VARYING.sub("…", message).split())


def ended_run(row: Row) -> EndedRun:
    """The run of this row."""
    error = _error(row)
    used, limit = number(row, "summary.peakSandboxMB"), number(row, "summary.sandboxMemoryLimitMB")
    return EndedRun(
        row=row,
        id=text(row, "id"),
        at=timestamp(row, "createdAt", "startedAt", "completedAt", "timestamp"),
        customer=owner_of(row),
        timed_out=run_state(row) is RunState.TIMED_OUT,
        codes=tuple(_line(error, field) for field in ("code", "errorCode", "category", "tag", "name")),
        failed_at=_line(error, "failedAt", "failedStep", "node") or _failed_step(row),
        step=_line(error, "step", "stepName"),
        headline=_line(error, "headline", "title"),
        message=_line(error, "raw", "message", "reason", "detail", "stack"),
        category=_line(row, "errorCategory"),
        suggestion=_line(row, "fixSuggestion"),
        memory_used=used / limit if used and limit and limit > 0 else 0.0,
    )


def _error(row: Row) -> Row:
    error = value(row, "error")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        inner = error.get("error")
        return error | (inner if isinstance(inner, dict) else {"message": inner} if inner else {})
    return {"message": error or text(row, "errorMessage", "failureReason")}


def _failed_step(row: Row) -> str:
    failed = (step for step in objects(row, "steps") if run_state(step).is_failure)
    return next((_line(step, "name", "id", "action") for step in failed), "")


def _line(row: Row, *fields: str) -> str:
    """The first line of the first of these fields that is a text or a number."""
    lines = text(row, *fields)[:_LONGEST].strip().splitlines()
    return lines[0].strip() if lines else ""
