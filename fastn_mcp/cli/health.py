"""`fastn-mcp health`: health check of a server over HTTP. It runs often, so it imports little."""

import http.client
from urllib.parse import urlsplit

import click

_TIMEOUT = 3.0  # seconds
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a server on all interfaces is asked at loopback


@click.command(name="health")
@click.argument("address", metavar="[HOST:PORT]", envvar="FASTN_HTTP", default="")
def health(address: str) -> None:
    """Check the health of the server at HOST:PORT (default: FASTN_HTTP).

    It is for the health check of a container. Without an address, the server uses stdio, and the check succeeds.
    """
    problem = problem_of(address) if address else None
    if problem:
        raise click.ClickException(f"Not healthy: {problem}.")
    click.echo("healthy" if address else "Serving over stdio: its client sees whether it is alive.")


def problem_of(address: str) -> str | None:
    """Return what is wrong with the server at `HOST:PORT`, or None if it is healthy."""
    try:
        parts = urlsplit(f"//{address}")
        host = parts.hostname
        port = parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        return f"{address!r} is not HOST:PORT, for example 127.0.0.1:8080"
    connection = http.client.HTTPConnection(_ANY.get(host, host), port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers at {address} ({type(error).__name__})"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{address} answers {status}"
