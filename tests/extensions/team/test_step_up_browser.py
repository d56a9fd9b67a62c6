"""Step-up in Debian's Chromium, at the certified oidc-provider, with scripts and without."""

import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import pytest
import uvicorn
from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, expect
from support.approval_world import APPROVERS, PAGE
from support.audit_entries import entries
from support.identity_provider import Provider
from support.openid_provider import CALLBACK, Browser, OpenIDProviders, Shape, token_for
from support.policy_files import policy_file
from support.real_browser import DESKTOP, needs_chromium
from support.team_page import looked_at
from support.team_world import ALL, NO_FORMS, Caller, TeamWorld, modern, request, tenant

from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.serve import application
from fastn_mcp.runtime import System

pytestmark = needs_chromium

SECRET = "of-the-page-and-long-enough"
AGENT = "an-mcp-client"
STEP_UP = """
[approvals.step_up]
effects = ["DESTROY"]
max_age_minutes = 5
acr_values = ["phr", "mfa"]
"""
FILE = (
    PAGE + 'scopes = ["openid", "profile", "groups"]\n' + APPROVERS + STEP_UP
    + tenant("acme", groups=["acme"], api_key_env="ACME_KEY", mode="guarded", policy="policy.toml")
)  # fmt: skip
PEOPLE: dict[str, dict[str, Any]] = {
    "anna": {"name": "Anna Example", "groups": ["acme"]},
    "dana": {"name": "Dana Example", "groups": ["approvers"]},
    "kim": {"name": "Kim Example", "groups": ["approvers"]},
}


@dataclass
class Site:
    """A team's server, at which an agent's call waits."""

    url: str
    folder: Path
    providers: OpenIDProviders
    shape: Shape
    token: str
    passed: list[float]

    def wait(self, seconds: int) -> None:
        """Let time pass for the server and the provider."""
        self.passed[0] += seconds
        self.providers.serve(replace(self.shape, seconds_ahead=int(self.passed[0])))

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        async with httpx2.AsyncClient(base_url=self.url, timeout=30) as http:
            body = request(tool, arguments, _meta=NO_FORMS)
            answered = await Caller(http).ask(self.token, body, **modern(tool))
        return answered.json()["result"]["structuredContent"]

    async def delete(self) -> dict[str, Any]:
        answer = await self.call("list_customers", search="Globex")
        return await self.call("delete_customer", customer_id=answer["data"][0]["id"])

    def audit(self, event: str) -> list[dict[str, Any]]:
        lines = entries(self.folder / "tenants" / "acme" / "audit.jsonl")
        return [dict(entry) for entry in lines if entry["event"] == event]


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncGenerator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        yield
        server.should_exit = True


@pytest.fixture
async def site(tmp_path: Path, providers: OpenIDProviders) -> AsyncGenerator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        page = {"client_id": "page", "client_secret": SECRET, "redirect_uris": [f"{url}/approvals/callback"]}
        agent = {"client_id": AGENT, "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
        shape = Shape("/team", PEOPLE, clients=(page, agent), resource=f"{url}/mcp", acr_values=("phr", "mfa"))
        issuer = providers.serve(shape)
        token = await token_for(issuer, AGENT, Browser("anna"), f"{url}/mcp", f"openid {ALL}")
        policy_file(tmp_path, '[defaults]\ndestroy = "typed"\n')
        passed = [0.0]
        environment = {"ACME_KEY": "fsk_test_acme", "PAGE_SECRET": SECRET, "FASTN_STATE_SECRET": "s" * 32}
        system = System(now=lambda: datetime.now(UTC) + timedelta(seconds=passed[0]))
        text = f'url = "{url}/mcp"\nissuer = "{issuer}"\n{FILE}'
        team = TeamWorld(tmp_path, text, Provider(), environment, system=system)
        team.keys = IssuerKeys(issuer, system)
        async with serving(application(team.opening, team.keys, team.health), listener):
            yield Site(url, tmp_path, providers, shape, token, passed)


@asynccontextmanager
async def tab_of(chromium: Chromium, **options: Any) -> AsyncGenerator[Page]:
    context = await chromium.new_context(viewport=DESKTOP, reduced_motion="reduce", **options)
    context.set_default_timeout(30_000)
    yield await context.new_page()
    await context.close()


async def at_provider(tab: Page, person: str) -> None:
    """Sign in at the provider's own pages, and agree to what it asks."""
    await tab.locator("input[name=login]").fill(person)
    await tab.locator("input[name=password]").fill("any")
    await tab.get_by_role("button", name="Sign-in").click()
    # It asks for consent once, and without scripts whether another person takes over its session.
    home = tab.get_by_text("fastn-mcp", exact=True)
    more = tab.get_by_role("button", name="Continue")
    await expect(home.or_(more)).to_be_visible()
    while await more.is_visible():
        await more.click()
        await tab.wait_for_load_state()


async def sign_in(tab: Page, site: Site, person: str = "dana") -> None:
    await tab.goto(f"{site.url}/approvals/")
    await tab.get_by_role("link", name="Sign in").click()
    await at_provider(tab, person)
    await expect(tab.get_by_text(f"Signed in as {PEOPLE[person]['name']}")).to_be_visible()


async def confirm(tab: Page) -> None:
    await tab.get_by_label("Type Globex Exports to confirm").fill("Globex Exports")
    await expect(tab.locator("#main:not([data-settling])")).to_be_visible()  # it ignores clicks until then
    await tab.get_by_role("button", name="Delete Globex Exports", exact=True).click()


AGAIN = "Sign in again to approve"


async def looked_at_twice(tab: Page, name: str) -> None:
    """Check the page in the light and in the dark."""
    await looked_at(tab, name)
    await tab.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await looked_at(tab, f"{name}-dark")
    await tab.emulate_media(color_scheme="light", reduced_motion="reduce")


@pytest.mark.parametrize("scripts", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_approver_signs_in_again_and_confirms(chromium: Chromium, site: Site, *, scripts: bool) -> None:
    """After another person was refused, who signed in at the provider from the same page, and an old sign-in."""
    assert (await site.delete())["status"] == "approval_required"
    async with tab_of(chromium, java_script_enabled=scripts) as tab:
        requested: list[str] = []
        tab.on("request", lambda sent: requested.append(sent.url))
        await sign_in(tab, site)
        # The provider was not asked for a strong sign-in yet.
        link = tab.get_by_role("link", name=AGAIN)
        await expect(link).to_be_visible()
        await expect(tab.get_by_label(re.compile("to confirm"))).to_have_count(0)
        if scripts:
            await looked_at_twice(tab, "needs")
        await link.click()
        await at_provider(tab, "kim")
        await expect(tab.get_by_text("You signed in as Kim Example")).to_be_visible()
        if scripts:
            await looked_at(tab, "another")
        await tab.get_by_role("link", name="Back to the page").click()
        await expect(tab.get_by_text("Signed in as Dana Example")).to_be_visible()
        requested.clear()
        await link.click()
        await at_provider(tab, "dana")
        typed = tab.get_by_label("Type Globex Exports to confirm")
        await expect(typed).to_be_visible()
        (asked,) = [parse_qs(urlsplit(url).query) for url in requested if "max_age" in url]
        assert (asked["max_age"], asked["acr_values"]) == (["300"], ["phr mfa"])
        assert site.audit("approved") == []
        if scripts:
            await looked_at_twice(tab, "fresh")
        if scripts:
            # It was strong, and grows old while the page is open. The provider still has its own session.
            site.wait(331)
            await confirm(tab)
            await expect(tab.get_by_role("alert")).to_contain_text("Nothing was approved: your sign-in is too old")
            await looked_at(tab, "old")
            await link.click()
            await at_provider(tab, "dana")
        await confirm(tab)
        await expect(tab.locator("#said")).to_contain_text("Approved: Delete customer")
        await tab.goto(f"{site.url}/approvals/limits")
        await expect(tab.get_by_text("with a fresh sign-in")).to_be_visible()
    assert (await site.delete())["done"] == "delete_customer"
    (approved,) = site.audit("approved")
    assert approved["acr"] == "phr"
    assert abs(approved["auth_time"] - datetime.now(UTC).timestamp()) < 600
