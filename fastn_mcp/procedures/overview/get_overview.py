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
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.blockers import PartState, apps_of, connection_states
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period, RunFilter, grouped, newest_first
from fastn_mcp.procedures.diagnosis.run_counts import FAILED, RunRecord, read_records
from fastn_mcp.procedures.diagnosis.stuck_runs import read_stuck_runs
from fastn_mcp.procedures.history import begins_after
from fastn_mcp.procedures.overview.account_rows import RUNS, AccountRows, problem_rows, read_account
from fastn_mcp.procedures.overview.checks import (
    ADMINISTRATORS,
    EXPIRY_NOTICE,
    KEY_CHECKS,
    PENDING_CUSTOMERS,
    UNANSWERED_INVITATIONS,
    AccountFinding,
    Severity,
    expiring_keys,
    full_quotas,
    trigger_findings,
)
from fastn_mcp.procedures.overview.findings import (
    broken_connections,
    customer_rows,
    expiring_connections,
    failing_workflows,
    stuck_runs,
    workflow_rows,
)
from fastn_mcp.procedures.overview.table import (
    MAX_CHARACTERS,
    Order,
    TableRow,
    fitting,
    ordered,
    unread_names,
)
from fastn_mcp.procedures.reads import AccountReads, RowList, unique
from fastn_mcp.records.formats import counted, stamp
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.quotas import credits_quota, plan, quotas_of
from fastn_mcp.records.rows import FastnObject, Row, connector_keys, key_of, text
from fastn_mcp.records.states import STATES, State
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


SUBJECTS: Mapping[Subject, SubjectTable] = {
    "workflows": SubjectTable((RUNS, "workflows", "triggers"), ("failed", "rate")),
    "connections": SubjectTable((FAILED, "connections", "workflows"), ("failed",)),
    "customers": SubjectTable((FAILED, "customers", "connections"), ("failed",)),
    "expiry": SubjectTable(("connections", "API keys"), ("age",)),
    "triggers": SubjectTable(("triggers", "workflows")),
    "access": SubjectTable(("users", "API keys")),
    "quotas": SubjectTable(("quotas", "billing")),
    "approvals": SubjectTable(),
}

MAX_ROWS: Mapping[Severity, int] = {Severity.HIGH: 3, Severity.MEDIUM: 2, Severity.LOW: 1}
"""Number of rows of each finding in the overview of the whole account."""

_DEFAULT_HOURS = 24
"""Hours back for runs."""

_MAX_RATES = 10
"""Number of failing workflows whose rate is read for a table, each by a request, unless the order is by rate.
In the overview of the whole account it is one."""

_EXPIRY_ROOM = 4_000
"""Maximum size of the rows about expiry in characters: what expires first is what matters."""

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
        account = await read_account(context, period, self._reads, all_connections=is_expiry)
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
        room = _EXPIRY_ROOM if self.about == "expiry" else MAX_CHARACTERS
        return rows[start : start + fitting(rows[start:], room)]

    async def _names(self, rows: Sequence[TableRow], account: AccountRows) -> dict[str, str]:
        """Return the names of the known customers, and of those of `rows` as far as few requests tell them."""
        customers = (*account.reads.rows("customers"), *account.chosen("customers").rows)
        names = {key_of(row): name_of(row) for row in customers}
        most = {None: _NAMED, "expiry": _NAMED_EXPIRING}.get(self.about, MAX_PAGES)
        unnamed = [row.customer for row in rows if row.customer and row.customer not in names]
        return names | await account.reads.read_customer_names(unnamed, most)

    async def _first_page(
        self,
        findings: Sequence[AccountFinding],
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


def _with_first_rows(subject: Subject, finding: AccountFinding, hours: int | None) -> AccountFinding:
    """Return a finding with its first rows, and the call for all of them."""
    shown = finding.rows[: MAX_ROWS[finding.severity]]
    period = {"hours": hours} if hours and {RUNS, FAILED}.intersection(SUBJECTS[subject].reads) else {}
    more = suggested(GetOverview, about=subject, **period) if len(shown) < len(finding.rows) else None
    return replace(finding, shown=shown, more=more)


async def _subject_rows(
    account: AccountRows, asked: GetOverview, broken: Sequence[PartState], *, counts_rates: bool
) -> list[TableRow] | None:
    """Return all workflows, or the customers; None about a subject whose table has the rows of its findings."""
    counts = account.counts
    waiting = account.chosen("customers")
    if asked.about in (None, "workflows"):
        failing = [group.newest.workflow for group in grouped(counts.failures, lambda run: run.workflow)]
        ran = await _records(failing, account, asked, counts_rates=counts_rates)
        triggers = account.chosen("triggers")
        starts = () if asked.about is None or triggers.more else triggers.rows
        return workflow_rows(counts, account.chosen("workflows").rows, starts, ran)
    if asked.about == "customers":
        known = account.reads.lists.get("customers", RowList())
        return customer_rows(counts, broken, waiting.rows if known.more else known.rows)
    return None


async def _findings(
    account: AccountRows, asked: GetOverview, *, counts_rates: bool
) -> tuple[list[AccountFinding], list[TableRow]]:
    """Run the checks on one subject, or all of them. Return the findings, worst first, and the rows of the table."""
    now = account.counts.period.now
    workflows = account.chosen("workflows").rows
    connections = account.chosen("connections")
    broken = _broken(connections.rows)
    table = await _subject_rows(account, asked, broken, counts_rates=counts_rates)
    findings: dict[Subject, list[AccountFinding]] = {
        "workflows": await _workflow_findings(account, table or []),
        "connections": broken_connections(
            broken,
            _fails_without(broken, account.counts.failures, workflows),
            account.counts,
            more=connections.more and connections.total is None,
        ),
        "customers": _customer_findings(account),
        "expiry": _expiry_findings(account, asked),
        "triggers": trigger_findings(account.chosen("triggers").rows, workflows, now),
        "quotas": _quota_findings(account),
        "access": _access_findings(account, asked),
    }
    selected: list[tuple[Subject, AccountFinding]] = [
        (subject, one) for subject, of in findings.items() for one in of if asked.about in (None, subject)
    ]
    selected.sort(key=lambda each: list(Severity).index(each[1].severity))
    if asked.about is None:
        return [_with_first_rows(subject, finding, asked.hours) for subject, finding in selected], []
    of_subject = [finding for _, finding in selected]
    order = asked.order or next(iter(SUBJECTS[asked.about].orders), None)
    return of_subject, ordered(_numbered(of_subject) if table is None else table, order)


def _broken(connections: Sequence[Row]) -> list[PartState]:
    states = connection_states(connections, unread_names(connections))
    return [each for each in states if not each.state.is_usable]


async def _workflow_findings(account: AccountRows, table: Sequence[TableRow]) -> list[AccountFinding]:
    """Report the workflows of `table` that fail, and the runs that hang."""
    by_id = {key_of(row): row for row in account.chosen("workflows").rows}
    stuck, has_more = await read_stuck_runs(account.counts, by_id, account.reads.look, most=0)
    has_more |= not account.counts.knows_under_way
    names = {key: name_of(row) for key, row in by_id.items()}
    return [*failing_workflows(account.counts, table), *stuck_runs(stuck, names, more=has_more)]


def _customer_findings(account: AccountRows) -> list[AccountFinding]:
    waiting = account.chosen("customers")
    pending = waiting.total if problem_rows(account.reads, "customers") else None
    return PENDING_CUSTOMERS.findings(waiting.rows, account.counts.period.now, total=pending, more=waiting.more)


def _expiry_findings(account: AccountRows, asked: GetOverview) -> list[AccountFinding]:
    """Report the connections and keys that expire. Those that renew themselves are told about only if asked for."""
    now = account.counts.period.now
    rows = unique((*account.reads.rows("connections"), *account.chosen("connections").rows))
    ahead = timedelta(hours=asked.hours) if asked.hours and asked.about == "expiry" else EXPIRY_NOTICE
    more = account.reads.has_more("connections")
    return [
        *expiring_connections(rows, now, ahead, more=more, tells=asked.about is not None),
        *expiring_keys(account.chosen("API keys").rows, now, ahead),
    ]


def _quota_findings(account: AccountRows) -> list[AccountFinding]:
    now = account.counts.period.now
    records = account.reads.records
    return [
        *full_quotas(quotas_of(records.get("quotas", {})), now),
        *full_quotas(credits_quota(records.get("billing", {})), now),
    ]


def _access_findings(account: AccountRows, asked: GetOverview) -> list[AccountFinding]:
    """Report keys and invitations that look wrong; the administrators, too, if access is asked for."""
    now = account.counts.period.now
    keys = account.chosen("API keys").rows
    users = account.chosen("users")
    findings = [each for check in KEY_CHECKS for each in check.findings(keys, now)]
    findings += UNANSWERED_INVITATIONS.findings(users.rows, now, more=users.more)
    if asked.about is not None:
        team = account.reads.rows("users")
        findings += ADMINISTRATORS.findings(team, now, more=account.reads.has_more("users"))
    return findings


def _numbered(findings: Sequence[AccountFinding]) -> list[TableRow]:
    """Return the rows of all findings, each with the number of its finding if there are several."""
    return [
        replace(row, cells={"finding": number, **row.cells} if len(findings) > 1 else row.cells)
        for number, finding in enumerate(findings, 1)
        for row in finding.rows
    ]


def _fails_without(
    connections: Sequence[PartState], failures: Sequence[EndedRun], workflows: Sequence[Row]
) -> dict[str, dict[str, int]]:
    """Return by connection the workflows whose runs failed for its customer at its app, with the number of runs."""
    setups = {key_of(row): apps_of(row) for row in workflows}
    current = {key_of(row): name_of(row) for row in workflows}
    by_customer: dict[str | None, list[EndedRun]] = {}
    for run in failures:
        by_customer.setdefault(run.customer, []).append(run)
    failing: dict[str, dict[str, int]] = {}
    for connection in connections:
        apps = connector_keys(connection.row)
        names = Counter(
            current.get(run.workflow) or run.workflow_name or run.workflow
            for run in by_customer.get(connection.customer, ())
            if run.app(setups.get(run.workflow, ())) in apps or run.blames(connection.id)
        )
        failing[connection.id] = dict(names.most_common())
    return failing


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
    for kind, state in STATES.items():
        unknown = sum(state(row) is State.UNKNOWN for row in account.chosen(kind).rows)
        if unknown:
            why = "Their status is missing or undocumented."
            gaps.append(Unchecked(counted(unknown, kind.removesuffix("s")), why))
    return {"not_checked": [gap.data() for gap in by_reason(gaps)]}
