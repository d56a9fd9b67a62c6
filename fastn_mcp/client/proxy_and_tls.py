"""The proxy and the TLS trust of requests to Fastn."""

import base64
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2

from fastn_mcp.config.addresses import address_of, url_host


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
