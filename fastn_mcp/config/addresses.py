"""URLs, HOST:PORT addresses, addresses of ledgers, and proxy variables of the environment."""

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY")
"""Proxy variables, in the usual order. HTTP_PROXY is for plain http, which never leaves this machine."""


def named_by(environment: Mapping[str, str], url: str) -> tuple[str, str] | None:
    """Return the proxy variable and its proxy for a URL; None if the URL is reached directly."""
    variable = next((name for name in PROXY_VARIABLES if environment.get(name)), None)
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or 443
    except ValueError:
        return None  # not a URL; the check of the settings reports it
    if variable is None or parts.scheme != "https" or is_loopback(host):
        return None
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY")
    if exempt and _is_exempt(host, port, exempt):
        return None
    return variable, environment[variable]


def _is_exempt(host: str, port: int, exempt: str) -> bool:
    """Return whether NO_PROXY covers a host."""
    from urllib import request  # slow to import, and rarely needed

    # urllib compares names and domains. It knows no network or IPv6 address without brackets, and `*` only alone.
    entries = [entry.strip() for entry in exempt.split(",")]
    if "*" in entries:
        return True
    for entry in entries:
        with suppress(ValueError):
            if ip_address(host) in ip_network(entry.strip("[]"), strict=False):
                return True
    # typeshed does not know this function.
    return request.proxy_bypass_environment(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        f"{url_host(host)}:{port}", {"no": exempt}
    )


def address_of(proxy: str) -> str:
    """Return host and port of a proxy, without name and password."""
    parts = urlsplit(proxy)
    return f"{url_host(parts.hostname or '')}:{parts.port or 80}"


def url_host(host: str) -> str:
    """Return a host as in a URL, where an IPv6 address has brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its name alone, without a lookup."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(url: str) -> SplitResult:
    """Split a URL. Raises `ValueError`, also for an invalid port."""
    if not all("!" <= letter <= "~" for letter in url):
        raise ValueError("holds a space, a line break or another character that no address has")
    parts = urlsplit(url)
    try:
        parts.port  # noqa: B018 - reading it is the check
    except ValueError:
        raise ValueError("has an invalid port") from None
    return parts


def callable_address(url: str) -> str:
    """Validate a URL that requests may be sent to. Raises `ValueError`."""
    parts = split_address(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an https address, for example https://live.fastn.ai")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("must be scheme, host and at most a port and a path")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https; plain http is for this machine only (127.0.0.1, localhost)")
    return url


def plain_address(url: str) -> str:
    """Validate a URL of only a scheme, a host and optionally a port and a path. Raises `ValueError`."""
    if any(letter in url for letter in "?#@*\\\"'<>"):
        raise ValueError("must be scheme, host and at most a port and a path")
    return callable_address(url)


def host_and_port(address: str, lowest: int = 1) -> tuple[str, int]:
    """Split `HOST:PORT`, without the brackets of IPv6. Raises `ValueError`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdecimal()) or not lowest <= int(port) <= 65535:
        raise ValueError("is not HOST:PORT, for example 127.0.0.1:8790")
    return host, int(port)


def is_shared(ledger: str | None) -> bool:
    """Return whether the address of a ledger names a server rather than a file."""
    return ledger is not None and "://" in ledger


def ledger_file(ledger: str) -> Path:
    """Return the path in the address of a ledger that is a file, with or without `sqlite:` before it."""
    return Path(ledger.removeprefix("sqlite:")).expanduser()


def absolute_ledger(ledger: str, folder: Path) -> str:
    """Return the address of a ledger, with a relative path resolved from `folder`."""
    return ledger if is_shared(ledger) else str(folder / ledger_file(ledger))
