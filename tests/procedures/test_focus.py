"""Tests of get_overview for one subject: on the sandbox's accounts, and with other behaviours of Fastn."""

from typing import Any

import pytest
from pydantic_core import to_json
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.faulty_sandbox import Status
from support.table_rows import table_rows
from support.world import World

from fastn_mcp.account.short_ids import reference_to
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.diagnosis.blockers import connection_states, repairs
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.server.rendering import BUDGET, render

pytestmark = pytest.mark.anyio

Answer = dict[str, Any]
SUBJECTS = ["workflows", "connections", "customers", "expiry", "triggers", "access"]


async def focus(world: World, about: str, hours: int = 24) -> Answer:
    call = GetOverview.model_validate({"about": about, "hours": hours})
    done = await world.call(call)
    assert isinstance(done, Done), done
    answer = render(call, done.result, {})
    assert len(to_json(answer)) <= 2 * BUDGET
    assert "left_out" not in answer, "what is left out, the procedure says itself"
    data: Any = answer["data"]
    return data


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
    shopify: Answer = {"id": ids["INACTIVE"], "name": "Shopify of Globex Exports", "since": "2026-11-10"}
    assert rows(answer, "INACTIVE:") == [{**shopify, "auth": "OAUTH_2"}]
    assert [finding["what"].partition(". ")[2] for finding in answer["findings"]] == [
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
    overview: Any = await world.call(GetOverview())
    assert "For the account itself, somebody has to authorise the app again in the dashboard." in str(overview.result)
    diagnosis: Any = await world.call(Diagnose(workflow_id="wf_96d1b3072c5a"))
    assert "For the account itself, somebody has to authorise TikTok Shop again in the dashboard." in str(
        diagnosis.result
    )


async def test_broken_connections_of_a_large_account_fit_one_answer(large_world: World) -> None:
    """Those of the most failed runs first, and a cursor for the rest."""
    state = large_world.sandbox.state
    answer = await focus(large_world, "connections")
    for status in ("FAILED", "EXPIRED", "INACTIVE"):
        count = sum(row["status"] == status for row in state.all("connections"))
        assert sum(f["what"].startswith(f"{count} connections with status {status}") for f in answer["findings"]) == 1
    assert [row["name"] for row in rows(answer, "EXPIRED") if "Acme HubSpot sync (5)" in row.get("fails", "")] == [
        "HubSpot of Acme Corp"
    ]
    assert len(large_world.sandbox.requests) <= 60
    runs = [heard.query for heard in large_world.sandbox.requests if heard.path == "/api/v1/executions"]
    assert {query.get("status") for query in runs} == {None, "failed", "timeout"}  # no numbers that it does not state


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
        "widget. For the account itself, somebody has to authorise Slack again in the dashboard."
    )
    assert repairs(states, named=0).startswith("2 customers have to authorise the app again in the widget. 1 customer")


async def test_failure_that_names_the_connection_counts_without_a_manifest(world: World) -> None:
    """Nothing is known about the manifests of Fastn's workflows."""
    state = world.sandbox.state
    broken = next(row for row in state.all("connections") if row["status"] == "EXPIRED")
    (run, *others) = [row for row in state.all("executions") if row["workflowName"] == "process-new-orders"][-3:]
    run |= {"status": "failed", "endOrgId": broken["endOrgId"], "error": {"message": f"{broken['id']} is not usable"}}
    others[0] |= {"status": "failed", "endOrgId": broken["endOrgId"], "error": {"message": "out of memory"}}
    assert rows(await focus(world, "connections", 720), "EXPIRED")[0]["fails"] == "process-new-orders (1)"


async def test_worst_workflows_have_rates_of_the_whole_period(large_world: World) -> None:
    answer = await focus(large_world, "workflows", 168)
    workflows = rows(answer)
    # Only the newest failures are read.
    failed = [int(row["failed"].removeprefix("at least ")) for row in workflows if "failed" in row]
    assert failed == sorted(failed, reverse=True)
    for row, count in zip(workflows[:10], failed, strict=False):
        rate = 100 * row["completed"] / (row["completed"] + count)
        assert 0 < rate < 100
        assert row["success_rate"] == f"at most {rate:.1f} %"
        assert " ago" in row["last_success"]
        assert row["why"]
    assert answer["top_errors"][0]["runs"] >= answer["top_errors"][-1]["runs"]
    assert "failing workflows ran" in str(answer["not_checked"])
    assert len(large_world.sandbox.requests) <= 100


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
    assert {row["id"] for row in rows(await focus(large_world, "triggers"), "never firing")} == active


async def test_all_keys_that_were_never_used_are_named(large_world: World) -> None:
    answer = await focus(large_world, "access")
    never_used = rows(answer, "never used")
    (what,) = [finding["what"] for finding in answer["findings"] if "never used" in finding["what"]]
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
        world.sandbox.faults.add(Status(status=403, path=f"/api/v1/{kind}", times=None))
        answer = await focus(world, about)
        assert answer == whole or answer["not_checked"], kind


def test_unknown_subject_is_refused() -> None:
    with pytest.raises(FastnError, match="about"):
        parse(TOOLS, "get_overview", {"about": "everything"})
