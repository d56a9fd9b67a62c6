"""The place Limits: the mode, what is left of budgets and a plan, and the rules with their lines."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from support.begun import counted, rated
from support.long_log import ACCOUNT
from support.page_visitor import Visitor, words
from support.page_world import Desk, deletion_of_customer, let_in, update_of_workflow
from support.policy_files import PROTECTING, rules_of
from support.stores import add_temporary, with_temporary

from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.ledger import BudgetLimit
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.plan import Plan
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.tool import Effect

FILE = (
    PROTECTING
    + """
[budget]
external = 20
spend = 1
"""
)


@asynccontextmanager
async def limits(folder: Path, policy: Policy) -> AsyncGenerator[tuple[Desk, Visitor]]:
    desk = Desk(folder / "state" / "page.json", name=ACCOUNT, policy=policy)
    visitor = await let_in(desk)
    yield desk, visitor
    await visitor.http.aclose()
    await desk.aclose()


async def text(visitor: Visitor) -> str:
    return words(await visitor.look("limits"))


async def test_budgets_count_what_was_used(tmp_path: Path) -> None:
    policy = Policy(rules=rules_of(tmp_path, FILE))
    async with limits(tmp_path, policy) as (desk, visitor):
        budgets = Budgets(policy, desk.ledger, desk.system, ACCOUNT)
        (day,) = policy.rules.budgets(Effect.EXTERNAL, desk.system.now())
        for effect, uses in ((Effect.EXTERNAL, 6), (Effect.SPEND, 1)):
            for _ in range(uses):
                limit = BudgetLimit(effect.value, budgets.period(day, "local"), 20)
                assert await counted(desk.ledger, limit, at=desk.clock.now().timestamp())
        assert await rated(desk.ledger, budgets.rate_budget("local"), 10, 300.0, desk.clock.now().timestamp())
        page = await text(visitor)
    assert "Run workflows, or change resources in use 14 of 20 left today" in page
    assert "Ask Fastn's AI none of 1 left today" in page
    assert "You can approve 9 more deletions in the next 5 minutes." in page


async def test_spending_is_within_a_budget_only_where_one_is_set(tmp_path: Path) -> None:
    for number, (rules, how) in enumerate(
        ((PROTECTING, "A person approves"), (FILE, "Sent within a budget; beyond it,"))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with limits(folder, Policy(rules=rules_of(folder, rules))) as (_, visitor):
            assert f"Ask Fastn's AI {how}" in await text(visitor)


async def test_declines_in_a_row_are_counted_until_they_rest(tmp_path: Path) -> None:
    async with limits(tmp_path, Policy()) as (desk, visitor):
        assert "0 declines in a row so far. After 5, changes are refused for 10 minutes." in await text(visitor)
        await desk.ask(deletion_of_customer())
        await desk.becomes("grant-1", RequestState.DECLINED)
        assert "1 decline in a row so far." in await text(visitor)
        desk.clock.passed += 601
        assert "0 declines in a row so far." in await text(visitor)


async def test_plan_entries_say_what_is_left(tmp_path: Path) -> None:
    entry = Permit(
        name="plan nightly.toml line 11", budget="b", tool="run_workflow", targets=("wf_1",), count=20, signers=1
    )
    until = datetime(2026, 12, 1, tzinfo=UTC)
    plan = Plan("nightly", "default", None, until, "digest", ("dana",), (entry,))
    async with limits(tmp_path, Policy("unattended", plan=plan)) as (desk, visitor):
        for _ in range(3):
            assert await counted(desk.ledger, BudgetLimit("b", "plan", 20), at=desk.clock.now().timestamp())
        page = await text(visitor)
    assert "20 x run_workflow on wf_1 with any arguments: 17 left plan nightly.toml line 11" in page


async def test_temporary_approval_is_revoked_from_here(tmp_path: Path) -> None:
    async with limits(tmp_path, Policy()) as (desk, visitor):
        until = desk.clock.now().timestamp() + 900
        await add_temporary(desk.ledger, with_temporary(update_of_workflow(), until))
        assert re.search("1[45] minutes left", await text(visitor))
        form = await visitor.form("revoke", place="limits")
        assert (await visitor.send("revoke", form)).status_code == 303
        assert await desk.ledger.temporary_approvals(0.0) == []


async def test_texts_of_rules_are_escaped(tmp_path: Path) -> None:
    hostile = FILE.replace("our largest", "<script>\\u202e")
    async with limits(tmp_path, Policy(rules=rules_of(tmp_path, hostile))) as (_, visitor):
        answer = await visitor.look("limits")
    assert "<script>" not in answer
    assert "&lt;script&gt;\\u{202e} customer" in answer
