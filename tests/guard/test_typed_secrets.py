"""Secrets that a person types with their approval: into the request to Fastn, and nowhere else."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deciding import moved
from world import Clock, FormNow, World, yes

from fastn_mcp.errors import NotSent, Refused
from fastn_mcp.guard.approval.request import PendingApproval
from fastn_mcp.guard.changes import Done
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, RequestState
from fastn_mcp.guard.plans.plan import Plan, PlannedCalls
from fastn_mcp.guard.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import BY_NAME, parse
from fastn_mcp.tools.account import CreateSecret

pytestmark = pytest.mark.anyio

CANARY = "canary-typed-by-a-person"
CALL = CreateSecret(name="STRIPE_KEY")


async def waiting(world: World) -> ApprovalRequest:
    (request,) = await world.ledger.waiting(world.clock.at.timestamp())
    return request


async def approve(world: World, request: ApprovalRequest, value: str | None = CANARY) -> None:
    """Approve as the page does: what was typed is kept first."""
    if value is not None:
        await world.typed.keep(request, value)
    await moved(world.ledger, request.id, [RequestState.OPEN], RequestState.APPROVED, world.clock.at.timestamp())


def kept_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", ["guarded", "manual", "auto"])
async def test_typed_value_reaches_fastn_once_and_is_found_nowhere_else(tmp_path: Path, mode: Any) -> None:
    """Ours: the client's form is never asked for it."""
    world = World(tmp_path, Policy(mode))
    form = FormNow(yes, world.clock)
    asked = await world.call(CALL, form)
    assert isinstance(asked, PendingApproval)
    assert asked.where == "A person types the value outside of the client. It lies on the desk."
    assert form.asked == []
    request = await waiting(world)
    assert request.preview["person_types"] == "value"
    await approve(world, request)
    assert CANARY.encode() not in kept_in(tmp_path)
    done = await world.call(CALL, form)
    assert isinstance(done, Done)
    assert [heard.body for heard in world.changes] == [{"name": "STRIPE_KEY", "value": CANARY}]
    world.close()
    assert CANARY.encode() not in kept_in(tmp_path)
    assert CANARY not in repr(done)


async def test_approval_without_a_typed_value_sends_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.call(CALL)
    await approve(world, await waiting(world), None)
    refused = await world.call(CALL)
    assert isinstance(refused, Refused)
    assert refused.what == "Nobody has typed the value, or it was used already."
    assert refused.next_step == "Call again to ask anew."
    assert isinstance(await world.call(CALL), PendingApproval)
    assert world.changes == []


async def test_value_is_of_one_request_and_ends_with_it(tmp_path: Path) -> None:
    """Ours: neither another request nor a later one can take it."""
    world = World(tmp_path)
    other = CreateSecret(name="OTHER")
    await world.call(CALL)
    first = await waiting(world)
    await world.typed.keep(first, CANARY)
    sealed = await world.ledger.take_sealed(first.id, world.clock.at.timestamp())
    assert sealed is not None
    await approve(world, first, None)
    await world.call(other)
    second = await waiting(world)
    await world.ledger.keep_sealed(second.id, sealed, second.expires, world.clock.at.timestamp())
    await approve(world, second, None)
    assert isinstance(await world.call(other), Refused)
    await world.typed.keep(second, CANARY)
    world.clock.pass_(600)
    assert await world.ledger.take_sealed(second.id, world.clock.at.timestamp()) is None
    assert world.changes == []


async def test_given_value_is_asked_about_as_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    call = CreateSecret(name="A", value="given")
    assert call.person_types is None
    assert isinstance(await world.call(call, FormNow(yes, world.clock)), Done)


async def test_nobody_to_type_it_refuses_the_call(tmp_path: Path) -> None:
    clock = Clock()
    entry = PlannedCalls("plan p line 1", "b", "create_secret", (), None, None, 1, 1)
    plan = Plan("p", "test", None, clock.at + timedelta(hours=1), "digest", ("dana",), (entry,))
    unattended = World(tmp_path, Policy("unattended", None, plan), clock)
    refused = await unattended.call(CALL)
    assert isinstance(refused, Refused)
    assert "Nobody is there to type the value." in refused.what
    attended = World(tmp_path)
    attended.desk.takes_secrets = False
    refused = await attended.call(CALL)
    assert isinstance(refused, Refused)
    assert refused.what == "Nobody can type the value where this server asks."
    assert "variable" in refused.next_step
    changes = [{"tool": "create_secret", "arguments": {"name": name}} for name in "AB"]
    call = parse(BY_NAME, "apply_changes", {"changes": changes}).call
    assert isinstance(call, ApplyChanges)
    refused = await attended.call(call)
    assert isinstance(refused, NotSent)
    assert refused.what == "Call 1, create_secret: a person can type the value of a single call only."
    assert attended.changes == []


def test_value_and_variable_exclude_each_other() -> None:
    with pytest.raises(NotSent, match="give value or value_from_env, or neither"):
        parse(BY_NAME, "create_secret", {"name": "A", "value": "x", "value_from_env": "Y"})
