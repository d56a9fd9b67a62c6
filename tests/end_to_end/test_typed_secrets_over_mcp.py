"""Secrets that a person types, with the real server and a real client: they reach Fastn and nothing else."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import stdio_client
from support.folder_texts import files
from support.local_page import CANARY, recording_browser, typed_on_the_page
from support.server_process import ERAS, Person, Upstream, approving, body, environment, stdio
from support.terminal import sitting

pytestmark = pytest.mark.anyio

FIELDS = {"create_secret": "value", "create_connection": "apiKey"}
SENT = {"create_secret": {"value": CANARY}, "create_connection": {"credentials": {"apiKey": CANARY}}}


async def arguments(client: Client, tool: str) -> dict[str, Any]:
    if tool == "create_secret":
        return {"name": "STRIPE_KEY"}
    found = body(await client.call_tool("list_connectors", {"search": "gamma"}))
    return {"connector_id": found["data"][0]["id"]}


async def answer_while(
    upstream: Upstream, folder: Path, env: dict[str, str], era: str, tool: str, decide: Callable[[], Awaitable[str]]
) -> str:
    """Make one call while a person decides, and return all that was shown, written or returned meanwhile."""
    answers: list[dict[str, Any]] = []
    shown = ""
    person = Person(approving)
    with (folder / "log").open("w+") as log:
        server = stdio_client(stdio(env, "--log-level", "debug"), errlog=log)
        async with Client(server, mode=ERAS[era], elicitation_callback=person) as client:
            wanted = await arguments(client, tool)

            async def call() -> None:
                answers.append(body(await client.call_tool(tool, wanted)))

            with anyio.fail_after(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    shown = await decide()
            assert answers[0].get("done") == tool, answers
            assert person.asked == []  # a form never asks for a secret
            changes = body(await client.call_tool("list_changes", {}))
    (change,) = [request for request in upstream.requests() if request["method"] != "GET"]
    assert {name: change["body"][name] for name in SENT[tool]} == SENT[tool]
    return "".join([*files(folder).values(), shown, str(answers), str(changes)])


@pytest.mark.parametrize(("era", "tool"), [*zip(ERAS, FIELDS, strict=True)])
async def test_secret_typed_on_the_page_is_not_kept(upstream: Upstream, tmp_path: Path, era: str, tool: str) -> None:
    browser, opened = recording_browser(tmp_path)
    more = {"BROWSER": browser, "FASTN_APPROVAL_WAIT_SECONDS": "45", "FASTN_STATE_DIR": str(tmp_path / "state")}

    async def decide() -> str:
        while not opened.exists() or not opened.read_text().strip():  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.1)
        return await typed_on_the_page(opened.read_text().strip(), FIELDS[tool])

    everything = await answer_while(upstream, tmp_path, environment(upstream) | more, era, tool, decide)
    assert tool in everything
    assert CANARY not in everything


async def test_credentials_typed_at_the_terminal_reach_fastn_only(upstream: Upstream, tmp_path: Path) -> None:
    more = {"BROWSER": "false", "FASTN_APPROVAL_WAIT_SECONDS": "45", "FASTN_STATE_DIR": str(tmp_path / "state")}
    env = environment(upstream) | more

    def at_the_terminal() -> str:
        with sitting(["-m", "fastn_mcp", "approvals"], env) as person:
            person.sees("Enter = leave it waiting > ")
            person.types("y\r")
            person.sees("the apiKey (not shown as you type) > ")
            person.types(f"{CANARY}\r")
            person.sees("the headerName, if it takes any (shown) > ")
            person.types("\r")
            person.sees("Approved.")
            person.leaves()
            return person.shown

    async def decide() -> str:
        while '"typed"' not in "".join(files(tmp_path / "state").values()):  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.1)
        return await anyio.to_thread.run_sync(at_the_terminal)

    everything = await answer_while(upstream, tmp_path, env, "2026-07-28", "create_connection", decide)
    assert CANARY not in everything
