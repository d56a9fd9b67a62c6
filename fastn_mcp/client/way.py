"""How a connection to Fastn is made: what certificates are trusted, and through which proxy."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpcore2

from fastn_mcp.proxies import address_of


@dataclass(frozen=True, slots=True)
class Way:
    """`ca_file` is trusted besides the system's store; `proxy` is asked by CONNECT, so that it sees no request.

    `proxy_from` is the variable that names it, for people.
    """

    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    proxy_from: str = "FASTN_PROXY"


def context(way: Way) -> ssl.SSLContext:
    """What is trusted: the system's store, or what SSL_CERT_FILE and SSL_CERT_DIR put in its place, and the file.

    Raises `OSError`, of which `ssl.SSLError` is one, where they cannot be read.
    """
    trusted = httpcore2.default_ssl_context()
    if way.ca_file is not None:
        trusted.load_verify_locations(cafile=way.ca_file)
    return trusted


def proxy_of(proxy: str) -> tuple[str, tuple[str, str] | None]:
    """The address of a proxy, and the name and password that it wants."""
    parts = urlsplit(proxy)
    name = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return f"http://{address_of(proxy)}", name
