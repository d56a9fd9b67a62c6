"""A Pydantic AI agent: what needs a person becomes a deferred tool call, and the run goes on once it was decided.

No form is offered to the server, so it answers `approval_required`, for which the hook below defers the call. The run
then ends with `DeferredToolRequests`. Approving such a request lets Pydantic AI make the call again and no more: the
server makes it when a person approved it there, and answers `declined` when not.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["pydantic-ai-slim[mcp]>=2.68,<3"]
# ///

import asyncio
import json
import os
import shlex
from typing import Any

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, ApprovalRequired, DeferredToolRequests, RunContext
from pydantic_ai.mcp import CallToolFunc, MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

COMMAND, *ARGUMENTS = shlex.split(os.environ.get("FASTN_MCP", "fastn-mcp --sandbox"))
SERVER = StdioTransport(COMMAND, ARGUMENTS, env=dict(os.environ))
# Over HTTP, with the token that `fastn-mcp --http 127.0.0.1:8080` names (docs/clients.md):
# SERVER = StreamableHttpTransport("http://127.0.0.1:8080/mcp", auth=os.environ["FASTN_HTTP_TOKEN"])

TASK = "A workflow fails again and again. Pause the trigger that starts it, then delete that trigger."


async def ask_a_person(_: RunContext[None], call: CallToolFunc, tool: str, arguments: dict[str, Any]) -> Any:
    """Make the call; while it waits for a person, defer it, also after it was approved here."""
    result = await call(tool, arguments)
    if isinstance(result, dict) and result.get("status") == "approval_required":
        raise ApprovalRequired(metadata={"message": result["message"], "preview": result["preview"]})
    return result


async def main() -> None:
    # Without "failed", two errors of one tool in a row, which a no is as well, end the run with an exception.
    fastn = MCPToolset(SERVER, process_tool_call=ask_a_person, tool_error_behavior="failed")
    agent = Agent(FunctionModel(scripted), toolsets=[fastn], output_type=[str, DeferredToolRequests])
    async with agent:
        run = await agent.run(TASK)
        while isinstance(waiting := run.output, DeferredToolRequests):
            for asked in waiting.metadata.values():
                print(f"\n{asked['message']}")
                await asyncio.to_thread(input, "Press Enter once that is decided. ")
            again = waiting.build_results(approve_all=True)
            run = await agent.run(message_history=run.all_messages(), deferred_tool_results=again)
        print(run.output)


def scripted(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Stands in for a model, so that this runs without a key: what one would do next, from what it read so far."""
    parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    said = following([p.content if isinstance(p.content, dict) else json.loads(p.content) for p in parts])
    return ModelResponse([TextPart(said) if isinstance(said, str) else ToolCallPart(*said)])


def following(results: list[dict[str, Any]]) -> tuple[str, dict[str, Any]] | str:
    match results:
        case []:
            return "list_executions", {"status": "failed", "limit": 1}
        case [_]:
            return "list_triggers", {"status": "Active"}
    failed, triggers, *changes = results
    workflow = failed["data"][0]["workflow"]
    trigger = next(row for row in triggers["data"] if workflow in row["starts"])
    match changes:
        case []:
            return "update_trigger", {"trigger_id": trigger["id"], "status": "Disabled"}
        case [_]:
            return "delete_trigger", {"trigger_id": trigger["id"]}
        case [_, {"done": _}]:
            return f"{trigger['name']} is paused and deleted."
    return f"{trigger['name']} is paused, not deleted: {changes[-1]['message']} {changes[-1].get('note', '')}"


if __name__ == "__main__":
    asyncio.run(main())
