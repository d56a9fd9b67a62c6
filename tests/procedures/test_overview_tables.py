"""Tables of an overview: success rates, customers, what expires, and runs that hang."""

import warnings
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from large_account import large_account
from pydantic_core import to_json
from support.behaviour import Behaviour
from support.faulty_sandbox import Status
from support.table_rows import table_rows
from support.world import World

from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.sandbox.auth import KEY
from fastn_mcp.sandbox.state import stamp
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.billing import GetQuotas

pytestmark = pytest.mark.anyio

Answer = dict[str, Any]


@pytest.fixture
def limited_world(tmp_path: Path) -> Generator[World]:
    """A large account whose key may send 100 requests a minute."""
    made = World(tmp_path, begin=large_account, snapshot_seconds=90, requests_per_answer=None)
    made.sandbox.behaviour = Behaviour(rate_limit=100)
    yield made
    made.close()


@pytest.fixture
def tokens() -> Callable[[str], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its data loader uses a deprecated function
        import bpe_openai  # pyright: ignore[reportMissingTypeStubs]
    encode = bpe_openai.get_encoding("o200k_base").encode
    return lambda text: len(encode(text))


async def ask(world: World, **arguments: Any) -> Answer:
    """Return the answer as the model reads it."""
    call = GetOverview(**arguments)
    done = await world.call(call)
    assert isinstance(done, Done), done
    return render(call, done.result, {})


def sentence(answer: Answer, words: str) -> str:
    (what,) = [finding["what"] for finding in answer["data"]["findings"] if words in finding["what"]]
    return what


async def test_success_rates_by_workflow_take_one_call(large_world: World, tokens: Callable[[str], int]) -> None:
    answer = await ask(large_world, about="workflows", order="rate")
    assert tokens(to_json(answer).decode()) <= 4_000
    assert "left_out" not in answer
    rows = table_rows(answer["data"]["table"])
    rates = [float(row["success_rate"].removesuffix(" %")) for row in rows if "success_rate" in row]
    assert len(rates) >= 71 == sum(row["failed"] > 0 for row in rows)
    assert rates == sorted(rates)
    assert answer["data"]["not_checked"] == []
    assert not [heard for heard in large_world.sandbox.requests if heard.path == "/api/v1/triggers"]  # not shown


async def test_rates_stay_within_the_rate_limit(limited_world: World) -> None:
    """The answer says how many are missing, and the next call reads on."""
    answer = await ask(limited_world, about="workflows", order="rate")
    assert len(limited_world.sandbox.requests) <= 50
    assert "failing workflows ran" in str(answer["data"]["not_checked"])
    limited_world.clock.pass_(60)
    known = sum("success_rate" in row for row in table_rows(answer["data"]["table"]))
    again = await ask(limited_world, about="workflows", order="rate")
    assert sum("success_rate" in row for row in table_rows(again["data"]["table"])) > known


async def test_what_expires_takes_one_call(large_world: World, tokens: Callable[[str], int]) -> None:
    answer = await ask(large_world, about="expiry")
    assert tokens(to_json(answer).decode()) <= 2_500
    now, state = large_world.clock.at, large_world.sandbox.state
    until = stamp(now + timedelta(days=14))
    soon = [row for row in state.all("connections") if row["status"] == "ACTIVE" and row["expiresAt"] <= until]
    renewed = [row for row in soon if row["authType"] == "OAUTH_2"]
    assert sentence(answer, "does not renew").startswith(f"{len(soon) - len(renewed)} connections expiring")
    assert sentence(answer, "by OAuth").startswith(f"{len(renewed)} connections by OAuth")
    rows = table_rows(answer["data"]["table"])
    dates = [row["expires"][:10] for row in rows]
    assert dates == sorted(dates)
    assert {"API_KEY", "BEARER"} >= {row["auth"] for row in rows if "auth" in row}
    assert any(row.get("id") == "6" for row in rows), "keys are among them"
    assert answer["data"]["not_checked"] == [{"what": "secrets", "why": "Fastn stores no expiry for them."}]


async def test_what_expires_stays_within_the_rate_limit(limited_world: World) -> None:
    limited_world.sandbox.behaviour = Behaviour(rate_limit=40)
    answer = await ask(limited_world, about="expiry")
    assert sentence(answer, "does not renew").startswith("At least ")
    assert "more connections" in str(answer["data"]["not_checked"])


async def test_expiry_looks_as_far_ahead_as_asked(world: World) -> None:
    key = world.sandbox.state.named("apiKeys", "BI export", by="name")
    key["expiresAt"] = stamp(world.clock.at + timedelta(days=20))
    assert "API key" not in str((await ask(world, about="expiry"))["data"]["findings"])
    answer = await ask(world, about="expiry", hours=720)
    assert sentence(answer, "API key").startswith("1 API key expiring within 30 days, the first in 20 days.")


async def test_connection_of_unknown_authentication_is_not_called_renewed(world: World) -> None:
    row = next(row for row in world.sandbox.state.all("connections") if row["status"] == "ACTIVE")
    row |= {"authType": "PASSKEY", "expiresAt": stamp(world.clock.at + timedelta(days=3))}
    what = sentence(await ask(world), "does not renew by itself, the first in 3 days")
    assert "has to authorise" in what


async def test_runs_that_hang_are_found(world: World) -> None:
    """They were no failures, and "100 %" was all that was told of them."""
    state = world.sandbox.state
    run = next(row for row in state.all("executions") if row["status"] == "completed" and row["endOrgId"])
    state.rows.pop("_runs", None)
    for row in state.all("executions"):
        if row["status"] in ("queued", "running"):
            row["status"] = "completed"
    begun = stamp(world.clock.at - timedelta(hours=22))
    state.put("executions", run | {"id": "exec_hangs", "status": "running", "createdAt": begun, "startedAt": begun})
    answer = await ask(world)
    (found,) = [each for each in answer["data"]["findings"] if "under way" in each["what"]]
    (row,) = found["rows"]
    assert (row["run"], row["status"], row["for"]) == ("exec_hangs", "running", "22 h")
    assert row["since"] == "2026-11-24T11:00:00Z"
    assert row["customer"] in [each["name"] for each in state.all("customers")]
    assert row["usual"]
    now = stamp(world.clock.at)
    state.put("executions", run | {"id": "exec_hangs", "status": "running", "createdAt": now, "startedAt": now})
    assert "under way" not in str((await ask(world))["data"]["findings"])


async def test_customers_with_problems_come_first(world: World) -> None:
    rows = table_rows((await ask(world, about="customers"))["data"]["table"])
    assert len(rows) == 5
    assert rows[0]["name"] == "Katana"
    assert rows[0]["connections"] == "TikTok Shop FAILED and Cin7 Core EXPIRED"
    assert (rows[0]["failed"], rows[0]["why"]) == (1, "The tiktokShop connection cannot be used")
    assert [row["state"] for row in rows if row["name"] == "John-Acme"] == ["activation pending"]


async def test_only_customers_that_are_shown_are_named(large_world: World) -> None:
    answer = await ask(large_world, about="customers")
    names = {row["name"] for row in large_world.sandbox.state.all("customers")}
    assert {row["name"] for row in table_rows(answer["data"]["table"])} <= names | {"the account itself"}
    large_world.sandbox.requests.clear()
    await ask(large_world, about="triggers")
    assert sum("/customers" in request.path for request in large_world.sandbox.requests) <= 8


async def test_customer_whose_name_cannot_be_read_is_said(world: World) -> None:
    world.sandbox.faults.add(Status(status=403, path="/api/v1/customers", times=None))
    answer = await ask(world, about="connections")
    assert "names of customers" in str(answer["data"]["not_checked"])
    assert "TikTok Shop of " in str(answer["data"]["table"])


async def test_triggers_have_customer_and_cause(world: World) -> None:
    (paid,) = [
        row for row in table_rows((await ask(world, about="triggers"))["data"]["table"]) if "Paid" in row["name"]
    ]
    assert (paid["customer"], paid["starts"]) == ("Globex Exports", "process-new-orders")
    (off,) = [
        each
        for each in (await ask(world))["data"]["findings"]
        if "switched off" in each["what"] and "trig" in each["what"]
    ]
    assert off["rows"][0]["why"].startswith("disabled by the platform 4 days ago: 20 consecutive failures")


async def test_overview_says_which_account_key_and_time(world: World) -> None:
    answer = await ask(world)
    account = answer["data"]["account"]
    assert account == {"profile": "default", "host": "localhost", "key_ends": KEY[-4:], "permissions": "Full access"}
    assert answer["data"]["now"] == "2026-11-25T09:00:00Z"
    assert KEY not in str(answer)


async def test_empty_list_of_changes_says_since_when_and_where_else(world: World) -> None:
    done = await world.call(ListChanges())
    assert isinstance(done, Done)
    note = done.result.model_dump()["note"]
    assert note.startswith("No changes since 2026-10-26T09:00:00Z (30 days ago).")
    assert "query_audit_log" in note


async def test_who_may_do_everything_is_in_the_table_about_access(world: World) -> None:
    answer = await ask(world, about="access")
    assert sentence(answer, "Owner or Admin").startswith("3 administrators: ")
    rows = {row["name"]: row["role"] for row in table_rows(answer["data"]["table"]) if "role" in row}
    assert [*rows.values()] == ["Admin", "Admin", "Owner"]
    assert "administrator" not in str((await ask(world))["data"]["findings"])


async def test_rows_by_age_have_the_date_they_are_ordered_by(world: World) -> None:
    rows = table_rows((await ask(world, about="workflows", order="age"))["data"]["table"])
    begun = [row["since"] for row in rows]
    assert len(begun) == len(world.sandbox.state.all("workflows"))
    assert begun == sorted(begun)
    assert "since" not in str((await ask(world, about="workflows"))["data"]["table"]["columns"])


async def test_customer_whose_name_was_not_read_has_its_id_once(limited_world: World) -> None:
    while limited_world.client.limit.requests_left not in (10, 9):
        await limited_world.client.send(GetQuotas())
    rows = table_rows((await ask(limited_world, about="customers"))["data"]["table"])
    names = {row["id"]: row["name"] for row in limited_world.sandbox.state.all("customers")}
    assert any("name" not in row for row in rows)
    assert all(row.get("name") in (None, names[row["id"]]) for row in rows)
