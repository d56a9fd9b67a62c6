"""A caller cannot fill the disk: what the ledger stores for them is bounded."""

from pathlib import Path

from support.decisions import moved
from support.world import World

from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.storage_limits import MAX_JOURNAL_BYTES, MAX_OPEN_BYTES, MAX_REQUEST_BYTES, RequestsFull
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.customers import UpdateCustomer
from fastn_mcp.tools.workflows import RunWorkflow

TEXT = "x" * 900_000
ONE_CALL = 4_000_000
"""Bytes of the file that one call can take for itself before older records are dropped."""


def ledger_bytes(world: World, folder: Path) -> int:
    """Return the size of the file once its write-ahead log is in it."""
    world.close()
    return (folder / "ledger.sqlite3").stat().st_size


async def test_ledger_does_not_grow_with_large_requests(tmp_path: Path) -> None:
    world = World(tmp_path)
    caller = Caller(Asker("mallory"), None)

    async def ask(number: int) -> bool:
        call = RunWorkflow(workflow_id=world.run().workflow_id, input={"number": number, "text": TEXT})
        try:
            return isinstance(await world.dispatch(call, caller), PendingApproval)
        except RequestsFull:
            return False

    assert sum([await ask(number) for number in range(31)]) < 3
    assert ledger_bytes(world, tmp_path) < MAX_OPEN_BYTES + ONE_CALL
    for number in range(31):  # each is answered, and expires
        await ask(number)
        for request in await world.ledger.waiting(world.timestamp):
            assert await moved(
                world.ledger, request.id, [RequestState.OPEN], RequestState.DECLINED, world.timestamp, by="local_page"
            )
        world.clock.pass_(1000)
    assert ledger_bytes(world, tmp_path) < MAX_REQUEST_BYTES + ONE_CALL


async def test_ledger_does_not_grow_with_large_changes(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "update_customer"\nthen = "allow"\n')
    customer = world.id_of("customers", "Katana")
    for number in range(31):
        await world.call(UpdateCustomer(customer_id=customer, plan=f"{number}", extra={"notes": f"{number} {TEXT}"}))
    assert len(world.changes) == 31
    assert ledger_bytes(world, tmp_path) < MAX_JOURNAL_BYTES + ONE_CALL
