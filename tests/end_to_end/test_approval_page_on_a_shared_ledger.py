"""Two replicas and a real Valkey: a request of one is decided at the other, even after one was killed.

People use one address, for which the test selects the replica. Agents call either.
"""

import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from playwright.async_api import Page, Request, expect
from support.ports import free_port
from support.real_browser import DESKTOP, launched, needs_chromium
from support.replica_pair import POLICY, Replicas, person, two_replicas
from support.server_process import at_once
from support.tcp_proxy import Proxy, proxied
from support.team_page import approve, looked_at, result
from support.valkey_server import ValkeyServer

pytestmark = [pytest.mark.long, needs_chromium]

FOUR_EYES = '[[rule]]\ntool = "delete_connector"\nthen = "four_eyes"\n'
LOST = "The shared ledger cannot be used"


@dataclass
class World(Replicas):
    """Replicas behind a proxy, which decides which one people reach."""

    valkey: ValkeyServer
    people: Proxy


@asynccontextmanager
async def replicas(folder: Path, policy: str = POLICY) -> AsyncGenerator[World]:
    site, kept = free_port(), ("--appendonly", "yes", "--appendfsync", "always")
    valkey = await anyio.to_thread.run_sync(ValkeyServer(folder, kept).start)
    async with AsyncExitStack() as stack:
        stack.callback(valkey.stop)
        made = stack.enter_context(two_replicas(folder, valkey.url(), site=site, policy=policy))
        made.provider.person = person("dana")
        people = await stack.enter_async_context(proxied(made.other, site))
        yield World(**vars(made), valkey=valkey, people=people)


@asynccontextmanager
async def a_tab() -> AsyncGenerator[tuple[Page, list[Request]]]:
    async with launched() as browser:
        context = await browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
        context.set_default_timeout(15_000)
        tab, sent = await context.new_page(), list[Request]()
        context.on("request", lambda request: sent.append(request))
        yield tab, sent
        await browser.close()


async def sign_in(tab: Page, site: str) -> None:
    await tab.goto(f"{site}/approvals/")
    await tab.get_by_role("link", name="Sign in").click()
    await expect(tab.get_by_text("Signed in as Dana Example")).to_be_visible()
    await expect(tab.get_by_text("Up to date")).to_be_visible()


async def again(request: Request, port: int) -> httpx2.Response:
    """Send the bytes of a browser's request, with its cookies, to a replica."""
    sent = {name: value for name, value in (await request.all_headers()).items() if not name.startswith(":")}
    address = httpx2.URL(request.url).copy_with(port=port)
    host = {"host": httpx2.URL(request.url).netloc.decode()}
    async with httpx2.AsyncClient(timeout=30) as http:
        return await http.request(request.method, address, headers=sent | host, content=request.post_data_buffer or b"")


async def test_approval_and_single_use_hold_across_replicas(tmp_path: Path) -> None:
    async with replicas(tmp_path) as world, a_tab() as (tab, sent), world.agent(world.one) as agent:
        await sign_in(tab, world.site)
        customer = (await result(agent, "list_customers", search="Globex"))["data"][0]
        waits = await result(agent, "delete_customer", customer_id=customer["id"])
        assert (waits["status"], world.deleted()) == ("approval_required", 0)
        overview = await result(agent, "get_overview", about="approvals")
        assert overview["data"]["guard"]["page"] == f"{world.site}/approvals/"
        assert f"{world.site}/approvals/" in waits["message"]
        await expect(tab.get_by_role("heading", name="Delete customer")).to_be_visible()  # without a reload
        await approve(tab, "Delete customer", customer["name"])
        await expect(tab.locator("#said")).to_contain_text("Approved: Delete customer")
        assert world.approved() == [(world.other, "Dana Example")]
        assert world.deleted() == 0

        async with world.agent(world.other) as there:
            deletions = [
                partial(each.call_tool, "delete_customer", {"customer_id": customer["id"]}) for each in (agent, there)
            ]
            outcomes = await at_once(*deletions * 2)
        assert len([one for one in outcomes if one.get("done") == "delete_customer"]) == 1, outcomes
        assert world.deleted() == 1

        (form,) = (request for request in sent if request.url.endswith("/approve"))
        (back,) = (request for request in sent if "/callback?" in request.url)
        for port in (world.one, world.other):
            refused = await again(form, port)
            assert refused.status_code == 403
            assert "this form was already submitted" in refused.text
            used = await again(back, port)
            assert used.status_code == 403
            assert "This sign-in was already used." in used.text
            assert "session" not in used.headers.get("set-cookie", "")

        looks = [request for request in sent if request.url.endswith("/approvals/")][-1]
        assert (await again(looks, world.other)).status_code == 200
        world.people.switch(world.one)
        await expect(tab.get_by_text("Up to date")).to_be_visible()  # it reconnects to the other by itself
        await tab.get_by_role("button", name="Sign out").click()
        await expect(tab.get_by_role("heading", name="You are signed out")).to_be_visible()
        for port in (world.one, world.other):
            assert (await again(looks, port)).status_code == 403  # a copied cookie


async def test_four_eyes_needs_two_people_at_the_page(tmp_path: Path) -> None:
    async with replicas(tmp_path, policy=FOUR_EYES) as world, a_tab() as (tab, _), world.agent(world.one) as agent:
        await tab.goto(f"{world.site}/approvals/")
        await looked_at(tab, "sign-in")
        await sign_in(tab, world.site)
        assert await tab.evaluate("document.cookie") == ""
        connector = (await result(agent, "list_connectors"))["data"][0]
        await result(agent, "delete_connector", connector_id=connector["id"])
        await expect(tab.get_by_role("heading", name="Delete connector")).to_be_visible()
        await looked_at(tab, "waits")
        await approve(tab, "Delete connector", connector["name"])
        await expect(tab.locator("#said")).to_contain_text("Approval recorded (1 of 2)")
        await expect(tab.get_by_text("You have already approved. One more person has to approve.")).to_be_visible()
        await looked_at(tab, "four-eyes")
        assert (await result(agent, "delete_connector", connector_id=connector["id"]))["status"] == "approval_required"

        await tab.get_by_role("button", name="Sign out").click()
        await expect(tab.get_by_role("heading", name="You are signed out")).to_be_visible()
        await looked_at(tab, "signed-out")
        world.provider.person = person("kim")
        await tab.get_by_role("link", name="Sign in again").click()
        await approve(tab, "Delete connector", connector["name"])
        await expect(tab.locator("#said")).to_contain_text(
            "If the agent is still waiting, the call runs now. Otherwise it runs when the agent makes it again."
        )
        await looked_at(tab, "approved")
        assert (await result(agent, "delete_connector", connector_id=connector["id"]))["done"] == "delete_connector"
        assert world.deleted() == 1
        assert world.approved() == [(world.other, "Dana Example"), (world.other, "Kim Example")]


async def test_killed_ledger_stops_changes_until_it_is_back(tmp_path: Path) -> None:
    async with replicas(tmp_path) as world, a_tab() as (tab, sent), AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(world.agent(port)) for port in (world.one, world.other)]
        customer = (await result(agents[0], "list_customers", search="Globex"))["data"][0]
        await result(agents[0], "delete_customer", customer_id=customer["id"])
        await sign_in(tab, world.site)
        copy = await tab.context.new_page()
        await copy.goto(f"{world.site}/approvals/")

        await anyio.to_thread.run_sync(world.valkey.stop, signal.SIGKILL)
        for agent in agents:
            lost = await result(agent, "delete_customer", customer_id=customer["id"])
            assert lost["outcome"] == "refused", lost
            assert LOST in lost["message"]
            assert "Nothing was sent." in lost["message"]
            assert (await result(agent, "list_customers", limit=1))["data"]
        await expect(tab.get_by_text("The ledger cannot be reached").first).to_be_visible()
        await approve(copy, "Delete customer", customer["name"])
        await expect(copy.get_by_role("heading", name="The ledger cannot be reached")).to_be_visible()
        await looked_at(copy, "ledger-away")
        (form,) = (request for request in sent if request.url.endswith("/approve"))
        for port in (world.one, world.other):
            assert (await again(form, port)).status_code == 503
            async with httpx2.AsyncClient() as http:
                ready = await http.get(f"http://127.0.0.1:{port}/readyz")
            assert (ready.status_code, ready.json()["ledger"]) == (200, "unreachable")
        assert (world.deleted(), world.approved()) == (0, [])

        await anyio.to_thread.run_sync(world.valkey.start)
        await expect(tab.get_by_text("Up to date")).to_be_visible()
        await approve(tab, "Delete customer", customer["name"])
        await expect(tab.locator("#said")).to_contain_text("Approved: Delete customer")
        assert (await result(agents[0], "delete_customer", customer_id=customer["id"]))["done"] == "delete_customer"
        assert (world.deleted(), world.approved()) == (1, [(world.other, "Dana Example")])
