"""What people read on each page that is served to them. `support.page_text` says how a page is written as text."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from support.approval_world import ACME_WITH_POLICY, APPROVERS, PAGE, ApprovalWorld, serving
from support.clock import NOW
from support.faulty_sandbox import Status
from support.golden import check_golden, check_no_other
from support.guard_machine.vocabulary import ToolCall
from support.normalized import normalized
from support.page_text import page_text
from support.page_visitor import Visitor
from support.page_world import Desk, desk_of, enter, let_in
from support.policy_files import PROTECTING
from support.recorded_calls import recorded_calls
from support.team_world import HEAD, tenant
from support.world import World, plan_of, planned, policy_from

from fastn_mcp.channels.page import page as key_file
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.sandbox.issuer import TrialIssuer
from fastn_mcp.guard.caller import Caller
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import MODES
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.catalog import TOOLS, parse

CALLS: Mapping[str, ToolCall] = dict(recorded_calls())
AGENT = "claude-code"
FULL_ACCESS = ToolCall("create_api_key", {"name": "BI", "permissions": "Full access", "expires": "never"})
CONNECTION = ToolCall("create_connection", {"connector_id": CALLS["create_connection"].arguments["connector_id"]})

MESSAGE = ("#said", "@alert")
"""Parts of the page that say what became of a form."""


@dataclass
class Pages:
    """Sections of a golden file: what was done, and the text of the page that came."""

    sections: list[str] = field(default_factory=list[str])

    def add(self, title: str, page: str, *parts: str) -> None:
        """Add a page, or these parts of it: `tag`, `#id`, `.class` or `@role`."""
        self.sections.append(f"=== {title}\n\n{page_text(page, *parts)}")

    def answer(self, title: str, answer: httpx2.Response, *parts: str) -> None:
        """Add a page with its status."""
        self.add(f"{title}: {answer.status_code}", answer.text, *parts)

    def check(self, name: str, places: Mapping[str, str] | None = None) -> None:
        text = normalized("\n\n".join(self.sections), places or {})
        check_golden(f"pages/{name}.txt", f"{text}\n")


@dataclass
class LocalPage:
    """The page of this machine before a person, and the agents whose calls wait there."""

    world: World
    desk: Desk
    visitor: Visitor
    pages: Pages = field(default_factory=Pages)

    async def call(self, wanted: str | ToolCall, agent: str = AGENT, **more: Any) -> Any:
        """Make a call as an agent does, or a recorded one. An error is an answer too."""
        made = CALLS[wanted] if isinstance(wanted, str) else wanted
        call: Any = parse(TOOLS, made.tool, made.arguments | more).call
        try:
            return await self.world.dispatch(call, Caller(Asker(client_name=agent), None))
        except FastnError as error:
            return error

    async def newest(self) -> ApprovalRequest:
        """Return the request that began to wait last."""
        return (await self.world.ledger.waiting(self.world.timestamp))[-1]

    async def ask(self, wanted: str | ToolCall, agent: str = AGENT) -> ApprovalRequest:
        """Make a call that waits for a person."""
        await self.call(wanted, agent)
        self.world.clock.pass_(1)
        return await self.newest()

    async def approve(self, **fields: str) -> httpx2.Response:
        """Approve the newest request, and type the name that it asks for."""
        request = await self.newest()
        name = {} if request.expected is None else {"name": request.expected}
        return await self.visitor.decide("approve", request.id, **(name | fields))

    async def decline(self, **fields: str) -> httpx2.Response:
        return await self.visitor.decide("decline", (await self.newest()).id, **fields)

    async def show(self, title: str, place: str = "", *parts: str) -> None:
        """Add the page of a place."""
        self.pages.add(title, await self.visitor.look(place), *parts)

    async def say(self, title: str, answer: httpx2.Response) -> None:
        """Add the message to which a form led."""
        page = await self.visitor.look() if answer.status_code == 303 else answer.text
        self.pages.add(f"{title}: {answer.status_code}", page, *MESSAGE)


def new_world(folder: Path, policy: Policy | None) -> World:
    folder.mkdir(exist_ok=True)
    return World(folder, policy)


@asynccontextmanager
async def local_page(folder: Path, policy: Policy | None = None) -> AsyncGenerator[LocalPage]:
    world = new_world(folder, policy)
    desk = desk_of(world, folder)
    visitor = await let_in(desk)
    try:
        yield LocalPage(world, desk, visitor)
    finally:
        await visitor.http.aclose()
        await desk.page.aclose()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncGenerator[LocalPage]:
    async with local_page(tmp_path) as made:
        yield made


# --- requests that wait -----------------------------------------------------------------------------------------------

ASKED: Mapping[str, str | ToolCall] = {
    "A customer is deleted": "delete_customer",
    "A customer in use is renamed": "update_customer",
    "A live workflow is switched off": "update_workflow off",
    "A live workflow is run": "run_workflow live",
    "A live workflow is deleted": "delete_workflow that is live",
    "A public trigger is created": "create_trigger public",
    "A role with every permission is created": "create_role of everything",
    "A secret is stored, and the person types its value": "create_secret typed",
    "A connection is created, and the person types its credentials": CONNECTION,
    "An API key with full access is created": FULL_ACCESS,
    "An owner is invited": "invite_user owner",
    "Fastn's AI acts without asking": "ai_chat that acts",
    "A list": "list mixed",
}
"""Calls whose requests differ in what the page shows."""


async def test_requests_are_the_golden_ones(local: LocalPage) -> None:
    requests = {title: await local.ask(wanted) for title, wanted in ASKED.items()}
    for title, request in requests.items():
        await local.show(title, f"?request={request.id}", "article")
    local.pages.check("request")


async def test_numbers_of_requests_are_the_golden_ones(local: LocalPage) -> None:
    await local.show("Nothing waits")
    await local.ask("delete_customer")
    await local.show("One request")
    await local.ask("update_customer")
    await local.show("Two requests", "", "title", ".bar", ".first")
    await local.ask("invite_user")
    await local.show("Three requests, of which one is open", "", "title", ".bar", ".queue", "h1")
    for wanted in ("create_api_key", "run_workflow live", "create_role", "delete_secret"):
        await local.ask(wanted, "cursor")
    await local.show("Seven requests, by who asks", "", "title", ".bar", ".queue", "h1")
    local.pages.check("requests")


async def test_states_of_a_request_are_the_golden_ones(tmp_path: Path) -> None:
    async with local_page(tmp_path, Policy(approval_wait=5.0)) as local:
        request = await local.ask("invite_user")
        await local.show("The call has stopped waiting", "", ".by")
        await local.world.ledger.change_request(request.id, lambda current: replace(current, required="four_eyes"))
        await local.show("Two people have to approve it", "", ".decide")
        local.pages.check("request_states")


# --- forms ------------------------------------------------------------------------------------------------------------


async def test_messages_about_forms_are_the_golden_ones(local: LocalPage) -> None:
    visitor = local.visitor
    request = await local.ask("delete_customer")
    await local.say("Another name is typed", await local.approve(name="widget inc"))
    await local.say("The note is too long", await local.decline(note="n" * 501))
    await local.say("The form was not sent by this page", await visitor.send("approve", {"grant": request.id}))
    old = await visitor.form("approve", request.id) | {"extent": "once", "name": "Widget Inc"}
    await local.say("The request is approved", await local.approve())
    await local.say("The same form is sent again", await visitor.send("approve", old))
    form = await visitor.form("withdraw", request.id)
    await local.say("The approval is withdrawn", await visitor.send("withdraw", form))
    request = await local.ask("update_customer")
    old = await visitor.form("approve", request.id) | {"extent": "once"}
    await local.say("The same is allowed for 15 minutes", await local.approve(extent="while"))
    await local.say("The request was approved before", await visitor.send("approve", old))
    await local.call("update_customer")
    await local.show("The temporary approval is listed", "", ".rest")
    old = await visitor.form("revoke", request.id)
    await local.say("The temporary approval is revoked", await visitor.send("revoke", old))
    request = await local.ask("run_workflow live")
    old = await visitor.form("approve", request.id) | {"extent": "once"}
    await local.say("The request is declined", await local.decline())
    await local.say("The request was declined before", await visitor.send("approve", old))
    await local.ask("invite_user")
    await local.say("The request is declined with a note", await local.decline(note="Ask Dana first."))
    request = await local.ask("create_secret typed")
    await local.say("No secret is typed", await local.approve())
    old = await visitor.form("approve", request.id) | {"extent": "once"}
    local.world.clock.pass_(601)
    await local.say("The request has expired", await visitor.send("approve", old))
    await local.ask(CONNECTION)
    await local.say("Not all credentials are typed", await local.approve())
    local.pages.check("messages")


async def test_messages_about_several_requests_are_the_golden_ones(local: LocalPage) -> None:
    asked = ("delete_customer", "update_customer", "invite_user", "create_api_key", "run_workflow live", "create_role")
    for wanted in (*asked, "delete_secret"):
        await local.ask(wanted)
    page = await local.visitor.look()
    picks = dict(re.findall(r'<input type="checkbox" name="(pick-1-\d)" value="([^"]+)"', page))
    two = {name: picks[name] for name in ("pick-1-1", "pick-1-2")}
    await local.say("None is selected", await local.visitor.send("decline-several", {"note": ""}))
    await local.say("Two are declined", await local.visitor.send("decline-several", two | {"note": "Not now."}))
    three = two | {"pick-1-3": picks["pick-1-3"]}
    await local.say("One of three is declined", await local.visitor.send("decline-several", three))
    await local.say("All were declined before", await local.visitor.send("decline-several", three))
    local.pages.check("decline_several")


# --- what became of requests ------------------------------------------------------------------------------------------


async def decided_in_every_way(local: LocalPage) -> None:
    """Let calls end in each way that the page tells apart. The oldest approval is void by a stop."""
    world = local.world
    await local.ask("delete_secret")
    await local.approve()
    await local.visitor.send("stop", await local.visitor.form("stop", place="stop"))
    await local.visitor.send("allow", await local.visitor.form("allow", place="allow"))
    await local.ask("invite_user")
    world.clock.pass_(601)
    await local.ask("create_role")
    await local.decline(note="Viewer is enough.")
    await local.ask("create_api_key")
    await local.approve()
    await local.visitor.decide("withdraw")
    await local.ask("delete_trigger")
    await local.approve()
    world.sandbox.state.named("triggers", CALLS["delete_trigger"].arguments["trigger_id"], by="id")["name"] = "Other"
    await local.call("delete_trigger")
    await local.ask("delete_workflow that is live")
    await local.approve()
    world.sandbox.faults.add(Status(status=422, method="DELETE", message="A deployment is under way."))
    await local.call("delete_workflow that is live")
    await local.ask("run_workflow live")
    await local.approve()
    world.sandbox.faults.add(Status(status=502, method="POST"))
    await local.call("run_workflow live")
    await local.ask("update_customer")
    await local.approve(extent="while")
    await local.call("update_customer")
    await local.call("update_customer", name="Acme Corporation")
    await local.ask("list mixed")
    await local.approve()
    world.sandbox.faults.add(Status(status=422, method="POST", path="*/users*"))
    await local.call("list mixed")
    await local.ask("delete_customer")
    await local.approve()
    await local.call("delete_customer")
    await local.call("create_customer", admin_email=None)
    await local.ask("update_workflow off")
    await local.approve()


async def test_outcomes_are_the_golden_ones(local: LocalPage) -> None:
    await decided_in_every_way(local)
    await local.show("Requests that ended in each way", "", ".rest")
    local.pages.check("decided")


async def test_activity_is_the_golden_one(local: LocalPage) -> None:
    await local.show("Nothing was asked for yet", "activity")
    await decided_in_every_way(local)
    await local.show("Calls that ended in each way", "activity", "#content")
    page = await local.visitor.look("activity")
    await local.show("A search for one customer", "activity?q=Acme", "#content")
    await local.show("A search without a result", "activity?q=nowhere&outcome=Done", "#content")
    rows = re.findall(r'href="[^"]+(activity\?entry=\d+)".*?<span class="effect \w+">([^<]+)', page)
    for outcome, link in {outcome: link for link, outcome in reversed(rows)}.items():
        await local.show(f"The first row that is {outcome!r}", link, "#content")
    local.pages.add("A change that does not exist", await local.visitor.look("activity?entry=999", 404), "#content")
    with local.world.audit_path.open("a") as log:
        log.write("damaged\n")
    await local.show("A damaged line", "activity?outcome=", ".gap")
    local.world.audit_path.unlink()
    local.world.audit_path.mkdir()
    await local.show("The log cannot be read", "activity", ".care", ".older")
    local.pages.check("activity")


async def test_undo_is_the_golden_one(local: LocalPage) -> None:
    await local.ask("update_customer")
    await local.approve()
    await local.call("update_customer")
    (link,) = re.findall(r'href="[^"]+/(undo\?[^"]+)"', await local.visitor.look())
    link = link.replace("&amp;", "&")
    await local.show("Before it", link)
    undo = await local.visitor.form("undo", place=link)
    await local.say("It needs an approval", await local.visitor.send("undo", undo))
    await local.show("Its request", "", "article")
    await local.say("It is approved", await local.approve())
    await local.say("It was undone before", await local.visitor.http.get(local.visitor.room + link))
    local.pages.check("undo")


# --- limits, stop and allow -------------------------------------------------------------------------------------------

RULES = (
    PROTECTING
    + """
[defaults]
trash = "four_eyes"
access = "out_of_band"

[budget]
external = 20
spend = 1
"""
)


async def test_limits_are_the_golden_ones(tmp_path: Path) -> None:
    pages = Pages()
    for mode in MODES:
        async with local_page(tmp_path / mode, Policy(mode, live=True)) as local:
            pages.add(f"Mode {mode}", await local.visitor.look("limits"), "h2", "table")
    policies = {"A test key": Policy(live=False), "A policy file": policy_from(tmp_path, RULES)}
    policies["A plan"] = Policy("unattended", plan=plan_of(planned("run_workflow", 20, targets=("wf_1",), line="11")))
    for title, policy in policies.items():
        async with local_page(tmp_path / title, policy) as local:
            pages.add(title, await local.visitor.look("limits"), "#content")
    async with local_page(tmp_path / "used") as local:
        await local.ask("invite_user")
        await local.decline()
        await local.ask("update_customer")
        await local.approve(extent="while")
        await local.call("update_customer")
        await local.ask("delete_customer")
        await local.approve()
        await local.call("delete_customer")
        pages.add("After a deletion, with a temporary approval", await local.visitor.look("limits"), "#content")
    pages.check("limits", {str(tmp_path): "<folder>"})


async def test_stop_and_allow_are_the_golden_ones(local: LocalPage) -> None:
    visitor = local.visitor
    await local.show("Nothing waits", "stop", "#content")
    await local.show("No changes are stopped", "allow", "#content")
    await local.ask("update_customer")
    await local.approve(extent="while")
    await local.call("update_customer")
    await local.ask("delete_secret")
    await local.approve()
    await local.ask("delete_customer")
    await local.show("A call, an approval and a temporary approval wait", "stop", "#content")
    form = await visitor.form("stop", place="stop")
    await local.say("The reason is too long", await visitor.send("stop", form | {"reason": "r" * 201}))
    form = await visitor.form("stop", place="stop")
    await visitor.look()
    await visitor.send("stop", form | {"reason": "the agent renames customers"})
    await local.show("Changes are stopped")
    allow = await visitor.form("allow", place="allow")
    await local.show("To allow them again", "allow")
    await visitor.send("allow", allow)
    await local.say("They were allowed before", await visitor.send("allow", allow))
    local.pages.check("stop")


# --- access and failures ----------------------------------------------------------------------------------------------


def text_of(address: str) -> str:
    """Return the text of a file by its address."""
    return Path(httpx2.URL(address).path).read_text(encoding="utf-8")


async def lost(*_: object) -> Any:
    raise LedgerLost("it is gone")


async def broken(*_: object) -> Any:
    raise RuntimeError("it is broken")


async def test_access_to_the_page_is_the_golden_one(local: LocalPage, monkeypatch: pytest.MonkeyPatch) -> None:
    url, key = await local.desk.key()
    file = key_file.write(local.desk.page_file.parent, url, key, local.world.timestamp)
    local.pages.add("The file that a browser opens", text_of(file))
    http = local.visitor.http
    local.pages.answer("Its key", await enter(http, url, key))
    local.pages.answer("The same key again", await enter(http, url, key))
    local.pages.answer("Another host", await http.get("/", headers={"Host": "evil.example"}))
    local.pages.answer("Another method", await http.put(local.visitor.room))
    elsewhere = await http.post(f"{local.visitor.room}approve", headers={"Origin": "https://evil.example"})
    local.pages.answer("A form of another page", elsewhere)
    monkeypatch.setattr(local.world.ledger, "waiting", lost)
    local.pages.answer("Without the ledger", await http.get(local.visitor.room))
    monkeypatch.setattr(local.world.ledger, "waiting", broken)
    local.pages.answer("An error of the page itself", await http.get(local.visitor.room))
    local.pages.check("access")


async def test_pages_of_the_trial_provider_are_the_golden_ones() -> None:
    issuer = TrialIssuer("http://127.0.0.1:9", NOW.timestamp).beside(Starlette())
    asked = {"response_type": "code", "code_challenge_method": "S256", "redirect_uri": "http://127.0.0.1:8/callback"}
    pages = Pages()
    transport = httpx2.ASGITransport(app=issuer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:9") as http:
        pages.answer("Somebody signs in", await http.get("/authorize", params=asked))
        away = asked | {"redirect_uri": "https://evil.example/callback"}
        pages.answer("They would return to another machine", await http.get("/authorize", params=away))
    pages.check("trial_provider")


def test_app_in_the_chat_is_the_golden_one() -> None:
    """Its script shows these parts and one of these sentences. tests/end_to_end/ has it in a browser."""
    app = (files("fastn_mcp") / "channels/page/static/approval_app.html").read_text(encoding="utf-8")
    pages = Pages()
    pages.add("Its parts", app.replace(" hidden>", ">"))
    states = app.partition("const SAYS = {")[2].partition("};")[0]
    pages.sections += [f"=== {state}\n\n{words}" for state, words in re.findall(r'(\w+): "(.+)"', states)]
    pages.check("chat")


# --- a team -----------------------------------------------------------------------------------------------------------

STEP_UP = """
[approvals.step_up]
effects = ["DESTROY"]
max_age_minutes = 5
acr_values = ["phr", "mfa"]
"""
GLOBEX = tenant("globex", subjects=["gil"], api_key_env="GLOBEX_KEY", mode="guarded")
TEAM = HEAD + PAGE + APPROVERS + STEP_UP + ACME_WITH_POLICY + GLOBEX
FOUR_EYES = '[defaults]\naccess = "four_eyes"\ndestroy = "typed"\n'


async def invite(team: ApprovalWorld, by: str = "anna") -> None:
    waits = await team.call("invite_user", claims={"sub": by}, email="kim@fastn.example", role="Operator")
    assert waits["status"] == "approval_required"


def team_places(team: ApprovalWorld) -> dict[str, str]:
    return {str(team.team.folder): "<folder>"}


async def test_sign_in_of_a_team_is_the_golden_one(tmp_path: Path) -> None:
    pages = Pages()
    async with serving(tmp_path, TEAM) as team, team.browser() as person:
        pages.answer("Nobody is signed in", await person.http.get("/approvals/"))
        pages.answer("No rule is about them", await person.sign_in("nobody"))
        pages.answer("No sign-in was begun here", await person.http.get("/approvals/callback?code=c&state=s"))
        back = await person.way_back("dana")
        pages.answer("Another sign-in was begun", await person.http.get(back.replace("state=", "state=x")))
        refused = re.sub(r"code=[^&]*", "error=access_denied", await person.way_back("dana"))
        pages.answer("The provider refuses", await person.http.get(refused))
        team.team.provider.lies = {"nonce": "another"}
        pages.answer("The token is of another sign-in", await person.sign_in("dana"))
        team.team.provider.lies = {}
        back = await person.way_back("dana")
        begun = person.http.cookies["__Host-fastn_sign_in"]
        await person.http.get(back)
        pages.add("Signed in", await person.look())
        pages.answer("Signed out", await person.send("logout", await person.form("logout")))
        person.http.cookies.set("__Host-fastn_sign_in", begun)
        pages.answer("The same sign-in again", await person.http.get(back))
    (tmp_path / "down").mkdir()
    async with serving(tmp_path / "down", TEAM) as team, team.browser() as person:
        team.team.provider.down = True
        pages.answer("The provider is down", await person.http.get("/approvals/login"))
    pages.check("team_sign_in")


async def test_page_of_a_team_is_the_golden_one(tmp_path: Path) -> None:
    pages = Pages()
    async with (
        serving(tmp_path, TEAM, FOUR_EYES) as team,
        team.browser("dana") as dana,
        team.browser("amir") as amir,
        team.browser("kim") as kim,
    ):
        await invite(team, by="amir")
        pages.add("Two people have to approve it", await dana.look(), "article")
        pages.add("One's own call", await amir.look(), ".decide")
        pages.add("One of two has approved", await after(dana, await dana.approve()), *MESSAGE, ".eyes", ".decide")
        pages.add("The second is asked", await kim.look(), ".eyes", ".decide")
        pages.add("Both have approved", await after(kim, await kim.approve()), *MESSAGE, ".rest")
        await team.call("invite_user", claims={"sub": "amir"}, email="kim@fastn.example", role="Operator")
        pages.add("Activity", await dana.look("activity"), "#content")
        (link,) = re.findall(r'href="[^"]+(activity\?[^"]*entry=\d+)"', await dana.look("activity"))
        pages.add("One change", await dana.look(link.replace("&amp;", "&")), "#content")
        pages.add("Limits", await dana.look("limits"), "#content")
    pages.check("team", team_places(team))


async def after(visitor: Visitor, answer: httpx2.Response) -> str:
    """Return the page to which a form leads."""
    return await visitor.look() if answer.status_code == 303 else answer.text


async def test_step_up_of_a_team_is_the_golden_one(tmp_path: Path) -> None:
    pages = Pages()
    async with serving(tmp_path, TEAM) as team, team.browser("dana") as dana:
        secrets = await team.call("list_secrets")
        await team.call("delete_secret", secret_id=secrets["data"][0]["id"])
        form = await dana.form("approve")
        name = re.findall(r"Type <kbd>(.+?)</kbd>", await dana.look())[0]
        team.wait(minutes=6)
        pages.add("The sign-in is too old", await dana.look(), ".by", ".decide")
        too_old = await dana.send("approve", {**form, "extent": "once", "name": name})
        pages.answer("It is approved all the same", too_old, *MESSAGE)
        link = re.findall(r'href="(/approvals/login\?request=[^"]+)"', await dana.look())[0]

        async def step_up(person: str) -> httpx2.Response:
            to = await dana.http.get(link)
            back = await team.provided(to.headers["location"], person)
            return await dana.http.get(httpx2.URL(back).raw_path.decode())

        pages.answer("Another person signs in", await step_up("kim"))
        team.signs_in = {"acr": "1"}
        pages.answer("The sign-in is too weak", await step_up("dana"))
        team.signs_in = {"auth_time": None}
        pages.answer("The provider does not say when they signed in", await step_up("dana"))
        team.signs_in = {}
        team.ago = 3960
        pages.answer("The provider did not ask again", await step_up("dana"))
    pages.check("team_step_up", team_places(team))


async def test_stop_of_a_team_is_the_golden_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages()
    async with (
        serving(tmp_path, TEAM) as team,
        team.browser("dana") as dana,
        team.browser("anna") as anna,
    ):
        pages.add("An approver", await dana.look("stop"), "#content")
        pages.add("A person who approves nothing of others", await anna.look("stop"), "#content")
        fields = await dana.form("stop", place="stop") | {"reason": "a sale", "tenant": "acme"}
        await dana.send("stop", fields)
        pages.add("One tenant is stopped", await dana.look(), ".bar", ".band")
        pages.add("To allow it again", await dana.look("allow"), "#content")
        pages.add("A person who cannot allow it again", await anna.look("allow"), "#content")
        ledger = team.team.opening.ledger
        monkeypatch.setattr(ledger, "holding", lost)
        pages.answer("Without the ledger", await dana.http.get("/approvals/"))
        monkeypatch.setattr(ledger, "holding", broken)
        transport = dana.http._transport  # pyright: ignore[reportPrivateUsage] - a server answers, and raises nothing
        monkeypatch.setattr(transport, "raise_app_exceptions", False)
        pages.answer("An error of the page itself", await dana.http.get("/approvals/"))
    pages.check("team_stop", team_places(team))


PAGES = (
    "access",
    "activity",
    "chat",
    "decided",
    "decline_several",
    "limits",
    "messages",
    "request",
    "request_states",
    "requests",
    "stop",
    "team",
    "team_sign_in",
    "team_step_up",
    "team_stop",
    "trial_provider",
    "undo",
)


def test_every_golden_page_is_of_a_test() -> None:
    check_no_other("pages", {f"{name}.txt" for name in PAGES})
