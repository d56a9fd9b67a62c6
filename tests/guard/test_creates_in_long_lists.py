"""What is read of a long list before a create, and again once a person has answered."""

from pathlib import Path
from typing import Any

import pytest
from support.world import World

from fastn_mcp.errors import TargetChanged
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.batch import Done
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.customers import CreateCustomer

pytestmark = pytest.mark.anyio

NEW = CreateCustomer(name="Nordlicht Bikes", admin_email="ops@nordlicht.example")
CHANGES_ONLY = ["", "Nordlicht Bikes"]
"""Searches of the requests that show what has changed: the first page, and a search by its name."""


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


async def test_approved_create_reads_only_what_has_changed_in_a_long_list(many: World) -> None:
    await approve_new(many)
    add(many, name="Elsewhere", createdAt="2026-11-25T09:00:01.000Z")
    await many.expect(Done, NEW)
    assert searches(many) == CHANGES_ONLY


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


async def test_approval_of_a_create_is_void_once_an_old_row_is_renamed(many: World) -> None:
    await approve_new(many)
    many.sandbox.state.put("customers", oldest(many) | {"name": "Nordlicht Bikes"})
    await many.expect(TargetChanged, NEW)
    assert many.changes == []


async def test_create_with_a_reference_that_search_may_miss_is_evaluated_by_the_whole_list(many: World) -> None:
    call = NEW.model_copy(update={"external_ref": "crm-77"})
    await many.judged(call)
    many.sandbox.state.put("customers", oldest(many) | {"externalRef": "crm-77"})
    many.sandbox.requests.clear()
    _, preview = await many.judged(call)
    assert preview.target == oldest(many)["id"]


async def test_create_is_evaluated_by_the_whole_list_after_a_long_time(many: World) -> None:
    await many.judged(NEW)
    many.sandbox.requests.clear()
    many.clock.pass_(Policy().approval_lifetime - 1)
    await many.judged(NEW)
    assert searches(many) == CHANGES_ONLY
    many.clock.pass_(2)
    await many.judged(NEW)
    assert searches(many) == [""] * 3


async def test_other_create_is_evaluated_by_the_whole_list(many: World) -> None:
    await many.judged(NEW)
    many.sandbox.requests.clear()
    await many.judged(NEW.model_copy(update={"name": "Hooli"}))
    assert searches(many) == [""] * 3


async def test_create_in_a_list_that_is_too_long_reads_its_first_page_and_searches(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "update_customer"\nthen = "deny"\n')
    add(world, 2_000)
    world.sandbox.requests.clear()
    verdict, preview = await world.judged(NEW)
    assert searches(world) == CHANGES_ONLY
    assert (verdict.decision, preview.target) == (Decision.DENY, None)
    add(world, id="its-id", name="Nordlicht Bikes")
    verdict, preview = await world.judged(NEW)
    assert (verdict.decision, preview.target) == (Decision.DENY, "its-id")
    world.close()
