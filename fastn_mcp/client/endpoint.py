"""The Fastn account that a client connects to: address, credentials, headers, field names, proxy and TLS trust.

Fastn's pages disagree: the specification names x-fastn-api-key, newer documentation a bearer token, and older pages
require a space and a tenant as well. Each is therefore a setting.
"""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import httpx2
from pydantic import JsonValue

from fastn_mcp import __version__
from fastn_mcp.config.addresses import address_of, url_host
from fastn_mcp.config.model import kind_of
from fastn_mcp.errors import NoKey
from fastn_mcp.tools.operation import Call, Request, Route
from fastn_mcp.tools.paging import List, rows_of

MAX_TAIL = 4
"""Maximum number of characters of the key that are shown, and only of one that is long enough."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and credentials of one account. Deadlines are in seconds; `routes` are by tool name.

    `fields` maps each resource to its renamed fields: our name, and the one that this account uses.
    """

    base_url: str
    api_key: str = field(repr=False)
    auth: Literal["header", "bearer"] = "header"
    space_id: str | None = None
    tenant_id: str | None = None
    end_org_id: str | None = None
    env: str | None = None
    test_mode: Literal["auto", "on", "off"] = "auto"
    update: Literal["merge", "partial"] = "merge"
    deadline: float = 60.0
    ai_deadline: float = 300.0
    concurrency: int = 64
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    dashboard_url: str | None = None
    profile: str = "default"
    no_key: NoKey | None = None
    """Why there is no usable `api_key`. Every call then fails with this error."""

    @property
    def host(self) -> str:
        """Host and port, as named in error messages."""
        return urlsplit(self.base_url).netloc

    @property
    def identity(self) -> dict[str, JsonValue]:
        """What tells this account from others, for results: profile, host, environment, the last letters of its key."""
        tail = self.api_key[-MAX_TAIL:] if len(self.api_key) >= 4 * MAX_TAIL else ""
        identity = {"profile": self.profile, "host": self.host, "environment": self.env, "key_ends": tail}
        return {name: item for name, item in identity.items() if item}


def to_wire(request: Request, names: Mapping[str, str]) -> Request:
    """Return the request with the account's field names in its body. `names` are ours, each with the account's."""
    if request.body is None:
        return request
    body = {name: value for name, value in request.body.items() if name not in names}
    return replace(request, body=body | {names[name]: request.body[name] for name in names if name in request.body})


def from_wire(call: Call, body: JsonValue, names: Mapping[str, str]) -> None:
    """Add our field names to each row, beside the account's."""
    rows = rows_of(body)[0] if isinstance(call, List) else [body] if isinstance(body, dict) else []
    for row in rows:
        for our, their in names.items():
            if our not in row and their in row:
                row[our] = row[their]


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Proxy and TLS trust. `ca_file` adds to the system's store; `proxy` tunnels by CONNECT and sees no request.

    `proxy_from` is the variable that sets the proxy, for messages.
    """

    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    proxy_from: str = "FASTN_PROXY"


def tls_context(options: TransportOptions) -> ssl.SSLContext:
    """Trust the system's store, or SSL_CERT_FILE and SSL_CERT_DIR in its place, and `ca_file`.

    Raises `OSError` (also its subclass `ssl.SSLError`) if a file cannot be read.
    """
    context = httpx2.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    if options.ca_file is not None:
        context.load_verify_locations(cafile=options.ca_file)
    return context


def proxy_of(url: str) -> httpx2.Proxy:
    """Return the proxy that a URL names, with or without a scheme."""
    parts = urlsplit(url)
    auth = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return httpx2.Proxy(f"http://{address_of(url)}", auth=auth)


def tunnel_request(proxy: httpx2.Proxy, host: str, port: int) -> bytes:
    """Return the request that opens a tunnel through a proxy."""
    target = f"{url_host(host)}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.auth is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(':'.join(proxy.auth).encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def headers(endpoint: Endpoint) -> dict[str, str]:
    """Return the headers of every request."""
    key = endpoint.api_key
    sent = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the body limit applies to the unpacked size
        "User-Agent": f"fastn-mcp/{__version__}",
    }
    sent |= {"Authorization": f"Bearer {key}"} if endpoint.auth == "bearer" else {"x-fastn-api-key": key}
    if endpoint.test_mode == "on" or (endpoint.test_mode == "auto" and kind_of(key) == "test"):
        sent["X-fastn-Test-Mode"] = "true"
    optional = {
        "x-fastn-space-id": endpoint.space_id,
        "x-fastn-space-tenantid": endpoint.tenant_id,
        "x-end-org-id": endpoint.end_org_id,
        "x-fastn-env": endpoint.env,
    }
    return sent | {name: value for name, value in optional.items() if value}
