"""The address of a shared ledger, as a URL. Pure: nothing is looked up or opened."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from fastn_mcp.proxies import is_loopback

SCHEMES = ("valkey", "valkeys", "redis", "rediss")
"""What a URL can begin with; those that end in a second s speak TLS."""

_TLS = ("valkeys", "rediss")
_OPTIONS = {
    "ca": (r".+", "a file of certificates"),
    "cluster": (r"yes|no", "yes or no"),
    "copies": (r"\d", "a number from 0 to 9"),
    "name": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "at most 64 letters, digits and _ . -"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and which ledger on it."""

    host: str
    port: int = 6379
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = "fastn"
    """Which ledger. It stands before every key, in braces: all keys of one ledger share a slot of a cluster."""
    ca: Path | None = None
    """Whom to trust, instead of those whom the machine trusts."""
    cluster: bool = False
    copies: int = 0
    """Replicas of the server that must have a change before it counts."""

    @property
    def shown(self) -> str:
        """It, without what is secret."""
        return f"{self.host}:{self.port}"

    @property
    def weakness(self) -> str | None:
        """What is wrong with how it is reached; None on this machine itself."""
        lacks = [name for name, has in (("TLS", self.tls), ("a password", self.password)) if not has]
        if is_loopback(self.host) or not lacks:
            return None
        return (
            f"it is used without {' and without '.join(lacks)}."
            " Whoever reaches or reads that network can approve calls."
            " Use valkeys://USER:PASSWORD@HOST (docs/shared-ledger.md)."
        )


def parse(url: str) -> Address:
    """The address. Raises `ValueError` with what is wrong, which never holds the URL."""
    if not all("!" <= letter <= "~" for letter in url):
        raise ValueError("holds a space, a line break or another character that no URL has")
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"must begin with one of: {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is none") from None
    if not parts.hostname or parts.fragment or not re.fullmatch(r"/?\d{0,4}", parts.path):
        raise ValueError("must be SCHEME://[USER:PASSWORD@]HOST[:PORT][/NUMBER OF THE DATABASE][?OPTIONS]")
    address = Address(
        host=parts.hostname,
        port=port or 6379,
        tls=parts.scheme in _TLS,
        database=int(parts.path.strip("/") or "0"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        **_options(parts.query),
    )
    if address.cluster and (address.database or address.copies):
        raise ValueError("is a cluster, which has neither databases nor the option copies")
    if address.ca is not None and not address.tls:
        raise ValueError("has the option ca, and speaks no TLS: begin with valkeys://")
    return address


def _options(query: str) -> dict[str, Any]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in given.items():
        if name not in _OPTIONS:
            raise ValueError(f"has an option that is none: there are {', '.join(_OPTIONS)}")
        pattern, meaning = _OPTIONS[name]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"has the option {name}, which is {meaning}")
    read: dict[str, Callable[[str], Any]] = {"ca": Path, "cluster": "yes".__eq__, "copies": int, "name": str}
    return {name: read[name](value) for name, value in given.items()}
