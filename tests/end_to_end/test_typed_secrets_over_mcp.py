"""Secrets that a person types, with the real server and a real client: they reach Fastn and nothing else."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import stdio_client
from support.server_process import ERAS, Person, Upstream, approving, body, environment, stdio
from support.terminal import sitting
from test_approvals import form_in, posted_by, recording_browser

pytestmark = pytest.mark.anyio

CANARY = "canary-4711-typed"
FIELDS = {"create_secret": "value", "create_connection": "apiKey"}
SENT = {"create_secret": {"value": CANARY}, "create_connection": {"credentials": {"apiKey": CANARY}}}


async def arguments(client: Client, tool: str) -> dict[str, Any]:
    if tool == "create_secret":
        return {"name": "STRIPE_KEY"}
    found = body(await client.call_tool("list_connectors", {"search": "gamma"}))
    return {"connector_id": found["data"][0]["id"]}


def written(folder: Path) -> str:
    return "".join(path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file())


async def typed_on_the_page(address: str, field: str) -> str:
    """Approve on the page that a key file opens, and type the secret. Return what the page showed."""
    page_url, keys = posted_by(address)
    async with httpx2.AsyncClient(follow_redirects=True) as person:
        entered = await person.post(page_url, data=keys, headers={"Origin": "null"})
        page = await person.get(entered.url.join(re.findall(r"url=([^\"]+)", entered.text)[0]))
        form = re.search(r'<form class="approve"[^>]*action="([^"]*)".*?</form>', page.text, re.DOTALL)
        assert form is not None
        assert f'name="secret.{field}" type="password" required' in form[0]
        origin = f"{page.url.scheme}://{page.url.netloc.decode()}"
        answer = form_in(form[0]) | {f"secret.{field}": CANARY, "extent": "once"}
        sent = await person.post(str(page.url.join(form[1])), data=answer, headers={"Origin": origin})
        assert sent.status_code == 200, sent.text
        return page.text + sent.text


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
            given = await arguments(client, tool)

            async def call() -> None:
                answers.append(body(await client.call_tool(tool, given)))

            with anyio.fail_after(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    shown = await decide()
            assert answers[0].get("done") == tool, answers
            assert person.asked == []  # a form never asks for a secret
            changes = body(await client.call_tool("list_changes", {}))
    (change,) = [request for request in upstream.requests() if request["method"] != "GET"]
    assert {name: change["body"][name] for name in SENT[tool]} == SENT[tool]
    return "".join([written(folder), shown, str(answers), str(changes)])


@pytest.mark.parametrize(("era", "tool"), [*zip(ERAS, FIELDS, strict=True)])
async def test_secret_typed_on_the_page_reaches_fastn_only(
    upstream: Upstream, tmp_path: Path, era: str, tool: str
) -> None:
    """State folder, log, results, journal and the page itself were searched; the client's form is not asked."""
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
        while '"typed"' not in written(tmp_path / "state"):  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.1)
        return await anyio.to_thread.run_sync(at_the_terminal)

    everything = await answer_while(upstream, tmp_path, env, "2026-07-28", "create_connection", decide)
    assert CANARY not in everything
