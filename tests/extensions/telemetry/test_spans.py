"""Spans of a call, their links, and metrics. OpenTelemetry's conventions for MCP and HTTP."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult
from opentelemetry.trace import SpanKind, StatusCode
from support.collected_telemetry import Collected
from support.faulty_sandbox import Reset, Status
from support.policy_files import rules_of
from support.server_process import text_to_type
from support.world import FormLater, FormNow, World, yes

from fastn_mcp.client.exchange import Answer, NotSentError
from fastn_mcp.errors import Declined, Refused
from fastn_mcp.extensions.sandbox.server import InProcess
from fastn_mcp.extensions.telemetry.instruments import observe
from fastn_mcp.guard.approval_form import Approve, Decline, PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Request

LISTING = {
    "gen_ai.tool.name": "list_customers",
    "fastn_mcp.effect": "read",
    "fastn_mcp.profile": "acme-profile",
}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def otel() -> Collected:
    return Collected()


@pytest.fixture
def traced(otel: Collected, tmp_path: Path) -> Generator[World]:
    opened = otel.world(tmp_path)
    yield opened
    opened.close()


async def approving(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
    assert isinstance(params, ElicitRequestFormParams)
    typed = text_to_type(params.requested_schema["properties"]["name"]["description"])
    return ElicitResult(action="accept", content={"name": typed})


def client(otel: Collected, world: World, mode: str = "legacy") -> Client:
    async def reading(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        world.clock.pass_(5)
        return await approving(context, params)

    server = build(world.dispatch, ALL_TOOLS, {})
    observe(server, otel.signals)
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


async def test_guarded_change_is_one_tree_of_spans(otel: Collected, traced: World) -> None:
    customer = await _globex(traced)
    async with client(otel, traced) as agent:
        await agent.list_tools()
        traced.clock.pass_(60)
        otel.clear()
        await agent.call_tool("delete_customer", {"customer_id": customer})
    assert otel.tree() == [
        "tools/call delete_customer",
        "  guard delete_customer",
        *READS,
        "    fastn list_triggers",  # shown, besides what the guard needs
        "      GET /api/v1/triggers",
        "    ask client_form",
        *READS,
        "  fastn delete_customer",
        "    DELETE /api/v1/customers/{customer_id}",
    ]
    call, decision, attempt = (
        otel.named(name) for name in ("tools/call delete_customer", "guard delete_customer", otel.spans[-1].name)
    )
    assert (call.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    attributes = dict(call.attributes or {})
    assert attributes.pop("jsonrpc.request.id").isdecimal()  # type: ignore[union-attr]
    assert attributes == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-11-25",
        "network.transport": "pipe",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "delete_customer",
        "fastn_mcp.effect": "destroy",
        "fastn_mcp.outcome": "done",
        "fastn_mcp.profile": "acme-profile",
        "fastn_mcp.requests": len(READS) + 2,  # its reads are twice as many lines
    }
    assert dict(decision.attributes or {}) == {
        "fastn_mcp.operation": "delete_customer",
        "fastn_mcp.effect": "destroy",
        "fastn_mcp.profile": "acme-profile",
        "fastn_mcp.decision": "typed",
        "fastn_mcp.rule": "mode guarded: destroy",
        "fastn_mcp.approved_by": "client_form",
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


async def test_answer_in_another_request_links_to_the_asking_span(otel: Collected, traced: World) -> None:
    """MCP 2026-07-28: the elicitation ends its request, and the answer comes with the next one."""
    customer = await _globex(traced)
    async with client(otel, traced, "2026-07-28") as agent:
        traced.clock.pass_(60)
        await agent.list_tools()
        otel.clear()
        await agent.call_tool("delete_customer", {"customer_id": customer})
    asking, answered = [span for span in otel.spans if span.name == "guard delete_customer"]
    assert (asking.attributes or {})["fastn_mcp.outcome"] == "approval_required"
    assert (asking.attributes or {})["fastn_mcp.decision"] == "typed"
    (link,) = answered.links
    assert asking.context is not None
    assert (link.context.trace_id, link.context.span_id) == (asking.context.trace_id, asking.context.span_id)
    assert not asking.links
    calls = [(span.attributes or {}).get("fastn_mcp.outcome") for span in otel.spans if span.name.startswith("tools/")]
    assert calls == ["approval_required", "done"]


async def test_link_is_stored_in_the_ledger(otel: Collected, tmp_path: Path) -> None:
    """The grant holds the link, so another process finds it."""
    first, other = otel.world(tmp_path), Collected()
    second = other.world(tmp_path, clock=first.clock, tokens="u")
    customer = DeleteCustomer(customer_id=await _globex(first))
    asking = await first.call(customer, FormLater())
    assert isinstance(asking, PendingApproval)
    assert not asking.request.out_of_band
    first.clock.pass_(30)
    await second.call(customer, FormLater(submitted=(asking.request.id, Approve(asking.request.expected))))
    guard = otel.named("guard delete_customer")
    assert guard.context is not None
    (link,) = other.named("guard delete_customer").links
    assert link.context.span_id == guard.context.span_id
    first.close()
    second.close()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_parent_is_the_traceparent_of_the_message(mode: str, otel: Collected, traced: World) -> None:
    """SEP-414: `traceparent` in `_meta`."""
    async with client(otel, traced, mode) as agent:
        await agent.call_tool("list_customers", {}, meta={"traceparent": PARENT})
    span = otel.named("tools/call list_customers")
    assert span.parent is not None
    assert span.parent.is_remote
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:-3]


async def test_invalid_traceparent_is_ignored(otel: Collected, traced: World) -> None:
    async with client(otel, traced) as agent:
        await agent.call_tool("list_customers", {}, meta={"traceparent": "00-secret-canary-01", "tracestate": 5})  # type: ignore[typeddict-item]
    assert otel.named("tools/call list_customers").parent is None
    assert "canary" not in otel.everything()


async def test_attempts_and_waits_are_below_their_call(otel: Collected, traced: World) -> None:
    traced.sandbox.faults.add(Status(status=503), Status(status=429), Reset(method="POST"))
    await traced.call(ListCustomers())
    assert otel.tree() == [
        "execute_tool list_customers",
        "  fastn list_customers",
        *["    GET /api/v1/customers"] * 3,
    ]
    attempts = [span for span in otel.spans if span.kind is SpanKind.CLIENT]
    sent = [dict(span.attributes or {}) for span in attempts]
    assert [attributes.get("http.request.resend_count") for attributes in sent] == [None, 1, 2]
    assert [attributes["http.response.status_code"] for attributes in sent] == [503, 429, 200]
    assert [attributes.get("error.type") for attributes in sent] == ["503", "429", None]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    waits = [dict(event.attributes or {}) for event in otel.named("fastn list_customers").events]
    assert [wait["fastn_mcp.wait.cause"] for wait in waits] == ["retry", "retry"]
    assert otel.points("fastn_mcp.retries") == [
        ({"fastn_mcp.operation": "list_customers", "fastn_mcp.profile": "acme-profile"}, 2)
    ]
    assert otel.points("fastn_mcp.wait.duration") == [
        ({"fastn_mcp.wait.cause": "retry", "fastn_mcp.profile": "acme-profile"}, 2)
    ]
    assert otel.points("fastn_mcp.requests") == [(LISTING, 3)]
    await traced.call(CreateCustomer(name="Initech"))
    lost = [span for span in otel.spans if span.kind is SpanKind.CLIENT][-1]
    assert (lost.attributes or {})["error.type"] == "ResponseLost"
    assert (otel.named("fastn create_customer").attributes or {})["fastn_mcp.outcome"] == "unknown_outcome"


async def test_reads_of_a_merged_update_have_their_own_path(otel: Collected, traced: World) -> None:
    await traced.client.send(UpdateCustomer(customer_id=await _globex(traced), plan="Free"))
    below = [line.strip() for line in otel.tree()]
    assert below.count("GET /api/v1/customers/{customer_id}") == 1
    assert below[-1] == "PUT /api/v1/customers/{customer_id}"


async def test_audit_log_holds_the_trace(otel: Collected, traced: World) -> None:
    await traced.call(CreateCustomer(name="Initech"))
    entries = [json.loads(line) for line in traced.audit_path.read_text().splitlines()]
    context = otel.named("execute_tool create_customer").context
    assert context is not None
    assert {entry["trace"] for entry in entries} == {f"{context.trace_id:032x}"}


async def test_audit_log_without_telemetry_holds_no_trace(world: World) -> None:
    await world.call(CreateCustomer(name="Initech"))
    assert '"trace"' not in world.audit_path.read_text()


async def test_decisions_are_counted(otel: Collected, tmp_path: Path) -> None:
    """By operation, effect, decision, consent and outcome. Of a rule, only its line, as it names customers."""
    (folder := tmp_path / "canary-folder").mkdir()
    rules = rules_of(folder, '[[protect]]\ncustomer = "Globex*"\nthen = "deny"\nreason = "canary"\n')
    world = otel.world(tmp_path, policy=Policy(rules=rules))
    globex = await _globex(world)
    assert isinstance(await world.call(DeleteCustomer(customer_id=globex)), Refused)
    other = next(str(row.id) for row in await world.rows(ListCustomers()) if str(row.id) != globex)
    saying = FormNow(lambda _: Decline("canary note"), world.clock)
    assert isinstance(await world.call(DeleteCustomer(customer_id=other), saying), Declined)
    await world.call(DeleteCustomer(customer_id=other), FormNow(yes, world.clock))
    await world.call(CreateCustomer(name="Initech"))
    named = ("operation", "decision", "approved_by", "outcome")
    counted = {tuple(tags.get(f"fastn_mcp.{name}") for name in named) for tags, _ in otel.points("fastn_mcp.decisions")}
    assert counted == {
        ("delete_customer", "deny", None, "refused"),
        ("delete_customer", "confirm", None, "declined"),
        ("delete_customer", "confirm", "client_form", "admitted"),
        ("create_customer", "allow", "policy", "admitted"),
    }
    rules = [(span.attributes or {}).get("fastn_mcp.rule") for span in otel.spans if span.name.startswith("guard")]
    assert "protected, line 1" in rules
    assert "canary" not in otel.everything()
    assert otel.points("fastn_mcp.question.duration")[0][1] == 2
    world.close()


async def test_calls_rejected_before_dispatch_are_counted(otel: Collected, traced: World) -> None:
    async with client(otel, traced) as agent:
        with pytest.raises(MCPError):
            await agent.call_tool("canary_tool", {})
        assert (await agent.call_tool("get_customer", {"canary": 1})).is_error
        with pytest.raises(MCPError):
            await agent.get_prompt("canary_prompt", {})
    for name in ("tools/call", "tools/call get_customer", "prompts/get"):
        assert otel.named(name).status.status_code is StatusCode.ERROR
        assert otel.named(name).status.description is None
    assert (otel.named("tools/call get_customer").attributes or {})["error.type"] == "tool_error"
    assert (otel.named("tools/call").attributes or {})["rpc.response.status_code"] == "-32602"
    assert [(tags["gen_ai.tool.name"], tags["fastn_mcp.outcome"]) for tags, _ in otel.points("fastn_mcp.calls")] == [
        ("_OTHER", "not_sent"),
        ("get_customer", "not_sent"),
    ]
    assert "canary" not in otel.everything()


async def test_request_that_was_not_sent_is_not_counted(otel: Collected, tmp_path: Path) -> None:
    class Unreachable:
        async def __call__(self, request: Request) -> Answer:
            raise NotSentError(request.method)

        async def aclose(self) -> None: ...

    def unreachable(_: InProcess) -> Unreachable:
        return Unreachable()

    world = otel.world(tmp_path, exchange=unreachable)
    await world.call(ListCustomers())
    assert otel.points("fastn_mcp.requests") == [(LISTING, 0)]
    world.close()


async def test_calls_are_counted_once_by_outcome(otel: Collected, traced: World) -> None:
    async with client(otel, traced) as agent:
        await agent.call_tool("list_customers", {})
        await agent.call_tool("create_customer", {"name": "Initech", "dry_run": True})
        await agent.read_resource("fastn://billing")
    counted = [(tags["gen_ai.tool.name"], tags["fastn_mcp.outcome"], n) for tags, n in otel.points("fastn_mcp.calls")]
    assert counted == [("list_customers", "done", 1), ("create_customer", "previewed", 1), ("get_billing", "done", 1)]
    durations: list[tuple[Any, Any]] = [
        (tags["mcp.method.name"], tags.get("gen_ai.tool.name"))
        for tags, _ in otel.points("mcp.server.operation.duration")
    ]
    assert ("tools/call", "list_customers") in durations
    assert ("resources/read", None) in durations
    ((_, room),) = otel.points("fastn_mcp.rate_limit.remaining")
    assert room > 0


async def test_active_calls_are_counted(otel: Collected, traced: World) -> None:
    """The Helm chart scales by this metric. A call that waits at a form is active."""
    seen: list[object] = []

    def answer(question: ApprovalRequest) -> Approve:
        seen.extend(value for _, value in otel.points("fastn_mcp.calls.active"))
        return yes(question)

    await traced.call(DeleteCustomer(customer_id=await _globex(traced)), FormNow(answer, traced.clock))
    assert seen == [1]
    assert otel.points("fastn_mcp.calls.active") == [({}, 0)]


async def test_calls_of_a_batch_link_to_their_approval_request(otel: Collected, traced: World) -> None:
    customers = [str(row.id) for row in await traced.rows(ListCustomers())][:2]
    changes = [{"tool": "delete_customer", "arguments": {"customer_id": id_}} for id_ in customers]
    otel.clear()
    batch = ApplyChanges.model_validate({"changes": changes})
    assert isinstance(await traced.call(batch, FormNow(yes, traced.clock)), Done)
    asking = otel.named("guard apply_changes")
    assert (asking.attributes or {})["fastn_mcp.batch.calls"] == 2
    decisions = [span for span in otel.spans if span.name == "guard delete_customer"]
    assert asking.context is not None
    assert [[link.context.span_id for link in span.links] for span in decisions] == [[asking.context.span_id]] * 2
    assert [(span.attributes or {})["fastn_mcp.approved_by"] for span in decisions] == ["client_form"] * 2
    counted = [(tags["gen_ai.tool.name"], n) for tags, n in otel.points("fastn_mcp.calls")]
    assert counted == [("apply_changes", 1)]
