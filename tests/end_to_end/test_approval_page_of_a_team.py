"""Two replicas, one ledger, an OpenID provider and Chromium: a request of one is decided at the other."""

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from playwright.async_api import expect
from support.faulty_sandbox import FaultySandbox
from support.identity_provider import Provider, listening
from support.ports import free_port
from support.real_browser import DESKTOP, launched, needs_chromium
from support.server_process import running
from support.team_page import FILE, Team, approve, looked_at, result

from fastn_mcp.audit.files import entries
from fastn_mcp.sandbox.app import create_app
from fastn_mcp.sandbox.auth import KEY

pytestmark = [pytest.mark.long, pytest.mark.anyio, needs_chromium]

POLICY = '[defaults]\ndestroy = "out_of_band"\n[[rule]]\ntool = "delete_connector"\nthen = "four_eyes"\n'


@dataclass
class Replicas(Team):
    """The running processes. People use the page of the first; agents call either."""

    ports: tuple[int, int]
    state: Path


@pytest.fixture
def replicas(tmp_path: Path) -> Generator[Replicas]:
    with _running(tmp_path) as made:
        yield made


@contextmanager
def _running(folder: Path) -> Generator[Replicas]:
    login, fastn, port, other = (free_port() for _ in range(4))
    provider = Provider(f"http://127.0.0.1:{login}", "the-team")
    sandbox = FaultySandbox(lambda: datetime.now(UTC))
    (folder / "policy.toml").write_text(POLICY)
    file = folder / "team.toml"
    at = f"http://127.0.0.1:{fastn}"
    file.write_text(FILE.format(port=port, other=other, issuer=provider.issuer, fastn=at))
    for written in (file, folder / "policy.toml"):
        written.chmod(0o600)
    env = dict.fromkeys(("FASTN_CONFIG_DIR", "FASTN_STATE_DIR"), str(folder))
    env |= {"FASTN_CONFIG": os.devnull, "ACME_KEY": KEY, "PAGE_SECRET": "egap", "FASTN_STATE_SECRET": "s" * 32}
    with ExitStack() as stack:
        stack.enter_context(listening(provider.app, login))
        stack.enter_context(listening(create_app(sandbox), fastn))
        for one in (port, other):
            stack.enter_context(running("--http", f"127.0.0.1:{one}", "--team", str(file), port=one, env=env))
        yield Replicas(provider, sandbox, (port, other), folder)


async def test_request_of_one_replica_is_decided_live_at_the_other(
    replicas: Replicas,
) -> None:
    port, other = replicas.ports
    replicas.provider.person = {"sub": "dana", "name": "Dana Example", "groups": ["approvers"]}
    async with launched() as browser, replicas.agent(other) as agent:
        context = await browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
        context.set_default_timeout(10_000)
        tab = await context.new_page()
        await tab.goto(f"http://127.0.0.1:{port}/approvals/")
        await looked_at(tab, "sign-in")
        await tab.get_by_role("link", name="Sign in").click()
        await expect(tab.get_by_text("Signed in as Dana Example")).to_be_visible()
        await expect(tab.get_by_text("Up to date")).to_be_visible()
        assert tab.url == f"http://127.0.0.1:{port}/approvals/"
        assert await tab.evaluate("document.cookie") == ""

        customer = (await result(agent, "list_customers", search="Globex"))["data"][0]
        waits = await result(agent, "delete_customer", customer_id=customer["id"])
        assert waits["status"] == "approval_required"
        waiting = (await result(agent, "get_overview", about="approvals"))["data"]["guard"]
        assert waiting["page"] == f"http://127.0.0.1:{port}/approvals/"
        assert f"http://127.0.0.1:{port}/approvals/" in waits["message"]
        await expect(tab.get_by_role("heading", name="Delete customer")).to_be_visible()  # without a reload
        await looked_at(tab, "waits")
        await approve(tab, "Delete customer", customer["name"])
        await expect(tab.locator("#said")).to_contain_text(f"Approved: Delete customer {customer['name']}.")
        await looked_at(tab, "approved")

        assert replicas.deleted() == 0
        outcomes: list[dict[str, Any]] = []
        async with replicas.agent(port) as here:

            async def repeat(client: Client) -> None:
                outcomes.append(await result(client, "delete_customer", customer_id=customer["id"]))

            async with anyio.create_task_group() as tasks:
                for client in (agent, here, agent, here):
                    tasks.start_soon(repeat, client)
        assert len([one for one in outcomes if one.get("done") == "delete_customer"]) == 1, outcomes
        assert replicas.deleted() == 1

        connector = (await result(agent, "list_connectors"))["data"][0]
        await result(agent, "delete_connector", connector_id=connector["id"])
        await approve(tab, "Delete connector", connector["name"])
        await expect(tab.locator("#said")).to_contain_text("1 of 2 people approved it")
        await expect(tab.get_by_text("You approved it, and another has to.")).to_be_visible()
        await looked_at(tab, "four-eyes")
        assert (await result(agent, "delete_connector", connector_id=connector["id"]))["status"] == "approval_required"

        await tab.get_by_role("button", name="Sign out").click()
        await expect(tab.get_by_role("heading", name="You are signed out")).to_be_visible()
        await looked_at(tab, "signed-out")
        replicas.provider.person = {"sub": "kim", "name": "Kim Example", "groups": ["approvers"]}
        await tab.get_by_role("link", name="Sign in again").click()
        await approve(tab, "Delete connector", connector["name"])
        await expect(tab.locator("#said")).to_contain_text(
            "It goes on by itself, or when the agent makes the call again."
        )
        assert (await result(agent, "delete_connector", connector_id=connector["id"]))["done"] == "delete_connector"
        assert replicas.deleted() == 2
        await browser.close()
    audited = [dict(entry) for entry in entries(replicas.state / "tenants" / "acme" / "audit.jsonl")]
    who = [(entry["approver"], entry["approver_name"]) for entry in audited if entry["event"] == "approved"]
    issuer = replicas.provider.issuer
    dana, kim = (f"{issuer}|dana", "Dana Example"), (f"{issuer}|kim", "Kim Example")
    assert who == [dana, dana, kim]
