"""What each changing tool costs in requests, on accounts of 20, 2,000 and 20,000 customers, without a snapshot."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.direct_sandbox import Fastn
from support.grown_account import grown
from support.sensible_calls import sensible
from support.world import FormNow, World

from fastn_mcp.guard.approval_form import Approve
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.tools.access import CreateSecret, DeleteSecret, RevokeApiKey
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

MOST = 5
"""Maximum number of requests until the question, and from the answer to the result."""

CHANGING = [operation.tool_name() for operation in CATALOG if operation.effect is not Effect.READ]
ASKS = '[[rule]]\neffects = ["write", "external", "spend", "access", "trash", "destroy"]\nthen = "confirm"\n'


class FurtherReads(NamedTuple):
    """Further reads that a call may make: `before` the question, and `after` the answer."""

    before: int
    after: int
    what: str


FURTHER = {
    "delete_customer": FurtherReads(3, 3, "connections, secrets and triggers, with the proof of an empty answer"),
    "delete_connector": FurtherReads(3, 0, "connections, workflows and triggers, with the proof of an empty answer"),
    "delete_connection": FurtherReads(2, 0, "triggers, and workflows that use the connector"),
    "delete_trigger": FurtherReads(0, 1, "what else starts each of its workflows"),
    "delete_secret": FurtherReads(30, 0, "the code of workflows, of which at most 30 are read"),
    "ai_build": FurtherReads(1, 1, "workflows and connectors before and after, to tell what it made"),
}
"""By tool: reads that name dependents. Of `ai_build`, those that name what it makes."""

SIZES = [20, 2_000, pytest.param(20_000, marks=pytest.mark.long)]


async def requests_of(world: World, call: Operation[Any]) -> tuple[int, int]:
    """Return the requests until the question, and those from the answer to the result."""
    asked: list[int] = []

    def approve(form: ApprovalRequest) -> Approve:
        asked.append(len(world.sandbox.requests))
        return Approve(form.expected)

    world.sandbox.requests.clear()
    await world.expect(Done, call, FormNow(approve, world.clock))
    (before,) = asked
    return before, len(world.sandbox.requests) - before


def account(folder: Path, customers: int) -> World:
    return World.with_rules(folder, ASKS, begin=grown(customers))


@pytest.mark.parametrize("customers", SIZES)
@pytest.mark.parametrize("tool", CHANGING)
async def test_change_costs_few_requests_on_an_account_of_any_size(tmp_path: Path, tool: str, customers: int) -> None:
    world = account(tmp_path, customers)
    (call,) = (each for each in sensible(Fastn(world.sandbox)) if each.tool_name() == tool)
    before, after = await requests_of(world, call)
    further = FURTHER.get(tool, FurtherReads(0, 0, ""))
    assert before <= MOST + further.before
    assert after <= MOST + further.after


def test_only_tools_that_delete_or_build_make_further_reads() -> None:
    deleting = {name for name, each in OPERATIONS.items() if each.effect in (Effect.TRASH, Effect.DESTROY)}
    assert FURTHER.keys() <= deleting | {"ai_build"}


@pytest.mark.parametrize("customers", SIZES)
@pytest.mark.parametrize("kind", ["customer", "secret", "connection"])
async def test_create_with_every_argument_costs_few_requests(tmp_path: Path, kind: str, customers: int) -> None:
    world = account(tmp_path, customers)
    acme = world.id_of("customers", "acme-corp")
    gamma = world.id_of("connectors", "gamma")
    calls: dict[str, Operation[Any]] = {
        "customer": CreateCustomer(name="Initech", slug="initech-co", external_ref="nb-4711"),
        "secret": CreateSecret(name="NEW_ONE", value="s3cret", customer_id=acme, environment="live"),
        "connection": CreateConnection(connector_id=gamma, customer_id=acme, credentials={"apiKey": "s3cret"}),
    }
    before, after = await requests_of(world, calls[kind])
    assert before <= MOST
    assert after <= MOST


@pytest.mark.parametrize(
    "call",
    [
        RevokeApiKey(api_key_id="77777"),
        DeleteSecret(secret_id="sec_none"),
        DeleteConnection(connection_id="ucl:org:live:c-none:a:k-none"),
        DeleteConnection(connection_id="none"),
    ],
    ids=["api key", "secret", "connection", "connection of another form"],
)
@pytest.mark.parametrize("customers", SIZES)
async def test_unknown_id_is_not_looked_for_in_twenty_pages(
    tmp_path: Path, call: Operation[Any], customers: int
) -> None:
    """It is looked for in four requests at most; a list that is not read whole may have it, which is asked about.

    What does not look like an id is first looked for as a name, in one request.
    """
    world = account(tmp_path, customers)
    world.sandbox.requests.clear()
    await world.call(call)
    of_its_list = [each for each in world.sandbox.requests if each.tool == f"list_{call.toolset()}"]
    is_perhaps_name = call.target == "none"
    assert 0 < len(of_its_list) <= 4 + is_perhaps_name
    assert world.changes == []
