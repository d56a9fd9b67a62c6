"""Each protocol version is answered in that version, as the MCP specification requires, and says who the server is."""

import base64
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, DiscoverResult, Implementation
from support.raw_client import HELLO, META, answers_to, call, introducing, message
from support.server_process import Connect, each_transport_and_era

from fastn_mcp.server.handshake import HANDSHAKE, MODERN


def folders(state: Path) -> dict[str, str]:
    return {"FASTN_STATE_DIR": str(state), "FASTN_CONFIG_DIR": str(state)}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_client_of_each_version_lists_and_reads(version: str, tmp_path: Path) -> None:
    lines = (*introducing(version), message(2, "tools/list"), call(3, limit=1))
    answers, _ = answers_to(*lines, flags=("--sandbox",), env=folders(tmp_path))
    assert answers["hello"]["result"]["protocolVersion"] == version
    assert "delete_customer" in [tool["name"] for tool in answers[2]["result"]["tools"]]
    assert answers[3]["result"]["isError"] is False
    assert json.loads(answers[3]["result"]["content"][0]["text"])["data"]


@pytest.mark.parametrize("opens_by_handshake", [True, False])
def test_request_of_the_other_era_is_refused(opens_by_handshake: bool, tmp_path: Path) -> None:
    """MCP: the first request decides the era of a session."""
    enveloped = message(2, "tools/call", name="get_quotas", _meta=META)
    lines, ids = ((HELLO, enveloped), ("hello", 2)) if opens_by_handshake else ((enveloped, HELLO), (2, "hello"))
    answers, _ = answers_to(*lines, flags=("--sandbox",), env=folders(tmp_path))
    assert ["result" in answers[id_] for id_ in ids] == [True, False]


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


def test_first_answer_waits_for_little_code(tmp_path: Path) -> None:
    """Neither for the SDK nor for the guard and what it stands on: they are loaded once the client has its answer."""
    command = [sys.executable, "-X", "importtime", "-m", "fastn_mcp", "--sandbox"]
    env = {**os.environ, **folders(tmp_path)}
    done = subprocess.run(command, input=HELLO, env=env, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout.splitlines()[0])["result"]["serverInfo"]["name"] == "fastn-mcp"
    loaded = {
        line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines() if line.startswith("import time:")
    }
    assert "fastn_mcp.cli.serve" in loaded
    late = ("mcp", "fastn_mcp.account", "fastn_mcp.client", "fastn_mcp.guard", "fastn_mcp.ledger", "fastn_mcp.policy")
    assert [name for name in loaded if name.startswith(tuple(f"{each}." for each in late))] == []
