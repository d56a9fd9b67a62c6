"""A LangChain agent on LangGraph: what needs a person becomes an `interrupt()`, and `Command(resume=...)` looks again.

The adapter's client answers forms in the middle of a call, where a graph cannot stop. So no form is offered: the server
then answers `approval_required`, and the interceptor below stops the graph. On resuming, LangGraph runs the tool anew,
which is what the server wants: the same call once more, made when a person approved it, and declined when not.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["langchain>=1.5,<2", "langchain-mcp-adapters>=0.3.2,<0.4", "langgraph>=1.2,<2"]
# ///

import asyncio
import json
import os
import shlex
from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.interceptors import MCPToolCallRequest
from langchain_mcp_adapters.tools import load_mcp_tools
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from mcp.types import CallToolResult

COMMAND, *ARGUMENTS = shlex.split(os.environ.get("FASTN_MCP", "fastn-mcp --sandbox"))
SERVER = {"transport": "stdio", "command": COMMAND, "args": ARGUMENTS, "env": dict(os.environ)}
# Over HTTP, with the token that `fastn-mcp --http 127.0.0.1:8080` names (docs/clients.md):
# SERVER = {"transport": "http", "url": "http://127.0.0.1:8080/mcp",
#           "headers": {"Authorization": f"Bearer {os.environ['FASTN_HTTP_TOKEN']}"}}

TASK = "A workflow fails again and again. Pause the trigger that starts it, then delete that trigger."


async def ask_a_person(
    request: MCPToolCallRequest, call: Callable[[MCPToolCallRequest], Awaitable[CallToolResult]]
) -> CallToolResult:
    """Make the call; while it waits for a person, stop the graph. What the graph is resumed with approves nothing."""
    result = await call(request)
    while (result.structuredContent or {}).get("status") == "approval_required":
        interrupt({"message": result.structuredContent["message"], "preview": result.structuredContent["preview"]})
        result = await call(request)
    return result


async def main() -> None:
    client = MultiServerMCPClient({"fastn": SERVER})
    # One session for all calls: without it the adapter starts a server, and with it a sandbox, for each call.
    async with client.session("fastn") as session:
        tools = await load_mcp_tools(session, tool_interceptors=[ask_a_person])
        agent = create_agent(Scripted(), tools, checkpointer=InMemorySaver())
        run = {"configurable": {"thread_id": "1"}}
        state = await agent.ainvoke({"messages": [("user", TASK)]}, run)
        while waiting := state.get("__interrupt__"):
            print(f"\n{waiting[0].value['message']}")
            await asyncio.to_thread(input, "Press Enter once that is decided. ")
            state = await agent.ainvoke(Command(resume="look again"), run)
        print(state["messages"][-1].content)


class Scripted(BaseChatModel):
    """Stands in for a model, so that this runs without a key: what one would do next, from what it read so far."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> BaseChatModel:  # noqa: ARG002
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        results = [json.loads(message.text) for message in messages if isinstance(message, ToolMessage)]
        said = following(results)
        if isinstance(said, str):
            message = AIMessage(said)
        else:
            message = AIMessage("", tool_calls=[{"name": said[0], "args": said[1], "id": f"call_{len(results)}"}])
        return ChatResult(generations=[ChatGeneration(message=message)])


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
