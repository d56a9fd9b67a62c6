"""Secrets that a person types, with the real server and a real client: they reach Fastn and nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import stdio_client
from support.folder_texts import files
from support.local_page import CANARY, recording_browser, typed_on_the_page
from support.server_process import ERAS, Person, Upstream, approving, body, environment, stdio

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Typed:
    """A tool whose secret is typed, and where it is in the request to Fastn."""

    era: str
    tool: str
    field: str
    sent: dict[str, Any]


CASES = [
    Typed("2025-11-25", "create_secret", "value", {"value": CANARY}),
    Typed("2026-07-28", "create_connection", "apiKey", {"credentials": {"apiKey": CANARY}}),
]


async def arguments(client: Client, tool: str) -> dict[str, Any]:
    if tool == "create_secret":
        return {"name": "STRIPE_KEY"}
    found = body(await client.call_tool("list_connectors", {"search": "gamma"}))
    return {"connector_id": found["data"][0]["id"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.tool)
async def test_secret_typed_on_the_page_is_not_kept(upstream: Upstream, tmp_path: Path, case: Typed) -> None:
    browser, opened = recording_browser(tmp_path)
    env = environment(upstream) | {"BROWSER": browser, "FASTN_STATE_DIR": str(tmp_path / "state")}
    env["FASTN_APPROVAL_WAIT_SECONDS"] = "45"
    answers, shown = list[dict[str, Any]](), ""
    person = Person(approving)
    with (tmp_path / "log").open("w+") as log:
        server = stdio_client(stdio(env, "--log-level", "debug"), errlog=log)
        async with Client(server, mode=ERAS[case.era], elicitation_callback=person) as client:
            wanted = await arguments(client, case.tool)

            async def call() -> None:
                answers.append(body(await client.call_tool(case.tool, wanted)))

            with anyio.fail_after(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    while not opened.exists() or not opened.read_text().strip():  # noqa: ASYNC110 - another process
                        await anyio.sleep(0.1)
                    shown = await typed_on_the_page(opened.read_text().strip(), case.field)
            assert answers[0].get("done") == case.tool, answers
            assert person.asked == []  # a form never asks for a secret
            changes = body(await client.call_tool("list_changes", {}))
    (change,) = [request for request in upstream.requests() if request["method"] != "GET"]
    assert {name: change["body"][name] for name in case.sent} == case.sent
    everything = "".join([*files(tmp_path).values(), shown, str(answers), str(changes)])
    assert case.tool in everything
    assert CANARY not in everything
