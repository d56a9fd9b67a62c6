"""Tables of an overview, of each of its subjects, and their pages."""

import re
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from large_account import large_account
from pydantic_core import to_json
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.runs import add_run
from support.table_rows import table_rows
from support.tokens import tokens
from support.world import World

from fastn_mcp.account.short_ids import reference_to
from fastn_mcp.errors import NotSent
from fastn_mcp.extensions.sandbox.state import stamp
from fastn_mcp.procedures.checks.parts import connection_states, repairs
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.overview.table import MAX_CHARACTERS
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.server.rendering import BUDGET
from fastn_mcp.tools.billing import GetQuotas

Answer = dict[str, Any]


@pytest.fixture
def limited_world(tmp_path: Path) -> Generator[World]:
    """A large account whose key may send 100 requests a minute."""
    world = World(tmp_path, begin=large_account, snapshot_seconds=90, requests_per_answer=None)
    world.behave(rate_limit=100)
    yield world
    world.close()


async def ask(world: World, **arguments: Any) -> Answer:
    """Return the answer as the model reads it."""
    return await world.rendered(GetOverview(**arguments))


def sentence(answer: Answer, words: str) -> str:
    (what,) = [finding["what"] for finding in answer["data"]["findings"] if words in finding["what"]]
    return what


async def test_success_rates_by_workflow_take_one_call(large_world: World) -> None:
    answer = await ask(large_world, about="workflows", order="rate")
    assert tokens(to_json(answer).decode()) <= 4_000
    assert "left_out" not in answer
    rows = table_rows(answer["data"]["table"])
    rates = [float(row["success_rate"].removesuffix(" %")) for row in rows if "success_rate" in row]
    assert len(rates) >= 71 == sum(row["failed"] > 0 for row in rows)
    assert rates == sorted(rates)
    assert answer["data"]["not_checked"] == []
    assert not [request for request in large_world.sandbox.requests if request.path == "/api/v1/triggers"]  # not shown


async def test_rates_stay_within_the_rate_limit(limited_world: World) -> None:
    """The answer says how many are missing, and the next call reads on."""
    answer = await ask(limited_world, about="workflows", order="rate")
    assert len(limited_world.sandbox.requests) <= 50
    assert "failing workflows'" in str(answer["data"]["not_checked"])
    limited_world.clock.pass_(60)
    known = sum("success_rate" in row for row in table_rows(answer["data"]["table"]))
    again = await ask(limited_world, about="workflows", order="rate")
    assert sum("success_rate" in row for row in table_rows(again["data"]["table"])) > known


async def test_what_expires_takes_one_call(large_world: World) -> None:
    answer = await ask(large_world, about="expiry")
    assert tokens(to_json(answer).decode()) <= 2_500
    now, state = large_world.clock.at, large_world.sandbox.state
    until = stamp(now + timedelta(days=14))
    soon = [row for row in state.all("connections") if row["status"] == "ACTIVE" and row["expiresAt"] <= until]
    renewed = [row for row in soon if row["authType"] == "OAUTH_2"]
    assert sentence(answer, "does not renew").startswith(f"{len(soon) - len(renewed)} connections expire ")
    assert sentence(answer, "OAuth connection").startswith(f"{len(renewed)} OAuth connections")
    rows = table_rows(answer["data"]["table"])
    dates = [row["expires"][:10] for row in rows]
    assert dates == sorted(dates)
    assert {"API_KEY", "BEARER"} >= {row["auth"] for row in rows if "auth" in row}
    assert any(row.get("id") == "6" for row in rows), "keys are among them"
    assert answer["data"]["not_checked"] == [{"what": "secrets", "why": "Fastn stores no expiry for them."}]


async def test_what_expires_stays_within_the_rate_limit(limited_world: World) -> None:
    limited_world.behave(rate_limit=40)
    answer = await ask(limited_world, about="expiry")
    assert re.match("At least .*, the first in .*; Fastn does not renew", sentence(answer, "does not renew"))
    assert "more connections" in str(answer["data"]["not_checked"])


async def test_expiry_looks_as_far_ahead_as_asked(world: World) -> None:
    key = world.sandbox.state.named("apiKeys", "BI export", by="name")
    key["expiresAt"] = stamp(world.clock.at + timedelta(days=20))
    assert "API key" not in str((await ask(world, about="expiry"))["data"]["findings"])
    answer = await ask(world, about="expiry", hours=720)
    assert sentence(answer, "API key").startswith("1 API key expires within 30 days, the first in 20 days.")


async def test_connection_of_unknown_authentication_is_not_called_renewed(world: World) -> None:
    row = next(row for row in world.sandbox.state.all("connections") if row["status"] == "ACTIVE")
    row |= {"authType": "PASSKEY", "expiresAt": stamp(world.clock.at + timedelta(days=3))}
    answer = await ask(world)
    assert sentence(answer, "the first in 3 days; Fastn does not renew it itself")
    assert "has to authorise the app again, or enter its credentials again" in str(answer["data"]["findings"])


@pytest.mark.parametrize("auth_type", ["API_KEY", "OAUTH_2"])
async def test_live_connection_whose_expiry_has_passed_is_not_called_renewed(world: World, auth_type: str) -> None:
    row = next(row for row in world.sandbox.state.all("connections") if row["status"] == "ACTIVE")
    row |= {"authType": auth_type, "expiresAt": stamp(world.clock.at - timedelta(days=3))}
    assert sentence(await ask(world, about="expiry"), "the first 3 days ago; Fastn does not renew it itself")


async def test_renamed_workflow_has_its_current_name_everywhere(world: World) -> None:
    """Its runs keep the name that it had."""
    row = world.sandbox.state.named("workflows", "Sync TikTok Orders to Cin7 Core", by="name")
    row["name"] = "TikTok to Cin7"
    answers = [await ask(world, **of) for of in ({}, {"about": "workflows"}, {"about": "connections"})]
    assert all("TikTok to Cin7" in str(answer) and "Sync TikTok" not in str(answer) for answer in answers)


async def test_name_of_a_customer_stands_nowhere_but_in_place_of_its_id(world: World) -> None:
    """An id may be a part of other texts, such as times."""
    customer = world.sandbox.state.named("customers", "acme-corp")
    world.sandbox.state.rows["customers"]["1"] = customer | {"id": "1"}
    for row in world.sandbox.state.all("executions"):
        if row["endOrgId"] == customer["id"]:
            row["endOrgId"] = "1"
    (row,) = next(each for each in (await ask(world))["data"]["findings"] if "far longer" in each["what"])["rows"]
    assert (row["customer"], row["for"], row["since"]) == ("Acme Corp", "10 h", "2026-11-24T23:00:00Z")


async def test_trigger_disabled_after_the_runs_were_read_is_not_said_to_be_disabled_later(tmp_path: Path) -> None:
    world = World(tmp_path, snapshot_seconds=90)
    await ask(world)  # whose runs are read once
    world.clock.pass_(30)
    world.sandbox.state.rows["triggers"][world.id_of("triggers", "Nightly contact sync")]["statusHistory"] = [
        {"status": "Disabled", "at": stamp(world.clock.at), "by": "platform", "reason": "its connector was deleted"}
    ]
    world.snapshot.forget("connections")  # and with them triggers, as after a change
    assert "switched off by Fastn just now: its connector was deleted" in str(await ask(world, about="triggers"))


async def test_runs_that_hang_are_found(world: World) -> None:
    state = world.sandbox.state
    run = next(row for row in state.all("executions") if row["status"] == "completed" and row["endOrgId"])
    state.rows.pop("_runs", None)
    for row in state.all("executions"):
        if row["status"] in ("queued", "running"):
            row["status"] = "completed"
    begun = stamp(world.clock.at - timedelta(hours=22))
    state.put("executions", run | {"id": "exec_hangs", "status": "running", "createdAt": begun, "startedAt": begun})
    answer = await ask(world)
    (found,) = [each for each in answer["data"]["findings"] if "far longer" in each["what"]]
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
    assert rows[0]["broken_connections"] == "TikTok Shop FAILED and Cin7 Core EXPIRED"
    assert rows[0]["broken_since"] == "2026-11-16"
    assert rows[0]["fix"] == (
        "authorise TikTok Shop again in the widget and enter a new API key for Cin7 Core in the widget"
    )
    assert (rows[0]["failed"], rows[0]["why"]) == (1, "The tiktokShop connection cannot be used")
    assert [row["state"] for row in rows if row["name"] == "John-Acme"] == ["activation pending"]


async def test_customer_that_fails_without_a_broken_connection_is_to_be_diagnosed(world: World) -> None:
    orders = world.id_of("workflows", "process-new-orders")
    add_run(world, orders, 1, endOrgId=world.id_of("customers", "Acme Corp"), error={"message": "odd"})
    rows = table_rows((await ask(world, about="customers"))["data"]["table"])
    (acme,) = [row for row in rows if row["name"] == "Acme Corp"]
    assert acme["fix"] == "see diagnose(customer_id)"
    assert acme.get("broken_since") is None


async def test_page_of_customers_fits_with_their_names(large_world: World) -> None:
    table = (await ask(large_world, about="customers"))["data"]["table"]
    assert len(to_json(table["rows"])) <= MAX_CHARACTERS


async def test_only_customers_that_are_shown_are_named(large_world: World) -> None:
    answer = await ask(large_world, about="customers")
    names = {row["name"] for row in large_world.sandbox.state.all("customers")}
    assert {row["name"] for row in table_rows(answer["data"]["table"])} <= names | {"your own account"}
    large_world.sandbox.requests.clear()
    await ask(large_world, about="triggers")
    assert sum("/customers" in request.path for request in large_world.sandbox.requests) <= 8


async def test_customer_whose_name_cannot_be_read_is_said(world: World) -> None:
    world.refuse("/api/v1/customers")
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
    assert off["rows"][0]["why"].startswith("switched off by Fastn 4 days ago, after 20 failures in a row")


async def test_empty_list_of_changes_says_since_when_and_where_else(world: World) -> None:
    note = (await world.ask(ListChanges()))["note"]
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
    assert "since" not in (await ask(world, about="workflows"))["data"]["table"]["columns"]


async def test_customer_whose_name_was_not_read_has_its_id_once(limited_world: World) -> None:
    while limited_world.client.limit.requests_left not in (10, 9):
        await limited_world.client.send(GetQuotas())
    rows = table_rows((await ask(limited_world, about="customers"))["data"]["table"])
    names = {row["id"]: row["name"] for row in limited_world.sandbox.state.all("customers")}
    assert any("name" not in row for row in rows)
    assert all(row.get("name") in (None, names[row["id"]]) for row in rows)


SUBJECTS = ["workflows", "connections", "customers", "expiry", "triggers", "access"]


async def focus(world: World, about: str, hours: int = 24) -> Answer:
    answer = await ask(world, about=about, hours=hours)
    assert len(to_json(answer)) <= 2 * BUDGET
    assert "left_out" not in answer, "what is left out, the procedure says itself"
    return answer["data"]


def rows(answer: Answer, words: str = "") -> list[Answer]:
    """Return the rows of the table, or those of the only finding with these words."""
    numbers = [number for number, finding in enumerate(answer["findings"], 1) if words in finding["what"]]
    assert not words or len(numbers) == 1
    rows = [row for row in table_rows(answer["table"]) if row.get("finding", 1) in numbers or not words]
    return [{name: cell for name, cell in row.items() if name != "finding"} for row in rows]


async def test_broken_connections_have_customer_and_failing_workflows(world: World) -> None:
    answer = await focus(world, "connections")
    ids = {row["status"]: reference_to(row["id"]) for row in world.sandbox.state.all("connections")}
    tiktok: Answer = {"id": ids["FAILED"], "name": "TikTok Shop of Katana", "since": "2026-11-16", "failed": 1}
    fails = "Sync TikTok Orders to Cin7 Core (1)"
    assert rows(answer, "FAILED:") == [{**tiktok, "auth": "OAUTH_2", "fails": fails}]
    cin7: Answer = {"id": ids["EXPIRED"], "name": "Cin7 Core of Katana", "since": "2026-11-16", "auth": "API_KEY"}
    assert rows(answer, "EXPIRED:") == [cin7]
    shopify: Answer = {"id": ids["INACTIVE"], "name": "Shopify of Globex Exports", "since": "last used 2026-11-09"}
    assert rows(answer, "INACTIVE:") == [{**shopify, "auth": "OAUTH_2"}]
    assert [finding["fix"] for finding in answer["findings"]] == [
        "1 customer has to authorise the app again in the widget.",
        "1 customer has to enter a new API key for the app in the widget.",
        "1 customer has to reconnect the app in the dashboard.",
    ]
    assert answer["not_checked"] == []


async def test_overview_and_diagnosis_say_who_authorises_the_accounts_own_connection(world: World) -> None:
    state = world.sandbox.state
    row = next(row for row in state.all("connections") if row["status"] == "FAILED")
    state.put("connections", row | {"endOrgId": None})
    for run in state.all("executions"):
        if run["workflowId"] == "wf_96d1b3072c5a":
            run["endOrgId"] = None
    for call, app in ((GetOverview(), "the app"), (Diagnose(workflow_id="wf_96d1b3072c5a"), "TikTok Shop")):
        sentence = f"For your own account, a person has to authorise {app} again in the dashboard."
        assert sentence in str(await world.ask(call))


async def test_broken_connections_of_a_large_account_fit_one_answer(large_world: World) -> None:
    """Those of the most failed runs first, and a cursor for the rest."""
    state = large_world.sandbox.state
    answer = await focus(large_world, "connections")
    for status in ("FAILED", "EXPIRED", "INACTIVE"):
        count = sum(row["status"] == status for row in state.all("connections"))
        assert (
            sum(f["what"].startswith(f"{count} connections have the status {status}") for f in answer["findings"]) == 1
        )
    assert [row["name"] for row in rows(answer, "EXPIRED") if "Acme HubSpot sync (5)" in row.get("fails", "")] == [
        "HubSpot of Acme Corp"
    ]
    assert len(large_world.sandbox.requests) <= 60
    runs = [request.query for request in large_world.sandbox.requests if request.path == "/api/v1/executions"]
    assert {query.get("status") for query in runs} == {"failed", "timeout"}  # no numbers that it does not state


def test_repairs_name_who_does_what_for_each_app() -> None:
    found: list[Any] = [
        {"id": str(number), "status": "EXPIRED", "endOrgId": owner, "authType": auth, "connector": {"name": app}}
        for number, (owner, auth, app) in enumerate(
            [
                ("one", "OAUTH_2", "Slack"),
                ("two", "OAUTH_2", "Slack"),
                ("one", "API_KEY", "Xero"),
                (None, "OAUTH_2", "Slack"),
            ]
        )
    ]
    states = connection_states(found, {"one": "One", "two": "Two"})
    assert repairs(states) == (
        "One and Two have to authorise Slack again in the widget. One has to enter a new API key for Xero in the "
        "widget. For your own account, a person has to authorise Slack again in the dashboard."
    )
    assert repairs(states, named=0).startswith("2 customers have to authorise the app again in the widget. 1 customer")
    slack = [row | {"status": "INACTIVE"} for row in found if row["connector"]["name"] == "Slack"]
    assert repairs(connection_states(slack, {"one": "One", "two": "Two"})) == (
        "One and Two have to reconnect Slack in the dashboard. For your own account, a person has to reconnect Slack "
        "in the dashboard."
    )


async def test_failure_that_names_the_connection_counts_without_a_manifest(world: World) -> None:
    """Nothing is known about the manifests of Fastn's workflows."""
    state = world.sandbox.state
    broken = next(row for row in state.all("connections") if row["status"] == "EXPIRED")
    (run, *others) = [row for row in state.all("executions") if row["workflowName"] == "process-new-orders"][-3:]
    run |= {"status": "failed", "endOrgId": broken["endOrgId"], "error": {"message": f"{broken['id']} is not usable"}}
    others[0] |= {"status": "failed", "endOrgId": broken["endOrgId"], "error": {"message": "out of memory"}}
    assert rows(await focus(world, "connections", 720), "EXPIRED")[0]["fails"] == "process-new-orders (1)"


async def test_worst_workflows_have_rates_of_one_window(large_world: World) -> None:
    answer = await focus(large_world, "workflows", 168)
    requests = len(large_world.sandbox.requests)
    workflows = rows(answer)
    # Only the newest failures are read: timeouts and completed runs are counted since the oldest of them too.
    since = answer["failures_since"].partition(" (")[0]
    failed = [row["failed"] for row in workflows if "failed" in row]
    statement = "select status, sum(runs) from run_counts group by 1"
    for row in workflows[:3]:
        counts = dict((await large_world.ask(Query(sql=statement, since=since, workflow_id=[row["id"]])))["rows"])
        assert row["failed"] == counts["failed"] + counts["timeout"]
        assert row["completed"] == counts["completed"]
    assert failed == sorted(failed, reverse=True)
    for row, count in zip(workflows[:10], failed, strict=False):
        rate = 100 * row["completed"] / (row["completed"] + count)
        assert 0 <= rate < 100
        assert row["success_rate"] == f"{rate:.1f} %"
        assert row["last_success"]
        assert row["why"]
    assert answer["top_errors"][0]["runs"] >= answer["top_errors"][-1]["runs"]
    assert "failing workflows'" in str(answer["not_checked"])
    assert requests <= 100


async def test_all_failures_of_a_small_account_are_read(world: World) -> None:
    answer = await focus(world, "workflows", 168)
    workflows = rows(answer)
    assert len(workflows) == 9
    assert "Sync TikTok Orders to Cin7 Core" in [row["name"] for row in workflows if row["failed"]]
    assert sum(row["failed"] for row in workflows) == answer["runs"]["failed"] + answer["runs"]["timeout"]
    assert sum(row["completed"] for row in workflows) == answer["runs"]["completed"]
    assert (answer["not_checked"], answer.get("next_cursor")) == ([], None)


async def test_all_triggers_that_never_fire_are_named(large_world: World) -> None:
    """An active trigger of an app event without a subscription reports no error itself."""
    silent = [row for row in large_world.sandbox.state.all("triggers") if row.get("subscriptionStatus") == "FAILED"]
    active = {str(row["id"]) for row in silent if row["status"] == "Active"}
    assert {row["id"] for row in rows(await focus(large_world, "triggers"), "on but never fire")} == active


async def test_all_keys_that_were_never_used_are_named(large_world: World) -> None:
    answer = await focus(large_world, "access")
    never_used = rows(answer, "never been used")
    (what,) = [finding["what"] for finding in answer["findings"] if "never been used" in finding["what"]]
    assert what.startswith(f"{len(never_used)} API keys")
    assert len(never_used) > 3


STRANGE = [
    Behaviour(envelope=Envelope.BARE, paging=Paging.IGNORED, filtering=Filtering.IGNORED),
    Behaviour(envelope=Envelope.ITEMS, paging=Paging.CURSOR, filtering=Filtering.HEEDED),
    Behaviour(envelope=Envelope.DATA, paging=Paging.TOTAL_AND_CURSOR, filtering=Filtering.IGNORED),
    Behaviour(envelope=Envelope.RESULTS, paging=Paging.SILENT, filtering=Filtering.HEEDED),
]


@pytest.mark.parametrize(
    ("about", "behaviour"),
    [*(("workflows", behaviour) for behaviour in STRANGE), *((about, STRANGE[0]) for about in SUBJECTS[1:])],
    ids=str,
)
async def test_numbers_are_never_guessed(world: World, about: str, behaviour: Behaviour) -> None:
    usual = await focus(world, about)
    world.sandbox.requests.clear()
    world.sandbox.behaviour = behaviour
    answer = await focus(world, about)
    assert len(world.sandbox.requests) <= 60
    if about != "workflows":
        assert (answer["findings"], answer["table"]) == (usual["findings"], usual["table"])
    if about == "workflows" and behaviour.filtering is Filtering.IGNORED:
        if behaviour.paging is Paging.TOTAL_AND_CURSOR:  # counted in the newest runs
            assert answer["runs"] == usual["runs"]
        else:
            assert "runs" not in answer
            assert "success rate" in str(answer["not_checked"])


@pytest.mark.parametrize("about", SUBJECTS)
async def test_unreadable_kind_is_not_checked_and_the_rest_is_reported(world: World, about: str) -> None:
    """A 403 on one kind affects only what is computed from it alone."""
    whole = await focus(world, about)
    for kind in ("executions", "connections", "workflows", "customers", "triggers", "users", "api-keys"):
        world.sandbox.faults.clear()
        world.refuse(f"/api/v1/{kind}")
        answer = await focus(world, about)
        assert answer == whole or answer["not_checked"], kind


async def page(world: World, **arguments: Any) -> Answer:
    return await world.ask(GetOverview(**arguments))


def names(answer: dict[str, Any]) -> list[str]:
    return [row["name"] for row in table_rows(answer["table"])]


async def test_later_pages_send_nothing_and_have_rows_only(limited_world: World) -> None:
    asked = {"about": "workflows", "order": "name", "hours": 168}
    first = await page(limited_world, **asked)
    before = len(limited_world.sandbox.requests)
    rows, answer = names(first), first
    while cursor := answer.get("next_cursor"):
        answer = await page(limited_world, **asked, cursor=cursor)
        assert answer.keys() <= {"table", "of", "next_cursor"}
        rows += names(answer)
    assert len(rows) == first["of"] == 150
    assert rows == sorted(rows, key=str.casefold)
    assert len(limited_world.sandbox.requests) == before


async def test_page_after_the_snapshot_is_too_old_says_that_it_was_read_anew(limited_world: World) -> None:
    first = await page(limited_world, about="workflows")
    limited_world.clock.pass_(3600)
    again = await page(limited_world, about="workflows", cursor=first["next_cursor"])
    assert again["note"] == "Read again since the first page: rows may have moved."


@pytest.mark.parametrize("about", ["customers", "connections", "expiry"])
async def test_rows_are_sorted_by_the_names_of_customers_and_not_by_their_ids(large_world: World, about: Any) -> None:
    shown = names(await page(large_world, about=about, order="name", hours=336))
    assert len(shown) > 20
    assert shown == sorted(shown, key=str.casefold)


async def test_names_of_customers_that_were_not_read_are_a_gap_of_their_order(tmp_path: Path) -> None:
    world = World(tmp_path, begin=large_account, requests_per_answer=12)
    answers = [answer["data"] for answer in await world.pages("get_overview", about="customers", order="name")]
    unnamed = [["name" not in row for row in table_rows(answer["table"])] for answer in answers]
    assert any(map(any, unnamed))
    assert unnamed == [sorted(each) for each in unnamed]
    (gap,) = [gap for gap in answers[0]["not_checked"] if gap["what"].startswith("names of ")]
    assert gap["why"].endswith("rows without a name are not in order.")


async def test_order_without_a_table_is_refused(world: World) -> None:
    await world.expect(NotSent, GetOverview(order="name"))


@pytest.mark.parametrize(("about", "order"), [("customers", "rate"), ("expiry", "failed"), ("access", "rate")])
async def test_order_by_what_rows_do_not_have_is_refused(world: World, about: Any, order: Any) -> None:
    refused = await world.expect(NotSent, GetOverview(about=about, order=order))
    assert f"about {about} cannot be sorted by {order}" in str(refused)
