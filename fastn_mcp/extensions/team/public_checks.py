"""Checks of a team's server from outside, through its public address and so through the proxy in front of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.server.auth.routes import build_resource_metadata_url
from pydantic import AnyHttpUrl

from fastn_mcp.build.check import Check, CheckGroup, CheckResult
from fastn_mcp.client.error_mapping import unreachable
from fastn_mcp.client.proxy_and_tls import TransportOptions, tls_context
from fastn_mcp.extensions.team.approval_page import pending_cookie
from fastn_mcp.extensions.team.team_config import Team, origin_of
from fastn_mcp.guard.seal import Seal
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System
from fastn_mcp.server.http.app import ALIVE
from fastn_mcp.server.http.mcp_endpoint import PROBE_SECONDS, STREAM_PROBE

_GROUP = CheckGroup.PUBLIC

_NETWORK_HINT = (
    "Check `url` of the team file, its DNS record, and that the proxy listens there with a certificate for this host"
    " that clients trust, with its whole chain."
)

_SIGN_INS = 6
"""Sign-ins that are begun, each on a connection of its own, so that every replica is likely to answer one."""

_REJECTIONS = {
    421: (
        "Host is not passed on unchanged, or `hosts` lacks it: the server does not serve the host that arrives.",
        "In nginx: proxy_set_header Host $http_host; elsewhere: preserve the host header.",
    ),
    404: ("Nothing is served at this path.", "Pass the path of `url` on unchanged, and /.well-known/ beside it."),
    403: ("The request is forbidden before it reaches the server.", "Let the proxy, or its firewall, pass POST on."),
}
_NO_REPLICA = ("The proxy reaches no replica.", "Check that replicas run, and their addresses in the proxy.")

PROVIDER_DOWN = (
    "The identity provider does not answer: nobody can sign in. Replicas that have its keys keep working for a day."
)
_NOT_READY = ("Replicas without the keys of the identity provider are not ready.", "See the row issuer first.")


@dataclass(slots=True)
class PublicAddress:
    """The public address of a team's server. `url` is by default the team file's."""

    team: Team
    url: str
    system: System
    token: str | None = None
    secrets: list[str] = field(default_factory=list[str])
    transport: httpx2.AsyncBaseTransport | None = None
    sent: int = 0
    is_provider_down: bool = False
    """Whether the identity provider was seen to be down, which explains errors of the server."""

    def at(self, path: str) -> str:
        return f"{origin_of(self.url)}{path}"

    @property
    def metadata(self) -> str:
        """Address of the protected resource metadata, as the server names it."""
        return str(build_resource_metadata_url(AnyHttpUrl(self.team.url)))

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[httpx2.AsyncClient]:
        async def count(_: httpx2.Request) -> None:
            self.sent += 1

        verify = tls_context(TransportOptions()) if self.transport is None else True
        async with httpx2.AsyncClient(
            transport=self.transport, verify=verify, trust_env=False, timeout=10, event_hooks={"request": [count]}
        ) as http:
            yield http


async def check_public(address: PublicAddress) -> AsyncIterator[Check]:
    """Check the network and the proxy. Nothing is changed: the only signed-in request asks for the list of tools."""
    async with address.client() as http:
        challenge = await _attempt(_challenge(address, http), "sign-in challenge")
        yield challenge
        yield await _attempt(_probe(address, http), "probe")
        if challenge.verdict is not CheckResult.OK:
            return
        yield await _attempt(_metadata(address, http), "metadata")
        yield await _attempt(_bodies(address, http), "body limits")
        yield await _attempt(_stream(address, http), "streams")
        if address.team.page_url is not None:
            yield await _attempt(_page(address), "approval page address")
        yield await _attempt(_signed_in(address, http), "signed-in call")


async def _attempt(check: Awaitable[Check], name: str) -> Check:
    try:
        return await check
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        return _GROUP.failed(name, f"It cannot be reached: {unreachable(error, None)[0]}.", _NETWORK_HINT)
    except (httpx2.TransportError, OSError) as error:
        finding = f"The connection ended without an answer ({type(error).__name__})."
        return _GROUP.failed(name, finding, "See the log of the proxy.")


def _rejection(address: PublicAddress, name: str, response: httpx2.Response) -> Check:
    status = response.status_code
    location = response.headers.get("location")
    if location:
        finding = "It redirects, which MCP clients do not follow with a token."
        return _GROUP.failed(name, finding, "Set `url` to the final address.", f"To {quote(location)}.")
    down = _NOT_READY if address.is_provider_down else _NO_REPLICA
    finding, hint = down if status >= 500 else _REJECTIONS.get(status, ("It is not the server's answer.", ""))
    return _GROUP.failed(name, f"It answers {status}. {finding}", hint or "See the log of the proxy.")


async def _challenge(address: PublicAddress, http: httpx2.AsyncClient) -> Check:
    name = "sign-in challenge"
    response = await http.post(address.url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    if response.status_code != 401:
        return _rejection(address, name, response)
    named = response.headers.get("www-authenticate", "")
    if f'resource_metadata="{address.metadata}"' not in named:
        finding = "401, without the address of the metadata in WWW-Authenticate: clients cannot sign in."
        return _GROUP.failed(name, finding, "Let the proxy pass WWW-Authenticate on.", f"It is {quote(named)}.")
    return _GROUP.ok(name, "401 names the metadata, and Host arrives unchanged.")


async def _probe(address: PublicAddress, http: httpx2.AsyncClient) -> Check:
    response = await http.get(address.at(ALIVE))
    if response.status_code == 200 and _json(response).get("status") == "ok":
        return _GROUP.ok("probe", f"{ALIVE} answers. Only the operator needs it.")
    if response.status_code == 404:
        return _GROUP.ok("probe", f"{ALIVE} is not passed on, as in deploy/nginx.conf.")
    return _rejection(address, "probe", response)


async def _metadata(address: PublicAddress, http: httpx2.AsyncClient) -> Check:
    name = "metadata"
    team = address.team
    response = await http.get(address.at(urlsplit(address.metadata).path))
    metadata = _json(response)
    if response.status_code != 200 or not metadata:
        hint = "Pass /.well-known/oauth-protected-resource on to the server."
        return _GROUP.failed(name, f"It answers {response.status_code}, without the metadata.", hint)
    if metadata.get("resource") != team.url or metadata.get("authorization_servers") != [team.issuer]:
        finding = "It names another resource or issuer: another server, or another team file, answers there."
        here = f"resource {quote(metadata.get('resource'))}, issuer {quote(metadata.get('authorization_servers'))}"
        return _GROUP.failed(name, finding, "Start each replica with the same team file.", here)
    return _GROUP.ok(name, "Its resource is `url`, and it names the issuer.")


async def _bodies(address: PublicAddress, http: httpx2.AsyncClient) -> Check:
    name = "body limits"
    most = address.team.limits.body_bytes
    try:
        status = (await http.post(address.url, content=b" " * most)).status_code
    except (httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):
        status = 413  # closed while it was sent
    if status not in (401, 413):
        finding = f"It answers {status} to a body of body_bytes ({most}): larger calls fail."
        return _GROUP.failed(name, finding, "See the log of the proxy: it may not be able to buffer requests.")
    if status == 413:
        finding = f"The proxy takes less than body_bytes ({most}): larger calls fail."
        return _GROUP.differs(name, finding, f"In nginx: client_max_body_size {most};")
    return _GROUP.ok(name, f"Bodies of {most} bytes, the most that the server reads, pass the proxy.")


async def _stream(address: PublicAddress, http: httpx2.AsyncClient) -> Check:
    name = "streams"
    began = None
    async with http.stream("GET", f"{address.url}{STREAM_PROBE}") as response:
        if response.status_code != 200:
            return _rejection(address, name, response)
        async for _ in response.aiter_raw():
            began = began or address.system.monotonic()
    if began is None or address.system.monotonic() - began < PROBE_SECONDS / 2:
        finding = "The proxy holds answers back until they are complete: clients see no progress, and may give up."
        return _GROUP.failed(name, finding, "Disable response buffering; in nginx: proxy_buffering off;")
    return _GROUP.ok(name, "Each part arrives at once.")


async def _page(address: PublicAddress) -> Check:
    """Begin sign-ins at the page, and open what replicas sealed with the secret that is set here."""
    name = "approval page address"
    url = str(address.team.page_url)
    opened = 0
    for _ in range(_SIGN_INS):
        async with address.client() as http:
            response = await http.get(f"{url}/login")
        location = response.headers.get("location", "")
        if response.status_code != 303:
            return _rejection(address, name, response)
        if parse_qs(urlsplit(location).query).get("redirect_uri") != [f"{url}/callback"]:
            finding = "A replica names another redirect address: it has another team file."
            return _GROUP.failed(name, finding, "Start each replica with the same team file.")
        if address.secrets:
            opened += pending_cookie(url, Seal(address.secrets, address.system)).read(response.cookies) is not None
    if not address.secrets:
        hint = "Set FASTN_STATE_SECRET here as on the replicas, and run doctor again."
        return _GROUP.skipped(name, "It answers. Whether replicas share a state secret was not checked.", hint)
    if opened < _SIGN_INS:
        finding = f"{_SIGN_INS - opened} of {_SIGN_INS} sign-ins were sealed with another state secret."
        return _GROUP.failed(name, finding, "Set the same FASTN_STATE_SECRET on each replica, and here.")
    return _GROUP.ok(name, f"It answers, and {_SIGN_INS} sign-ins in a row were sealed with this state secret.")


async def _signed_in(address: PublicAddress, http: httpx2.AsyncClient) -> Check:
    name = "signed-in call"
    if address.token is None:
        return _GROUP.skipped(name, "No token was passed.", "--token-file FILE, or - for stdin.")
    headers = {"Authorization": f"Bearer {address.token}", "Accept": "application/json, text/event-stream"}
    response = await http.post(address.url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers)
    if response.status_code == 200:
        return _GROUP.ok(name, "The list of tools arrives.")
    error: Mapping[str, Any] = _json(response).get("error") or {}
    here = quote(str(error.get("message", "")), 300)
    return _GROUP.failed(name, f"It answers {response.status_code}.", "See the rows on the token.", here)


def _json(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}
