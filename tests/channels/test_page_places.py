"""The places of the page in a real Chromium: reachable by keyboard, without scripts, on any screen, checked by axe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ViewportSize
from support.begun import given
from support.long_log import ACCOUNT, call, story, write_entries
from support.page_world import Desk, deletion_of_customer, entered, update_of_workflow
from support.policy_files import rules_of
from support.real_browser import axe_violations, needs_chromium

from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.policy.policy import Policy

pytestmark = needs_chromium

SIZES = [ViewportSize(width=width, height=800) for width in (320, 390, 900, 1280)]
FILE = f"""
[[protect]]
customer = "{"long-name-" * 12}*"
reason = "{"why " * 60}"

[budget]
external = 20
spend = 10
"""


@pytest.fixture
async def desk(tmp_path: Path) -> Any:
    policy = Policy(rules=rules_of(tmp_path, FILE))
    desk = Desk(tmp_path / "state" / "page.json", name=ACCOUNT, policy=policy)
    name = "ن" * 100 + "W" * 100
    hostile = call(90, event=AuditEvent.REFUSED, name=name, arguments={"input": {"deep": ["x" * 300]}}, rule="r" * 200)
    await desk.ask(deletion_of_customer(), update_of_workflow())
    await given(desk.ledger, "grant-2", desk.clock.now().timestamp() + 900)
    write_entries(desk.audit, [*(entry for n in range(14) for entry in story(n)), replace(hostile, message="m" * 300)])
    damaged = desk.audit.read_bytes()
    desk.audit.write_bytes(damaged + b"damaged\n")
    yield desk
    await desk.aclose()


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size["width"]))
async def test_axe_finds_no_violations(scheme: Any, size: ViewportSize, desk: Desk, chromium: Browser) -> None:
    await desk.ledger.add_stop(Stop("s", 1.0, "Dana Example", "w" * 200))
    await desk.ledger.add_stop(Stop("t", 1.0, "Dana Example", person="claude-code" * 9))
    tab = await entered(chromium, desk, viewport=size, color_scheme=scheme)
    root = tab.url
    for path in ("", "activity", "activity?q=nothing", "limits", "activity?entry=38", "stop", "allow"):
        await tab.goto(root + path)
        assert await axe_violations(tab) == [], path
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        narrow = """[...document.querySelectorAll("a, button, input, select, summary")]
            .filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)"""
        assert await tab.evaluate(narrow) == [], path


async def test_places_are_reached_by_keyboard_and_marked(desk: Desk, chromium: Browser) -> None:
    tab = await entered(chromium, desk, viewport=SIZES[0])
    for name in ("Activity", "Limits", "Requests"):
        link = tab.get_by_role("navigation", name="Places").get_by_role("link", name=name)
        await link.focus()
        await tab.keyboard.press("Enter")
        current = tab.locator("[aria-current=page]")
        await current.filter(has_text=name).wait_for()
        assert await current.count() == 1
    assert await current.inner_text() == "Requests 2"


@pytest.mark.long
async def test_changes_are_stopped_and_allowed_by_keyboard_without_scripts(desk: Desk, chromium: Browser) -> None:
    tab = await entered(chromium, desk, java_script_enabled=False, viewport=SIZES[1])
    await tab.get_by_role("link", name="Stop changes…").focus()
    await tab.keyboard.press("Enter")
    await tab.get_by_label("Reason (optional)").focus()
    await tab.keyboard.type("cursor renames customers")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("stopped all changes at").wait_for()
    await tab.get_by_role("link", name="Allow changes again…").focus()
    await tab.keyboard.press("Enter")
    await tab.get_by_role("button", name="Allow changes again").focus()
    await tab.keyboard.press("Enter")
    await tab.get_by_role("navigation", name="Places").wait_for()
    assert await tab.get_by_text("stopped all changes at").count() == 0


@pytest.mark.long
async def test_activity_is_searched_and_opened_without_scripts(desk: Desk, chromium: Browser) -> None:
    tab = await entered(chromium, desk, java_script_enabled=False)
    await tab.get_by_role("link", name="Activity").click()
    await tab.get_by_role("searchbox").fill("customer 12")
    await tab.get_by_label("Outcome").select_option("Done")
    await tab.get_by_role("button", name="Show").click()
    row = tab.locator(".log a")
    assert await row.count() == 1
    assert await tab.get_by_role("searchbox").input_value() == "customer 12"
    await row.click()
    await tab.get_by_role("heading", level=1, name="Delete customer Customer 12").wait_for()
    await tab.get_by_role("link", name="All activity").click()
    await tab.get_by_role("heading", level=1, name="Activity").wait_for()
