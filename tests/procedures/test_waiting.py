"""Tests of waiting for a run: polling within the time, and never hiding that a run was started."""

import re
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError
from support.clock import Clock
from support.faulty_sandbox import Garbage, Reset, Status
from support.world import World

from fastn_mcp.errors import Failed, Forbidden, NotFound, NotSent, UnknownOutcome
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.context import Report
from fastn_mcp.procedures.wait_for_execution import WaitForExecution
from fastn_mcp.records.states import run_state
from fastn_mcp.tools.ai import AiBuild
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import RunWorkflow

SLACK, TIKTOK, ORDERS, BACKFILL = "wf_b5880b29eb25", "wf_96d1b3072c5a", "wf_0d93ee5b1f62", "wf_58c9d02e7f14"
LOOKS = "/api/v1/executions/{execution_id}"


async def run_workflow(world: World, call: RunWorkflow) -> dict[str, Any]:
    return (await world.expect(Done, call, world.form())).result.model_dump(exclude_unset=True)


async def start_run(world: World, workflow: str = SLACK) -> str:
    return str((await run_workflow(world, RunWorkflow(workflow_id=workflow)))["executionId"])


async def hearing(world: World, call: Tool[Any], heard: Report) -> dict[str, Any]:
    outcome = await world.dispatch(call, Caller(Asker(), world.form()), heard)
    assert isinstance(outcome, Done), outcome
    return outcome.result.model_dump(exclude_unset=True)


async def ran_until(world: World, key: str, seconds: int = 30) -> dict[str, Any]:
    return await world.ask(WaitForExecution(execution_id=key, seconds=seconds))


async def test_ended_run_is_returned(world: World) -> None:
    key = await start_run(world)
    outcome = await ran_until(world, key)
    assert (outcome["id"], outcome["status"], outcome["output"]) == (
        key,
        "completed",
        {"messages": 42, "inserted": True},
    )
    assert 0 < outcome["waited_seconds"] < 30
    assert "next" not in outcome
    assert (await ran_until(world, key))["waited_seconds"] == 0


async def test_timeout_returns_the_state_and_the_next_call(world: World) -> None:
    key = await start_run(world, BACKFILL)
    outcome = await ran_until(world, key, seconds=1)
    assert outcome["status"] in ("queued", "running")
    assert outcome["waited_seconds"] == 1
    assert None not in outcome.values()
    assert outcome["next"] == {"tool": "wait_for_execution", "arguments": {"execution_id": key}}
    assert parse(TOOLS, outcome["next"]["tool"], outcome["next"]["arguments"])


async def test_failed_run_suggests_its_diagnosis(world: World) -> None:
    outcome = await ran_until(world, await start_run(world, TIKTOK))
    assert outcome["status"] == "failed"
    assert outcome["next"] == {"tool": "diagnose", "arguments": {"workflow_id": TIKTOK}}


async def test_progress_is_reported_at_each_read_and_increases(world: World) -> None:
    key = await start_run(world, BACKFILL)
    heard: list[tuple[float, str]] = []

    async def report(message: str, done: float, _: float | None) -> None:
        heard.append((done, message))

    await hearing(world, WaitForExecution(execution_id=key, seconds=5), report)
    assert re.fullmatch(r"running for .* s", heard[-1][1])
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


async def test_polling_slows_down(world: World) -> None:
    row = _stuck(world, "running")
    before = len(world.sandbox.requests)
    outcome = await ran_until(world, str(row["id"]), seconds=45)
    assert outcome["waited_seconds"] == 45
    assert 15 <= len(world.sandbox.requests) - before <= 25


def _stuck(world: World, status: JsonValue) -> Row:
    """Create a run that never proceeds by itself."""
    state = world.sandbox.state
    row = next(row for row in state.all("executions") if row["status"] == "completed")
    return state.put("executions", {**row, "status": status})


@pytest.mark.parametrize("status", ["paused", None, 7, {"is": "new"}, "COMPLETING"])
async def test_unknown_status_is_a_running_run(world: World, status: JsonValue) -> None:
    outcome = await ran_until(world, str(_stuck(world, status)["id"]), seconds=2)
    assert outcome["next"]["tool"] == "wait_for_execution"
    assert outcome["waited_seconds"] == 2


def test_final_states_are_case_insensitive() -> None:
    """Fastn's: enums were seen in both cases; `timed_out` is the older name."""
    for status in ("completed", "FAILED", "timeout", "timed_out", "Cancelled", "canceled", "error", "success"):
        assert run_state({"status": status}).has_ended
    assert not run_state({"status": "queued"}).has_ended


@pytest.mark.parametrize("fault", [Status(status=500, path=LOOKS, times=4), Reset(path=LOOKS, times=4)])
async def test_failed_read_is_tolerated(world: World, fault: Any) -> None:
    key = await start_run(world)
    world.sandbox.faults.add(fault)
    outcome = await ran_until(world, key)
    assert outcome["status"] == "completed"
    assert "last_look" not in outcome


async def test_last_known_state_is_returned_if_later_reads_fail(tmp_path: Any) -> None:
    clock = Later()
    world = World(tmp_path, clock=clock)
    key = await start_run(world, BACKFILL)
    clock.then = lambda: world.refuse(LOOKS, status=503)
    outcome = await ran_until(world, key, seconds=10)
    assert outcome["status"] in ("queued", "running")
    assert outcome["last_look"] == "Fastn answered 503."
    assert outcome["next"]["tool"] == "wait_for_execution"
    world.close()


class Later(Clock):
    """Clock that calls `then` at the first pause."""

    then: Any = None

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.then is not None:
            done, self.then = self.then, None
            done()


async def test_run_that_was_never_readable_is_an_error(world: World) -> None:
    key = await start_run(world)
    world.refuse(LOOKS, status=500)
    await world.expect(Failed, WaitForExecution(execution_id=key, seconds=5))


async def test_final_errors_are_raised_at_once(world: World) -> None:
    at = world.clock.at
    await world.expect(NotFound, WaitForExecution(execution_id="exec_000000000000"))
    await world.expect(NotSent, WaitForExecution(execution_id="../customers"))
    world.refuse(LOOKS)
    await world.expect(Forbidden, WaitForExecution(execution_id=await start_run(world)))
    assert (world.clock.at - at).total_seconds() <= 6  # the form alone


def test_seconds_is_bounded() -> None:
    for seconds in (0, 46):
        with pytest.raises(ValidationError):
            WaitForExecution(execution_id="exec_1", seconds=seconds)
    for seconds in (-1, 46):
        with pytest.raises(ValidationError):
            RunWorkflow(workflow_id="wf_1", wait_seconds=seconds)
        with pytest.raises(ValidationError):
            AiBuild(type="workflow", prompt="greet", wait_seconds=seconds)


async def test_run_workflow_can_wait(world: World) -> None:
    answer = await run_workflow(world, RunWorkflow(workflow_id=SLACK, wait_seconds=30))
    assert (answer["status"], answer["output"]) == ("completed", {"messages": 42, "inserted": True})
    assert answer["executionId"] == answer["id"]
    assert [heard.path for heard in world.changes] == [f"/api/v1/workflows/{SLACK}/run"]
    assert world.changes[0].body == {"input": {}}


async def test_run_that_a_person_is_asked_about_is_not_waited_for(world: World) -> None:
    await world.first_round(RunWorkflow(workflow_id=SLACK, wait_seconds=30))
    assert world.changes == []


async def test_run_workflow_without_waiting_only_starts(world: World) -> None:
    answer = await run_workflow(world, RunWorkflow(workflow_id=SLACK))
    assert answer["status"] == "queued"
    assert answer.keys() == {"executionId", "status", "workflowId"}
    assert not [request for request in world.sandbox.requests if request.tool == "get_execution"]


async def test_run_that_ended_at_its_start_is_not_polled(world: World) -> None:
    """Fastn's documentation: an INSTANT workflow answers with its output."""
    answer = await run_workflow(world, RunWorkflow(workflow_id=ORDERS, wait_seconds=30))
    assert answer["status"] == "completed"
    assert "waited_seconds" not in answer
    assert not [request for request in world.sandbox.requests if request.tool == "get_execution"]


@pytest.mark.parametrize(
    "fault",
    [
        Status(status=404, path=LOOKS, times=None),
        Status(status=500, path=LOOKS, times=None),
        Status(status=429, path=LOOKS, times=None, retry_after=600),
        Garbage(path=LOOKS, times=None),
    ],
)
async def test_failed_read_does_not_hide_the_started_run(world: World, fault: Any) -> None:
    """An error would make the agent start it again."""
    world.sandbox.faults.add(fault)
    answer = await run_workflow(world, RunWorkflow(workflow_id=SLACK, wait_seconds=20))
    assert answer["status"] == "queued"
    assert answer["last_look"]
    assert answer["next"]["arguments"] == {"execution_id": answer["executionId"]}
    assert len(world.changes) == 1


async def test_started_run_that_is_not_found_yet_is_waited_for(world: World) -> None:
    world.sandbox.faults.add(Status(status=404, path=LOOKS, times=1))
    assert "last_look" not in await run_workflow(world, RunWorkflow(workflow_id=SLACK, wait_seconds=20))


async def test_internal_error_does_not_hide_the_started_run(world: World) -> None:
    async def broken(_: str, __: float, ___: float | None) -> None:
        raise RuntimeError("gone")

    found = await hearing(world, RunWorkflow(workflow_id=SLACK, wait_seconds=20), broken)
    assert "RuntimeError" in found["last_look"]
    assert found["next"]["tool"] == "wait_for_execution"


@pytest.mark.parametrize(
    ("answer", "looked_for"),
    [
        ({"executionId": "exec_9"}, "exec_9"),
        ({"execution_id": 9}, "9"),
        ({"id": "exec_9", "status": "accepted"}, "exec_9"),
        ({"id": "of-something-else"}, None),
        ({"status": "COMPLETED", "id": "exec_9"}, None),
        ({}, None),
        (["output"], None),
        ("text", None),
    ],
)
@pytest.mark.parametrize("seconds", [0, 5])
async def test_run_id_is_found_in_any_answer(
    tmp_path: Any, answer: JsonValue, looked_for: str | None, seconds: int
) -> None:
    """The fields of the answer are not documented."""
    world = Answering(tmp_path, answer)
    found = await run_workflow(world, RunWorkflow(workflow_id=SLACK, wait_seconds=seconds))
    looked_for_now = looked_for if seconds else None
    looks = [request.path.rpartition("/")[2] for request in world.sandbox.requests if request.path.count("/") == 4]
    assert {key for key in looks if key != SLACK} == ({looked_for_now} if looked_for_now else set())
    if looked_for is None and not (isinstance(answer, dict) and answer.get("status")):
        assert found["next"] == {"tool": "list_executions", "arguments": {"workflow_id": SLACK}}
        assert parse(TOOLS, "list_executions", found["next"]["arguments"])
    world.close()


class Answering(World):
    """Fastn with a fixed answer to the start of a run."""

    def __init__(self, folder: Any, answer: JsonValue) -> None:
        super().__init__(folder)
        send = self.client.send

        async def other(call: Any, *checks: Any) -> Any:
            real = await send(call, *checks)
            return call.result(answer) if isinstance(call, RunWorkflow) else real

        self.client.send = other  # pyright: ignore[reportAttributeAccessIssue]


async def test_run_that_did_not_start_is_an_error(world: World) -> None:
    world.sandbox.faults.add(Reset(method="POST"))
    lost = await world.expect(UnknownOutcome, RunWorkflow(workflow_id=SLACK, wait_seconds=30), world.form())
    assert lost.facts["settle"] == {"tool": "list_executions", "arguments": {"workflow_id": SLACK}}
    assert len(world.changes) == 1
