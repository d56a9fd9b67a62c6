"""Tests of ai_chat and ai_build: uniform replies, decisions left to a person, and reported changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import JsonValue
from support.behaviour import Behaviour, Filtering, Paging
from support.clock import Clock
from support.faulty_sandbox import FaultMoment, Garbage, Reset, Status
from support.world import World

from fastn_mcp.errors import UnknownOutcome
from fastn_mcp.extensions.sandbox.connectors import new_connector
from fastn_mcp.extensions.sandbox.state import Row, stamp
from fastn_mcp.extensions.sandbox.workflows import new_workflow
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.ai import MAX_PAGES, next_step
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.tools.ai import AiBuild, AiChat, AiReply, normalize_reply

ORDERS, SLACK = "wf_0d93ee5b1f62", "wf_b5880b29eb25"
NOTHING_CHANGED: dict[str, Any] = {
    "created": [],
    "updated": [],
    "deleted": [],
    "looked_at": "workflows and connectors only; query_audit_log has changes of other kinds",
}
ASKING = 5.0
"""Seconds until a person approves spending credits."""


class Workshop(Clock):
    """Clock with an AI that works during pauses: one of `works` in each."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Callable[[], object]] = []

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.works:
            self.works.pop(0)()


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def built(tmp_path: Path, workshop: Workshop) -> World:
    return World(tmp_path, clock=workshop)


def greeter(seconds: int) -> AiBuild:
    return AiBuild(type="workflow", prompt="greet", name="Greeter", approval_mode="auto", wait_seconds=seconds)


async def reply_to(world: World, call: AiChat | AiBuild) -> dict[str, Any]:
    outcome = await world.expect(Done, call, world.form(seconds=ASKING))
    assert type(outcome.result) is AiReply
    return {**outcome.result.model_dump(exclude_unset=True), **outcome.notes}


def posted_paths(world: World) -> list[str]:
    return [heard.path for heard in world.changes]


def read_paths(world: World) -> list[str]:
    """Return the paths of reads, except that of the balance, which the preview shows."""
    paths = [request.path for request in world.sandbox.requests if request.method == "GET"]
    return [path for path in paths if path != "/api/v1/billing"]


def make(world: World, name: str) -> Row:
    """Create a workflow, as another user would."""
    row = new_workflow(world.sandbox.state, name, name.casefold().replace(" ", "-"), None)
    now = stamp(world.clock.at)
    return world.sandbox.state.put("workflows", {**row, "createdAt": now, "updatedAt": now})


def add_connectors(world: World, count: int) -> None:
    """Add connectors that were created long ago."""
    state = world.sandbox.state
    old = new_connector(state, "Old", "old", None)
    for number in range(count):
        row = {**old, "id": f"c{number}", "slug": f"old{number}", "createdAt": "2026-01-01T00:00:00.000Z"}
        state.put("connectors", {**row, "updatedAt": "2026-01-01T00:00:00.000Z"})


async def test_chat_continues_by_session_id(world: World) -> None:
    asked = await reply_to(world, AiChat(message="hm"))
    assert asked["questions"][0]["id"] == "which"
    assert asked["next"]["ai_chat"] == {"session_id": asked["session_id"]}
    answered = await reply_to(world, AiChat(message="which workflows fail?", session_id=asked["session_id"]))
    assert answered["session_id"] == asked["session_id"]
    assert "next" not in answered
    assert answered["credits_used"] == 1
    assert answered["messageId"]  # unknown fields are kept


async def test_first_message_in_manual_mode_says_that_nothing_changed_without_a_further_request(world: World) -> None:
    answer = await reply_to(world, AiChat(message=f"delete {ORDERS}"))
    assert answer["changed"]["according_to_fastn"].startswith("Nothing: in manual mode the AI asks before each change")
    assert read_paths(world) == []


async def test_first_message_that_names_a_call_is_not_said_to_change_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send: Any = world.client.send

    async def acting(call: Any, *checks: Any) -> Any:
        reply = AiReply.model_validate({"sessionId": "s", "toolCalls": [{"tool": "deleteWorkflow"}]})
        return reply if isinstance(call, AiChat) else await send(call, *checks)

    monkeypatch.setattr(world.client, "send", acting)
    answer = await reply_to(world, AiChat(message="hello there"))
    assert "according_to_fastn" not in answer["changed"]
    assert "tool_calls" in answer["changed"]["not_checked"][0]


async def test_first_message_in_auto_mode_says_what_changed(world: World) -> None:
    answer = await reply_to(world, AiChat(message=f"delete {ORDERS}", approval_mode="auto"))
    assert [row["id"] for row in answer["changed"]["deleted"]] == [ORDERS]
    assert answer["changed"]["looked_at"].startswith("workflows and connectors only")


async def test_approval_cards_are_left_to_the_person(world: World) -> None:
    """The AI's approval cards are answered only by a separate call, if the person agrees."""
    asked = await reply_to(world, AiChat(message=f"delete {ORDERS}"))
    assert posted_paths(world) == ["/api/v1/ai/chat"]
    assert asked["pending_approvals"][0]["tool"] == "deleteWorkflow"
    step = asked["next"]
    assert "only they can approve" in step["what"]
    agreed, otherwise = step["if_they_agree"], step["otherwise"]
    assert agreed["arguments"] == {"session_id": asked["session_id"], "message": "approve"}
    for call in (agreed, otherwise):
        assert parse(TOOLS, call["tool"], call["arguments"])
    assert world.sandbox.state.get("workflows", ORDERS) is not None
    done = await reply_to(world, AiChat.model_validate(agreed["arguments"]))
    assert done["tool_calls"][0]["status"] == "completed"
    assert world.sandbox.state.get("workflows", ORDERS) is None


async def test_build_is_completed_by_following_next(world: World) -> None:
    started = await reply_to(world, AiBuild(type="workflow", prompt="Sync orders to Xero", connectors=["xero"]))
    assert "no free way" in started["next"]["what"]
    planned = await reply_to(world, AiChat.model_validate(started["next"]["arguments"]))
    assert planned["pending_approvals"]
    assert [*planned][:4] == ["session_id", "status", "plan", "pending_approvals"]
    assert "Creates the workflow `sync-orders-to-xero` as a draft" in planned["plan"]
    built = await reply_to(world, AiChat.model_validate(planned["next"]["if_they_agree"]["arguments"]))
    workflow = world.sandbox.state.named("workflows", "sync-orders-to-xero")
    assert built["changed"]["created"] == [{"kind": "workflow", "id": workflow["id"], "name": "Sync orders to Xero"}]
    assert built["next"] == {"tool": "get_workflow", "arguments": {"workflow_id": workflow["id"]}}
    assert len(posted_paths(world)) == 3


async def test_person_is_shown_the_plan_and_the_balance(world: World) -> None:
    started = await reply_to(
        world, AiBuild(type="workflow", prompt="Sync orders to Xero", connectors=["shopify", "xero"])
    )
    planned = await reply_to(world, AiChat.model_validate(started["next"]["arguments"]))
    call = AiChat.model_validate(planned["next"]["if_they_agree"]["arguments"])
    previewed = await world.preview(call)
    data = previewed.data_for_agent()
    assert data["pending"][0] == {"plan": planned["plan"]}
    message = {"status": "waiting_for_user", "message": "The plan is ready. May I make it?"}
    assert data["pending"][1:] == [*planned["pending_approvals"], message]
    assert "Write to xero." in " ".join(previewed.lines())
    assert data["costs"].startswith("AI credits used by the last message: 1. 10 of 50 are left until 2026-12-01.")


async def test_running_build_is_followed_by_reads(world: World) -> None:
    """Asking the AI spends credits, so a build that needs no approval is followed in the lists."""
    call = AiBuild(type="connector", prompt="the Gamma API", name="Gamma API", approval_mode="auto")
    assert (await reply_to(world, call))["next"] == {
        "what": (
            "The build continues. Look for its result in this list, which costs nothing; asking the AI spends credits."
        ),
        "tool": "list_connectors",
        "arguments": {"search": "Gamma API"},
    }


async def test_balance_that_cannot_be_read_is_said(world: World) -> None:
    world.refuse("/api/v1/billing")
    previewed = await world.preview(AiChat(message="hm"))
    assert "The balance could not be read" in previewed.data_for_agent()["costs"]


@pytest.mark.parametrize(
    ("reply", "tool"),
    [
        ({"resourceId": "wf_1"}, "get_workflow"),
        ({"session_id": "s", "status": "completed", "resourceId": "c0ffee"}, "find"),
        ({"session_id": "s", "status": "in progress"}, "ai_chat"),
        ({"status": "running"}, None),
        ({"session_id": "s", "status": "completed"}, None),
    ],
)
def test_next_step_by_reply(reply: dict[str, JsonValue], tool: str | None) -> None:
    found: Any = next_step(reply)
    assert (found and found["tool"]) == tool


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (
            {"sessionID": "s", "reply": "Hi", "pending_approvals": {"id": 1}, "creditsUsed": 0, "x": [1]},
            {"session_id": "s", "message": "Hi", "pending_approvals": [{"id": 1}], "credits_used": 0, "x": [1]},
        ),
        (
            {"conversationId": 7, "content": [{"type": "text", "text": "a"}, {"text": "b"}], "toolCalls": []},
            {"session_id": "7", "message": "a\nb"},
        ),
        ({"message": {"role": "ai", "content": "c"}, "question": "Which?"}, {"message": "c", "questions": ["Which?"]}),
        ({"value": "only text"}, {"message": "only text"}),
        ({"message": 5, "status": None, "sessionId": None}, {"message": 5}),
        ({"message": "m", "reply": "r"}, {"message": "m", "reply": "r"}),
        ({}, {}),
    ],
)
def test_reply_shapes_are_normalized(answer: dict[str, JsonValue], shape: dict[str, JsonValue]) -> None:
    """Fastn's fields are inferred, so each may have another name or type."""
    assert normalize_reply(answer, None) == shape


def test_session_id_of_the_call_fills_in_for_a_missing_one() -> None:
    assert normalize_reply({"reply": "Hi"}, "s") == {"session_id": "s", "message": "Hi"}
    assert next_step({"questions": ["Which?"]}) == "Fastn names no session, so this conversation cannot be continued."
    assert "ai_chat" in str(next_step({"session_id": "s", "status": "FAILED"}))
    assert next_step({"session_id": "s", "status": "Waiting for user"}) is not None


async def test_build_polls_lists_until_the_resource_exists(built: World, workshop: Workshop) -> None:
    workshop.works = [lambda: None, lambda: make(built, "Greeter")]
    answer = await reply_to(built, greeter(45))
    (created,) = answer["changed"]["created"]
    assert (created["kind"], created["name"]) == ("workflow", "Greeter")
    assert created["id"].startswith("wf_")
    assert answer["waited_seconds"] == 5.0
    assert len([request for request in built.sandbox.requests if "search" in request.query]) == 2  # not at once
    assert posted_paths(built) == ["/api/v1/ai/build"]
    assert built.changes[0].body == {
        "type": "workflow",
        "prompt": "greet",
        "name": "Greeter",
        "approvalMode": "auto",
    }


async def test_build_reports_all_changes(built: World, workshop: Workshop) -> None:
    state = built.sandbox.state

    def work() -> None:
        row = state.get("workflows", ORDERS)
        assert row is not None
        state.put("workflows", {**row, "updatedAt": "2026-11-25T09:00:01.000Z"})
        state.drop("workflows", SLACK)
        now = stamp(built.clock.at)
        extra = new_connector(state, "Greeter API", "greeterApi", None)
        state.put("connectors", {**extra, "createdAt": now, "updatedAt": now})

    workshop.works = [work]
    changed = (await reply_to(built, AiBuild(type="connector", prompt="greet", approval_mode="auto", wait_seconds=20)))[
        "changed"
    ]
    assert [(row["kind"], row["name"]) for row in changed["created"]] == [("connector", "Greeter API")]
    assert [row["id"] for row in changed["updated"]] == [ORDERS]
    assert [row["id"] for row in changed["deleted"]] == [SLACK]
    assert "not_checked" not in changed


async def test_build_that_only_plans_is_not_waited_for(world: World) -> None:
    """No list shows the plan, and asking spends a credit: the caller hears at once what shows it and what that
    costs."""
    at = world.clock.at
    answer = await reply_to(world, AiBuild(type="workflow", prompt="sync things", wait_seconds=45))
    assert (world.clock.at - at).total_seconds() == ASKING
    assert answer["changed"] == NOTHING_CHANGED
    assert answer["next"]["arguments"] == {"session_id": answer["session_id"], "message": "status?"}
    assert parse(TOOLS, answer["next"]["tool"], answer["next"]["arguments"])
    assert answer["next"]["what"].endswith("Each message spends AI credits and needs a person's approval.")
    planned = await reply_to(world, AiChat.model_validate(answer["next"]["arguments"]))
    assert planned["next"]["if_they_agree"]["arguments"]["message"] == "approve"
    assert planned["next"]["what"].endswith("AI credits (the last one used 1) and needs a person's approval.")


async def test_plan_in_the_answer_of_a_build_is_answered_by_approve(tmp_path: Path) -> None:
    world = Answering(tmp_path, {"sessionId": "s", "status": "PLANNED", "plan": "## Do it"})
    answer = await reply_to(world, AiBuild(type="workflow", prompt="greet", approval_mode="auto", wait_seconds=45))
    assert (answer["plan"], answer["waited_seconds"]) == ("## Do it", 0)
    assert answer["next"]["if_they_agree"]["arguments"] == {"session_id": "s", "message": "approve"}
    world.close()


async def test_build_that_times_out_returns_next_step(world: World) -> None:
    heard: list[str] = []

    async def report(message: str, _: float, total: float | None) -> None:
        heard.append(f"{message} of {total}")

    call = AiBuild(type="workflow", prompt="sync things", approval_mode="auto", wait_seconds=3)
    outcome = await world.dispatch(call, Caller(Asker(), world.form()), report)
    assert isinstance(outcome, Done)
    found: dict[str, Any] = {**outcome.result.model_dump(), **outcome.notes}
    assert found["changed"] == NOTHING_CHANGED
    assert found["next"]["tool"] == "list_workflows"
    assert heard[-1].startswith("building for ")
    assert posted_paths(world) == ["/api/v1/ai/build"]
    assert len(read_paths(world)) <= 2 * MAX_PAGES + 8


async def test_receipt_of_the_ai_says_what_it_changed_and_not_what_it_said(world: World) -> None:
    asked = await reply_to(world, AiChat(message=f"delete {ORDERS}"))
    call = AiChat.model_validate(asked["next"]["if_they_agree"]["arguments"])
    rendered = await world.rendered(call, world.form())
    assert [row["id"] for row in rendered["receipt"]["changed"]["deleted"]] == [ORDERS]
    assert "message" not in rendered["receipt"]["changed"]
    listed, *_ = (await world.ask(ListChanges()))["changes"]
    assert "changed" not in listed


async def test_build_without_waiting_reads_before_and_after(world: World) -> None:
    at = world.clock.at
    answer = await reply_to(world, AiBuild(type="workflow", prompt="sync things"))
    assert read_paths(world) == ["/api/v1/workflows", "/api/v1/connectors"] * 2
    assert (world.clock.at - at).total_seconds() == ASKING
    assert "waited_seconds" not in answer
    assert answer["buildId"]
    assert answer["status"] == "running"


async def test_lists_before_a_message_are_read_once_though_it_waits_for_a_person(
    tmp_path: Path, workshop: Workshop
) -> None:
    world = World(tmp_path, clock=workshop, snapshot_seconds=90)
    workshop.works.append(lambda: make(world, "Sync"))
    call = AiBuild(type="workflow", prompt="Sync", approval_mode="auto", wait_seconds=30)
    await world.expect(PendingApproval, call)
    await world.approve_open_request()
    workshop.pass_(30)
    world.sandbox.requests.clear()
    outcome = await world.expect(Done, call)
    assert world.sandbox.requests[0].method == "POST"
    (created,) = cast("dict[str, Any]", outcome.notes["changed"])["created"]
    assert created["name"] == "Sync"


async def test_lists_after_a_message_are_those_before_the_next_one_within_seconds(tmp_path: Path) -> None:
    world = World(tmp_path, snapshot_seconds=90)
    started = await reply_to(world, AiBuild(type="workflow", prompt="Sync orders to Xero"))
    world.sandbox.requests.clear()
    planned = await reply_to(world, AiChat.model_validate(started["next"]["arguments"]))
    assert read_paths(world) == ["/api/v1/workflows", "/api/v1/connectors"]
    world.clock.pass_(30)
    world.sandbox.requests.clear()
    built = await reply_to(world, AiChat.model_validate(planned["next"]["if_they_agree"]["arguments"]))
    assert read_paths(world) == ["/api/v1/workflows", "/api/v1/connectors"] * 2
    assert [row["kind"] for row in built["changed"]["created"]] == ["workflow"]
    world.close()


async def test_lists_that_another_answer_read_meanwhile_do_not_hide_what_was_built(
    tmp_path: Path, workshop: Workshop
) -> None:
    world = World(tmp_path, clock=workshop, snapshot_seconds=90)

    async def report(message: str, _: float, __: float | None) -> None:
        if message.startswith("building"):
            await world.ask(GetOverview(about="triggers"))  # reads workflows

    workshop.works = [lambda: make(world, "Greeter")]
    outcome = await world.dispatch(greeter(9), Caller(Asker(), world.form(seconds=ASKING)), report)
    assert isinstance(outcome, Done)
    (created,) = cast("dict[str, Any]", outcome.notes["changed"])["created"]
    assert created["name"] == "Greeter"
    world.close()


@pytest.mark.parametrize(
    "answer",
    [
        {"sessionId": "s", "status": "waiting_for_user"},
        {"sessionId": "s", "status": "running", "questions": ["Which?"]},
        {"sessionId": "s", "pendingApprovals": [{"id": "a"}]},
        {"sessionId": "s", "status": "running", "resourceId": "wf_1"},
        {"sessionId": "s", "status": "Failed"},
        {"status": "completed"},
    ],
)
async def test_build_that_needs_a_person_or_ended_is_not_polled(tmp_path: Path, answer: dict[str, JsonValue]) -> None:
    world = Answering(tmp_path, answer)
    at = world.clock.at
    found = await reply_to(world, AiBuild(type="workflow", prompt="greet", wait_seconds=45))
    assert (world.clock.at - at).total_seconds() == ASKING
    assert found["waited_seconds"] == 0
    assert ("next" in found) == (answer.get("status") != "completed")
    world.close()


@pytest.mark.parametrize("answer", [[], "text", 5, {}, {"questions": 3}, {"sessionId": {"id": 1}}, {"status": ["x"]}])
async def test_build_tolerates_unexpected_answers(tmp_path: Path, answer: JsonValue) -> None:
    world = Answering(tmp_path, answer)
    assert (await reply_to(world, AiBuild(type="thing", prompt="greet", wait_seconds=3)))["changed"]["created"] == []
    await reply_to(world, AiChat(message="greet"))
    assert len(posted_paths(world)) == 2
    world.close()


class Answering(World):
    """Fastn whose AI has a fixed answer."""

    def __init__(self, folder: Path, answer: JsonValue) -> None:
        super().__init__(folder)
        send = self.client.send

        async def other(call: Any, *checks: Any) -> Any:
            if isinstance(call, AiBuild):
                await send(call.model_copy(update={"type": "workflow"}))
                return call.result(answer)
            return (
                call.result(answer)
                if isinstance(call, AiChat) and await send(call, *checks)
                else await send(call, *checks)
            )

        self.client.send = other  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "fault",
    [
        Reset(method="POST"),
        Reset(method="POST", moment=FaultMoment.AFTER),
        Status(method="POST", status=500),
        Status(method="POST", status=504, code="AGT-TIMEOUT"),
    ],
)
@pytest.mark.parametrize(
    "call", [AiChat(message="greet"), AiBuild(type="connector", prompt="greet", name="Greeter", wait_seconds=45)]
)
async def test_ai_calls_are_never_retried(world: World, call: AiChat | AiBuild, fault: Any) -> None:
    """A retry spends credits and may build twice. A lost outcome is unknown; a build can be looked for."""
    world.sandbox.faults.add(fault)
    lost = await world.expect(UnknownOutcome, call, world.form())
    assert len(posted_paths(world)) == 1
    if isinstance(call, AiBuild):
        settle = cast("dict[str, Any]", lost.facts["settle"])
        assert settle == {"tool": "list_connectors", "arguments": {"search": "Greeter"}}
        assert parse(TOOLS, settle["tool"], settle["arguments"])
        assert "list_connectors" in lost.data()["next"]  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    "fault",
    [
        Status(path="/api/v1/connectors", status=403, times=None),
        Status(path="/api/v1/workflows", status=500, times=None),
        Garbage(path="/api/v1/workflows", times=None),
        Status(method="GET", status=401, times=None),
    ],
)
async def test_failed_inventory_does_not_hide_the_reply(world: World, fault: Any) -> None:
    """A failed read says nothing about the build."""
    world.sandbox.faults.add(fault)
    answer = await reply_to(world, AiBuild(type="workflow", prompt="sync things", wait_seconds=10))
    assert answer["session_id"]
    assert answer["changed"]["not_checked"]
    assert answer["changed"]["deleted"] == []
    assert len(posted_paths(world)) == 1


async def test_lists_left_out_for_the_rate_limit_do_not_ask_for_another_message(tmp_path: Path) -> None:
    world = World(tmp_path, snapshot_seconds=90, requests_per_answer=2)
    answer = await reply_to(world, AiBuild(type="workflow", prompt="sync things"))
    left_out = "left out, to keep within Fastn's rate limit"
    assert answer["changed"]["not_checked"] == [f"Not all workflows: {left_out}", f"Not all connectors: {left_out}"]
    assert read_paths(world) == ["/api/v1/workflows", "/api/v1/connectors"]
    world.close()


async def test_unreadable_rows_are_not_reported_as_deleted(built: World, workshop: Workshop) -> None:
    """Only a complete inventory shows that something is gone."""
    workshop.works = [
        lambda: built.refuse("/api/v1/connectors"),
        lambda: make(built, "Greeter"),
    ]
    changed = (await reply_to(built, greeter(20)))["changed"]
    assert [row["name"] for row in changed["created"]] == ["Greeter"]
    assert changed["deleted"] == []
    assert changed["not_checked"]


async def test_internal_error_after_a_build_does_not_hide_the_reply(world: World) -> None:
    """Credits were spent, and the answer has to say so."""

    async def broken(_: str, __: float, ___: float | None) -> None:
        raise RuntimeError("gone")

    call = AiBuild(type="workflow", prompt="sync things", approval_mode="auto", wait_seconds=10)
    outcome = await world.dispatch(call, Caller(Asker(), world.form()), broken)
    assert isinstance(outcome, Done)
    found: dict[str, Any] = {**outcome.result.model_dump(), **outcome.notes}
    assert "RuntimeError" in found["changed"]["not_checked"][0]
    assert found["session_id"]


async def test_inventory_of_several_pages_is_complete(built: World) -> None:
    add_connectors(built, 250)
    before = len(read_paths(built))
    changed = (await reply_to(built, AiBuild(type="connector", prompt="greet")))["changed"]
    assert "not_checked" not in changed
    assert len(read_paths(built)) - before <= 2 * MAX_PAGES


async def test_partial_inventory_finds_new_rows_by_creation_time(built: World, workshop: Workshop) -> None:
    """A row missing from the first inventory is new only if created since."""
    state = built.sandbox.state
    add_connectors(built, 800)

    def work() -> None:
        for connector in state.all("connectors")[-5:]:  # older ones become visible
            state.drop("connectors", connector["id"])
        make(built, "Greeter")

    workshop.works = [work]
    call = AiBuild(type="connector", prompt="greet", approval_mode="auto", wait_seconds=9)
    changed = (await reply_to(built, call))["changed"]
    names = {row["name"] for row in changed["created"]}
    assert "Greeter" in names
    assert "Old" not in names
    assert [row for row in changed["deleted"] if row["kind"] == "connector"] == []
    assert "Not all connectors" in changed["not_checked"][0]


async def test_other_kind_of_a_build_is_read_whole_or_only_its_first_page(built: World, workshop: Workshop) -> None:
    add_connectors(built, 800)
    workshop.works = [lambda: make(built, "Greeter")]
    changed = (await reply_to(built, greeter(1)))["changed"]
    assert [row["name"] for row in changed["created"]] == ["Greeter"]
    assert changed["not_checked"] == ["Not all connectors: there are more than the 100 that were read"]
    assert read_paths(built) == ["/api/v1/workflows", "/api/v1/connectors"] * 2


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(filtering=Filtering.IGNORED), Behaviour(paging=Paging.IGNORED), Behaviour(paging=Paging.SILENT)],
)
async def test_inventory_works_without_filters_and_paging(
    built: World, workshop: Workshop, behaviour: Behaviour
) -> None:
    built.sandbox.behaviour = behaviour
    workshop.works = [lambda: make(built, "Greeter")]
    answer = await reply_to(built, greeter(9))
    assert [row["name"] for row in answer["changed"]["created"]] == ["Greeter"]
