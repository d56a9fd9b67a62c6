"""Neither the guard nor a list or a record that is called as a tool is ever answered by the snapshot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.direct_sandbox import Fastn
from support.faulty_sandbox import Status
from support.sensible_calls import sensible
from support.shared_account import answer, neighbour, requests_since
from support.world import World, yes

from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.guard.approval_form import Approve
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.customers import ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

CHANGES = [operation.tool_name() for operation in CATALOG if operation.effect is not Effect.READ]
ONE_OF_EACH_TOOLSET = {operation.toolset(): operation.tool_name() for operation in CATALOG}.values()
"""One tool of each toolset: what a change makes stale follows from its toolset."""
EACH_CHANGE = [pytest.param(tool, marks=() if tool in ONE_OF_EACH_TOOLSET else pytest.mark.long) for tool in CHANGES]
READS = [
    operation.tool_name()
    for operation in CATALOG
    if operation.effect is Effect.READ and operation.tool_name() != "query_audit_log"
]
NAMING = {"get_execution": "startedBy", "get_trigger": "routes"}
"""Fields that give names of other records, which may come from the snapshot."""
QUESTIONS = [GetOverview(), Diagnose(), FindDependents(customer_id="acme-corp")]


@pytest.fixture
def warm(tmp_path: Path) -> World:
    """Return an account that may be kept for 90 seconds, with a policy that asks about each change."""
    return World(tmp_path, snapshot_seconds=90)


@pytest.fixture
def cold(tmp_path: Path) -> World:
    """Return the same account without a snapshot."""
    (folder := tmp_path / "cold").mkdir()
    return World(folder)


def calls_of(world: World, tools: list[str]) -> list[Operation[Any]]:
    return [call for call in sensible(Fastn(world.sandbox)) if call.tool_name() in tools]


async def warm_up(world: World) -> None:
    for question in (*QUESTIONS, Find(query="acme hubspot sync")):
        await answer(world, question)
    before = len(world.sandbox.requests)
    await answer(world, GetOverview())
    assert len(world.sandbox.requests) == before, "it is warm"


NAMED = ("customers", "connectors", "workflows", "triggers", "api_keys", "secrets")


def rename(world: World, *collections: str) -> None:
    """Change the names of resources elsewhere, as in the dashboard."""
    for collection in collections:
        for row in world.sandbox.state.all("apiKeys" if collection == "api_keys" else collection):
            row["name"] = f"{row['name']} (renamed)"
    for row in world.sandbox.state.all("connections"):
        connector: Any = row["connector"]
        row["connector"] = connector | {"name": f"{connector['name']} (renamed)"}


async def preview(world: World, call: Operation[Any]) -> dict[str, Any]:
    previewed: Any = await world.preview(call)
    return previewed.data_for_agent()


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each use of what a snapshot holds fail."""

    def used(*_: object) -> Any:
        raise AssertionError("the snapshot was read")

    for name in ("read", "stored", "holds", "pages_left", "derived"):
        monkeypatch.setattr(AccountSnapshot, name, used)


async def test_previews_show_what_was_changed_elsewhere(warm: World, cold: World) -> None:
    """The guard reads as much as without a snapshot, and shows the new state."""
    changes = calls_of(warm, CHANGES)
    earlier = [await preview(warm, call) for call in changes]
    await warm_up(warm)
    for world in (warm, cold):
        rename(world, *NAMED)
    for call, before in zip(changes, earlier, strict=True):
        read = [len(world.sandbox.requests) for world in (warm, cold)]
        shown = await preview(warm, call)
        assert shown == await preview(cold, call)
        if call.toolset() != "ai":  # what there is before a message is compared, and nothing is decided by it
            assert requests_since(warm, read[0]) == requests_since(cold, read[1])
        assert (shown != before) == ("(renamed)" in str(shown)), call
        if call.target is not None or call.tool_name() == "create_connection":
            assert "(renamed)" in str(shown), call


@pytest.mark.parametrize("tool", CHANGES)
async def test_change_is_judged_and_sent_without_the_snapshot(
    warm: World, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call,) = calls_of(warm, [tool])
    forbid(monkeypatch)
    if tool == "ai_build":  # `ai.build` compares what there is before and after
        result = await warm.guard.execute(call, Caller(Asker(), warm.form()))
        assert isinstance(result, Done)
    else:
        await warm.expect(Done, call, warm.form())


async def test_update_is_merged_into_the_record_that_was_approved(warm: World) -> None:
    """The record is read before the question and after the answer. What is sent is the second one, changed."""
    row = warm.sandbox.state.named("customers", "globex-exports")
    call = UpdateCustomer(customer_id=row["id"], name="Globex")
    await warm.expect(Done, call, warm.form())
    assert [heard.method for heard in warm.sandbox.requests] == ["GET", "GET", "PUT"]
    assert warm.sandbox.state.named("customers", "globex-exports")["plan"] == row["plan"]


async def test_update_reads_its_target_again_after_a_slow_evaluation(warm: World) -> None:
    """A change that somebody else made meanwhile to another field stays."""
    row = warm.sandbox.state.named("customers", "globex-exports")

    def approve_then_throttle(form: ApprovalRequest) -> Approve:
        warm.sandbox.faults.add(Status(method="GET", path="*", status=429, retry_after=10))
        return yes(form)

    await warm.expect(Done, UpdateCustomer(customer_id=row["id"], name="Globex"), warm.form(approve_then_throttle))
    assert [heard.method for heard in warm.sandbox.requests] == ["GET", "GET", "GET", "GET", "PUT"]


async def test_record_or_list_as_a_tool_is_read_anew(warm: World, cold: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the names of what its rows refer to may come from the snapshot, which knows more of them."""
    await warm_up(warm)
    for call in calls_of(warm, READS):
        tool = call.tool_name()
        for world in (warm, cold):
            rename(world, *{*NAMED}.intersection({call.toolset()}))
            world.sandbox.requests.clear()
        with monkeypatch.context() as patched:
            if not tool.startswith("list_") and tool not in NAMING:
                forbid(patched)
            answers: list[Any] = [await answer(world, call) for world in (warm, cold)]
        if tool in NAMING:
            answers = [{name: value for name, value in each.items() if name != NAMING[tool]} for each in answers]
        if tool.startswith("list_"):
            answers = [[(row["id"], row.get("name"), row.get("status")) for row in shown["items"]] for shown in answers]
        assert answers[0] == answers[1], call
        own = [[each for each in requests_since(world, 0) if each[0] == tool] for world in (warm, cold)]
        assert own[0] == own[1] != [], call


@pytest.mark.parametrize("tool", EACH_CHANGE)
async def test_change_through_this_server_is_seen_at_once(warm: World, tmp_path: Path, tool: str) -> None:
    """The next answers are those of a process that has read nothing before."""
    (call,) = calls_of(warm, [tool])
    if tool.startswith("update_"):  # what else they change is in no answer
        call = type(call).model_validate(call.arguments() | {"name": "Renamed"})
    name = str(call.arguments().get("name") or name_of(warm, call) or "acme")
    questions = [*QUESTIONS, Find(query=name), GetOverview(about="workflows"), GetOverview(about="access")]
    for question in questions:
        await answer(warm, question)
    begun = warm.clock.at
    await warm.expect(Done, call, warm.form())
    warm.clock.at = begun  # as if the person had read in no time, so that the periods of all answers are the same
    fresh = neighbour(warm, tmp_path)
    for question in questions:
        assert await answer(warm, question) == await answer(fresh, question), question
    fresh.audit.close()


def name_of(world: World, call: Operation[Any]) -> str:
    rows: Iterator[Row] = (
        row
        for collection in ("customers", "connectors", "workflows", "triggers", "apiKeys", "secrets")
        for row in world.sandbox.state.all(collection)
    )
    return next((str(row["name"]) for row in rows if str(row["id"]) == call.target), "")


async def test_list_that_was_called_as_a_tool_is_not_kept(warm: World) -> None:
    await answer(warm, ListCustomers(limit=100))
    assert warm.snapshot.size == 0
