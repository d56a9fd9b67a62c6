"""A replica that is killed loses no approval: neither a request that is open there, nor one that was approved there."""

import signal
from pathlib import Path

import anyio
import httpx2
import pytest
from support.page_visitor import Visitor
from support.replica_pair import two_replicas
from support.valkey_server import ValkeyServer


async def approve(visitor: Visitor, name: str) -> None:
    await visitor.until(f"Delete customer {name}")
    assert (await visitor.approve(name=name)).status_code == 303


async def test_killed_replica_loses_no_approval(valkey: ValkeyServer, tmp_path: Path) -> None:
    with two_replicas(tmp_path, valkey.url(), wait=45) as world:
        async with world.caller(world.one) as agent, world.caller(world.other) as there:
            ids = {row["name"]: row["id"] for row in (await there("list_customers"))["data"]}
            async with world.visitor("dana", world.one) as dana:
                async with anyio.create_task_group() as tasks:

                    async def begin() -> None:
                        await there("delete_customer", customer_id=ids["Katana"])

                    tasks.start_soon(begin)
                    await dana.until("Delete customer Katana")
                    tasks.cancel_scope.cancel()  # its agent leaves, and the request stays
                await approve(dana, "Katana")
                async with anyio.create_task_group() as tasks:

                    async def delete() -> None:
                        with pytest.raises(httpx2.TransportError):
                            await agent("delete_customer", customer_id=ids["Globex Exports"])

                    tasks.start_soon(delete)
                    await dana.until("Delete customer Globex Exports")
                    world.processes[world.one].send_signal(signal.SIGUSR1)
            async with world.visitor("dana", world.other) as dana:
                await approve(dana, "Globex Exports")
            assert world.deleted() == 0
            for name in ("Katana", "Globex Exports"):
                assert (await there("delete_customer", customer_id=ids[name]))["done"] == "delete_customer"
                assert (await there("delete_customer", customer_id=ids[name]))["outcome"] == "not_found"
        assert world.deleted() == 2
        assert world.approved() == [(world.one, "Dana Example"), (world.other, "Dana Example")]
