"""A server without an API key: clients connect and list tools, and each call says what is missing."""

import os
from collections.abc import Generator

import pytest
from mcp import Client, MCPError
from support.ports import free_port
from support.server_process import (
    ERAS,
    Person,
    Upstream,
    approving,
    body,
    each_transport_and_era,
    environment,
    over_http,
    running,
    stdio,
)

from fastn_mcp.procedures.catalog import ALL_TOOLS


def _keyless(upstream: Upstream) -> dict[str, str]:
    # A client that does not expand variables passes the reference itself, which counts as no key.
    return environment(upstream) | {"FASTN_API_KEY": "${FASTN_API_KEY}"}


@pytest.fixture(scope="module")
def address(sandbox_process: Upstream) -> Generator[str]:
    port = free_port()
    flags = ("--config", os.devnull, "--http", f"127.0.0.1:{port}")
    with running(*flags, port=port, env=_keyless(sandbox_process) | {"FASTN_API_KEY": ""}):
        yield f"http://127.0.0.1:{port}/mcp"


@each_transport_and_era
async def test_missing_key_is_explained_in_every_call(
    transport: str, era: str, address: str, upstream: Upstream
) -> None:
    server = stdio(_keyless(upstream)) if transport == "stdio" else over_http(address)
    person = Person(approving)
    async with Client(server, mode=ERAS[era], elicitation_callback=person) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [offer.tool_name() for offer in ALL_TOOLS]
        for tool, arguments in (
            ("list_customers", {}),
            ("delete_customer", {"customer_id": "cus_1"}),
            ("create_customer", {"name": "Initech", "dry_run": True}),
            ("find", {"query": "Acme"}),
            ("list_changes", {}),
        ):
            answer = await client.call_tool(tool, arguments)
            content = body(answer)
            assert (answer.is_error, content["outcome"]) == (True, "not_sent")
            missing = "is a placeholder" if transport == "stdio" else "There is no API key"
            assert missing in content["message"]
            assert "Nothing was sent." in content["message"]
            assert "never ask for the key here" in content["next"]
            assert transport == "stdio" or f"--config {os.devnull} login" in content["next"]
        with pytest.raises(MCPError, match=r"API key|api_key"):
            await client.read_resource("fastn://customers/cus_1")
    assert (person.asked, upstream.requests()) == ([], [])
