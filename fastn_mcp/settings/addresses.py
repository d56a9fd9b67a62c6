"""Which addresses may be called. Pure: nothing is looked up."""

from urllib.parse import urlsplit

from fastn_mcp.proxies import is_loopback


def callable_address(url: str) -> str:
    """An address that may be called. Raises `ValueError`."""
    if not all("!" <= letter <= "~" for letter in url):
        raise ValueError("holds a space, a line break or another character that no address has")
    parts = urlsplit(url)
    try:
        parts.port  # noqa: B018 - reading it is the check
    except ValueError:
        raise ValueError("has a port that is none") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an https address, as https://live.fastn.ai")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("must be scheme, host and at most a port and a path")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https; plain http is for this machine only (127.0.0.1, localhost)")
    return url
