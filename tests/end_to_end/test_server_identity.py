"""What the server says of itself, and what it answers to a cursor that it never gave."""

import base64
from importlib.resources import files
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, DiscoverResult, Implementation
from support.server_process import Connect, each_transport_and_era

from fastn_mcp.server.handshake import HANDSHAKE, MODERN


async def discovered(client: Client) -> dict[str, Any]:
    return await client.session.send_discover(MODERN)


async def identity(client: Client, era: str) -> Implementation | None:
    """What the server says of itself, for which a client that is pinned to 2026-07-28 has to ask."""
    if era != MODERN:
        return client.server_info
    return Implementation.model_validate((await discovered(client))["_meta"]["io.modelcontextprotocol/serverInfo"])


@each_transport_and_era
async def test_lists_reject_a_cursor(client: Client) -> None:
    """MCP, Pagination: invalid cursors should result in an error with code -32602. Each list here has one page."""
    for listing in (
        client.list_tools,
        client.list_resources,
        client.list_resource_templates,
        client.list_prompts,
    ):
        with pytest.raises(MCPError, match="List again without a cursor") as rejected:
            await listing(cursor="page-2")
        assert rejected.value.code == INVALID_PARAMS
        assert (await listing()).next_cursor is None


@each_transport_and_era
async def test_server_names_its_website_and_icon(era: str, client: Client) -> None:
    info = await identity(client, era)
    assert info is not None
    assert info.website_url == "https://docs.fastn.ai"
    assert info.icons is not None
    (icon,) = info.icons
    kind, _, image = icon.src.partition(";base64,")
    assert (kind, icon.mime_type, icon.sizes) == ("data:image/svg+xml", "image/svg+xml", ["any"])
    assert base64.b64decode(image) == (files("fastn_mcp") / "channels/page/static/icon.svg").read_bytes()
    assert len(icon.src) < 500, "each result of 2026-07-28 carries it"


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_discovery_names_every_version(transport: str, connect: Connect) -> None:
    async with connect(transport, MODERN) as client:
        answer = DiscoverResult.model_validate(await discovered(client))
    assert answer.supported_versions == [MODERN, *reversed(HANDSHAKE)]
    assert answer.instructions
    assert answer.capabilities.tools is not None
