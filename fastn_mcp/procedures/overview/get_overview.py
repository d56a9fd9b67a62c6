"""The tool `get_overview`: an overview of the account, or all of one subject in a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, JsonValue

from fastn_mcp.account.dependence import Unchecked, by_reason
from fastn_mcp.account.entries import MAX_PAGES
from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError, InvalidArgument
from fastn_mcp.procedures.checks.account_rows import RUNS, AccountRows, read_account
from fastn_mcp.procedures.checks.check import EXPIRY_NOTICE, Reading
from fastn_mcp.procedures.checks.failures import Period, RunFilter, grouped, newest_first
from fastn_mcp.procedures.checks.finding import Finding, TableRow
from fastn_mcp.procedures.checks.run_counts import FAILED, RunRecord, read_records
from fastn_mcp.procedures.checks.stuck_runs import read_stuck_runs
from fastn_mcp.procedures.checks.table import run_checks
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.history import begins_after
from fastn_mcp.procedures.overview.rows import customer_rows, workflow_rows
from fastn_mcp.procedures.overview.table import (
    MAX_CHARACTERS,
    Order,
    fitting,
    ordered,
)
from fastn_mcp.procedures.reads import AccountReads, RowList
from fastn_mcp.records.formats import counted, stamp
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.quotas import plan
from fastn_mcp.records.rows import FastnObject, key_of, text
from fastn_mcp.records.table import Table
from fastn_mcp.redaction import is_own_key, own_key_row
from fastn_mcp.tools.tool import Effect, suggested
from fastn_mcp.tools.workflows import ListExecutions

Subject = Literal["workflows", "connections", "customers", "expiry", "triggers", "access", "quotas", "approvals"]


class SubjectTable(NamedTuple):
    """What is read about a subject, and the orders of its rows beside name and age: the first is the default.

    Without a default, rows are in the order of their findings, worst first.
    """

    reads: tuple[str, ...] = ()
    orders: tuple[Order, ...] = ()
    max_characters: int = MAX_CHARACTERS
    """Maximum size of the rows of a page in characters of JSON."""


SUBJECTS: Mapping[Subject, SubjectTable] = {
    "workflows": SubjectTable((RUNS, "workflows", "triggers"), ("failed", "rate")),
    "connections": SubjectTable((FAILED, "connections", "workflows"), ("failed",)),
    "customers": SubjectTable((FAILED, "customers", "connections"), ("failed",), 8_400),
    "expiry": SubjectTable(("connections", "API keys"), ("age",), 4_000),  # what expires first is what matters
    "triggers": SubjectTable(("triggers", "workflows")),
    "access": SubjectTable(("users", "API keys")),
    "quotas": SubjectTable(("quotas", "billing")),
    "approvals": SubjectTable(),
}

_DEFAULT_HOURS = 24
"""Hours back for runs."""

_MAX_RATES = 10
"""Number of failing workflows whose rate is read for a table, each by a request, unless the order is by rate.
In the overview of the whole account it is one."""

_NAMED = 7
"""Maximum number of requests for the names of customers in the overview of the whole account."""

_NAMED_EXPIRING = 12
"""The same about expiry."""

_CURSOR = r"^\d{1,12}\.\d{1,6}$"

_MAX_ERRORS = 5

_COUNTED_LISTS = ("customers", "connectors", "connections", "workflows", "triggers", "users", "API keys", "secrets")
"""Lists whose rows are counted in an answer."""


class Overview(FastnObject):
    """Overview of an account."""

    shape = (("findings", "array"), ("not_checked", "array"))


class GetOverview(Procedure[Overview]):
    """What needs attention today: what fails, expires or is open, worst first; success rates, counts. Start here."""

    effect = Effect.READ

    about: Annotated[Subject | None, Field(description="One subject, in a table.")] = None
    order: Annotated[Order | None, Field(description="Of the table.")] = None
    hours: Annotated[
        int | None, Field(ge=1, le=720, description="Back for runs (24), ahead for expiry (336); 1-720.")
    ] = None
    cursor: Annotated[str | None, Field(description="Last next_cursor.", pattern=_CURSOR)] = None

    async def run(self, context: ProcedureContext) -> Overview:
        if self.about == "approvals":
            answer: dict[str, JsonValue] = {"now": stamp(context.system.now()), "findings": [], "not_checked": []}
            answer["guard"] = await context.guard.allowance(context.caller.asker)
            return Overview.model_validate(answer)
        self._check_order()
        is_expiry = self.about == "expiry"
        period = Period((not is_expiry and self.hours) or _DEFAULT_HOURS, context.look.snapshot.instant())
        account = await read_account(
            AccountReads(context.look), period, self._reads, all_connections=is_expiry, report=context.report
        )
        began, start = map(int, (self.cursor or "0.0").split("."))
        at = int(period.now.timestamp())
        findings, rows = await _findings(account, self, counts_rates=began != at)
        is_by_name = self.order == "name"
        first = rows if is_by_name else self._page(rows, start)
        displayed = [row for each in findings for row in each.shown] if not start else []
        names = await self._names([*displayed, *first], account)
        if is_by_name:  # which the cells lack until customers are named
            rows = _by_name(rows, names, account.reads)
        answer = {}
        if not start:
            answer = await self._first_page(findings, names, account, context)
        elif began != at:
            answer["note"] = "Read again since the first page: rows may have moved."
        if self.about is not None:
            answer |= self._table(rows, names, start, at)
        return Overview.model_validate(answer | context.look.age())

    def _check_order(self) -> None:
        """Raise `InvalidArgument` if the rows cannot be sorted as asked."""
        if self.order is not None and self.about is None:
            raise InvalidArgument("order: it sorts the table of one subject.", "Give about, too.")
        if self.order not in (None, "name", "age") and self.about and self.order not in SUBJECTS[self.about].orders:
            raise InvalidArgument(f"order: rows about {self.about} cannot be sorted by {self.order}.", "Give another.")

    def _page(self, rows: Sequence[TableRow], start: int) -> Sequence[TableRow]:
        """Return as many rows from `start` on as fit into an answer."""
        most = SUBJECTS[self.about].max_characters if self.about else MAX_CHARACTERS
        return rows[start : start + fitting(rows[start:], most)]

    async def _names(self, rows: Sequence[TableRow], account: AccountRows) -> dict[str, str]:
        """Return the names of the known customers, and of those of `rows` as far as few requests tell them."""
        customers = (*account.reads.rows("customers"), *account.chosen("customers").rows)
        names = {key_of(row): name_of(row) for row in customers}
        most = {None: _NAMED, "expiry": _NAMED_EXPIRING}.get(self.about, MAX_PAGES)
        unnamed = [row.customer for row in rows if row.customer and row.customer not in names]
        return names | await account.reads.read_customer_names(unnamed, most)

    async def _first_page(
        self,
        findings: Sequence[Finding],
        names: Mapping[str, str],
        account: AccountRows,
        context: ProcedureContext,
    ) -> dict[str, JsonValue]:
        """Return all but the table, which only later pages repeat."""
        answer: dict[str, JsonValue] = {"now": stamp(account.counts.period.now), "account": _identity(account)}
        answer |= await self._history(account)
        if note := account.counts.window_note:
            answer["failures_since"] = note
        answer["findings"] = [finding.data(names) for finding in findings]
        if self.about is None:
            answer |= await _account(account, context)
        elif self.about == "workflows":
            answer |= _runs(account)
        return answer | _not_checked(account, self)

    async def _history(self, account: AccountRows) -> dict[str, JsonValue]:
        """Return when the history of runs begins, if the period of the runs begins before it."""
        period = account.counts.period
        older = account.counts.older
        shows_runs = self._reads is None or not {RUNS, FAILED}.isdisjoint(self._reads)
        shows_runs = shows_runs and account.counts.knows_failures
        is_default = period.hours == _DEFAULT_HOURS
        if not shows_runs or older or (older is None and is_default):  # a request for a day is not worth it
            return {}
        begins = await begins_after(ListExecutions, period.begin, account.reads.look, is_empty=older == 0)
        return {} if begins is None else {"history_begins": begins.in_words(period.now)}

    def _table(self, rows: Sequence[TableRow], names: Mapping[str, str], start: int, at: int) -> dict[str, JsonValue]:
        """Return a page of the table, with the cursor of the next one."""
        page = self._page(rows, start)
        end = start + len(page)
        records = [dict.fromkeys(row.cells) | row.named(names) for row in page]
        answer: dict[str, JsonValue] = {"table": Table.of(records).to_json()}
        if end < len(rows):
            answer |= {"of": len(rows), "next_cursor": f"{at}.{end}"}
        return answer

    @property
    def _reads(self) -> tuple[str, ...] | None:
        """What is read; None for everything. Rates leave no room for what starts a workflow."""
        if self.about == "workflows" and self.order == "rate":
            return RUNS, "workflows"
        return SUBJECTS[self.about].reads if self.about else None


def _by_name(rows: Sequence[TableRow], names: Mapping[str, str], reads: AccountReads) -> list[TableRow]:
    """Sort rows by name, with the names of customers, and note a gap if some were not read."""
    unnamed = {row.customer for row in rows if row.customer} - names.keys()
    if unnamed:
        why = "They were not read, to save requests, so rows without a name are not in order."
        reads.gaps.append(Unchecked(f"names of {counted(len(unnamed), 'customer')}", why))
    return ordered([replace(row, cells=row.named(names)) for row in rows], "name")


def with_first_rows(subject: Subject, finding: Finding, hours: int | None) -> Finding:
    """Return a finding with its first rows, and the call for all of them."""
    shown = finding.first_rows
    period = {"hours": hours} if hours and {RUNS, FAILED}.intersection(SUBJECTS[subject].reads) else {}
    more = suggested(GetOverview, about=subject, **period) if len(shown) < len(finding.rows) else None
    return replace(finding, shown=shown, more=more)


async def _subject_rows(
    account: AccountRows, asked: GetOverview, reading: Reading, *, counts_rates: bool
) -> list[TableRow] | None:
    """Return all workflows, or the customers; None about a subject whose table has the rows of its findings."""
    counts = account.counts
    if asked.about in (None, "workflows"):
        failing = [group.newest.workflow for group in grouped(counts.failures, lambda run: run.workflow)]
        ran = await _records(failing, account, asked, counts_rates=counts_rates)
        triggers = reading.of("triggers")
        starts = () if asked.about is None or triggers.more else triggers.rows
        return workflow_rows(counts, reading.of("workflows").rows, starts, ran)
    if asked.about == "customers":
        known = account.reads.lists.get("customers", RowList())
        customers = reading.of("customers").rows if known.more else known.rows
        return customer_rows(reading, customers)
    return None


async def _findings(
    account: AccountRows, asked: GetOverview, *, counts_rates: bool
) -> tuple[list[Finding], list[TableRow]]:
    """Run the checks on one subject, or all of them. Return the findings, worst first, and the rows of the table."""
    ahead = timedelta(hours=asked.hours) if asked.hours and asked.about == "expiry" else EXPIRY_NOTICE
    reading = account.reading(ahead, is_whole=asked.about is None)
    table = await _subject_rows(account, asked, reading, counts_rates=counts_rates)
    failing = len({run.workflow for run in account.counts.failures})
    runs = await read_stuck_runs(account.counts, reading.of("workflows").rows, account.reads.look, most=0)
    reading = replace(reading, stuck=runs.stuck, unjudged=runs.unjudged)
    reading = replace(reading, failing=(table or [])[:failing])
    found = run_checks(reading, asked.about if asked.about != "approvals" else None)
    if asked.about is None:
        return [with_first_rows(check.subject, finding, asked.hours) for check, finding in found], []
    of_subject = [finding for _, finding in found]
    order = asked.order or next(iter(SUBJECTS[asked.about].orders), None)
    return of_subject, ordered(_numbered(of_subject) if table is None else table, order)


def _numbered(findings: Sequence[Finding]) -> list[TableRow]:
    """Return the rows of all findings, each with the number of its finding if there are several."""
    return [
        replace(row, cells={"finding": number, **row.cells} if len(findings) > 1 else row.cells)
        for number, finding in enumerate(findings, 1)
        for row in finding.rows
    ]


async def _records(
    failing: Sequence[str], account: AccountRows, asked: GetOverview, *, counts_rates: bool
) -> dict[str, RunRecord]:
    """Return how workflows ran, by id: the first failing one, and the others that take no request."""
    failures = account.counts.failures
    look = account.reads.look

    def completed(key: str) -> ListExecutions:
        return ListExecutions(workflow_id=key or None, status="completed", since=account.counts.since, limit=1)

    first = failing[:1]
    others = list[str]()
    if asked.about is not None:
        most = max(_MAX_RATES, look.affordable - _NAMED) if asked.order == "rate" else _MAX_RATES
        left_out = [key for key in failing if not look.snapshot.holds(completed(key))][most if counts_rates else 0 :]
        first = [key for key in failing if key not in left_out]
        others = [*failing, *map(key_of, account.chosen("workflows").rows)]
    wanted = {RunFilter(key): [run for run in failures if run.workflow == key] for key in first if key}
    read = await read_records(account.reads, account.counts, wanted)
    records = {which.workflow or "": record for which, record in read.items()}
    for key in dict.fromkeys(others):
        if key and key not in records and look.snapshot.holds(completed(key)):
            page = await read_page(completed(key), look)
            last = next(iter(newest_first(page.rows)), None)
            records[key] = RunRecord(RunFilter(key), completed=page.total, last_success=last)
    unread = sum(key not in records or records[key].completed is None for key in failing) if others else 0
    if unread:
        why = "Call again to continue." if asked.order == "rate" else "Each workflow takes a request: see order=rate."
        account.reads.gaps.append(Unchecked(f"run counts of {counted(unread, 'failing workflow')}", why))
    return records


async def _account(account: AccountRows, context: ProcedureContext) -> dict[str, JsonValue]:
    """Return totals, plan and what the guard still allows."""
    reads = account.reads
    counts = dict[str, JsonValue]()
    for kind in filter(reads.lists.__contains__, _COUNTED_LISTS):
        total = reads.total(kind)
        counts[kind.replace(" ", "_").lower()] = f"at least {len(reads.rows(kind))}" if total is None else total
    ever = account.counts.ever
    if ever is not None:
        counts["executions"] = ever
    facts = {"runs": _run_totals(account), "counts": counts, "plan": plan(reads.records.get("billing", {}))}
    answer: dict[str, JsonValue] = {name: fact for name, fact in facts.items() if fact or name == "counts"}
    try:
        allowance = await context.guard.allowance(context.caller.asker)
        answer["guard"] = {name: item for name, item in allowance.items() if name != "decided"}
    except FastnError as error:
        reads.gaps.append(Unchecked("budgets", error.what))
    return answer


def _run_totals(account: AccountRows) -> dict[str, JsonValue]:
    """Return the run totals of the period. Records a gap if they are not plausible."""
    totals = account.counts.totals
    if not totals:
        account.reads.gaps.append(Unchecked("success rate", "Fastn gives no totals that certainly cover this period."))
        return {}
    return {"hours": account.counts.period.hours, **totals}


def _runs(account: AccountRows) -> dict[str, JsonValue]:
    """Return the totals and the most frequent errors of the runs."""
    totals = _run_totals(account)
    errors = Counter(run.reason for run in account.counts.failures if run.reason)
    top: list[JsonValue] = [{"error": why, "runs": count} for why, count in errors.most_common(_MAX_ERRORS)]
    return {"top_errors": top, **({"runs": totals} if totals else {})}


def _identity(account: AccountRows) -> dict[str, JsonValue]:
    """Return the account and the key of this server, with its id, and its permissions if the keys that it may be
    agree."""
    settings = account.reads.look.settings
    rows = account.reads.rows("API keys")
    own = own_key_row(settings.api_key, rows)
    same = [row for row in rows if is_own_key(settings.api_key, row)] if own is None else [own]
    presets = {text(row, "permissions.preset", "permissions", "preset") for row in same} - {""}
    facts: dict[str, JsonValue] = {} if own is None else {"key_id": key_of(own)}
    return {**settings.identity, **facts, **({"permissions": presets.pop()} if len(presets) == 1 else {})}


def _not_checked(account: AccountRows, asked: GetOverview) -> dict[str, JsonValue]:
    """Return the gaps and unknown states, grouped by reason."""
    gaps = account.reads.all_gaps()
    connections = account.reads.lists.get("connections", RowList())
    if asked.about == "expiry":
        gaps.append(Unchecked("secrets", "Fastn stores no expiry for them."))
    elif asked.about is None and connections.more:
        gaps.append(Unchecked("expiry of more connections", "See get_overview about expiry."))
    gaps += account.unknown_states()
    return {"not_checked": [gap.data() for gap in by_reason(gaps)]}
