"""How a connection to Fastn is made: what certificates are trusted, and through which proxy."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

_IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """`ca_file` is trusted besides the system's store; `proxy` is asked by CONNECT, so that it sees no request."""

    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)


def context(way: Way) -> ssl.SSLContext:
    """What is trusted: the system's store, or what SSL_CERT_FILE and SSL_CERT_DIR put in its place, and the file.

    Raises `OSError`, of which `ssl.SSLError` is one, where they cannot be read.
    """
    trusted = httpx2.create_ssl_context()
    if way.ca_file is not None:
        trusted.load_verify_locations(cafile=way.ca_file)
    return trusted


def connecting(base_url: str, way: Way) -> httpx2.AsyncHTTPTransport:
    """Pooled connections, which stay open for the life of the server. Raises `OSError` as `context` does."""
    secure = httpx2.URL(base_url).scheme == "https"
    return httpx2.AsyncHTTPTransport(
        # Loopback needs no certificates, and reading the system's costs tens of milliseconds.
        verify=context(way) if secure else False,
        limits=httpx2.Limits(max_connections=256, max_keepalive_connections=256, keepalive_expiry=_IDLE_SECONDS),
        # Plain http is for this machine; through a proxy it would be forwarded, key and all.
        proxy=way.proxy if secure else None,
    )
