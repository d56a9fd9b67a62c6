"""Step-up: calls with effects that the team file names are approved only after a recent and strong sign-in.

The provider of these tests can misbehave. tests/extensions/team/test_step_up_browser.py has the certified one, in a
browser.
"""

import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic_core import from_json
from support.approval_world import ACME_WITH_POLICY, APPROVERS, PAGE, PEOPLE, SITE, ApprovalWorld, serving
from support.command_line import run_command
from support.page_visitor import Visitor, words
from support.team_world import ALL, HEAD, META, tenant, written
from support.webhook_world import approvers_file, public, signed_approval

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.build.stores import ledger_at
from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.team.team_config import load_team
from fastn_mcp.guard.approval.votes import TerminalApprovals

AT = f"{SITE}/approvals/"
STEP_UP = """
[approvals.step_up]
effects = ["DESTROY", "ACCESS"]
max_age_minutes = 5
acr_values = ["phr", "mfa"]
"""
NEEDS = 'a sign-in at most 5 minutes old, by "phr" or "mfa"'
ELSEWHERE = f"Approving it needs {NEEDS}, at {AT} and nowhere else."
FILE = HEAD + PAGE + APPROVERS + STEP_UP
OWN_KEYS = tenant("own", claims={"tier": "own"}, caller_keys=True, mode="guarded")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[ApprovalWorld]:
    async with serving(tmp_path, FILE + ACME_WITH_POLICY) as made:
        yield made


@pytest.fixture
async def dana(world: ApprovalWorld) -> AsyncGenerator[Visitor]:
    async with world.browser("dana") as made:
        yield made


async def way_back(world: ApprovalWorld, visitor: Visitor, person: str, link: str = "") -> str:
    """Follow the link of the request that waits to the provider, and return the path of the callback."""
    if not link:
        page = (await visitor.http.get("/approvals/")).text
        (link,) = re.findall(r'href="(/approvals/login\?request=[^"]+)"', page)
    to = await visitor.http.get(link)
    assert to.status_code == 303
    return (await world.provided(to.headers["location"], person)).removeprefix(SITE)


async def step_up(world: ApprovalWorld, visitor: Visitor, person: str) -> httpx2.Response:
    return await visitor.http.get(await way_back(world, visitor, person))


async def approve(visitor: Visitor, name: str = "Globex Exports") -> httpx2.Response:
    return await visitor.approve(name=name)


async def name_of(visitor: Visitor) -> str:
    (name,) = re.findall(r"Type (.+?) to confirm", await visitor.read())
    return name


async def test_call_is_approved_after_signing_in_again(world: ApprovalWorld) -> None:
    waits = await world.delete()
    assert f"{ELSEWHERE} A person has to approve at {AT}, where approvers sign in." in waits["message"]
    async with world.browser("dana") as dana:
        assert "max_age" not in world.heard[0]
        world.wait(minutes=6)
        assert f"Approving it needs {NEEDS}".replace('"', "") in " ".join((page := await dana.read()).split())
        assert "Type " not in page
        assert "Sign in again to approve" in page
        back = await step_up(world, dana, "dana")
        assert back.status_code == 303
        assert re.fullmatch(r"/approvals/\?request=[\w-]+", back.headers["location"])
        asked = world.heard[1]
        assert (asked["max_age"], asked["acr_values"], asked["prompt"]) == ("300", "phr mfa", "login")
        assert {"state", "nonce", "code_challenge"} <= asked.keys()
        assert "claims" not in asked
        # Coming back approves nothing.
        assert (await world.delete())["status"] == "approval_required"
        assert (await approve(dana, await name_of(dana))).status_code == 303
    assert (await world.delete())["done"] == "delete_customer"
    (approved,) = world.audit("approved")
    assert (approved["auth_time"], approved["acr"]) == (world.now, "phr")


async def test_effects_that_the_file_does_not_name_need_none(world: ApprovalWorld, dana: Visitor) -> None:
    workflow = (await world.call("list_workflows"))["data"][0]["id"]
    waits = await world.call("delete_workflow", workflow_id=workflow)
    assert "Approving it needs" not in waits["message"]
    world.wait(minutes=9)
    assert "sign-in" not in await dana.read()
    assert (await dana.approve()).status_code == 303
    assert (await world.call("delete_workflow", workflow_id=workflow))["done"] == "delete_workflow"


async def test_declining_needs_none(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    world.wait(minutes=6)
    answer = await dana.send("decline", {**await dana.form("decline"), "note": "no"})
    assert answer.status_code == 303
    assert (await world.delete())["outcome"] == "declined"


async def test_sign_in_that_grows_old_on_the_page_approves_nothing(world: ApprovalWorld, dana: Visitor) -> None:
    """The form was shown while the sign-in was fresh enough. What was typed is asked for again."""
    await world.delete()
    form, name = await dana.form("approve"), await name_of(dana)
    world.wait(minutes=5, seconds=31)
    answer = await dana.send("approve", {**form, "extent": "once", "name": name})
    assert answer.status_code == 403
    assert "Nothing was approved: your sign-in is too old or too weak." in words(answer.text)
    assert "Sign in again to approve" in words(answer.text)
    assert (await world.delete())["status"] == "approval_required"


async def test_recent_and_strong_sign_in_needs_no_other(world: ApprovalWorld, dana: Visitor) -> None:
    """Clocks may differ by the leeway."""
    await world.delete()
    name = await name_of(dana)
    world.wait(minutes=5, seconds=30)
    assert (await approve(dana, name)).status_code == 303
    assert (await world.delete())["done"] == "delete_customer"


MISBEHAVING: dict[str, tuple[dict[str, Any], int, str]] = {
    "leaves out auth_time": ({"auth_time": None}, 0, "the ID token has no auth_time. Tell the operator"),
    "text for auth_time": ({"auth_time": "now"}, 0, "the ID token has no auth_time"),
    "true for auth_time": ({"auth_time": True}, 0, "the ID token has no auth_time"),
    "ignores max_age": ({}, 3960, "you last did 66 minutes ago, and this needs"),
    "auth_time of tomorrow": ({}, -86_400, "a clock is wrong"),
    "no acr": ({"acr": None}, 0, "the ID token has no acr and no amr"),
    "another acr": ({"acr": "1"}, 0, 'acr and amr are "1"'),
    "another amr": ({"acr": "0", "amr": ["pwd", 7]}, 0, 'acr and amr are "0 pwd"'),
    "acr of a part": ({"acr": "phrx"}, 0, 'acr and amr are "phrx"'),
}


async def test_provider_that_does_not_say_so_is_refused_with_the_reason(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    world.wait(minutes=6)
    for case, (claims, ago, why) in MISBEHAVING.items():
        world.signs_in, world.ago = claims, ago
        answer = await step_up(world, dana, "dana")
        assert answer.status_code == 403
        assert why in words(answer.text), case
        assert "Nothing was approved" in words(answer.text)
        page = await dana.read()
        assert "Signed in as Dana Example" in page
        assert "Sign in again to approve" in page
    assert (await world.delete())["status"] == "approval_required"


@pytest.mark.parametrize("claims", [{"acr": "0", "amr": ["pwd", "mfa"]}, {"acr": None, "amr": "mfa"}])
async def test_amr_counts_as_well(claims: dict[str, Any], world: ApprovalWorld) -> None:
    world.signs_in = claims
    await world.delete()
    async with world.browser("dana") as dana:
        assert (await approve(dana, await name_of(dana))).status_code == 303


async def test_contexts_of_entra_are_requested_by_their_parameter(tmp_path: Path) -> None:
    text = FILE.replace('acr_values = ["phr", "mfa"]', 'acr_values = "c2"')
    async with serving(tmp_path, text + ACME_WITH_POLICY) as world:
        await world.delete()
        world.signs_in = {"acr": None}
        async with world.browser("dana") as dana:
            world.signs_in["acrs"] = ["c1", "c2"]
            await step_up(world, dana, "dana")
            assert from_json(world.heard[-1]["claims"]) == {"id_token": {"acrs": {"essential": True, "value": "c2"}}}
            assert (await approve(dana, await name_of(dana))).status_code == 303


async def test_another_person_cannot_step_up(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    world.wait(minutes=6)
    answer = await step_up(world, dana, "kim")
    assert answer.status_code == 403
    page = await dana.read()
    assert "Signed in as Dana Example" in page
    assert "Sign in again to approve" in page


async def test_callback_works_once(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    world.wait(minutes=6)
    before = world.http(dict(dana.http.cookies))
    back = await way_back(world, dana, "dana")
    during = world.http(dict(dana.http.cookies))
    assert (await dana.http.get(back)).status_code == 303
    for http in (dana.http, before):
        assert (await http.get(back)).status_code == 403
    # The cookie from before is the old sign-in still.
    assert "Sign in again to approve" in words((await before.get("/approvals/")).text)
    replayed = await during.get(back)
    assert replayed.status_code == 403
    assert "This sign-in was already used." in words(replayed.text)


async def test_session_that_changed_in_another_tab_is_not_stepped_up(world: ApprovalWorld) -> None:
    await world.delete()
    async with world.browser("dana") as dana, world.browser("kim") as kim:
        world.wait(minutes=6)
        back = await way_back(world, dana, "dana")
        session = next(name for name in dana.http.cookies if name.endswith("fastn_session"))
        dana.http.cookies.delete(session)
        dana.http.cookies.set(session, kim.http.cookies[session], domain="fastn-mcp.example.com", path="/")
        answer = await dana.http.get(back)
        assert answer.status_code == 403
        assert "Your session on this page has ended. Nothing was approved." in words(answer.text)
        assert "Signed in as Kim Example" in (page := await dana.read())
        assert "Sign in again to approve" in page


async def test_session_that_ended_in_another_tab_is_not_opened_again(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    world.wait(minutes=6)
    back = await way_back(world, dana, "dana")
    assert (await dana.send("logout", await dana.form("logout"))).status_code == 200
    answer = await dana.http.get(back)
    assert answer.status_code == 403
    assert "Your session on this page has ended." in words(answer.text)
    assert (await dana.http.get("/approvals/")).status_code == 403


async def test_forms_of_other_tabs_stay_valid(world: ApprovalWorld, dana: Visitor) -> None:
    await world.delete()
    world.wait(minutes=6)
    form = await dana.form("decline")
    assert (await step_up(world, dana, "dana")).status_code == 303
    assert (await dana.send("decline", form)).status_code == 303


async def test_request_of_the_address_leads_nowhere_else(world: ApprovalWorld, dana: Visitor) -> None:
    """What comes back is a parameter of the page, whatever the link said."""
    link = "/approvals/login?request=//evil.example/%0d%0aSet-Cookie:x=1%26next=https://evil.example"
    back = await dana.http.get(await way_back(world, dana, "dana", link))
    assert back.headers["location"].startswith("/approvals/?request=%2F%2Fevil.example%2F%0D%0A")
    assert "x" not in back.cookies


async def test_each_of_two_people_signs_in_again(tmp_path: Path) -> None:
    async with serving(tmp_path, FILE + ACME_WITH_POLICY, '[defaults]\ndestroy = "four_eyes"\n') as world:
        await world.delete()
        async with world.browser("dana") as dana, world.browser("kim") as kim:
            name = await name_of(dana)
            assert (await approve(dana, name)).status_code == 303
            world.wait(minutes=6)
            assert "Sign in again to approve" in await kim.read()
            assert (await world.delete())["status"] == "approval_required"
            assert (await step_up(world, kim, "kim")).status_code == 303
            assert (await approve(kim, name)).status_code == 303
        assert (await world.delete())["done"] == "delete_customer"
        assert [(each["approver_name"], each["acr"]) for each in world.audit("approved")] == [
            ("Dana Example", "phr"),
            ("Kim Example", "phr"),
        ]


async def test_elicitation_form_is_not_used(world: ApprovalWorld) -> None:
    """The client could show a form: it is told where to approve instead."""
    waits = await world.delete(meta=META)
    assert waits["status"] == "approval_required"
    assert ELSEWHERE in waits["message"]


async def test_agent_reads_what_the_approval_needs(world: ApprovalWorld) -> None:
    answer = await world.call("list_customers", search="Globex")
    arguments = {"customer_id": answer["data"][0]["id"]}
    shown = await world.call("preview_change", tool="delete_customer", arguments=arguments)
    assert shown["preview"]["because"] == ELSEWHERE


async def test_list_needs_it_for_a_call_that_alone_is_not_asked_about(tmp_path: Path) -> None:
    text = FILE.replace('["DESTROY", "ACCESS"]', '"WRITE"')
    async with serving(tmp_path, text + ACME_WITH_POLICY) as world:
        answer = await world.call("list_customers", search="Globex")
        calls = [
            {"tool": "create_customer", "arguments": {"name": "Umbrella"}},
            {"tool": "delete_customer", "arguments": {"customer_id": answer["data"][0]["id"]}},
        ]
        assert ELSEWHERE in (await world.call("apply_changes", changes=calls))["message"]
        async with world.browser("dana") as dana:
            world.wait(minutes=6)
            assert "Sign in again to approve" in await dana.read()
        assert "Approving it needs" not in (await world.delete())["message"]
        assert (await world.call("create_customer", name="Umbrella"))["done"] == "create_customer"


async def test_temporary_approval_is_not_offered(tmp_path: Path) -> None:
    """TRASH allows one otherwise."""
    text = FILE.replace('["DESTROY", "ACCESS"]', '"TRASH"')
    async with serving(tmp_path, text + ACME_WITH_POLICY) as world:
        workflow = (await world.call("list_workflows"))["data"][0]["id"]
        await world.call("delete_workflow", workflow_id=workflow)
        async with world.browser("dana") as dana:
            assert "Approve for" not in await dana.read()
            answer = await dana.send("approve", {**await dana.form("approve"), "extent": "while"})
            assert answer.status_code == 400


@pytest.mark.parametrize("is_approved", [False, True])
async def test_approval_from_before_the_rule_is_void(tmp_path: Path, *, is_approved: bool) -> None:
    """A server that is started anew with the rule does not send what was asked or approved without it."""
    clock = [datetime.now(UTC).replace(microsecond=0)]
    async with serving(tmp_path, FILE.replace(STEP_UP, "") + ACME_WITH_POLICY, clock=clock) as world:
        await world.delete()
        if is_approved:
            async with world.browser("dana") as dana:
                await approve(dana, await name_of(dana))
    async with serving(tmp_path, FILE + ACME_WITH_POLICY, clock=clock) as world:
        answer = await world.delete()
        assert answer.get("done") is None
        assert (await world.delete())["preview"]["because"] == ELSEWHERE


async def test_undo_on_the_page_needs_it(tmp_path: Path) -> None:
    """Undoing a creation is a deletion: its request waits, like any other."""
    async with serving(tmp_path, FILE + ACME_WITH_POLICY, '[defaults]\nwrite = "confirm"\n') as world:
        await world.call("create_customer", name="Umbrella")
        async with world.browser("dana") as dana:
            await dana.approve()
            created = await world.call("create_customer", name="Umbrella")
            assert created["done"] == "create_customer"
            world.wait(minutes=6)
            (link,) = re.findall(r'href="/approvals/(undo\?[^"]+)"', (await dana.http.get("/approvals/")).text)
            page = await dana.http.get(f"/approvals/{link.replace('&amp;', '&')}")
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
            assert (await dana.send("undo", fields)).status_code == 303
            assert "This is your own call, and somebody else has to approve it." in await dana.read()
        async with world.browser("kim") as kim:
            world.wait(minutes=6)
            assert "Sign in again to approve" in await kim.read()
            assert not [each for each in world.audit("intent") if each["tool"] == "delete_customer"]
            await step_up(world, kim, "kim")
            answer = await approve(kim, await name_of(kim)) if "Type " in await kim.read() else await kim.approve()
            assert answer.status_code == 303
            assert [each["tool"] for each in world.audit("intent")] == ["create_customer", "delete_customer"]


async def test_webhook_is_not_sent_and_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    key = Ed25519PrivateKey.generate()
    issuer = "https://login.example.com/realms/team"
    approvers_file(tmp_path / "acme", f'[kim]\npublic_key = "{public(key)}"\nprincipal = "{issuer}|kim"\n')
    hook = 'webhook_url = "http://127.0.0.1:9/hook"\nwebhook_secret_env = "HOOK"\napprovers = "acme/approvers.toml"\n'
    async with serving(tmp_path, FILE + ACME_WITH_POLICY + hook) as world:
        waits = await world.delete()
        assert "webhook" not in waits["message"]
        id_ = world.audit("asked")[0]["grant"]
        sent = signed_approval(key, id_, "kim", "Globex Exports", world.now)
        refused = await world.caller.http.post(f"/tenants/acme/approvals/{id_}", **sent)
        assert (refused.status_code, refused.json()["message"]) == (422, ELSEWHERE)
        assert (await world.delete())["status"] == "approval_required"


async def test_terminal_decides_nothing(tmp_path: Path) -> None:
    """`fastn-mcp approvals` on the tenant's ledger. Declining works there."""
    async with serving(tmp_path, FILE + ACME_WITH_POLICY) as world:
        await world.delete()
        folder, system = tmp_path / "tenants" / "acme", world.team.system
        terminal = TerminalApprovals(ledger_at(None, folder, system), AuditFile(folder / "audit.jsonl", system), system)
        (waiting,) = await terminal.waiting()
        assert await terminal.approve(waiting) == f"{ELSEWHERE} Nothing was decided."
        assert (await world.delete())["status"] == "approval_required"
        assert (await terminal.decline(waiting, "")).startswith("Declined.")
        await terminal.ledger.aclose()


async def test_tenant_without_page_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with serving(tmp_path, FILE + ACME_WITH_POLICY + OWN_KEYS) as world:
        token = world.team.provider.token(sub="otto", tier="own", scope=ALL)
        answer = (await world.caller.call(token, "list_customers", "fsk_test_otto")).json()
        customer = answer["result"]["structuredContent"]["data"][0]["id"]
        answer = await world.caller.call(token, "delete_customer", "fsk_test_otto", customer_id=customer)
        refused = answer.json()["result"]["structuredContent"]
        assert refused["outcome"] == "refused"
        assert ELSEWHERE in refused["message"]
        assert "a tenant with caller_keys has no approval page" in str(refused)


async def test_limits_say_so(dana: Visitor) -> None:
    page = words((await dana.http.get("/approvals/limits")).text)
    assert "Delete, revoke A person types the name to approve, with a fresh sign-in" in page
    assert "Move to Trash A person approves Delete" in page


def test_explain_says_so(tmp_path: Path) -> None:
    file = written(tmp_path, FILE + ACME_WITH_POLICY)
    command = ["policy", "explain", "delete_customer", "customer_id=cus_1", "--team", str(file)]
    done = run_command(command, {"HOME": str(tmp_path), "FASTN_STATE_DIR": str(tmp_path)})
    assert ELSEWHERE in " ".join(done.stdout.split())


WRONG = {
    'effects = "DELETE"': "unknown effect 'DELETE'",
    'effects = "DESTROY"\nmax_age_minutes = 0': "max_age_minutes",
    'effects = "DESTROY"\nacr_values = ["a b"]': "which has no space",
    'effects = "DESTROY"\nmax_age = 5': "max_age",
    "max_age_minutes = 5": "effects",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_table_stops_the_start(text: str, tmp_path: Path) -> None:
    file = written(tmp_path, FILE.replace(STEP_UP, f"\n[approvals.step_up]\n{text}\n") + ACME_WITH_POLICY)
    with pytest.raises(SettingsError) as failed:
        load_team(file)
    assert WRONG[text] in str(failed.value)


@pytest.mark.parametrize(
    ("effects", "tool", "arguments"),
    [("SPEND", "ai_chat", {"message": "Delete all", "approval_mode": "auto"}), ("EXTERNAL", "update_customer", {})],
)
async def test_argument_that_raises_the_effect_does_not_escape_step_up(
    tmp_path: Path, effects: str, tool: str, arguments: dict[str, Any]
) -> None:
    async with serving(tmp_path, FILE.replace('["DESTROY", "ACCESS"]', f'"{effects}"') + ACME_WITH_POLICY) as world:
        if tool == "update_customer":
            answer = await world.call("list_customers", search="Globex")
            arguments = {"customer_id": answer["data"][0]["id"], "name": "Evil", "admin_email": "x@example.com"}
        asked = await world.call(tool, **arguments)
        assert asked["status"] == "approval_required"
        assert "nowhere else" in str(asked)


async def test_sign_in_again_without_a_rule_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, FILE + ACME_WITH_POLICY) as world, world.browser("dana") as dana:
        await world.delete()
        link = "/approvals/login?request=x"
        back = await way_back(world, dana, "dana", link)
        refused = await dana.http.get(re.sub("code=[^&]+", "error=access_denied", back))
        assert 'href="/approvals/"' in refused.text  # back to the request, not to a sign-in without step-up
        assert "access_denied" in words(refused.text)
        monkeypatch.setitem(PEOPLE, "dana", PEOPLE["dana"] | {"groups": []})
        removed = await dana.http.get(await way_back(world, dana, "dana", link))
        assert "No approver rule applies to" in words(removed.text)
        assert (await dana.http.get("/approvals/")).status_code == 403
