"""The issuer of `fastn-mcp sandbox --issuer`: what it publishes and signs, and who is refused."""

import base64
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from support.command_line import error_line, run_command
from support.ports import free_port
from support.team_world import KEYS, TENANTS, written

from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.sandbox.issuer import CLIENT, CLIENT_SECRET, TrialIssuer
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.sign_in import NotSignedIn, SignIn
from fastn_mcp.extensions.team.team_config import ApprovalsSection, load_team
from fastn_mcp.extensions.team.tokens import Tokens, Trust
from fastn_mcp.runtime import System

URL = "http://127.0.0.1:8765"
SERVER = "http://127.0.0.1:8080/mcp"
BACK = "http://127.0.0.1:8080/approvals/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
WELL_KNOWN = ("oauth-authorization-server", "openid-configuration")
REQUEST = {
    "response_type": "code", "client_id": "an-ide", "redirect_uri": "http://localhost:3030/callback", "state": "s",
    "resource": SERVER, "scope": "fastn:read", "code_challenge": CHALLENGE, "code_challenge_method": "S256",
}  # fmt: skip


class Clock:
    at = 1_800_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def transport(clock: Clock) -> httpx2.ASGITransport:
    async def api(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    return httpx2.ASGITransport(app=TrialIssuer(URL, lambda: clock.at).beside(api))


@pytest.fixture
async def http(transport: httpx2.ASGITransport) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
        yield client


async def code_for(http: httpx2.AsyncClient, person: str = "anna", **changed: str) -> dict[str, str]:
    """Return the query that a browser brings back after `person` was chosen."""
    page = await http.post(f"/authorize?{urlencode(REQUEST | changed)}", data={"person": person})
    return dict(parse_qsl(urlsplit(page.headers["location"]).query))


async def exchange(http: httpx2.AsyncClient, code: str, **changed: str) -> httpx2.Response:
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "client_id": "an-ide"}
    return await http.post("/token", data=form | {"redirect_uri": REQUEST["redirect_uri"]} | changed)


APPROVALS = ApprovalsSection(client_id=CLIENT, scopes=["openid"])


def trust() -> Trust:
    return Trust(URL, SERVER, ("ES256",), 1e9)


async def test_token_of_the_chosen_person_is_accepted_by_a_server(
    http: httpx2.AsyncClient, transport: httpx2.ASGITransport
) -> None:
    back = await code_for(http, "dana")
    assert (back["state"], back["iss"]) == ("s", URL)
    answer = (await exchange(http, back["code"])).json()
    token = await Tokens(trust(), IssuerKeys(URL, System(), transport), System()).verify(answer["access_token"])
    assert (token.subject, token.scopes, token.client_id) == ("dana", ["fastn:read"], "an-ide")
    assert token.claims is not None
    assert token.claims["groups"] == ["fastn-admins", "fastn-approvers"]


async def test_approval_page_signs_in_with_its_secret_only(
    transport: httpx2.ASGITransport, http: httpx2.AsyncClient
) -> None:
    keys, system = IssuerKeys(URL, System(), transport), System()
    sign_in = SignIn(trust(), keys, APPROVALS, CLIENT_SECRET, BACK, system)
    assert await sign_in.rejection() is None
    address, pending = await sign_in.begin()
    page = await http.post(address, data={"person": "dana"})
    query = dict(parse_qsl(urlsplit(page.headers["location"]).query))
    claims = await sign_in.finish(pending, sign_in.code(pending, query))
    assert (claims["sub"], claims["name"]) == ("dana", "Dana Example")
    with pytest.raises(NotSignedIn):  # a code works once
        await sign_in.finish(pending, query["code"])
    wrong = await SignIn(trust(), keys, APPROVALS, "guessed", BACK, system).rejection()
    assert wrong is not None
    assert "invalid_client" in wrong


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "w" * 43}, {"client_id": "another"}, {"client_id": ""}, {"redirect_uri": BACK},
        {"grant_type": "client_credentials"},
    ],
)  # fmt: skip
async def test_code_is_exchanged_by_its_client_only(changed: dict[str, str], http: httpx2.AsyncClient) -> None:
    code = (await code_for(http))["code"]
    refused = await exchange(http, code, **changed)
    assert refused.json()["error"] in ("invalid_grant", "invalid_client")
    assert "access_token" not in refused.json()


async def test_code_expires(http: httpx2.AsyncClient, clock: Clock) -> None:
    code = (await code_for(http))["code"]
    clock.at += 61
    assert (await exchange(http, code)).json() == {"error": "invalid_grant"}


async def test_nobody_is_signed_in_without_a_choice_on_the_page(http: httpx2.AsyncClient) -> None:
    address = f"/authorize?{urlencode(REQUEST)}"
    page = await http.get(address)
    assert (page.status_code, "Anna Example" in page.text) == (200, True)
    for sent, headers in (({"person": "mallory"}, {}), ({"person": "anna"}, {"sec-fetch-site": "cross-site"})):
        assert (await http.post(address, data=sent, headers=headers)).status_code == 200  # the page again
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "redirect",
    ["https://evil.example/cb", "http://evil.example/cb", "http://[", "", "<b>", "javascript://localhost/%0a"],
)
async def test_redirects_stay_on_this_machine(redirect: str, http: httpx2.AsyncClient) -> None:
    page = await http.post(f"/authorize?{urlencode(REQUEST | {'redirect_uri': redirect})}", data={"person": "anna"})
    assert (page.status_code, "location" in page.headers, "<b>" in page.text) == (400, False, False)


async def test_sign_in_without_pkce_is_refused(http: httpx2.AsyncClient) -> None:
    assert (await code_for(http, code_challenge_method="plain"))["error"] == "invalid_request"


async def test_mcp_clients_register(http: httpx2.AsyncClient) -> None:
    asked = {"redirect_uris": ["http://localhost:1/cb"], "client_name": "An IDE", "token_endpoint_auth_method": "x"}
    answer = await http.post("/register", json=asked)
    assert (answer.status_code, answer.json()["client_name"]) == (201, "An IDE")
    assert answer.json()["token_endpoint_auth_method"] == "none"
    assert answer.json()["client_id"] != (await http.post("/register", json=asked)).json()["client_id"]
    for wrong in (b"{", b"[]", b"{}"):
        assert (await http.post("/register", content=wrong)).json() == {"error": "invalid_client_metadata"}


async def test_oauth_clients_find_the_same_metadata(http: httpx2.AsyncClient) -> None:
    """RFC 8414, which MCP clients try first."""
    oauth, openid = [(await http.get(f"/.well-known/{name}")).json() for name in WELL_KNOWN]
    assert oauth == openid
    assert (oauth["issuer"], oauth["code_challenge_methods_supported"]) == (URL, ["S256"])


async def test_other_requests_reach_the_sandbox_and_other_hosts_nothing(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/api/v1/customers")
    assert (answer.status_code, answer.text) == (299, "/api/v1/customers")
    for path in ("/keys", "/api/v1/customers"):
        assert (await http.get(path, headers={"host": "rebound.example"})).status_code == 400


# --- a server that others reach
# ------------------------------------------------------------------------------------------


def team_file(folder: Path, url: str, more: str = "", issuer: str = URL) -> Path:
    return written(folder, f'url = "{url}"\nissuer = "{issuer}"\n{more}{TENANTS}')


@pytest.mark.parametrize(
    ("url", "more", "public"),
    [
        ("https://fastn-mcp.example.com/mcp", "", "fastn-mcp.example.com"),
        ("https://192.168.1.7:8443/mcp", "", "192.168.1.7:8443"),
        (SERVER, 'hosts = ["127.0.0.1:8080", "fastn.example.com"]\n', "fastn.example.com"),
        ("https://fastn.example.com/mcp", 'hosts = ["127.0.0.1:8080"]\n', "fastn.example.com"),
        (
            SERVER,
            '[approvals]\nclient_id = "x"\nclient_secret_env = "X"\nurl = "https://page.example.com/a"\n',
            "page.example.com",
        ),
    ],
)
def test_public_server_refuses_an_issuer_of_this_machine(url: str, more: str, public: str, tmp_path: Path) -> None:
    for issuer in (URL, "http://localhost:8765", "http://[::1]:8765", "https://127.8.8.8"):
        with pytest.raises(SettingsError) as refused:
            load_team(team_file(tmp_path, url, more, issuer))
        assert f"line 2: issuer: {issuer} is on this machine" in refused.value.what
        assert f"is reached from others, at {public}. " in refused.value.what


def test_server_of_this_machine_takes_an_issuer_of_this_machine(tmp_path: Path) -> None:
    team = load_team(team_file(tmp_path, SERVER, 'hosts = ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"]\n'))
    assert team.issuer == URL


def test_serving_other_machines_with_an_issuer_of_this_machine_is_refused(tmp_path: Path) -> None:
    command = ["--http", f"0.0.0.0:{free_port()}", "--team", str(team_file(tmp_path, SERVER))]
    folders = {name: str(tmp_path / name) for name in ("HOME", "FASTN_CONFIG_DIR", "FASTN_STATE_DIR")}
    done = run_command(command, folders | KEYS)
    error_line(done, f"{URL} is on this machine", "sandbox --issuer", "--http 127.0.0.1:PORT")
