"""Tests of get_overview for one subject: on the sandbox's accounts, and with other behaviours of Fastn."""

from datetime import UTC, datetime
from typing import Any

import pytest
from faulty_sandbox import Status
from pydantic_core import to_json
from world import World

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.catalog import BY_NAME, parse
from fastn_mcp.procedures.diagnosis.account_parts import connection_states
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.procedures.diagnosis.failures import by_workflow, ended_runs
from fastn_mcp.procedures.overview.connection_impact import connection_impact
from fastn_mcp.procedures.overview.get_overview import GetOverview, believable
from fastn_mcp.sandbox.behaviour import Behaviour, Envelope, Filtering, Paging
from fastn_mcp.server.rendering import BUDGET, render

pytestmark = pytest.mark.anyio

Answer = dict[str, Any]
NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
SUBJECTS = ["runs", "connections", "triggers", "access"]


async def focus(world: World, about: str, hours: int = 24) -> Answer:
    call = GetOverview.model_validate({"about": about, "hours": hours})
    done = await world.call(call)
    assert isinstance(done, Done), done
    answer = render(call, done.result, {})
    assert len(to_json(answer)) <= BUDGET
    assert "left_out" not in answer, "what is left out, the procedure says itself"
    data: Any = answer["data"]
    return data


def of(answer: Answer, connector: str) -> Answer:
    (found,) = [app for app in answer["by_connector"] if app["connector"] == connector]
    return found


async def test_broken_connections_have_customer_and_failing_workflows(world: World) -> None:
    """Ours: which customers have to authorise what again, and which workflows wait for it."""
    katana = world.sandbox.state.named("customers", "katana-customer")["id"]
    answer = await focus(world, "connections")
    assert answer["broken"] == 2
    assert of(answer, "TikTok Shop")["failed"] == {"Katana": "2026-11-16 (1 week ago)"}
    assert of(answer, "TikTok Shop")["breaks"] == {"wf_96d1b3072c5a": "Sync TikTok Orders to Cin7 Core"}
    assert list(of(answer, "Cin7 Core")["expired"]) == ["Katana"]
    globex = world.sandbox.state.named("customers", "globex-exports")["id"]
    assert answer["switched_off"] == 1
    assert list(of(answer, "Shopify")["inactive"]) == ["Globex Exports"]
    assert answer["ids"] == {"customer": {"Globex Exports": globex, "Katana": katana}}
    assert "authorise the app again" in answer["fix"]
    assert "inactive was switched off" in answer["fix"]
    assert answer["not_checked"] == []


async def test_overview_and_diagnosis_say_who_authorises_the_accounts_own_connection(world: World) -> None:
    """Ours: it belongs to no customer, so no customer can."""
    state = world.sandbox.state
    row = next(row for row in state.all("connections") if row["status"] == "FAILED")
    state.put("connections", row | {"endOrgId": None})
    for run in state.all("executions"):
        if run["workflowId"] == "wf_96d1b3072c5a":
            run["endOrgId"] = None
    findings = (await focus(world, "connections"))["fix"]
    assert "somebody for the account itself" in findings
    overview: Any = await world.call(GetOverview())
    assert "no longer fits; somebody has to authorise again" in str(overview.result)
    diagnosis: Any = await world.call(DiagnoseWorkflow(workflow_id="wf_96d1b3072c5a"))
    assert "Somebody has to authorise the app again in the dashboard, for the account itself" in str(diagnosis.result)


async def test_broken_connections_of_a_large_account_fit_one_answer(large_world: World) -> None:
    """Ours: forty connections by customer, within the budget and bounded requests; find gives the ids."""
    state = large_world.sandbox.state
    rows = [row for row in state.all("connections") if row["status"] in ("EXPIRED", "FAILED")]
    answer = await focus(large_world, "connections")
    assert answer["broken"] == len(rows) > 30
    by_customer = [app.get(status, {}) for app in answer["by_connector"] for status in ("failed", "expired")]
    assert sum(map(len, by_customer)) == len(rows)
    names = {row["id"]: row["name"] for row in state.all("customers")}
    assert {name for of_status in by_customer for name in of_status} == {str(names[row["endOrgId"]]) for row in rows}
    assert "Acme HubSpot sync" in of(answer, "HubSpot")["breaks"].values()
    assert "find" in answer["left_out"]
    assert len(large_world.sandbox.requests) <= 40


async def test_too_many_connections_are_counted_with_the_call_for_the_rest(world: World) -> None:
    """Ours: there is a call for what does not fit."""
    state = world.sandbox.state
    row = next(row for row in state.all("connections") if row["status"] == "EXPIRED")
    for number in range(300):
        state.put("connections", row | {"id": f"extra:{number}", "endOrgId": f"{number:064}"})
    answer = await focus(world, "connections")
    app = of(answer, "Cin7 Core")
    assert len(app["expired"]) + app["more_connections"] == answer["broken"] - 1 == 100
    assert "more broken connections" in str(answer["not_checked"])
    assert app["next"] == {"tool": "list_connections", "arguments": {"connector_id": row["connectorId"]}}
    parse(BY_NAME, app["next"]["tool"], app["next"]["arguments"])


def test_two_connections_of_one_customer_are_both_shown() -> None:
    """Ours: a customer may be connected twice to the same app."""
    row: dict[str, Any] = {"status": "EXPIRED", "connectorId": "c1", "endOrgId": "one"}
    rows: list[Any] = [row | {"id": "a"}, row | {"id": "b", "lastUsedAt": "2026-11-20T00:00:00Z"}]
    seen: Any = connection_impact(connection_states(rows, {}), [], [], {"one": "One"}, NOW)
    assert seen["by_connector"][0]["expired"] == {
        "One": "unknown since when",
        "One, b": "last used 2026-11-20 (5 days ago)",
    }


def test_failure_that_names_the_connection_counts_without_a_manifest() -> None:
    """Ours: nothing is known about the manifests of Fastn's workflows."""
    connection: Any = {"id": "ucl:1", "status": "FAILED", "connectorId": "c1", "endOrgId": "one"}
    runs: Any = [
        {"workflowId": "wf_1", "endOrgId": "one", "error": {"message": "Pinned connection ucl:1 is not usable"}},
        {"workflowId": "wf_2", "endOrgId": "one", "error": {"message": "out of memory"}},
        {"workflowId": "wf_3", "endOrgId": "two", "error": "ucl:1"},
    ]
    failing = by_workflow(ended_runs(runs), {})
    seen: Any = connection_impact(connection_states([connection], {}), [], failing, {}, NOW)
    assert seen["by_connector"][0]["breaks"] == {"wf_1": "wf_1"}


async def test_worst_workflows_have_totals_of_the_whole_period(large_world: World) -> None:
    """Ours: for a weekly report. The numbers are Fastn's own counts, and add up."""
    answer = await focus(large_world, "runs", 168)
    workflows = answer["workflows"]
    assert len(workflows) == 8
    failed = [found.get("failed", 0) + found.get("timeout", 0) for found in workflows]
    assert failed == sorted(failed, reverse=True)
    for found, bad in zip(workflows, failed, strict=True):
        rate = 100 * found["completed"] / (found["completed"] + bad)
        assert found["success_rate"] == f"{rate:.1f} %"
        assert " ago)" in found["last_failure"]
        assert found["why"]
    assert answer["next"] == {
        "tool": "diagnose_workflow",
        "arguments": {"workflow_id": workflows[0]["id"], "hours": 168},
    }
    assert answer["looked_at"].startswith("The failures since 2026-11-2")
    assert answer["top_errors"][0]["runs"] >= answer["top_errors"][-1]["runs"]
    assert len(large_world.sandbox.requests) <= 40


async def test_all_failures_of_a_small_account_are_read(world: World) -> None:
    """Ours: then the answer has no "looked_at"."""
    answer = await focus(world, "runs", 168)
    assert "Sync TikTok Orders to Cin7 Core" in [found["name"] for found in answer["workflows"]]
    for status in ("failed", "timeout"):
        assert sum(found.get(status, 0) for found in answer["workflows"]) == answer["runs"][status]
    assert "looked_at" not in answer


@pytest.mark.parametrize(
    ("counts", "seen", "expected"),
    [
        ({"completed": 90, "failed": 9, "timeout": 1}, 10, True),
        ({"completed": 90, "failed": 9}, 9, False),
        ({"completed": 90, "failed": 9, "timeout": 1}, 11, False),
        ({"completed": 901, "failed": 9, "timeout": 1}, 10, False),
    ],
)
def test_implausible_counts_are_not_reported(counts: dict[str, int], seen: int, expected: bool) -> None:
    """Ours: if Fastn ignores a filter, every count is of the same runs."""
    assert believable(counts, {"completed": 900, "failed": 90, "timeout": 10}, seen) is expected
    assert not believable(counts, {}, seen)


async def test_all_triggers_that_never_fire_are_named(large_world: World) -> None:
    """Ours: an active trigger of an app event without a subscription reports no error itself."""
    silent = [row for row in large_world.sandbox.state.all("triggers") if row.get("subscriptionStatus") == "FAILED"]
    (found,) = [f for f in (await focus(large_world, "triggers"))["findings"] if "never fire" in f["what"]]
    active = {str(row["id"]) for row in silent if row["status"] == "Active"}
    assert {example["id"] for example in found["examples"]} == active


async def test_all_keys_that_were_never_used_are_named(large_world: World) -> None:
    """Ours: each can then be revoked."""
    (found,) = [f for f in (await focus(large_world, "access"))["findings"] if "never used" in f["what"]]
    assert found["what"].startswith(f"{len(found['examples'])} API keys")
    assert len(found["examples"]) > 3


STRANGE = [
    Behaviour(envelope=Envelope.BARE, paging=Paging.IGNORED, filtering=Filtering.IGNORED),
    Behaviour(envelope=Envelope.ITEMS, paging=Paging.CURSOR, filtering=Filtering.HEEDED),
    Behaviour(envelope=Envelope.DATA, paging=Paging.TOTAL_AND_CURSOR, filtering=Filtering.IGNORED),
    Behaviour(envelope=Envelope.RESULTS, paging=Paging.SILENT, filtering=Filtering.HEEDED),
]


@pytest.mark.parametrize("behaviour", STRANGE, ids=str)
@pytest.mark.parametrize("about", SUBJECTS)
async def test_numbers_are_never_guessed(world: World, about: str, behaviour: Behaviour) -> None:
    """Ours: what Fastn does not say is not reported, and requests stay few."""
    usual = await focus(world, about)
    world.sandbox.requests.clear()
    world.sandbox.behaviour = behaviour
    answer = await focus(world, about)
    assert len(world.sandbox.requests) <= 50
    if about in ("triggers", "access"):
        assert answer["findings"] == usual["findings"]
    if about == "connections":
        assert [app | {"breaks": None} for app in answer["by_connector"]] == [
            app | {"breaks": None} for app in usual["by_connector"]
        ]
    if about == "runs" and behaviour.filtering is Filtering.IGNORED:
        assert "success_rate" not in str(answer)
        assert "success rate" in str(answer["not_checked"])


@pytest.mark.parametrize("about", SUBJECTS)
@pytest.mark.parametrize(
    "path", ["executions", "connections", "workflows", "customers", "triggers", "users", "api-keys"]
)
async def test_unreadable_kind_is_not_checked_and_the_rest_is_reported(world: World, about: str, path: str) -> None:
    """Ours: a 403 on one kind affects only what is computed from it alone."""
    whole = await focus(world, about)
    world.sandbox.faults.add(Status(status=403, path=f"/api/v1/{path}", times=None))
    try:
        answer = await focus(world, about)
    except AssertionError:
        assert (about, path) == ("runs", "executions")
        return
    assert answer == whole or answer["not_checked"] or (about, path) == ("connections", "customers")


def test_unknown_subject_is_refused() -> None:
    """Ours: the error names the argument."""
    with pytest.raises(FastnError, match="about"):
        parse(BY_NAME, "get_overview", {"about": "everything"})
