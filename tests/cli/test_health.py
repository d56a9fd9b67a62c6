"""`fastn-mcp health`: the health check of a container."""

from collections.abc import Generator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from support.command_line import Run
from support.identity_provider import listening

from fastn_mcp.cli.health import problem_of


@contextmanager
def answering_server(status: int) -> Generator[int]:
    """Serve this status on loopback, and yield the port."""

    with listening(Starlette(routes=[Route("/healthz", Response(status_code=status))])) as url:
        yield int(url.rpartition(":")[2])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_answering_server_is_healthy_on_all_interfaces_too(host: str) -> None:
    with answering_server(200) as port:
        assert problem_of(f"{host}:{port}") is None


def test_failing_or_missing_server_is_not_healthy() -> None:
    with answering_server(503) as port:
        assert problem_of(f"127.0.0.1:{port}") == f"127.0.0.1:{port} answers 503"
    assert problem_of(f"127.0.0.1:{port}") == f"nothing answers at 127.0.0.1:{port} (ConnectionRefusedError)"


@pytest.mark.parametrize("address", ["here", ":8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "[::1", "h:0"])
def test_invalid_address_is_rejected(address: str) -> None:
    assert problem_of(address) == f"{address!r} is not HOST:PORT, for example 127.0.0.1:8080"


def test_health_reports_by_its_exit_code(fastn: Run) -> None:
    with answering_server(200) as port:
        well = fastn("health", f"127.0.0.1:{port}")
    assert (well.returncode, well.stdout) == (0, "healthy\n")
    gone = fastn("health", f"127.0.0.1:{port}")
    assert (gone.returncode, gone.stdout) == (1, "")


def test_http_variable_is_accepted_beside_any_command(fastn: Run) -> None:
    """A container sets it for every command that runs in it; the flag is for serving alone."""
    assert fastn("tools", env={"FASTN_HTTP": "127.0.0.1:1"}).returncode == 0
    assert fastn("health", env={"FASTN_HTTP": "127.0.0.1:1"}).returncode == 1
    assert "cannot be combined with a command" in fastn("--http", "127.0.0.1:1", "tools").stderr
