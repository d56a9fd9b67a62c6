"""`fastn-mcp demo`: a real client drives the real server over stdio against the sandbox, in both protocol versions.

The transcript shows what happened. If a result differs from what it states, the demo says so and fails.
"""

import json
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import click
from anyio import TemporaryDirectory
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
)
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.build.startup import SANDBOX_KEY
from fastn_mcp.build.stores import ApprovalStore
from fastn_mcp.channels.http_server import BackgroundServer
from fastn_mcp.cli.layout import ORANGE, style
from fastn_mcp.config.command_line import this_program
from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.procedures.catalog import ALL_TOOLS

_READING_SECONDS = 1.2
"""Seconds before the person answers: the guard takes an answer within one second for a program's."""


_NO_BROWSER = "false"
"""Command of the server in place of a browser: the demo opens none."""

_TYPED_KEY = "key-of-the-demo"
"""API key that the person types. The sandbox does not check it."""


class DemoFailed(Exception):
    """A result differs from what the transcript states."""


@click.command(name="demo")
@click.pass_context
def demo(ctx: click.Context) -> int:
    """Watch a 30-second demonstration, without an account."""
    console = Console(no_color=ctx.color is False or None, highlight=False, width=None if sys.stdout.isatty() else 100)
    failures: list[str] = []
    try:
        anyio.run(_play, console)
    except* DemoFailed as group:
        failures += map(str, _leaves(group))
    except* Exception as group:
        failures += (f"{type(error).__name__}: {error}" for error in _leaves(group))
    for failure in failures:
        console.print(Text("The demo failed:", style="bold red"), Text(failure))
    return 1 if failures else 0


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    return [
        leaf
        for inner in group.exceptions
        for leaf in (_leaves(inner) if isinstance(inner, BaseExceptionGroup) else [inner])
    ]


async def _play(console: Console) -> None:
    console.print(Rule("fastn-mcp: administer Fastn from an agent, safely"))
    console.print(
        "A sandbox in place of Fastn, the real server over stdio, a real MCP client. No account, no network.\n"
    )
    async with _connected(console, "2026-07-28") as story:
        await story.count_tools()
        await story.repair(await story.diagnose())
        console.print("[bold]The agent tries to delete a customer, and the person declines.[/]")
        customer = await story.find("globex", "Globex Exports")
        await story.decline_deletion(customer)
        await story.undo(await story.approve_deletion(customer))
        await story.replay_approval()
    # The two approval requests again, without output, in the legacy version, which shows the form during the call.
    async with _connected(Console(quiet=True), "legacy") as story:
        customer = await story.find("globex", "Globex Exports")
        await story.decline_deletion(customer)
        await story.approve_deletion(customer)
    console.print("[bold]The same in protocol 2025-11-25:[/] declined, nothing sent; approved, sent once.")
    console.print(Rule())
    install = this_program(os.environ).to("install", "claude-code", "--sandbox")
    console.print("[bold green]Everything worked.[/] Try it in your own client:")
    console.print(Text(f"  {install}"), soft_wrap=True)  # not wrapped, to be copied


class DemoStory:
    """The agent's calls, the person's answers, and a count of the requests that reach the sandbox."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._received = Counter[str]()
        self._answers: list[ElicitResult] = []
        self.client: Client = cast(Client, None)
        self.state = Path()
        """State folder of the server."""

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002
        """Answer an elicitation form as the person, with the next of the prepared answers."""
        if isinstance(params, ElicitRequestURLParams):
            return await self._approve_at_a_terminal(params)
        if not self._answers:
            raise DemoFailed("a form was shown that nobody expected")
        answer = self._answers.pop(0)
        await anyio.sleep(_READING_SECONDS)
        self._say(params.message, style(ORANGE))
        content = " ".join(f"{name}={value}" for name, value in (answer.content or {}).items())
        self._say(f"person: {answer.action} {content}".rstrip(), "bold")
        return answer

    async def _approve_at_a_terminal(self, params: ElicitRequestURLParams) -> ElicitResult:
        """Approve the waiting call and type its secret, in place of the page that the link leads to."""
        self._say(params.message, style(ORANGE))
        await anyio.sleep(_READING_SECONDS)
        store = ApprovalStore(self.state, None, this_program(os.environ), warn=_fail)

        async def approve(approvals: TerminalApprovals) -> str:
            (request,) = await approvals.waiting()
            return await approvals.approve(request, {"apiKey": _TYPED_KEY})

        message = await anyio.to_thread.run_sync(store.use, approve)
        self._say(f"person: types the apiKey. {message}", "bold")
        return ElicitResult(action="accept")

    def count(self, app: ASGIApp) -> ASGIApp:

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            self._received[scope.get("method", "")] += 1
            await app(scope, receive, send)

        return counted

    async def find(self, words: str, name: str) -> dict[str, Any]:
        """Find a resource by a person's words, and require that it has this name."""
        best = (await self._call("find", query=words))["data"]["found"][0]
        _require(best["name"] == name, f"find takes {words!r} for {name}")
        self._say(f"the {best['kind']} {name}, id {best['id']}")
        return best

    async def count_tools(self) -> None:
        tools = (await self.client.list_tools()).tools
        reading = sum(bool(tool.annotations and tool.annotations.read_only_hint) for tool in tools)
        _require(len(tools) == len(ALL_TOOLS), f"there are {len(ALL_TOOLS)} tools")
        self._console.print(f"  {len(tools)} tools: {reading} read, {len(tools) - reading} change something.\n")

    async def diagnose(self) -> dict[str, Any]:
        self._console.print("[bold]Why did the nightly contact sync stop?[/]")
        trigger = await self.find("nightly contact sync", "Nightly contact sync")
        diagnosis = (await self._call("diagnose", trigger_id=trigger["id"]))["data"]
        _require("no working connection to cin7Core" in diagnosis["verdict"], "the cause was found")
        cause = diagnosis["causes"][0]
        self._say(diagnosis["verdict"])
        self._say(f"Fix: {cause['fix']}")
        self._say(f"What will not help: {cause['will_not_help']}\n")
        return diagnosis

    async def repair(self, diagnosis: dict[str, Any]) -> None:
        """Make the calls that the diagnosis names: connect the app, run the workflow, switch its trigger on."""
        self._console.print("[bold]Fix it. The person types the API key at a terminal; the agent does not see it.[/]")
        (cause,) = diagnosis["causes"]
        (trigger,) = diagnosis["triggers"]
        connection = cause["next"]["arguments"]
        connected = await self._call(cause["next"]["tool"], **connection)
        _require(connected.get("done") == "create_connection", "the app was connected")
        _require(_TYPED_KEY not in json.dumps(connected), "the agent does not see the key")
        run = (await self._call("get_execution", execution_id=cause["example"]))["data"]
        self._approve_next()
        started = await self._call(
            "run_workflow", workflow_id=run["workflowId"], customer_id=connection["customer_id"], wait_seconds=30
        )
        _require(started["data"]["status"] == "completed", "the workflow works again")
        self._say(f"the run is {started['data']['status']}")
        self._approve_next()
        switched_on = await self._call(trigger["next"]["tool"], **trigger["next"]["arguments"])
        _require(switched_on.get("done") == "update_trigger", "the trigger was switched on")
        overview = (await self._call("get_overview"))["data"]
        _require(trigger["id"] not in json.dumps(overview["findings"]), "the overview no longer lists it")
        self._require_sent("POST", 2, "exactly one connection and one run reached Fastn")
        self._say("It no longer lists the trigger.\n")

    def _approve_next(self) -> None:
        """Approve the next call."""
        self._answers.append(ElicitResult(action="accept", content={"decision": "approve"}))

    async def decline_deletion(self, customer: dict[str, Any]) -> None:
        self._answers.append(ElicitResult(action="decline"))
        answer = await self._call("delete_customer", customer_id=customer["id"])
        _require(answer.get("outcome") == "declined", "the call was declined")
        self._require_sent("DELETE", 0, "no deletion reached Fastn")
        self._say(f"{answer['message']} (deletions that reached Fastn: 0)\n")

    async def approve_deletion(self, customer: dict[str, Any]) -> dict[str, Any]:
        """Delete the customer, approved by typing its name, and return the receipt."""
        self._console.print("[bold]It tries again, and the person types the name.[/]")
        self._answers.append(ElicitResult(action="accept", content={"name": customer["name"]}))
        answer = await self._call("delete_customer", customer_id=customer["id"])
        _require(answer.get("done") == "delete_customer", "the deletion was made")
        self._require_sent("DELETE", 1, "exactly one deletion reached Fastn")
        gone = await self._call("get_customer", customer_id=customer["id"])
        _require(gone.get("outcome") == "not_found", "the customer is gone")
        self._say(f"done, once; get_customer now says {gone['outcome']}\n")
        return answer["receipt"]

    async def undo(self, receipt: dict[str, Any]) -> None:
        self._console.print("[bold]It was the wrong one. The undo restores what it can, and says what it cannot.[/]")
        # Creating the customer again invites its administrator. That gives access, so it needs approval.
        self._answers.append(ElicitResult(action="accept", content={"decision": "approve"}))
        answer = (await self._call("undo_change", change_id=receipt["change_id"]))["data"]
        self._require_sent("POST", 1, "the customer was created again, once")
        again = (await self._call("get_customer", customer_id=answer["new_id"]))["data"]
        self._say(f"{again['name']} exists again, as {answer['new_id']}. {answer['stays']}\n")

    async def replay_approval(self) -> None:
        self._console.print("[bold]An approval is sent a second and a third time.[/]")
        workflow = await self.find("proces new orders", "process-new-orders")
        run = {"workflow_id": workflow["id"]}
        self._console.print(Text(f'  agent: run_workflow workflow_id="{workflow["id"]}"', style="cyan"))
        request = await self.client.session.call_tool("run_workflow", run, allow_input_required=True)
        if not isinstance(request, InputRequiredResult):
            raise DemoFailed("the run was not asked about")
        await anyio.sleep(_READING_SECONDS)
        outcomes: list[str] = []
        for _ in range(3):
            result = await self.client.session.call_tool(
                "run_workflow",
                run,
                input_responses={"approval": ElicitResult(action="accept", content={"decision": "approve"})},
                request_state=request.request_state,
                allow_input_required=True,
            )
            body = _body(cast(CallToolResult, result))
            outcomes.append("done" if "done" in body else str(body["outcome"]))
        _require(outcomes[0] == "done" and "done" not in outcomes[1:], "the approval works once")
        self._require_sent("POST", 1, "exactly one run reached Fastn")
        self._console.print(f"    the same approval used three times: {', '.join(outcomes)}\n")

    def _require_sent(self, method: str, times: int, description: str) -> None:
        """Require that so many requests reached the sandbox since the last check."""
        _require(self._received.pop(method, 0) == times, description)

    async def _call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        words = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
        self._console.print(Text(f"  agent: {tool} {words}", style="cyan"))
        return _body(await self.client.call_tool(tool, arguments))

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Padding(Text(text, style=style), (0, 0, 0, 4), expand=False))


def _fail(warning: str) -> None:
    raise DemoFailed(warning)


def _body(result: CallToolResult) -> dict[str, Any]:
    body = cast("dict[str, Any] | None", result.structured_content)
    if body is None:
        raise DemoFailed("a result has no structured content")
    return body


def _require(condition: bool, description: str) -> None:
    if not condition:
        raise DemoFailed(f"check failed: {description}")


@asynccontextmanager
async def _connected(console: Console, version: str) -> AsyncGenerator[DemoStory]:
    """Yield a story whose client is connected to a server process that uses the sandbox of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    story = DemoStory(console)
    served = BackgroundServer(story.count(create_app(Sandbox(lambda: datetime.now(UTC)))), listening, "sandbox")
    try:
        async with TemporaryDirectory() as state:
            story.state = Path(state)
            environment = {
                "FASTN_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}",
                "FASTN_API_KEY": SANDBOX_KEY,
                "FASTN_CONFIG": os.devnull,
                "FASTN_CONFIG_DIR": state,
                "FASTN_STATE_DIR": state,
                "BROWSER": _NO_BROWSER,
            }
            server = StdioServerParameters(
                command=sys.executable, args=["-m", "fastn_mcp", "--profile", "sandbox"], env=environment
            )
            async with Client(server, mode=version, elicitation_callback=story.answer) as story.client:
                yield story
    finally:
        await served.stop()
