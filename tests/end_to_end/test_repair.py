"""From "why" to a successful run: a person lets an agent repair what the sandbox's account fails at."""

from pathlib import Path
from typing import Any

from mcp import Client
from support.local_page import CANARY, env_state, recording_browser, typed_on_the_page
from support.server_process import ERAS, Person, Upstream, approving, body, each_era, environment, stdio

NIGHTLY = "Nightly contact sync"


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return body(await client.call_tool(tool, arguments))


@each_era
async def test_contact_sync_is_repaired_by_the_calls_that_its_diagnosis_names(
    upstream: Upstream, tmp_path: Path, era: str
) -> None:
    """The credentials are typed on the page, which the client's form is not asked for. The rest is approved by form."""
    browser, opened = recording_browser(tmp_path)
    env = environment(upstream) | {"BROWSER": browser}
    person = Person(approving)
    upstream.reset()
    async with Client(stdio(env), mode=ERAS[era], elicitation_callback=person) as client:
        diagnosis = (await call(client, "diagnose", {"trigger_id": NIGHTLY}))["data"]
        assert "no working connection to cin7Core" in diagnosis["verdict"]
        (cause,) = diagnosis["causes"]
        (trigger,) = diagnosis["triggers"]
        customer = cause["next"]["arguments"]["customer_id"]
        failed = (await call(client, "get_execution", {"execution_id": cause["example"]}))["data"]
        run = {"workflow_id": failed["workflowId"], "customer_id": customer, "wait_seconds": 30}

        unrepaired = (await call(client, "run_workflow", run))["data"]
        assert unrepaired["status"] == "failed"
        assert "cin7Core" in unrepaired["error"]["raw"]

        repair = cause["next"]
        assert repair["tool"] == "create_connection"
        waiting = await call(client, repair["tool"], repair["arguments"])
        assert waiting["status"] == "approval_required"
        assert "create_connection" not in str(person.asked)
        await typed_on_the_page(opened.read_text().split()[-1], "apiKey")
        connected = await call(client, repair["tool"], repair["arguments"])
        assert connected["done"] == "create_connection"
        assert CANARY not in str(connected) + env_state(env)

        repaired = (await call(client, "run_workflow", run))["data"]
        assert repaired["status"] == "completed"
        assert NIGHTLY in str((await call(client, "get_overview", {}))["data"]["findings"])
        switched_on = await call(client, trigger["next"]["tool"], trigger["next"]["arguments"])
        assert switched_on["done"] == "update_trigger"
        assert NIGHTLY not in str((await call(client, "get_overview", {}))["data"]["findings"])
    assert [question.splitlines()[0] for question in person.asked] == [
        'Run workflow "Sync HubSpot contacts to Cin7 customers" now for customer "Widget Inc".',
        'Run workflow "Sync HubSpot contacts to Cin7 customers" now for customer "Widget Inc".',
        'Switch on trigger "Nightly contact sync".',
    ]
    workflow = f"POST /api/v1/workflows/{run['workflow_id']}/run"
    trigger_path = f"PUT /api/v1/triggers/{trigger['id']}"
    assert upstream.changes() == [workflow, "POST /api/v1/connections", workflow, trigger_path]
