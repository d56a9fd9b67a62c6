"""The pictures of the README and the pages, made of what a real server shows on the sandbox: `make images`.

Needs Debian's `chromium`, and fonts for text and for terminals.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from html import escape
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import anyio
import anyio.to_thread
from mcp import Client, StdioServerParameters
from playwright.async_api import Browser, Page, ViewportSize, async_playwright
from rich.console import Console
from rich.text import Text

from fastn_mcp.channels.page import page as entrance_file
from fastn_mcp.channels.page.page import KEY_FOLDER, PAGE_FILE
from fastn_mcp.runtime import System

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from support.app_host import APPS, app_host, app_of, tools_of  # noqa: E402 - the tests have it
from support.terminal import sitting  # noqa: E402

GLOBEX = {"customer_id": "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"}
ORDERS = {"workflow_id": "wf_0d93ee5b1f62"}

SEVERAL: list[tuple[str, dict[str, Any]]] = [
    ("run_workflow", ORDERS | {"environment": "live", "customer_id": "9375e42d-9510-4c95-a6a6-d9d89cf787d7"}),
    ("invite_user", {"email": "sam.ode@partner.example", "role": "Admin"}),
    ("delete_workflow", {"workflow_id": "wf_e5047fb2a8c3"}),
    ("ai_chat", {"message": "What is wrong with the TikTok sync?", "approval_mode": "auto"}),
    ("create_secret", {"name": "SHOPIFY_API_TOKEN", "value": "not-a-real-one"}),
    ("create_role", {"name": "Warehouse Auditor", "permissions": ["*", "users:write", "workflows:read"]}),
    ("create_api_key", {"name": "BI export", "mode": "Live", "permissions": "Full access", "expires": "never"}),
    ("revoke_api_key", {"api_key_id": "4"}),
    ("create_role", {"name": "Reader", "permissions": ["workflows:read", "usage:read"]}),
    ("invite_user", {"email": "kim@fastn.example", "role": "Operator"}),
    ("apply_changes", {"changes": [
        {"tool": "delete_customer", "arguments": GLOBEX},
        {"tool": "delete_workflow", "arguments": ORDERS},
        {"tool": "revoke_api_key", "arguments": {"api_key_id": "4"}},
    ]}),
]  # fmt: skip
"""Calls that wait beside the first one: two make three, all of them twelve."""

SCHEMES: tuple[tuple[Literal["light", "dark"], str], ...] = (("light", ""), ("dark", "-dark"))
DESKTOP = ViewportSize(width=1280, height=720)
PHONE = ViewportSize(width=375, height=667)

_TERMINAL = """<meta charset="utf-8"><style>
body {{ margin: 0; background: transparent }}
main {{ display: inline-block; background: #292929; border-radius: 10px; color: #d0d0d0 }}
header {{ padding: 10px 14px; color: #909090; font: 14px sans-serif }}
pre {{ margin: 0; padding: 4px 18px 18px; font: 14px/1.35 'JetBrains Mono', 'DejaVu Sans Mono', monospace }}
</style><main><header>{title}</header><pre>{text}</pre></main>"""


def environment(state: str) -> dict[str, str]:
    """A server and commands that share one folder, isolated from the user's own configuration."""
    folders = dict.fromkeys(("HOME", "FASTN_STATE_DIR", "FASTN_CONFIG_DIR"), state)
    return {"PATH": os.environ["PATH"], "FASTN_CONFIG": os.devnull, "BROWSER": "true", **folders}


@asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        program = shutil.which("chromium") or sys.exit("Chromium is not installed: apt-get install chromium")
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        await browser.close()


async def entered(browser: Browser, state: Path) -> Page:
    """A tab on the approval page, let in as `fastn-mcp approvals --open` does."""
    with anyio.fail_after(30):
        while not (state / PAGE_FILE).exists():  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.1)
    door = json.loads((state / PAGE_FILE).read_text(encoding="utf-8"))
    entrance = entrance_file.write(state / KEY_FOLDER, door["url"], door["key"], System().now().timestamp())
    context = await browser.new_context(viewport=DESKTOP, device_scale_factor=1.5, reduced_motion="reduce")
    tab = await context.new_page()
    await tab.goto(entrance)
    return tab


async def page(browser: Browser) -> None:
    """The approval page, after two decisions, with a call that waits."""
    with TemporaryDirectory() as folder:
        state = Path(folder) / "sandbox"
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "fastn_mcp", "--sandbox"], env=environment(folder)
        )
        async with Client(server, mode="2026-07-28") as client, anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "run_workflow", ORDERS)
            tab = await entered(browser, state)
            await settled(tab)
            await tab.get_by_role("button", name="Run process-new-orders").click()
            await tab.get_by_text("Approved: Run").wait_for()
            await tab.locator("summary").get_by_text("Done", exact=True).wait_for()
            calls.start_soon(client.call_tool, "delete_workflow", ORDERS)
            await tab.get_by_text("Decline with a note").click()
            await tab.get_by_label("Note to the agent").fill("Pause it instead: they return in March.")
            await settled(tab)
            await tab.get_by_role("button", name="Decline with this note").click()
            await tab.get_by_text("Declined: ").wait_for()
            calls.start_soon(client.call_tool, "delete_customer", GLOBEX)
            await tab.get_by_label("to confirm").fill("Globex Exports")
            await tab.get_by_text("It matches").wait_for()
            await tab.get_by_role("heading", level=1).focus()
            await views(tab, "approval-page")
            for tool, arguments in SEVERAL[:2]:
                calls.start_soon(client.call_tool, tool, arguments)
            await several(tab, 3)
            await views(tab, "approval-page-three")
            for tool, arguments in SEVERAL[2:]:
                calls.start_soon(client.call_tool, tool, arguments)
            await several(tab, 12)
            await views(tab, "approval-page-twelve")
            calls.cancel_scope.cancel()


_RULES = """
[[protect]]
customer = "northwind-*"
then = "deny"
reason = "Our largest customer; ask Dana first"

[[rule]]
tool = "invite_user"
when = { email = "*@partner.example" }
then = "deny"
reason = "Partners come in through the dashboard"

[[window]]
effects = ["destroy"]
open = ["Mon-Sun 00:00-24:00 UTC"]

[budget]
external = 20
spend = 10
destroy = 3
"""


async def places(browser: Browser) -> None:
    """The places Activity and Limits, after some calls, and with a policy file."""
    with TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.toml"
        policy.write_text(_RULES, encoding="utf-8")
        policy.chmod(0o600)
        env = environment(folder) | {"FASTN_POLICY": str(policy), "FASTN_APPROVAL_WAIT_SECONDS": "0"}
        server = StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp", "--sandbox"], env=env)
        async with Client(server, mode="2026-07-28") as client:
            await client.call_tool("create_customer", {"name": "Initech"})
            await client.call_tool("invite_user", {"email": "sam.ode@partner.example", "role": "Admin"})
            await client.call_tool("run_workflow", ORDERS)
            tab = await entered(browser, Path(folder) / "sandbox")
            await settled(tab)
            await tab.get_by_role("button", name="Run process-new-orders").click()
            await tab.get_by_text("Approved: Run").wait_for()
            await client.call_tool("run_workflow", ORDERS)
            await client.call_tool("delete_workflow", ORDERS)
            await tab.reload()
            await settled(tab)
            await tab.get_by_text("Decline with a note").click()
            await tab.get_by_label("Note to the agent").fill("Pause it instead: they return in March.")
            await tab.get_by_role("button", name="Decline with this note").click()
            await tab.get_by_text("Declined: ").wait_for()
            await client.call_tool("create_role", {"name": "Warehouse Auditor", "permissions": ["*", "users:write"]})
            for name in ("Limits", "Activity"):
                await tab.get_by_role("link", name=name).click()
                await tab.get_by_role("heading", level=1, name=name).wait_for()
                await views(tab, name.lower())
            await tab.get_by_text("Run process-new-orders").click()
            await tab.get_by_text("What happened").wait_for()
            await views(tab, "activity-change")
            await tab.get_by_role("link", name="Stop changes").click()
            await tab.get_by_label("Reason").fill("cursor renames customers")
            await views(tab, "stop")
            await tab.get_by_role("button", name="Stop all changes").click()
            await tab.get_by_text("stopped all changes at").wait_for()
            await tab.get_by_role("link", name="Activity").click()
            await views(tab, "stopped")
            await tab.get_by_role("link", name="Allow changes again").click()
            await views(tab, "allow")


async def decisions(browser: Browser) -> None:
    """What became of three decisions: one was done and undone again, one is done, and one is not used yet."""
    key = {"name": "BI nightly", "mode": "Live", "permissions": "Full access", "expires": "never"}
    rename = {**GLOBEX, "name": "Globex Trading", "plan": "Growth"}
    with TemporaryDirectory() as folder:
        state, env = Path(folder) / "sandbox", environment(folder) | {"FASTN_APPROVAL_WAIT_SECONDS": "0"}
        server = StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp", "--sandbox"], env=env)
        async with Client(server, mode="2026-07-28") as client:
            await client.call_tool("update_customer", rename)
            tab = await entered(browser, state)
            await approved(tab, "Globex Exports")
            await client.call_tool("update_customer", rename)
            await tab.reload()
            await tab.locator("summary").get_by_text("Done", exact=True).click()
            await tab.get_by_role("link", name="Undo").click()
            await views(tab, "approval-page-undo")
            await tab.get_by_role("link", name="Back").click()
            await client.call_tool("create_api_key", key)
            await tab.reload()
            await approved(tab, "Create full-access key")
            await tab.reload()
            await tab.locator("summary").get_by_text("Done", exact=True).click()
            await views(tab, "approval-page-decided")


async def approved(tab: Page, button: str) -> None:
    await settled(tab)
    await tab.get_by_role("button", name=button).click()
    await tab.get_by_text("Approved: ").wait_for()


async def settled(tab: Page) -> None:
    """Wait until the page is up to date and takes decisions: one that has just changed takes none."""
    await tab.get_by_text("Up to date").wait_for()
    await tab.locator("main:not([data-settling])").wait_for()


async def several(tab: Page, count: int) -> None:
    await tab.get_by_text(f"{count} requests waiting").first.wait_for()
    await tab.reload()
    await settled(tab)


async def views(tab: Page, name: str) -> None:
    """Take a page as a desktop shows it, light and dark, and as a phone does."""
    for scheme, suffix in SCHEMES:
        await tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await take(tab, f"{name}{suffix}")
    await tab.emulate_media(color_scheme="light", reduced_motion="reduce")
    await tab.set_viewport_size(PHONE)
    await take(tab, f"{name}-phone")
    await tab.set_viewport_size(DESKTOP)


async def take(tab: Page, name: str, *, whole: bool = False) -> None:
    path = HERE / f"{name}.png"
    await tab.screenshot(path=path, animations="disabled", full_page=whole)
    sys.stdout.write(f"written: {path}\n")


async def app(browser: Browser) -> None:
    """The approval request in the chat of a host that shows apps."""
    with TemporaryDirectory() as folder:
        env = environment(folder) | {"FASTN_APPROVAL_WAIT_SECONDS": "0"}
        server = StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp", "--sandbox"], env=env)
        async with Client(server, mode="2026-07-28", extensions=[APPS]) as client:
            size = ViewportSize(width=640, height=480)
            context = await browser.new_context(viewport=size, device_scale_factor=1.5, reduced_motion="reduce")
            host = await app_host(context, tools_of(client))
            await host.show(await app_of(client, "delete_customer"))
            await host.returned(await client.call_tool("delete_customer", GLOBEX))
            await host.app.get_by_role("button", name="Open the approval page").wait_for()
            for scheme, suffix in SCHEMES:
                await host.tab.emulate_media(color_scheme=scheme)
                await host.notify("ui/notifications/host-context-changed", {"theme": scheme})
                await take(host.tab, f"approval-app{suffix}", whole=True)


def team() -> None:
    """The approval page of a team, where two people have to approve, as its test sees it."""
    test = "tests/end_to_end/test_approval_page_on_a_shared_ledger.py"
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "long or not long", test]
        subprocess.run(command, cwd=HERE.parent.parent, env=os.environ | {"PAGE_PICTURES": folder}, check=True)  # noqa: S603
        for size, suffix in (("desktop", ""), ("phone", "-phone")):
            path = HERE / f"approval-page-team{suffix}.png"
            shutil.copyfile(Path(folder) / f"four-eyes-{size}.png", path)
            sys.stdout.write(f"written: {path}\n")


def approvals() -> str:
    """What a person sees and types at `fastn-mcp approvals`, where a call waits."""
    program = ["-m", "fastn_mcp", "--sandbox"]
    with TemporaryDirectory() as folder:
        env = environment(folder)
        call = [sys.executable, *program, "call", "delete-customer", "--customer-id", GLOBEX["customer_id"]]
        subprocess.run(call, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
        with sitting([*program, "approvals"], env | {"COLUMNS": "80"}) as person:
            person.sees("leave it waiting > ")
            person.types("Globex Exports\r")
            person.leaves()
            return person.shown.replace("\r", "").strip("\n")


def overview() -> str:
    """The HTML of what `call get-overview` prints at 80 columns, in colour."""
    with TemporaryDirectory() as folder:
        env = environment(folder) | {"COLUMNS": "80", "TERM": "xterm-256color"}
        with sitting(["-m", "fastn_mcp", "--sandbox", "call", "get-overview"], env) as person:
            person.leaves()
    console = Console(width=80, record=True, file=StringIO())
    console.print(Text.from_ansi(person.shown.replace("\r", "").strip("\n")))
    return console.export_html(inline_styles=True, code_format="{code}")


async def terminal(browser: Browser) -> None:
    shown = {"terminal": ("approvals", escape(approvals())), "overview": ("call get-overview", overview())}
    for name, (command, output) in shown.items():
        tab = await (await browser.new_context(device_scale_factor=1.5)).new_page()
        text = f"$ fastn-mcp --sandbox {command}\n\n{output}"
        await tab.set_content(_TERMINAL.format(title="Terminal", text=text))
        path = HERE / f"{name}.png"
        await tab.locator("main").screenshot(path=path, omit_background=True)
        sys.stdout.write(f"written: {path}\n")


async def main() -> None:
    async with chromium() as browser:
        await terminal(browser)
        await page(browser)
        await places(browser)
        await decisions(browser)
        await app(browser)
    await anyio.to_thread.run_sync(team)


if __name__ == "__main__":
    anyio.run(main)
