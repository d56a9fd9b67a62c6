"""An agent of the OpenAI Agents SDK: what needs a person becomes a tool approval that interrupts the run.

The SDK's MCP client shows no forms, so the server answers `approval_required`; and the SDK interrupts before a tool,
never in it. So from that answer on, a call of the same tool interrupts the run. `state.approve` lets the SDK make the
call and no more: the server makes it when a person approved it there, and answers `declined` when not.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["openai-agents>=0.24,<0.25"]
# ///

import asyncio
import json
import os
import shlex
from typing import Any

from agents import Agent, RunConfig, Runner
from agents.mcp import MCPServerStdio
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.testing.model import ModelCall
from mcp.types import CallToolResult

COMMAND, *ARGUMENTS = shlex.split(os.environ.get("FASTN_MCP", "fastn-mcp --sandbox"))
# Over HTTP, with the token that `fastn-mcp --http 127.0.0.1:8080` names (docs/clients.md): MCPServerStreamableHttp,
# params={"url": "http://127.0.0.1:8080/mcp", "headers": {"Authorization": f"Bearer {os.environ['FASTN_HTTP_TOKEN']}"}}

TASK = "A workflow fails again and again. Pause the trigger that starts it, then delete that trigger."
INSTRUCTIONS = "When a call answers approval_required, make the same call again at once: the run waits for the person."


class Fastn(MCPServerStdio):
    """The server, which remembers what it told us waits for a person."""

    def __init__(self) -> None:
        super().__init__(
            params={"command": COMMAND, "args": ARGUMENTS, "env": dict(os.environ)},
            name="fastn",
            client_session_timeout_seconds=120,
            require_approval=lambda _run, _agent, tool: tool.name in self.waiting,
        )
        self.waiting: dict[str, str] = {}
        """Where a person decides, by the name of the tool."""

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        result = await super().call_tool(tool_name, arguments, meta)
        answer = result.structured_content or {}
        self.waiting.pop(tool_name, None)
        if answer.get("status") == "approval_required":
            self.waiting[tool_name] = answer["message"]
        return result


async def main() -> None:
    async with Fastn() as server:
        agent = Agent("administrator", INSTRUCTIONS, model=scripted(), mcp_servers=[server])
        quiet = RunConfig(tracing_disabled=True)
        result = await Runner.run(agent, TASK, max_turns=None, run_config=quiet)  # looking again takes a turn
        while result.interruptions:
            state = result.to_state()  # state.to_string() keeps it while the person takes a day
            for interruption in result.interruptions:
                print(f"\n{server.waiting[interruption.name]}")
                await asyncio.to_thread(input, "Press Enter once that is decided. ")
                state.approve(interruption)
            result = await Runner.run(agent, state, max_turns=None, run_config=quiet)
        print(result.final_output)


def scripted() -> ScriptedModel:
    """Stands in for a model, so that this runs without a key: what one would do next, from what it read so far."""

    def step(call: ModelCall) -> list[Any]:
        outputs = [item["output"] for item in call.input if item.get("type") == "function_call_output"]
        said = following([json.loads(output if isinstance(output, str) else output[0]["text"]) for output in outputs])
        if isinstance(said, str):
            return [assistant_message(said)]
        return [function_call(*said, call_id=f"call_{len(outputs)}")]

    return ScriptedModel([ModelStep.respond(step)] * 100)


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
        case [_] | [*_, {"outcome": "approval_required"}]:
            return "delete_trigger", {"trigger_id": trigger["id"]}
        case [*_, {"done": _}]:
            return f"{trigger['name']} is paused and deleted."
    return f"{trigger['name']} is paused, not deleted: {changes[-1]['message']} {changes[-1].get('note', '')}"


if __name__ == "__main__":
    asyncio.run(main())
