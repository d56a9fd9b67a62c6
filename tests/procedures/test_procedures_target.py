"""Tests of the target of a call, and of the read that settles a lost answer, for every operation."""

from typing import Any

import pytest

from fastn_mcp.client.targets import read_target
from fastn_mcp.errors import NotFound, Unauthorized
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import DeleteSecret, RevokeApiKey
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection
from fastn_mcp.tools.customers import DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import UNKNOWN, Call, Create, Operation
from fastn_mcp.tools.related_reads import settling_read
from fastn_mcp.tools.workflows import ListWorkflows, RunWorkflow


class Reads:
    """Sender that answers reads from a script, and records them."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> FastnObject:
        self.calls.append(call)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        found: FastnObject = call.result(answer)  # pyright: ignore[reportArgumentType]
        return found


def acting(operation: AnyOperation) -> Operation[Any]:
    """Return a call on the id `r1`, without most of its other arguments."""
    values: dict[str, Any] = dict.fromkeys([*operation.route.parameters, "name"], "r1")
    if operation is CreateConnection:
        values["connector_id"] = "r1"  # by which a connection that exists is found
    return operation.model_construct(**values)


async def test_target_is_read_only_by_gets() -> None:
    """A preview changes nothing, and shows the resource that the call names or may overwrite."""
    for operation in CATALOG:
        row = {"id": "r1", "name": "One"}
        reads = Reads([{"id": "r0"}, row] if _listed(operation) else row)
        target = await read_target(acting(operation), reads)
        if issubclass(operation, Create):
            assert all(reading.route.method == "GET" for reading in reads.calls)
            continue
        if not operation.route.parameters:
            assert (target, reads.calls) == (None, [])
            continue
        assert target is not None
        assert target.model_dump()["name"] == "One"
        (reading,) = reads.calls
        assert reading.route.method == "GET"
        assert reading.toolset() == operation.toolset()
        assert (reading.target == "r1") != _listed(operation)


def _listed(operation: AnyOperation) -> bool:
    return operation.toolset() in ("connections", "api_keys", "secrets")


def test_every_lost_answer_except_the_ais_has_a_settling_read() -> None:
    for operation in CATALOG:
        settled = settling_read(acting(operation))
        if operation.toolset() == "ai":
            assert settled is None
            continue
        assert settled is not None
        assert settled.route.method == "GET"
        if operation is RunWorkflow:
            assert settled.tool_name() == "list_executions"
            assert settled.arguments()["workflow_id"] == "r1"
        else:
            assert settled.toolset() == operation.toolset()


async def test_missing_target_is_none() -> None:
    assert await read_target(DeleteCustomer(customer_id="c"), Reads(NotFound("no"))) is None
    assert await read_target(DeleteSecret(secret_id="s"), Reads([])) is None
    assert await read_target(DeleteSecret(secret_id="s"), Reads([{"name": "no id"}, {"id": "t"}])) is None


async def test_unreadable_target_is_an_error() -> None:
    """Fail closed. Only a 404 means that the target does not exist."""
    with pytest.raises(Unauthorized):
        await read_target(UpdateCustomer(customer_id="c", name="x"), Reads(Unauthorized("no")))
    with pytest.raises(NotFound):
        await read_target(RevokeApiKey(api_key_id="k"), Reads(NotFound("no list")))


async def test_target_is_found_on_a_later_page_and_by_number() -> None:
    """A resource without a GET is looked up in its list."""
    first: dict[str, object] = {"data": [{"id": n} for n in range(100)], "nextCursor": "two"}
    reads = Reads(first, {"data": [{"id": 7000, "name": "Seven"}]})
    found = await read_target(DeleteConnection(connection_id="7000"), reads)
    assert found is not None
    assert found.model_dump()["name"] == "Seven"
    assert [call.request().query.get("cursor") for call in reads.calls] == [None, "two"]
    assert [call.request().query["limit"] for call in reads.calls] == [100, 100]


async def test_endless_list_is_given_up() -> None:
    reads = Reads({"data": [{"id": "other"}], "nextCursor": "again"})
    assert await read_target(DeleteSecret(secret_id="s"), reads) is UNKNOWN
    assert len(reads.calls) == 4


def test_reads_need_no_settling_read() -> None:
    calls: list[Call] = [ListCustomers(limit=5), ListWorkflows(), GetCustomer(customer_id="c")]
    for call in calls:
        assert type(settling_read(call)) is type(call)
