"""Doctor's checks of a team's server: what each mistake of an administrator is called, and its next step."""

import itertools
import json
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from support.approval_world import APPROVERS, PAGE
from support.clock import Clock
from support.command_line import run_command
from support.doctor_runs import by_name
from support.identity_provider import AUDIENCE, ISSUER, Provider, listening, rsa
from support.ports import free_port
from support.team_world import HEAD, KEYS, TENANTS, TeamWorld, written
from support.valkey_server import ValkeyServer

from fastn_mcp.build.check import Check, CheckResult
from fastn_mcp.build.stores import ledger_at
from fastn_mcp.extensions.doctor.runner import DoctorReport
from fastn_mcp.extensions.team.checks import check_keys, check_provider, check_settings, check_token
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.public_checks import PROVIDER_DOWN, PublicAddress, check_public
from fastn_mcp.extensions.team.serve import application
from fastn_mcp.extensions.valkey.checks import check_store
from fastn_mcp.runtime import System
from fastn_mcp.server.http import mcp_endpoint

SECRET = "0123456789abcdef0123456789abcdef"
WITH_PAGE = HEAD + PAGE + APPROVERS
ENVIRONMENT = KEYS | {"PAGE_SECRET": "egap", "FASTN_STATE_SECRET": SECRET}
OK, FAILED, DIFFERS, SKIPPED = CheckResult.OK, CheckResult.FAILED, CheckResult.DIFFERS, CheckResult.SKIPPED


def world_in(folder: Path, text: str = WITH_PAGE + TENANTS, secret: str = SECRET, **metadata: Any) -> TeamWorld:
    provider = Provider()
    provider.metadata = {
        "code_challenge_methods_supported": ["S256"],
        "registration_endpoint": f"{ISSUER}/r",
    } | metadata
    folder.mkdir(exist_ok=True)
    return TeamWorld(folder, text, provider, ENVIRONMENT | {"FASTN_STATE_SECRET": secret})


def checked_settings(world: TeamWorld) -> Mapping[str, Check]:
    return {check.name: check for check in check_settings(world.opening)}


async def checked_provider(world: TeamWorld, keys: IssuerKeys | None = None) -> Mapping[str, Check]:
    return await by_name(check_provider(world.opening, keys or world.keys))


async def checked_token(world: TeamWorld, token: str) -> Mapping[str, Check]:
    return await by_name(check_token(world.opening, world.keys, token))


def wrong(checks: Mapping[str, Check]) -> set[str]:
    """Names of the checks that found something. Each says what to do next."""
    names = {name for name, check in checks.items() if check.verdict in (FAILED, DIFFERS)}
    assert all(checks[name].next for name in names)
    return names


# --- settings -------------------------------------------------------------------------------------------------------


def test_tenant_without_its_key_is_named(tmp_path: Path) -> None:
    text = HEAD + TENANTS.replace('api_key_env = "GLOBEX_KEY"', 'api_key_file = "none.key"')
    checks = checked_settings(world_in(tmp_path, text))
    assert wrong(checks) == {"tenant globex"}
    assert "none.key" in checks["tenant globex"].here
    assert str(tmp_path) not in checks["tenant globex"].finding
    assert checks["tenant own"].verdict is OK


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_key_file_that_others_can_read_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + TENANTS.replace('api_key_env = "GLOBEX_KEY"', 'api_key_file = "globex.key"')
    world = world_in(tmp_path / "team", text)
    file = tmp_path / "team" / "globex.key"
    file.write_text("fsk_test_globex")
    for folder in file.parents:
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to(tmp_path):
            folder.chmod(0o755)
    is_open = all(folder.stat().st_mode & 0o001 for folder in file.parents)  # pytest's own folder is private
    file.chmod(0o644)
    checks = checked_settings(world)
    assert checks["tenant globex"].verdict is (DIFFERS if is_open else OK)
    monkeypatch.setattr(Path, "parents", property(lambda _: ()))
    checks = checked_settings(world)
    assert checks["tenant globex"].verdict is DIFFERS
    file.chmod(0o600)
    checks = checked_settings(world)
    assert checks["tenant globex"].verdict is OK


@pytest.mark.parametrize(
    ("secret", "verdict"), [(SECRET, OK), ("", FAILED), ("a" * 40, DIFFERS), (f"{SECRET[::-1]},{SECRET}", OK)]
)
def test_state_secret_is_checked_and_not_shown(secret: str, verdict: CheckResult, tmp_path: Path) -> None:
    world = world_in(tmp_path, secret=secret) if secret else world_in(tmp_path, HEAD + TENANTS)
    if not secret:
        add_page(world)
    check = checked_settings(world)["state secret"]
    assert check.verdict is verdict
    assert not secret or secret not in check.finding + check.here + check.next


def add_page(world: TeamWorld) -> None:
    """Give the team a page, for which the process has no state secret."""
    world.opening.team = world_in(world.folder / "other").team
    world.opening.state_secrets = []


# --- the ledger -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), set[str]()),
        (("--appendonly", "yes"), {"ledger durability"}),
        ((), {"ledger durability"}),
        (("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"), {"ledger eviction"}),
    ],
    ids=["as asked for", "everysec", "nothing kept", "may forget"],
)
async def test_durability_settings_of_the_ledger_are_checked(
    options: tuple[str, ...], found: set[str], tmp_path: Path
) -> None:
    """docs/shared-ledger.md, what the ledger needs."""
    server = ValkeyServer(tmp_path, options).start()
    ledger = ledger_at(server.url(), tmp_path, System())
    try:
        now = System().now().timestamp()
        checks = {check.name: check for check in await check_store(ledger.store, now)}
        assert wrong(checks) == found
        late = {check.name: check for check in await check_store(ledger.store, now - 60)}
        assert late["ledger clock"].verdict is DIFFERS
        assert "60 s ahead" in late["ledger clock"].finding
    finally:
        await ledger.aclose()
        server.stop()


# --- the identity provider ------------------------------------------------------------------------------------------


async def test_provider_without_a_fault_has_no_finding(tmp_path: Path) -> None:
    answer = await checked_provider(world_in(tmp_path))
    assert wrong(answer) == set()
    assert list(answer) == ["issuer", "signing keys", "client registration", "PKCE", "approval client"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"registration_endpoint": None}, "Neither CIMD nor DCR"),
        ({"registration_endpoint": None, "client_id_metadata_document_supported": True}, "(CIMD)"),
        (
            {"client_id_metadata_document_supported": True},
            "(CIMD): clients that publish one need nothing else; D",
        ),
    ],
)
async def test_registration_says_which_clients_work(metadata: dict[str, Any], words: str, tmp_path: Path) -> None:
    """MCP, authorization: client ID metadata documents, pre-registration, dynamic registration."""
    answer = await checked_provider(world_in(tmp_path, **metadata))
    assert words in answer["client registration"].finding
    assert (answer["client registration"].verdict is OK) is ("Neither" not in words)


@pytest.mark.parametrize(
    ("text", "metadata", "name", "here"),
    [
        (HEAD + TENANTS, {"code_challenge_methods_supported": ["plain"]}, "PKCE", ""),
        (HEAD + TENANTS, {"issuer": f"{ISSUER}/"}, "issuer", f"{ISSUER}/"),
        (f'algorithms = ["ES256"]\n{HEAD}{TENANTS}', {}, "signing keys", ""),
    ],
)
async def test_provider_that_does_not_fit_is_named(
    text: str, metadata: dict[str, Any], name: str, here: str, tmp_path: Path
) -> None:
    """MCP, authorization: clients refuse a provider without S256. RFC 8414: the issuer is compared to the letter."""
    checks = await checked_provider(world_in(tmp_path, text, **metadata))
    assert wrong(checks) == {name}
    assert here in checks[name].here
    assert name != "issuer" or checks.keys() == {"issuer"}


@pytest.mark.parametrize(
    ("metadata", "lacks"),
    [
        ({"claims_supported": ["sub", "auth_time"], "acr_values_supported": ["1", "phr"]}, ""),
        ({"claims_supported": ["sub", "auth_time"]}, '"phr" or "mfa" in acr_values_supported'),
        ({"acr_values_supported": ["mfa"]}, "auth_time in claims_supported"),
        ({"claims_supported": "auth_time", "acr_values_supported": ["1"]}, '"phr" or "mfa" in acr_values_supported'),
    ],
)
async def test_step_up_is_compared_with_what_the_provider_publishes(
    metadata: dict[str, Any], lacks: str, tmp_path: Path
) -> None:
    step_up = '[approvals.step_up]\neffects = "DESTROY"\nacr_values = ["phr", "mfa"]\n'
    answer = await checked_provider(world_in(tmp_path, WITH_PAGE + step_up + TENANTS, **metadata))
    assert (answer["step-up"].verdict is OK) is not bool(lacks)
    assert lacks in answer["step-up"].finding


async def test_redirect_address_that_the_provider_rejects_is_a_finding(tmp_path: Path) -> None:
    """OpenID Connect Core, 3.1.2.2: an unknown redirect address gets an error page, not a redirect."""
    world = world_in(tmp_path)

    async def rejects(scope: Scope, receive: Receive, send: Send) -> None:
        rejected = scope["path"].endswith("/authorize")
        app: ASGIApp = PlainTextResponse("invalid redirect_uri", 400) if rejected else world.provider.app
        await app(scope, receive, send)

    keys = type(world.keys)(world.team.issuer, world.system, httpx2.ASGITransport(app=rejects))
    answer = await checked_provider(world, keys)
    assert wrong(answer) == {"approval client"}
    assert "400" in answer["approval client"].here


@pytest.mark.parametrize(("late", "verdict"), [(0.0, OK), (120.0, DIFFERS)])
async def test_clock_of_the_provider_is_compared(late: float, verdict: CheckResult, tmp_path: Path) -> None:
    """Beyond leeway_seconds tokens are refused, though nobody has made a mistake in the team file."""
    port = free_port()
    with listening(Provider(f"http://127.0.0.1:{port}").app, port) as at:
        world = TeamWorld(tmp_path, HEAD.replace(ISSUER, at).replace(AUDIENCE, f"{at}/mcp") + TENANTS)
        keys = type(world.keys)(at, world.system)
        clock = Clock()
        clock.at = world.system.now() - timedelta(seconds=late)
        world.opening.system = clock.system()
        answer = await checked_provider(world, keys)
        await keys.aclose()
    assert answer["issuer clock"].verdict is verdict


# --- a token --------------------------------------------------------------------------------------------------------


async def test_good_token_gets_its_tenant_and_why_not_the_others(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    caller = await checked_token(world, world.provider.token(sub="anna", groups=["globex-eu"], tier="free"))
    assert wrong(caller) == set()
    assert "tenant acme" in caller["token tenant"].finding
    assert "globex would serve it too, but comes after acme" in caller["token tenant"].here
    assert 'Not own: tier is "free", and has to be one of ["own"].' in caller["token tenant"].here


@pytest.mark.parametrize(
    ("claims", "names", "words"),
    [
        ({"aud": "https://other.example.com"}, {"token", "token audience"}, "https://other.example.com"),
        ({"aud": [AUDIENCE, "https://other.example.com"]}, set[str](), ""),
        ({"iss": f"{ISSUER}/"}, {"token", "token issuer"}, f'{ISSUER}/"'),
        ({"exp": 1_000_000_000}, {"token", "token expiry"}, "2001-09-09"),
        ({"nbf": 4_000_000_000, "exp": 4_000_000_600}, {"token", "token expiry"}, ""),
        ({"scope": "openid"}, {"token scopes"}, "openid"),
        ({"scope": None}, {"token scopes"}, ""),
        ({"scope": "api://fastn-mcp/fastn:read"}, {"token scopes"}, "api://fastn-mcp/fastn:read"),
        ({"sub": "zoe"}, {"token tenant"}, 'sub is "zoe", and has to be one of ["anna","amir"]'),
        ({"sub": "zoe", "groups": ["other"]}, {"token tenant"}, 'groups is ["other"]'),
        (
            {"iss": "x", "aud": "y", "exp": 1, "scope": "z", "sub": "zoe"},
            {"token", "token issuer", "token audience", "token expiry", "token scopes", "token tenant"},
            "",
        ),
    ],
)
async def test_wrong_claim_is_named_with_what_is_needed(
    claims: dict[str, Any], names: set[str], words: str, tmp_path: Path
) -> None:
    world = world_in(tmp_path)
    caller = await checked_token(world, world.provider.token(**claims))
    assert wrong(caller) == names
    assert words in " ".join(check.here for check in caller.values())
    assert (DoctorReport(checks=[*caller.values()]).exit == 0) is not bool(names)


async def test_groups_that_did_not_fit_into_a_token_are_explained(tmp_path: Path) -> None:
    """Entra ID leaves `groups` out beyond 200 and names the claim in `_claim_names`."""
    world = world_in(tmp_path)
    caller = await checked_token(world, world.provider.token(sub="zoe", _claim_names={"groups": "src1"}))
    assert "more groups than the provider puts into a token" in caller["token tenant"].finding


@pytest.mark.parametrize("token", ["opaque", "a.b.c", ""])
async def test_opaque_token_is_explained(token: str, tmp_path: Path) -> None:
    """Providers issue one if no API was requested."""
    caller = await checked_token(world_in(tmp_path), token)
    assert wrong(caller) == set(caller) == {"token"}
    assert "opaque" in caller["token"].next


async def test_forged_token_fails(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    checks = await checked_token(world, Provider(keys=[rsa("first")]).token(sub="anna"))
    assert "token" in wrong(checks)
    assert "would be served" in checks["token tenant"].finding


# --- from outside ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def replica(world: TeamWorld) -> AsyncGenerator[ASGIApp]:
    app = application(world.opening, world.keys, world.health)
    async with app.router.lifespan_context(app):
        yield app


async def outside(
    world: TeamWorld,
    proxy: Callable[[ASGIApp], ASGIApp] | None = None,
    token: str | None = None,
    url: str = AUDIENCE,
    secret: str = SECRET,
    *,
    is_provider_down: bool = False,
) -> Mapping[str, Check]:
    """Check a replica through a proxy in this process."""
    async with replica(world) as app:
        secrets = [secret] if secret else []
        transport = httpx2.ASGITransport(app=proxy(app) if proxy else app)
        address = PublicAddress(world.team, url, world.system, token, secrets, transport)
        address.is_provider_down = is_provider_down
        return await by_name(check_public(address))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the probe of streams take no time. Transports in this process hold every answer back."""
    monkeypatch.setattr(mcp_endpoint, "PROBE_SECONDS", 0.0)


def answering(path: str, response: ASGIApp) -> Any:
    """A proxy that answers at one path itself."""

    def proxy(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await (response if scope["path"] == path else app)(scope, receive, send)

        return handle

    return proxy


def changing_host(app: ASGIApp) -> ASGIApp:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        await app({**scope, "headers": [*headers, (b"host", b"replica-1:8080")]}, receive, send)

    return handle


def without_challenge(app: ASGIApp) -> ASGIApp:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        async def strip(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"www-authenticate"]
            await send(message)

        await app(scope, receive, strip)

    return handle


def limiting(most: int, status: int = 413) -> Any:
    """A proxy that takes bodies of at most this many bytes."""

    def proxy(app: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            length = int(dict(scope["headers"]).get(b"content-length", b"0"))
            await (PlainTextResponse("", status) if length > most else app)(scope, receive, send)

        return handle

    return proxy


@pytest.mark.usefixtures("quick")
async def test_working_proxy_has_no_finding_but_streams(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    outcome = await outside(world, limiting(1024 * 1024), world.provider.token())
    assert wrong(outcome) == {"streams"}  # held back by the transport of this test
    assert outcome["body limits"].verdict is OK
    assert "6 sign-ins" in outcome["approval page address"].finding
    assert outcome["signed-in call"].verdict is OK


@pytest.mark.usefixtures("quick")
async def test_provider_that_is_down_is_named_and_not_the_proxy(tmp_path: Path) -> None:
    async def refused(*_: object) -> None:
        raise httpx2.ConnectError("All connection attempts failed")

    for app, words in ((refused, "ConnectError"), (PlainTextResponse("", 503), "answered 503")):
        world = world_in(tmp_path)
        world.keys = type(world.keys)(world.team.issuer, world.system, httpx2.ASGITransport(app=app))
        (check,) = (await checked_provider(world)).values()
        assert (check.name, check.verdict, check.finding) == ("issuer", FAILED, PROVIDER_DOWN)
        assert words in check.here
        for proxy, name in (
            (None, "approval page address"),  # the server's own answer
            (answering("/mcp", PlainTextResponse("", 503)), "sign-in challenge"),  # a balancer without a ready replica
        ):
            outcome = await outside(world, proxy, is_provider_down=True)
            assert wrong(outcome) - {"streams"} == {name}
            assert outcome[name].next == "See the row issuer first."


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("proxy", "name", "words"),
    [
        (changing_host, "sign-in challenge", "proxy_set_header Host"),
        (without_challenge, "sign-in challenge", "pass WWW-Authenticate on"),
        (
            answering("/mcp", RedirectResponse("https://elsewhere.example/mcp", 308)),
            "sign-in challenge",
            "final address",
        ),
        (answering("/mcp", PlainTextResponse("", 502)), "sign-in challenge", "replicas run"),
        (answering("/mcp", PlainTextResponse("", 404)), "sign-in challenge", "Pass the path of `url` on"),
        (answering("/mcp", PlainTextResponse("", 403)), "sign-in challenge", "firewall"),
        (
            answering("/.well-known/oauth-protected-resource/mcp", PlainTextResponse("", 404)),
            "metadata",
            "Pass /.well-known",
        ),
        (answering("/healthz", PlainTextResponse("", 503)), "probe", "replicas run"),
        (answering("/approvals/login", PlainTextResponse("", 404)), "approval page address", "Pass the path"),
        (limiting(1000), "body limits", "client_max_body_size 1048576;"),
        (limiting(1000, 500), "body limits", "log of the proxy"),
    ],
)
async def test_fault_of_the_proxy_has_its_next_step(proxy: Any, name: str, words: str, tmp_path: Path) -> None:
    outcome = await outside(world_in(tmp_path), proxy)
    assert wrong(outcome) - {"streams"} == {name}
    assert words in outcome[name].next


@pytest.mark.usefixtures("quick")
async def test_replica_with_another_team_file_is_found(tmp_path: Path) -> None:
    other = world_in(tmp_path / "other", WITH_PAGE.replace("/realms/team", "/realms/old") + TENANTS)
    async with replica(other) as app:
        outcome = await outside(world_in(tmp_path / "one"), lambda _: app)
    assert "metadata" in wrong(outcome)


@pytest.mark.usefixtures("quick")
async def test_replica_with_another_state_secret_is_found(tmp_path: Path) -> None:
    """Replicas seal what a browser carries; each has to open what the others sealed."""
    one, two = world_in(tmp_path / "one"), world_in(tmp_path / "two", secret="another-secret-of-32-characters!!")
    turns = itertools.count(1)
    async with replica(two) as second:

        def balancing(first: ASGIApp) -> ASGIApp:
            async def handle(scope: Scope, receive: Receive, send: Send) -> None:
                await (first, second)[next(turns) % 2](scope, receive, send)

            return handle

        outcome = await outside(one, balancing)
    assert "approval page address" in wrong(outcome)
    assert "3 of 6 sign-ins" in outcome["approval page address"].finding


@pytest.mark.usefixtures("quick")
async def test_sealing_is_not_checked_without_the_state_secret(tmp_path: Path) -> None:
    outcome = await outside(world_in(tmp_path), secret="")
    assert outcome["approval page address"].verdict is SKIPPED


@pytest.mark.parametrize("is_held_back", [False, True])
async def test_stream_that_a_proxy_holds_back_is_found(is_held_back: bool, tmp_path: Path) -> None:
    """Keep-alives of long calls have to arrive before the answer."""
    world = world_in(tmp_path)
    async with replica(world) as app:

        async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
            held: list[Message] = []

            async def hold(message: Message) -> None:
                held.append(message)

            inner = {**scope, "headers": [*headers, (b"host", b"fastn-mcp.example.com")]}
            await app(inner, receive, hold if is_held_back else send)
            for message in held:
                await send(message)

        with listening(proxy) as at:
            answer = await by_name(check_public(PublicAddress(world.team, f"{at}/mcp", world.system)))
    assert answer["streams"].verdict is (FAILED if is_held_back else OK)


# --- keys of tenants --------------------------------------------------------------------------------------------------


KEY_CASES = {
    "accepted": (200, OK, "Fastn accepts it."),
    "without the permission": (403, OK, "It may not list workflows."),
    "refused": (401, FAILED, "Fastn does not accept the API key (401)."),
    "not there": (404, FAILED, "It could not be checked."),
}


@pytest.mark.parametrize("case", KEY_CASES.values(), ids=KEY_CASES)
async def test_key_of_each_tenant_is_tried_by_one_read(case: tuple[int, CheckResult, str], tmp_path: Path) -> None:
    status, verdict, words = case
    asked = list[str]()

    async def fastn(request: Request) -> Response:
        asked.append(f"{request.method} {request.headers['x-fastn-api-key']}")
        return JSONResponse({"data": []}, status)

    with listening(Starlette(routes=[Route("/{path:path}", fastn)])) as at:
        text = HEAD + TENANTS.replace('api_key_env = "ACME_KEY"', f'api_key_file = "acme.key"\nbase_url = "{at}"')
        text = text.replace('api_key_env = "GLOBEX_KEY"', f'api_key_env = "GLOBEX_KEY"\nbase_url = "{at}"')
        world = world_in(tmp_path, text)
        (tmp_path / "acme.key").write_text("fsk_test_other")
        world.opening.process = replace(world.opening.process, sandbox=None)
        checks = await by_name(check_keys(world.opening))
    assert asked == ["GET fsk_test_other", "GET fsk_test_globex"]
    assert {name: check.verdict for name, check in checks.items()} == {"key of acme": verdict, "key of globex": verdict}
    assert words in checks["key of acme"].finding
    if status == 401:
        assert 'api_key_file "acme.key"' in checks["key of acme"].next
        assert 'api_key_env "GLOBEX_KEY"' in checks["key of globex"].next


# --- own calls --------------------------------------------------------------------------------------------------------


OWN_CALLS = {
    "not said": (WITH_PAGE, "Nobody approves a call of their own that is access or destroy", set[str]()),
    "all": (WITH_PAGE.replace("[approvals]", "[approvals]\nown = true"), "People approve each call", set[str]()),
    "none": (WITH_PAGE.replace("[approvals]", "[approvals]\nown = false"), "Nobody approves a call", set[str]()),
    "nobody else": (HEAD + PAGE, "Nobody approves a call of their own", {"approvers of acme"}),
    "nobody else, and own": (HEAD + PAGE.replace("[approvals]", "[approvals]\nown = true"), "People", set[str]()),
    "no page": (HEAD, "Nobody approves a call of their own", set[str]()),
}


@pytest.mark.parametrize("case", OWN_CALLS.values(), ids=OWN_CALLS)
def test_own_calls_of_people_are_said(case: tuple[str, str, set[str]], tmp_path: Path) -> None:
    text, finding, lacks = case
    checks = checked_settings(world_in(tmp_path, text + TENANTS))
    assert (checks["own calls"].verdict, finding in checks["own calls"].finding) == (OK, True)
    assert wrong(checks) == lacks
    assert all("Nobody may approve its calls that are access or destroy" in checks[name].finding for name in lacks)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def isolated(tmp_path: Path) -> dict[str, str]:
    return {"FASTN_CONFIG": os.devnull, "FASTN_CONFIG_DIR": str(tmp_path), "FASTN_STATE_DIR": str(tmp_path), **KEYS}


NOWHERE = re.sub('(api_key_env = "[A-Z_]+")', r'\1\nbase_url = "http://127.0.0.1:9"', TENANTS)
"""Tenants whose Fastn cannot be reached."""


@pytest.mark.parametrize("arguments", [["--token-file", "-"], ["--url", AUDIENCE]])
def test_options_that_do_not_belong_together_are_refused(arguments: list[str], isolated: dict[str, str]) -> None:
    done = run_command(["doctor", *arguments], isolated)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--team" in done.stderr


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        (HEAD + "clientid = 1\n" + TENANTS, {}, "clientid"),
        (HEAD + TENANTS, {"FASTN_STATE_SECRET": "short"}, "32 characters"),
        (HEAD + TENANTS, {"FASTN_LEDGER": "valkey://127.0.0.1:1"}, "state_secret is not set"),
    ],
)
def test_problem_that_stops_the_start_is_a_finding(
    text: str, variables: dict[str, str], words: str, isolated: dict[str, str], tmp_path: Path
) -> None:
    file = written(tmp_path, text)
    done = run_command(["doctor", "--json", "--team", str(file)], isolated | variables)
    (check,) = json.loads(done.stdout)["checks"]
    assert (done.returncode, check["verdict"]) == (2, "failed")
    assert words in check["finding"] + check["next"]
    assert str(tmp_path) not in done.stdout


def test_missing_team_file_is_named_on_this_machine_only(isolated: dict[str, str], tmp_path: Path) -> None:
    missing = str(tmp_path / "team.toml")
    done = run_command(["doctor", "--team", missing], isolated)
    assert (done.returncode, f"There is no team file FILE. FILE is {missing}." in done.stdout) == (2, True)


def test_server_without_its_provider_is_not_blamed_on_the_proxy(isolated: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    with listening(PlainTextResponse("", 503), port) as at:
        text = HEAD.replace("https://login.example.com", "http://127.0.0.1:9").replace(AUDIENCE, f"{at}/mcp")
        command = ["doctor", "--json", "--team", str(written(tmp_path, text + NOWHERE))]
        done = run_command(command, isolated)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert (checks["issuer"]["verdict"], checks["issuer"]["finding"]) == ("failed", PROVIDER_DOWN)
    assert checks["sign-in challenge"]["next"] == "See the row issuer first."
    assert "proxy" not in checks["sign-in challenge"]["finding"]


def test_all_unreachable_parts_are_reported_at_once(isolated: dict[str, str], tmp_path: Path) -> None:
    token = Provider().token()
    text = HEAD.replace("https://login.example.com", "http://127.0.0.1:9").replace(AUDIENCE, "http://127.0.0.1:9/mcp")
    variables = {"FASTN_LEDGER": "valkey://127.0.0.1:9", "FASTN_STATE_SECRET": SECRET}
    command = ["doctor", "--json", "--team", str(written(tmp_path, text + NOWHERE)), "--token-file", "-"]
    done = run_command(command, isolated | variables, given=token)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 2
    failed = {name for name, check in checks.items() if check["verdict"] == "failed"}
    assert failed == {"key of acme", "key of globex", "ledger", "issuer", "token", "sign-in challenge", "probe"}
    assert all(checks[name]["next"] for name in failed)
    assert token not in done.stdout + done.stderr
