"""Admission of requests over HTTP: tokens, scopes, tenants, hosts, origins and sizes.

MCP authorization, RFC 6750, RFC 9728.
"""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.types import INVALID_PARAMS
from starlette.responses import JSONResponse
from support.audit_entries import entries
from support.identity_provider import AUDIENCE, ISSUER, listening
from support.team_world import (
    ACME,
    ALL,
    HEAD,
    META,
    MODERN,
    NO_FORMS,
    TENANTS,
    Caller,
    TeamWorld,
    challenge,
    modern,
    reply_of,
    request,
    tenant,
)

from fastn_mcp.runtime import System
from fastn_mcp.server.http.app import Health

METADATA = "https://fastn-mcp.example.com/.well-known/oauth-protected-resource/mcp"


@pytest.fixture
def team(tmp_path: Path) -> TeamWorld:
    return TeamWorld(tmp_path)


@pytest.fixture
async def caller(team: TeamWorld) -> AsyncGenerator[Caller]:
    async with team.served() as made:
        yield made


async def test_metadata_names_the_issuer(caller: Caller) -> None:
    """RFC 9728; MCP: the metadata names the scopes to begin with."""
    metadata = (await caller.http.get(METADATA)).json()
    assert metadata["resource"] == AUDIENCE
    assert metadata["authorization_servers"] == [ISSUER]
    assert metadata["scopes_supported"] == ["fastn:read"]
    assert metadata["bearer_methods_supported"] == ["header"]


async def test_scopes_are_requested_with_their_prefix(tmp_path: Path) -> None:
    keys = 'initial_scopes = ["fastn:read", "fastn:write"]\nscope_prefix = "api://fastn/"\n'
    team = TeamWorld(tmp_path, HEAD + keys + TENANTS)
    first = ["api://fastn/fastn:read", "api://fastn/fastn:write"]
    async with team.served() as caller:
        assert (await caller.http.get(METADATA)).json()["scopes_supported"] == first
        assert challenge(await caller.call(None, "list_customers"))["scope"] == " ".join(first)
        for scope in ("fastn:read", "api://fastn/fastn:read"):
            token = team.provider.token(scope=scope)
            assert (await caller.call(token, "list_customers")).is_success
            response = await caller.call(token, "delete_customer", None, customer_id="x")
            assert challenge(response)["scope"] == "api://fastn/fastn:destroy api://fastn/fastn:read"
        foreign = team.provider.token(scope="api://other/fastn:read")
        assert challenge(await caller.call(foreign, "list_customers"))["error"] == "insufficient_scope"


async def test_missing_token_is_challenged(caller: Caller) -> None:
    """RFC 6750, 3.1: no error code without a token. MCP: resource_metadata, and the scope to begin with."""
    response = await caller.call(None, "list_customers")
    assert response.status_code == 401
    assert challenge(response) == {"resource_metadata": METADATA, "scope": "fastn:read"}
    assert response.json()["error"]["message"] == "Sign in first. Nothing was sent."
    for scheme in ("Basic YTpi", "Bearer", "bearer ", "Token x"):
        other = await caller.ask(None, request("list_customers", {}), authorization=scheme)
        assert (other.status_code, "error" in challenge(other)) == (401, False)
    for path in ("/mcp", "/mcp%0A"):  # a route's `$` also matches before a line break at the end
        assert (await caller.http.get(path)).status_code == 401
        assert (await caller.http.post(path, json=request("tools/list", {}))).status_code == 401


async def test_invalid_token_is_rejected_with_its_reason(team: TeamWorld, caller: Caller) -> None:
    """RFC 6750, 3.1: invalid_token. test_tokens.py has the other reasons."""
    response = await caller.call(team.provider.token(exp=1_700_000_000), "list_customers")
    assert response.status_code == 401
    assert response.json()["error"]["message"] == "The token was refused. It has expired. Nothing was sent."
    assert challenge(response) == {
        "error": "invalid_token",
        "error_description": "It has expired.",
        "resource_metadata": METADATA,
        "scope": "fastn:read",
    }


async def test_fastn_key_is_not_a_token(caller: Caller) -> None:
    response = await caller.call("fsk_test_acme", "list_customers")
    assert response.status_code == 401
    assert "fsk_" not in response.text + str(response.headers)


async def test_unreachable_provider_is_a_503(team: TeamWorld) -> None:
    """503 with Retry-After, since a client discards its token on a 401."""
    team.provider.down = True
    async with team.served() as caller:
        response = await caller.call(team.provider.token(), "list_customers")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    assert "identity provider" in response.json()["error"]["message"]


async def test_token_without_scopes_is_told_the_scope(team: TeamWorld, caller: Caller) -> None:
    """MCP, RFC 6750: 403, insufficient_scope, and the scope that is missing."""
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


@pytest.mark.parametrize("era", ["2025-11-25", MODERN])
async def test_call_beyond_the_scopes_is_challenged(era: str, team: TeamWorld, caller: Caller) -> None:
    """MCP: the challenge names the missing scope together with those held. Scopes follow the effect."""
    for tool, (scope, arguments) in STEPS.items():
        held = sorted({*ALL.split()} - {scope})
        token = team.provider.token(scope=" ".join([*held, "openid"]))
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


async def test_preview_needs_only_the_read_scope(team: TeamWorld, caller: Caller) -> None:
    token = team.provider.token()
    assert (await caller.call(token, "delete_customer", customer_id="c1", dry_run=True)).status_code == 200
    change: dict[str, Any] = {"tool": "delete_customer", "arguments": {"customer_id": "c1", "dry_run": False}}
    assert (await caller.call(token, "preview_change", **change)).status_code == 200
    assert (await caller.call(token, "delete_customer", customer_id="c1", dry_run=False)).status_code == 403


async def test_inner_calls_need_their_own_scopes(team: TeamWorld, caller: Caller) -> None:
    write = team.provider.token(scope="fastn:read fastn:write")
    read = team.provider.token(scope="fastn:read")
    made = await caller.result(write, "create_customer", name="Initech")
    undo = {"change_id": made["receipt"]["change_id"]}
    response = await caller.call(read, "undo_change", **undo)
    # Undoing a creation deletes: the tool has the effect write, its inner call destroy.
    again = await caller.call(write, "undo_change", **undo)
    assert response.status_code == 403
    refused = again.json()["result"]["structuredContent"]
    assert (refused["outcome"], refused["scope"]) == ("refused", "fastn:destroy")
    lines = list(entries(team.folder / "tenants" / "acme" / "audit.jsonl"))
    assert [line["principal"] for line in lines] == [f"{ISSUER}|anna"] * 3
    assert [line["event"] for line in lines] == ["intent", "outcome", "refused"]


async def test_batch_needs_the_scopes_of_its_calls(team: TeamWorld, caller: Caller) -> None:
    make = {"tool": "create_customer", "arguments": {"name": "Initech"}}
    drop = {"tool": "delete_customer", "arguments": {"customer_id": "c1"}}
    invite = {"tool": "invite_user", "arguments": {"email": "zoe@example.com", "role": "viewer"}}

    async def tried(scope: str, *changes: dict[str, Any]) -> tuple[int, str]:
        token = team.provider.token(scope=scope)
        answered = await caller.call(token, "apply_changes", changes=list(changes))
        reply = answered.json()
        data = reply["error"]["data"] if "error" in reply else reply["result"]["structuredContent"]
        return answered.status_code, str(data.get("scope", ""))

    write = "fastn:read fastn:write"
    assert await tried(write, make) == (200, "")
    assert await tried(write, make, drop) == (403, "fastn:destroy")
    # The scope of the worst call is held. The guard sees that another is not.
    assert await tried(f"{write} fastn:destroy", invite, drop) == (200, "fastn:admin")
    assert await tried("fastn:read fastn:destroy", make, drop) == (200, "fastn:write")


async def test_unmatched_sign_in_is_rejected(team: TeamWorld, caller: Caller) -> None:
    response = await caller.call(team.provider.token(sub="zoe", groups=["other"]), "list_customers")
    assert response.status_code == 403
    assert "www-authenticate" not in response.headers
    assert "no account here is assigned to you" in response.json()["error"]["message"]


async def test_tenant_mode_limits_its_tools(team: TeamWorld, caller: Caller) -> None:
    """Read-only by default. Calling an unlisted tool is refused, not challenged."""
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"}
    globex = team.provider.token(sub="gus", groups=["globex-ops"])
    of_acme = (await caller.ask(team.provider.token(), listing, **headers)).json()["result"]
    of_globex = (await caller.ask(globex, listing, **headers)).json()["result"]
    refused = await caller.result(globex, "delete_customer", customer_id="c1")
    assert of_acme["cacheScope"] == of_globex["cacheScope"] == "private"
    assert {"create_customer", "list_customers"} <= {tool["name"] for tool in of_acme["tools"]}
    assert all(tool["annotations"]["readOnlyHint"] for tool in of_globex["tools"])
    assert (refused["outcome"], "is disabled here" in refused["message"]) == ("not_sent", True)


async def test_tenant_tools_limit_what_its_procedures_read(tmp_path: Path) -> None:
    """With every scope, and with the one that reads."""
    off = ["list_users", "list_secrets", "list_executions", "get_execution", "query_audit_log"]
    team = TeamWorld(tmp_path, HEAD + tenant("acme", **ACME, exclude_tools=off))
    async with team.served() as caller:
        for scope in (ALL, "fastn:read"):
            token = team.provider.token(scope=scope)
            found = [await caller.result(token, "find", query=query) for query in ("dana reyes", "SHOPIFY_API_TOKEN")]
            found.append(await caller.result(token, "get_overview"))
            found.append(await caller.result(token, "diagnose", workflow_id="sync-tiktok-orders-to-cin7-core"))
            for mark in ("dana@fastn.example", "sec_", "exec_"):
                assert mark not in str(found), (scope, mark)
            assert str(found).count("Disabled here by the setting exclude_tools.") == len(found)
            assert (await caller.result(token, "find", query="acme corp"))["data"]["found"][0]["name"] == "Acme Corp"


async def test_caller_is_identified_by_the_token_only(team: TeamWorld, caller: Caller) -> None:
    token = team.provider.token()
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


async def test_caller_key_is_accepted_only_with_caller_keys(team: TeamWorld, caller: Caller) -> None:
    own = team.provider.token(sub="olga", tier="own", scope=ALL)
    other = team.provider.token(sub="otto", tier="own", scope=ALL)
    assert (await caller.call(own, "list_customers")).status_code == 400
    made = await caller.call(own, "create_customer", "fsk_test_olga", name="Hers")
    seen = made.json()["result"]["structuredContent"]["account"]["profile"]
    assert seen.startswith("own ")
    assert "fsk_test_olga" not in made.text

    async def rows(token: str, key: str) -> int:
        answered = await caller.call(token, "list_customers", key, search="Hers")
        return len(answered.json()["result"]["structuredContent"]["data"])

    assert await rows(own, "fsk_test_olga") == 1
    assert await rows(own, "fsk_test_olga2") == 0
    assert await rows(other, "fsk_test_olga") == 0
    for bad in ("two words", "tab\tbed"):
        assert (await caller.call(own, "list_customers", bad)).status_code == 400
    refused = await caller.call(team.provider.token(), "list_customers", "fsk_test_olga")
    assert refused.status_code == 400
    assert "not accepted here" in refused.json()["error"]["message"]
    folders = sorted((team.folder / "tenants" / "own" / "callers").iterdir())
    assert len(folders) == 1  # only she made a change
    assert "olga" not in folders[0].name


async def test_repeated_authentication_header_is_rejected(team: TeamWorld, caller: Caller) -> None:
    token = team.provider.token()
    twice = [("authorization", f"Bearer {token}"), ("authorization", "Bearer x")]
    head = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
    response = await caller.http.post("/mcp", json=request("list_customers", {}), headers=head + twice)
    assert response.status_code == 400


async def test_sessions_are_not_supported(team: TeamWorld, caller: Caller) -> None:
    """MCP: 405 if a server offers no stream. No session can hold resources."""
    headers = {"authorization": f"Bearer {team.provider.token()}"}
    for method in ("GET", "DELETE", "PUT", "OPTIONS"):
        response = await caller.http.request(method, "/mcp", headers=headers)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


HOSTS = ["evil.example", "fastn-mcp.example.com.evil.example", "fastn-mcp.example.com:444", "127.0.0.1", ""]


async def test_foreign_host_is_rejected_on_every_path(caller: Caller) -> None:
    for path in ("/mcp", "/.well-known/oauth-protected-resource/mcp", "/tenants/acme/approvals/x"):
        answers = [await caller.http.get(path, headers={"host": host}) for host in HOSTS]
        assert [answer.status_code for answer in answers] == [421] * len(HOSTS)


async def test_foreign_origin_is_rejected(team: TeamWorld, caller: Caller) -> None:
    """MCP. The Origin must match exactly, even with a valid token."""
    for origin in ("https://evil.example", "null", "https://app.example.com.evil", "http://app.example.com"):
        response = await caller.ask(team.provider.token(), request("list_customers", {}), origin=origin)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


async def test_listed_origin_is_served(team: TeamWorld, caller: Caller) -> None:
    """Our own origin too. A web client can read the challenge."""
    token, call, listed = team.provider.token(), request("get_quotas", {}), "https://app.example.com"
    for origin in (listed, "https://fastn-mcp.example.com"):
        assert (await caller.ask(token, call, **modern("get_quotas"), origin=origin)).status_code == 200
    bad = await caller.ask(None, call, origin=listed)
    assert bad.headers["access-control-allow-origin"] == listed
    assert "WWW-Authenticate" in bad.headers["access-control-expose-headers"]


async def test_oversized_argument_is_refused_by_name(team: TeamWorld, caller: Caller) -> None:
    token = team.provider.token()
    large = request("run_workflow", {"input": dict.fromkeys(map(str, range(45_000)))})
    answer = await caller.ask(token, large, **modern("run_workflow"))
    expected = "input: 45,000 values; at most 2,000 are accepted. Nothing was sent."
    assert answer.json() == {"jsonrpc": "2.0", "id": 7, "error": {"code": INVALID_PARAMS, "message": expected}}
    unknown = await caller.ask(token, large | {"method": "ping"}, **modern("run_workflow"))
    assert (unknown.status_code, unknown.json()["id"]) == (413, 7)
    assert "at most 256 kB are accepted. Nothing was sent." in unknown.json()["error"]["message"]


async def test_message_of_many_lists_is_rejected_unparsed(team: TeamWorld, caller: Caller) -> None:
    large = request("run_workflow", {"input": [[]] * 30_000})
    answer = await caller.ask(team.provider.token(), large, **modern("run_workflow"))
    assert (answer.status_code, answer.json()["id"]) == (413, 7)
    assert "lists and objects; at most 20,000 are accepted. Nothing was sent." in answer.json()["error"]["message"]


async def test_oversized_request_is_rejected_unparsed(team: TeamWorld, caller: Caller) -> None:
    token = team.provider.token()
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


async def test_invalid_message_gets_the_protocol_error(team: TeamWorld, caller: Caller) -> None:
    for body in ODD:
        response = await caller.ask(team.provider.token(), body)
        assert response.status_code in (200, 202, 400), body


async def test_form_state_is_bound_to_its_caller(tmp_path: Path) -> None:
    read_for = [timedelta()]
    text = f"{HEAD}[approvals]\nown = true\n{TENANTS}"
    team = TeamWorld(tmp_path, text, system=System(lambda: datetime.now(UTC) + read_for[0]))
    anna, amir = (team.provider.token(sub=sub, scope=ALL) for sub in ("anna", "amir"))
    olga = team.provider.token(sub="olga", tier="own", scope=ALL)
    async with team.served() as caller:
        rows = (await caller.result(anna, "list_customers", search="Globex"))["data"]
        target = {"customer_id": rows[0]["id"]}
        asked = (await caller.call(anna, "delete_customer", **target)).json()["result"]
        assert asked["resultType"] == "input_required"
        (name,) = asked["inputRequests"]
        read_for[0] = timedelta(seconds=5)  # a person does not answer in less than a second
        responses = {name: {"action": "accept", "content": {"name": rows[0]["name"]}}}

        async def answered(token: str, state: str | None, **headers: str) -> dict[str, Any]:
            body = request("delete_customer", target, inputResponses=responses, requestState=state)
            return (await caller.ask(token, body, **modern("delete_customer"), **headers)).json()

        unknown = await answered(amir, "v1.nonsense")
        assert await answered(amir, asked["requestState"]) == unknown
        assert await answered(olga, asked["requestState"], **{"x-fastn-api-key": "fsk_test_o"}) == unknown
        assert unknown["error"]["message"] == "Invalid or expired requestState"
        assert (await answered(anna, None))["result"]["resultType"] == "input_required"
        done = await answered(anna, asked["requestState"])
        assert done["result"]["structuredContent"]["done"] == "delete_customer"
        again = await answered(anna, asked["requestState"])
        assert again["result"]["isError"] is True


async def test_out_of_band_request_is_bound_to_its_caller(team: TeamWorld, caller: Caller) -> None:
    anna, amir = (team.provider.token(sub=sub, scope=ALL) for sub in ("anna", "amir"))
    rows = (await caller.result(anna, "list_workflows"))["data"]
    body = request("delete_workflow", {"workflow_id": rows[0]["id"]}, _meta=NO_FORMS)

    async def answer(token: str) -> str:
        answered = (await caller.ask(token, body, **modern("delete_workflow"))).json()
        return answered["result"]["structuredContent"]["message"]

    first, again, other = await answer(anna), await answer(anna), await answer(amir)
    assert "This client cannot show an approval form." in first
    assert "for the tenant acme" in first
    assert "Approval has already been requested." in again
    assert "This client cannot show an approval form." in other
    asked = [line["principal"] for line in entries(team.folder / "tenants" / "acme" / "audit.jsonl")]
    assert asked == [f"{ISSUER}|anna", f"{ISSUER}|amir"]


async def test_refused_key_of_a_tenant_is_named_by_where_it_comes_from(tmp_path: Path) -> None:
    """Not by the variable of a server with one account. Of the file callers read the name, and not where it lies."""
    with listening(JSONResponse({}, 401)) as at:
        text = HEAD + TENANTS.replace('api_key_env = "ACME_KEY"', f'api_key_file = "acme.key"\nbase_url = "{at}"')
        text = text.replace("caller_keys = true", f'caller_keys = true\nbase_url = "{at}"')
        (tmp_path / "acme.key").write_text("fsk_test_acme")
        team = TeamWorld(tmp_path, text)
        team.opening.process = replace(team.opening.process, sandbox=None)
        async with team.served() as caller:
            refused = await caller.result(team.provider.token(sub="anna", scope=ALL), "list_customers")
            own = await caller.call(team.provider.token(sub="olga", tier="own", scope=ALL), "list_customers", "fsk_x")
    expected = 'Tell the operator: Fastn refuses the key of the tenant acme, from its api_key_file "acme.key".'
    assert (refused["outcome"], refused["next"]) == ("unauthorized", expected)
    hint = reply_of(own)["result"]["structuredContent"]["next"]
    assert hint == "Send a key of your account that Fastn accepts, in the header x-fastn-api-key."


async def test_readiness_names_failed_checks_only(team: TeamWorld) -> None:
    """The ledger and the issuer's keys are reported without secrets, under any Host."""

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


async def test_lost_ledger_is_reported_and_reads_continue(team: TeamWorld) -> None:

    async def broken() -> bool:
        raise OSError("lost")

    team.health = Health({}, {"ledger": broken})
    async with team.served() as caller:
        probed = await caller.http.get("/readyz")
        assert (probed.status_code, probed.json()) == (200, {"status": "ready", "ledger": "unreachable"})


async def test_readiness_ends_before_the_process(team: TeamWorld, caller: Caller) -> None:
    assert (await caller.http.get("/readyz")).json() == {"status": "ready"}
    team.health.is_leaving = True
    leaving = await caller.http.get("/readyz")
    assert (leaving.status_code, leaving.json()) == (503, {"status": "leaving"})
    assert (await caller.call(team.provider.token(), "get_quotas")).status_code == 200


async def test_missing_key_closes_only_its_account(tmp_path: Path) -> None:
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


async def test_slow_tenant_does_not_use_up_connections(team: TeamWorld) -> None:
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
