"""Tests of diagnose_workflow, against a sandbox that fails in every way that Fastn documents."""

from datetime import timedelta
from typing import Any, cast

import pytest
from faulty_sandbox import Garbage, Status
from pydantic import JsonValue
from pydantic_core import to_json
from world import World

from fastn_mcp.errors import FastnError, NotFound, NotSent
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.catalog import BY_NAME, parse
from fastn_mcp.procedures.diagnosis.diagnose_workflow import LONGEST, DiagnoseWorkflow
from fastn_mcp.procedures.diagnosis.failures import by_cause, ended_run, normalised
from fastn_mcp.sandbox.behaviour import Behaviour, Envelope, Filtering, Paging
from fastn_mcp.sandbox.executions import execution, no_connection, out_of_memory, timed_out
from fastn_mcp.sandbox.state import Row
from fastn_mcp.server.rendering import render

pytestmark = pytest.mark.anyio

TIKTOK, ORDERS, CONTACTS = "wf_96d1b3072c5a", "wf_0d93ee5b1f62", "wf_7be2150c84af"
SETTLEMENTS, BACKFILL, TRACKING, INVENTORY = (
    "wf_e5047fb2a8c3",
    "wf_58c9d02e7f14",
    "wf_3a8e47d19b60",
    "wf_c27aa8f04e19",
)


async def diagnosed(world: World, workflow: str, **more: Any) -> dict[str, Any]:
    """Return the diagnosis as the model reads it. Checks its size, and that its calls are valid."""
    call = DiagnoseWorkflow(workflow_id=workflow, **more)
    outcome = await world.call(call)
    assert isinstance(outcome, Done), outcome
    answer = render(call, outcome.result, {}, None)
    assert len(to_json(answer).decode()) < 4_500
    data = cast("dict[str, Any]", answer["data"])
    for found in _calls(data):
        assert parse(BY_NAME, found["tool"], found["arguments"]).call
    assert world.changes == []
    return data


def _calls(value: object) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [call for item in cast("list[object]", value) for call in _calls(item)]
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        own = [entries] if entries.keys() == {"tool", "arguments"} else []
        return own + [call for item in entries.values() for call in _calls(item)]
    return []


def add_run(world: World, workflow: str, hours_ago: float, status: str = "failed", **more: JsonValue) -> Row:
    state = world.sandbox.state
    row = state.get("workflows", workflow)
    assert row is not None
    begun = world.clock.at - timedelta(hours=hours_ago)
    return state.put("executions", execution(state.short_id("exec"), row, status, begun, 900, "webhook", **more))


def customer(world: World, slug: str) -> str:
    return str(world.sandbox.state.named("customers", slug)["id"])


async def test_verdict_names_a_revoked_connection_with_its_remedy(world: World) -> None:
    """Fastn's documentation: the customer re-authorises in the widget; a Dependency Error does not fix itself."""
    found = await diagnosed(world, TIKTOK, hours=720)
    assert found["verdict"] == (
        "Failing for 8 days (9 of 9 runs; last success 1 week ago): the connection TikTok Shop of Katana is FAILED."
    )
    assert next(iter(found)) == "verdict"
    (cause,) = found["causes"]
    assert (cause["count"], cause["share"], cause["customers"]) == (9, "100 %", ["Katana"])
    assert cause["failing_step"] == "connector.tiktokShop.getAuthorizedShops (Step 2 of 2)"
    assert cause["first_seen"].startswith("2026-11-16T15:00:00Z (")
    assert cause["last_seen"] == "2026-11-24T15:00:00Z (18 hours ago)"
    assert "authorise the app again in the widget" in cause["fix"]
    assert "rerun" in cause["will_not_help"]
    assert cause["next"]["tool"] == "list_connections"
    assert [entry["status"] for entry in found["connections"]] == ["FAILED", "EXPIRED"]
    assert found["triggers"][0]["problem"].startswith("9 consecutive failures")
    assert found["changes"][-1]["before_failures"] is True
    assert "not_checked" not in found


async def test_verdict_says_at_least_if_failing_since_before_the_period(world: World) -> None:
    """Ours: runs before the period were not read."""
    found = await diagnosed(world, TIKTOK)
    assert found["verdict"].startswith("Failing for at least 2 days (3 of 3 runs; last success 1 week ago)")
    assert found["runs"]["last_success"].startswith("2026-11-15T15:00:00Z")


async def test_requests_are_bounded_and_only_reads(world: World) -> None:
    """Ours: at most fourteen requests for any account."""
    for number in range(310):
        error: Row = {"code": f"E{'abcdefg'[number % 7]}", "message": "odd"}
        add_run(world, ORDERS, 0.1 + number / 10, endOrgId=customer(world, "acme-corp"), error=error)
        add_run(world, ORDERS, 0.1 + number / 10, "timeout", endOrgId=customer(world, "widget-inc"), error=None)
    before = len(world.sandbox.requests)
    found = await diagnosed(world, ORDERS)
    heard = world.sandbox.requests[before:]
    assert len(heard) <= 14
    assert {request.method for request in heard} == {"GET"}
    assert found["runs"]["failed"] == "300 or more"
    assert found["other_causes"]["causes"] == 5
    assert any("three pages" in message for message in found["not_checked"])
    assert "at least 300" in found["verdict"]


async def test_failures_are_grouped_without_ids_and_numbers(world: World) -> None:
    """Ours: a cause is a code, a failing step and a message, without the parts that differ between runs."""
    for number in range(4):
        raw = f"Order 'SO-{number}' of end-org 9375e42d-9510-4c95-a6a6-d9d89cf7{number:04x} took {number} ms"
        add_run(world, ORDERS, 1 + number, error={"code": "USER_DATA", "failedAt": "connector.slack.send", "raw": raw})
    add_run(
        world, ORDERS, 3, error={"code": "USER_DATA", "failedAt": "connector.shopify.get", "raw": "Order '1' is odd"}
    )
    found = await diagnosed(world, ORDERS)
    assert [(cause["count"], cause["share"]) for cause in found["causes"]] == [(4, "80 %"), (1, "20 %")]
    assert found["causes"][0]["next"]["tool"] == "get_execution"


@pytest.mark.parametrize(
    ("error", "status", "likely", "will_not_help", "tool"),
    [
        (out_of_memory(), "failed", "more memory", "never retried", "get_workflow"),
        (timed_out(30_000), "timeout", "limit of 30 s (tier INSTANT)", "as much to do", "get_workflow"),
        (None, "timeout", "limit of 30 s", "as much to do", "get_workflow"),
        ({"code": "WORKFLOW_NOT_PUBLISHED"}, "failed", "no published version", "Running it again", "get_workflow"),
        ({"code": "QUOTA_EXCEEDED"}, "failed", "quota", "before the reset", "get_quotas"),
        ({"message": "429 Too Many Requests"}, "failed", "more often than it allows", "at once", "get_execution"),
        ("TypeError: x is not a function\n  at y", "failed", "own code", "same input", "get_execution"),
        ({"tag": "Dependency Error", "message": "boom"}, "failed", "could not be reached", "retry", "get_execution"),
        ({"code": "USER_DATA", "message": "odd"}, "failed", "not accepted", "same input", "get_execution"),
        ({"code": "CONFIGURATION"}, "failed", "setting is missing", "before that is set", "get_execution"),
        ({"error": {"message": "Who knows"}}, "failed", "Not one of the known causes", "Guessing", "get_execution"),
        ([{"message": "Who knows"}], "failed", "Not one of the known causes", "Guessing", "get_execution"),
    ],
)
async def test_known_causes_have_their_own_remedy(
    world: World, error: JsonValue, status: str, likely: str, will_not_help: str, tool: str
) -> None:
    """Fastn's documentation of errors; the texts are ours."""
    add_run(world, ORDERS, 1, status, error=error)
    (cause,) = (await diagnosed(world, ORDERS))["causes"]
    assert likely in cause["likely_cause"]
    assert will_not_help in cause["will_not_help"]
    assert cause["fix"]
    assert cause["next"]["tool"] == tool


async def test_out_of_memory_is_recognized_by_peak_use(world: World) -> None:
    """Fastn's documentation: status failed, peakSandboxMB near its limit."""
    add_run(world, ORDERS, 1, error=None, summary={"peakSandboxMB": 512, "sandboxMemoryLimitMB": 512})
    (cause,) = (await diagnosed(world, ORDERS))["causes"]
    assert "memory" in cause["likely_cause"]


async def test_missing_connection_and_one_repaired_since(world: World) -> None:
    """Fastn's documentation: `No active connection for connector …`."""
    globex, acme = customer(world, "widget-inc"), customer(world, "acme-corp")
    message = 'No active connection for connector "shopify" and end-org'
    for key in (globex, acme):
        add_run(world, ORDERS, 1, endOrgId=key, error={"code": "CONNECTION", "raw": f"{message} {key}"})
    missing = await diagnosed(world, ORDERS, customer_id=globex)
    assert "There is none" in missing["causes"][0]["likely_cause"]
    mended = await diagnosed(world, ORDERS, customer_id=acme)
    assert "ACTIVE now" in mended["causes"][0]["likely_cause"]
    assert mended["causes"][0]["next"]["tool"] == "get_workflow"


async def test_connection_not_found_suggests_the_installation(world: World) -> None:
    """Third parties: a workflow that a widget installed runs only with customer and installation."""
    acme = customer(world, "acme-corp")
    add_run(world, TRACKING, 1, endOrgId=acme, error=no_connection("shopify", acme))
    found = await diagnosed(world, TRACKING)
    (cause,) = found["causes"]
    assert "the connection to shopify was not found, though one is ACTIVE now" in found["verdict"]
    assert "did not name the installation" in cause["likely_cause"]
    assert "this customer's installation_id (inst_…)" in cause["fix"]
    assert cause["category"] == "Configuration"
    assert cause["fastn_suggests"] == "Let the customer connect shopify in the widget."


async def test_verdict_without_failures_names_the_last_success(world: World) -> None:
    """Ours: that nothing is wrong is an answer."""
    found = await diagnosed(world, ORDERS)
    assert found["verdict"] == "No failures in 72 hours: 15 runs completed, last success 3 hours ago."
    assert found["causes"] == []


async def test_verdict_names_the_customer_if_others_succeed(world: World) -> None:
    """Ours: one workflow runs for many customers."""
    add_run(world, ORDERS, 5, endOrgId=customer(world, "globex-exports"), error={"message": "odd"})
    found = await diagnosed(world, ORDERS)
    assert found["verdict"].startswith("Failing each time for Globex Exports, and not for others (1 of 16 runs)")


async def test_verdict_of_a_workflow_that_works_again(world: World) -> None:
    """Ours: the last run counts."""
    acme = customer(world, "acme-corp")
    add_run(world, ORDERS, 5, endOrgId=acme, error={"message": "odd"})
    again = await diagnosed(world, ORDERS)
    assert again["verdict"].startswith("It worked the last time (last success 3 hours ago), but 1 of 16 runs failed")
    add_run(world, ORDERS, 0.1, endOrgId=acme, error={"message": "odd"})
    anew = await diagnosed(world, ORDERS)
    assert anew["verdict"].startswith("Failing for 6 minutes (1 runs since the last success; 2 of 17 in 72 h)")


@pytest.mark.parametrize(
    ("workflow", "why"),
    [
        (SETTLEMENTS, "never published (WORKFLOW_NOT_PUBLISHED)"),
        (BACKFILL, "switched off (inactive); no trigger starts it"),
        (TRACKING, "a trigger is active and may not have been due"),
        (CONTACTS, "trigger Nightly contact sync: disabled by the platform 4 days ago: 20 consecutive failures"),
    ],
)
async def test_verdict_says_why_a_workflow_does_not_run(world: World, workflow: str, why: str) -> None:
    """Fastn's documentation: not published is the most common cause of "the API did nothing"; Active is not firing."""
    found = await diagnosed(world, workflow)
    assert found["verdict"].startswith("No runs completed or failed in 72 hours: ")
    assert why in found["verdict"]


async def test_trigger_with_failed_subscription_never_fires(world: World) -> None:
    """Fastn's documentation: subscriptionStatus is separate from status."""
    state = world.sandbox.state
    (trigger,) = [row for row in state.all("triggers") if row["name"] == "Paid Shopify orders"]
    routes: list[JsonValue] = [{"routeId": BACKFILL}]
    state.put("triggers", {**trigger, "routes": routes})
    found = await diagnosed(world, BACKFILL)
    assert "its subscription is FAILED: it never fires" in found["verdict"]
    assert found["triggers"][0]["next"]["tool"] == "get_trigger"
    assert found["connections"][0]["status"] == "INACTIVE"


async def test_no_trigger_is_reported_only_if_all_were_read(world: World) -> None:
    """Ours: "no trigger starts it" needs a complete list."""
    state = world.sandbox.state
    trigger = state.all("triggers")[0]
    for number in range(600):
        state.put("triggers", {**trigger, "id": f"t{number}", "name": f"T{number}", "routes": []})
    before = len(world.sandbox.requests)
    found = await diagnosed(world, BACKFILL)
    assert len(world.sandbox.requests) - before <= 14
    assert "no trigger that was read starts it" in found["verdict"]
    assert "triggers: only 500 were read" in found["not_checked"]


async def test_unread_connection_is_not_reported_as_missing(world: World) -> None:
    """Ours: only two customers' connections are read."""
    message = "No active connection for connector"
    for number in range(3):
        for _ in range(5 - number):
            key = f"customer-{number}"
            add_run(world, ORDERS, 1, endOrgId=key, error={"code": f"CONN-AUTH-FAILED-{'abc'[number]}", "raw": message})
    found = await diagnosed(world, ORDERS)
    states = [cause["likely_cause"].partition("used. ")[2] for cause in found["causes"]]
    assert states == ["There is none for whom it ran."] * 2 + ["Its state could not be read."]


async def test_disabled_trigger_has_the_call_that_enables_it(world: World) -> None:
    """Ours: `next` is a valid call, for the caller to make."""
    found = await diagnosed(world, CONTACTS)
    disabled = next(trigger for trigger in found["triggers"] if trigger["status"] == "Disabled")
    assert disabled["next"]["tool"] == "update_trigger"
    assert disabled["next"]["arguments"]["status"] == "Active"


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/api/v1/audit", "audit log"),
        ("/api/v1/triggers", "triggers"),
        ("/api/v1/connections", "connections of"),
        ("/api/v1/customers/*", ""),
        ("/api/v1/workflows/*", "workflow"),
        ("/api/v1/executions/*", "run exec_"),
    ],
)
async def test_failed_read_is_not_checked_and_the_rest_is_reported(
    world: World, path: str, what: str, status: int
) -> None:
    """Ours: the audit log is only for owners and admins, and other reads may fail too."""
    world.sandbox.faults.add(Status(status=status, path=path, times=None))
    found = await diagnosed(world, TIKTOK)
    assert found["causes"][0]["count"] == 3
    assert not what or any(message.startswith(what) for message in found["not_checked"])


async def test_unreadable_answer_is_a_failed_read(world: World) -> None:
    """Ours: it does not fail the diagnosis."""
    world.sandbox.faults.add(Garbage(path="/api/v1/triggers", times=None))
    found = await diagnosed(world, TIKTOK)
    assert any(message.startswith("triggers: ") for message in found["not_checked"])


async def test_unreadable_failures_are_not_reported_as_none(world: World) -> None:
    """Ours: what could not be checked is never reported as good."""
    world.sandbox.faults.add(Status(status=500, path="/api/v1/executions", times=None))
    found = await diagnosed(world, TIKTOK)
    assert found["verdict"].startswith("Whether it failed could not be read.")


async def test_unknown_workflow_is_an_error(world: World) -> None:
    """Ours: without runs and workflow there is no diagnosis."""
    missing = await world.call(DiagnoseWorkflow(workflow_id="wf_000000000000"))
    assert isinstance(missing, NotFound)
    crooked = await world.call(DiagnoseWorkflow(workflow_id="../api-keys"))
    assert isinstance(crooked, NotSent)
    world.sandbox.faults.add(Status(status=401, times=None))
    refused = await world.call(DiagnoseWorkflow(workflow_id=TIKTOK))
    assert isinstance(refused, FastnError)
    assert refused.outcome == "unauthorized"


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(filtering=Filtering.IGNORED),
        Behaviour(envelope=Envelope.BARE, paging=Paging.SILENT),
        Behaviour(envelope=Envelope.DATA_DATA, paging=Paging.IGNORED, filtering=Filtering.IGNORED),
        Behaviour(envelope=Envelope.RESULTS, paging=Paging.CURSOR),
    ],
)
async def test_verdict_does_not_depend_on_envelope_paging_or_filtering(world: World, behaviour: Behaviour) -> None:
    """Ours: filters and paging may be ignored, and envelopes differ."""
    world.sandbox.behaviour = behaviour
    before = len(world.sandbox.requests)
    found = await diagnosed(world, TIKTOK)
    assert "the connection TikTok Shop of Katana is FAILED" in found["verdict"]
    assert found["causes"][0]["count"] >= 3
    assert len(world.sandbox.requests) - before <= 14


async def test_unexpected_rows_are_tolerated(world: World) -> None:
    """Ours: every field may be missing or of another type."""
    state = world.sandbox.state
    oddities: list[JsonValue] = [None, 7, [], {}, "x", True]
    for number, odd in enumerate(oddities):
        row = add_run(world, INVENTORY, 1 + number, error=odd)
        state.put("executions", {**row, "summary": odd, "endOrgId": odd if isinstance(odd, str) else None})
    workflow = state.get("workflows", INVENTORY)
    assert workflow is not None
    state.put("workflows", {**workflow, "connectors": [None, 3, {}], "timeoutMs": "long", "name": None})
    trigger = state.all("triggers")[0]
    for number, odd in enumerate(oddities):
        routes: list[JsonValue] = [{"routeId": INVENTORY}]
        state.put("triggers", {**trigger, "id": f"odd{number}", "routes": routes, "statusHistory": odd, "status": odd})
    found = await diagnosed(world, INVENTORY)
    assert found["runs"]["failed"] == 6


async def test_longest_answer_fits(world: World) -> None:
    """Ours: under 4,500 characters, the verdict first, with the number of dropped entries."""
    state = world.sandbox.state
    for number in range(9):
        kind = "abcdefghi"[number]
        error: Row = {
            "code": "CODE_" + kind * 80,
            "failedAt": kind * 400,
            "headline": f'"{kind}\\' * 300,
            "raw": f"{kind} \u202e" * 300,
        }
        add_run(world, TIKTOK, 1, endOrgId=customer(world, "katana-customer"), error=error)
    trigger = state.all("triggers")[0]
    for number in range(12):
        routes: list[JsonValue] = [{"routeId": TIKTOK}]
        state.put(
            "triggers", {**trigger, "id": f"t{number}", "name": "N" * 300, "routes": routes, "status": "Disabled"}
        )
    found = await diagnosed(world, TIKTOK, hours=720)
    assert found["left_out"]
    assert len(to_json(found)) <= LONGEST + 200
    assert found["verdict"].startswith("Failing for 8 days")


def test_cause_omits_parts_that_differ_between_runs() -> None:
    """Ours: digits, ids and quoted values are replaced; an apostrophe within a word is not a quote."""
    assert normalised("Order 12 of 'Acme' failed at 10:04:05Z") == "Order … of … failed at …"
    assert normalised("it can't be, it doesn't work") == "it can't be, it doesn't work"
    assert normalised("user dana@fastn.example deadbeef") == "user … …"


def test_failing_step_is_taken_from_the_steps_if_the_error_has_none() -> None:
    """Fastn's older documentation: steps with status and errors."""
    steps: list[JsonValue] = [{"name": "get", "status": "completed"}, {"name": "send", "status": "FAILED"}, 3]
    found = ended_run({"id": "e", "status": "failed", "steps": steps})
    assert (found.failed_at, found.at, found.customer) == ("send", None, None)
    assert by_cause([found])[0].times == []
