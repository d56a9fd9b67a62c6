"""What is read of a long list before a create, and again once a person has answered."""

from pathlib import Path
from typing import Any

import pytest
from support.world import World, batch_of

from fastn_mcp.errors import FastnError, TargetChanged
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.policy.decision import Decision
from fastn_mcp.tools.customers import CreateCustomer, UpdateCustomer

NEW = CreateCustomer(name="Nordlicht Bikes", admin_email="ops@nordlicht.example")


def add(world: World, count: int = 1, **fields: Any) -> None:
    """Add old customers."""
    template = {**world.sandbox.state.all("customers")[0], "externalRef": None, "createdAt": "2025-01-01T00:00:00.000Z"}
    for _ in range(count):
        key = world.sandbox.state.uuid()
        world.sandbox.state.put("customers", template | {"id": key, "name": key, "slug": key} | fields)


@pytest.fixture
def many(world: World) -> World:
    """Customers on three pages."""
    add(world, 250)
    return world


def oldest(world: World) -> dict[str, Any]:
    return min(world.sandbox.state.all("customers"), key=lambda row: (row["createdAt"], row["id"]))


def searches(world: World) -> list[str]:
    """Return the searches of the lists of customers since the last time."""
    heard = [each.query.get("search", "") for each in world.sandbox.requests if each.tool == "list_customers"]
    world.sandbox.requests.clear()
    return heard


async def approve_new(world: World) -> None:
    world.sandbox.requests.clear()
    await world.expect(PendingApproval, NEW)
    assert searches(world) == [""] * 3
    await world.approve_open_request()


@pytest.mark.parametrize("at", ["2026-11-25T09:00:01.000Z", "2025-01-01T00:00:00.000Z"], ids=["new", "restored"])
@pytest.mark.parametrize("is_other_removed", [True, False])
async def test_approval_of_a_create_is_void_once_another_has_its_name(
    many: World, at: str, *, is_other_removed: bool
) -> None:
    await approve_new(many)
    if is_other_removed:  # then Fastn's total is the same
        del many.sandbox.state.rows["customers"][oldest(many)["id"]]
    add(many, name="Nordlicht Bikes", createdAt=at)
    await many.expect(TargetChanged, NEW)
    assert many.changes == []


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Nordlicht Bikes"},
        {"name": "Nordlicht-Bikes"},
        {"name": "Nórdlicht Bikes"},
        {"slug": "nordlicht-bikes"},
    ],
)
async def test_approval_of_a_create_is_void_once_an_old_row_is_renamed(many: World, fields: dict[str, Any]) -> None:
    await approve_new(many)
    many.sandbox.state.put("customers", oldest(many) | fields)
    await many.expect(TargetChanged, NEW)
    assert many.changes == []


async def test_create_after_a_rename_in_the_same_list_is_evaluated_by_the_whole_list(many: World) -> None:
    rename = UpdateCustomer(customer_id=oldest(many)["id"], name="Nordlicht-Bikes")
    await many.expect(PendingApproval, call := batch_of(rename, NEW))
    await many.approve_open_request()
    error = await many.expect(FastnError, call)
    assert "Call 2, create_customer: The target is no longer in the state that was approved. Nothing" in error.what
    assert [request.method for request in many.changes] == ["PUT"]


async def test_create_in_a_list_that_is_too_long_is_settled_by_proven_searches(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "update_customer"\nthen = "deny"\n')
    add(world, 2_000)
    world.sandbox.requests.clear()
    verdict, preview = await world.judged(NEW)
    assert searches(world)[:2] == ["", "nordlicht"]
    assert (verdict.decision, preview.target) == (Decision.CONFIRM, None)
    add(world, id="its-id", name="Nordlicht Bikes")
    verdict, preview = await world.judged(NEW)
    assert (verdict.decision, preview.target) == (Decision.DENY, "its-id")
