"""Support for tests of a team's approval page: the team file, an agent, and a person's actions."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from playwright.async_api import Page, expect

from support.approval_world import APPROVERS, PAGE
from support.faulty_sandbox import FaultySandbox
from support.identity_provider import Provider
from support.real_browser import DESKTOP, PHONE, axe_violations
from support.server_process import body
from support.team_world import ALL

PICTURES = os.environ.get("PAGE_PICTURES")

FILE = (
    """
url = "http://127.0.0.1:{port}/mcp"
issuer = "{issuer}"
hosts = ["127.0.0.1:{port}", "127.0.0.1:{other}"]
audience = "the-team"
"""
    + PAGE
    + APPROVERS
    + """
[[tenant]]
name = "acme"
approval_wait_seconds = 0
groups = ["acme"]
api_key_env = "ACME_KEY"
base_url = "{fastn}"
mode = "guarded"
policy = "policy.toml"
"""
)


@dataclass
class Team:
    """The identity provider and the Fastn of a team."""

    provider: Provider
    sandbox: FaultySandbox

    @asynccontextmanager
    async def agent(self, port: int) -> AsyncGenerator[Client]:
        token = self.provider.token(
            sub="anna", name="Anna Example", email="anna@acme.example", groups=["acme"], scope=ALL, aud="the-team"
        )
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(transport) as client:
                yield client

    def deleted(self) -> int:
        return len([request for request in self.sandbox.requests if request.method == "DELETE"])


async def result(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    return body(await client.call_tool(tool, arguments))


async def approve(tab: Page, title: str, name: str) -> None:
    """Approve one request on the page. A late repeat may have made another request."""
    article = tab.get_by_role("article", name=title)
    await article.get_by_label(f"Type {name} to confirm").fill(name)
    # a page that has just changed ignores clicks
    await expect(tab.locator("#main:not([data-settling])")).to_be_visible()
    await article.get_by_role("button", name=f"Delete {name}", exact=True).click()


async def looked_at(tab: Page, name: str) -> None:
    """Check the page with axe-core, and take a screenshot if requested."""
    for size, size_name in ((DESKTOP, "desktop"), (PHONE, "phone")):
        await tab.set_viewport_size(size)
        assert await axe_violations(tab) == [], (name, size_name)
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, size_name)
        if PICTURES:
            await tab.screenshot(path=Path(PICTURES) / f"{name}-{size_name}.png", full_page=True)
    await tab.set_viewport_size(DESKTOP)
