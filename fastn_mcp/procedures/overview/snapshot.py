"""Resources read for one overview, what could not be read, and the form of a finding.

Reads by the sender it is given: about fifteen requests on a small account, about thirty on any. A row that does not say
something is never accused of it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.dependents import Unchecked
from fastn_mcp.fastn.names import name_of
from fastn_mcp.fastn.rows import Row, key_of, row_of
from fastn_mcp.fastn.states import NOT_WORKING, PENDING
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.procedures.context import Report
from fastn_mcp.tools.account import GetBilling, GetQuotas, ListApiKeys, ListSecrets, ListUsers
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.paging import List, Listed
from fastn_mcp.tools.tool import FastnObject, Tool
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows

_PAGE = 100
_PAGES = 3
"""Pages of triggers and of workflows: each row may be in trouble of its own."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Rows of a kind. `total` is how many there are where Fastn says so; `more`, whether some were not read."""

    rows: Sequence[Row] = ()
    total: int | None = None
    more: bool = False

    @property
    def count(self) -> int | str:
        """As a number, or in words where it is not known exactly."""
        if self.more:
            return f"at least {len(self.rows)}" if self.total is None else max(self.total, len(self.rows))
        return len(self.rows)


@dataclass(slots=True)
class Survey:
    """What was read, by kind. `matching` are the rows with something wrong, where the list was too long to read."""

    all: dict[str, Seen] = field(default_factory=dict[str, Seen])
    matching: dict[str, Seen] = field(default_factory=dict[str, Seen])
    answers: dict[str, dict[str, JsonValue]] = field(default_factory=dict[str, dict[str, JsonValue]])
    gaps: list[Unchecked] = field(default_factory=list[Unchecked])
    errors: list[FastnError] = field(default_factory=list[FastnError])

    def rows(self, kind: str) -> Sequence[Row]:
        """The rows to look through for trouble."""
        return self.chosen(kind).rows

    def chosen(self, kind: str) -> Seen:
        return self.matching.get(kind) or self.all.get(kind) or Seen()


async def survey(
    since: str, send: Send, report: Report, only: Collection[str] | None = None, failures: int = 1
) -> Survey:
    """Read what the overview of an account needs, or `only` some of it, with so many pages of failed runs.

    Raises a `FastnError` only where nothing at all could be read.
    """
    found = Survey()
    jobs = _jobs(found, since, send, failures)
    jobs = {what: job for what, job in jobs.items() if only is None or what in only}
    done = 0

    async def run(what: str, job: Callable[[], Awaitable[None]]) -> None:
        nonlocal done
        try:
            await job()
        except FastnError as error:
            found.gaps.append(Unchecked(what, error.what))
            found.errors.append(error)
        done += 1
        await report(f"Read {what}", done, len(jobs))

    async with anyio.create_task_group() as group:
        for what, job in jobs.items():
            group.start_soon(run, what, job)
    if len(found.errors) == len(jobs):
        raise found.errors[0]
    return found


class _SnapshotReads:
    """The reads of one survey, each of which notes what it finds. They raise a `FastnError`."""

    def __init__(self, found: Survey, send: Send) -> None:
        self._found = found
        self._send = send

    async def whole(self, kind: str, reading: Call, pages: int, *filters: Mapping[str, str]) -> None:
        """The first pages; where there are more, what Fastn finds by the filters instead."""
        found = self._found
        found.all[kind] = seen = await _read(reading, self._send, pages)
        if seen.more and filters:
            for given in filters:  # noted one by one: where the second fails, the first was read
                more = await _read(reading.model_copy(update=dict(given)), self._send)
                found.matching[kind] = _joined(found.matching.get(kind, Seen()), more)
        chosen = found.chosen(kind)
        if (chosen.more and chosen.total is None) or (seen.more and not filters):
            found.gaps.append(Unchecked(f"more {kind}", "There are more than are read for an overview."))

    async def number(self, kind: str, listing: type[List[Any]]) -> None:
        """How many there are."""
        seen = await _read(cast(Call, listing(limit=1)), self._send)
        if seen.more and seen.total is None:
            seen = await _read(cast(Call, listing(limit=_PAGE)), self._send)
        self._found.all[kind] = seen

    async def runs(self, kind: str, reading: ListExecutions, pages: int = 1) -> None:
        """The newest of these runs."""
        self._found.all[kind] = seen = await _read(reading, self._send, pages)
        if reading.limit > 1 and seen.more and len(seen.rows) < reading.limit * pages:
            why = "Fastn did not filter: of all runs, only the newest were looked through."
            self._found.gaps.append(Unchecked(f"older {kind}", why))

    async def answer(self, kind: str, reading: Call) -> None:
        """Something that is no list."""
        self._found.answers[kind] = row_of(await self._send(reading))


def _jobs(found: Survey, since: str, send: Send, failures: int) -> dict[str, Callable[[], Awaitable[None]]]:
    """One job for each thing to read, by its name for people."""
    to = _SnapshotReads(found, send)
    failed = ListExecutions(limit=_PAGE, status="failed", since=since)
    timeout = ListExecutions(limit=_PAGE, status="timeout", since=since)
    completed = ListExecutions(limit=1, status="completed", since=since)
    not_working = [{"status": status} for status in NOT_WORKING]
    return {
        "failed runs": partial(to.runs, "failed runs", failed, failures),
        "timed-out runs": partial(to.runs, "timed-out runs", timeout),
        "completed runs": partial(to.runs, "completed runs", completed),
        "the number of runs": partial(to.runs, "runs", ListExecutions(limit=1, since=since)),
        "the number of all runs": partial(to.runs, "executions", ListExecutions(limit=1)),
        "customers": partial(to.whole, "customers", ListCustomers(limit=_PAGE), 1, {"status": PENDING}),
        "connectors": partial(to.number, "connectors", ListConnectors),
        "connections": partial(to.whole, "connections", ListConnections(limit=_PAGE), 1, *not_working),
        "workflows": partial(to.whole, "workflows", ListWorkflows(limit=_PAGE), _PAGES),
        "triggers": partial(to.whole, "triggers", ListTriggers(limit=_PAGE), _PAGES),
        "users": partial(to.whole, "users", ListUsers(limit=_PAGE), 1, {"status": "Invited"}),
        "API keys": partial(to.whole, "API keys", ListApiKeys(limit=_PAGE), 1),
        "secrets": partial(to.number, "secrets", ListSecrets),
        "quotas": partial(to.answer, "quotas", GetQuotas()),
        "billing": partial(to.answer, "billing", GetBilling()),
    }


async def _read(reading: Call, send: Send, pages: int = 1) -> Seen:
    """The first pages of a list."""
    rows: list[Row] = []
    total: int | None = None
    for _ in range(pages):
        page = cast("Listed[FastnObject]", await send(reading))
        rows += [row_of(row) for row in page.items]
        total = total if page.total is None else page.total
        if page.next_cursor is None:
            return Seen(rows, total)
        reading = reading.model_copy(update={"cursor": page.next_cursor})
    return Seen(rows, total, more=True)


def _joined(one: Seen, other: Seen) -> Seen:
    """Rows of both, each once."""
    if one == Seen():
        return other
    known = {key_of(row) for row in one.rows}
    return Seen([*one.rows, *(row for row in other.rows if key_of(row) not in known)], None, one.more or other.more)


FEW = 3
"""Examples of a finding that stands among others."""


class Severity(Enum):
    """How bad it is, the worst first."""

    HIGH = "high"
    """Something does not work."""
    MEDIUM = "medium"
    """Something will stop working, or is open to the wrong people."""
    LOW = "low"
    """Something to tidy up."""


@dataclass(frozen=True, slots=True)
class Example:
    """One of the resources that a finding is about."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class AccountFinding:
    """One thing found: `what` in a sentence with numbers, and `more`, the call that shows more of it."""

    severity: Severity
    what: str
    more: Tool[Any]
    examples: tuple[Example, ...] = ()
    """All that are known."""

    def data(self, most: int = FEW) -> dict[str, JsonValue]:
        """As an agent reads it, with at most so many examples."""
        given = self.more.arguments()
        arguments = {name: value for name, value in given.items() if name in self.more.model_fields_set}
        said: dict[str, JsonValue] = {"severity": self.severity.value, "what": self.what}
        if self.examples:
            said["examples"] = [{"id": example.id, "name": example.name} for example in self.examples[:most]]
        said["more"] = {"tool": self.more.tool_name(), "arguments": arguments}
        return said


def worst_first(findings: Iterable[AccountFinding]) -> list[AccountFinding]:
    """By severity; what is equally bad stays in its order."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    """Those of these rows that have an id."""
    return tuple(Example(key_of(row), name_of(row)) for row in rows if key_of(row))
