"""Fixtures: server and sandbox processes for these tests."""

import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client import Transport
from support.policy_files import policy_file
from support.ports import free_port
from support.server_process import (
    ERAS,
    HTTP_TOKEN,
    Connect,
    Person,
    Upstream,
    environment,
    over_http,
    running,
    stdio,
)


@pytest.fixture(scope="session")
def http_server(sandbox_process: Upstream) -> Generator[str]:
    port = free_port()
    env = environment(sandbox_process)
    # Tests share this server and account, and together exceed the default rate of deletions.
    policy = policy_file(Path(env["FASTN_STATE_DIR"]), '[budget]\ndestroy_rate = "1000 per 1m"\n')
    with running("--http", f"127.0.0.1:{port}", port=port, env=env | {"FASTN_POLICY": str(policy)}):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of a server that shares its folders with nothing else."""
    folder = str(tmp_path_factory.mktemp("state"))
    folders = {"FASTN_CONFIG_DIR": folder, "FASTN_STATE_DIR": folder}
    return {"FASTN_CONFIG": os.devnull, "FASTN_HTTP_TOKEN": HTTP_TOKEN} | folders


@pytest.fixture
def connect(upstream: Upstream, http_server: str) -> Connect:
    """Return a client for a transport and protocol version, with or without a person, to a server with these flags."""

    def connected(
        transport: str, era: str, person: Person | None = None, flags: tuple[str, ...] = (), **more: Any
    ) -> Client:
        server: StdioServerParameters | Transport = over_http(http_server)
        if transport == "stdio":
            server = stdio(environment(upstream), *flags)
        return Client(server, mode=ERAS[era], elicitation_callback=person, **more)

    return connected


@pytest.fixture
async def client(connect: Connect, transport: str, era: str) -> AsyncGenerator[Client]:
    async with connect(transport, era) as made:
        yield made
