"""What is told of a call: the tree of its spans, their links, and what is counted. Ours (issue 8), and OpenTelemetry's
conventions for MCP and for HTTP clients where a name is theirs.
"""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from collected import Collected
from faulty_sandbox import Reset, Status
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult
from opentelemetry.trace import SpanKind, StatusCode
from world import FormLater, FormNow, World, yes

from fastn_mcp.errors import Declined, Refused
from fastn_mcp.guard.approval.request import ApprovalForm, Approve, Decline, PendingForm
from fastn_mcp.guard.changes import Done
from fastn_mcp.guard.policy import Policy
from fastn_mcp.guard.policy_file import load_rules
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import OFFERS
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer

pytestmark = pytest.mark.anyio

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def told() -> Collected:
    return Collected()


@pytest.fixture
def watched(told: Collected, tmp_path: Path) -> Generator[World]:
    made = told.world(tmp_path)
    yield made
    made.close()


async def approving(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
    assert isinstance(params, ElicitRequestFormParams)
    (typed,) = re.findall(r'quotes: "(.*)"$', params.requested_schema["properties"]["name"]["description"])
    return ElicitResult(action="accept", content={"name": typed})


def client(told: Collected, world: World, mode: str = "legacy") -> Client:
    async def reading(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        world.clock.pass_(5)
        return await approving(context, params)

    server = build(world.dispatch, OFFERS, {})
    told.instrumentation.observe(server)
    return Client(server, mode=mode, elicitation_callback=reading)


async def _globex(world: World) -> str:
    return str((await world.rows(ListCustomers(search="Globex Exports")))[0].id)


READS = [
    "    fastn get_customer",
    "      GET /api/v1/customers/{customer_id}",
    "    fastn list_connections",
    "      GET /api/v1/connections",
    "    fastn list_secrets",
    "      GET /api/v1/secrets",
    "    fastn list_executions",
    "      GET /api/v1/executions",
]


async def test_one_guarded_change_is_one_tree(told: Collected, watched: World) -> None:
    customer = await _globex(watched)
    async with client(told, watched) as agent:
        await agent.list_tools()
        watched.clock.pass_(60)
        told.clear()
        await agent.call_tool("delete_customer", {"customer_id": customer})
    assert told.tree() == [
        "tools/call delete_customer",
        "  guard delete_customer",
        *READS,
        "    ask client_form",
        *READS,
        "  fastn delete_customer",
        "    DELETE /api/v1/customers/{customer_id}",
    ]
    call, decision, attempt = (
        told.named(name) for name in ("tools/call delete_customer", "guard delete_customer", told.spans[-1].name)
    )
    assert (call.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    said = dict(call.attributes or {})
    assert said.pop("jsonrpc.request.id").isdecimal()  # type: ignore[union-attr]
    assert said == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-11-25",
        "network.transport": "pipe",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "delete_customer",
        "fastn_mcp.effect": "destroy",
        "fastn_mcp.outcome": "done",
        "fastn_mcp.profile": "acme-profile",
    }
    assert dict(decision.attributes or {}) == {
        "fastn_mcp.operation": "delete_customer",
        "fastn_mcp.effect": "destroy",
        "fastn_mcp.profile": "acme-profile",
        "fastn_mcp.decision": "typed",
        "fastn_mcp.rule": "mode guarded: destroy",
        "fastn_mcp.consent": "client_form",
        "fastn_mcp.outcome": "admitted",
    }
    assert dict(attempt.attributes or {}) == {
        "http.request.method": "DELETE",
        "url.template": "/api/v1/customers/{customer_id}",
        "server.address": "localhost",
        "server.port": 80,
        "http.response.status_code": 200,
        "fastn_mcp.profile": "acme-profile",
    }


async def test_an_answer_in_another_request_links_to_the_one_that_asked(told: Collected, watched: World) -> None:
    """MCP 2026-07-28: the question ends its request, and the answer comes with the next."""
    customer = await _globex(watched)
    async with client(told, watched, "2026-07-28") as agent:
        watched.clock.pass_(60)
        await agent.list_tools()
        told.clear()
        await agent.call_tool("delete_customer", {"customer_id": customer})
    asked, answered = [span for span in told.spans if span.name == "guard delete_customer"]
    assert (asked.attributes or {})["fastn_mcp.outcome"] == "approval_required"
    assert (asked.attributes or {})["fastn_mcp.decision"] == "typed"
    (link,) = answered.links
    assert asked.context is not None
    assert (link.context.trace_id, link.context.span_id) == (asked.context.trace_id, asked.context.span_id)
    assert not asked.links
    calls = [(span.attributes or {}).get("fastn_mcp.outcome") for span in told.spans if span.name.startswith("tools/")]
    assert calls == ["approval_required", "done"]


async def test_the_link_is_found_in_another_process(told: Collected, tmp_path: Path) -> None:
    """Ours: where the grant lies, there lies what asked for it."""
    one, other = told.world(tmp_path), Collected()
    two = other.world(tmp_path, clock=one.clock, tokens="u")
    customer = DeleteCustomer(customer_id=await _globex(one))
    asked = await one.call(customer, FormLater())
    assert isinstance(asked, PendingForm)
    one.clock.pass_(30)
    await two.call(customer, FormLater(submitted=(asked.question.grant, Approve(asked.question.expected))))
    guard = told.named("guard delete_customer")
    assert guard.context is not None
    (link,) = other.named("guard delete_customer").links
    assert link.context.span_id == guard.context.span_id
    one.close()
    two.close()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_parent_is_what_the_message_names(mode: str, told: Collected, watched: World) -> None:
    """SEP-414: `traceparent` in `_meta`."""
    async with client(told, watched, mode) as agent:
        await agent.call_tool("list_customers", {}, meta={"traceparent": PARENT})
    span = told.named("tools/call list_customers")
    assert span.parent is not None
    assert span.parent.is_remote
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:-3]


async def test_what_is_no_traceparent_is_none(told: Collected, watched: World) -> None:
    async with client(told, watched) as agent:
        await agent.call_tool("list_customers", {}, meta={"traceparent": "00-secret-canary-01", "tracestate": 5})  # type: ignore[typeddict-item]
    assert told.named("tools/call list_customers").parent is None
    assert "canary" not in told.everything()


async def test_attempts_and_waits_stand_below_their_call(told: Collected, watched: World) -> None:
    watched.sandbox.faults.add(Status(status=503), Status(status=429), Reset(method="POST"))
    await watched.call(ListCustomers())
    assert told.tree() == [
        "execute_tool list_customers",
        "  fastn list_customers",
        *["    GET /api/v1/customers"] * 3,
    ]
    attempts = [span for span in told.spans if span.kind is SpanKind.CLIENT]
    seen = [dict(span.attributes or {}) for span in attempts]
    assert [one.get("http.request.resend_count") for one in seen] == [None, 1, 2]
    assert [one["http.response.status_code"] for one in seen] == [503, 429, 200]
    assert [one.get("error.type") for one in seen] == ["503", "429", None]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    waits = [dict(event.attributes or {}) for event in told.named("fastn list_customers").events]
    assert [wait["fastn_mcp.wait.cause"] for wait in waits] == ["retry", "retry"]
    assert told.points("fastn_mcp.retries") == [
        ({"fastn_mcp.operation": "list_customers", "fastn_mcp.profile": "acme-profile"}, 2)
    ]
    assert told.points("fastn_mcp.wait.duration") == [
        ({"fastn_mcp.wait.cause": "retry", "fastn_mcp.profile": "acme-profile"}, 2)
    ]
    await watched.call(CreateCustomer(name="Initech"))
    lost = [span for span in told.spans if span.kind is SpanKind.CLIENT][-1]
    assert (lost.attributes or {})["error.type"] == "ResponseLost"
    assert (told.named("fastn create_customer").attributes or {})["fastn_mcp.outcome"] == "unknown_outcome"


async def test_the_reads_of_a_merged_update_are_told_by_their_own_path(told: Collected, watched: World) -> None:
    await watched.call(UpdateCustomer(customer_id=await _globex(watched), name="Globex"))
    below = [line.strip() for line in told.tree()[-2:]]
    assert below == ["GET /api/v1/customers/{customer_id}", "PUT /api/v1/customers/{customer_id}"]


async def test_the_audit_names_the_trace(told: Collected, watched: World) -> None:
    await watched.call(CreateCustomer(name="Initech"))
    entries = [json.loads(line) for line in watched.audit_path.read_text().splitlines()]
    context = told.named("execute_tool create_customer").context
    assert context is not None
    assert {entry["trace"] for entry in entries} == {f"{context.trace_id:032x}"}


async def test_without_telemetry_the_audit_names_none(world: World) -> None:
    await world.call(CreateCustomer(name="Initech"))
    assert '"trace"' not in world.audit_path.read_text()


async def test_decisions_are_counted(told: Collected, tmp_path: Path) -> None:
    """Ours: by operation, effect, decision, consent and outcome; a rule only by its line, since it names customers."""
    file = tmp_path / "canary-folder" / "policy.toml"
    file.parent.mkdir()
    file.write_text('[[protect]]\ncustomer = "Globex*"\nthen = "deny"\nreason = "canary"\n')
    world = told.world(tmp_path, policy=Policy(rules=load_rules(file)))
    globex = await _globex(world)
    assert isinstance(await world.call(DeleteCustomer(customer_id=globex)), Refused)
    other = next(str(row.id) for row in await world.rows(ListCustomers()) if str(row.id) != globex)
    saying = FormNow(lambda _: Decline("canary note"), world.clock)
    assert isinstance(await world.call(DeleteCustomer(customer_id=other), saying), Declined)
    await world.call(DeleteCustomer(customer_id=other), FormNow(yes, world.clock))
    await world.call(CreateCustomer(name="Initech"))
    named = ("operation", "decision", "consent", "outcome")
    counted = {tuple(said.get(f"fastn_mcp.{name}") for name in named) for said, _ in told.points("fastn_mcp.decisions")}
    assert counted == {
        ("delete_customer", "deny", None, "refused"),
        ("delete_customer", "confirm", None, "declined"),
        ("delete_customer", "confirm", "client_form", "admitted"),
        ("create_customer", "allow", "policy", "admitted"),
    }
    rules = [(span.attributes or {}).get("fastn_mcp.rule") for span in told.spans if span.name.startswith("guard")]
    assert "protected, line 1" in rules
    assert "canary" not in told.everything()
    assert told.points("fastn_mcp.question.duration")[0][1] == 2
    world.close()


async def test_what_never_came_to_a_call_is_counted_too(told: Collected, watched: World) -> None:
    async with client(told, watched) as agent:
        with pytest.raises(MCPError):
            await agent.call_tool("canary_tool", {})
        assert (await agent.call_tool("get_customer", {"canary": 1})).is_error
        with pytest.raises(MCPError):
            await agent.get_prompt("canary_prompt", {})
    for name in ("tools/call", "tools/call get_customer", "prompts/get"):
        assert told.named(name).status.status_code is StatusCode.ERROR
        assert told.named(name).status.description is None
    assert (told.named("tools/call get_customer").attributes or {})["error.type"] == "tool_error"
    assert (told.named("tools/call").attributes or {})["rpc.response.status_code"] == "-32602"
    assert [(said["gen_ai.tool.name"], said["fastn_mcp.outcome"]) for said, _ in told.points("fastn_mcp.calls")] == [
        ("_OTHER", "not_sent"),
        ("get_customer", "not_sent"),
    ]
    assert "canary" not in told.everything()


async def test_calls_are_counted_once_by_what_became_of_them(told: Collected, watched: World) -> None:
    async with client(told, watched) as agent:
        await agent.call_tool("list_customers", {})
        await agent.call_tool("create_customer", {"name": "Initech", "dry_run": True})
        await agent.read_resource("fastn://billing")
    counted = [(said["gen_ai.tool.name"], said["fastn_mcp.outcome"], n) for said, n in told.points("fastn_mcp.calls")]
    assert counted == [("list_customers", "done", 1), ("create_customer", "previewed", 1), ("get_billing", "done", 1)]
    durations: list[tuple[Any, Any]] = [
        (said["mcp.method.name"], said.get("gen_ai.tool.name"))
        for said, _ in told.points("mcp.server.operation.duration")
    ]
    assert ("tools/call", "list_customers") in durations
    assert ("resources/read", None) in durations
    ((_, room),) = told.points("fastn_mcp.rate_limit.remaining")
    assert room > 0


async def test_how_many_calls_are_being_made_is_known_while_they_are(told: Collected, watched: World) -> None:
    """Ours: what the Helm chart scales by. A form that asks is in the middle of one."""
    seen: list[object] = []

    def answer(question: ApprovalForm) -> Approve:
        seen.extend(value for _, value in told.points("fastn_mcp.calls.active"))
        return yes(question)

    await watched.call(DeleteCustomer(customer_id=await _globex(watched)), FormNow(answer, watched.clock))
    assert seen == [1]
    assert told.points("fastn_mcp.calls.active") == [({}, 0)]


async def test_the_calls_of_a_batch_link_to_the_one_question_about_them(told: Collected, watched: World) -> None:
    customers = [str(row.id) for row in await watched.rows(ListCustomers())][:2]
    changes = [{"tool": "delete_customer", "arguments": {"customer_id": id_}} for id_ in customers]
    told.clear()
    batch = ApplyChanges.model_validate({"changes": changes})
    assert isinstance(await watched.call(batch, FormNow(yes, watched.clock)), Done)
    asked = told.named("guard apply_changes")
    assert (asked.attributes or {})["fastn_mcp.batch.calls"] == 2
    made = [span for span in told.spans if span.name == "guard delete_customer"]
    assert asked.context is not None
    assert [[link.context.span_id for link in span.links] for span in made] == [[asked.context.span_id]] * 2
    assert [(span.attributes or {})["fastn_mcp.consent"] for span in made] == ["client_form"] * 2
    counted = [(said["gen_ai.tool.name"], n) for said, n in told.points("fastn_mcp.calls")]
    assert counted == [("apply_changes", 1)]
