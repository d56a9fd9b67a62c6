"""A create on a long list: few requests, and never taken for new because a filter does not work."""

from pathlib import Path
from typing import Any

import pytest
from support.world import World

from fastn_mcp.client.overwrites import read_overwritten
from fastn_mcp.client.reads import RecordedReads
from fastn_mcp.extensions.sandbox import replies
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.connectors import CreateConnection, CreateConnector
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.operation import UNKNOWN, Create
from fastn_mcp.tools.workflows import CreateWorkflow

OLD = "2024-01-01T00:00:00.000Z"
CREATES: dict[str, Create[Any]] = {
    "customers": CreateCustomer(name="Nordlicht Bikes"),
    "connectors": CreateConnector(name="Nordlicht Bikes", slug="nordlicht-bikes"),
    "workflows": CreateWorkflow(name="Nordlicht Bikes"),
    "secrets": CreateSecret(name="NORDLICHT_BIKES", value="s3cret"),
    "connections": CreateConnection(connector_id="c-1", customer_id="k-1", credentials={"token": "t"}),
}
TAKEN = {
    "secrets": {"name": "NORDLICHT_BIKES", "customerId": None, "environment": None},
    "connections": {"id": "ucl:org:live:c-1:a:k-1", "connectorId": "c-1", "endOrgId": "k-1", "name": "default"},
}


def account(folder: Path, collection: str, count: int) -> World:
    """Return an account with so many newer rows in a collection, and its own rows as they were."""
    world = World(folder)
    state = world.sandbox.state
    template = state.all(collection)[0]
    for number in range(count):
        key = f"row-{number:05}"
        fields = {"id": key, "name": f"Alder {number:05} Foods", "slug": f"alder-{number:05}-foods", "domain": None}
        if collection == "secrets":
            fields |= {"name": f"ALDER_{number:05}_TOKEN", "slug": None}
        fields |= {"externalRef": None, "adminEmail": None, "createdAt": "2026-01-01T00:00:00.000Z"}
        if collection == "connections":
            fields = {
                "id": f"ucl:org:live:c-{number}-x:a:k-{number}-x",
                "name": "default",
                "createdAt": fields["createdAt"],
            }
            fields |= {"connectorId": f"c-{number}-x", "endOrgId": f"k-{number}-x"}
        state.put(collection, {**template, **fields})
    return world


def take(world: World, collection: str) -> str:
    """Let the oldest row have what a create gives."""
    template = world.sandbox.state.all(collection)[0]
    fields = TAKEN.get(collection, {"name": "NORDLICHT BIKES", "slug": "Nordlicht-Bikes"})
    row = {**template, "id": "taken", "createdAt": OLD, **fields}
    return str(world.sandbox.state.put(collection, row)["id"])


async def overwritten(world: World, call: Create[Any]) -> Any:
    return await read_overwritten(call, RecordedReads(world.client.send))


def exact_case(rows: list[Any], call: Any, select: Any = replies.select) -> list[Any]:
    wanted = call.filters.get("search")
    found = select(rows, call)
    return found if wanted is None else [row for row in found if wanted in f"{row.get('name')} {row.get('slug')}"]


def nothing(rows: list[Any], call: Any, select: Any = replies.select) -> list[Any]:
    return [] if call.filters else select(rows, call)


def all_rows(rows: list[Any], call: Any, select: Any = replies.select) -> list[Any]:
    return select(rows, call.model_copy(update=dict.fromkeys(call.filters)))


@pytest.mark.parametrize("collection", CREATES)
@pytest.mark.parametrize("filtering", [exact_case, nothing, all_rows])
@pytest.mark.parametrize("count", [1_000, 2_500])
async def test_no_overwrite_is_taken_for_a_create_where_filters_do_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str, filtering: Any, count: int
) -> None:
    world = account(tmp_path, collection, count)
    take(world, collection)
    for module in ("resource", "customers"):
        monkeypatch.setattr(f"fastn_mcp.extensions.sandbox.{module}.select", filtering)
    assert await overwritten(world, CREATES[collection]) is not None


@pytest.mark.parametrize("collection", CREATES)
@pytest.mark.parametrize("count", [20, 2_000, 20_000])
async def test_create_takes_few_requests_on_an_account_of_any_size(tmp_path: Path, collection: str, count: int) -> None:
    world = account(tmp_path, collection, count)
    world.sandbox.requests.clear()
    assert await overwritten(world, CREATES[collection]) is None
    assert len(world.sandbox.requests) <= 5
    key = take(world, collection)
    assert (await overwritten(world, CREATES[collection])).model_dump()["id"] == key


async def test_name_beyond_ascii_may_be_taken_in_a_long_list(tmp_path: Path) -> None:
    world = account(tmp_path, "customers", 1_000)
    assert await overwritten(world, CreateCustomer(name="Müller")) is UNKNOWN
