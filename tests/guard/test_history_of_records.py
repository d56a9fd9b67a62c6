"""What a person is told of what this server did lately to the records of a call."""

from dataclasses import replace

from support.stores import put
from support.world import World

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.documents import write
from fastn_mcp.tools.connectors import CreateConnector, DeleteConnector, UpdateConnector


async def told(world: World, connector: str) -> tuple[tuple[str, str], ...]:
    return await world.journalling.history(by_arguments(DeleteConnector(connector_id=connector)))


async def made(world: World) -> str:
    """Create a connector that nothing uses, so that it is renamed unasked."""
    await world.expect(Done, CreateConnector(name="Payroll", slug="payroll"))
    key = world.id_of("connectors", "Payroll")
    world.clock.pass_(2 * 86_400.0)  # it was created long ago
    return key


async def rename(world: World, key: str, name: str) -> None:
    world.clock.pass_(60.0)
    await world.expect(Done, UpdateConnector(connector_id=key, name=name))


async def test_first_name_is_shown_after_several_renames(world: World) -> None:
    key = await made(world)
    for name in ("A", "B", "C", "D", "E"):
        await rename(world, key, name)
    world.clock.pass_(60.0)
    assert await told(world, key) == (("Renamed", '5 minutes ago, it was called "Payroll"'),)


async def test_history_beyond_a_hundred_changes_is_declared_incomplete(world: World) -> None:
    key = await made(world)
    await rename(world, key, "A")
    world.clock.pass_(1.0)
    for number in range(100):
        await world.ledger.begin(change_of(world, f"chg_{number}", "create_customer", None, "done"))
    world.clock.pass_(1.0)
    assert [heading for heading, _ in await told(world, key)] == ["Not checked"]


async def test_history_with_an_unreadable_change_is_not_checked(world: World) -> None:
    """It may have renamed the record."""
    key = await made(world)
    unreadable = change_of(world, "c", "update_connector", key, "done")
    await put(world.ledger, replace(write(unreadable, "c"), value="{"))
    assert [heading for heading, _ in await told(world, key)] == ["Not checked"]
    assert [change.tool for change in await world.ledger.changes("test", 9, 1e12)] == ["create_connector"]


async def test_change_with_an_unknown_outcome_is_listed(world: World) -> None:
    key = await made(world)
    await world.ledger.begin(change_of(world, "c", "update_connector", key, "unknown_outcome"))
    world.clock.pass_(60.0)
    assert await told(world, key) == (("Renamed", 'perhaps 1 minute ago, it was called "Payroll"'),)


def change_of(world: World, id_: str, tool: str, target: str | None, outcome: str) -> Change:
    return Change(
        id_, "local", world.journalling.account, tool, {}, target, "Payroll", {"name": "Payroll"}, {"name": "A"},
        world.timestamp, outcome=outcome,
    )  # fmt: skip
