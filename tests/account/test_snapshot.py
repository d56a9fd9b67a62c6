"""Tests of the snapshot: what is answered without a request, how old it is, and what invalidates it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from support.clock import Clock
from support.row_source import HIDES, RowSource, run, runs, stamp

from fastn_mcp.account import snapshot as module
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.client.reads import read_pages
from fastn_mcp.errors import Failed
from fastn_mcp.tools.access import ListUsers
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import GetCustomer, ListCustomers
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import List, Position
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetExecution, ListExecutions, ListWorkflows

MAX_AGE = 90.0
HUNDRED = ListExecutions(limit=100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def snapshot(clock: Clock) -> AccountSnapshot:
    return AccountSnapshot(clock.system(), MAX_AGE)


async def read(snapshot: AccountSnapshot, call: Operation[Any], source: Any) -> Any:
    """Return the result of one read, for an answer of its own."""
    result, _ = await snapshot.for_answer().read(call, source)
    return result


async def read_whole(snapshot: AccountSnapshot, call: List[Any], source: Any, pages: int = 30) -> None:
    await read_pages(call, partial(read, snapshot, source=source), pages)


def stored_rows(snapshot: AccountSnapshot, listing: List[Any]) -> Sequence[Any]:
    stored = snapshot.stored(listing)
    return stored.prefix.rows if stored else ()


def offset(number: int) -> str:
    return Position(offset=number).encode()


def many_runs(number: int = 250) -> list[dict[str, Any]]:
    """Return runs of two workflows and three customers, one a minute. Every seventh failed."""
    return [
        run(
            n,
            status="completed" if n % 7 else "failed",
            workflowId=f"wf_{n % 2}",
            endOrgId=f"c{n % 3}",
            triggeredBy="webhook" if n % 5 else "scheduler",
        )
        for n in range(number)
    ]


async def derives(snapshot: AccountSnapshot, call: List[Any], source: RowSource) -> bool:
    """Read a list that the snapshot may derive, and return whether it did. It must be what Fastn answers."""
    direct, before = replace(source, has_totals=True).page(call), len(source.calls)
    answer = await read(snapshot, call, source)
    assert answer.rows == direct.rows
    assert answer.total in (None, direct.total)
    assert answer.not_checked == direct.not_checked
    if answer.total is not None:
        assert (answer.next_cursor is None) == (direct.next_cursor is None)
    return len(source.calls) == before


async def test_equal_read_is_answered_once_a_period(snapshot: AccountSnapshot, clock: Clock) -> None:
    source = runs(*many_runs())
    readings = [HUNDRED, ListWorkflows(), ListUsers(), GetCustomer(customer_id="a")]
    for reading in readings:
        first = await read(snapshot, reading, source)
        clock.pass_(1)
        assert await read(snapshot, reading, source) is first
    assert source.calls == readings


async def answering(call: Operation[Any]) -> Any:
    return call.result({"data": {"id": "one"}})


NARROWER: list[dict[str, Any]] = [
    {},
    {"limit": 20},
    {"limit": 1},
    {"limit": 100, "cursor": offset(100)},
    {"limit": 30, "cursor": offset(45)},
    {"limit": 30, "cursor": offset(240)},
    {"limit": 100, "cursor": offset(1_000)},
    {"status": "failed"},
    {"status": "Failed", "limit": 100},
    {"status": "cancelled"},
    {"status": "failed", "limit": 5, "cursor": offset(20)},
    {"customer_id": "c1", "limit": 3},
    {"workflow_id": "wf_1", "customer_id": "c2", "status": "failed"},
    {"started_by": "scheduler"},
    {"since": stamp(10), "limit": 1},
    {"until": stamp(200), "limit": 100},
    {"since": stamp(120), "until": stamp(30), "status": "completed", "limit": 100},
    {"since": "2030-01-01"},
]


@pytest.mark.parametrize("has_cursors", [True, False])
async def test_narrower_list_comes_from_the_whole_one(snapshot: AccountSnapshot, has_cursors: bool) -> None:
    source = runs(*many_runs(), has_cursors=has_cursors)
    await read_whole(snapshot, HUNDRED, source)
    assert len(source.calls) == 3
    for call in map(ListExecutions.model_validate, NARROWER):
        assert await derives(snapshot, call, source), call
        assert (await read(snapshot, call, source)).total == source.page(call).total


@pytest.mark.parametrize(
    ("operation", "rows", "narrower"),
    list[tuple[type[List[Any]], list[dict[str, Any]], dict[str, Any]]]([
        (ListCustomers, [{"id": "a", "status": "Active"}, {"id": "b", "status": "Invited"}], {"status": "Active"}),
        (ListConnections, [{"id": "1", "connectorId": "x"}, {"id": "2", "connectorId": "y"}], {"connector_id": "x"}),
        (ListConnections, [{"id": "1", "endOrgId": None}, {"id": "2", "endOrgId": "c"}], {"customer_id": "c"}),
        (ListWorkflows, [{"id": "w", "connectors": [{"slug": "x"}]}, {"id": "v", "connectors": []}],
         {"connector_id": "x"}),
        (ListTriggers, [{"id": "t", "routes": [{"routeId": "w"}]}, {"id": "s", "routes": []}], {"workflow_id": "w"}),
    ]),
)  # fmt: skip
async def test_filters_of_other_kinds_are_derived_too(
    snapshot: AccountSnapshot, operation: type[List[Any]], rows: list[dict[str, Any]], narrower: dict[str, Any]
) -> None:
    source = RowSource({operation: rows})
    await read_whole(snapshot, operation(limit=100), source)
    call = operation.model_validate(narrower)
    assert len(source.page(call).rows) == 1
    assert await derives(snapshot, call, source)


async def test_list_by_one_filter_answers_the_narrower_ones_only(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    await read_whole(snapshot, ListExecutions(status="failed", since=stamp(100), limit=100), source)
    for narrower in (ListExecutions(since=stamp(100)), ListExecutions(since=stamp(50), workflow_id="wf_1")):
        assert await derives(snapshot, narrower.model_copy(update={"status": "failed"}), source)
    for other in (ListExecutions(status="failed"), ListExecutions(status="failed", since=stamp(101))):
        assert not await derives(snapshot, other, source)
    assert not await derives(snapshot, ListExecutions(since=stamp(100)), source)


async def test_newest_rows_that_cover_a_period_answer_for_it(snapshot: AccountSnapshot) -> None:
    """The 100th run is of 99 minutes ago."""
    source = runs(*many_runs())
    await read(snapshot, HUNDRED, source)
    whole = ListExecutions(since=stamp(98))
    for narrower in ({}, {"status": "failed"}, {"customer_id": "c1", "limit": 1}, {"until": stamp(20)}):
        assert await derives(snapshot, whole.model_copy(update=narrower), source)
    assert not await derives(snapshot, ListExecutions(since=stamp(99)), source), "others may be as old"
    for limit in (1, 20):
        call = ListExecutions(since=stamp(150), status="failed", limit=limit)
        assert not await derives(snapshot, call, source), "their number is wanted too"


async def test_total_of_newest_rows_is_fastns(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    await read(snapshot, HUNDRED, source)
    call = ListExecutions(limit=2)
    assert await derives(snapshot, call, source)
    assert (await read(snapshot, call, source)).total == 250


async def test_number_of_older_runs_is_that_of_all_less_the_newer(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    await read(snapshot, HUNDRED, source)
    call = ListExecutions(until=stamp(60), limit=1)
    assert await derives(snapshot, call, source)
    assert (await read(snapshot, call, source)).total == 250 - 61
    assert not await derives(snapshot, ListExecutions(until=stamp(99), limit=1), source), "none of them was read"
    assert not await derives(snapshot, ListExecutions(until=stamp(60), status="failed", limit=3), source)


async def test_newest_run_of_a_filter_is_known_without_their_number(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    await read(snapshot, HUNDRED, source)
    for limit in (1, 2):
        call = ListExecutions(status="failed", limit=limit)
        assert await derives(snapshot, call, source)
        assert (await read(snapshot, call, source)).total is None
    assert not await derives(snapshot, ListExecutions(status="failed", limit=3), source)
    assert not await derives(snapshot, ListExecutions(status="cancelled", limit=1), source)
    assert not await derives(snapshot, ListExecutions(status="failed", limit=2, cursor=offset(14)), source)


async def test_page_is_known_by_its_offset_and_by_its_cursor(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs(), has_cursors=True)
    first = await read(snapshot, HUNDRED, source)
    second = await read(snapshot, HUNDRED.model_copy(update={"cursor": offset(100)}), source)
    assert first.next_cursor not in (None, offset(100))
    by_cursor = HUNDRED.model_copy(update={"cursor": first.next_cursor})
    assert await read(snapshot, by_cursor, source) is second
    assert len(source.calls) == 2


@pytest.mark.parametrize("search", [None, "acme"])
async def test_customer_of_a_list_needs_no_read_of_its_own(snapshot: AccountSnapshot, search: str | None) -> None:
    source = RowSource({ListCustomers: [{"id": "a", "name": "Acme", "plan": "Free"}]})
    await read(snapshot, ListCustomers(limit=100, search=search), source)
    customer = await read(snapshot, GetCustomer(customer_id="a"), source)
    assert customer.model_dump(exclude_unset=True) == {"id": "a", "name": "Acme", "plan": "Free"}
    assert source.counts() == {"list_customers": 1}
    await read(snapshot, GetCustomer(customer_id="b"), source)
    assert source.counts() == {"list_customers": 1, "get_customer": 1}


async def test_search_is_never_derived(snapshot: AccountSnapshot) -> None:
    """What Fastn searches is not documented."""
    source = RowSource({ListCustomers: [{"id": "a", "name": "Acme"}]})
    await read_whole(snapshot, ListCustomers(limit=100), source)
    assert not await derives(snapshot, ListCustomers(search="acme"), source)
    assert await derives(snapshot, ListCustomers(search="acme"), source), "it is kept"


@pytest.mark.parametrize("hidden", ["status", "createdAt"])
async def test_rows_that_do_not_tell_are_left_to_fastn(snapshot: AccountSnapshot, hidden: str) -> None:
    rows = many_runs(20)
    rows[5][HIDES] = (hidden,)
    source = runs(*rows)
    await read_whole(snapshot, HUNDRED, source)
    call = ListExecutions(status="failed") if hidden == "status" else ListExecutions(since=stamp(10))
    assert not await derives(snapshot, call, source)
    assert await derives(snapshot, ListExecutions(customer_id="c1"), source)


@pytest.mark.parametrize("last_minutes", [0.5, None])
async def test_rows_in_another_order_cover_no_period(snapshot: AccountSnapshot, last_minutes: float | None) -> None:
    rows = many_runs()
    rows[50] |= {HIDES: ("createdAt",)} if last_minutes is None else {"createdAt": stamp(last_minutes)}
    source = runs(*rows)
    await read(snapshot, HUNDRED, source)
    assert not await derives(snapshot, ListExecutions(since=stamp(60), limit=100), source)
    assert not await derives(snapshot, ListExecutions(until=stamp(60), limit=1), source)
    assert not await derives(snapshot, ListExecutions(status="failed", limit=1), source)


async def test_rows_beyond_a_gap_do_not_count(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    for cursor in (None, offset(200)):
        await read(snapshot, HUNDRED.model_copy(update={"cursor": cursor}), source)
    assert len(stored_rows(snapshot, HUNDRED)) == 100
    assert snapshot.pages_left(HUNDRED) == 2
    assert not await derives(snapshot, ListExecutions(customer_id="c1"), source)
    await read(snapshot, HUNDRED.model_copy(update={"cursor": offset(100)}), source)
    assert (len(stored_rows(snapshot, HUNDRED)), snapshot.pages_left(HUNDRED)) == (250, 0)
    assert await derives(snapshot, ListExecutions(customer_id="c1", limit=7), source)


async def test_page_that_fastn_did_not_filter_is_not_taken_for_a_list(snapshot: AccountSnapshot) -> None:
    rows = many_runs(20)
    rows[0][HIDES] = ("status",)
    source = runs(*rows, is_filtering=False)
    page = await read(snapshot, ListExecutions(status="failed", limit=100), source)
    assert page.not_checked == ["status"]
    assert not await derives(snapshot, ListExecutions(status="failed", limit=50), source)
    assert stored_rows(snapshot, ListExecutions(status="failed", limit=100)) == ()


async def test_list_without_totals_is_whole_once_its_last_page_was_read(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs(150), has_totals=False, has_cursors=True)
    first = await read(snapshot, HUNDRED, source)
    assert snapshot.pages_left(HUNDRED) is None
    assert not await derives(snapshot, ListExecutions(customer_id="c1", limit=9), source)
    assert await derives(snapshot, ListExecutions(since=stamp(60), limit=9), source)
    await read(snapshot, HUNDRED.model_copy(update={"cursor": first.next_cursor}), source)
    call = ListExecutions(customer_id="c2", limit=9)
    assert await derives(snapshot, call, source)
    assert (await read(snapshot, call, source)).total == 50


@pytest.mark.parametrize("has_cursors", [True, False])
@pytest.mark.parametrize("number", [1, 10])
async def test_rows_that_were_removed_while_pages_were_read_leave_a_gap(
    snapshot: AccountSnapshot, has_cursors: bool, number: int
) -> None:
    """The last page was read and the total matches, though one row was removed and another one was missed."""
    source = runs(*many_runs(), has_cursors=has_cursors)
    await read(snapshot, HUNDRED, source)
    source.rows[ListExecutions] = many_runs()[number:]
    await read_whole(snapshot, HUNDRED, source)
    assert len(stored_rows(snapshot, HUNDRED)) == 100
    assert not await derives(snapshot, ListExecutions(customer_id="c1"), source)
    assert not await derives(snapshot, ListExecutions(since=stamp(150)), source)


@pytest.mark.parametrize("has_totals", [True, False])
async def test_rows_that_were_added_while_pages_were_read_are_not_known_yet(
    snapshot: AccountSnapshot, has_totals: bool
) -> None:
    """The answer is that of the time at which the first page was read."""
    source = runs(*many_runs(), has_totals=has_totals)
    before = replace(source, rows={**source.rows}, has_totals=True)
    await read(snapshot, HUNDRED, source)
    source.rows[ListExecutions] = [run(999, -1, endOrgId="c1"), *many_runs()]
    await read_whole(snapshot, HUNDRED, source)
    assert len(stored_rows(snapshot, HUNDRED)) == 250
    for call in (ListExecutions(customer_id="c1"), ListExecutions(until=stamp(20)), ListExecutions(limit=3)):
        assert (await read(snapshot, call, source)).rows == before.page(call).rows
        assert (await read(snapshot, call, source)).total == before.page(call).total
    assert len(source.calls) == 3


async def test_row_that_was_added_to_a_later_page_is_known(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs(150))
    await read(snapshot, HUNDRED, source)
    source.rows[ListExecutions] = [*many_runs(150), run(999, 151)]
    await read_whole(snapshot, HUNDRED, source)
    assert await derives(snapshot, ListExecutions(until=stamp(149)), source)
    assert await derives(snapshot, ListExecutions(workflow_id="wf_1"), source)


async def at_once(snapshot: AccountSnapshot, call: Operation[Any], source: Any, count: int) -> list[Any]:
    """Read so many times at once, while each request takes a while. Return the results and the errors in words."""
    outcomes: list[Any] = []

    async def slow(call: Operation[Any]) -> Any:
        await anyio.wait_all_tasks_blocked()
        return await source(call)

    async def one() -> None:
        try:
            outcomes.append(await read(snapshot, call, slow))
        except Failed as error:
            outcomes.append(error.what)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return outcomes


@pytest.mark.parametrize("call", [HUNDRED, ListUsers(), GetCustomer(customer_id="a")])
async def test_equal_reads_under_way_are_made_once(snapshot: AccountSnapshot, call: Operation[Any]) -> None:
    source = runs(*many_runs())
    answers = await at_once(snapshot, call, source, 5)
    assert (len(answers), len(source.calls)) == (5, 1)
    assert all(answer == answers[0] for answer in answers)


async def test_failed_read_is_not_kept_and_those_that_wait_try_themselves(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs(), error=Failed("Fastn answered 500."))
    failed, *answers = await at_once(snapshot, HUNDRED, source, 3)
    assert (failed, [len(answer.rows) for answer in answers]) == ("Fastn answered 500.", [100, 100])
    assert len(source.calls) == 3  # those that waited read for themselves, not one after another


async def test_cancelled_read_leaves_the_others_their_answer(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    answers: list[Any] = []

    async def one() -> None:
        answers.append(await read(snapshot, HUNDRED, source))

    async def never(_: Operation[Any]) -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as cancelled:
            async with anyio.create_task_group() as first:
                first.start_soon(read, snapshot, HUNDRED, never)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(one)
                await anyio.wait_all_tasks_blocked()
                cancelled.cancel()
    assert (len(answers), len(source.calls)) == (1, 1)


READS: list[Operation[Any]] = [
    ListCustomers(limit=100),
    ListConnectors(),
    ListConnections(limit=100),
    *(
        OPERATIONS[f"list_{name}"].model_validate({"limit": 100})
        for name in ("workflows", "triggers", "executions", "users", "roles", "api_keys", "secrets")
    ),
    *(OPERATIONS[name]() for name in ("get_billing", "get_usage", "get_quotas", "query_audit_log")),
]

STALE: dict[str, set[str]] = {
    "customers": {"customers", "connections", "secrets", "triggers", "executions"},
    "connectors": {"connectors", "connections", "triggers", "workflows"},
    "connections": {"connections", "triggers"},
    "workflows": {"workflows", "triggers", "executions"},
    "triggers": {"triggers", "executions"},
    "executions": {"executions"},
    **{name: {name} for name in ("users", "roles", "api_keys", "secrets")},
    "billing": set(),
    "audit": set(),
    "ai": {reading.toolset() for reading in READS},
}
"""What a change makes stale besides billing and the audit log, as Fastn's reference has it: deletions cascade."""


@pytest.mark.parametrize("toolset", sorted({operation.toolset() for operation in OPERATIONS.values()}))
async def test_change_drops_its_kind_and_what_depends_on_it(snapshot: AccountSnapshot, toolset: str) -> None:
    for reading in READS:
        await read(snapshot, reading, answering)
    assert all(map(snapshot.holds, READS))
    snapshot.forget(toolset)
    dropped = {reading.toolset() for reading in READS if not snapshot.holds(reading)}
    assert dropped == STALE[toolset] | {"billing", "audit"}


async def test_read_that_a_change_overtook_is_not_kept(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs(), meanwhile=lambda: snapshot.forget("workflows"))
    await read(snapshot, HUNDRED, source)
    await read(snapshot, ListUsers(), source)
    assert snapshot.holds(ListUsers())
    assert not snapshot.holds(HUNDRED)


async def test_those_that_wait_for_an_overtaken_read_read_anew(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs(3))

    async def overtaken(call: Operation[Any]) -> Any:
        page = source.page(HUNDRED)
        source.calls.append(call)
        if len(source.calls) == 1:
            source.rows[ListExecutions] = many_runs(2)
            snapshot.forget("executions")
        return page

    answers = await at_once(snapshot, HUNDRED, overtaken, 3)
    assert sorted(len(answer.rows) for answer in answers) == [2, 2, 3]
    assert len(source.calls) == 3


async def test_later_page_after_a_change_does_not_continue_what_was_dropped(snapshot: AccountSnapshot) -> None:
    source = runs(*many_runs())
    await read(snapshot, HUNDRED, source)
    snapshot.forget("executions")
    second = HUNDRED.model_copy(update={"cursor": offset(100)})
    await read(snapshot, second, source)
    assert stored_rows(snapshot, HUNDRED) == ()
    assert snapshot.holds(second)


async def test_rows_are_kept_for_the_maximum_age(snapshot: AccountSnapshot, clock: Clock) -> None:
    source = RowSource({ListCustomers: [{"id": "a"}]})
    await read(snapshot, ListCustomers(limit=100), source)
    await read(snapshot, ListUsers(), source)
    clock.pass_(MAX_AGE - 1)
    assert snapshot.for_answer().holds(ListCustomers(limit=100))
    assert snapshot.for_answer().holds(ListUsers())
    clock.pass_(1)
    assert not snapshot.for_answer().holds(ListCustomers(limit=100))
    assert not snapshot.for_answer().holds(ListUsers())
    assert snapshot.size == 0


async def test_list_is_as_old_as_its_first_page(snapshot: AccountSnapshot, clock: Clock) -> None:
    source, begun = runs(*many_runs(), meanwhile=lambda: clock.pass_(5)), clock.at.timestamp()
    await read(snapshot, HUNDRED, source)
    clock.pass_(60)
    await read_whole(snapshot, HUNDRED, source)
    assert (await snapshot.read(ListExecutions(limit=1), source))[1] == begun
    clock.pass_(begun + 90 - clock.at.timestamp())
    assert not snapshot.for_answer().holds(HUNDRED)


async def test_without_age_each_answer_reads_anew_and_once(clock: Clock) -> None:
    off, source = AccountSnapshot(clock.system(), 0), runs(*many_runs())
    for _ in range(2):
        of_answer = off.for_answer()
        for _ in range(2):
            await of_answer.read(HUNDRED, source)
    assert len(source.calls) == 2
    assert off.size == 0


@pytest.mark.parametrize(("minutes", "is_kept"), [(0, False), (4.8, False), (5, True), (600, True)])
async def test_run_under_way_is_read_again_soon_unless_it_takes_long(
    snapshot: AccountSnapshot, clock: Clock, minutes: float, is_kept: bool
) -> None:
    """All runs are dropped together, as their numbers must agree."""
    source = runs(run(1, minutes, "running"), *many_runs()[11:])
    await read(snapshot, HUNDRED, source)
    await read(snapshot, ListExecutions(status="failed", limit=50), source)
    await read(snapshot, ListUsers(), source)
    begun = snapshot.instant()
    clock.pass_(4)
    assert snapshot.for_answer().holds(HUNDRED)
    clock.pass_(1)
    assert snapshot.for_answer().holds(HUNDRED) == is_kept
    assert snapshot.holds(ListExecutions(status="failed", limit=50)) == is_kept
    assert snapshot.holds(ListUsers())
    assert (snapshot.instant() == begun) == is_kept


@pytest.mark.parametrize("days", [-400, 1])
async def test_age_is_not_that_of_a_clock_that_jumps(clock: Clock, days: int) -> None:
    jumped = timedelta()
    system = clock.system()
    snapshot = AccountSnapshot(replace(system, now=lambda: system.now() + jumped), MAX_AGE)
    source = runs(run(1, 0, "running"), *many_runs()[1:])
    await read(snapshot, ListUsers(), source)
    await read(snapshot, HUNDRED, source)
    jumped = timedelta(days=days)
    clock.pass_(4)
    assert snapshot.for_answer().holds(HUNDRED)
    clock.pass_(85)
    assert snapshot.for_answer().holds(ListUsers())
    clock.pass_(1)
    assert not snapshot.for_answer().holds(ListUsers())
    assert not snapshot.holds(HUNDRED)


async def test_periods_of_answers_that_share_runs_end_together(snapshot: AccountSnapshot, clock: Clock) -> None:
    begun = snapshot.for_answer().instant()
    clock.pass_(MAX_AGE - 1)
    assert snapshot.for_answer().instant() == begun
    clock.pass_(1)
    assert snapshot.for_answer().instant() == clock.at
    clock.pass_(1)
    snapshot.forget("users")
    assert snapshot.instant() != clock.at
    snapshot.forget("triggers")
    assert snapshot.instant() == clock.at


async def test_memory_is_bounded_and_the_least_recently_used_is_dropped(
    snapshot: AccountSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    await read(snapshot, HUNDRED, runs(*many_runs()))
    assert 10_000 < snapshot.size < 20_000
    lists = [ListExecutions(workflow_id=f"wf_{number}", limit=100) for number in range(50)]
    for number, call in enumerate(lists):
        rows = [row | {"workflowId": call.workflow_id} for row in many_runs()]
        source = runs(*rows)
        await snapshot.read(call, source)
        assert snapshot.size <= 100_000, number
        assert snapshot.holds(HUNDRED), "it is used all the time"
        assert snapshot.holds(call)
    kept = [stored_rows(snapshot, call) != () for call in lists]
    assert kept == [False] * (50 - sum(kept)) + [True] * sum(kept)
    assert sum(kept) >= 4


async def test_single_answers_are_dropped_before_lists(
    snapshot: AccountSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 40_000)
    await read(snapshot, HUNDRED, runs(*many_runs(100)))

    async def large(call: Operation[Any]) -> Any:
        return call.result({"data": {"id": call.target, "output": "x" * 9_000}})

    for number in range(9):
        await read(snapshot, GetExecution(execution_id=f"exec_{number}"), large)
        assert snapshot.holds(GetExecution(execution_id="exec_0")), "it is used all the time"
    assert [number for number in range(9) if snapshot.holds(GetExecution(execution_id=f"exec_{number}"))] == [0, 8]
    assert stored_rows(snapshot, HUNDRED)


async def test_list_larger_than_the_bound_is_not_kept(
    snapshot: AccountSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    source = runs(*many_runs())
    await read_whole(snapshot, HUNDRED, source)
    assert snapshot.size <= 1_000
    assert stored_rows(snapshot, HUNDRED) == ()


def test_derived_value_lasts_as_long_as_its_sources(snapshot: AccountSnapshot) -> None:
    one, other, made = [1], [1], list[int]()

    def make() -> object:
        made.append(1)
        return object()

    first = snapshot.derived("index", [one, other], make)
    assert snapshot.derived("index", [one, other], make) is first
    assert snapshot.derived("others", [one, other], make) is not first
    assert len(made) == 2
    for sources in ([one], [one, [1]], [other, one], [one, other, one]):
        assert snapshot.derived("index", sources, make) is not first
    last = snapshot.derived("index", [one, other], make)
    snapshot.forget("users")
    assert snapshot.derived("index", [one, other], make) is not last


def test_derived_values_are_few(snapshot: AccountSnapshot) -> None:
    source = object()
    kept = snapshot.derived(0, [source], object)
    for number in range(1, 200):
        snapshot.derived(number, [source], object)
        assert snapshot.derived(0, [source], object) is kept
    first = snapshot.derived(199, [source], object)
    assert snapshot.derived(199, [source], object) is first
    lost = object()
    assert snapshot.derived(100, [source], lambda: lost) is lost


async def test_what_fastn_may_still_change_is_kept_for_seconds(snapshot: AccountSnapshot, clock: Clock) -> None:
    """After a change whose outcome is unknown, or by the AI, Fastn may apply it after the next read."""
    source = runs(*many_runs(10))
    for toolset, is_settled in (("workflows", False), ("ai", True)):
        snapshot.forget(toolset, is_settled)
        await read(snapshot, HUNDRED, source)
        assert snapshot.for_answer().holds(HUNDRED)
        clock.pass_(6)
        assert not snapshot.for_answer().holds(HUNDRED)
        clock.pass_(90)
    await read(snapshot, HUNDRED, source)
    clock.pass_(6)
    assert snapshot.for_answer().holds(HUNDRED)
