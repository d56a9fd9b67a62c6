"""A new connection where the customer has one to the same app: Fastn may replace the credentials of that one."""

from pathlib import Path
from typing import Any

import pytest
from support.policy_files import ALLOWING
from support.world import World

from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.errors import TargetChanged
from fastn_mcp.guard.undo import NotUndoable, Undo, foreseen, undo_of
from fastn_mcp.ledger.change import Change
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.rows import Row
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection
from fastn_mcp.tools.operation import UNKNOWN


def connector(world: World, slug: str = "cin7Core") -> str:
    return str(world.sandbox.state.named("connectors", slug)["id"])


def katana(world: World) -> str:
    return str(world.sandbox.state.named("customers", "katana-customer")["id"])


def existing(world: World) -> Row:
    """Katana's connection to Cin7 Core."""
    rows = world.sandbox.state.all("connections")
    return next(row for row in rows if row["connectorId"] == connector(world) and row["endOrgId"] == katana(world))


def reconnect(world: World, **arguments: Any) -> CreateConnection:
    held = {"connector_id": connector(world), "customer_id": katana(world), "credentials": {"apiKey": "s"}}
    return CreateConnection.model_validate(held | arguments)


async def test_question_says_that_the_credentials_of_a_connection_may_be_replaced(world: World) -> None:
    verdict, shown = await world.judged(reconnect(world))
    assert verdict.decision is Decision.CONFIRM
    assert shown.title.startswith("Reconnect ")
    assert shown.title.endswith(': connection "Cin7 Core of Katana" exists with status "EXPIRED".')
    assert (
        shown.lost
        == 'The credentials of connection "Cin7 Core of Katana" may be replaced: the current ones are then permanently'
        " lost."
    )
    assert shown.target == existing(world)["id"]
    assert (
        shown.data_for_agent()["undo"]
        == "The connection existed before and is kept. If its credentials were replaced, the earlier ones are lost: the"
        " customer has to authorise the app again."
    )


async def test_first_connection_to_an_app_is_described_as_new(world: World) -> None:
    _, shown = await world.judged(reconnect(world, connector_id=connector(world, "shopify")))
    assert shown.title.startswith("Connect ")
    assert (shown.lost, "It can be deleted afterwards." in shown.then) == ("", True)
    assert shown.target is None


async def test_connections_that_cannot_be_read_count_as_replaced(world: World) -> None:
    world.refuse("/api/v1/connections")
    _, shown = await world.judged(reconnect(world))
    assert (
        "Whether a connection already exists was not checked. If one does, its credentials may be replaced."
        in shown.unchecked
    )
    assert "It can be deleted afterwards." not in shown.then
    assert shown.data_for_agent()["undo"] == "Whether it overwrote something is unknown; find it with the list tool."


async def test_approval_is_void_once_a_connection_exists(world: World) -> None:
    row = existing(world)
    world.sandbox.state.drop("connections", str(row["id"]))
    await world.approve_outside(reconnect(world))
    world.sandbox.state.put("connections", {**row})
    await world.expect(TargetChanged, reconnect(world))
    assert world.changes == []


async def test_rule_about_a_connection_holds_for_its_replacement(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "create_connection"\ntarget = "ucl:*"\nthen = "deny"\n')
    assert (await world.judged(reconnect(world)))[0].decision is Decision.DENY
    first = reconnect(world, connector_id=connector(world, "shopify"))
    assert (await world.judged(first))[0].decision is Decision.CONFIRM


async def test_customer_of_the_settings_is_the_customer_of_the_connection(tmp_path: Path) -> None:
    customer = katana(World(tmp_path / "any"))
    world = World(tmp_path, surroundings=Surroundings(customer=customer))
    call = reconnect(world, customer_id=None)
    resolved = (await world.judge.judge_call(call, Asker())).resolved
    assert resolved.changed == ("connection", existing(world)["id"])


async def test_replacement_is_not_undone_by_deleting_a_connection_that_existed(tmp_path: Path) -> None:
    """Also where the policy allows the call without asking."""
    world = World(tmp_path, Policy(rules=ALLOWING))
    call = reconnect(world)
    evaluation = await world.judge.judge_call(call, Asker())
    assert evaluation.verdict.decision is Decision.ALLOW
    await world.call(call)
    (change,) = await world.ledger.changes(world.journalling.account, 1, 1e12)
    assert (change.before or {}).get("id") == existing(world)["id"]
    assert isinstance(foreseen(call, evaluation.resolved.target), NotUndoable)


def test_undo_of_a_new_connection_beside_another_deletes_the_new_one() -> None:
    def change(target: str) -> Change:
        before = {"id": "c1", "name": "default"}
        return Change("chg", "local", "t", "create_connection", {}, target, "n", before, {}, 0.0, "done")

    assert isinstance(undo_of(change("c1")), NotUndoable)
    undo = undo_of(change("c2"))
    assert isinstance(undo, Undo)
    assert undo.call == DeleteConnection(connection_id="c2")


KEY = "ucl:org_1:live:k1:a1:c1"
CALL = CreateConnection(connector_id="k1", customer_id="c1")
NAMED = CALL.model_copy(update={"name": "Shop 2"})
ROWS: dict[str, tuple[CreateConnection, Row, bool | None]] = {
    "the same": (CALL, {"id": KEY, "name": "default", "connectorId": "k1", "endOrgId": "c1"}, True),
    "known by its id alone": (CALL, {"id": KEY}, True),
    "another customer": (CALL, {"id": KEY, "connectorId": "k1", "endOrgId": "c2"}, False),
    "your own account": (CALL, {"id": "x", "connectorId": "k1", "endOrgId": None}, False),
    "another app": (CALL, {"id": "x", "connectorId": "k2", "endOrgId": "c1"}, False),
    "another name": (NAMED, {"id": KEY, "name": "default"}, False),
    "the same name, spelled otherwise": (NAMED, {"id": KEY, "name": "shop\u200b-2"}, True),
    "a name, and none is given": (CALL, {"id": KEY, "name": "Shop 2"}, None),
    "no customer": (CALL, {"id": "x", "connectorId": "k1"}, None),
    "no app": (CALL, {"id": "x", "endOrgId": "c1"}, None),
    "perhaps of a customer in undocumented fields": (
        CALL.model_copy(update={"extra": {"tenant": "c2"}}),
        {"id": "x", "connectorId": "k1", "endOrgId": "c2"},
        None,
    ),
}


@pytest.mark.parametrize(("call", "row", "may"), ROWS.values(), ids=ROWS)
def test_connection_is_replaced_by_one_of_its_app_customer_and_name(
    call: CreateConnection, row: Row, may: bool | None
) -> None:
    assert call.may_overwrite(row) is may


async def test_reconnecting_takes_one_read_of_the_connections(world: World) -> None:
    call = reconnect(world)
    await world.preview(call)
    paths = [request.path for request in world.sandbox.requests]
    assert paths.count("/api/v1/connections") == 1


async def test_customer_in_undocumented_fields_makes_the_replaced_connection_unknown(world: World) -> None:
    call = reconnect(world, connector_id=connector(world, "shopify"), extra={"tenant": "globex-exports"})
    resolved = (await world.judge.judge_call(call, Asker())).resolved
    assert resolved.target is UNKNOWN
