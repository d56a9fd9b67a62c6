"""Secrets that a person types, with the real server and a real client: they reach Fastn and nothing else."""

from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import stdio_client
from support.folder_texts import files
from support.local_page import CANARY, recording_browser, typed_on_the_page
from support.server_process import Person, Upstream, approving, body, environment, stdio


async def test_secret_typed_on_the_page_is_not_kept(upstream: Upstream, tmp_path: Path) -> None:
    browser, opened = recording_browser(tmp_path)
    env = environment(upstream) | {"BROWSER": browser, "FASTN_STATE_DIR": str(tmp_path / "state")}
    env["FASTN_APPROVAL_WAIT_SECONDS"] = "45"
    answers, shown = list[dict[str, Any]](), ""
    person = Person(approving)
    with (tmp_path / "log").open("w+") as log:
        server = stdio_client(stdio(env, "--log-level", "debug"), errlog=log)
        async with Client(server, mode="2026-07-28", elicitation_callback=person) as client:

            async def call() -> None:
                answers.append(body(await client.call_tool("create_secret", {"name": "STRIPE_KEY"})))

            with anyio.fail_after(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    while not opened.exists() or not opened.read_text().strip():  # noqa: ASYNC110 - another process
                        await anyio.sleep(0.1)
                    shown = await typed_on_the_page(opened.read_text().strip(), "value")
            assert answers[0].get("done") == "create_secret", answers
            assert person.asked == []  # a form never asks for a secret
            changes = body(await client.call_tool("list_changes", {}))
    (change,) = [request for request in upstream.requests() if request["method"] != "GET"]
    assert change["body"]["value"] == CANARY
    everything = "".join([*files(tmp_path).values(), shown, str(answers), str(changes)])
    assert "create_secret" in everything
    assert CANARY not in everything
