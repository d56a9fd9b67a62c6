"""Without its shared ledger what changes something is refused, reads pass, and what was sent stays said."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.decisions import moved
from support.stores import NOW, grant
from support.tcp_proxy import proxied
from support.valkey_server import ValkeyServer
from support.world import World

from fastn_mcp.client.exchange import Answer, ResponseLost
from fastn_mcp.errors import FastnError, UnknownOutcome
from fastn_mcp.extensions.sandbox.server import SandboxRequest
from fastn_mcp.extensions.valkey.server import parse
from fastn_mcp.extensions.valkey.store import ValkeyStore
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers


@pytest.fixture
async def own(tmp_path: Path) -> AsyncGenerator[ValkeyServer]:
    server = ValkeyServer(tmp_path).start()
    yield server
    server.stop()


@asynccontextmanager
async def world_on(url: str, folder: Path) -> AsyncGenerator[World]:
    """Open a world whose ledger is on a server; its rests are not felt, since its clock stands still."""
    seconds = iter(range(0, 1_000_000, 10))
    ledger = Ledger(ValkeyStore(parse(url), System(monotonic=lambda: float(next(seconds)))))
    world = World(folder, ledger=ledger)
    try:
        yield world
    finally:  # else a connection that is left open fails another test, once it is collected
        await ledger.aclose()


@pytest.fixture
async def shared(own: ValkeyServer, tmp_path: Path) -> AsyncGenerator[World]:
    async with world_on(own.url(), tmp_path) as world:
        yield world


async def test_reads_pass_and_changes_are_refused_without_a_ledger(own: ValkeyServer, shared: World) -> None:
    await shared.expect(Done, CreateCustomer(name="Initech"))
    changed = len(shared.changes)
    own.stop()
    await shared.expect(Done, ListCustomers())
    await shared.expect(Done, GetOverview())
    for call in (CreateCustomer(name="Umbrella"), shared.deletion()):
        for form in (None, shared.form()):
            refused = await shared.expect(LedgerLost, call, form)
            assert refused.data()["outcome"] == "refused"
            assert "Nothing was sent." in str(refused)
            assert "Reading still works." in str(refused)
    await shared.expect(LedgerLost, ListChanges())
    assert len(shared.changes) == changed
    own.start()
    await shared.expect(Done, CreateCustomer(name="Umbrella"))


async def test_forgotten_approval_is_requested_again(own: ValkeyServer, shared: World) -> None:
    call = shared.deletion()
    await shared.expect(PendingApproval, call)
    first = shared.desk.shown[-1]
    own.stop()
    own.start()
    asked = await shared.call(call)
    if isinstance(asked, LedgerLost):  # the first to find the old connection closed
        asked = await shared.call(call)
    assert isinstance(asked, PendingApproval)
    assert shared.desk.shown[-1] != first
    assert await shared.ledger.find(first) is None
    assert shared.changes == []


async def test_unconfirmed_use_of_an_approval_sends_nothing(valkey: ValkeyServer, tmp_path: Path) -> None:
    async with proxied(valkey.port) as proxy, world_on(valkey.url(port=proxy.port), tmp_path) as world:
        call = world.deletion()
        await world.ledger.open(grant())
        await moved(
            world.ledger, "g1", [RequestState.OPEN], RequestState.STALE, NOW
        )  # so that the server has the script
        proxy.lose, proxy.hang_up = b'\\"state\\":\\"used\\"', True
        await world.expect(LedgerLost, call, world.form())
        assert proxy.lost == 1
        proxy.lose = None
        assert await world.burnt() == 1
        assert world.changes == []
        await world.expect(PendingApproval, call)
        await world.expect(Done, call, world.form())
        assert len(world.changes) == 1


async def test_unknown_outcome_is_remembered_without_the_ledger(own: ValkeyServer, shared: World) -> None:
    call = CreateCustomer(name="Initech")
    await shared.expect(Done, ListCustomers())
    answer = shared.sandbox.answer

    def unlucky(request: SandboxRequest) -> Answer:
        if request.method == "GET":
            return answer(request)
        own.stop()
        raise ResponseLost("ReadError")

    shared.sandbox.answer = unlucky
    await shared.expect(UnknownOutcome, call)
    shared.sandbox.answer = answer
    own.start()
    asked: Any = FastnError("not asked")
    for _ in range(3):
        asked = await shared.call(call)
        if not isinstance(asked, LedgerLost):
            break
    assert isinstance(asked, PendingApproval)
    assert shared.changes == []
