"""Every structured answer validates against its tool's output schema, as clients check it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import CallToolResult, ElicitRequestFormParams, ElicitRequestParams, ElicitResult, Tool
from scripted import tokens
from support.direct_sandbox import Fastn
from support.sensible_calls import sensible
from support.server_process import approving, body
from support.world import World

from fastn_mcp.procedures.catalog import ALL_TOOLS, PROCEDURES
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.server.handlers import build
from fastn_mcp.server.tool_list import output_schema
from fastn_mcp.tools.tool import AnyTool, Effect

ORDERS = "wf_0d93ee5b1f62"


class Answers:
    """Calls tools, validates each answer, and notes the declared fields that none had."""

    def __init__(self, client: Client, tools: list[Tool]) -> None:
        self._client = client
        schemas = {tool.name: tool.output_schema or {} for tool in tools}
        self._validators = {name: Draft202012Validator(schema) for name, schema in schemas.items()}
        self.unseen = {field for schema in schemas.values() for field in _named(schema.get("properties", {}))}

    async def of(self, tool: str, /, **arguments: Any) -> CallToolResult:
        result = await self._client.call_tool(tool, arguments)
        answer = body(result)
        self._validators[tool].validate(answer)  # pyright: ignore[reportUnknownMemberType]
        self.unseen -= set(_named({name: {"properties": value} for name, value in answer.items()}))
        return result


def _named(properties: dict[str, Any]) -> Iterator[str]:
    for name, schema in properties.items():
        yield name
        inner = schema.get("properties")
        yield from (f"{name}.{field}" for field in cast("dict[str, Any]", inner)) if isinstance(inner, dict) else ()


def _procedure_arguments(tool: AnyTool, execution: str, change: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "query": "orders", "sql": "select 1", "workflow_id": ORDERS, "execution_id": execution,
        "change_id": change, "changes": [{"tool": "create_customer", "arguments": {"name": "Hooli"}}],
        "tool": "create_customer", "arguments": {"name": "Hooli"},
    }  # fmt: skip
    schema = tool.input_schema()
    given = (*schema.get("required", ()), "arguments", *(["workflow_id"] if tool is FindDependents else ()))
    return {name: values[name] for name in schema["properties"] if name in given}


async def test_every_answer_validates_against_its_output_schema(world: World, tmp_path: Path) -> None:
    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
        assert isinstance(params, ElicitRequestFormParams)
        world.clock.pass_(5)
        return approving(params)

    server = build(world.dispatch, ALL_TOOLS, {"profile": "default"}, export_folder=tmp_path)
    async with Client(server, mode="2026-07-28", elicitation_callback=person) as client:
        answers = Answers(client, (await client.list_tools()).tools)
        for operation in sensible(Fastn(world.sandbox)):
            name, arguments = operation.tool_name(), operation.arguments()
            if operation.effect is not Effect.READ:
                assert body(await answers.of(name, **arguments, dry_run=True))["status"] == "preview"
            result = await answers.of(name, **arguments)
            assert not result.is_error, body(result)
            assert (await answers.of(name, nonsense=1)).is_error
            world.sandbox.reset() if name.startswith(("delete", "revoke")) else None
        (run,) = body(await answers.of("list_executions", limit=1, fields=["id"]))["data"]
        change = body(await answers.of("create_customer", name="Initrode"))["receipt"]["change_id"]
        for procedure in PROCEDURES:
            result = await answers.of(procedure.tool_name(), **_procedure_arguments(procedure, run["id"], change))
            assert not result.is_error, body(result)
        await answers.of("list_executions", limit=100, detail="full")
        await answers.of("list_changes", limit=1)
        await answers.of("query", sql="select permission from role_permissions", max_kb=1)
        await answers.of("query", sql="select 1", csv=True)
        for message in ("hm", f"delete {ORDERS}"):
            await answers.of("ai_chat", message=message)
    assert not answers.unseen


def test_output_schemas_cost_at_most_3000_tokens() -> None:
    """Some clients pass them to the model. Claude Code and Codex do not."""
    schemas = {offer.tool_name(): output_schema(offer) for offer in ALL_TOOLS}
    costs = {name: tokens(json.dumps(schema, separators=(",", ":"))) for name, schema in schemas.items() if schema}
    assert sum(costs.values()) <= 3_000, costs
