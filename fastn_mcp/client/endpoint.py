"""How the settings of an account are sent: headers, field names, proxy and TLS trust.

Fastn's pages disagree: the specification names x-fastn-api-key, newer documentation a bearer token, and older pages
require a space and a tenant as well. Each is therefore a setting.
"""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
from pydantic import JsonValue

from fastn_mcp import __version__
from fastn_mcp.config.addresses import address_of, url_host
from fastn_mcp.config.model import Settings
from fastn_mcp.tools.operation import Call, Request
from fastn_mcp.tools.paging import List, rows_of


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


def headers(settings: Settings) -> dict[str, str]:
    """Return the headers of every request."""
    key = settings.api_key
    sent = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the body limit applies to the unpacked size
        "User-Agent": f"fastn-mcp/{__version__}",
    }
    sent |= {"Authorization": f"Bearer {key}"} if settings.auth == "bearer" else {"x-fastn-api-key": key}
    if settings.test_mode == "on" or (settings.test_mode == "auto" and settings.key_kind == "test"):
        sent["X-fastn-Test-Mode"] = "true"
    optional = {
        "x-fastn-space-id": settings.space_id,
        "x-fastn-space-tenantid": settings.tenant_id,
        "x-end-org-id": settings.end_org_id,
        "x-fastn-env": settings.env,
    }
    return sent | {name: value for name, value in optional.items() if value}
