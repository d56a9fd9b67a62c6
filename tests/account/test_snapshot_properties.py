"""Properties of the snapshot: whatever is asked in whatever order, it answers what Fastn would answer."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import Clock
from support.row_source import HIDES, RowSource, run, runs, stamp

from fastn_mcp.account import snapshot as module
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.client.reads import read_pages
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import Listed, Position
from fastn_mcp.tools.workflows import ListExecutions

PAGE = 4
"""Rows of a page, of which a list has several even in a small account."""

MINUTES = st.integers(0, 30)
FIELDS = {"status": ("status",), "workflowId": ("workflowId",), "endOrgId": ("endOrgId",), "createdAt": ("createdAt",)}


@pytest.fixture(autouse=True, scope="module")
def small_pages() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_LIMIT", PAGE)
        yield


@st.composite
def rows_of_account(draw: st.DrawFn, *, tells_all: bool = False) -> list[dict[str, Any]]:
    """Return up to twenty runs, newest first, of which some have equal times, and some do not tell all."""
    minutes = sorted(draw(st.lists(MINUTES, max_size=20)))
    rows: list[dict[str, Any]] = []
    for number, begun in enumerate(minutes):
        row = run(
            number,
            begun,
            draw(st.sampled_from(["completed", "failed", "timeout"])),
            workflowId=draw(st.sampled_from(["w0", "w1"])),
            endOrgId=draw(st.sampled_from([None, "c0", "c1"])),
        )
        if not tells_all and draw(st.integers(0, 9)) == 0:
            row[HIDES] = tuple(draw(st.sets(st.sampled_from([*FIELDS, "id"]))))
        rows.append(row)
    return rows


times = st.none() | MINUTES.map(stamp)
filters = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["completed", "Failed", "cancelled"]),
        "workflow_id": st.sampled_from(["w0", "w1"]),
        "customer_id": st.sampled_from(["c0", "c1"]),
        "since": times,
        "until": times,
    },
)


@dataclass(frozen=True)
class Question:
    """A list that is asked for, or all its pages."""

    call: ListExecutions
    is_whole: bool = False


@st.composite
def questions(draw: st.DrawFn) -> Question:
    which: dict[str, Any] = draw(filters)
    if draw(st.booleans()):
        return Question(ListExecutions(limit=PAGE, **which), is_whole=draw(st.booleans()))
    start = draw(st.sampled_from([0, 0, 0, 1, 3, PAGE, 2 * PAGE]))
    cursor = Position(offset=start).encode() if start else None
    return Question(ListExecutions(limit=draw(st.integers(1, 7)), cursor=cursor, **which))


@dataclass
class Account:
    """An account that may change, its earlier states by time, and a snapshot of it."""

    source: RowSource
    clock: Clock = field(default_factory=Clock)
    states: dict[float, RowSource] = field(default_factory=dict[float, RowSource])

    def __post_init__(self) -> None:
        self.snapshot = AccountSnapshot(self.clock.system(), 90)
        self.change(self.source.rows[ListExecutions])

    def change(self, rows: Any) -> None:
        """Let these be the rows from now on."""
        self.clock.pass_(0.001)
        self.source.rows[ListExecutions] = rows
        self.states[self.clock.at.timestamp()] = replace(self.source, rows={**self.source.rows}, has_totals=True)

    async def ask(self, question: Question) -> None:
        async def read(call: Operation[Any]) -> FastnObject:
            result, begun = await self.snapshot.for_answer().read(call, self.source)
            self.check(call, result, begun)
            return result

        if question.is_whole:
            await read_pages(question.call, read, 9)
        else:
            await read(question.call)

    def check(self, call: Any, answer: Any, begun: float) -> None:
        """Check that this is what Fastn answered at some time since the read began."""
        current = [time for time in self.states if time <= begun][-1:]
        states = [self.states[time] for time in self.states if time >= current[0]]
        assert any(is_true(call, answer, state) for state in states), (call, answer)


def is_true(call: ListExecutions, answer: Listed, state: RowSource) -> bool:
    """Whether an answer is that of an account in this state."""
    total = len(call.matching_rows(state.rows[ListExecutions])[0])
    end = int(call.position.cursor or call.position.offset) + len(answer.rows)
    return (
        answer.rows == state.page(call).rows
        and answer.total in (None, total)
        and (answer.next_cursor is not None or end >= total)
    )


def ask_all(account: Account, asked: list[Any]) -> None:
    async def ask() -> None:
        for event in asked:
            if isinstance(event, Question):
                await account.ask(event)
            else:
                account.change(event(account.source.rows[ListExecutions]))

    anyio.run(ask)


@given(rows_of_account(), st.lists(questions(), min_size=2, max_size=8), st.booleans(), st.booleans())
def test_answers_are_those_of_direct_reads(
    rows: list[Any], asked: list[Question], has_totals: bool, has_cursors: bool
) -> None:
    ask_all(Account(runs(*rows, has_totals=has_totals or not has_cursors, has_cursors=has_cursors)), asked)


def added(rows: list[Any]) -> list[Any]:
    return [run(1_000 + len(rows), -1, "failed", workflowId="w0", endOrgId="c0"), *rows]


def removed(place: int) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [*rows[:place], *rows[place + 1 :]]


@given(
    rows_of_account(tells_all=True),
    st.lists(questions() | st.just(added), min_size=3, max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_rows_that_come_between_the_pages_make_no_answer_wrong(
    rows: list[Any], asked: list[Any], has_totals: bool, has_cursors: bool
) -> None:
    ask_all(Account(runs(*rows, has_totals=has_totals or not has_cursors, has_cursors=has_cursors)), asked)


@given(
    rows_of_account(tells_all=True),
    st.lists(questions() | st.integers(0, 9).map(removed), min_size=3, max_size=9),
    st.booleans(),
)
def test_rows_that_go_between_the_pages_make_no_answer_wrong(
    rows: list[Any], asked: list[Any], has_cursors: bool
) -> None:
    """That rows have gone is seen by the totals, without which nobody can tell."""
    ask_all(Account(runs(*rows, has_cursors=has_cursors)), asked)
