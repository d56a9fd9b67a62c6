"""Only a person's approval of this exact call sends it, by a real client in both protocol versions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestParams, EmptyResult, ErrorData
from support.decisions import answered
from support.direct_sandbox import Fastn
from support.faulty_sandbox import Status
from support.policy_files import CONFIRMING, CONFIRMS, rules_of
from support.scripted_client import LATEST, Content, Fields, Program, changing, connected, each_version, one_in_four
from support.server_process import approval, body, typed
from support.slack import TEAM, Slack
from support.slack_world import DANA, KIM, MALLORY, slack_world
from support.world import World

from fastn_mcp.build.stores import ledger_at
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.runtime import System
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection

CYRILLIC = "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0410\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425"


def look_alike(text: str) -> str:
    """Return a text that looks the same: Cyrillic letters for Latin ones, or an invisible one appended."""
    other = text.translate(str.maketrans("aceopxyACEHKMOPTX", CYRILLIC))
    return other if other != text else text + "\u200b"


def changed(change: Callable[[str], object]) -> Callable[[Fields], Content]:
    return lambda fields: {name: change(value) for name, value in approval(fields).items()}


NO_APPROVAL: dict[str, tuple[Callable[[Fields], Content | None], float, str]] = {
    "an approval at once": (approval, 0.0, "accept"),
    "an approval after 0.99 seconds": (approval, 0.99, "accept"),
    "a decline at once": (lambda _: None, 0.0, "decline"),
    "a decline": (lambda _: None, 5.0, "decline"),
    "a form that is closed": (lambda _: None, 5.0, "cancel"),
    "a decline that holds an approval": (approval, 5.0, "decline"),
    "a closed form that holds an approval": (approval, 5.0, "cancel"),
    "no content": (lambda _: None, 5.0, "accept"),
    "an empty form": (lambda _: {}, 5.0, "accept"),
    "another field": (lambda _: {"approve": True, "confirm": "yes"}, 5.0, "accept"),
    "the field of the other form": (
        lambda fields: {"name": "approve"} if typed(fields) is None else {"decision": "approve"},
        5.0,
        "accept",
    ),
    "an empty name beside a decline": (lambda _: {"name": "", "decision": "decline"}, 5.0, "accept"),
    "both fields": (lambda fields: {"name": typed(fields) or "", "decision": "approve"}, 5.0, "accept"),
    "a field more": (lambda fields: approval(fields) | {"note": "fine"}, 5.0, "accept"),
    "true": (changed(lambda _: True), 5.0, "accept"),
    "a number": (changed(lambda _: 1), 5.0, "accept"),
    "a list": (changed(lambda value: [value]), 5.0, "accept"),
    "another case": (changed(str.swapcase), 5.0, "accept"),
    "a space before": (changed(" ".__add__), 5.0, "accept"),
    "a line break behind": (changed(lambda value: value + "\n"), 5.0, "accept"),
    "letters that look alike": (changed(look_alike), 5.0, "accept"),
    "an empty text": (changed(lambda _: ""), 5.0, "accept"),
    "a temporary approval that was not offered": (lambda _: {"decision": "approve for 60 minutes"}, 5.0, "accept"),
}


@each_version
@one_in_four
async def test_invalid_answer_sends_nothing_by_any_tool(step: int, version: str, tmp_path: Path) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING))
    program = Program(world, approval)
    async with connected(world, version, program) as client:
        for number, (answer, (content, seconds, action)) in enumerate(NO_APPROVAL.items()):
            program.content, program.seconds, program.action = content, seconds, action
            for tool, arguments in changing(world)[number % step :: step]:
                before = len(program.messages)
                result = body(await client.call_tool(tool, arguments))
                assert len(program.messages) == before + 1, (answer, tool)
                assert world.changes == [], (answer, tool, result)
                outcome = result.get("outcome") or result["status"]
                assert outcome in ("declined", "approval_required"), (answer, tool, result)
                assert "Nothing was sent" in result["message"], (answer, tool, result)
                assert outcome == "declined" or "on the desk" in result["message"], (answer, tool)
                world.clock.pass_(1000)  # the breaker and the distrust of the channel expire before the next call


@dataclass(frozen=True)
class SlackAnswer:
    """An invalid answer in Slack: the user, the typed text, the workspace, and edits of the dialog's reference."""

    user: str = DANA
    typed: Callable[[str], str] | None = None
    team: str = TEAM
    edits: dict[str, Any] | None = None


UNDECIDED = {
    "a stranger": SlackAnswer(MALLORY),
    "an approver's user id in another workspace": SlackAnswer(team="T0OTHER"),
    "a dialog that shows other lines": SlackAnswer(edits={"shown": "0" * 64}),
    "a dialog of another request": SlackAnswer(edits={"request": "another"}),
    "no text": SlackAnswer(typed=lambda _: ""),
    "another case": SlackAnswer(typed=str.swapcase),
    "a space before": SlackAnswer(typed=" ".__add__),
    "a line break behind": SlackAnswer(typed=lambda name: name + "\n"),
    "letters that look alike": SlackAnswer(typed=look_alike),
    "the word of the other form": SlackAnswer(typed=lambda _: "approve"),
}
OF_EACH_EFFECT = ("update_customer", "run_workflow", "ai_chat", "create_role", "delete_workflow", "delete_customer")


UNUSABLE = {"an error": ErrorData(code=-32601, message="Method not found"), "no action": EmptyResult()}


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE)
async def test_form_that_a_client_cannot_answer_leads_to_the_next_channel(
    answer: ErrorData | EmptyResult, tmp_path: Path
) -> None:
    """Up to 2025-11-25. It is no fault of the guard, whose operator could do nothing about it."""

    async def fail(context: ClientRequestContext, params: ElicitRequestParams) -> Any:  # noqa: ARG001
        return answer

    world = World(tmp_path, Policy(rules=CONFIRMING))
    async with Client(build(world.dispatch, ALL_TOOLS, {}), mode="legacy", elicitation_callback=fail) as client:
        waits = body(await client.call_tool(*changing(world)[0]))
    assert waits["status"] == "approval_required"
    assert "the client did not show the form, or answered with an error" in waits["message"]
    assert world.changes == []


async def test_invalid_answer_in_slack_sends_nothing_of_any_effect(slack: Slack, tmp_path: Path) -> None:
    policy = Policy(rules=rules_of(tmp_path, "[breaker]\ndeclined = 100\n" + CONFIRMS))
    async with slack_world(tmp_path, slack, policy) as world, connected(world, LATEST) as client:
        arguments, tried = dict(changing(world)), 0
        for tool in OF_EACH_EFFECT:
            assert body(await client.call_tool(tool, arguments[tool]))["status"] == "approval_required"
            request, message = await world.open_request(), slack.messages[-1]
            for what, answer in UNDECIDED.items():
                if answer.typed is None or request.expected is not None:
                    typed = (answer.typed or str)(request.expected or "")
                    assert await slack.decide(answer.user, message, typed=typed, team=answer.team, edits=answer.edits)
                    assert (await world.open_request()).votes == (), (tool, what)
                    tried += 1
            assert body(await client.call_tool(tool, arguments[tool]))["status"] == "approval_required"
            assert await slack.decide(KIM, message, "decline") == ""
            result = body(await client.call_tool(tool, arguments[tool]))
            assert result["outcome"] == "declined", (tool, result)
            assert world.changes == []
        assert tried > 4 * len(OF_EACH_EFFECT)


WORKFLOW = "wf_b5880b29eb25"
GLOBEX, ACME = "5c4bc270-6e5f-4523-afd7-6538d17c6c3a", "c009d6af-1950-4428-ad06-a70af567801a"
RUN = {"workflow_id": WORKFLOW, "environment": "test", "customer_id": GLOBEX, "input": {"n": 1}}

OTHER_RUNS: dict[str, dict[str, Any]] = {
    "another environment": {"environment": "live"},
    "no environment": {"environment": None},
    "another customer": {"customer_id": ACME},
    "no customer": {"customer_id": None},
    "one argument more": {"idempotency_key": "again"},
    "another workflow": {"workflow_id": "wf_0d93ee5b1f62"},
}


def quarter(fields: Fields) -> Content:
    assert "approve for 15 minutes" in fields["decision"]["enum"]
    return {"decision": "approve for 15 minutes"}


@each_version
async def test_temporary_approval_covers_only_the_same_fields_and_fixed_values(version: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    person = Program(world, quarter)
    async with connected(world, version, person) as client:
        assert "done" in body(await client.call_tool("run_workflow", RUN))
        (question,) = person.messages
        assert "further runs of this workflow with" in question
        assert "the same customer and environment and any input need no approval for 15 minutes." in question
        assert "done" in body(await client.call_tool("run_workflow", RUN | {"input": {"n": 2}}))
        assert len(person.messages) == 1
        person.content, person.action = (lambda _: None), "decline"
        sent = len(world.changes)
        for other, change in OTHER_RUNS.items():
            arguments = {name: value for name, value in (RUN | change).items() if value is not None}
            assert body(await client.call_tool("run_workflow", arguments))["outcome"] == "declined", other
            world.clock.pass_(60)
            await answered(world.ledger, "local", world.clock.at.timestamp(), approves=True)
        assert len(world.changes) == sent


@each_version
async def test_temporary_approval_of_one_field_covers_no_other(version: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    person = Program(world, quarter)
    async with connected(world, version, person) as client:
        update = {"workflow_id": WORKFLOW, "description": "One"}
        assert "done" in body(await client.call_tool("update_workflow", update))
        assert "done" in body(await client.call_tool("update_workflow", update | {"description": "Two"}))
        assert len(person.messages) == 1
        sent = len(world.changes)
        person.content, person.action = (lambda _: None), "decline"
        for arguments in (
            {"code": "x"},
            {"description": "Three", "code": "x"},
            {"description": "x", "extra": {"a": 1}},
        ):
            answer = body(await client.call_tool("update_workflow", {"workflow_id": WORKFLOW, **arguments}))
            assert answer["outcome"] == "declined"
        assert len(world.changes) == sent


@each_version
@pytest.mark.parametrize("other", ["key", "mode", "policy"])
async def test_temporary_approval_is_bound_to_key_mode_and_policy(other: str, version: str, tmp_path: Path) -> None:
    world = World(tmp_path, bound="one")
    async with connected(world, version, Program(world, quarter)) as client:
        assert "done" in body(await client.call_tool("run_workflow", RUN))
    rules = rules_of(tmp_path, "[budget]\nexternal = 50\n")
    policy = {"mode": Policy(rules=CONFIRMING), "policy": Policy(rules=rules)}.get(other)
    again = World(tmp_path, policy, world.clock, tokens="u", bound="two" if other == "key" else "one")
    asked = Program(again, lambda _: None, action="decline")
    async with connected(again, version, asked) as client:
        assert body(await client.call_tool("run_workflow", RUN))["outcome"] == "declined"
    assert len(asked.messages) == 1
    assert again.changes == []


@each_version
@pytest.mark.parametrize("tool", ["delete_customer", "apply_changes"])
@pytest.mark.parametrize("store", ["sqlite", "valkey"])
async def test_new_dependents_void_the_approval(
    store: str, tool: str, version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = request.getfixturevalue("valkey").url() if store == "valkey" else ""
    world = World(tmp_path, ledger=ledger_at(where, tmp_path, System()) if where else None)
    fastn = Fastn(world.sandbox)
    customer, gamma = fastn.id_of("customers", "globex-exports"), fastn.id_of("connectors", "gamma")
    made: list[str] = []

    def grows(fields: Fields) -> Content:
        wanted = CreateConnection(connector_id=gamma, customer_id=customer, credentials={"apiKey": "x"})
        made.append(fastn(wanted).data["id"])
        return approval(fields)

    def shrinks(fields: Fields) -> Content:
        assert fastn(DeleteConnection(connection_id=made[-1])).status < 300
        return approval(fields)

    arguments: dict[str, Any] = {"customer_id": customer}
    if tool == "apply_changes":
        secret = {"tool": "create_secret", "arguments": {"name": "BESIDE", "value": "x"}}
        arguments = {"changes": [{"tool": "delete_customer", "arguments": arguments}, secret]}
    person = Program(world, grows)
    async with connected(world, version, person) as client:
        answer = body(await client.call_tool(tool, arguments))
        assert answer["outcome"] == "target_changed"
        assert [request.tool for request in world.changes] == ["create_connection"]
        person.content = shrinks
        answer = body(await client.call_tool(tool, arguments))
        assert answer.get("done") == "delete_customer" or "data" in answer, answer
    deleted = [request.tool for request in world.changes if request.method == "DELETE"]
    assert deleted.count("delete_customer") == 1
    await world.ledger.aclose()


@each_version
async def test_unreadable_dependents_void_the_approval(version: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    customer = Fastn(world.sandbox).id_of("customers", "globex-exports")

    def fails(fields: Fields) -> Content:
        world.sandbox.faults.add(Status(method="GET", path="/api/v1/connections*", status=403, times=9))
        return approval(fields)

    person = Program(world, fails)
    async with connected(world, version, person) as client:
        answer = body(await client.call_tool("delete_customer", {"customer_id": customer}))
        assert (answer["outcome"], len(person.messages), world.changes) == ("target_changed", 1, [])
        world.sandbox.faults.clear()
        person.content = approval
        assert body(await client.call_tool("delete_customer", {"customer_id": customer}))["done"] == "delete_customer"
    assert [request.method for request in world.changes] == ["DELETE"]
