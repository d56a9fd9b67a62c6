"""`fastn-mcp health`: asks a server over HTTP whether it serves. Standard library only: it is asked often."""

import http.client
from urllib.parse import urlsplit

_PATIENCE = 3.0  # seconds
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - who listens everywhere is asked here


def trouble(address: str) -> str | None:
    """What is wrong with the server that listens at `HOST:PORT`; None where nothing is."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        return f"{address!r} is not HOST:PORT, as in 127.0.0.1:8080"
    connection = http.client.HTTPConnection(_ANY.get(host, host), port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers at {address} ({type(error).__name__})"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{address} answers {status}"
