"""The Fastn account that a client speaks to: address, credentials, request headers, proxy and TLS trust.

Fastn's pages disagree: the specification names x-fastn-api-key, its newer documentation a bearer token, and older pages
want a space and a tenant as well. All of it is therefore a setting.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import httpcore2

from fastn_mcp import __version__
from fastn_mcp.config.addresses import address_of
from fastn_mcp.config.model import kind_of
from fastn_mcp.errors import NoKey
from fastn_mcp.tools.operation import Route


@dataclass(frozen=True, slots=True)
class Account:
    """Where Fastn is and who is calling. Deadlines are in seconds; `routes` are by tool name.

    `fields` are by resource: our name of a field, and the one that this account has instead.
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
    no_key: NoKey | None = None
    """Why `api_key` cannot be sent, where it cannot: every call then fails with it."""

    @property
    def host(self) -> str:
        """Host and port, as errors name the account."""
        return urlsplit(self.base_url).netloc


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """`ca_file` is trusted besides the system's store; `proxy` is asked by CONNECT, so that it sees no request.

    `proxy_from` is the variable that names it, for people.
    """

    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    proxy_from: str = "FASTN_PROXY"


def tls_context(options: TransportOptions) -> ssl.SSLContext:
    """What is trusted: the system's store, or what SSL_CERT_FILE and SSL_CERT_DIR put in its place, and the file.

    Raises `OSError`, of which `ssl.SSLError` is one, where they cannot be read.
    """
    trusted = httpcore2.default_ssl_context()
    if options.ca_file is not None:
        trusted.load_verify_locations(cafile=options.ca_file)
    return trusted


def proxy_of(proxy: str) -> tuple[str, tuple[str, str] | None]:
    """The address of a proxy, and the name and password that it wants."""
    parts = urlsplit(proxy)
    name = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return f"http://{address_of(proxy)}", name


def headers(account: Account) -> dict[str, str]:
    """The headers of every request."""
    key = account.api_key
    sent = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the cap on a body is a cap on what it unpacks to
        "User-Agent": f"fastn-mcp/{__version__}",
    }
    sent |= {"Authorization": f"Bearer {key}"} if account.auth == "bearer" else {"x-fastn-api-key": key}
    if account.test_mode == "on" or (account.test_mode == "auto" and kind_of(key) == "test"):
        sent["X-fastn-Test-Mode"] = "true"
    optional = {
        "x-fastn-space-id": account.space_id,
        "x-fastn-space-tenantid": account.tenant_id,
        "x-end-org-id": account.end_org_id,
        "x-fastn-env": account.env,
    }
    return sent | {name: value for name, value in optional.items() if value}
