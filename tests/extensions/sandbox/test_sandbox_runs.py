"""Tests of runs: how they start, proceed and end."""

from typing import Any

import pytest
from support.clock import Clock
from support.direct_sandbox import Fastn

from fastn_mcp.extensions.sandbox.auth import LIVE_KEY
from fastn_mcp.tools.access import CreateApiKey
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.workflows import DeleteWorkflow, GetExecution, ListExecutions, RunWorkflow

SLACK, CONTACTS, ORDERS = "wf_b5880b29eb25", "wf_7be2150c84af", "wf_0d93ee5b1f62"
TIKTOK, DRAFT, BACKFILL = "wf_96d1b3072c5a", "wf_e5047fb2a8c3", "wf_58c9d02e7f14"


def run(fastn: Fastn, workflow: str, **arguments: Any) -> Any:
    return fastn(RunWorkflow(workflow_id=workflow, **arguments))


def status(fastn: Fastn, execution: str) -> str:
    return fastn(GetExecution(execution_id=execution)).data["status"]


def test_instant_workflow_answers_with_its_output(fastn: Fastn) -> None:
    """Fastn's documentation: INSTANT answers 200 with the output inline."""
    answer = run(fastn, ORDERS, input={"orderId": "SO-7"})

    assert (answer.status, answer.data["status"]) == (200, "completed")
    assert answer.data["output"] == {"orderId": "SO-7", "note": None, "slack": "sent"}
    kept = fastn(GetExecution(execution_id=answer.data["executionId"])).data
    assert (kept["input"], kept["triggeredBy"], kept["environment"]) == ({"orderId": "SO-7"}, "manual", "test")


def test_run_proceeds_with_time(fastn: Fastn, clock: Clock) -> None:
    execution = run(fastn, SLACK).data["executionId"]

    def listed() -> str:
        rows = fastn(ListExecutions(workflow_id=SLACK)).data
        return next(row["status"] for row in rows if row["id"] == execution)

    seen = [listed()]
    for seconds in (2, 10):
        clock.pass_(seconds=seconds)
        seen.append(listed())
    assert seen == ["queued", "running", "completed"]
    row = fastn(GetExecution(execution_id=execution)).data
    assert (row["durationMs"], row["completedAt"]) == (5_000, "2026-10-06T09:30:05.000Z")


def test_long_run_takes_longer(fastn: Fastn) -> None:
    """Fastn's documentation: LONG is for what takes minutes to hours."""
    execution = run(fastn, BACKFILL, customer_id=fastn.id_of("customers", "acme-corp")).data["executionId"]

    assert [status(fastn, execution) for _ in range(6)] == ["running"] * 5 + ["completed"]


def test_tiktok_sync_fails_as_documented(fastn: Fastn) -> None:
    """Fastn's documentation: a Dependency Error names the step, the cause and the fix."""
    katana = fastn.id_of("customers", "katana-customer")
    execution = run(fastn, TIKTOK, customer_id=katana).data["executionId"]

    assert [status(fastn, execution) for _ in range(3)][-1] == "failed"
    error = fastn(GetExecution(execution_id=execution)).data["error"]
    assert (error["tag"], error["failedAt"]) == ("Dependency Error", "connector.tiktokShop.getAuthorizedShops")
    pinned = fastn.connection("katana-customer", "tiktokShop")
    assert error["raw"] == (
        f'Pinned connection "{pinned}" is not usable or does not belong to this org for connector "tiktokShop"'
    )


def test_run_without_the_connection_fails(fastn: Fastn) -> None:
    """Third parties: No active connection for connector ... and end-org ..."""
    widget = fastn.id_of("customers", "widget-inc")
    execution = run(fastn, CONTACTS, customer_id=widget).data["executionId"]
    for _ in range(3):
        fastn(GetExecution(execution_id=execution))

    error = fastn(GetExecution(execution_id=execution)).data["error"]

    assert error["raw"] == f'No active connection for connector "cin7Core" and end-org {widget}'


def test_unpublished_workflow_does_not_run(fastn: Fastn) -> None:
    """Third parties: WORKFLOW_NOT_PUBLISHED, the most common cause of "the API did nothing"."""
    refused = run(fastn, DRAFT)

    assert (refused.status, refused.error["code"]) == (409, "WORKFLOW_NOT_PUBLISHED")
    assert run(fastn, "wf_000000000000").status == 404


def test_idempotency_key_runs_once(fastn: Fastn) -> None:
    """Third parties: Idempotency-Key deduplicates a run. That another input conflicts is ours."""
    first = run(fastn, SLACK, idempotency_key="once", input={"a": 1})
    again = run(fastn, SLACK, idempotency_key="once", input={"a": 1})
    other = run(fastn, SLACK, idempotency_key="once", input={"a": 2})

    assert first.data["executionId"] == again.data["executionId"]
    assert (again.status, other.status) == (202, 409)
    assert run(fastn, SLACK, idempotency_key="twice").data["executionId"] != first.data["executionId"]


@pytest.mark.parametrize(("slug", "expected"), [("acme-customer", 409), ("nobody", 404)])
def test_unknown_or_pending_customer_runs_nothing(fastn: Fastn, slug: str, expected: int) -> None:
    """Fastn's documentation: integrations of a pending customer do not run. Third parties: 404 for an unknown one."""
    customer = fastn.id_of("customers", slug) if slug != "nobody" else slug
    before = len(fastn.sandbox.state.all("executions"))

    assert run(fastn, SLACK, customer_id=customer).status == expected
    assert len(fastn.sandbox.state.all("executions")) == before


INSTALLED, INSTALLATION = "wf_3a8e47d19b60", "inst_5d20c1e97ab4"


def test_installed_workflow_needs_the_installation(fastn: Fastn) -> None:
    """Third parties: runs of such a workflow succeeded only with customer and installation."""
    acme = fastn.id_of("customers", "acme-corp")
    without = run(fastn, INSTALLED, customer_id=acme).data
    assert without["error"]["raw"] == f'No active connection for connector "shopify" and end-org {acme}'
    assert run(fastn, INSTALLED, customer_id=acme, installation_id=INSTALLATION).data["status"] == "completed"
    assert run(fastn, INSTALLED, customer_ref="crm-1001", installation_id=INSTALLATION).data["status"] == "completed"
    once = run(fastn, INSTALLED, customer_id=acme, idempotency_key="once")
    assert once.status == 200
    assert run(fastn, INSTALLED, customer_id=acme, idempotency_key="once", installation_id=INSTALLATION).status == 409


@pytest.mark.parametrize("arguments", [{}, {"customer_ref": "crm-1002"}, {"installation_id": "inst_0"}])
def test_installation_of_another_customer_runs_nothing(fastn: Fastn, arguments: dict[str, str]) -> None:
    """Third parties: Installation ... does not serve the requesting tenant."""
    given = {"installation_id": INSTALLATION, **arguments}
    refused = run(fastn, INSTALLED, **given)
    assert (refused.status, refused.error["message"]) == (
        403,
        f'Installation "{given["installation_id"]}" does not serve the requesting tenant',
    )
    elsewhere = run(fastn, ORDERS, customer_ref="crm-1001", installation_id=INSTALLATION)
    assert elsewhere.status == 403


def test_key_of_some_customers_runs_for_no_other(fastn: Fastn) -> None:
    """Third parties: Requested org is outside your tenant scope; also for an unknown reference."""
    acme, widget = (fastn.id_of("customers", slug) for slug in ("acme-corp", "widget-inc"))
    created = fastn(CreateApiKey(name="one", permissions="Full access", customers=[acme])).data
    narrow = Fastn(fastn.sandbox, created["key"])
    assert run(narrow, ORDERS, customer_id=acme).status == 200
    for refused in (run(narrow, ORDERS, customer_id=widget), run(fastn, ORDERS, customer_ref="crm-0")):
        assert (refused.status, refused.error["message"]) == (403, "Requested org is outside your tenant scope")


def test_failed_run_has_category_and_fix(fastn: Fastn) -> None:
    """Fastn's documentation: a workflow that throws is a failed execution, not a transport error.

    Third parties: errorCategory and fixSuggestion; completed runs have neither.
    """
    answer = run(fastn, ORDERS, customer_id=fastn.id_of("customers", "katana-customer"))
    assert (answer.status, answer.data["status"], answer.data["output"]) == (200, "failed", None)
    assert answer.data["error"]["category"] == "Configuration"
    row = fastn(GetExecution(execution_id=answer.data["executionId"])).data
    assert (row["errorCategory"], row["fixSuggestion"]) == (
        "Configuration",
        "Let the customer connect shopify in the widget.",
    )
    assert fastn(ListExecutions(status="failed", workflow_id=ORDERS)).data[0]["errorCategory"] == "Configuration"
    went_well = fastn(GetExecution(execution_id=run(fastn, ORDERS).data["executionId"])).data
    assert (went_well["errorCategory"], went_well["fixSuggestion"]) == (None, None)


def test_environment_is_a_header(fastn: Fastn) -> None:
    """Fastn's documentation: x-fastn-env; a live key runs the live version."""
    live = Fastn(fastn.sandbox, LIVE_KEY)
    ran = [run(live, ORDERS), run(live, ORDERS, environment="staging")]

    kept = [fastn(GetExecution(execution_id=answer.data["executionId"])).data for answer in ran]

    assert [row["environment"] for row in kept] == ["live", "staging"]


def test_run_outlives_its_workflow(fastn: Fastn) -> None:
    execution = run(fastn, SLACK).data["executionId"]
    fastn(DeleteWorkflow(workflow_id=SLACK))
    fastn(DeleteCustomer(customer_id=fastn.id_of("customers", "acme-corp")))

    assert [status(fastn, execution) for _ in range(3)][-1] == "completed"
