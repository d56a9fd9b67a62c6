"""Tests of diagnose by what administrators ask: about a connector, about runs that hang, about who started runs."""

import re
from collections import Counter
from typing import Any

import pytest
from pydantic_core import to_json
from support.behaviour import Behaviour, Filtering, Paging
from support.runs import add_run, drop_runs_under_way
from support.tokens import tokens
from support.world import World

from fastn_mcp.errors import NotSent
from fastn_mcp.extensions.sandbox.executions import broken_connection
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.workflows import ListExecutions

BACKFILL, ORDERS = "wf_58c9d02e7f14", "wf_0d93ee5b1f62"


async def test_customers_whose_connector_stopped_and_what_to_tell_them_are_one_call(large_world: World) -> None:
    """ "Which HubSpot customers stopped since the weekend, and what do I tell them": one call, 2,500 tokens."""
    answer = await large_world.rendered(Diagnose(connector_id="HubSpot", hours=96))
    assert tokens(to_json(answer).decode()) <= 2_500
    statuses = {request.query.get("status") for request in large_world.sandbox.requests}
    assert "failed" in statuses
    assert "completed" not in statuses  # of all connectors: it says nothing about this one
    found = answer["data"]
    state = large_world.sandbox.state
    names = {row["id"]: row["name"] for row in state.all("customers")}
    broken = {
        names[row["endOrgId"]]: row["status"]
        for row in state.all("connections")
        if row["connector"]["slug"] == "hubspot" and row["status"] != "ACTIVE"
    }
    rows: Any = found["customers"]
    assert {row["customer"]: row["connection"] for row in rows} == broken
    since = [row["since"].removeprefix("last used ") for row in rows]
    assert since == sorted(since, reverse=True)
    assert since[0].startswith("2026-11-24")
    is_off = [row["connection"] == "INACTIVE" for row in rows]
    assert is_off == [row["since"].startswith("last used ") for row in rows], "when it was switched off is not told"
    in_all = sum(row["connector"]["slug"] == "hubspot" for row in state.all("connections"))
    assert f"HubSpot: {len(broken)} of {in_all} connections are broken, for {len(broken)} customers" in str(
        found["verdict"]
    )
    advice: Any = found["advice"]
    assert {status for each in advice for status in each["for"].split(", ")} == set(broken.values())
    assert all("HubSpot" in each["tell"] for each in advice)


@pytest.mark.parametrize(
    ("typed", "behaviour"),
    [
        ("tiktokShop", Behaviour()),
        ("TikTok Shop", Behaviour(paging=Paging.CURSOR)),
        ("id", Behaviour(filtering=Filtering.IGNORED)),
    ],
    ids=["slug", "name and cursors", "id and ignored filters"],
)
async def test_connector_has_its_customers_runs_and_remedy(world: World, typed: str, behaviour: Behaviour) -> None:
    world.sandbox.behaviour = behaviour
    connector = world.id_of("connectors", "tiktokShop")
    answer = await world.ask(Diagnose(connector_id=connector if typed == "id" else typed, hours=72))
    (row,) = answer["customers"]
    assert (row["customer"], row["connection"], row["failed"]) == ("Katana", "FAILED", 3)
    assert row["workflows"] == "Sync TikTok Orders to Cin7 Core"
    assert "3 runs failed at it in 72 hours, for 1 customer." in answer["verdict"]
    assert [each["for"] for each in answer["advice"]] == ["FAILED"]
    assert "connect TikTok Shop again in the widget" in answer["advice"][0]["tell"]
    assert answer["causes"][0]["fix"].startswith("Katana has to authorise TikTok Shop again")
    assert "success_rate" not in answer["runs"]


async def test_customers_without_failed_runs_and_failures_without_broken_connection_are_listed(world: World) -> None:
    state = world.sandbox.state
    widget = state.named("customers", "widget-inc")["id"]
    add_run(world, ORDERS, 2, "failed", endOrgId=widget, error=broken_connection("shopify", "listOrders", "ucl:x"))
    answer = await world.ask(Diagnose(connector_id="shopify"))
    rows = {row["customer"]: row for row in answer["customers"]}
    assert rows["Globex Exports"]["failed"] == 0
    assert rows["Widget Inc"]["connection"] == "none known to be broken: see causes"
    assert rows["Widget Inc"]["first_failed"].startswith("2026-11-25")


async def test_connector_of_one_customer_is_only_about_them(world: World) -> None:
    answer = await world.ask(Diagnose(connector_id="shopify", customer_id="acme-corp"))
    assert "customers" not in answer
    assert answer["verdict"].startswith("Shopify of Acme Corp: 0 of 1 connections are broken; 0 runs failed")


async def test_connector_of_a_customer_has_no_triggers_of_other_apps(large_world: World) -> None:
    hubspot = await large_world.ask(Diagnose(connector_id="hubspot", customer_id="acme-corp"))
    assert [trigger["name"] for trigger in hubspot["triggers"]] == ["Acme HubSpot sync, at night"]
    assert (await large_world.ask(Diagnose(connector_id="slack", customer_id="acme-corp")))["triggers"] == []


async def test_connector_tells_what_else_is_wrong_with_the_workflows_that_use_it(large_world: World) -> None:
    """Their runs that fail at other apps, their triggers, and the customer's connections to their other apps."""
    slack = await large_world.ask(Diagnose(connector_id="slack"))
    since = slack["runs"]["failures_since"].partition(" (")[0]
    elsewhere = rf"\d+ other runs of workflows that use it failed since {since}: see diagnose\(workflow_id\)\.$"
    assert re.search(elsewhere, slack["verdict"])
    (paid,) = [trigger for trigger in slack["triggers"] if trigger["name"] == "Paid Shopify orders"]
    assert paid["starts"] == "process-new-orders"
    assert all(trigger["problem"] for trigger in slack["triggers"])
    globex = await large_world.ask(Diagnose(connector_id="slack", customer_id="globex-exports"))
    assert globex["verdict"].endswith(
        " Of the other apps of workflows that use it, Shopify of Globex Exports is INACTIVE."
    )


async def test_connector_of_no_failed_run_that_was_read_is_not_counted(large_world: World) -> None:
    answer = await large_world.ask(Diagnose(connector_id="gamma"))
    none = "Gamma: not connected; none of the failed runs that were read failed at it since 20"
    assert answer["verdict"].startswith(none)
    since = answer["runs"]["failures_since"].partition(" (")[0]
    assert answer["runs"]["failed"] == f"0 since {since}"


async def test_customer_without_a_connection_to_the_connector_is_said_to_have_none(world: World) -> None:
    """Not "0 of 1 connections are broken", which counted those of other customers."""
    diagnosis = await world.ask(Diagnose(connector_id="hubspot", customer_id="globex-exports"))
    assert diagnosis["verdict"].startswith("HubSpot of Globex Exports: not connected; 0 runs failed")
    world.refuse("/api/v1/connections")
    unread = await world.ask(Diagnose(connector_id="hubspot", customer_id="globex-exports"))
    assert unread["verdict"].startswith("HubSpot of Globex Exports: it is not known whether its connections work, ")


@pytest.mark.parametrize("path", ["/api/v1/connections", "/api/v1/executions"])
async def test_connector_that_was_not_looked_at_is_not_called_healthy(world: World, path: str) -> None:
    connector = world.id_of("connectors", "tiktokShop")
    world.refuse(path)
    answer = await world.ask(Diagnose(connector_id=connector))
    unread = (
        "it is not known whether its connections work"
        if "connections" in path
        else "it is not known whether runs failed at it"
    )
    assert unread in answer["verdict"]
    assert answer["not_checked"]


async def test_hanging_runs_are_a_finding(world: World) -> None:
    """For whom, since when, how long is usual, and their limit."""
    answer = await world.ask(Diagnose(workflow_id=BACKFILL))
    assert "No failures" not in answer["verdict"]
    assert (
        "2 runs are taking far longer than usual: orders-backfill for Acme Corp, running for 11 h"
        in (answer["verdict"])
    )
    running, queued = answer["stuck_runs"]
    assert running == {
        "run": running["run"],
        "workflow": "orders-backfill",
        "customer": "Acme Corp",
        "status": "running",
        "for": "11 h",
        "since": "2026-11-24T22:00:00Z",
        "usual": "at most 10 min in 1 run seen",
        "limit": "36 h",
        "started_by": "manual",
    }
    assert (queued["status"], queued["for"]) == ("queued", "10 h")
    for arguments in ({}, {"customer_id": "acme-corp"}, {"hours": 1}, {"workflow_id": BACKFILL, "hours": 1}):
        other = await world.ask(Diagnose.model_validate(arguments))
        assert [row["run"] for row in other["stuck_runs"]] == [running["run"], queued["run"]], arguments
        assert "far longer than usual" in other["verdict"]
        assert "No failures" not in other["verdict"]
        without = [row["workflow"] for row in other.get("without_failures", [])]
        assert "orders-backfill" not in without
    world.clock.pass_(50 * 60)
    (first, _) = (await world.ask(Diagnose()))["stuck_runs"]
    listed = await world.rendered(ListExecutions(under_way_minutes=60))
    assert (first["for"], listed["data"][0]["elapsed"]) == ("11 h", "11 hours")


@pytest.mark.parametrize("behaviour", [Behaviour(filtering=Filtering.IGNORED), Behaviour(paging=Paging.CURSOR)])
async def test_hanging_runs_do_not_depend_on_filters_or_paging(world: World, behaviour: Behaviour) -> None:
    drop_runs_under_way(world)  # these end after some polls
    for status in ("completed", "running", "queued"):
        add_run(world, BACKFILL, 22, status)
    world.sandbox.behaviour = behaviour
    assert [row["for"] for row in (await world.ask(Diagnose()))["stuck_runs"]] == ["22 h", "22 h"]


@pytest.mark.parametrize(
    ("status", "minutes", "seen", "limit", "usual"),
    [
        ("running", 4, True, 30_000, None),
        ("running", 6, True, 30_000, "at most 1 s in"),
        ("queued", 6, True, None, "at most 1 s in"),
        ("running", 14, False, 900_000, None),
        ("running", 16, False, 900_000, "its limit"),
        ("queued", 16, False, 900_000, "at most 15 min in the queue"),
        ("running", 59, False, None, None),
        ("running", 61, False, None, "no run or limit of it known"),
    ],
)
async def test_usual_is_what_was_seen_else_the_timeout_else_an_hour(
    world: World, status: str, minutes: int, seen: bool, limit: int | None, usual: str | None
) -> None:
    drop_runs_under_way(world)
    state = world.sandbox.state
    flow = state.put("workflows", {**state.named("workflows", "process-new-orders"), "id": "wf_new", "slug": "new"})
    flow["timeoutMs"] = limit
    if seen:
        add_run(world, "wf_new", 5, "completed")
    add_run(world, "wf_new", minutes / 60, status)
    stuck = (await world.ask(Diagnose(workflow_id="wf_new"))).get("stuck_runs", [])
    assert [row["usual"].startswith(usual or "-") for row in stuck] == ([] if usual is None else [True])


async def test_account_itself_is_not_counted_as_a_customer(world: World) -> None:
    for row in world.sandbox.state.all("connections"):
        row["status"] = "EXPIRED" if row["connector"]["slug"] == "slack" else row["status"]
    connector = await world.ask(Diagnose(connector_id="slack"))
    assert connector["verdict"].startswith("Slack: 2 of 2 connections are broken, for 1 customer;")
    add_run(world, ORDERS, 1)
    assert (
        "5 of 102 runs failed in 72 hours, of 3 workflows, for 2 customers" in (await world.ask(Diagnose()))["verdict"]
    )


async def test_hanging_runs_are_counted_as_at_least_if_others_were_not_read(world: World) -> None:
    drop_runs_under_way(world)
    for number in range(130):
        add_run(world, BACKFILL, 2 + number / 100, "queued")
    diagnosis, overview = await world.ask(Diagnose(workflow_id=BACKFILL)), await world.ask(GetOverview())
    assert "But at least 100 runs are taking far longer than usual: " in diagnosis["verdict"]
    assert "older queued runs: only the newest 100 of 130 were read" in diagnosis["not_checked"]
    assert any(each["what"].startswith("At least 100 runs are taking far longer") for each in overview["findings"])
    assert "older queued runs" in str(overview["not_checked"])


async def test_unread_runs_under_way_are_not_called_healthy(world: World) -> None:
    drop_runs_under_way(world)
    for number in range(1_200):
        add_run(world, ORDERS, 0.01 + number / 1_000, "completed")
    world.behave(filtering=Filtering.IGNORED, paging=Paging.CURSOR)
    answer = await world.ask(Diagnose(workflow_id=ORDERS))
    assert "No failures" not in answer["verdict"]
    assert "It is not known whether runs hang" in answer["verdict"]


async def test_runs_that_no_trigger_starts_say_who_started_them(world: World) -> None:
    drop_runs_under_way(world)
    trigger = world.sandbox.state.named("triggers", "Paid Shopify orders", by="name")
    owner = trigger["endOrgId"]
    for number in range(7):
        add_run(world, ORDERS, 1 + number, "completed", endOrgId=owner, started_by="agent-service")
    add_run(world, ORDERS, 0.3, "completed", endOrgId=owner)
    answer = await world.ask(Diagnose(trigger_id=str(trigger["id"])))
    assert (
        "Nothing starts it now: on, but it never fires, since its subscription at the app has failed."
        in answer["verdict"]
    )
    assert "Yet there were 8 runs: 7 by agent-service, 1 by manual" in answer["verdict"]
    assert answer["runs"]["started_by"] == "7 agent-service; 1 manual"


async def test_trigger_of_a_finding_has_customer_and_cause(world: World) -> None:
    answer = await world.ask(Diagnose())
    (finding,) = [finding for finding in answer["findings"] if "9 failures in a row" in finding["what"]]
    (daily,) = finding["rows"]
    assert (daily["name"], daily["customer"]) == ("Daily TikTok sync", "Katana")
    cause = "the connection TikTok Shop is FAILED (authorisation revoked, or no longer valid)"
    assert daily["runs_fail_because"] == cause


async def test_cause_for_several_customers_names_those_of_a_trigger_and_leads_to_all(large_world: World) -> None:
    answer = await large_world.ask(Diagnose(connector_id="HubSpot"))
    (trigger,) = [each for each in answer["triggers"] if each["of"] == "Acme Corp"]
    cause = "the connection HubSpot of Acme Corp is EXPIRED (credentials could not be renewed)"
    assert trigger["runs_fail_because"] == cause
    (cause,) = answer["causes"]
    assert "have to authorise HubSpot again" in cause["fix"]
    listed = await large_world.rendered(parse(TOOLS, cause["next"]["tool"], cause["next"]["arguments"]).call)
    ids = {name: key for key, name in listed.get("ids", {}).get("customer", {}).items()}
    assert {row.get("customer_id") or ids[row["customer"]] for row in listed["data"]} == {
        row["id"] for row in answer["customers"]
    }


@pytest.mark.parametrize("hours", [1, 72, 720])
async def test_trigger_that_is_off_has_its_cause_and_the_call_that_switches_it_on(world: World, hours: int) -> None:
    """Also if its last runs are older than the period."""
    nightly = world.id_of("triggers", "Nightly contact sync")
    (trigger,) = (await world.ask(Diagnose(trigger_id=nightly, hours=hours)))["triggers"]
    cause = "there is no working connection to cin7Core: no affected customer has connected it"
    assert trigger["runs_fail_because"] == cause
    assert trigger["fix"] == "Fix the cause first, then switch it on."
    assert trigger["next"] == {"tool": "update_trigger", "arguments": {"trigger_id": nightly, "status": "Active"}}


async def test_trigger_that_is_off_leads_to_its_runs_if_its_last_run_did_not_fail(world: World) -> None:
    nightly = world.sandbox.state.named("triggers", "Nightly contact sync", "name")
    workflow = nightly["routes"][0]["routeId"]
    add_run(world, workflow, 90, "completed", endOrgId=nightly["endOrgId"])
    answer = await world.ask(Diagnose(trigger_id=nightly["id"]))
    assert answer["causes"] == []
    (trigger,) = answer["triggers"]
    runs = await world.rendered(parse(TOOLS, trigger["next"]["tool"], trigger["next"]["arguments"]).call)
    assert {run["error"] for run in runs["data"]} == {"cin7Core is not connected"}


@pytest.mark.parametrize(("auth", "tool"), [("API_KEY", "create_connection"), ("OAUTH_2", "list_connections")])
async def test_app_that_takes_credentials_is_connected_by_the_suggested_call(
    world: World, auth: str, tool: str
) -> None:
    """A person authorises an OAuth app in the browser. Credentials are typed."""
    cin7 = world.sandbox.state.named("connectors", "cin7Core")
    cin7["authMethods"][0]["type"] = auth
    widget = world.id_of("customers", "Widget Inc")
    (cause,) = (await world.ask(Diagnose(workflow_id="wf_7be2150c84af")))["causes"]
    assert cause["next"]["tool"] == tool
    assert ("create_connection" in cause["fix"]) == (tool == "create_connection")
    if tool == "create_connection":
        assert cause["next"]["arguments"] == {"connector_id": cin7["id"], "customer_id": widget}


@pytest.mark.parametrize("other", [{"workflow_id": "update-inventory"}, {"customer_id": "acme-corp"}])
async def test_trigger_with_a_workflow_or_customer_that_is_not_its_own_is_refused(world: World, other: Any) -> None:
    """The runs of that workflow are not runs of the trigger."""
    refused = await world.expect(NotSent, Diagnose(trigger_id="Daily TikTok sync", **other))
    assert "trigger_id: this trigger" in str(refused)
    await world.ask(Diagnose(trigger_id="Daily TikTok sync", customer_id="Katana", workflow_id="wf_96d1b3072c5a"))


async def test_trigger_that_does_not_say_what_it_starts_is_diagnosed_with_the_workflow(world: World) -> None:
    trigger = world.sandbox.state.named("triggers", "Daily TikTok sync", "name")
    workflow = trigger.pop("routes")[0]["routeId"]
    assert (await world.ask(Diagnose(trigger_id=trigger["id"], workflow_id=workflow)))["verdict"]


async def test_trigger_that_a_person_switched_off_needs_no_repair(world: World) -> None:
    nightly = world.sandbox.state.named("triggers", "Nightly contact sync", "name")
    nightly |= {"consecutiveFailures": 0, "statusHistory": [{"status": "Disabled", "by": "lee@fastn.example"}]}
    (trigger,) = (await world.ask(Diagnose(trigger_id=nightly["id"])))["triggers"]
    assert trigger["fix"] == "Switch it on if it should run."


async def test_more_causes_are_opened_by_the_cursor(world: World) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    for number in range(60):
        message = f"odd {letters[number % 26]}{letters[number // 26]}"
        add_run(world, ORDERS, 1, "failed", error={"message": message})
    first = await world.ask(Diagnose(workflow_id=ORDERS))
    lines = [cause["headline"] if "headline" in cause else cause["message"] for cause in first["causes"]]
    lines += first["other_causes"]
    answer = first
    while cursor := answer.get("next_cursor"):
        assert re.search(r"^\d+ more causes, see next_cursor: \d+ runs$", lines.pop())
        answer = (await world.rendered_tool("diagnose", workflow_id=ORDERS, cursor=cursor))["data"]
        assert answer["verdict"].startswith("Causes ")
        assert answer["causes"] == []
        lines += answer["other_causes"]
    assert len({re.sub(r" \(exec.*", "", line) for line in lines}) == len(lines)
    assert len(lines) >= 60
    assert Counter(line.count("exec_") for line in lines[3:]) == {1: len(lines) - 3}


async def test_connections_that_could_not_be_read_are_not_an_empty_list(world: World) -> None:
    world.refuse("/api/v1/connections")
    answer = await world.ask(Diagnose(customer_id="acme-corp"))
    assert "connections" not in answer
    assert any("connections" in what for what in answer["not_checked"])
