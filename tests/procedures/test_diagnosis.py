"""Tests of diagnose, against a sandbox that fails in every way that Fastn documents."""

import re
from datetime import timedelta
from typing import Any, cast

import pytest
from pydantic import JsonValue
from pydantic_core import to_json
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.runs import add_run, drop_runs_under_way
from support.world import World

from fastn_mcp.errors import NotFound, Unauthorized
from fastn_mcp.extensions.sandbox.executions import no_connection, out_of_memory, timed_out
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.checks.failures import ended_run, grouped, normalised
from fastn_mcp.procedures.diagnosis.diagnose import MAX_CHARACTERS, Diagnose
from fastn_mcp.tools.triggers import UpdateTrigger
from fastn_mcp.tools.workflows import ListWorkflows

TIKTOK, ORDERS, CONTACTS = "wf_96d1b3072c5a", "wf_0d93ee5b1f62", "wf_7be2150c84af"
SETTLEMENTS, BACKFILL = "wf_e5047fb2a8c3", "wf_58c9d02e7f14"
TRACKING, INVENTORY = "wf_3a8e47d19b60", "wf_c27aa8f04e19"


async def diagnosed(world: World, **arguments: Any) -> dict[str, Any]:
    """Return the diagnosis as the model reads it. Checks its size, and that its calls are valid."""
    answer = await world.rendered_tool("diagnose", **arguments)
    assert len(to_json(answer)) <= MAX_CHARACTERS + 1_000, "texts of Fastn grow where they are made safe"
    for found in _calls(answer["data"]):
        assert parse(TOOLS, found["tool"], found["arguments"]).call
    return answer["data"]


def _calls(value: object) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [call for item in cast("list[object]", value) for call in _calls(item)]
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        own = [entries] if entries.keys() == {"tool", "arguments"} else []
        return own + [call for item in entries.values() for call in _calls(item)]
    return []


async def test_verdict_names_a_revoked_connection_with_its_remedy(world: World) -> None:
    """Fastn's documentation: the customer re-authorises in the widget; a Dependency Error does not fix itself."""
    answer = await diagnosed(world, workflow_id=TIKTOK, hours=720)
    assert (
        answer["verdict"]
        == "Failing for 9 days, since 2026-11-16 (9 of 29 runs; last success 10 days ago): the connection TikTok"
        " Shop of Katana is FAILED (authorisation revoked, or no longer valid), and the next run would then meet"
        " Cin7 Core of Katana (EXPIRED)."
    )
    assert next(iter(answer)) == "verdict"
    (cause,) = answer["causes"]
    assert (cause["runs"], cause["share"]) == (9, "100 % of the failures")
    assert cause["affected"] == [
        {
            "customer": "Katana",
            "failed": "9 of 29",
            "since": "2026-11-16T15:00:00Z (9 days ago)",
            "last_success": "2026-11-15T15:00:00Z (10 days ago)",
        }
    ]
    assert cause["failing_step"] == "connector.tiktokShop.getAuthorizedShops (Step 2 of 2)"
    assert cause["first_seen"].startswith("2026-11-16T15:00:00Z (")
    assert cause["last_seen"] == "2026-11-24T15:00:00Z (18 hours ago)"
    assert (
        cause["fix"] == "Katana has to authorise TikTok Shop again in the widget. "
        "Katana has to enter a new API key for Cin7 Core in the widget. Then run the workflow once."
    )
    assert "rerun" in cause["will_not_help"]
    assert cause["next"]["tool"] == "list_connections"
    assert [entry["status"] for entry in answer["connections"]] == ["FAILED", "EXPIRED"]
    assert not any("fix" in entry for entry in answer["connections"])
    assert answer["triggers"][0]["problem"].startswith("9 failures in a row")
    assert answer["triggers"][0]["of"] == "Katana"
    assert answer["changes"][-1]["before_failures"] is True
    assert "not_checked" not in answer


async def test_verdict_of_the_account_does_not_blame_every_cause_on_what_fails_each_time(world: World) -> None:
    assert (await diagnosed(world))["verdict"].startswith(
        "4 of 101 runs failed in 72 hours, of 2 workflows, for 2 customers (last success 1 hour ago): 3 because the"
        " connection TikTok Shop of Katana is FAILED (authorisation revoked, or no longer valid), and the next run"
        " would then meet Cin7 Core of Katana (EXPIRED); 1 because a run does not end within its limit of 120"
        " s (tier STANDARD), while completed runs take at most 18 s (1 seen). These have failed every time for 9 days,"
        " since 2026-11-16: Sync TikTok Orders to Cin7 Core for Katana. But 2 runs"
    )


async def test_since_is_searched_back_to_the_last_success(world: World) -> None:
    add_run(world, TIKTOK, 0.5, endOrgId=world.id_of("customers", "katana-customer"), error={"message": "odd"})
    answer = await diagnosed(world, workflow_id=TIKTOK, hours=1)
    assert answer["verdict"].startswith("Failing for 9 days, since 2026-11-16 (")
    assert answer["causes"][0]["affected"][0]["since"].startswith("2026-11-16T15:00:00Z")
    assert answer["runs"]["last_success"].startswith("2026-11-15T15:00:00Z")


@pytest.mark.parametrize("paging", [Paging.TOTAL_AND_CURSOR, Paging.CURSOR])
async def test_since_of_many_failures_is_exact_if_fastn_pages_by_offset(world: World, paging: Paging) -> None:
    """Otherwise the oldest page cannot be read directly, and the time is a bound."""
    katana = world.id_of("customers", "katana-customer")
    for hours_ago in (1, *range(100, 350)):
        add_run(world, ORDERS, hours_ago, endOrgId=katana, error={"message": "odd"})
    world.behave(paging=paging)
    diagnosis = await diagnosed(world, workflow_id=ORDERS, customer_id=katana)
    (affected,) = diagnosis["causes"][0]["affected"]
    if paging is Paging.CURSOR:
        assert re.fullmatch(r"2026-11-1.* or earlier", affected["since"])
        assert ", since" not in diagnosis["verdict"]
        assert "for at least" in diagnosis["verdict"]
    else:
        oldest = (world.clock.at - timedelta(hours=349)).isoformat(timespec="seconds").replace("+00:00", "Z")
        assert affected["since"].startswith(oldest)
        assert affected["last_success"] == "none found"


async def test_failures_are_counted_exactly_and_requests_are_only_reads(world: World) -> None:
    """Pages are read at once where Fastn pages by offset."""
    acme, widget = world.id_of("customers", "acme-corp"), world.id_of("customers", "widget-inc")
    for number in range(310):
        error: Row = {"code": f"E{'abcdefg'[number % 7]}", "message": "odd"}
        add_run(world, ORDERS, 0.1 + number / 10, endOrgId=acme, error=error)
        add_run(world, ORDERS, 0.1 + number / 10, "timeout", endOrgId=widget, error=None)
    before = len(world.sandbox.requests)
    answer = await diagnosed(world, workflow_id=ORDERS)
    heard = world.sandbox.requests[before:]
    assert len(heard) <= 45
    assert {request.method for request in heard} == {"GET"}
    assert (answer["runs"]["failed"], answer["runs"]["timeout"]) == (310, 310)
    assert [cause["runs"] for cause in answer["causes"]] == [310, 45, 45]
    assert answer["causes"][0]["affected"][0] == {
        "customer": "Widget Inc",
        "failed": "310",
        "since": answer["causes"][0]["first_seen"],
        "last_success": "none found",
    }
    assert len(answer["other_causes"]) == 5
    assert answer["verdict"].startswith("620 of 635 runs failed in 72 hours, for 2 customers (")


async def test_counts_are_bounds_if_a_limit_stops_the_reads(world: World) -> None:
    for number in range(620):
        add_run(
            world, ORDERS, 0.1 + number / 10, endOrgId=world.id_of("customers", "acme-corp"), error={"message": "odd"}
        )
    add_run(world, ORDERS, 70, "completed")
    world.sandbox.state.rows["workflows"][ORDERS]["updatedAt"] = (world.clock.at - timedelta(hours=55)).isoformat()
    world.behave(paging=Paging.CURSOR)
    answer = await diagnosed(world, workflow_id=ORDERS)
    since = answer["runs"]["failures_since"].partition(" (")[0]
    assert answer["runs"]["failed"] == f"499 since {since}", "the second of the oldest may have others"
    assert "at least 499" in answer["verdict"]
    assert any("only the newest 500" in message for message in answer["not_checked"])
    (update,) = [change for change in answer["changes"] if change["what"] == "last update"]
    assert "before_failures" not in update, "an older failure was not read"


async def test_failures_are_grouped_without_ids_and_numbers(world: World) -> None:
    for number in range(4):
        raw = f"Order 'SO-{number}' of end-org 9375e42d-9510-4c95-a6a6-d9d89cf7{number:04x} took {number} ms"
        add_run(world, ORDERS, 1 + number, error={"code": "USER_DATA", "failedAt": "connector.slack.send", "raw": raw})
    add_run(
        world, ORDERS, 3, error={"code": "USER_DATA", "failedAt": "connector.shopify.get", "raw": "Order '1' is odd"}
    )
    answer = await diagnosed(world, workflow_id=ORDERS)
    assert [(cause["runs"], cause["share"][:4]) for cause in answer["causes"]] == [(4, "80 %"), (1, "20 %")]
    assert answer["causes"][0]["next"]["tool"] == "get_execution"


@pytest.mark.parametrize(
    ("error", "status", "likely", "will_not_help", "tool"),
    [
        (out_of_memory(), "failed", "more memory", "never retried", "get_workflow"),
        (timed_out(30_000), "timeout", "hangs until its limit of 30 s (tier INSTANT)", "A higher", "get_execution"),
        (None, "timeout", "hangs until its limit of 30 s", "A higher", "get_execution"),
        ({"code": "WORKFLOW_NOT_PUBLISHED"}, "failed", "no published version", "Running it again", "get_workflow"),
        ({"code": "QUOTA_EXCEEDED"}, "failed", "quota", "before the reset", "get_quotas"),
        ({"message": "429 Too Many Requests"}, "failed", "more often than it allows", "immediately", "get_execution"),
        ("TypeError: x is not a function\n  at y", "failed", "own code", "same input", "get_execution"),
        ({"tag": "Dependency Error", "message": "boom"}, "failed", "could not be reached", "retry", "get_execution"),
        ({"code": "USER_DATA", "message": "odd"}, "failed", "not accepted", "same input", "get_execution"),
        ({"code": "CONFIGURATION"}, "failed", "setting is missing", "before that is set", "get_execution"),
        ({"error": {"message": "Who knows"}}, "failed", "No known cause fits", "Guessing", "get_execution"),
        ([{"message": "Who knows"}], "failed", "No known cause fits", "Guessing", "get_execution"),
    ],
)
async def test_known_causes_have_their_own_remedy(
    world: World, error: JsonValue, status: str, likely: str, will_not_help: str, tool: str
) -> None:
    """Fastn's documentation of errors; the texts are ours."""
    add_run(world, ORDERS, 1, status, error=error)
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert likely in cause["likely_cause"]
    assert will_not_help in cause["will_not_help"]
    assert cause["fix"]
    assert cause["next"]["tool"] == tool


async def test_longer_limit_is_advised_only_for_runs_that_take_nearly_as_long(world: World) -> None:
    """Runs that take 25 s need more than 30 s at times; runs that take 80 ms hang."""
    for number in range(3):
        add_run(world, ORDERS, 2 + number, "completed", durationMs=25_000 - number)
    add_run(world, ORDERS, 1, "timeout", error=timed_out(30_000))
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert (
        "takes longer than its limit of 30 s (tier INSTANT), while completed runs take at most 25 s"
        in cause["likely_cause"]
    )
    assert "execution_tier STANDARD" in cause["fix"]
    assert "as much to do" in cause["will_not_help"]


async def test_few_completed_runs_do_not_tell_that_a_run_hangs(world: World) -> None:
    answer = await diagnosed(world, hours=168)
    (cause,) = [each for each in answer["causes"] if "limit of 120 s" in each["likely_cause"]]
    assert cause["likely_cause"].startswith("A run does not end within its limit of 120 s")
    assert "(1 seen)" in cause["likely_cause"]
    assert "see how long more completed runs take (list_executions)" in cause["fix"]


async def test_hanging_run_of_a_workflow_that_never_completed_is_not_told_from_a_long_one(world: World) -> None:
    """One page of completed runs is looked for, since no other read shows how long they take."""
    rows = world.sandbox.state.rows["executions"]
    for row in [row for row in rows.values() if row["workflowId"] == ORDERS]:
        del rows[row["id"]]
    add_run(world, ORDERS, 1, "timeout", error=timed_out(30_000))
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert "no completed run was seen" in cause["likely_cause"]
    assert "execution_tier STANDARD" in cause["fix"]


async def test_cause_that_has_passed_since_does_not_say_that_a_rerun_will_not_help(world: World) -> None:
    acme = world.id_of("customers", "acme-corp")
    error: JsonValue = {"tag": "Dependency Error", "message": "boom"}
    add_run(world, ORDERS, 5, endOrgId=acme, error=error)
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert cause["fix"].startswith("It has completed since, 3 hours ago: running it again may do. If it fails again: ")
    assert "will_not_help" not in cause
    add_run(world, ORDERS, 0.1, endOrgId=acme, error=error)
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert "completed since" not in cause["fix"]
    assert "retry" in cause["will_not_help"]


@pytest.mark.parametrize(
    ("status", "scope", "owner", "is_met"),
    [
        ("EXPIRED", "MULTI_TENANT", "katana", True),
        ("INACTIVE", "MULTI_TENANT", "katana", True),
        ("ACTIVE", "MULTI_TENANT", "katana", False),
        ("PENDING", "MULTI_TENANT", "katana", False),
        ("EXPIRED", "MULTI_TENANT", "globex-exports", False),
        ("EXPIRED", "SAAS", "katana", False),
        ("EXPIRED", "SAAS", None, True),
        ("EXPIRED", None, None, True),
    ],
)
async def test_diagnosis_names_the_other_broken_connections_that_the_next_run_meets(
    world: World, status: str, scope: str | None, owner: str | None, *, is_met: bool
) -> None:
    state = world.sandbox.state
    flow = state.named("workflows", "sync-tiktok-orders-to-cin7-core")
    flow["connectors"][1]["scope"] = scope
    slug = flow["connectors"][1]["slug"]
    row = next(row for row in state.all("connections") if row["connector"]["slug"] == slug)
    customers = {"katana": "katana-customer"}
    key = None if owner is None else world.id_of("customers", customers.get(owner, owner))
    row |= {"status": status, "endOrgId": key}
    answer = await diagnosed(world, workflow_id=TIKTOK)
    (cause,) = answer["causes"]
    meets = f"and the next run would then meet Cin7 Core of {'Katana' if owner else 'your own account'}"
    assert (meets in answer["verdict"]) == (meets in cause["likely_cause"]) == is_met
    assert ("Cin7 Core" in cause["fix"]) == is_met
    assert cause["fix"].startswith("Katana has to authorise TikTok Shop again in the widget.")


async def test_out_of_memory_is_recognized_by_peak_use(world: World) -> None:
    """Fastn's documentation: status failed, peakSandboxMB near its limit."""
    add_run(world, ORDERS, 1, error=None, summary={"peakSandboxMB": 512, "sandboxMemoryLimitMB": 512})
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert "memory" in cause["likely_cause"]


async def test_missing_connection_and_one_repaired_since(world: World) -> None:
    """Fastn's documentation: `No active connection for connector …`."""
    globex, acme = world.id_of("customers", "widget-inc"), world.id_of("customers", "acme-corp")
    message = 'No active connection for connector "shopify" and end-org'
    for key in (globex, acme):
        add_run(world, ORDERS, 1, endOrgId=key, error={"code": "CONNECTION", "raw": f"{message} {key}"})
    missing = await diagnosed(world, workflow_id=ORDERS, customer_id=globex)
    assert "no affected customer has connected it" in missing["causes"][0]["likely_cause"]
    mended = await diagnosed(world, workflow_id=ORDERS, customer_id=acme)
    assert "ACTIVE now" in mended["causes"][0]["likely_cause"]
    assert mended["causes"][0]["next"]["tool"] == "get_workflow"


async def test_connection_not_found_suggests_the_installation(world: World) -> None:
    """Third parties: a workflow that a widget installed runs only with customer and installation."""
    acme = world.id_of("customers", "acme-corp")
    add_run(world, TRACKING, 1, endOrgId=acme, error=no_connection("shopify", acme))
    answer = await diagnosed(world, workflow_id=TRACKING)
    (cause,) = answer["causes"]
    assert "the connection to shopify was not found, though one is ACTIVE now" in answer["verdict"]
    assert "did not name the installation" in cause["likely_cause"]
    assert "this customer's installation_id (inst_…)" in cause["fix"]
    assert cause["category"] == "Configuration"
    assert cause["fastn_suggests"] == "Let the customer connect shopify in the widget."


@pytest.mark.parametrize(
    ("failures", "verdict"),
    [
        ([], "No failures in 72 hours: 15 of 15 runs completed, last success 3 hours ago."),
        (
            [(5, "globex-exports")],
            (
                "1 of 16 runs failed in 72 hours (last success 3 hours ago): no known cause fits, and the next run"
                " would then meet Shopify of Globex Exports (INACTIVE). These have failed every time for 5 hours, since"
                " 2026-11-25: Globex Exports."
            ),
        ),
        (
            [(5, "acme-corp")],
            "1 of 16 runs failed in 72 hours (last success 3 hours ago, 0 failed since): ",
        ),
        (
            [(5, "acme-corp"), (0.1, "acme-corp")],
            "2 of 17 runs failed in 72 hours (last success 3 hours ago, 1 failed since): ",
        ),
    ],
    ids=["no failures", "one customer", "works again", "fails again"],
)
async def test_verdict_says_since_when_and_for_whom(
    world: World, failures: list[tuple[float, str]], verdict: str
) -> None:
    for hours_ago, slug in failures:
        add_run(world, ORDERS, hours_ago, endOrgId=world.id_of("customers", slug), error={"message": "odd"})
    diagnosis = await diagnosed(world, workflow_id=ORDERS)
    assert diagnosis["verdict"].startswith(verdict)
    assert bool(diagnosis["causes"]) == bool(failures)


@pytest.mark.parametrize(
    ("workflow", "why"),
    [
        (SETTLEMENTS, "The workflow was never published: every run of it is refused (WORKFLOW_NOT_PUBLISHED)"),
        (
            BACKFILL,
            "The workflow is switched off: no trigger starts it, and run_workflow still does. No trigger starts it",
        ),
        (TRACKING, "A trigger is active, but may not have been due yet"),
        (
            CONTACTS,
            (
                "Trigger Nightly contact sync of Widget Inc was switched off by Fastn 4 days ago, after 20 failures in"
                " a row. The last 20 runs failed, because there is no working connection to cin7Core"
            ),
        ),
    ],
)
async def test_verdict_says_why_a_workflow_does_not_run(world: World, workflow: str, why: str) -> None:
    """Fastn's documentation: not published is the most common cause of "the API did nothing"; Active is not firing."""
    answer = await diagnosed(world, workflow_id=workflow)
    idle = (
        r"Nothing has run in the last 72 hours\. |No run .* in the last 72 hours \(2 runs under way or cancelled\)\. "
    )
    assert re.match(idle, answer["verdict"])
    assert why in answer["verdict"]


async def test_last_run_before_the_period_says_why_a_trigger_was_switched_off(world: World) -> None:
    """After too many failures there are no further runs, and the cause is older than the period."""
    nightly = world.id_of("triggers", "Nightly contact sync")
    widget = world.id_of("customers", "Widget Inc")
    row = add_run(world, CONTACTS, 80, error={"headline": "Cin7 refused the contact"}, endOrgId=widget)
    answer = await diagnosed(world, trigger_id=nightly)
    assert "The last run, 3 days ago, failed: Cin7 refused the contact" in answer["verdict"]
    assert answer["runs"]["last_run"].startswith(str(row["id"]))


async def test_no_trigger_is_reported_only_if_all_were_read(world: World) -> None:
    state = world.sandbox.state
    trigger = state.all("triggers")[0]
    for number in range(1100):
        state.put("triggers", {**trigger, "id": f"t{number}", "name": f"T{number}", "routes": []})
    assert "No trigger starts it" in (await diagnosed(world, workflow_id=BACKFILL))["verdict"]
    world.behave(filtering=Filtering.IGNORED)
    world.sandbox.requests.clear()
    answer = await diagnosed(world, workflow_id=BACKFILL)
    assert len(world.sandbox.requests) <= 30
    assert "No trigger that was read starts it" in answer["verdict"]
    assert "triggers: not all were looked through" in answer["not_checked"]


async def test_workflow_is_diagnosed_from_its_row_and_its_own_triggers(large_world: World) -> None:
    answer = await diagnosed(large_world, workflow_id="acme hubspot sync")
    assert "get_workflow" not in [request.tool for request in large_world.sandbox.requests]
    (triggers,) = [request.query for request in large_world.sandbox.requests if request.tool == "list_triggers"]
    assert triggers["workflowId"] == large_world.id_of("workflows", "Acme HubSpot sync")
    large_world.behave(filtering=Filtering.IGNORED)
    by_itself = await diagnosed(large_world, workflow_id=triggers["workflowId"])
    assert [row["id"] for row in answer["triggers"]] == [row["id"] for row in by_itself["triggers"]] != []


async def test_workflow_is_read_if_its_row_lacks_what_a_diagnosis_needs(world: World) -> None:
    name, send = "Sync TikTok Orders to Cin7 Core", world.client.send
    whole = await diagnosed(world, workflow_id=name)

    async def without_connectors(call: Any, *checks: Any) -> Any:
        answer: Any = await send(call, *checks)
        if isinstance(call, ListWorkflows):
            rows = [{name: value for name, value in row.items() if name != "connectors"} for row in answer.rows]
            answer = answer.model_copy(update={"rows": rows})
        return answer

    world.client.send = without_connectors  # pyright: ignore[reportAttributeAccessIssue]
    assert await diagnosed(world, workflow_id=name) == whole


async def test_unread_connection_is_not_reported_as_missing(world: World) -> None:
    key = world.id_of("customers", "widget-inc")
    add_run(world, ORDERS, 1, endOrgId=key, error={"raw": 'No active connection for connector "shopify"'})
    assert "no affected customer has connected it" in str((await diagnosed(world, workflow_id=ORDERS))["causes"])
    world.refuse("/api/v1/connections", status=500)
    assert "not all connections of the affected customers were read." in str(
        (await diagnosed(world, workflow_id=ORDERS))["causes"]
    )


@pytest.mark.parametrize("is_refused", [False, True])
async def test_connection_of_the_account_is_not_said_to_be_missing(world: World, *, is_refused: bool) -> None:
    """It has an active one to Slack."""
    add_run(world, ORDERS, 1, error={"raw": 'No active connection for connector "slack"'})
    if is_refused:
        world.refuse("/api/v1/connections")
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert cause["likely_cause"] == "There is no working connection to slack: it ran for no customer."


async def test_connection_that_does_not_name_its_app_is_not_reported_as_missing(world: World) -> None:
    for row in world.sandbox.state.all("connections"):
        del row["connector"]
    for arguments in ({"workflow_id": TIKTOK}, {"connector_id": "tiktokShop"}):
        (cause,) = (await diagnosed(world, **arguments))["causes"]
        assert "no affected customer has connected it" not in cause["likely_cause"]


async def test_connections_are_missing_only_where_those_of_all_customers_were_read(world: World) -> None:
    for name in ("widget-inc", "globex-exports", "acme-customer"):
        add_run(
            world,
            ORDERS,
            1,
            endOrgId=world.id_of("customers", name),
            error={"raw": 'No active connection for connector "slack"'},
        )
    assert "no affected customer has connected it" not in str((await diagnosed(world, workflow_id=ORDERS))["causes"])


@pytest.mark.parametrize(
    ("path", "status", "what"),
    [
        ("/api/v1/audit", 403, "audit log"),
        ("/api/v1/triggers", 404, "triggers"),
        ("/api/v1/connections", 500, "connections of status"),
        ("/api/v1/customers/*", 404, ""),
        ("/api/v1/workflows/*", 404, "workflow"),
        ("/api/v1/executions/*", 500, "run exec_"),
    ],
)
async def test_failed_read_is_not_checked_and_the_rest_is_reported(
    world: World, path: str, status: int, what: str
) -> None:
    """The audit log is only for owners and admins, and other reads may fail too."""
    world.refuse(path, status=status)
    answer = await diagnosed(world, workflow_id=TIKTOK)
    assert answer["causes"][0]["runs"] == 3
    assert not what or any(message.startswith(what) for message in answer["not_checked"])


async def test_unreadable_customer_is_not_checked_and_the_rest_is_reported(world: World) -> None:
    katana = world.id_of("customers", "katana-customer")
    world.refuse("/api/v1/customers/*")
    answer = await diagnosed(world, customer_id=katana)
    assert answer["customer"] == {"id": katana, "name": katana}
    assert answer["causes"][0]["runs"] == 3
    assert any(message.startswith("customer: ") for message in answer["not_checked"])


async def test_runs_of_customers_are_not_counted_for_the_account_itself(world: World) -> None:
    add_run(world, ORDERS, 1, error={"raw": "odd"})
    (cause,) = (await diagnosed(world, workflow_id=ORDERS))["causes"]
    assert cause["affected"] == [{"customer": "your own account", "failed": "1"}]
    add_run(world, TIKTOK, 1, endOrgId=None, error={"raw": "own"})
    causes = (await diagnosed(world, workflow_id=TIKTOK))["causes"]
    numbers = {row["customer"]: row["failed"] for cause in causes for row in cause["affected"]}
    assert numbers == {"Katana": "3 of 3", "your own account": "1"}


async def test_unread_successes_are_not_reported_as_such(world: World) -> None:
    """Fastn may ignore filters, so that the first rows tell of no success."""
    world.behave(filtering=Filtering.IGNORED)
    verdict = (await diagnosed(world, workflow_id=TIKTOK))["verdict"]
    assert verdict.startswith("3 runs failed in 72 hours (successes could not be read): the connection TikTok Shop of")


async def test_unreadable_failures_are_not_reported_as_none(world: World) -> None:
    world.refuse("/api/v1/executions", status=500)
    answer = await diagnosed(world, workflow_id=TIKTOK)
    assert answer["verdict"].startswith("Failed runs could not be read.")


async def test_unknown_workflow_is_an_error(world: World) -> None:
    for unknown in ("wf_000000000000", "../api-keys"):
        await world.expect(NotFound, Diagnose(workflow_id=unknown))


@pytest.mark.parametrize("call", [Diagnose(), Diagnose(workflow_id=TIKTOK), Diagnose(connector_id="hubspot")])
async def test_refused_key_is_an_error(world: World, call: Diagnose) -> None:
    world.refuse("*", status=401)
    await world.expect(Unauthorized, call)


async def test_nothing_is_started_in_an_account_without_triggers(world: World) -> None:
    for name in ("triggers", "executions", "_runs", "_expected"):
        world.sandbox.state.rows[name] = {}
    assert "in the last 72 hours. No trigger starts anything." in (await diagnosed(world))["verdict"]


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(envelope=Envelope.DATA_DATA, paging=Paging.IGNORED, filtering=Filtering.IGNORED),
        Behaviour(envelope=Envelope.RESULTS, paging=Paging.CURSOR),
    ],
)
async def test_verdict_does_not_depend_on_envelope_paging_or_filtering(world: World, behaviour: Behaviour) -> None:
    world.sandbox.behaviour = behaviour
    before = len(world.sandbox.requests)
    answer = await diagnosed(world, workflow_id=TIKTOK)
    assert "the connection TikTok Shop of Katana is FAILED" in answer["verdict"]
    assert answer["causes"][0]["runs"] >= 3
    assert len(world.sandbox.requests) - before <= 40


async def test_unexpected_rows_are_tolerated(world: World) -> None:
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
    answer = await diagnosed(world, workflow_id=INVENTORY)
    assert answer["runs"]["failed"] == 6


async def test_longest_answer_fits(world: World) -> None:
    """Under 4,500 characters, the verdict first, with the number of dropped entries."""
    state = world.sandbox.state
    for number in range(9):
        kind = "abcdefghi"[number]
        error: Row = {
            "code": "CODE_" + kind * 80,
            "failedAt": kind * 400,
            "headline": f'"{kind}\\' * 300,
            "raw": f"{kind} \u202e" * 300,
        }
        add_run(world, TIKTOK, 1, endOrgId=world.id_of("customers", "katana-customer"), error=error)
    trigger = state.all("triggers")[0]
    for number in range(12):
        routes: list[JsonValue] = [{"routeId": TIKTOK}]
        state.put(
            "triggers", {**trigger, "id": f"t{number}", "name": "N" * 300, "routes": routes, "status": "Disabled"}
        )
    answer = await diagnosed(world, workflow_id=TIKTOK, hours=720)
    assert answer["left_out"]
    assert answer["verdict"].startswith("Failing for 9 days")


async def test_name_is_searched_for_before_it_is_tried_as_an_id(large_world: World) -> None:
    answer = await diagnosed(large_world, customer_id="Katana")
    assert answer["customer"]["name"] == "Katana"
    assert "get_customer" not in [request.tool for request in large_world.sandbox.requests]


async def test_orders_of_a_customer_that_do_not_arrive_are_one_call(large_world: World) -> None:
    answer = await diagnosed(large_world, customer_id="Acme Corp")
    assert answer["customer"]["id"] == large_world.id_of("customers", "acme-corp")
    assert answer["verdict"].startswith(
        "Acme Corp: 10 of 111 runs failed in 72 hours (last success 1 hour ago): the connection HubSpot of Acme Corp "
        "is EXPIRED (credentials could not be renewed). These have failed every time for 1 day, since 2026-11-24: "
        "Acme HubSpot sync."
    )
    (cause,) = answer["causes"]
    (affected,) = cause["affected"]
    assert (affected["workflow"], affected["failed"]) == ("Acme HubSpot sync", "10 of 15")
    assert affected["since"].startswith("2026-11-24T01:00:00Z")
    assert cause["fix"] == "Acme Corp has to authorise HubSpot again in the widget. Then run the workflow once."
    assert {entry["workflow"] for entry in answer["without_failures"]} >= {"process-new-orders", "update-inventory"}
    assert {entry["what"]: entry["status"] for entry in answer["connections"]} == {
        "HubSpot of Acme Corp": "EXPIRED",
        "Xero of Acme Corp": "ACTIVE",
        "Slack of Acme Corp": "ACTIVE",
        "Shopify of Acme Corp": "ACTIVE",
    }


async def test_other_connections_are_read_if_a_customer_has_none_of_the_app(world: World) -> None:
    """Its run may use the account's own connection."""

    async def owners_read() -> tuple[str, set[str | None]]:
        world.sandbox.requests.clear()
        answer = await diagnosed(world, customer_id="Katana")
        heard = [heard for heard in world.sandbox.requests if heard.path == "/api/v1/connections"]
        return answer["causes"][0]["fix"], {each.query.get("endOrgId") for each in heard}

    customer = world.id_of("customers", "Katana")
    fix, owners = await owners_read()
    assert "Katana has to authorise TikTok Shop again" in fix
    assert owners == {customer}
    (row,) = (row for row in world.sandbox.state.all("connections") if row["status"] == "FAILED")
    world.sandbox.state.put("connections", row | {"endOrgId": None})
    fix, owners = await owners_read()
    assert "For your own account, a person has to authorise TikTok Shop again" in fix
    assert owners == {customer, None}


async def test_customer_without_problems_gets_what_was_checked(world: World) -> None:
    drop_runs_under_way(world)
    answer = await diagnosed(world, customer_id="acme-corp")
    assert answer["verdict"].startswith("Acme Corp: No failures in 72 hours: ")
    assert "last success" in answer["verdict"]
    assert answer["causes"] == []
    assert all(entry["last_success"] for entry in answer["without_failures"])
    assert [entry["status"] for entry in answer["connections"]] == ["ACTIVE"] * 3
    assert {trigger["name"] for trigger in answer["triggers"]} == {"Shop events", "Hourly Slack sync"}


async def test_customer_whose_runs_do_not_come_gets_every_reason(world: World) -> None:
    """Fastn's documentation: a trigger whose subscription failed never fires, and a pending customer runs nothing."""
    answer = await diagnosed(world, customer_id="globex-exports")
    assert answer["verdict"].startswith("Globex Exports: Nothing has run in the last 72 hours. ")
    for reason in (
        "The connection Shopify of Globex Exports is INACTIVE",
        "it never fires, since its subscription at the app has failed",
    ):
        assert reason in answer["verdict"]
    assert answer["connections"][0]["fix"] == "Globex Exports has to reconnect Shopify in the dashboard."
    waiting = await diagnosed(world, customer_id="John-Acme")
    assert "John-Acme waits for activation by its admin: nothing runs for it until then" in waiting["verdict"]


async def test_no_trigger_of_another_customer_is_blamed(world: World) -> None:
    """The trigger of Globex starts the workflow too, and has nothing to do with Acme."""
    answer = await diagnosed(world, workflow_id=ORDERS, customer_id=world.id_of("customers", "acme-corp"))
    assert [(trigger["name"], trigger["of"]) for trigger in answer["triggers"]] == [("Shop events", "your own account")]
    assert answer["triggers_of_other_customers"] == 1
    of_all = await diagnosed(world, workflow_id=ORDERS)
    assert ("Paid Shopify orders", "Globex Exports") in [(t["name"], t["of"]) for t in of_all["triggers"]]


async def test_trigger_is_diagnosed_by_its_workflows_and_customer(world: World) -> None:
    answer = await diagnosed(world, trigger_id="Daily TikTok sync")
    assert answer["verdict"].startswith(
        "Trigger Daily TikTok sync of Katana: Failing for 9 days, since 2026-11-16 (3 of 3"
    )
    assert answer["trigger"]["name"] == answer["triggers"][0]["name"] == "Daily TikTok sync"
    assert answer["causes"][0]["affected"][0]["customer"] == "Katana"


async def test_trigger_without_workflows_starts_nothing(world: World) -> None:
    world.sandbox.state.named("triggers", "Shop events", by="name")["routes"] = []
    answer = await diagnosed(world, trigger_id="Shop events")
    assert "The trigger starts no workflow" in answer["verdict"]


async def test_account_is_diagnosed_without_an_argument(large_world: World) -> None:
    answer = await diagnosed(large_world)
    runs = answer["runs"]
    failed = f"{runs['failed'] + runs['timeout']:,} of {runs['all']:,} runs failed in 72 hours (last success "
    assert answer["verdict"].startswith(failed)
    named = {str(row["name"]) for row in large_world.sandbox.state.all("customers")}
    assert {affected["customer"] for cause in answer["causes"] for affected in cause["affected"]} <= named
    others = [int(re.findall(r": ([\d,]+) runs?$", other)[0].replace(",", "")) for other in answer["other_causes"]]
    since = runs["failures_since"].partition(" (")[0]
    read = int(re.findall(f"\\). Of the ([0-9,]+) since {since}, of ", answer["verdict"])[0].replace(",", ""))
    assert read < 800 + runs["timeout"], "those that timed out are counted since then too"
    assert sum(cause["runs"] for cause in answer["causes"]) + sum(others) == read < runs["failed"] + runs["timeout"]
    for cause in answer["causes"]:
        assert cause["share"] == f"{100 * cause['runs'] / read:.0f} % of the {read:,} read"
        assert cause["first_seen"].endswith(" or earlier")
        assert all(each["since"].endswith(" or earlier") for each in cause["affected"] if "since" in each)
    assert re.fullmatch(r"\d+ more causes, see next_cursor: \d+ runs", answer["other_causes"][-1])
    newest = f"only the newest 800 of {runs['failed']:,} were read; failures are counted since {since}"
    assert answer["not_checked"][0] == f"older failed runs: {newest}"


@pytest.mark.parametrize(
    ("auth", "action"),
    [
        ("OAUTH_2", "authorise TikTok Shop again in the widget"),
        ("API_KEY", "enter a new API key for TikTok Shop in the widget"),
        ("BASIC", "enter user name and password for TikTok Shop again in the widget"),
        (None, "authorise TikTok Shop again, or enter its credentials again, in the widget"),
    ],
)
async def test_remedy_of_a_connection_fits_its_auth_type(world: World, auth: str | None, action: str) -> None:
    """Fastn's documentation: API keys are not authorised in a browser."""
    row = next(row for row in world.sandbox.state.all("connections") if row["status"] == "FAILED")
    row["authType"] = auth
    for found in (await diagnosed(world, workflow_id=TIKTOK), await diagnosed(world, customer_id="katana")):
        assert (
            found["causes"][0]["fix"]
            == f"Katana has to {action}. Katana has to enter a new API key for Cin7 Core in the widget. "
            "Then run the workflow once."
        )


async def test_changes_since_the_first_failure_are_reported(world: World) -> None:
    """Those of Fastn's audit log, those made through this server, and another version that ran."""
    daily = world.id_of("triggers", "Daily TikTok sync")
    done = await world.expect(Done, UpdateTrigger(trigger_id=daily, description="ours"), world.form())
    answer = await diagnosed(world, trigger_id=daily)
    assert ("trigger", f"update_trigger ({done.change and done.change.id})", "this server") in [
        (change["of"], change["what"], change["by"]) for change in answer["changes"]
    ]
    assert ("TikTok Shop of Katana", "connection.update") in [(c["of"], c["what"]) for c in answer["changes"]]
    for run in world.sandbox.state.all("executions"):
        if run["workflowId"] == TIKTOK and run["status"] == "failed":
            run["version"] = "v99"
    answer = await diagnosed(world, trigger_id=daily)
    assert answer["causes"][0]["affected"][0]["version"] == "failing runs v99, last success v7"


def test_cause_omits_parts_that_differ_between_runs() -> None:
    assert normalised("Order 12 of 'Acme' failed at 10:04:05Z") == "Order … of … failed at …"
    assert normalised("it can't be, it doesn't work") == "it can't be, it doesn't work"
    assert normalised("user dana@fastn.example deadbeef") == "user … …"


def test_failing_step_is_taken_from_the_steps_if_the_error_has_none() -> None:
    """Fastn's older documentation: steps with status and errors."""
    steps: list[JsonValue] = [{"name": "get", "status": "completed"}, {"name": "send", "status": "FAILED"}, 3]
    found = ended_run({"id": "e", "status": "failed", "steps": steps})
    assert (found.failed_at, found.at, found.customer) == ("send", None, None)
    assert grouped([found], lambda run: run.cause)[0].times == []
