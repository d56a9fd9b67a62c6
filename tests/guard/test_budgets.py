"""Budgets: for a day and for a run, of each account and caller; what is left is said."""

import itertools
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.begun import rated
from support.world import FormLater, World, batch_of, failing

from fastn_mcp.errors import Declined, Incomplete, Refused
from fastn_mcp.guard.approval_form import Decline
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.access import CreateSecret, DeleteSecret, ListSecrets
from fastn_mcp.tools.customers import CreateCustomer

ANA = Caller(Asker("ana"), None)
_RUNS = itertools.count(1)
_NAMES = itertools.count(1)


def limited(folder: Path, rules: str, bound: str = "") -> World:
    """A process of its own, on the same ledger."""
    return World.with_rules(folder, rules, tokens=f"run{next(_RUNS)}-", bound=bound)


async def made(world: World, count: int, principal: str = "local") -> int:
    """How many of so many customers can be created."""
    done = 0
    for _ in range(count):
        with suppress(Refused):
            call = CreateCustomer(name=f"N{next(_NAMES)}")
            done += isinstance(await world.dispatch(call, Caller(Asker(principal), None)), Done)
    return done


async def test_day_and_run_budgets_hold_together(tmp_path: Path) -> None:
    rules = "[budget]\nwrite = 5\n[budget.run]\nwrite = 2\n"
    assert [await made(limited(tmp_path, rules), 4) for _ in range(4)] == [2, 2, 1, 0]


async def test_budget_belongs_to_one_caller(tmp_path: Path) -> None:
    world = limited(tmp_path, "[budget]\nwrite = 2\n")
    assert [await made(world, 3, principal) for principal in ("ana", "ben", "ana")] == [2, 2, 0]


async def test_daily_budget_resets(tmp_path: Path) -> None:
    world = limited(tmp_path, "[budget]\nwrite = 1\n")
    assert await made(world, 2) == 1
    world.clock.pass_(86_400)
    assert await made(world, 2) == 1


async def test_named_run_is_shared_by_processes(tmp_path: Path) -> None:
    first, second = (limited(tmp_path, "").new_judge() for _ in range(2))
    assert first.budgets.period("run", "local") != second.budgets.period("run", "local")
    world = limited(tmp_path, "")
    runs = ("nightly", "nightly", "weekly")
    named = [Budgets(world.policy, world.ledger, world.system, "test", run) for run in runs]
    periods = [budgets.period("run", "local") for budgets in named]
    assert periods[0] == periods[1] != periods[2]


async def test_rate_of_destroying_is_counted_by_caller(tmp_path: Path) -> None:
    """Across processes; beyond it nobody is asked, and the refusal says until when."""
    rules = '[budget]\ndestroy_rate = "2 per 90s"\n[[rule]]\ntool = "delete_secret"\nthen = "allow"\n'
    world, other = limited(tmp_path, rules), limited(tmp_path, rules)
    other.clock = world.clock
    for name in ("A", "B", "C"):
        await world.expect(Done, CreateSecret(name=name, value="v"), world.form())
    secrets = [str(row.id) for row in await world.rows(ListSecrets())][-3:]
    no, approves = world.form(Decline()), world.form()
    deletion = world.deletion("Katana")
    for _ in range(3):
        await world.expect(Declined, deletion, no)
    begun = world.clock.at
    await world.expect(Done, DeleteSecret(secret_id=secrets[0]))
    await world.expect(Done, deletion, approves)
    for call in (DeleteSecret(secret_id=secrets[1]), world.deletion()):
        refused = await world.expect(Refused, call, approves)
        assert refused.facts["rule"] == "destroy_rate"
        free = begun + timedelta(seconds=90)
        assert refused.facts["free_at"] == f"{free:%Y-%m-%dT%H:%M:%SZ}"
        assert refused.what == (
            "The budget for destroying is used up: 2 approvals in 1.5 minutes."
            f" The next is free at {free:%H:%M:%S} UTC."
        )
        assert refused.next_step == (
            "Call again then. A person can change destroy_rate under [budget] in the policy file."
        )
    assert len(approves.asked) == 1
    await other.expect(Refused, deletion, other.form())
    assert isinstance(await world.dispatch(DeleteSecret(secret_id=secrets[1]), Caller(Asker("ben"), None)), Done)
    await world.expect(Done, CreateCustomer(name="N"))
    world.clock.pass_(90 - (world.clock.at - begun).total_seconds())
    await world.expect(Done, DeleteSecret(secret_id=secrets[2]))


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_approved_batch_counts_once_in_the_rate_of_destroying(tmp_path: Path, count: int) -> None:
    world = limited(tmp_path, '[budget]\ndestroy_rate = "1 per 90s"\n')
    names = ("Katana", "Acme Corp", "Globex Exports", "Widget Inc")
    calls = [world.deletion(name) for name in names]
    caller = replace(ANA, form=world.form())
    assert isinstance(await world.dispatch(batch_of(*calls[:count]), caller), Done)
    assert [line["approved_by"] for line in world.audited("intent")] == ["client_form"] * count
    at = world.timestamp
    assert len(await world.ledger.rate_uses(world.judge.budgets.rate_budget(ANA.asker.principal), 90, at)) == 1
    with pytest.raises(Refused) as refused:
        await world.dispatch(calls[3], caller)
    assert refused.value.facts["rule"] == "destroy_rate"


async def test_list_destroys_nothing_once_the_rate_is_used_up(tmp_path: Path) -> None:
    """Here by another call while a person decides. The approval stays valid."""
    world = limited(tmp_path, '[budget]\ndestroy_rate = "1 per 90s"\n')
    listed, form = batch_of(world.deletion(), world.deletion("Katana")), world.form()
    ask = form.ask

    async def used_up_meanwhile(question: ApprovalRequest) -> Any:
        await rated(world.ledger, world.judge.budgets.rate_budget("local"), 1, 90, world.timestamp)
        return await ask(question)

    form.ask = used_up_meanwhile  # type: ignore[method-assign]
    refused = await world.expect(Incomplete, listed, form)
    assert refused.what.startswith("0 of 2 calls succeeded.")
    assert world.changes == []
    world.clock.pass_(90)
    await world.expect(Done, listed)


async def test_decline_counts_where_the_rate_of_destroying_is_used_up(tmp_path: Path) -> None:
    world = limited(tmp_path, '[budget]\ndestroy_rate = "1 per 90s"\n')
    call, form = world.deletion(), FormLater()
    pending = await world.asked_in_form(call, form)
    await world.expect(Done, world.deletion("Katana"), world.form())
    form.submitted = pending.id, Decline()
    await world.expect(Declined, call, form)


async def test_overview_lists_remaining_budgets(tmp_path: Path) -> None:
    world = limited(tmp_path, "[budget]\nwrite = 5\ndestroy = 3\n[budget.run]\nwrite = 2\n")
    await made(world, 1)
    done: Any = await world.call(GetOverview())
    assert done.result.model_dump()["guard"] == {
        "mode": "guarded",
        "budgets": [
            {"effect": "write", "per": "day", "left": 4, "of": 5},
            {"effect": "write", "per": "run", "left": 1, "of": 2},
            {"effect": "destroy", "per": "day", "left": 3, "of": 3},
        ],
    }


async def test_overview_and_previews_show_the_remaining_rate_of_destroying(tmp_path: Path) -> None:
    world = limited(tmp_path, '[budget]\ndestroy_rate = "3 per 90s"\n')
    first, second = [str(row.id) for row in (await world.rows(ListSecrets()))[:2]]
    deletion = DeleteSecret(secret_id=second)
    assert "are left" not in (await world.judged(deletion))[0].reason
    assert await world.guard.allowance(Asker()) == {"mode": "guarded"}
    await world.expect(Done, DeleteSecret(secret_id=first), world.form())
    assert "2 more deletions can be approved in the next 1.5 minutes." in (await world.judged(deletion))[0].reason
    assert "are left" not in (await world.judged(CreateCustomer(name="N")))[0].reason
    allowance: Any = await world.guard.allowance(Asker())
    assert allowance["budgets"] == [{"effect": "destroy", "per": "1.5 minutes", "left": 2, "of": 3}]
    world.clock.pass_(90)
    assert "are left" not in (await world.judged(deletion))[0].reason


async def test_overview_without_a_ledger_names_what_is_missing(tmp_path: Path) -> None:
    world = limited(tmp_path, "[budget]\nwrite = 5\n")
    world.ledger.spent = failing
    done: Any = await world.call(GetOverview())
    assert any(gap["what"] == "budgets" for gap in done.result.model_dump()["not_checked"])
