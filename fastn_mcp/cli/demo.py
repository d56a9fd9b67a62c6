"""`fastn-mcp demo`: a real client drives the real server over stdio against the sandbox, in both protocol versions.

What it prints is what happened. If anything is not as the transcript says, it says so and fails.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import click
import httpx2
from anyio import TemporaryDirectory
from anyio.abc import Process
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.types import CallToolResult, ElicitRequestFormParams, ElicitRequestParams, ElicitResult, InputRequiredResult
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from fastn_mcp.build.startup import SANDBOX_KEY
from fastn_mcp.config.command_line import this_program
from fastn_mcp.procedures.catalog import OFFERS

_VERSION, _OLDER_VERSION = "2026-07-28", "2025-11-25"
_READING = 1.2
"""Seconds that the person reads: the guard takes an answer within one second for a program's."""

_START = 20.0
"""Seconds that the sandbox has to start."""


class DemoFailed(Exception):
    """Something is not as the transcript says."""


@dataclass
class DemoPerson:
    """Who sits before the form. `answers` are given in turn."""

    console: Console
    answers: list[ElicitResult] = field(default_factory=list[ElicitResult])

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002
        if not isinstance(params, ElicitRequestFormParams) or not self.answers:
            raise DemoFailed("a form was shown that nobody expected")
        answer = self.answers.pop(0)
        await anyio.sleep(_READING)
        self.console.print(Padding(Text(params.message, style="yellow"), (0, 0, 0, 4), expand=False))
        given = " ".join(f"{name}={value}" for name, value in (answer.content or {}).items())
        self.console.print(
            Padding(Text(f"person: {answer.action} {given}".rstrip(), style="bold"), (0, 0, 0, 4), expand=False)
        )
        return answer


@dataclass
class DemoSandbox:
    """The Fastn that the server speaks to, in a process of its own, which counts what reaches it."""

    url: str

    async def received(self, method: str) -> int:
        async with httpx2.AsyncClient() as http:
            seen = (await http.get(f"{self.url}/__sandbox/requests")).json()
        requests = cast("list[dict[str, Any]]", seen["requests"] if isinstance(seen, dict) else seen)
        return sum(request["method"] == method for request in requests)


@click.command(name="demo")
@click.option("--plain", is_flag=True, help="No colour, even on a terminal.")
def demo(plain: bool) -> int:
    """Watch a demonstration in half a minute, without an account."""
    console = Console(no_color=plain or None, highlight=False, width=None if sys.stdout.isatty() else 100)
    failures: list[str] = []
    try:
        anyio.run(_play, console)
    except* Exception as group:
        failures.extend(_said(failure) for failure in _leaves(group))
    for failure in failures:
        console.print(Text("The demo failed:", style="bold red"), Text(failure))
    return 1 if failures else 0


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for inner in group.exceptions:
        found += _leaves(inner) if isinstance(inner, BaseExceptionGroup) else [inner]
    return found


def _said(failure: Exception) -> str:
    return str(failure) if isinstance(failure, DemoFailed) else f"{type(failure).__name__}: {failure}"


async def _play(console: Console) -> None:
    console.print(Rule("fastn-mcp: administer Fastn from an agent, safely"))
    console.print(
        "A sandbox in place of Fastn, the real server over stdio, a real MCP client. No account, no network.\n"
    )
    async with _sandbox() as sandbox, TemporaryDirectory() as state:
        await _story(console, sandbox, state)
    async with _sandbox() as sandbox, TemporaryDirectory() as state:
        await _older_version(console, sandbox, state)
    console.print(Rule())
    install = this_program(os.environ).to("install", "claude-code", "--sandbox")
    console.print("[bold green]All as it says.[/] Next, in your own client:")
    console.print(Text(f"  {install}"), soft_wrap=True)  # whole, to be copied


def _server(sandbox: DemoSandbox, state: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "fastn_mcp", "--profile", "sandbox"],
        env={
            "FASTN_BASE_URL": sandbox.url,
            "FASTN_API_KEY": SANDBOX_KEY,
            "FASTN_CONFIG": os.devnull,
            "FASTN_CONFIG_DIR": state,
            "FASTN_STATE_DIR": state,
        },
    )


async def _story(console: Console, sandbox: DemoSandbox, state: str) -> None:
    person = DemoPerson(console)
    async with Client(_server(sandbox, state), mode=_VERSION, elicitation_callback=person) as client:
        agent = Agent(console, client)
        await _tools(console, client)
        await _diagnosed(console, agent)
        console.print("[bold]The agent tries to delete a customer, and the person declines.[/]")
        customer = await agent.find("globex", "Globex Exports")
        await _declined(console, sandbox, agent, person, customer)
        receipt = await _approved(console, sandbox, agent, person, customer)
        await _undone(console, sandbox, agent, person, receipt)
        console.print("[bold]An approval is sent a second and a third time.[/]")
        await _replayed(console, sandbox, client, await agent.find("proces new orders", "process-new-orders"))


async def _older_version(console: Console, sandbox: DemoSandbox, state: str) -> None:
    """The two questions once more, unseen, in the protocol version in which a form is shown during the call."""
    unseen = Console(quiet=True)
    person = DemoPerson(unseen)
    async with Client(_server(sandbox, state), mode="legacy", elicitation_callback=person) as client:
        agent = Agent(unseen, client)
        customer = await agent.find("globex", "Globex Exports")
        await _declined(unseen, sandbox, agent, person, customer)
        await _approved(unseen, sandbox, agent, person, customer)
    console.print(f"[bold]The same in protocol {_OLDER_VERSION}:[/] declined, nothing sent; approved, sent once.")


@dataclass
class Agent:
    """What a model would do: call tools and read what comes back."""

    console: Console
    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        shown = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
        self.console.print(Text(f"  agent: {tool} {shown}", style="cyan"))
        result = await self.client.call_tool(tool, arguments)
        return _body(result)

    async def find(self, words: str, name: str) -> dict[str, Any]:
        """What a person calls so, which is the resource of this name."""
        best = (await self.call("find", query=words))["data"]["found"][0]
        _holds(best["name"] == name, f"find takes {words!r} for {name}")
        self.say(f"the {best['kind']} {name}, id {best['id']}")
        return best

    def say(self, text: str) -> None:
        self.console.print(Padding(Text(text), (0, 0, 0, 4), expand=False))


async def _tools(console: Console, client: Client) -> None:
    tools = (await client.list_tools()).tools
    reading = sum(bool(tool.annotations and tool.annotations.read_only_hint) for tool in tools)
    _holds(len(tools) == len(OFFERS), f"there are {len(OFFERS)} tools")
    console.print(f"  {len(tools)} tools: {reading} read, {len(tools) - reading} change something.\n")


async def _diagnosed(console: Console, agent: Agent) -> None:
    console.print("[bold]Why did last night's TikTok sync fail?[/]")
    workflow = await agent.find("the tiktok orders sync", "Sync TikTok Orders to Cin7 Core")
    found = (await agent.call("diagnose_workflow", workflow_id=workflow["id"]))["data"]
    _holds("connection TikTok Shop of Katana is FAILED" in found["verdict"], "the cause was found")
    cause = found["causes"][0]
    agent.say(found["verdict"])
    agent.say(f"Fix: {cause['fix']}")
    agent.say(f"What will not help: {cause['will_not_help']}")
    console.print()


async def _declined(
    console: Console, sandbox: DemoSandbox, agent: Agent, person: DemoPerson, customer: dict[str, Any]
) -> None:
    before = await sandbox.received("DELETE")
    person.answers.append(ElicitResult(action="decline"))
    answer = await agent.call("delete_customer", customer_id=customer["id"])
    _holds(answer.get("outcome") == "declined", "the call was declined")
    _holds(await sandbox.received("DELETE") == before, "no deletion reached Fastn")
    agent.say(f"{answer['message']} (deletions that reached Fastn: {before})")
    console.print()


async def _approved(
    console: Console, sandbox: DemoSandbox, agent: Agent, person: DemoPerson, customer: dict[str, Any]
) -> dict[str, Any]:
    console.print("[bold]It tries again, and the person types the name.[/]")
    before = await sandbox.received("DELETE")
    person.answers.append(ElicitResult(action="accept", content={"name": customer["name"]}))
    answer = await agent.call("delete_customer", customer_id=customer["id"])
    _holds(answer.get("done") == "delete_customer", "the deletion was made")
    _holds(await sandbox.received("DELETE") == before + 1, "exactly one deletion reached Fastn")
    gone = await agent.call("get_customer", customer_id=customer["id"])
    _holds(gone.get("outcome") == "not_found", "the customer is gone")
    agent.say(f"done, once; get_customer now says {gone['outcome']}")
    console.print()
    return answer["receipt"]


async def _undone(
    console: Console, sandbox: DemoSandbox, agent: Agent, person: DemoPerson, receipt: dict[str, Any]
) -> None:
    console.print("[bold]It was the wrong one. What can be undone is undone, and what cannot is said.[/]")
    before = await sandbox.received("POST")
    # To create the customer again invites its administrator: that gives access, so it is asked about.
    person.answers.append(ElicitResult(action="accept", content={"decision": "approve"}))
    answer = (await agent.call("undo_change", change_id=receipt["change_id"]))["data"]
    _holds(await sandbox.received("POST") == before + 1, "the customer was created again, once")
    again = (await agent.call("get_customer", customer_id=answer["new_id"]))["data"]
    agent.say(f"{again['name']} is there again, as {answer['new_id']}. {answer['lost']}")
    console.print()


async def _replayed(console: Console, sandbox: DemoSandbox, client: Client, workflow: dict[str, Any]) -> None:
    before = await sandbox.received("POST")
    run = {"workflow_id": workflow["id"]}
    console.print(Text(f'  agent: run_workflow workflow_id="{workflow["id"]}"', style="cyan"))
    asked = await client.session.call_tool("run_workflow", run, allow_input_required=True)
    if not isinstance(asked, InputRequiredResult):
        raise DemoFailed("the run was not asked about")
    await anyio.sleep(_READING)
    approval = ElicitResult(action="accept", content={"decision": "approve"})
    outcomes = [
        _outcome(
            await client.session.call_tool(
                "run_workflow",
                run,
                input_responses={"approval": approval},
                request_state=asked.request_state,
                allow_input_required=True,
            )
        )
        for _ in range(3)
    ]
    _holds(outcomes[0] == "done" and "done" not in outcomes[1:], "the approval works once")
    _holds(await sandbox.received("POST") == before + 1, "exactly one run reached Fastn")
    console.print(f"    the same sealed answer, three times: {', '.join(outcomes)}\n")


def _outcome(result: object) -> str:
    body = _body(cast(CallToolResult, result))
    return "done" if "done" in body else str(body["outcome"])


def _body(result: CallToolResult) -> dict[str, Any]:
    body = cast("dict[str, Any] | None", result.structured_content)
    if body is None:
        raise DemoFailed("a result has no structured content")
    return body


def _holds(fact: bool, said: str) -> None:
    if not fact:
        raise DemoFailed(f"check failed: {said}")


@asynccontextmanager
async def _sandbox() -> AsyncGenerator[DemoSandbox]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fastn_mcp", "sandbox", "--port", str(port)]
    sandbox = DemoSandbox(f"http://127.0.0.1:{port}")
    async with await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=None) as process:
        try:
            await _started(sandbox, process)
            yield sandbox
        finally:
            with suppress(ProcessLookupError):
                process.terminate()


async def _started(sandbox: DemoSandbox, process: Process) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            await sandbox.received("DELETE")
        except httpx2.ConnectError:
            if process.returncode is not None or time.monotonic() > deadline:
                raise DemoFailed("the sandbox did not start") from None
            await anyio.sleep(0.05)
        else:
            return
