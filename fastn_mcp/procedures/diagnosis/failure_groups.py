"""Failed runs grouped by cause: same code, step and message apart from ids and numbers.

Nothing is known of an error's shape, so each part of it may be missing, or the whole be a text.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fastn_mcp.fastn.rows import Row, number, objects, owner_of, short, text, timestamp, value, word
from fastn_mcp.fastn.states import RunState, run_state

_LONGEST = 500
"""Characters of a message that are looked at."""

_HEADLINE = ("headline", "title")
_MESSAGE = ("raw", "message", "reason", "detail", "stack")
"""Fields of an error, the most telling first."""

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
class Failure:
    """One run that failed, as far as its row says why."""

    execution: str
    at: datetime | None
    status: str
    timed_out: bool
    code: str
    """Code, category and tag, as they are."""
    failed_at: str
    step: str
    headline: str
    message: str
    """The first line of it."""
    category: str
    suggestion: str
    """How to mend it, in Fastn's words."""
    customer: str | None
    memory_used: float
    """Share of the memory limit, 0 where it is not known."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it has in common with the others of the same cause."""
        return (self.code or self.category or self.status, self.failed_at, normalised(self.message or self.headline))

    @property
    def text(self) -> str:
        """All that it says, for a look at what it speaks of."""
        return f"{self.category} {self.code} {self.failed_at} {self.headline} {self.message}".casefold()


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The failures of one cause, newest first."""

    failures: tuple[Failure, ...]

    @property
    def newest(self) -> Failure:
        return self.failures[0]

    @property
    def first_seen(self) -> datetime | None:
        return min((failure.at for failure in self.failures if failure.at), default=None)

    @property
    def last_seen(self) -> datetime | None:
        return max((failure.at for failure in self.failures if failure.at), default=None)

    @property
    def customers(self) -> list[str]:
        """Ids of the customers concerned, the most concerned first."""
        return [key for key, _ in Counter(f.customer for f in self.failures if f.customer).most_common()]


def grouped(failures: Iterable[Failure]) -> list[FailureGroup]:
    """The causes, the most frequent first."""
    found: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.key, []).append(failure)
    return sorted((FailureGroup(tuple(same)) for same in found.values()), key=lambda cause: -len(cause.failures))


def normalised(message: str) -> str:
    """A message without what differs from run to run."""
    return " ".join(_VARYING.sub("…", message).split())


def failed_at(row: Row) -> datetime | None:
    """When a run failed, or else when it began."""
    return timestamp(row, "createdAt", "startedAt", "completedAt", "timestamp")


def failed_why(row: Row) -> str:
    """Why a run failed, in Fastn's words; empty where it does not say."""
    error = _error(row)
    said = _line(error, *_HEADLINE) or _line(error, *_MESSAGE) or _line(error, "code")
    if not said and run_state(row) is RunState.TIMED_OUT:
        said = "it took too long"
    return short(said, 120).rstrip(".")


def failure(row: Row) -> Failure:
    """A run as a failure."""
    error = _error(row)
    used, limit = number(row, "summary.peakSandboxMB"), number(row, "summary.sandboxMemoryLimitMB")
    return Failure(
        execution=text(row, "id"),
        at=failed_at(row),
        status=word(row, "status"),
        timed_out=run_state(row) is RunState.TIMED_OUT,
        code=" ".join(filter(None, (_line(error, name) for name in ("code", "errorCode", "category", "tag", "name")))),
        failed_at=_line(error, "failedAt", "failedStep", "node") or _failed_step(row),
        step=_line(error, "step", "stepName"),
        headline=_line(error, *_HEADLINE),
        message=_line(error, *_MESSAGE),
        category=_line(row, "errorCategory"),
        suggestion=_line(row, "fixSuggestion"),
        customer=owner_of(row),
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
    for step in objects(row, "steps"):
        if run_state(step).is_failure:
            return _line(step, "name", "id", "action")
    return ""


def _line(row: Row, *fields: str) -> str:
    """The first line of the first of these fields that is a text or a number."""
    lines = text(row, *fields)[:_LONGEST].strip().splitlines()
    return lines[0].strip() if lines else ""
