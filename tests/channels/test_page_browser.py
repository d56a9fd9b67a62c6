"""The page in a real Chromium: by keyboard, on a phone, in dark mode, and checked by axe."""

import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect
from support.begun import given
from support.page_world import (
    UPDATE,
    Desk,
    batch,
    connection,
    deletion_of_customer,
    desk_of,
    entered,
    made,
    update_of_workflow,
)
from support.real_browser import DESKTOP, axe_violations, needs_chromium
from support.stores import add_temporary, permit, with_temporary
from support.world import World

from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.channels.page.inbox import ChangeUndo
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.question import FieldChange, Question
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.access import CreateApiKey

expect.set_options(timeout=10_000)

pytestmark = needs_chromium


async def visit(browser: Browser, desk: Desk, **options: Any) -> Page:
    """Open an up-to-date tab with a session."""
    tab = await entered(browser, desk, **({"viewport": DESKTOP} | options))
    if options.get("java_script_enabled", True):
        await expect(tab.get_by_text("Up to date")).to_be_visible()
    return tab


async def settled(tab: Page) -> None:
    """Wait until the page takes decisions."""
    await expect(tab.get_by_text("Up to date")).to_be_visible()
    await expect(tab.locator("main[data-settling]")).to_have_count(0)


async def state(desk: Desk, grant: str = "grant-1") -> RequestState:
    return (await desk.request(grant)).state


async def focused(tab: Page) -> str:
    script = "(e => e.labels?.length ? e.labels[0].innerText : e.ariaLabel ?? e.innerText)(document.activeElement)"
    return " ".join(str(await tab.evaluate(script)).split())


@pytest.mark.long
async def test_address_bar_contains_no_key(desk: Desk, chromium: Browser) -> None:
    tab = await visit(chromium, desk)
    assert "enter" not in tab.url
    assert await tab.evaluate("document.cookie") == ""
    assert await tab.evaluate("history.length") <= 2


async def test_call_can_be_approved_by_keyboard(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    tab = await visit(chromium, desk)
    labels: list[str] = []
    for _ in range(10):
        await tab.keyboard.press("Tab")
        labels.append(await focused(tab))
    assert labels == [
        "Skip to the request",
        "Requests 2",
        "Activity",
        "Limits",
        "Stop changes…",
        "Delete Globex",
        "Decline",
        "Decline with a note",
        "Exact call",
        "Change Orders",
    ]
    await settled(tab)
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("status").filter(has_text="Approved: Update workflow Orders.")).to_be_focused()
    assert await state(desk) is RequestState.OPEN
    assert await state(desk, "grant-2") is RequestState.APPROVED


@pytest.mark.long
async def test_focus_is_visible(desk: Desk, chromium: Browser) -> None:
    """WCAG 2.2, 2.4.7: the focused element is outlined."""
    await desk.ask(deletion_of_customer(expected="Globex"))
    tab = await visit(chromium, desk)
    for _ in range(5):
        await tab.keyboard.press("Tab")
        width = await tab.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px", await focused(tab)


@pytest.mark.long
async def test_wrong_name_is_explained_before_submitting(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"))
    tab = await visit(chromium, desk)
    field = tab.get_by_label("Type Globex to confirm")
    approve = tab.get_by_role("button", name="Delete Globex")
    hint = tab.locator("#hint-grant-1")
    await settled(tab)
    await field.press_sequentially("Glob")
    await expect(hint).to_have_text("Upper and lower case and spaces matter.")
    await approve.click()
    await expect(hint).to_have_text("Not approved. The name does not match.")
    await expect(field).to_be_focused()
    await expect(field).to_have_attribute("aria-invalid", "true")
    await field.fill("globex")
    await expect(hint).to_have_text("The name does not match. Upper and lower case and spaces matter.")
    assert await state(desk) is RequestState.OPEN
    await field.fill("Globex")
    await expect(hint).to_have_text("It matches.")
    await field.press("Enter")
    await expect(tab.get_by_text("Approved: Delete customer Globex.")).to_be_visible()
    assert await state(desk) is RequestState.APPROVED


@pytest.mark.long
async def test_name_with_invisible_characters_can_be_approved(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(expected="Glo\u202ebex"))
    tab = await visit(chromium, desk)
    await tab.get_by_label("to confirm").fill("Glo\\u{202e}bex")
    await settled(tab)
    await tab.get_by_role("button", name="Delete Globex").click()
    await expect(tab.get_by_text("Approved: Delete customer Globex.")).to_be_visible()


@pytest.mark.long
async def test_temporary_approval_is_given_and_revoked(desk: Desk, chromium: Browser) -> None:
    await desk.ask(update_of_workflow())
    tab = await visit(chromium, desk)
    await tab.get_by_text("Approve for 15 minutes", exact=True).click()
    await settled(tab)
    await tab.get_by_role("button", name="Approve for 15 minutes").click()
    await expect(tab.get_by_text("Matching calls need no approval for 15 minutes.")).to_be_visible()
    await given(desk.ledger, "grant-2", desk.clock.now().timestamp() + 900)
    await tab.reload()
    await expect(tab.get_by_text(re.compile("1[45] minutes left"))).to_be_visible()
    await settled(tab)
    await tab.get_by_role("button", name='Revoke: Update workflow "Orders"').click()
    await expect(tab.get_by_text("Revoked. Such calls need approval again.")).to_be_visible()
    assert await desk.ledger.temporary_approvals(0.0) == []


@pytest.mark.long
async def test_new_request_appears_without_a_reload(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"))
    tab = await visit(chromium, desk)
    field = tab.get_by_label("Type Globex to confirm")
    await field.press_sequentially("Glo")
    await tab.evaluate("window.same = true")
    await desk.ask(update_of_workflow())
    await expect(tab.get_by_role("heading", level=2, name="Change 2 fields of workflow Orders")).to_be_visible()
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Delete customer Globex.")
    await expect(tab.locator("#announce")).to_have_text('New request: Update workflow "Orders". 2 requests waiting.')
    await expect(tab).to_have_title("(2) Approvals · fastn-mcp")
    await expect(field).to_be_focused()
    await tab.keyboard.type("bex")
    await expect(field).to_have_value("Globex")
    assert await tab.evaluate("window.same")
    await expect(tab.locator("main[data-settling]")).to_have_count(0)
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_text("Approved: Delete customer Globex.")).to_be_visible()
    assert await state(desk, "grant-2") is RequestState.OPEN


@pytest.mark.long
async def test_request_decided_elsewhere_disappears(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    tab = await visit(chromium, desk)
    await tab.get_by_text("Decline with a note").first.click()
    await tab.get_by_label("Note to the agent").first.press_sequentially("Wait")
    await desk.becomes("grant-1", RequestState.DECLINED, by="terminal")
    await expect(tab.get_by_role("heading", level=1)).to_have_text(re.compile("^Change 2 fields of workflow Orders"))
    await expect(tab.get_by_role("heading", level=1)).to_be_focused()
    await expect(tab.locator("#announce")).to_have_text("One request is over. 1 request waiting.")
    await expect(tab.get_by_text("just now, by a person at a terminal")).to_be_visible()


@pytest.mark.long
async def test_click_right_after_a_change_decides_nothing(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    tab = await visit(chromium, desk)
    # The click comes right at the change.
    await tab.evaluate(
        """new MutationObserver((changes, watching) => {
             if (!("settling" in document.getElementById("main").dataset)) return;
             watching.disconnect();
             document.querySelector(".approve .go").click();
           }).observe(document.getElementById("main"), {attributes: true})"""
    )
    await desk.becomes("grant-1", RequestState.DECLINED, by="terminal")
    await expect(tab.locator("#announce")).to_have_text("The page has just changed. Read it, then decide.")
    await expect(tab.locator("main[data-settling]")).to_have_count(0)
    assert await state(desk, "grant-2") is RequestState.OPEN
    await tab.get_by_role("button", name="Change Orders").click()
    await expect(tab.get_by_text("Approved: Update workflow Orders.")).to_be_visible()


async def test_click_right_after_loading_decides_nothing(desk: Desk, chromium: Browser) -> None:
    """A double click that approved a request does not approve the next one in its place."""
    await desk.ask(deletion_of_customer())
    tab = await visit(chromium, desk)
    await tab.add_init_script(
        """document.addEventListener("DOMContentLoaded", () => document.querySelector(".approve .go").click())"""
    )
    await tab.reload()
    await expect(tab.locator("#announce")).to_have_text("The page has just changed. Read it, then decide.")
    await settled(tab)
    assert await state(desk) is RequestState.OPEN


@pytest.mark.long
async def test_list_is_used_by_keyboard(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow(), deletion_of_customer("grant-3"))
    tab = await visit(chromium, desk)
    links = tab.get_by_role("region", name="Waiting requests").get_by_role("link")
    await expect(links).to_have_count(3)
    await links.nth(0).focus()
    await tab.keyboard.press("ArrowUp")
    await expect(links.nth(0)).to_be_focused()
    await tab.keyboard.press("ArrowDown")
    await expect(links.nth(1)).to_be_focused()
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("heading", level=1)).to_have_text(re.compile("^Change 2 fields of workflow Orders"))
    await expect(tab.get_by_role("heading", level=1)).to_be_focused()
    await expect(links.nth(1)).to_have_attribute("aria-current", "true")
    await settled(tab)
    for key in ("a", "y", "Enter", "Space"):
        await tab.keyboard.press(key)
    assert {(await state(desk, f"grant-{n}")) for n in (1, 2, 3)} == {RequestState.OPEN}


@pytest.mark.long
async def test_list_appears_and_goes_without_a_reload(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    tab = await visit(chromium, desk)
    await tab.get_by_text("Decline with a note").last.click()
    note = tab.get_by_label("Note to the agent").last
    await note.press_sequentially("Wai")
    await desk.ask(deletion_of_customer("grant-3", expected="Globex"))
    await expect(tab.get_by_role("region", name="Waiting requests")).to_be_visible()
    await expect(tab.locator(".card")).to_have_count(1)
    await expect(tab.get_by_role("heading", level=1)).to_have_text(re.compile("^Change 2 fields of workflow Orders"))
    await expect(tab.locator(".queue [aria-current]")).to_contain_text("Update workflow Orders")
    await expect(note).to_be_focused()
    await tab.keyboard.type("t")
    await expect(note).to_have_value("Wait")
    await desk.becomes("grant-1", RequestState.DECLINED, by="terminal")
    await expect(tab.locator(".card")).to_have_count(2)
    await expect(tab.get_by_role("region", name="Waiting requests")).to_have_count(0)
    await expect(tab.locator("h1")).to_have_count(1)


@pytest.mark.long
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (375, 667)])
@pytest.mark.parametrize("kind", ["deletion", "update", "connection", "list"])
async def test_decision_is_above_the_fold(width: int, height: int, kind: str, desk: Desk, chromium: Browser) -> None:
    asked = {"update": update_of_workflow(), "connection": connection()}
    await desk.ask(asked.get(kind, deletion_of_customer(expected="Globex")))
    if kind == "list":
        await desk.ask(*(deletion_of_customer(f"other-{n}") for n in range(11)))
    tab = await visit(chromium, desk, viewport={"width": width, "height": height})
    buttons = {"update": "Change Orders", "connection": "Connect Gamma of Globex"}
    for name in (buttons.get(kind, "Delete Globex"), "Decline"):
        box = await tab.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= height


@pytest.mark.long
async def test_address_of_the_page_leads_a_browser_to_its_session(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer())
    tab = await visit(chromium, desk)
    url = desk.page.capabilities.page or ""
    other = await tab.context.new_page()
    await other.goto(url)
    await expect(other.get_by_text("Up to date")).to_be_visible()
    assert other.url == tab.url
    stranger = await (await chromium.new_context()).new_page()
    for stored in (None, tab.url, "//127.0.0.1:9/", "https://127.0.0.1:9/", "javascript:document.title=1", "/x/../y/"):
        await stranger.goto(url)
        await expect(stranger.get_by_role("heading")).to_have_text("This page is closed")
        assert stranger.url == url
        await stranger.evaluate("stored => localStorage.setItem('root', stored)", stored)


@pytest.mark.long
async def test_closed_page_shows_that_it_is_not_connected(desk: Desk, chromium: Browser) -> None:
    tab = await visit(chromium, desk)
    await desk.page.aclose()
    await expect(tab.get_by_text("Not connected")).to_be_visible()


async def test_page_works_without_scripts(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"))
    tab = await visit(chromium, desk, java_script_enabled=False)
    await expect(tab.get_by_text("Does not refresh automatically")).to_be_visible()
    await tab.get_by_label("Type Globex to confirm").fill("globex")
    await tab.get_by_role("button", name="Delete Globex").click()
    await expect(tab.get_by_text("the text you typed does not match exactly")).to_be_visible()
    field = tab.get_by_label("Type Globex to confirm")
    await expect(field).to_have_value("globex")
    await field.fill("Globex")
    await tab.get_by_role("button", name="Delete Globex").click()
    await expect(tab.get_by_text("Approved: Delete customer Globex.")).to_be_visible()
    await desk.ask(update_of_workflow())
    await tab.get_by_role("link", name="Refresh").click()
    await tab.get_by_role("button", name="Decline", exact=True).click()
    await expect(tab.get_by_text("Declined: Update workflow Orders.")).to_be_visible()


async def test_other_origin_cannot_frame_read_or_post(desk: Desk, chromium: Browser) -> None:
    await desk.ask(deletion_of_customer())
    tab = await visit(chromium, desk)
    address = tab.url
    stranger = await tab.context.new_page()

    async def theirs(route: Route) -> None:
        await route.fulfill(body="<p>theirs", content_type="text/html")

    await stranger.route("http://127.0.0.1:9/**", theirs)
    await stranger.goto("http://127.0.0.1:9/")
    sent = await tab.context.cookies("http://127.0.0.1:9/")
    assert sent == []
    for reading in (address, f"{address}now"):
        assert (
            await stranger.evaluate("url => fetch(url, {credentials: 'include'}).then(() => 1, () => 0)", reading) == 0
        )
    await stranger.evaluate(
        """url => { document.body.innerHTML = `<iframe src="${url}"></iframe>
             <form method="post" action="${url}decline" target="into"><input name="grant" value="grant-1"></form>
             <iframe name="into"></iframe>`; document.forms[0].submit(); }""",
        address,
    )
    await stranger.wait_for_load_state("networkidle")
    for frame in stranger.frames[1:]:
        assert "Delete customer" not in await frame.content()
    assert await state(desk) is RequestState.OPEN


class AnyUndo(ChangeUndo):
    """Shows an undo, and makes none."""

    async def preview_undo(self, change: str, asker: Asker) -> Question:  # noqa: ARG002
        return replace(UPDATE, lost="Its values will be lost.", unchecked="Not checked: triggers.")

    async def undo(self, change: str, asker: Asker) -> bool:  # noqa: ARG002
        return False


def presence(request: str) -> tuple[str, float]:
    return ("The agent is waiting for your decision.", 1e12) if request == "grant-1" else ("", 0.0)


async def everything(desk: Desk) -> None:
    """Return a desk with every part of the page and values that are hard to lay out."""
    desk.page.connect(replace(desk.account, dispatch=AnyUndo(), presence=presence))
    now = desk.clock.now().timestamp()
    long = update_of_workflow("grant-4")
    awkward = replace(
        UPDATE,
        arguments={"input": {"deep": {"deeper": ["x" * 300, {"a": 1}]}}, "unbroken": "y" * 400},
        target="z" * 200,
        name="名前" * 60,
        changes=(FieldChange("f" * 80, "b" * 300, ["c" * 300]),),
        not_checked=({"what": "triggers, workflows", "why": "Forbidden."},),
    )
    await desk.ask(
        deletion_of_customer(expected="Globex"),
        update_of_workflow(),
        deletion_of_customer("grant-3", required="four_eyes"),
    )
    await desk.ask(replace(long, question=awkward, principal="p" * 120, account="a" * 120))
    await desk.ask(batch(), batch("grant-9", question=replace(batch().question, calls=(awkward, awkward))))
    await desk.ask(connection("grant-10"), deletion_of_customer("grant-11", asked_by="q" * 120))
    await desk.ask(
        deletion_of_customer("grant-5"),
        update_of_workflow("grant-6"),
        deletion_of_customer("grant-7"),
        update_of_workflow("grant-12"),
    )
    await desk.becomes("grant-12", RequestState.APPROVED, by="local_page")
    fields = {"before": {"f" * 80: "b" * 300}, "sent": {"f" * 80: "c" * 150}, "outcome": "done"}
    changed = made("c1", now, **fields, approval="grant-6", name="u" * 200, stopped_triggers=("t" * 200,))
    await desk.ledger.begin(changed)
    await desk.becomes("grant-5", RequestState.DECLINED, by="local_page", note="n" * 300)
    await desk.becomes("grant-6", RequestState.USED, by="client_form")
    await desk.becomes("grant-7", RequestState.UNANSWERED, by="client_form")
    allows = replace(permit("update_workflow", "wf_31"), extent="w" * 120)
    wide = {"principal": "p" * 80, "account": "a" * 80, "permit": allows}
    await add_temporary(desk.ledger, with_temporary(update_of_workflow("grant-13", **wide), now + 900))


@pytest.mark.long
async def test_batch_is_listed_and_decided_at_once(desk: Desk, chromium: Browser) -> None:
    await desk.ask(batch())
    tab = await visit(chromium, desk)
    calls = tab.get_by_role("list", name="The changes, in order").locator("> li")
    await expect(calls).to_have_count(2)
    await expect(calls.nth(0)).to_contain_text("Delete customer Globex. Its connections Shopify and Slack are lost")
    await expect(calls.nth(0)).to_contain_text("2 connections")
    await expect(calls.nth(1)).to_contain_text("Orders v2")
    await tab.get_by_label("Type Globex to confirm").fill("Globex")
    await settled(tab)
    await tab.get_by_role("button", name="Make these 2 changes").click()
    await expect(tab.get_by_text("Approved: Make 2 changes.")).to_be_visible()
    assert await state(desk, "grant-8") is RequestState.APPROVED


@pytest.mark.long
@pytest.mark.parametrize("width", [320, 375, 900, 1600])
async def test_page_needs_no_horizontal_scrolling(width: int, desk: Desk, chromium: Browser) -> None:
    """WCAG 2.2, 1.4.10: from the smallest phone to a wide screen, whatever the values."""
    await everything(desk)
    tab = await visit(chromium, desk, viewport={"width": width, "height": 740})
    root = tab.url
    await tab.goto(f"{root}undo?request=grant-6&change=c1")
    assert await tab.evaluate("document.documentElement.scrollWidth") == width
    for opened in ("grant-4", "grant-9", "grant-1"):
        await tab.goto(f"{root}?request={opened}")
        for details in await tab.locator("summary").all():
            await details.click()
        assert await tab.evaluate("document.documentElement.scrollWidth") == width
    narrow = """[...document.querySelectorAll("button, input:not([type=hidden]), textarea, summary")]
        .filter(e => e.getBoundingClientRect().height < 24 || e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML)"""
    assert await tab.evaluate(narrow) == []


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 900, 1280])
async def test_axe_finds_no_violations(scheme: str, width: int, desk: Desk, chromium: Browser) -> None:
    pages: dict[str, list[Any]] = {}

    async def look(name: str) -> None:
        pages[name] = await axe_violations(tab)

    desk.page.connect(replace(desk.account, dispatch=AnyUndo(), presence=presence))
    tab = await visit(chromium, desk, viewport={"width": width, "height": 800}, color_scheme=scheme)
    root = tab.url
    await look("empty")
    await desk.ask(deletion_of_customer("first", expected="Globex"), update_of_workflow("second"))
    await tab.reload()
    await look("two")
    await desk.becomes("second", RequestState.STALE)
    await desk.ask(connection("third", TypedArgument("credentials", (TypedField("credentials"),))))
    await tab.reload()
    await settled(tab)
    await tab.get_by_label("Credentials, a JSON object").fill("no JSON")
    await tab.get_by_role("button", name="Connect Gamma of Globex").click()
    await expect(tab.get_by_text("Nothing was approved: the credentials have to be a JSON object")).to_be_visible()
    await look("no JSON")
    for seen in ("first", "third"):
        await desk.becomes(seen, RequestState.STALE)
    await everything(desk)
    for opened in ("grant-4", "grant-8", "grant-9", "grant-3", "grant-2", "grant-1"):
        await tab.goto(f"{root}?request={opened}")
        await look(f"{opened}, closed")
        for details in await tab.locator("summary").all():
            await details.click()
        await look(opened)
    await tab.get_by_label("Type Globex to confirm").fill("globex")
    await look("wrong name")
    await settled(tab)
    await tab.locator(".decline button").first.click()
    await expect(tab.locator("#said")).to_be_visible()
    await settled(tab)
    await look("decided")
    await tab.goto(f"{root}undo?request=grant-6&change=c1")
    await expect(tab.get_by_role("button", name="Undo this change")).to_be_visible()
    await look("undo")
    await tab.goto(root.rsplit("/", 2)[0] + "/wrong/")
    await look("closed")
    assert not any(pages.values()), pages


@pytest.mark.long
async def test_page_follows_the_color_scheme(desk: Desk, chromium: Browser) -> None:
    grounds: list[object] = []
    for scheme in ("light", "dark"):
        tab = await visit(chromium, desk, color_scheme=scheme)
        grounds.append(await tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(245, 246, 248)", "rgb(16, 18, 22)"]


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncGenerator[tuple[World, Desk]]:
    """Two requests for API keys by the same name: one may only read, one may do everything."""
    world = World(tmp_path)
    desk = desk_of(world, tmp_path)
    for permissions, mode, expires in (("Viewer", "Test", "30d"), ("Full access", "Live", "never")):
        call = CreateApiKey(name="BI nightly", mode=mode, permissions=permissions, expires=expires)
        await world.expect(PendingApproval, call)
    yield world, desk
    await desk.page.aclose()


@pytest.mark.parametrize("scripts", [True, False])
async def test_keys_of_one_name_are_told_apart_and_the_wrong_approval_is_taken_back(
    scripts: bool, keys: tuple[World, Desk], chromium: Browser
) -> None:
    """Approved by mistake, and withdrawn by one click on its row. Nothing else is asked."""
    world, desk = keys
    tab = await visit(chromium, desk, java_script_enabled=scripts)
    reads = tab.get_by_role("article", name="Create a Test API key BI nightly: read only, valid for 30 days.")
    full = tab.get_by_role("article", name="Create a full-access Live API key BI nightly, without an expiry date.")
    await expect(reads).to_contain_text("Gives access")
    await expect(full).to_contain_text("Anyone with this key can do everything in this account, including deletions.")
    if scripts:
        await settled(tab)
    await full.get_by_role("button", name="Create full-access key BI nightly").click()
    row = (
        tab.get_by_role("listitem").filter(has_text="Not used yet").filter(has_text="Create a full-access Live API key")
    )
    await expect(row).to_be_visible()
    if scripts:
        await settled(tab)
    await row.get_by_role("button", name="Withdraw").click()  # the only click
    await expect(tab.get_by_role("status").filter(has_text="Nothing was sent.")).to_contain_text(
        "Withdrawn: Create a full"
    )
    await expect(reads).to_be_visible()
    (request,) = [each for each in await world.ledger.decided(10) if each.state is RequestState.WITHDRAWN]
    assert request.question.arguments["permissions"] == "Full access"
    assert world.changes == []


@pytest.mark.long
async def test_several_are_declined_by_keyboard_without_scripts(desk: Desk, chromium: Browser) -> None:
    for number in range(1, 9):
        asked_by = "cursor" if number > 5 else "claude-code"
        await desk.ask(deletion_of_customer(f"grant-{number}", asked_by=asked_by))
    tab = await visit(chromium, desk, java_script_enabled=False)
    await tab.get_by_label("Select all 3 requests from cursor").focus()
    await tab.keyboard.press("Space")
    await tab.get_by_label("Select: Delete customer").first.focus()
    await tab.keyboard.press("Space")
    await tab.get_by_label("Note to their agents").fill("ask first")
    await tab.keyboard.press("Tab")
    assert await focused(tab) == "Decline selected"
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_text("Declined 4 requests. Nothing is sent. The agents get your note.")).to_be_visible()
    assert [await state(desk, f"grant-{number}") for number in (1, 2, 8)] == [
        RequestState.DECLINED, RequestState.OPEN, RequestState.DECLINED,
    ]  # fmt: skip


@pytest.mark.long
async def test_groups_follow_new_requests_and_keep_what_is_selected(desk: Desk, chromium: Browser) -> None:
    for number in range(1, 8):
        await desk.ask(deletion_of_customer(f"grant-{number}"))
    tab = await visit(chromium, desk)
    await tab.get_by_label("Select: Delete customer").first.check()
    await desk.ask(deletion_of_customer("grant-8"))
    await expect(tab.locator(".queue li")).to_have_count(8)
    await expect(tab.get_by_label("Select: Delete customer").first).to_be_checked()
    await desk.ask(deletion_of_customer("grant-9", asked_by="cursor"))
    await expect(tab.get_by_label("Select all 1 requests from cursor")).to_be_visible()
    await expect(tab.locator(".queue li")).to_have_count(9)
