"""Short references stand for the long ids of connections in answers, and every tool takes them."""

import re
from typing import Any

import pytest
from pydantic_core import to_json
from support.world import World, batch_of

from fastn_mcp.account import short_ids
from fastn_mcp.account.short_ids import ShortIds, reference_to
from fastn_mcp.errors import NotFound, NotSent
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.connectors import DeleteConnection, ListConnections
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.tool import Tool

_REFERENCE = re.compile(r"ref_[a-z2-7]{10}")


def rows(world: World) -> list[dict[str, Any]]:
    return world.sandbox.state.all("connections")


async def test_list_has_a_reference_for_each_id_and_whole_ids_in_full(world: World) -> None:
    ids = [row["id"] for row in rows(world)]
    assert min(map(len, ids)) > 60
    short = await world.ask(ListConnections(limit=100))
    assert {row["id"] for row in short["items"]} == set(map(reference_to, ids))
    whole = await world.ask(ListConnections(limit=100, detail="full"))
    assert {row["id"] for row in whole["items"]} == set(ids)
    assert len(to_json(short)) < len(to_json(whole)) / 2


@pytest.mark.parametrize(
    "call",
    [
        Find(query="the slack connection of acme corp"),
        GetOverview(),
        GetOverview(about="connections"),
        Diagnose(),
        ListConnections(fields=["id", "status"]),
        QueryAuditLog(action="credential.token_refresh"),
    ],
    ids=lambda call: call.tool_name(),
)
async def test_no_answer_repeats_a_long_id(world: World, call: Tool[Any]) -> None:
    """Neither in its rows nor in the calls that it suggests."""
    got = to_json(await world.ask(call)).decode()
    assert not [row["id"] for row in rows(world) if row["id"] in got]


def deletion(id_: str) -> DeleteConnection:
    return DeleteConnection(connection_id=id_)


def batch(id_: str) -> ApplyChanges:
    return batch_of(deletion(id_))


@pytest.mark.parametrize("make", [deletion, batch])
@pytest.mark.parametrize("was_shown", [True, False], ids=["shown before", "of another process"])
async def test_approval_request_of_a_reference_has_the_whole_id(world: World, make: Any, *, was_shown: bool) -> None:
    """And is the one that the whole id has."""
    id_ = rows(world)[0]["id"]
    if was_shown:
        await world.ask(ListConnections())
    pending = await world.expect(PendingApproval, make(reference_to(id_)))
    shown = to_json(pending.question.data_for_agent()).decode()
    assert id_ in shown
    assert not _REFERENCE.search(shown)
    again = await world.expect(PendingApproval, make(id_))
    assert again.request == pending.request


async def test_preview_has_references_and_the_calls_in_it_take_them(world: World) -> None:
    id_ = rows(world)[0]["id"]
    body = await world.dispatch.preview_body(await world.preview(deletion(id_)))
    assert id_ not in to_json(body).decode()
    assert body["arguments"] == {"connection_id": reference_to(id_)}
    again = await world.preview(DeleteConnection.model_validate(body["arguments"]))
    assert again.data_for_agent()["arguments"] == {"connection_id": id_}


async def test_tables_of_an_overview_have_references(world: World) -> None:
    """Without one, a further call would need the list of connections."""
    table = (await world.ask(GetOverview(about="connections")))["table"]
    shown = {row[table["columns"].index("id")] for row in table["rows"]}
    assert shown == {reference_to(row["id"]) for row in rows(world) if row["status"] != "ACTIVE"}


async def test_find_dependents_and_find_take_references(world: World) -> None:
    row = rows(world)[0]
    reference = reference_to(row["id"])
    got = await world.ask(FindDependents(connection_id=reference))
    assert got["of"]["id"] == reference
    (found,) = (await world.ask(Find(query=f"what is {reference}?")))["found"]
    assert (found["kind"], found["id"]) == ("connection", reference)


async def test_reference_of_another_account_or_none_is_not_found(world: World) -> None:
    """A reference is looked up only among the connections that this key can list."""
    other = reference_to("ucl:another:live:" + "x" * 80)
    failed = await world.expect(NotFound, deletion(other))
    assert failed.what == f"No connection has the short id {other}."
    assert await world.ledger.waiting(world.timestamp) == []


async def test_ambiguous_reference_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ids with the same digest are told apart by a person only."""

    def same(_: str) -> str:
        return "ref_aaaaaaaaaa"

    monkeypatch.setattr(short_ids, "reference_to", same)
    failed = await world.expect(NotSent, deletion("ref_aaaaaaaaaa"))
    assert failed.what.endswith("connections have the short id ref_aaaaaaaaaa.")


async def test_reference_in_another_argument_is_left_as_it_is(world: World) -> None:
    """Only arguments that take ids are looked up."""
    id_ = rows(world)[0]["id"]
    await world.ask(ListConnections())
    done = await world.expect(Done, CreateCustomer(name=reference_to(id_)))
    assert done.result.model_dump()["name"] == reference_to(id_)


@pytest.mark.parametrize(
    "given", [{"id": "ref_abcdefghij"}, {"query": "ref_abcdefghij"}, {"at": {"id": "ref_abcdefghij"}}]
)
async def test_reference_in_the_input_of_a_run_is_data(world: World, given: dict[str, Any]) -> None:
    await world.expect(Done, world.run().model_copy(update={"input": given}), world.form())
    assert world.changes[-1].body == {"input": given}


@pytest.mark.parametrize(
    ("id_", "output"),
    [(",".join(map(str, range(40))), list(range(40))), ("1" * 70, int("1" * 70)), ("x " * 40, "x")],
    ids=["numbers", "digits", "text"],
)
async def test_text_that_is_no_composite_id_is_left_as_it_is(id_: str, output: Any) -> None:
    """Replacing it would change what stands outside of strings in the answer."""
    result = FastnObject.model_validate({"items": [{"rowId": id_, "output": output}]})
    assert await ShortIds().shortened(result) == result


async def test_kept_references_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_ids, "_MAX_KEPT", 2)
    kept = ShortIds()
    done = await world.expect(Done, ListConnections(limit=100, detail="full"))
    await kept.shortened(done.result)
    assert len(vars(kept)["_ids"]) == 2
