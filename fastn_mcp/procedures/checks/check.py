"""What a check is: it finds one kind of problem in the rows that were read, for overview and diagnosis alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from fastn_mcp.procedures.checks.finding import Cells, Finding, Severity, TableRow
from fastn_mcp.procedures.checks.run_counts import RunCounts
from fastn_mcp.procedures.checks.stuck_runs import StuckRun
from fastn_mcp.procedures.reads import RowList
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.quotas import Quota
from fastn_mcp.records.rows import Row, key_of, owner_of
from fastn_mcp.tools.paging import created

Subject = Literal["workflows", "connections", "customers", "expiry", "triggers", "quotas", "access"]

Entries = Literal["causes", "stuck_runs", "connections", "triggers"]

EXPIRY_NOTICE = timedelta(days=14)
"""Time before its expiry in which a key or a connection is reported."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What checks look at: the rows of an account, or of what the subject of a diagnosis depends on."""

    counts: RunCounts
    lists: Mapping[str, RowList] = field(default_factory=dict[str, RowList])
    """Rows by kind, as far as they were read."""
    totals: Mapping[str, int] = field(default_factory=dict[str, int])
    """Fastn's number of the rows that a check is about, by kind."""
    quotas: Sequence[Quota] = ()
    """The fullest first."""
    credits: Sequence[Quota] = ()
    """AI credits as a quota, if the billing record tells them."""
    stuck: Sequence[StuckRun] = ()
    """The longest first."""
    unjudged: Sequence[StuckRun] = ()
    """Runs under way of which it was not read how long they usually take, the longest first."""
    failing: Sequence[TableRow] = ()
    """A row for each workflow of a failed run, the one with most failed runs first."""
    fails_without: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """By id of a connection: the names of the workflows that fail because of it, with their failed runs."""
    causes: Mapping[tuple[str, str | None], str] = field(default_factory=dict[tuple[str, str | None], str])
    """Why the runs of a workflow for a customer fail, as far as they were read."""
    ahead: timedelta = EXPIRY_NOTICE
    """How far ahead expiry is reported."""
    is_whole: bool = True
    """Whether it is about the whole account, where only what needs attention is reported."""

    @property
    def now(self) -> datetime:
        return self.counts.period.now

    def of(self, kind: str) -> RowList:
        return self.lists.get(kind, RowList())


@dataclass(frozen=True, slots=True)
class AccountCheck:
    """An entry of the table of checks."""

    name: str
    subject: Subject
    """The subject of an overview that it belongs to."""
    find: Callable[[Reading], Sequence[Finding]]
    entries: Entries | None = None
    """The entries of a diagnosis of one subject that say what it finds; None if they are its findings."""


_ONE = {"is_": "is", "was": "was", "has": "has", "its": "its", "it": "it", "they": "it", "s": "s"}
_MANY = {"is_": "are", "was": "were", "has": "have", "its": "their", "it": "them", "they": "they", "s": ""}
"""Words of a finding on one row, and on several."""


def no_detail(*_: object) -> str:
    return ""


def no_cells(*_: object) -> Cells:
    return {}


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A problem that the rows of one kind can have: whether a row has it, what to say of it, and what helps.

    In `sentence`, `{rows}` is the number of rows with the noun, and `{detail}` what `detail` returns for the rows. In
    it and in `fix`, the words of `_ONE` are replaced by words of `_MANY` if there are several rows. A row with a
    missing field never has the problem.
    """

    name: str
    kind: str
    """The list that it reads."""
    severity: Severity
    noun: str
    applies: Callable[[Row, datetime], bool]
    sentence: str
    fix: str = ""
    detail: Callable[[Sequence[Row], datetime], str] = no_detail
    problem: Callable[[Row, datetime], str] = no_detail
    """What a row's problem is, as a clause; empty if the sentence says all of it."""
    label: Callable[[Row], str] = name_of
    cells: Callable[[Row, Reading], Cells] = no_cells
    """Further cells of a row."""
    at: Callable[[Row], datetime | None] = created
    """What rows are ordered by in time."""

    @property
    def has_problem(self) -> bool:
        """Whether it says what a row's problem is, so that the row can say it by itself."""
        return self.problem is not no_detail

    def find(self, reading: Reading) -> list[Finding]:
        """Return a finding if any row has the problem."""
        rows = reading.of(self.kind)
        total = reading.totals.get(self.kind)
        affected = [row for row in rows.rows if self.applies(row, reading.now)]
        if not affected:
            return []
        table = [self._row(row, reading) for row in affected if key_of(row)]
        count = counted(total or len(affected), self.noun, at_least=rows.more and total is None)
        words = _ONE if (total or len(affected)) == 1 else _MANY
        what = self.sentence.format(rows=count, detail=self.detail(affected, reading.now), **words)
        return [Finding(self.severity, sentence(what), self.fix.format(**words), rows=table)]

    def _row(self, row: Row, reading: Reading) -> TableRow:
        cells = {"id": key_of(row), "name": self.label(row)} | self.cells(row, reading)
        return TableRow(cells, at=self.at(row), customer=owner_of(row))


class Problem(NamedTuple):
    """What is wrong with one row; both are empty if nothing is."""

    what: str = ""
    """A clause."""
    fix: str = ""
    """What helps."""


def first_problem(checks: Sequence[RowCheck], row: Row, now: datetime) -> Problem:
    """Return the first problem that one of the checks finds in a row."""
    for check in checks:
        if check.applies(row, now) and (what := check.problem(row, now)):
            return Problem(what, check.fix.format(**_ONE))
    return Problem()
