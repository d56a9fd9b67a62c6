"""Approval outside the client: on the page, to which a browser, a printed command or a link of the client leads."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import Implementation
from support.local_page import approve_all, approve_on_page, env_state, globex, recording_browser
from support.policy_files import policy_file
from support.server_process import ERAS, Person, Upstream, approving, body, each_era, environment, stdio

from fastn_mcp.channels.elicitation import link_in_result
from fastn_mcp.guard.approval_form import PendingApproval


async def test_client_without_forms_is_approved_on_the_page(upstream: Upstream, tmp_path: Path) -> None:
    browser, opened = recording_browser(tmp_path)
    env = environment(upstream) | {"BROWSER": browser}
    server = stdio(env)
    with (tmp_path / "log").open("w+") as log:
        own = Implementation(name="claude-ai", title="Claude Desktop", version="1")
        async with Client(stdio_client(server, errlog=log), mode="2026-07-28", client_info=own) as client:
            target = await globex(client)
            deletion = {"customer_id": target["id"]}
            results = [await client.call_tool("delete_customer", deletion) for _ in range(2)]
            assert [body(result)["status"] for result in results] == ["approval_required"] * 2
            assert not any(result.is_error for result in results)
            assert "Nothing was sent." in body(results[0])["message"]
            assert upstream.changes() == []
            (address,) = opened.read_text().split()
            keys = await approve_on_page(address, "Claude Desktop")
            answers = [body(await client.call_tool("delete_customer", deletion)) for _ in range(2)]
            assert answers[0]["done"] == "delete_customer"
            assert answers[1]["outcome"] == "not_found"
        log.seek(0)
        key = keys["key"]
        assert key not in address
        seen = json.dumps([body(result) for result in results]) + log.read() + env_state(env)
        assert key not in seen
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['id']}"]


async def test_printed_command_opens_the_page_of_a_profile(upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "my config.toml"
    config.write_text(f'[profiles.acme]\nbase_url = "{upstream.url}"\napi_key_env = "ACME_KEY"\n')
    config.chmod(0o600)
    kept = ("FASTN_STATE_DIR", "FASTN_API_KEY", "FASTN_APPROVAL_WAIT_SECONDS")
    own = {name: value for name, value in environment(upstream).items() if name in kept}
    key = own.pop("FASTN_API_KEY")
    arguments = ["-m", "fastn_mcp", "--config", str(config), "--profile", "acme"]
    server = StdioServerParameters(
        command=sys.executable, args=arguments, env=own | {"ACME_KEY": key, "BROWSER": "false"}
    )
    async with Client(server, mode="2026-07-28") as client:
        deletion = {"customer_id": (await globex(client))["id"]}
        answer = json.dumps(body(await client.call_tool("delete_customer", deletion)))
        (command,) = re.findall(r"`(.+)`", json.loads(answer)["message"])
        assert key not in answer
        browser, opened = recording_browser(tmp_path)
        shell = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BROWSER": browser}
        ran = await anyio.run_process(["sh", "-c", command], env=shell, check=False)
        assert (ran.returncode, ran.stdout) == (0, b"The approval page is open in your browser.\n"), ran.stderr
        await approve_on_page(opened.read_text().strip())
        assert body(await client.call_tool("delete_customer", deletion))["done"] == "delete_customer"


def served(env: dict[str, str], folder: Path, era: str, person: Person) -> Client:
    """A client of a server whose policy wants deletions approved outside the client."""
    policy = policy_file(folder, '[defaults]\ndestroy = "out_of_band"\n')
    return Client(stdio(env, "--policy", str(policy)), mode=ERAS[era], elicitation_callback=person)


@pytest.mark.parametrize(("era", "action"), [*zip(ERAS, ["accept", "decline"], strict=True)])
async def test_person_decides_on_the_opened_page(upstream: Upstream, tmp_path: Path, era: str, action: str) -> None:
    env = environment(upstream) | {"BROWSER": "false", "FASTN_APPROVAL_WAIT_SECONDS": "45"}

    async def decide() -> str:
        await approve_all(env)
        return action

    person = Person(approving, at_link=decide)
    async with served(env, tmp_path, era, person) as client:
        target = await globex(client)
        answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
    assert answer["done"] == "delete_customer"
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['id']}"]
    (link,) = person.led
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", link.url)
    assert link.message.startswith('Delete customer "Globex Exports".')
    assert link.message.endswith("\nDecide on the approval page, then come back here. Opening it approves nothing.")
    assert person.asked == []


@each_era
async def test_answer_to_the_link_approves_nothing(upstream: Upstream, tmp_path: Path, era: str) -> None:
    env = environment(upstream) | {"BROWSER": "false", "FASTN_APPROVAL_WAIT_SECONDS": "1"}

    async def accept() -> str:
        return "accept"

    person = Person(approving, at_link=accept)
    async with served(env, tmp_path, era, person) as client:
        target = await globex(client)
        for _ in range(2):
            answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
            assert answer["status"] == "approval_required"
    assert len(person.led) == 2
    assert upstream.changes() == []


async def test_link_that_ends_the_call_comes_before_the_wait() -> None:
    """MCP 2026-07-28: the client cannot show it until the call has returned."""

    async def wait() -> bool:
        raise AssertionError("it waits")

    request: Any = None
    preview: Any = None
    assert await link_in_result(PendingApproval(request, preview, "there", "https://page.example/"), wait) is False
