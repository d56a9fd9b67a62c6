"""Tests of the table of checks: overview and diagnosis judge each fact alike, and say what helps."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support.runs import add_run
from support.world import World

from fastn_mcp.extensions.sandbox.state import stamp
from fastn_mcp.procedures.checks.table import CHECKS
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.overview.get_overview import SUBJECTS, GetOverview

Answer = dict[str, Any]

ORDERS = "wf_0d93ee5b1f62"


def sentences(answer: Answer) -> dict[str, tuple[str, str]]:
    """Return the findings of an answer: what helps, and the severity, by what is wrong."""
    return {each["what"]: (each.get("fix", ""), each["severity"]) for each in answer.get("findings", [])}


def test_checks_have_names_of_their_own_and_a_subject_of_the_overview() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len({*names})
    assert {check.subject for check in CHECKS} == {*SUBJECTS} - {"approvals"}


@pytest.mark.parametrize("hours", [24, 72])
async def test_diagnosis_of_everything_says_what_the_overview_says(world: World, hours: int) -> None:
    """Its causes and runs that hang have entries of their own."""
    overview = sentences(await world.ask(GetOverview(hours=hours)))
    answer = await world.ask(Diagnose(hours=hours))
    diagnosis = sentences(answer)
    assert diagnosis.items() <= overview.items()
    others = [what for what in overview if what not in diagnosis]
    left_out = answer.get("left_out", {}).get("findings", 0)
    assert len(others) == left_out + sum(bool(re.search("failed:|far longer", what)) for what in others)


def switch_off(world: World) -> None:
    trigger = world.sandbox.state.named("triggers", "Shop events", by="name")
    trigger |= {"status": "Disabled", "consecutiveFailures": 0}


def make_public(world: World) -> None:
    world.sandbox.state.named("triggers", "Shop events", by="name")["authentication"] = "NONE"


def register_by_hand(world: World) -> None:
    world.sandbox.state.named("triggers", "Shop events", by="name")["manualRegistrationRequired"] = True


def unpublish(world: World) -> None:
    workflow = world.sandbox.state.named("workflows", "process-new-orders")
    workflow |= {"status": "draft", "publishedVersion": None}


def deactivate(world: World) -> None:
    world.sandbox.state.named("workflows", "process-new-orders")["status"] = "inactive"


def expire(world: World) -> None:
    shopify = world.id_of("connectors", "shopify")
    for row in world.sandbox.state.all("connections"):
        if row["connectorId"] == shopify and row["status"] == "ACTIVE":
            row |= {"authType": "API_KEY", "expiresAt": stamp(world.clock.at + timedelta(days=3))}


FAULTS: list[tuple[Callable[[World], None], str, str]] = [
    (switch_off, r"trigger (is|was) switched off", "Switch it on if it should run."),
    (make_public, r"Anybody can call \d webhooks?", "Set authentication API_KEY, unless that is intended."),
    (register_by_hand, "1 webhook has to be registered at the app by hand", "Enter its address at the app."),
    (unpublish, "Triggers start 1 workflow that was never published", "Have somebody publish and deploy it"),
    (deactivate, "Triggers start 1 workflow that is switched off", "Switch it on, or the triggers off."),
    (expire, "1 connection expires within two weeks, the first in 3 days", "enter a new API key for the app"),
]


@pytest.mark.parametrize(("fault", "what", "fix"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
async def test_fault_is_told_in_the_same_words_by_overview_and_diagnosis(
    world: World, fault: Callable[[World], None], what: str, fix: str
) -> None:
    def told(answer: Answer) -> list[str]:
        in_findings = [each.get("fix", "") for each in answer["findings"] if re.search(what, each["what"])]
        return in_findings + [each["fix"] for each in answer.get("triggers", []) if "fix" in each]

    before = told(await world.ask(GetOverview()))
    fault(world)
    after = told(await world.ask(GetOverview()))
    diagnosis = await world.ask(Diagnose(workflow_id=ORDERS, customer_id="acme-corp"))
    assert before != after or fault is make_public, "a webhook of the sandbox is public already"
    assert any(fix in each for each in after)
    assert any(fix in each for each in told({"findings": [], **diagnosis}))


async def test_one_failure_in_a_row_is_no_problem_of_a_trigger(world: World) -> None:
    """It is from three on, in list_triggers, in the overview and in the diagnosis."""
    trigger = world.sandbox.state.named("triggers", "Shop events", by="name")
    for failures, is_problem in ((1, False), (2, False), (3, True)):
        trigger["consecutiveFailures"] = failures
        (shown,) = [
            each for each in (await world.ask(Diagnose(workflow_id=ORDERS)))["triggers"] if each["id"] == trigger["id"]
        ]
        listed = await world.rendered_tool("list_triggers", problem="failing")
        in_list = trigger["id"] in [row["id"] for row in listed["data"]]
        assert ("problem" in shown, in_list) == (is_problem, is_problem)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ({"message": 'No active connection for connector "tiktokShop"'}, 3),
        ({"failedAt": "connector.tiktokShop.list", "message": "429 Too Many Requests"}, None),
    ],
    ids=["connection", "limit of the app"],
)
async def test_failed_runs_count_for_a_connection_if_the_diagnosis_blames_it(
    world: World, error: Answer, failed: int | None
) -> None:
    """A run that the app's limit stopped does not come from the connection, though it is of the same app."""
    katana = world.id_of("customers", "Katana")
    state = world.sandbox.state
    for run in state.all("executions"):
        if run["workflowId"] == "wf_96d1b3072c5a":
            state.drop("executions", run["id"])
    for number in range(3):
        add_run(world, "wf_96d1b3072c5a", 1 + number, endOrgId=katana, error=error)
    (finding,) = [each for each in (await world.ask(GetOverview()))["findings"] if "FAILED:" in each["what"]]
    assert finding["rows"][0].get("failed") == failed
    (cause,) = (await world.ask(Diagnose(workflow_id="wf_96d1b3072c5a")))["causes"]
    assert ("is FAILED" in cause["likely_cause"]) == (failed is not None)


async def test_account_connection_counts_the_runs_of_customers_without_their_own(world: World) -> None:
    row = next(row for row in world.sandbox.state.all("connections") if row["status"] == "FAILED")
    world.sandbox.state.put("connections", row | {"endOrgId": None})
    (finding,) = [each for each in (await world.ask(GetOverview()))["findings"] if "FAILED:" in each["what"]]
    assert finding["rows"][0]["failed"] == 1


async def test_customer_that_waits_is_told_in_the_same_words(world: World) -> None:
    words = "waits for activation by its admin: nothing runs for it until then"
    assert words in str((await world.ask(GetOverview()))["findings"])
    answer = await world.ask(Diagnose(customer_id="John-Acme"))
    assert words in answer["verdict"]
    assert f"1 customer {words}." in sentences(answer)
