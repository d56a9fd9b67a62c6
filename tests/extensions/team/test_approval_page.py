"""The approval page of a team, in this process: access, visible requests and decisions."""

import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from support.approval_world import ACME_WITH_POLICY, PAGE, PEOPLE, SITE, ApprovalWorld, serving
from support.page_visitor import Visitor, words
from support.team_world import ALL, HEAD, META, TeamWorld, modern, request, tenant

from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.seal import Seal
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.runtime import System

FILE = (
    HEAD
    + PAGE
    + """
[[approvals.approver]]
groups = ["approvers"]
tenants = ["acme"]

[[approvals.approver]]
groups = ["globex-approvers"]
tenants = ["globex"]

[[approvals.approver]]
groups = ["juniors"]
effects = ["WRITE", "EXTERNAL"]
"""
    + ACME_WITH_POLICY
    + tenant("globex", subjects=["gil"], api_key_env="GLOBEX_KEY", mode="guarded")
)


def with_own(value: str) -> str:
    return FILE.replace("[approvals]\n", f"[approvals]\nown = {value}\n")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[ApprovalWorld]:
    async with serving(tmp_path, FILE) as made:
        yield made


@pytest.fixture
async def dana(world: ApprovalWorld) -> AsyncGenerator[Visitor]:
    async with world.browser("dana") as made:
        yield made


async def approve(visitor: Visitor) -> httpx2.Response:
    """Approve the request that is open, and type the name that it asks for."""
    (name,) = re.findall(r"Type (.+?) to confirm", await visitor.read())
    return await visitor.approve(name=name)


FOUR = '[[rule]]\ntool = "delete_customer"\nthen = "four_eyes"\n'


async def test_approved_call_is_sent_once(world: ApprovalWorld, dana: Visitor) -> None:
    waits = await world.delete()
    assert waits["status"] == "approval_required"
    assert f"A person has to approve at {SITE}/approvals/" in waits["message"]
    wrong = await dana.approve(name="globex")
    assert wrong.status_code == 422
    answer = await approve(dana)
    assert (answer.status_code, answer.headers["location"]) == (303, "/approvals/")
    assert ['id="said"' in await dana.look() for _ in range(2)] == [True, False]  # the message is shown once
    assert (await world.delete())["done"] == "delete_customer"
    (entry,) = world.audit("approved")
    assert entry["approver"] == f"{world.team.team.issuer}|dana"
    assert (entry["approver_name"], entry["approved_by"]) == ("Dana Example", "verified")
    assert world.audit("intent")[0]["approved_by"] == "verified"


async def test_audit_log_keeps_the_name_of_each_sign_in(world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = {"name": "Anna Example", "email": "anna@example.com"}
    dana = {**PEOPLE["dana"], "email": "dana@example.com"}
    monkeypatch.setitem(PEOPLE, "dana", dana)
    assert (await world.delete(name=anna["name"], email=anna["email"]))["status"] == "approval_required"
    async with world.browser("dana") as browser:
        page = await browser.read()
        assert "Signed in as Dana Example <dana@example.com>" in page
        assert "Requested by Anna Example <anna@example.com> (anna)" in page
        assert (await approve(browser)).status_code == 303
    monkeypatch.setitem(PEOPLE, "dana", {**dana, "name": "Dana Other", "email": "other@example.com"})
    done = await world.delete(name="Anna <kim@example.com> Married", email="married@example.com", email_verified=False)
    assert done["done"] == "delete_customer"
    assert done["receipt"]["approved_by"].endswith("Dana Example <dana@example.com> (dana), authenticated")
    issuer = world.team.team.issuer
    (approved,), (asked,), (intent,) = (world.audit(event) for event in ("approved", "asked", "intent"))
    assert (approved["approver"], approved["approver_name"]) == (f"{issuer}|dana", "Dana Example <dana@example.com>")
    for entry in (approved, asked):
        assert (entry["principal"], entry["principal_name"]) == (f"{issuer}|anna", "Anna Example <anna@example.com>")
    assert (intent["principal"], intent["principal_name"]) == (f"{issuer}|anna", "Anna kim@example.com Married")
    async with world.browser("dana") as browser:
        assert "Signed in as Dana Other <other@example.com>" in await browser.read()
    async with world.browser("kim") as browser:
        assert "by Dana Example <dana@example.com> (dana)" in await browser.read()


OPENS_URLS: dict[str, Any] = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}


async def test_client_that_opens_urls_leads_to_the_page_once(tmp_path: Path) -> None:
    """MCP, URL mode: the address holds neither a key nor the request, since whoever opens it signs in."""
    async with serving(tmp_path, with_own("true")) as world:
        tool, token = "create_secret", world.team.provider.token(sub="anna", scope=ALL)

        async def call(**more: Any) -> dict[str, Any]:
            asked = request(tool, {"name": "STRIPE_KEY"}, _meta=OPENS_URLS)
            asked["params"] |= more
            return (await world.caller.ask(token, asked, **modern(tool))).json()["result"]

        led = await call()
        assert led["resultType"] == "input_required"
        params = led["inputRequests"]["page"]["params"]
        assert (params["mode"], params["url"]) == ("url", f"{SITE}/approvals/")
        assert params["message"].startswith('Store secret "STRIPE_KEY". You enter its value.')
        for action in ("accept", "decline", "cancel"):
            waits = await call(inputResponses={"page": {"action": action}})
            assert waits["structuredContent"]["status"] == "approval_required"
        assert world.audit("approved") == []


async def test_request_is_decided_at_another_replica(tmp_path: Path) -> None:
    policy = '[defaults]\ndestroy = "confirm"\n'
    async with serving(tmp_path, FILE, policy) as one, serving(tmp_path, FILE, policy, one.clock) as other:
        assert (await one.delete())["status"] == "approval_required"
        async with one.browser() as here, other.browser("dana") as there:
            here.http.cookies = there.http.cookies
            form = await here.form("approve") | {"extent": "once"}
            assert (await there.send("approve", form)).status_code == 303
            assert (await here.send("approve", form)).status_code == 403


async def test_requester_approves_own_deletion_on_the_page_only_if_the_team_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    async with serving(tmp_path / "yes", with_own("true")) as world:
        await world.delete()
        async with world.browser("anna") as anna:
            assert (await approve(anna)).status_code == 303
    async with serving(tmp_path, FILE) as world:
        assert "Somebody other than the requester" in (await world.delete())["message"]
        async with world.browser("anna") as anna:
            assert "This is your own call, and somebody else has to approve it." in await anna.read()
            fields = await anna.form("decline")
            assert (await anna.send("approve", fields | {"extent": "once"})).status_code == 403
        assert world.audit("approved") == []


async def test_requester_who_may_approve_nothing_of_their_own_has_no_page(tmp_path: Path) -> None:
    async with serving(tmp_path, with_own("false")) as world:
        await world.delete(by="amir")
        async with world.browser("amir") as amir:
            assert "This is your own call, and somebody else has to approve it." in await amir.read()
            fields = await amir.form("decline")
            assert (await amir.send("approve", fields | {"extent": "once"})).status_code == 403
        async with world.browser() as anna:
            assert (await anna.sign_in("anna")).status_code == 403


async def test_four_eyes_needs_two_people_besides_the_requester(tmp_path: Path) -> None:
    """The requester's vote does not count, and one approver's counts once."""
    async with serving(tmp_path, FILE, FOUR) as world:
        waits = await world.delete(by="amir")
        assert "2 people other than the requester have to approve this call. Approvals so far: 0." in waits["message"]
        async with world.browser("amir") as amir, world.browser("dana") as dana, world.browser("kim") as kim:
            name = re.findall(r"Type (.+?) to confirm", await dana.read())[0]
            token = (await dana.form("approve"))["token"]
            assert "This is your own call, and other people have to approve it." in await amir.read()
            own = await amir.form("decline")
            assert (await amir.send("approve", own | {"extent": "once", "name": name})).status_code == 403
            # A form is bound to one person and one action.
            stolen = own | {"token": token, "extent": "once", "name": name}
            assert (await amir.send("approve", stolen)).status_code == 403
            assert (await dana.approve(name=name)).status_code == 303
            twice = await dana.form("decline")
            assert "You have already approved. One more person has to approve." in await dana.read()
            assert (await dana.send("approve", twice | {"extent": "once", "name": name})).status_code == 403
            async with world.browser("dana") as elsewhere:  # another sign-in of the same person
                assert "You have already approved. One more person has to approve." in await elsewhere.read()
            assert "have to approve this call. Approvals so far: 1" in (await world.delete(by="amir"))["message"]
            assert "Approvals so far: 1 (Dana Example (dana))" in await kim.read()
            assert (await approve(kim)).status_code == 303
            assert "by Dana Example (dana) and you" in await kim.read()
            assert (await world.delete(by="amir"))["done"] == "delete_customer"
        assert [entry["approver_name"] for entry in world.audit("approved")] == ["Dana Example", "Kim Example"]
        assert world.audit("intent")[0]["approved_by"] == "four_eyes"


MACHINES_SIGN_INS: dict[str, dict[str, Any]] = {
    "a subject of a machine": {"sub": "f3a1"},
    "the page's own client": {"sub": "page"},
    "a client of a machine": {"sub": "nightly-agent@clients"},
    "Keycloak's service account of a machine": {"sub": "1", "preferred_username": "service-account-nightly-agent"},
    "client credentials": {"sub": "1", "gty": "client-credentials"},
}


async def test_machine_does_not_sign_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = '\n[[machine]]\nname = "nightly"\ntenant = "acme"\n'
    text = f'{FILE}{machine}subjects = "f3a1"\n{machine.replace("nightly", "agent")}client_id = "nightly-agent"\n'
    refusal = "The sign-in of a machine was refused: only people approve. Nothing was approved."
    async with serving(tmp_path, text) as world, world.browser() as browser:
        for which, claims in MACHINES_SIGN_INS.items():
            monkeypatch.setitem(PEOPLE, "machine", {"groups": ["approvers"], **claims})
            answer = await browser.sign_in("machine")
            assert (answer.status_code, refusal in words(answer.text)) == (403, True), which


async def test_subject_that_is_entras_oid_is_a_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An access token of Entra without `scp` is an application's; an ID token never has it."""
    text = FILE.replace('client_id = "page"\n', 'client_id = "page"\nsubject_claim = "oid"\n', 1)
    monkeypatch.setitem(PEOPLE, "dana", {**PEOPLE["dana"], "oid": "dana"})
    async with serving(tmp_path, text) as world, world.browser("dana") as dana:
        assert "Signed in as Dana Example" in await dana.read()


async def test_person_whose_chosen_name_is_a_machines_subject_signs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines are recognised by the issuer's `sub`. Another claim may be chosen by who signs in."""
    text = FILE.replace('client_id = "page"\n', 'client_id = "page"\nsubject_claim = "nickname"\n', 1)
    text += '\n[[machine]]\nname = "nightly"\ntenant = "acme"\nsubjects = "f3a1"\n'
    monkeypatch.setitem(PEOPLE, "dana", {**PEOPLE["dana"], "nickname": "f3a1"})
    async with serving(tmp_path, text) as world, world.browser("dana") as dana:
        assert "Signed in as Dana Example" in await dana.read()


async def test_requests_of_others_are_invisible(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    grant = (await dana.form("approve"))["grant"]
    for person in ("gina", "jun", "both"):
        async with world.browser(person) as other:
            assert "Nothing is waiting for you" in await other.read()
            answer = await other.send("approve", {"grant": grant, "token": "x.y", "extent": "once"})
            assert answer.status_code == 403
    assert "1 request waiting" in await dana.read()


async def test_approver_sees_the_activity_of_their_tenants_only(world: ApprovalWorld) -> None:
    """By no address of a row either, and effects that their rule does not cover are as invisible as its requests."""
    await world.delete()
    (asked,) = world.audit("asked")
    rows = {"dana": "Waiting Delete customer Globex", "anna": "Waiting Delete customer Globex", "gina": "", "jun": ""}
    for person, row in rows.items():
        async with world.browser(person) as browser:
            page = words((await browser.http.get("/approvals/activity")).text)
            assert ("Delete customer Globex" in page, "No changes yet" in page) == (bool(row), not row), person
            for query in (f"entry={asked['n']}", f"tenant=acme&entry={asked['n']}", "q=Globex", "tenant=acme"):
                text = words((await browser.http.get(f"/approvals/activity?{query}")).text)
                assert ("Delete customer Globex" in text) == bool(row), (person, query)


async def test_activity_names_who_asked_and_who_approved(world: ApprovalWorld) -> None:
    await world.delete()
    async with world.browser("dana") as dana, world.browser("amir") as amir:
        assert (await approve(dana)).status_code == 303
        assert (await world.delete())["done"] == "delete_customer"
        page = words((await dana.http.get("/approvals/activity")).text)
        assert "approved by you" in page
        assert "approved by Dana Example (dana)" in words((await amir.http.get("/approvals/activity")).text)


async def test_limits_of_a_team_are_those_of_a_tenant_of_ones_own(world: ApprovalWorld) -> None:
    await world.delete()
    async with world.browser("gina") as gina, world.browser("both") as both:
        page = words((await gina.http.get("/approvals/limits")).text)
        assert "in tenant globex" in page
        assert (await gina.http.get("/approvals/limits?tenant=acme")).status_code == 404
        page = (await both.http.get("/approvals/limits?tenant=acme")).text
        assert "<option selected>acme</option><option>globex</option>" in page
        assert "in tenant acme" in words(page)


async def place_form(visitor: Visitor, place: str) -> dict[str, str]:
    page = (await visitor.http.get(f"/approvals/{place}")).text
    match = re.search(rf'<form[^>]*action="/approvals/{place}".*?</form>', page, re.DOTALL)
    assert match is not None, words(page)
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', match[0]))


async def test_change_in_the_journal_alone_is_seen_by_who_may_decide_its_highest_effect(
    world: ApprovalWorld, dana: Visitor
) -> None:
    """The journal has the changes of other replicas, without the effect to which their arguments raised them."""
    invite = partial(world.call, "create_customer", name="Initech", admin_email="boss@example.com")
    assert (await invite())["status"] == "approval_required"
    await dana.approve()
    assert (await invite())["done"] == "create_customer"
    (world.team.folder / "tenants" / "acme" / "audit.jsonl").unlink()
    async with world.browser("jun") as jun:
        pages = [words((await each.http.get("/approvals/activity")).text) for each in (dana, jun)]
    assert ["Initech" in page for page in pages] == [True, False]


async def test_approver_stops_and_allows_the_changes_of_their_tenants(world: ApprovalWorld) -> None:
    await world.delete()
    async with world.browser("dana") as dana, world.browser("gina") as gina:
        assert (await dana.send("stop", await place_form(dana, "stop") | {"reason": "a sale"})).status_code == 303
        refused = await world.delete()
        assert (refused["outcome"], "a sale" in refused["message"]) == ("stopped", True)
        assert (await world.delete(by="gil"))["status"] == "approval_required"  # of globex
        page = await dana.read()
        assert "the changes of the tenant" in page
        assert "Dana Example" in page
        assert "Changes of" not in words((await gina.http.get("/approvals/activity")).text)
        assert "No changes are stopped" in words((await gina.http.get("/approvals/allow")).text)
        voided, entry = world.audit("stopped")
        assert (voided["tool"], entry["tool"]) == ("delete_customer", "stop")
        assert "Dana Example" in entry["principal"]
        allow = await place_form(dana, "allow")
        assert (await gina.send("allow", allow)).status_code == 403
        assert (await dana.send("allow", allow)).status_code == 303
        assert (await world.delete())["status"] == "approval_required"
    assert "Dana Example" in world.audit("allowed_again")[0]["principal"]


async def test_approver_is_not_said_to_have_stopped_what_they_approved(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    async with world.browser("kim") as kim:
        await approve(kim)
        assert (await dana.send("stop", await place_form(dana, "stop"))).status_code == 303
        for visitor in (dana, kim):
            assert "Stopped Delete customer Globex Exports just now , by Dana Example (dana)" in await visitor.read()


async def test_stop_of_an_approver_holds_after_the_operator_lifts_theirs(world: ApprovalWorld, dana: Visitor) -> None:
    ledger = world.team.opening.ledger
    operators = Stop("s1", world.now, "a person at the terminal", tenant="acme")
    await ledger.add_stop(operators)
    assert 'name="stop"' not in await dana.look("allow")
    assert (await dana.send("stop", await place_form(dana, "stop"))).status_code == 303
    await ledger.lift_stop(operators.lift("a person at the terminal", world.now))
    assert (await world.delete())["outcome"] == "stopped"
    assert (await dana.send("allow", await place_form(dana, "allow"))).status_code == 303
    assert (await world.delete())["status"] == "approval_required"


async def test_tenant_of_others_cannot_be_stopped(world: ApprovalWorld) -> None:
    for person, name in (("gina", "acme"), ("dana", "globex"), ("dana", "nowhere")):
        async with world.browser(person) as browser:
            answer = await browser.send("stop", await place_form(browser, "stop") | {"tenant": name})
        assert (answer.status_code, await world.team.opening.ledger.stops()) == (403, [])
        assert "Nothing was stopped: you may not stop these changes." in answer.text


async def test_person_without_a_rule_for_approvers_cannot_stop_or_allow(world: ApprovalWorld) -> None:
    async with world.browser("dana") as dana, world.browser("anna") as anna:
        assert 'action="/approvals/stop"' not in await anna.look("stop")
        assert (await dana.send("stop", await place_form(dana, "stop"))).status_code == 303
        assert 'name="stop"' not in await anna.look("allow")


async def test_page_requires_a_valid_session(world: ApprovalWorld) -> None:
    await world.delete()
    async with world.browser("dana") as dana, world.browser() as other:
        form = await dana.form("approve") | {"extent": "once"}
        cookie = dana.http.cookies["__Host-fastn_session"]
        for forged in (None, "x", cookie[:-4] + "AAA=", cookie[:60] + "BA"[cookie[60] == "B"] + cookie[61:]):
            other.http.cookies.clear()
            if forged is not None:
                other.http.cookies.set("__Host-fastn_session", forged)
            for path in (
                "",
                "now",
                "events",
                "approve",
                "activity",
                "activity?tenant=acme&entry=1",
                "limits",
                "whatever",
            ):
                assert (await other.http.get(f"/approvals/{path}")).status_code == 403
            closed = await other.send("approve", form)
            assert closed.status_code == 403
            assert "Sign in to decide" in closed.text
            assert "Globex" not in closed.text
        assert (await dana.send("logout", await dana.form("logout"))).status_code == 200
        other.http.cookies.set("__Host-fastn_session", cookie)  # a copied cookie
        assert (await other.http.get("/approvals/")).status_code == 403
    async with world.browser("dana") as dana:
        world.wait(seconds=3601)
        assert (await dana.http.get("/approvals/")).status_code == 403
    assert not world.audit("approved")


OTHER_VERSIONS: list[Callable[[dict[str, Any]], Any]] = [
    lambda stored: {**stored, "device": "d"},
    lambda stored: {**stored, "person": {**stored["person"], "rank": 1}},
    lambda stored: {**stored, "person": {"subject": "dana"}},
    lambda stored: {**stored, "ends": "tomorrow"},
    lambda stored: {"id": stored["id"]},
    lambda stored: [stored],
    lambda _: None,
]


@pytest.mark.parametrize("other_version", OTHER_VERSIONS)
async def test_session_of_another_version_leads_to_the_sign_in(
    world: ApprovalWorld, other_version: Callable[[dict[str, Any]], Any], dana: Visitor
) -> None:
    seal = Seal(["s" * 32], System(now=lambda: world.clock[0]))
    stored = seal.open("session", dana.http.cookies["__Host-fastn_session"], 60)
    dana.http.cookies.clear()
    for name, purpose in (("session", "session"), ("sign_in", "sign-in")):
        dana.http.cookies.set(f"__Host-fastn_{name}", seal.close(purpose, other_version(stored)))
    for path in ("", "callback?code=c&state=s"):
        answer = await dana.http.get(f"/approvals/{path}")
        assert (answer.status_code, "/approvals/login" in answer.text) == (403, True)
    dana.http.cookies.delete("__Host-fastn_sign_in")
    assert (await dana.sign_in("dana")).status_code == 303


async def test_decisions_need_a_post_from_the_page(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    form = await dana.form("approve") | {"extent": "once"}
    for origin in ("https://evil.example", "null", f"{SITE}:444", "https://app.example.com"):
        assert (await dana.send("approve", form, Origin=origin)).status_code == 403
    assert (await dana.http.post("/approvals/approve", data=form)).status_code == 403
    assert (await dana.http.get("/approvals/approve", params=form)).status_code == 303
    assert (await dana.http.get("/approvals/", headers={"Host": "evil.example"})).status_code == 421
    without = {name: value for name, value in form.items() if name != "token"}
    assert (await dana.send("approve", without)).status_code == 403
    headers = (await dana.http.get("/approvals/")).headers
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert not world.audit("approved")


async def test_cookies_are_limited_to_this_host(world: ApprovalWorld) -> None:
    async with world.browser() as dana:
        back = await dana.way_back("dana")
        answer = await dana.http.get(back)
        kept = [line for line in answer.headers.get_list("set-cookie") if "session" in line]
        (cookie,) = kept
        assert cookie.startswith("__Host-fastn_session=")
        for part in ("HttpOnly", "Path=/", "SameSite=lax", "Secure", "Max-Age=3600"):
            assert part in cookie
        assert answer.headers["location"] == "/approvals/"
        assert not re.search(r"eyJ[A-Za-z0-9_-]{8,}\.", (await dana.http.get("/approvals/")).text)


async def test_sign_in_is_bound_to_a_browser_and_single_use(world: ApprovalWorld) -> None:
    """RFC 6749, 10.12. A wrong state, no pending sign-in, a reused code, another issuer, an error."""
    async with world.browser() as dana, world.browser() as victim:
        back = await dana.way_back("dana")
        begun = dana.http.cookies["__Host-fastn_sign_in"]
        assert (await victim.http.get(back)).status_code == 403  # it began no sign-in
        await victim.way_back("kim")
        refused = await victim.http.get(back)  # it began another sign-in
        assert refused.status_code == 403
        assert "This sign-in was not started in this browser." in words(refused.text)
        assert (await dana.http.get(back)).status_code == 303
        dana.http.cookies.clear()
        dana.http.cookies.set("__Host-fastn_sign_in", begun)
        assert (await dana.http.get(back)).status_code == 403  # the code again
        for change in (("iss=", "iss=x"), ("code=", "error=x&no="), ("code=", "state=x&code=")):
            other = (await dana.way_back("dana")).replace(*change)
            assert (await dana.http.get(other)).status_code == 403
            assert "__Host-fastn_session" not in dana.http.cookies
        world.wait(seconds=601)
        late = await dana.way_back("dana")
        world.wait(seconds=601)
        assert (await dana.http.get(late)).status_code == 403


LIES: dict[str, dict[str, Any]] = {
    "of another sign-in": {"nonce": "another"},
    "without a nonce": {"nonce": None},
    "for another client": {"aud": "an-ide"},
    "for two, and issued to the other": {"aud": ["page", "an-ide"], "azp": "an-ide"},
    "for two": {"aud": ["page", "an-ide"]},
    "issued to another": {"azp": "an-ide"},
    "of another issuer": {"iss": "https://evil.example"},
    "expired": {"exp": 1000},
    "without a time": {"iat": None},
    "without a subject": {"sub": None},
}


async def test_id_token_of_another_sign_in_is_rejected(world: ApprovalWorld) -> None:
    """OpenID Connect Core, 3.1.3.7."""
    async with world.browser() as dana:
        for lie, claims in LIES.items():
            world.team.provider.lies = claims
            answer = await dana.sign_in("dana")
            assert (answer.status_code, "could not be verified" in answer.text) == (403, True), lie
            assert "__Host-fastn_session" not in dana.http.cookies


async def test_person_without_approver_rule_gets_no_session(world: ApprovalWorld) -> None:
    async with world.browser() as browser:
        answer = await browser.sign_in("nobody")
        assert answer.status_code == 403
        assert "__Host-fastn_session" not in browser.http.cookies


async def test_unusable_provider_rejects_sign_ins(world: ApprovalWorld) -> None:
    async with world.browser() as browser:
        for odd in ("https://login.example.com/\0", "http://login.example.com", None):
            world.team.provider.metadata = {"authorization_endpoint": odd}
            assert (await browser.http.get("/approvals/login")).status_code == 503
        world.team.provider.metadata = {"subject_types_supported": ["pairwise"]}
        assert (await browser.http.get("/approvals/login")).status_code == 503
        world.team.provider.metadata, world.team.provider.down = {}, True
        assert (await browser.http.get("/approvals/login")).status_code == 503


async def test_sign_in_makes_at_most_one_token_request(world: ApprovalWorld) -> None:
    """An anonymous visitor cannot make us flood the provider with our own credentials."""
    async with world.browser() as stranger:
        good = await stranger.way_back("dana")
        begun = stranger.http.cookies["__Host-fastn_sign_in"]
        refusals: list[httpx2.Response] = []
        for number in range(3):
            stranger.http.cookies.set("__Host-fastn_sign_in", begun, "fastn-mcp.example.com", "/")
            refusals.append(await stranger.http.get(re.sub(r"code=[^&]*", f"code=guessed-{number}", good)))
    assert {refused.status_code for refused in refusals} == {403}
    assert "This sign-in was already used." in words(refusals[-1].text)
    asked = [path for path in world.team.provider.asked if path.endswith("/token")]
    assert len(asked) == 1


async def test_discovery_is_cached_across_sign_ins(world: ApprovalWorld) -> None:
    discovery = "/realms/team/.well-known/openid-configuration"

    async def begin(statuses: list[int]) -> None:
        async with world.browser() as stranger:
            statuses.append((await stranger.http.get("/approvals/login")).status_code)

    async def crowd() -> tuple[list[int], int]:
        asked, statuses = world.team.provider.asked.count(discovery), list[int]()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(begin, statuses)
        return statuses, world.team.provider.asked.count(discovery) - asked

    world.team.provider.down = True
    assert await crowd() == ([503] * 10, 1)
    world.team.provider.down = False
    assert await crowd() == ([303] * 10, 1)
    assert await crowd() == ([303] * 10, 0)


async def test_page_requires_a_state_secret(tmp_path: Path) -> None:
    environment = {"ACME_KEY": "fsk_test_1", "GLOBEX_KEY": "fsk_test_2", "PAGE_SECRET": "egap"}
    (tmp_path / "policy.toml").write_text("")
    team = TeamWorld(tmp_path, FILE, environment=environment)
    with pytest.raises(SettingsError, match=r"has \[approvals\], but state_secret, which seals sign-ins, is not set"):
        async with team.served():
            pass


WITH_SECURITY = FILE.replace(
    '[[approvals.approver]]\ngroups = ["globex-approvers"]',
    '[[approvals.approver]]\ngroups = ["security"]\ntenants = ["acme"]\n\n[[approvals.approver]]\ngroups ='
    ' ["globex-approvers"]',
)


OF_CHAT = '[[rule]]\nwho = { client = "chat-7" }\nthen = "four_eyes"\n'


async def test_approval_for_one_client_does_not_serve_one_with_a_stricter_rule(tmp_path: Path) -> None:
    async with serving(tmp_path, FILE, OF_CHAT) as world:
        await world.delete(by="amir")
        async with world.browser("dana") as browser:
            assert (await approve(browser)).status_code == 303
        assert (await world.delete(by="amir", azp="chat-7"))["outcome"] == "target_changed"
        assert (await world.delete(by="amir", azp="chat-7"))["status"] == "approval_required"
        assert world.audit("intent") == []


async def test_changed_team_file_counts_for_who_is_signed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who approves, and whom a tenant serves."""
    monkeypatch.setitem(PEOPLE, "sam", {"sub": "sam", "name": "Sam Example", "groups": ["security"]})
    changed = FILE.replace('subjects = ["anna", "amir"]', 'subjects = ["amir"]')
    async with (
        serving(tmp_path, WITH_SECURITY, FOUR) as before,
        before.browser("sam") as sam,
        before.browser("anna") as anna,
        serving(tmp_path, changed, FOUR, before.clock) as after,
        after.browser() as later,
    ):
        assert (await before.delete(by="anna"))["status"] == "approval_required"
        for person in (sam, anna):
            assert "acme" in await person.read()
            later.http.cookies = person.http.cookies
            assert "acme" not in await later.read()
