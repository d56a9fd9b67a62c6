"""Machines of a team from their tokens to the audit entry: two replicas, Valkey, the certified provider.

docs/machines.md: a workload of an issuer like GitHub's, and two agents by client credentials, run one signed plan.
"""

import os
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey
from mcp import Client
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.identity_provider import listening
from support.machine_world import github_claims, machine
from support.openid_provider import OpenIDProviders, Shape, Storage
from support.raw_client import HTTP_HEADERS
from support.replica_pair import Replicas, two_replicas
from support.server_process import ERAS
from support.signed_plans import plan_text, sign_plan
from support.valkey_server import valkey_for

from fastn_mcp.build.composition import account_of, plan_account_of
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.team.team_config import load_team

pytestmark = pytest.mark.long

EXAMPLE = Path(__file__).parents[2] / "examples" / "team_machine.py"
ALLOW = '[[allow]]\ntool = "create_customer"\narguments = "any"\ncount = 7\n'
SIGNS = ec.generate_private_key(ec.SECP256R1())
PEM = SIGNS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _shape() -> Shape:
    """Return a provider with a client that has a secret, and one that has a key pair."""
    both = {"grant_types": ["client_credentials"], "redirect_uris": [], "response_types": []}
    public = ECKey.import_key(PEM).as_dict(private=False) | {"use": "sig", "alg": "ES256"}
    secret = {"client_id": "billing-agent", "client_secret": "of-the-billing-agent"}
    signs = {"client_id": "cleanup-agent", "token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [public]}}
    return Shape("/team", {}, clients=(both | secret, both | signs), token_claims={"aud": "the-team"})


def _machines(github: str) -> str:
    claims = 'claims = { repository = "acme/reports", ref = "refs/heads/main" }'
    clients = (machine(name, f'client_id = "{name}-agent"') for name in ("billing", "cleanup"))
    return machine("nightly-report", f'issuer = "{github}"', claims) + "".join(clients)


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    providers = OpenIDProviders()
    yield providers.serve(_shape())
    providers.stop()


class Balanced(httpx2.AsyncHTTPTransport):
    """Send what is for the public address to the replica at a port."""

    def __init__(self, site: str, port: int) -> None:
        super().__init__()
        self._site, self._port = httpx2.URL(site), port

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.netloc == self._site.netloc:
            url = request.url.copy_with(port=self._port)  # the Host stays that of the public address
            stream, extensions = request.stream, request.extensions
            request = httpx2.Request(request.method, url, headers=request.headers, stream=stream, extensions=extensions)
        return await super().handle_async_request(request)


def _auths(replicas: Replicas, issuer: str, url: str) -> dict[str, httpx2.Auth | dict[str, str]]:
    """Return how each machine signs in at an address of the server."""
    token = replicas.provider.token(header={"typ": "JWT"}, **github_claims(aud="the-team"))
    assertion = SignedJWTParameters(
        issuer="cleanup-agent", subject="cleanup-agent", signing_algorithm="ES256", signing_key=PEM
    ).create_assertion_provider()
    return {
        "nightly-report": {"authorization": f"Bearer {token}"},
        "billing": ClientCredentialsOAuthProvider(
            url, Storage(), "billing-agent", "of-the-billing-agent", issuer=issuer
        ),
        "cleanup": PrivateKeyJWTOAuthProvider(url, Storage(), "cleanup-agent", assertion, issuer=issuer),
    }


async def _create(replicas: Replicas, port: int, auth: Any, mode: str, name: str) -> dict[str, Any]:
    how: dict[str, Any] = {"headers": auth} if isinstance(auth, dict) else {"auth": auth}
    how["transport"] = Balanced(replicas.site, port)
    url = f"{replicas.site}/mcp"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=60, **how))
        client = await stack.enter_async_context(Client(streamable_http_client(url, http_client=http), mode=mode))
        await client.list_tools()  # as agents do; the SDK signs in and steps up in two requests
        result = (await client.call_tool("create_customer", {"name": name})).structured_content
        assert result is not None
        return dict(result)


async def test_machines_run_a_signed_plan_on_two_replicas(tmp_path: Path, issuer: str) -> None:
    (tmp_path / "valkey").mkdir()
    with (
        valkey_for(tmp_path / "valkey") as valkey,
        two_replicas(tmp_path, valkey.url(), issuer=issuer, settings=_machines) as replicas,
    ):
        tenant = load_team(tmp_path / "team.toml").named("acme")
        assert tenant is not None
        settings = tenant.settings({"ACME_KEY": KEY}, None)
        site = f"{replicas.site}/mcp"
        # Not signed yet: the machine is refused, and the servers run.
        unsigned = await _refusal(replicas, _auths(replicas, issuer, site)["nightly-report"])
        assert "The plan of the machine nightly-report cannot be used, and nothing was sent." in unsigned
        sign_plan(tmp_path / "nightly.toml", plan_text(account_of(settings), ALLOW), plan_account_of(settings))
        done: list[tuple[str, int]] = []
        for number, (era, mode) in enumerate(ERAS.items()):
            for place, machine in enumerate(("nightly-report", "billing", "cleanup")):
                port = (replicas.one, replicas.other)[(number + place) % 2]
                made = await _create(replicas, port, _auths(replicas, issuer, site)[machine], mode, f"{machine} {era}")
                assert made.get("done") == "create_customer", made
                done.append((machine, port))
        assert await _script(replicas, tmp_path) == "create_customer done\n"
        done.append(("nightly-report", replicas.one))
        for port in (replicas.one, replicas.other):
            beyond = await _create(replicas, port, _auths(replicas, issuer, site)["cleanup"], "legacy", "one too many")
            assert "All calls that plan nightly.toml" in beyond["message"]
        audited = [(str(entry["machine"]), port) for port, entry in replicas.audited("intent")]
        principals = {str(entry["principal"]) for _, entry in replicas.audited("intent")}
        approvers = {entry["approved_by"] for _, entry in replicas.audited("intent")}
    assert sorted(audited) == sorted(done)
    assert len([request for request in replicas.sandbox.requests if request.method != "GET"]) == len(done) == 7
    workload = f"{replicas.provider.issuer}|repo:acme/reports:environment:production"
    assert principals == {workload, f"{issuer}|billing-agent", f"{issuer}|cleanup-agent"}
    assert len(approvers) == 1


async def _script(replicas: Replicas, folder: Path) -> str:
    """Run the example for GitHub Actions as a job does, and return what it prints."""

    async def issue(request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer of-the-job"
        claims = github_claims(aud=request.query_params["audience"])
        return JSONResponse({"value": replicas.provider.token(header={"typ": "JWT"}, **claims)})

    (folder / "calls.jsonl").write_text('{"tool": "create_customer", "arguments": {"name": "By the job"}}\n')
    with listening(Starlette(routes=[Route("/", issue)])) as at:
        github = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{at}/?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
        }
        server = {"FASTN_MCP_URL": f"{replicas.site}/mcp", "FASTN_MCP_AUDIENCE": "the-team"}
        command = [sys.executable, str(EXAMPLE), str(folder / "calls.jsonl")]
        ran = await anyio.run_process(command, env={**os.environ, **github, **server}, stderr=None)
    return ran.stdout.decode()


async def _refusal(replicas: Replicas, headers: Any) -> str:
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with httpx2.AsyncClient(headers=headers | HTTP_HEADERS) as http:
        answer = await http.post(f"http://127.0.0.1:{replicas.one}/mcp", json=body)
    assert answer.status_code == 403
    return str(answer.json()["error"]["message"])
