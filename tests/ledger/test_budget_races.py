"""Budgets, plan entries and the rate of deletions hold against calls that are evaluated at the same time."""

import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support import stores
from support.begun import counted
from support.clock import Clock
from support.policy_files import ALLOWS
from support.valkey_server import ValkeyServer
from support.world import FormNow, World, batch_of, plan_of, planned, policy_from, yes

from fastn_mcp.client.exchange import Answer, Exchange
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.approval_form import Answer as Given
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change_start import BudgetLimit
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.decision import PLANNED
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.access import DeleteSecret, ListSecrets
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.operation import Operation, Request
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import CreateWorkflow

_NUMBERS = itertools.count(1)


class Gate:
    """Holds whoever comes until `count` are there; then it is open."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._open = anyio.Event()

    async def passed(self) -> None:
        self._missing -= 1
        if self._missing <= 0:
            self._open.set()
        await self._open.wait()


@dataclass
class Delayed(Exchange):
    """Holds each answer at one path in a gate."""

    inner: Exchange
    path: str
    gate: Gate

    async def __call__(self, request: Request) -> Answer:
        answer = await self.inner(request)
        if request.method == "GET" and request.path.endswith(self.path):
            await self.gate.passed()
        return answer

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclass
class FormTogether(FormNow):
    """A form that is answered once as many are shown as the gate waits for."""

    gate: Gate | None = None

    async def ask(self, request: ApprovalRequest) -> Given:
        answer = await super().ask(request)
        if self.gate is not None:
            await self.gate.passed()
        return answer


class Interleaving(Ledger):
    """Lets other calls continue after each look at a budget, as a ledger of another process does."""

    async def spent(self, budget: str, period: str) -> int:
        found = await super().spent(budget, period)
        await anyio.lowlevel.checkpoint()
        return found


@pytest.fixture(params=stores.KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Ledger]:
    """Open the ledger of a test once more, as another process has it."""
    if request.param == "sqlite":
        return lambda: Interleaving(SqliteStore(str(tmp_path / "ledger")))
    server: ValkeyServer = request.getfixturevalue("valkey")
    url = server.url()
    return lambda: stores.opened(url)


@pytest.fixture
async def ledger(opened: Callable[[], Ledger]) -> AsyncGenerator[Ledger]:
    async with aclosing(opened()) as store:
        yield store


@pytest.fixture
async def other(opened: Callable[[], Ledger]) -> AsyncGenerator[Ledger]:
    async with aclosing(opened()) as store:
        yield store


def worlds(
    folder: Path, policy: Policy, ledgers: Sequence[Ledger], path: str = "", gate: Gate | None = None, bound: str = ""
) -> list[World]:
    """One guard for each ledger, all with one clock. With a gate, their reads of a path wait for each other."""
    clock = Clock()

    def delayed(inner: Exchange) -> Exchange:
        return inner if gate is None else Delayed(inner, path, gate)

    return [
        World(folder, policy, clock, f"r{next(_NUMBERS)}-", ledger=each, exchange=delayed, bound=bound)
        for each in ledgers
    ]


async def at_once(worlds: Sequence[World], calls: Sequence[Tool[Any]], form: FormNow | None = None) -> list[Any]:
    """Make all calls at the same time, in turn through each guard. An error is an answer too."""
    answers: list[Any] = [None] * len(calls)

    async def make(number: int) -> None:
        answers[number] = await worlds[number % len(worlds)].call(calls[number], form)

    async with anyio.create_task_group() as group:
        for number in range(len(calls)):
            group.start_soon(make, number)
    return answers


def kinds(answers: Sequence[Any]) -> Counter[str]:
    return Counter(type(answer).__name__ for answer in answers)


def sent(of: Sequence[World], tool: str) -> int:
    return sum(heard.tool == tool for world in of for heard in world.changes)


def chats(count: int) -> list[Operation[Any]]:
    return [AiChat(message=f"Message {number}") for number in range(count)]


def drafts(count: int) -> list[Operation[Any]]:
    """Return calls whose effect depends on a read: of all workflows, by their names."""
    return [CreateWorkflow(name=f"N{number}") for number in range(count)]


def creations(count: int) -> list[Operation[Any]]:
    return [CreateCustomer(name=f"N{number}") for number in range(count)]


@pytest.mark.parametrize(
    "rules",
    [
        "[budget]\nspend = 2\n",
        '[budget]\nper = "run"\nspend = 2\n',
        "[budget.run]\nspend = 2\n",
        f"[budget.run]\nspend = 2\n{ALLOWS}",
    ],
)
async def test_first_messages_beyond_the_budget_are_asked_about(tmp_path: Path, ledger: Ledger, rules: str) -> None:
    policy = policy_from(tmp_path, rules)
    one = worlds(tmp_path, policy, [ledger])
    answers = await at_once(one, chats(6))
    assert kinds(answers) == {"Done": 2, "PendingApproval": 4}
    assert sent(one, "ai_chat") == 2
    asked = next(answer for answer in answers if isinstance(answer, PendingApproval))
    assert any("The budget is used up" in line for line in asked.question.lines())


async def test_first_messages_through_two_guards_share_the_budget_of_a_day(
    tmp_path: Path, ledger: Ledger, other: Ledger
) -> None:
    two = worlds(tmp_path, policy_from(tmp_path, "[budget]\nspend = 2\n"), [ledger, other])
    assert kinds(await at_once(two, chats(12))) == {"Done": 2, "PendingApproval": 10}
    assert sent(two, "ai_chat") == 2


async def test_first_messages_beyond_the_budget_are_approved_in_the_form(tmp_path: Path, ledger: Ledger) -> None:
    one = worlds(tmp_path, policy_from(tmp_path, "[budget]\nspend = 2\n"), [ledger])
    form = FormNow(yes, one[0].clock)
    assert kinds(await at_once(one, chats(4), form)) == {"Done": 4}
    assert len(form.asked) == 2
    day = one[0].judge.budgets.period("2026-11-25", "local")
    assert await ledger.spent("spend", day) == 4


async def test_unattended_first_messages_beyond_the_budget_are_refused(tmp_path: Path, ledger: Ledger) -> None:
    policy = policy_from(tmp_path, "[budget]\nspend = 2\n", "unattended")
    one = worlds(tmp_path, policy, [ledger])
    answers = await at_once(one, chats(12))
    assert kinds(answers) == {"Done": 2, "Refused": 10}
    assert sent(one, "ai_chat") == 2
    for number, answer in enumerate(answers):
        if isinstance(answer, Refused):
            assert f"Message {number}" in str(answer.facts["would_allow"])


@pytest.mark.parametrize(("budget", "day", "run"), [
    ("[budget]\nwrite = 2\n", 2, 0),
    ('[budget]\nper = "run"\nwrite = 2\n', 0, 2),
    ("[budget]\nwrite = 5\n[budget.run]\nwrite = 2\n", 2, 2),
    ("[budget]\nwrite = 2\n[budget.run]\nwrite = 5\n", 2, 2),
])  # fmt: skip
async def test_writes_beyond_a_budget_are_refused_and_use_up_no_other_budget(
    tmp_path: Path, ledger: Ledger, budget: str, day: int, run: int
) -> None:
    one = worlds(tmp_path, policy_from(tmp_path, budget), [ledger], "/workflows", Gate(6))
    answers = await at_once(one, drafts(6))
    assert kinds(answers) == {"Done": 2, "Refused": 4}
    assert sent(one, "create_workflow") == 2
    period = one[0].judge.budgets.period
    assert await ledger.spent("write", period("2026-11-25", "local")) == day
    assert await ledger.spent("write", period("run", "local")) == run
    for answer in answers:
        if isinstance(answer, Refused):
            assert "policy.toml line 1" in str(answer.facts["rule"])
            assert "of 2 write calls left" in answer.what


async def test_two_guards_share_the_daily_budget_and_have_their_own_run_budget(
    tmp_path: Path, ledger: Ledger, other: Ledger
) -> None:
    policy = policy_from(tmp_path, "[budget]\nwrite = 5\n[budget.run]\nwrite = 3\n")
    two = worlds(tmp_path, policy, [ledger, other], "/workflows", Gate(16))
    assert kinds(await at_once(two, drafts(16))) == {"Done": 5, "Refused": 11}
    each = [await ledger.spent("write", world.judge.budgets.period("run", "local")) for world in two]
    assert sorted(each) == [2, 3]
    assert await ledger.spent("write", two[0].judge.budgets.period("2026-11-25", "local")) == 5


_ASKED = '[[rule]]\ntool = "{tool}"\nwhen = {{ {argument} = "Ask*" }}\nthen = "confirm"\n[budget]\n{effect} = 2\n'


async def test_approved_write_counts_beside_those_that_the_policy_allows(tmp_path: Path, ledger: Ledger) -> None:
    text = _ASKED.format(tool="create_workflow", argument="name", effect="write")
    one = worlds(tmp_path, policy_from(tmp_path, text), [ledger], "/workflows", Gate(9))
    calls = [*drafts(8), CreateWorkflow(name="Ask me")]
    answers = await at_once(one, calls, FormNow(yes, one[0].clock))
    assert kinds(answers) == {"Done": 2, "Refused": 7}
    assert sent(one, "create_workflow") == 2
    refused = next(answer for answer in answers if isinstance(answer, Refused))
    assert "budget" in refused.what


async def test_approved_message_counts_beside_those_that_the_budget_allows(tmp_path: Path, ledger: Ledger) -> None:
    text = _ASKED.format(tool="ai_chat", argument="message", effect="spend")
    one = worlds(tmp_path, policy_from(tmp_path, text), [ledger])
    answers = await at_once(one, [*chats(8), AiChat(message="Ask me")])
    assert kinds(answers) == {"Done": 2, "PendingApproval": 7}
    assert isinstance(answers[-1], PendingApproval)
    form = FormNow(yes, one[0].clock)
    await one[0].expect(Done, AiChat(message="Ask me too"), form)
    day = one[0].judge.budgets.period("2026-11-25", "local")
    assert await ledger.spent("spend", day) == 3
    await one[0].expect(PendingApproval, AiChat(message="Another"))


async def test_plan_entry_permits_no_more_parallel_calls_than_its_count(
    tmp_path: Path, ledger: Ledger, other: Ledger
) -> None:
    policy = Policy("unattended", plan=plan_of(planned("create_customer", 3)))
    two = worlds(tmp_path, policy, [ledger, other], "/customers", Gate(12))
    answers = await at_once(two, creations(12))
    assert kinds(answers) == {"Done": 3, "Refused": 9}
    assert sent(two, "create_customer") == 3
    refused = next(answer for answer in answers if isinstance(answer, Refused))
    assert "All calls that plan p line 1 allows have been made (count = 3)." in refused.what
    assert "create_customer" in str(refused.facts["would_allow"])


async def test_parallel_calls_use_the_next_plan_entry_that_covers_them(tmp_path: Path, ledger: Ledger) -> None:
    policy = Policy("unattended", plan=plan_of(planned("create_customer", 1), planned("create_customer", 2, line="2")))
    one = worlds(tmp_path, policy, [ledger], "/customers", Gate(8))
    assert kinds(await at_once(one, creations(8))) == {"Done": 3, "Refused": 5}
    assert sent(one, "create_customer") == 3


async def test_planned_call_that_a_budget_refuses_leaves_its_plan_entry(tmp_path: Path, ledger: Ledger) -> None:
    file = policy_from(tmp_path, "[budget]\nwrite = 2\n", "unattended").rules
    policy = Policy("unattended", file, plan_of(planned("create_customer", 6)))
    one = worlds(tmp_path, policy, [ledger], "/customers", Gate(6))
    assert kinds(await at_once(one, creations(6))) == {"Done": 2, "Refused": 4}
    assert await ledger.spent("plan 1", PLANNED) == 2


async def test_concurrent_batches_share_a_budget(tmp_path: Path, ledger: Ledger) -> None:
    one = worlds(tmp_path, policy_from(tmp_path, "[budget]\nwrite = 3\n"), [ledger], "/workflows", Gate(2))
    lists = [batch_of(*(CreateWorkflow(name=f"{name}{number}") for number in range(2))) for name in ("A", "B")]
    answers: list[Any] = await at_once(one, lists)
    assert sent(one, "create_workflow") == 3
    failed = next(answer for answer in answers if isinstance(answer, FastnError))
    calls: Any = failed.facts["calls"]
    (row,) = [row for row in calls if row["outcome"] != "done"]
    assert row["outcome"] == "refused"
    assert "policy.toml line 1" in row["message"]
    assert "0 of 3 write calls left" in row["message"]


async def deletions(folder: Path, count: int) -> list[Operation[Any]]:
    """Return calls on secrets that every sandbox has."""
    rows = await World(folder / "another").rows(ListSecrets())
    assert len(rows) >= count
    return [DeleteSecret(secret_id=str(row.id)) for row in rows[:count]]


async def test_concurrent_approvals_do_not_exceed_the_rate_of_deletions(tmp_path: Path, ledger: Ledger) -> None:
    policy = policy_from(tmp_path, '[budget]\ndestroy_rate = "2 per 90s"\n')
    (world,) = worlds(tmp_path, policy, [ledger])
    calls = await deletions(tmp_path, 4)
    form = FormTogether(yes, world.clock, gate=Gate(len(calls)))
    assert kinds(await at_once([world], calls, form)) == {"Done": 2, "Refused": 2}
    assert len(form.asked) == 4
    assert sent([world], "delete_secret") == 2


async def test_allowed_deletions_do_not_exceed_the_rate(tmp_path: Path, ledger: Ledger, other: Ledger) -> None:
    allowed = '[budget]\ndestroy_rate = "2 per 90s"\n[[rule]]\ntool = "delete_secret"\nthen = "allow"\n'
    two = worlds(tmp_path, policy_from(tmp_path, allowed), [ledger, other], "/secrets", Gate(4))
    calls = await deletions(tmp_path, 4)
    assert kinds(await at_once(two, calls)) == {"Done": 2, "Refused": 2}
    assert sent(two, "delete_secret") == 2


async def test_rate_of_deletions_is_of_one_account(tmp_path: Path, ledger: Ledger) -> None:
    """Two keys of one profile and host are two accounts."""
    policy = policy_from(tmp_path, '[budget]\ndestroy_rate = "1 per 90s"\n')
    for key in ("one key", "another"):
        (world,) = worlds(tmp_path, policy, [ledger], bound=key)
        first, second = await deletions(tmp_path, 2)
        form = world.form()
        await world.expect(Done, first, form)
        refused = await world.call(second, form)
        assert isinstance(refused, Refused)
        assert refused.facts["rule"] == "destroy_rate"


async def test_budgets_of_one_call_are_counted_together_or_not_at_all(ledger: Ledger, other: Ledger) -> None:
    day, run = BudgetLimit("write", "day", 5), BudgetLimit("write", "run", 2)
    assert [await counted(each, day, run) for each in (ledger, other, ledger, other)] == [True, True, False, False]
    assert [await other.spent("write", period) for period in ("day", "run")] == [2, 2]
    assert not await counted(ledger, run, day)
    assert await ledger.spent("write", "day") == 2
