"""Runs that ended, and failed runs in groups: by cause, by workflow, by customer.

The shape of an error is unknown: each part of it may be missing, or all of it may be a text.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastn_mcp.procedures.reads import unique
from fastn_mcp.records.rows import Row, number, objects, owner_of, short, text, timestamp, value, word
from fastn_mcp.records.states import RunState, run_state

_MAX_MESSAGE = 500
"""Maximum number of characters of a message that are used."""

# Parts that differ between runs. An apostrophe within a word is not a quote.
_VARYING_PARTS = re.compile(
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
        """Start of the period, as ISO 8601."""
        return self.begin.isoformat(timespec="seconds")

    def __str__(self) -> str:
        return "the last hour" if self.hours == 1 else f"{self.hours} hours"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs: of one workflow, for one customer, of both, or all."""

    workflow: str | None = None
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class EndedRun:
    """One run, and why it failed, from its row. Unknown fields are empty."""

    row: Row
    id: str
    at: datetime | None
    workflow: str
    workflow_name: str
    version: str
    customer: str | None
    timed_out: bool
    codes: tuple[str, ...]
    """Code, other code, category, tag and name of the error, unchanged."""
    failed_at: str
    step: str
    headline: str
    message: str
    """Its first line."""
    category: str
    suggestion: str
    """Fix that Fastn suggests."""
    started_by: str
    memory_used: float
    """Share of the memory limit; 0 if unknown."""

    @property
    def cause(self) -> tuple[str, str, str]:
        """Key that failures of the same cause have in common."""
        code = " ".join(filter(None, self.codes)) or self.category or word(self.row, "status")
        return code, self.failed_at, normalised(self.message or self.headline)

    @property
    def text(self) -> str:
        """All texts about its failure, in lower case."""
        texts = (self.category, " ".join(filter(None, self.codes)), self.failed_at, self.headline, self.message)
        return " ".join(texts).casefold()

    @property
    def reason(self) -> str:
        """Why it failed, in Fastn's words."""
        reason = self.headline or self.message or self.codes[0]
        return short(reason or ("it took too long" if self.timed_out else ""), 120).rstrip(".")

    @property
    def has_failed(self) -> bool:
        return run_state(self.row).is_failure

    @property
    def status(self) -> str:
        return word(self.row, "status")

    @property
    def filter(self) -> RunFilter:
        """The runs of its workflow for its customer."""
        return RunFilter(self.workflow, self.customer)

    def app(self, apps: Iterable[str]) -> str | None:
        """Return the slug of the app at which it failed; `apps` are the apps of its workflow."""
        named = re.match(r"connector\.([\w-]+)", self.failed_at) or re.search(
            r'connector "([\w-]+)"', f"{self.message} {self.headline}"
        )
        return named[1] if named else next((app for app in apps if app.casefold() in self.text), None)

    @property
    def whole_error(self) -> str:
        """All of its error as it is, in lower case."""
        return str(value(self.row, "error", "errorMessage") or "").casefold()


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed runs that have something in common, newest first."""

    runs: Sequence[EndedRun]

    @property
    def newest(self) -> EndedRun:
        return self.runs[0]

    @property
    def times(self) -> list[datetime]:
        return [run.at for run in self.runs if run.at]

    @property
    def filters(self) -> dict[RunFilter, int]:
        """Number of runs by workflow and customer, the largest first."""
        return dict(Counter(run.filter for run in self.runs).most_common())

    @property
    def customers(self) -> list[str]:
        """Ids of the affected customers, most failures first."""
        return [key for key, _ in Counter(run.customer for run in self.runs if run.customer).most_common()]


def newest_first(rows: Iterable[Row]) -> list[EndedRun]:
    """Return the runs of these rows, each once."""
    return sorted(map(ended_run, unique(rows)), key=lambda run: run.at.timestamp() if run.at else 0.0, reverse=True)


def grouped(failed: Iterable[EndedRun], key: Callable[[EndedRun], Hashable]) -> list[FailureGroup]:
    """Group failed runs, given newest first, by a key; the largest group first."""
    groups: dict[Hashable, list[EndedRun]] = {}
    for run in failed:
        groups.setdefault(key(run), []).append(run)
    return sorted(map(FailureGroup, groups.values()), key=lambda group: -len(group.runs))


def normalised(message: str) -> str:
    """Replace the parts of a message that differ between runs by `…`."""
    return " ".join(_VARYING_PARTS.sub("…", message).split())


def workflow_of(run: Row) -> str:
    """Return the id of a run's workflow; its slug if the row gives no id."""
    return text(run, "workflowId", "workflow.id", "workflowSlug")


def ended_run(row: Row) -> EndedRun:
    error = _error(row)
    used = number(row, "summary.peakSandboxMB")
    limit = number(row, "summary.sandboxMemoryLimitMB")
    return EndedRun(
        row=row,
        id=text(row, "id"),
        at=timestamp(row, "createdAt", "startedAt", "completedAt", "timestamp"),
        workflow=workflow_of(row),
        workflow_name=short(text(row, "workflowName", "workflow.name", "workflowSlug")),
        version=text(row, "version"),
        customer=owner_of(row),
        timed_out=run_state(row) is RunState.TIMED_OUT,
        codes=tuple(_line(error, field) for field in ("code", "errorCode", "category", "tag", "name")),
        failed_at=_line(error, "failedAt", "failedStep", "node") or _failed_step(row),
        step=_line(error, "step", "stepName"),
        headline=_line(error, "headline", "title"),
        message=_line(error, "raw", "message", "reason", "detail", "stack"),
        category=_line(row, "errorCategory"),
        suggestion=_line(row, "fixSuggestion"),
        started_by=short(text(row, "triggeredBy"), 30) or "unknown",
        memory_used=used / limit if used and limit and limit > 0 else 0.0,
    )


def _error(row: Row) -> Row:
    error = value(row, "error")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        inner = error.get("error")
        if isinstance(inner, dict):
            return error | inner
        return error | ({"message": inner} if inner else {})
    return {"message": error or text(row, "errorMessage", "failureReason")}


def _failed_step(row: Row) -> str:
    failed = (step for step in objects(row, "steps") if run_state(step).is_failure)
    return next((_line(step, "name", "id", "action") for step in failed), "")


def _line(row: Row, *fields: str) -> str:
    """Return the first line of the first of these fields that is a text or a number."""
    lines = text(row, *fields)[:_MAX_MESSAGE].strip().splitlines()
    return lines[0].strip() if lines else ""
