"""Debian's Chromium, driven by Playwright."""

import importlib.resources
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Frame, Page, ViewportSize, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = ViewportSize(width=900, height=900)
PHONE = ViewportSize(width=375, height=740)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


async def axe_violations(page: Page | Frame) -> list[Any]:
    """Return the rules that the page breaks, with the places: WCAG 2.2 A and AA, and axe's best practices."""
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    await page.evaluate(axe)
    violations, passes = await page.evaluate(
        "axe.run().then(r => [r.violations.map(v => [v.id, v.nodes.map(n => n.html)]), r.passes.length])"
    )
    assert passes > 10, "axe has checked nothing"
    return violations


@asynccontextmanager
async def launched() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        await browser.close()
