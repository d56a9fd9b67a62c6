"""Who is let in, and what a request that is not is told.

MCP authorization, RFC 6750, RFC 9728; THREATS T3, T8, T9, T17, T23.
"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from identity_provider import AUDIENCE, ISSUER
from team_world import HEAD, META, MODERN, TeamWorld, challenge, modern, request

from fastn_mcp.guard.audit.files import entries
from fastn_mcp.hosted.app import Health
from fastn_mcp.runtime import System

pytestmark = pytest.mark.anyio

METADATA = "https://fastn-mcp.example.com/.well-known/oauth-protected-resource/mcp"
ALL = "fastn:read fastn:write fastn:destroy fastn:admin"


@pytest.fixture
def team(tmp_path: Path) -> TeamWorld:
    return TeamWorld(tmp_path)


async def test_a_client_learns_whose_tokens_are_wanted(team: TeamWorld) -> None:
    """RFC 9728; MCP: the scopes named are those to begin with."""
    async with team.served() as caller:
        said = (await caller.http.get(METADATA)).json()
    assert said["resource"] == AUDIENCE
    assert said["authorization_servers"] == [ISSUER]
    assert said["scopes_supported"] == ["fastn:read"]
    assert said["bearer_methods_supported"] == ["header"]


async def test_without_a_token_the_challenge_says_where_to_get_one(team: TeamWorld) -> None:
    """RFC 6750, 3.1: no error code where nobody tried; MCP: resource_metadata, and the scope to begin with."""
    async with team.served() as caller:
        response = await caller.call(None, "list_customers")
        assert response.status_code == 401
        assert challenge(response) == {"resource_metadata": METADATA, "scope": "fastn:read"}
        assert response.json()["error"]["message"] == "Sign in first. Nothing was sent."
        for scheme in ("Basic YTpi", "Bearer", "bearer ", "Token x"):
            other = await caller.ask(None, request("list_customers", {}), authorization=scheme)
            assert (other.status_code, "error" in challenge(other)) == (401, False)
        assert (await caller.http.get("/mcp")).status_code == 401


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": 1_700_000_000}, "It has expired."),
    "another audience": ({"aud": "https://evil.example/mcp"}, "It is for another audience."),
    "another issuer": ({"iss": "https://evil.example"}, "It is from another issuer."),
    "not yet": ({"nbf": 4_000_000_000}, "It is not valid yet."),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_token_that_is_none_is_invalid_and_says_why(what: str, team: TeamWorld) -> None:
    """RFC 6750, 3.1: invalid_token. Issue 8: a token for another audience, issuer, or an expired one."""
    claims, why = BAD[what]
    async with team.served() as caller:
        response = await caller.call(team.provider.token(**claims), "list_customers")
    assert response.status_code == 401
    assert challenge(response) == {
        "error": "invalid_token",
        "error_description": why,
        "resource_metadata": METADATA,
        "scope": "fastn:read",
    }


async def test_a_fastn_key_is_no_token(team: TeamWorld) -> None:
    """THREATS T3: never as Authorization: Bearer."""
    async with team.served() as caller:
        response = await caller.call("fsk_test_acme", "list_customers")
    assert response.status_code == 401
    assert "fsk_" not in response.text + str(response.headers)


async def test_a_provider_that_cannot_be_reached_is_no_fault_of_the_token(team: TeamWorld) -> None:
    """Ours: 503 and when to come again; a client would throw its token away for a 401."""
    team.provider.down = True
    async with team.served() as caller:
        response = await caller.call(team.provider.token(), "list_customers")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    assert "identity provider" in response.json()["error"]["message"]


async def test_a_token_without_our_scopes_is_told_which(team: TeamWorld) -> None:
    """MCP, RFC 6750: 403, insufficient_scope, and the scope to come back with."""
    async with team.served() as caller:
        response = await caller.call(team.provider.token(scope="openid profile"), "list_customers")
    assert response.status_code == 403
    assert challenge(response) == {
        "error": "insufficient_scope",
        "error_description": "It needs fastn:read.",
        "resource_metadata": METADATA,
        "scope": "fastn:read",
    }


STEPS = {
    "create_customer": ("fastn:write", {"name": "Initech"}),
    "run_workflow": ("fastn:write", {"workflow_id": "w1"}),
    "ai_chat": ("fastn:write", {"message": "hi"}),
    "delete_workflow": ("fastn:destroy", {"workflow_id": "w1"}),
    "delete_customer": ("fastn:destroy", {"customer_id": "c1"}),
    "create_api_key": ("fastn:admin", {"name": "k"}),
}


@pytest.mark.parametrize("tool", STEPS)
@pytest.mark.parametrize("era", ["2025-11-25", MODERN])
async def test_a_call_that_needs_more_steps_up(tool: str, era: str, team: TeamWorld) -> None:
    """MCP: a challenge at runtime names what is needed together with what is held; issue 8: by effect."""
    scope, arguments = STEPS[tool]
    held = sorted({*ALL.split()} - {scope})
    token = team.provider.token(scope=" ".join([*held, "openid"]))
    async with team.served() as caller:
        headers = modern(tool) if era == MODERN else {}
        response = await caller.ask(token, request(tool, arguments), **headers)
        assert response.status_code == 403
        assert challenge(response)["error"] == "insufficient_scope"
        assert challenge(response)["scope"].split() == sorted(ALL.split())
        error = response.json()
        assert (error["id"], error["error"]["data"]["scope"]) == (7, scope)
        assert error["error"]["message"].startswith(f"{tool} needs the scope {scope}")
        good = await caller.ask(team.provider.token(scope=ALL), request(tool, arguments), **headers)
        assert good.status_code == 200


async def test_a_preview_needs_no_more_than_reading(team: TeamWorld) -> None:
    """Ours: dry_run reads, and changes nothing."""
    async with team.served() as caller:
        token = team.provider.token()
        assert (await caller.call(token, "delete_customer", customer_id="c1", dry_run=True)).status_code == 200
        assert (await caller.call(token, "delete_customer", customer_id="c1", dry_run=False)).status_code == 403


async def test_what_only_the_guard_can_see_is_refused_by_it(team: TeamWorld) -> None:
    """Ours: a procedure's inner calls pass the guard with the scopes of who called; the audit has it."""
    write = team.provider.token(scope="fastn:read fastn:write")
    read = team.provider.token(scope="fastn:read")
    async with team.served() as caller:
        made = await caller.result(write, "create_customer", name="Initech")
        undo = {"change_id": made["receipt"]["change_id"]}
        response = await caller.call(read, "undo_change", **undo)
        # Undoing a creation deletes: the tool is for writing, the call that it makes is not.
        again = await caller.call(write, "undo_change", **undo)
    assert response.status_code == 403
    found = again.json()["result"]["structuredContent"]
    assert (found["outcome"], found["scope"]) == ("refused", "fastn:destroy")
    lines = list(entries(team.folder / "tenants" / "acme" / "audit.jsonl"))
    assert [line["principal"] for line in lines] == [f"{ISSUER}|anna"] * 3
    assert [line["event"] for line in lines] == ["intent", "outcome", "refused"]


async def test_a_batch_needs_what_its_calls_need(team: TeamWorld) -> None:
    """Ours: no more than they do, and of each what it does."""
    make = {"tool": "create_customer", "arguments": {"name": "Initech"}}
    drop = {"tool": "delete_customer", "arguments": {"customer_id": "c1"}}
    invite = {"tool": "invite_user", "arguments": {"email": "zoe@example.com", "role": "viewer"}}
    async with team.served() as caller:

        async def tried(scope: str, *changes: dict[str, Any]) -> tuple[int, str]:
            token = team.provider.token(scope=scope)
            answered = await caller.call(token, "apply_changes", changes=list(changes))
            found = answered.json()
            data = found["error"]["data"] if "error" in found else found["result"]["structuredContent"]
            return answered.status_code, str(data.get("scope", ""))

        write = "fastn:read fastn:write"
        assert await tried(write, make) == (200, "")
        assert await tried(write, make, drop) == (403, "fastn:destroy")
        # The worst of them is held; that another is not, the guard sees.
        assert await tried(f"{write} fastn:destroy", invite, drop) == (200, "fastn:admin")
        assert await tried("fastn:read fastn:destroy", make, drop) == (200, "fastn:write")


async def test_somebody_for_whom_there_is_no_tenant_is_let_in_nowhere(team: TeamWorld) -> None:
    """Ours: signed in is not enough."""
    async with team.served() as caller:
        response = await caller.call(team.provider.token(sub="zoe", groups=["other"]), "list_customers")
    assert response.status_code == 403
    assert "www-authenticate" not in response.headers
    assert "no account here is assigned to you" in response.json()["error"]["message"]


async def test_each_tenant_is_offered_what_its_mode_leaves(team: TeamWorld) -> None:
    """THREATS T23: read-only unless the file says otherwise; calling what is not listed is refused, not challenged."""
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"}
    globex = team.provider.token(sub="gus", groups=["globex-ops"])
    async with team.served() as caller:
        of_acme = (await caller.ask(team.provider.token(), listing, **headers)).json()["result"]
        of_globex = (await caller.ask(globex, listing, **headers)).json()["result"]
        refused = await caller.result(globex, "delete_customer", customer_id="c1")
    assert of_acme["cacheScope"] == of_globex["cacheScope"] == "private"
    assert {"create_customer", "list_customers"} <= {tool["name"] for tool in of_acme["tools"]}
    assert all(tool["annotations"]["readOnlyHint"] for tool in of_globex["tools"])
    assert (refused["outcome"], "is disabled here" in refused["message"]) == ("not_sent", True)


async def test_who_calls_is_told_by_the_token_alone(team: TeamWorld) -> None:
    """THREATS T3, T9: a session id, an argument or a header of another tenant changes nothing."""
    token = team.provider.token()
    async with team.served() as caller:
        forged = {"mcp-session-id": "globex", "x-fastn-space-tenantid": "globex", "x-forwarded-user": "gus"}
        made = await caller.ask(
            team.provider.token(scope=ALL),
            request("create_customer", {"name": "Hers"}),
            **modern("create_customer"),
            **forged,
        )
        assert made.json()["result"]["structuredContent"]["account"]["profile"] == "acme"
        refused = (await caller.call(token, "list_customers", tenant="globex")).json()["result"]["structuredContent"]
        assert refused["outcome"] == "not_sent"


async def test_a_key_of_ones_own_is_taken_where_the_operator_allows_it(team: TeamWorld) -> None:
    """Issue 8: then the tenant is that caller alone; elsewhere it is refused: it was meant for another account."""
    own = team.provider.token(sub="olga", tier="own", scope=ALL)
    other = team.provider.token(sub="otto", tier="own", scope=ALL)
    async with team.served() as caller:
        assert (await caller.call(own, "list_customers")).status_code == 400
        made = await caller.call(own, "create_customer", "fsk_test_olga", name="Hers")
        seen = made.json()["result"]["structuredContent"]["account"]["profile"]
        assert seen.startswith("own ")
        assert "fsk_test_olga" not in made.text

        async def found(token: str, key: str) -> int:
            answered = await caller.call(token, "list_customers", key, search="Hers")
            return len(answered.json()["result"]["structuredContent"]["data"])

        assert await found(own, "fsk_test_olga") == 1
        assert await found(own, "fsk_test_olga2") == 0
        assert await found(other, "fsk_test_olga") == 0
        for bad in ("two words", "tab\tbed"):
            assert (await caller.call(own, "list_customers", bad)).status_code == 400
        refused = await caller.call(team.provider.token(), "list_customers", "fsk_test_olga")
        assert refused.status_code == 400
        assert "not accepted here" in refused.json()["error"]["message"]
    folders = sorted((team.folder / "tenants" / "own" / "callers").iterdir())
    assert len(folders) == 1  # only she has changed something
    assert "olga" not in folders[0].name


async def test_a_header_that_comes_twice_is_refused(team: TeamWorld) -> None:
    """Ours: which of them counts is nobody's guess."""
    token = team.provider.token()
    async with team.served() as caller:
        twice = [("authorization", f"Bearer {token}"), ("authorization", "Bearer x")]
        head = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
        response = await caller.http.post("/mcp", json=request("list_customers", {}), headers=head + twice)
    assert response.status_code == 400


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS"])
async def test_there_are_no_sessions_to_open_or_to_end(method: str, team: TeamWorld) -> None:
    """MCP: 405 where a server offers no stream; THREATS T17: none to hold open."""
    async with team.served() as caller:
        response = await caller.http.request(
            method, "/mcp", headers={"authorization": f"Bearer {team.provider.token()}"}
        )
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


HOSTS = ["evil.example", "fastn-mcp.example.com.evil.example", "fastn-mcp.example.com:444", "127.0.0.1", ""]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/mcp", "/.well-known/oauth-protected-resource/mcp", "/tenants/acme/approvals/x"])
async def test_a_foreign_host_is_misdirected_wherever_it_asks(host: str, path: str, team: TeamWorld) -> None:
    """THREATS T8: exact, before anything is read."""
    async with team.served() as caller:
        assert (await caller.http.get(path, headers={"host": host})).status_code == 421


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.com.evil", "http://app.example.com"]
)
async def test_a_foreign_origin_is_forbidden(origin: str, team: TeamWorld) -> None:
    """MCP; THREATS T8: exact lists, with a good token too."""
    async with team.served() as caller:
        response = await caller.ask(team.provider.token(), request("list_customers", {}), origin=origin)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://fastn-mcp.example.com"])
async def test_an_origin_of_the_list_is_served(origin: str, team: TeamWorld) -> None:
    """Ours: our own always; a web client reads the challenge too."""
    async with team.served() as caller:
        good = await caller.ask(team.provider.token(), request("get_quotas", {}), **modern("get_quotas"), origin=origin)
        assert good.status_code == 200
        if origin == "https://app.example.com":
            bad = await caller.ask(None, request("get_quotas", {}), origin=origin)
            assert bad.headers["access-control-allow-origin"] == origin
            assert "WWW-Authenticate" in bad.headers["access-control-expose-headers"]


async def test_too_much_is_refused_before_it_is_looked_at(team: TeamWorld) -> None:
    """THREATS T17: bodies of 1 MiB, bounded heads."""
    token = team.provider.token()
    async with team.served() as caller:
        large = request("list_customers", {"search": "x" * 1024 * 1024})
        assert (await caller.ask(token, large, **modern("list_customers"))).status_code == 413
        assert (await caller.ask(token, b"{}", **{"x-padding": "x" * 16_384})).status_code == 431
        assert (await caller.ask(token, b"{}", **{f"x-{n}": "" for n in range(100)})).status_code == 431
        assert (await caller.call(token, "get_quotas")).status_code == 200


ODD: list[bytes] = [
    b"", b"null", b"[]", b'"tools/call"', b"{", b"\xff", b"[" * 5000, b'{"method":"tools/call"}',
    b'{"id":true,"method":"tools/call","params":[]}', b'{"id":1.5,"method":"tools/call","params":{"name":7}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"no_such_tool"}}',
]  # fmt: skip


@pytest.mark.parametrize("body", ODD)
async def test_what_is_no_call_is_left_to_the_protocol(body: bytes, team: TeamWorld) -> None:
    """Ours: whoever is let in gets the answer that MCP has for it."""
    async with team.served() as caller:
        response = await caller.ask(team.provider.token(), body)
    assert response.status_code in (200, 202, 400)


async def test_a_form_of_one_caller_is_nothing_in_the_hands_of_another(tmp_path: Path) -> None:
    """THREATS T9, T11: the state of a question is bound to who was asked; another's is as one that never was."""
    read_for = [timedelta()]
    team = TeamWorld(tmp_path, system=System(lambda: datetime.now(UTC) + read_for[0]))
    anna, amir = (team.provider.token(sub=sub, scope=ALL) for sub in ("anna", "amir"))
    olga = team.provider.token(sub="olga", tier="own", scope=ALL)
    async with team.served() as caller:
        rows = (await caller.result(anna, "list_customers", search="Globex"))["data"]
        target = {"customer_id": rows[0]["id"]}
        asked = (await caller.call(anna, "delete_customer", **target)).json()["result"]
        assert asked["resultType"] == "input_required"
        (name,) = asked["inputRequests"]
        read_for[0] = timedelta(seconds=5)  # no person answers in less than a second
        given = {name: {"action": "accept", "content": {"name": rows[0]["name"]}}}

        async def answered(token: str, state: str, **headers: str) -> dict[str, Any]:
            body = request("delete_customer", target, inputResponses=given, requestState=state)
            return (await caller.ask(token, body, **modern("delete_customer"), **headers)).json()

        unknown = await answered(amir, "v1.nonsense")
        assert await answered(amir, asked["requestState"]) == unknown
        assert await answered(olga, asked["requestState"], **{"x-fastn-api-key": "fsk_test_o"}) == unknown
        assert unknown["error"]["message"] == "Invalid or expired requestState"
        done = await answered(anna, asked["requestState"])
        assert done["result"]["structuredContent"]["done"] == "delete_customer"
        again = await answered(anna, asked["requestState"])
        assert again["result"]["isError"] is True


async def test_a_question_elsewhere_waits_for_its_own_caller(team: TeamWorld) -> None:
    """Ours: the same call by another of the same tenant asks anew."""
    anna, amir = (team.provider.token(sub=sub, scope=ALL) for sub in ("anna", "amir"))
    no_forms: dict[str, Any] = {**META, "io.modelcontextprotocol/clientCapabilities": {}}
    async with team.served() as caller:
        rows = (await caller.result(anna, "list_customers", search="Globex"))["data"]
        body = request("delete_customer", {"customer_id": rows[0]["id"]}, _meta=no_forms)

        async def said(token: str) -> str:
            answered = (await caller.ask(token, body, **modern("delete_customer"))).json()
            return answered["result"]["structuredContent"]["message"]

        first, again, other = await said(anna), await said(anna), await said(amir)
    assert "This client cannot ask." in first
    assert "for the tenant acme" in first
    assert "It is still waiting" in again
    assert "This client cannot ask." in other
    asked = [line["principal"] for line in entries(team.folder / "tenants" / "acme" / "audit.jsonl")]
    assert asked == [f"{ISSUER}|anna", f"{ISSUER}|amir"]


async def test_readiness_says_what_it_lacks_and_nothing_else(team: TeamWorld) -> None:
    """Issue 8: the ledger reached, the issuer's keys known, no secret; a probe comes by any name."""

    async def broken() -> bool:
        raise OSError("valkey://user:password@host")

    team.provider.down = True
    team.health = Health({"issuer": team.keys.reached}, {"ledger": broken})
    async with team.served() as caller:
        probe = {"host": "10.0.0.7:8080"}
        lacking = await caller.http.get("/readyz", headers=probe)
        assert (lacking.status_code, lacking.json()) == (
            503,
            {"status": "not ready", "issuer": "unreachable", "ledger": "unreachable"},
        )
        assert (await caller.http.get("/healthz", headers=probe)).json() == {"status": "ok"}


async def test_a_lost_ledger_is_told_and_leaves_reads_where_they_are(team: TeamWorld) -> None:
    """Issue 8: a lost ledger refuses what changes something and lets reads pass."""

    async def broken() -> bool:
        raise OSError("lost")

    team.health = Health({}, {"ledger": broken})
    async with team.served() as caller:
        probed = await caller.http.get("/readyz")
        assert (probed.status_code, probed.json()) == (200, {"status": "ready", "ledger": "unreachable"})


async def test_readiness_ends_before_the_process_does(team: TeamWorld) -> None:
    """Issue 8."""
    async with team.served() as caller:
        assert (await caller.http.get("/readyz")).json() == {"status": "ready"}
        team.health.is_leaving = True
        leaving = await caller.http.get("/readyz")
        assert (leaving.status_code, leaving.json()) == (503, {"status": "leaving"})
        assert (await caller.call(team.provider.token(), "get_quotas")).status_code == 200


async def test_a_key_that_is_gone_closes_one_account_and_no_other(tmp_path: Path) -> None:
    """Ours: an exact answer that tells nothing, and the log says more."""
    text = HEAD + "".join(
        f'[[tenant]]\nname = "{name}"\nsubjects = ["{sub}"]\npolicy = "{name}.toml"\napi_key_env = "ACME_KEY"\n'
        for name, sub in (("acme", "anna"), ("globex", "gus"))
    )
    (tmp_path / "globex.toml").write_text("")
    (tmp_path / "globex.toml").chmod(0o600)
    team = TeamWorld(tmp_path, text)
    async with team.served() as caller:
        closed = await caller.call(team.provider.token(), "get_quotas")
        assert closed.status_code == 503
        assert closed.json()["error"]["message"].startswith("Your account cannot be opened now.")
        assert "toml" not in closed.text
        assert (await caller.call(team.provider.token(sub="gus"), "get_quotas")).status_code == 200


async def test_who_sends_slowly_leaves_connections_to_the_others(team: TeamWorld) -> None:
    """THREATS T10, T17: a tenant holds its share of them, whatever it sends, and is told so."""
    begun = 0

    async def slow(event: anyio.Event) -> AsyncGenerator[bytes]:
        nonlocal begun
        begun += 1
        yield b"{"
        await event.wait()

    token = team.provider.token()
    async with team.served() as caller, anyio.create_task_group() as tasks:
        event, most = anyio.Event(), team.team.limits.requests

        async def ask() -> None:
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            await caller.http.post("/mcp", content=slow(event), headers=headers)

        for _ in range(most):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert begun == most == 80
        refused = await caller.call(token, "list_customers")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["message"] == (
            "80 requests of this account are being answered. Wait for some of them to end. Nothing was sent."
        )
        other = team.provider.token(sub="gil", groups=["globex-eu"])
        assert (await caller.call(other, "list_customers")).status_code == 200
        event.set()
    async with team.served() as caller:
        assert (await caller.call(token, "list_customers")).status_code == 200
