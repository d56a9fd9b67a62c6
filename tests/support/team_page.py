"""Calls of an agent of a team, and what a person does on the team's approval page in a browser."""

import os
from pathlib import Path
from typing import Any

from mcp import Client
from playwright.async_api import Page, expect

from support.real_browser import DESKTOP, PHONE, axe_violations
from support.server_process import body

PICTURES = os.environ.get("PAGE_PICTURES")


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
