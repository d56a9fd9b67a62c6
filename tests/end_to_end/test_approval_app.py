"""Approval requests in the chat (MCP Apps): which clients get the app, and for what."""

from pathlib import Path

import pytest
from mcp import MCPError
from support.app_host import APPS, app_of
from support.local_page import globex, recording_browser
from support.server_process import Upstream, each_transport_and_era, environment, served

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.extensions import APP_URI, RESULT_META
from fastn_mcp.tools.tool import Effect


@each_transport_and_era
async def test_clients_that_show_apps_get_one(upstream: Upstream, tmp_path: Path, transport: str, era: str) -> None:
    """MCP Apps: tools name the app, and its resource exists, where the client declares the extension.

    Over HTTP up to 2025-11-25 a request does not say who sends it: each may be of such a client.
    """
    is_known = (transport, era) != ("http", "2025-11-25")
    env = environment(upstream) | {"BROWSER": recording_browser(tmp_path)[0]}
    async with served(env, transport, era, APPS) as client:
        listed = {each.name: (each.meta or {}).get("ui") for each in (await client.list_tools()).tools}
        assert listed == {
            each.tool_name(): None if each.effect is Effect.READ else {"resourceUri": APP_URI} for each in ALL_TOOLS
        }
        assert not {"approve", "decline", "decide", "grant"} & {word for name in listed for word in name.split("_")}
        assert "<!doctype html>" in await app_of(client, "delete_customer")
        target = await globex(client)
        result = await client.call_tool("delete_customer", {"customer_id": target["id"]})
        shown_app = (result.meta or {})[RESULT_META]
        assert shown_app["says"]["first"] == 'Delete customer "Globex Exports".'
        assert shown_app["page"].startswith("http://127.0.0.1:")
        assert RESULT_META not in ((await client.call_tool("list_customers")).meta or {})
        assert "ui://" not in str(await client.list_resources())
    async with served(env, transport, era) as client:
        assert any("ui" in (each.meta or {}) for each in (await client.list_tools()).tools) is not is_known
        result = await client.call_tool("delete_customer", {"customer_id": target["id"]})
        assert (RESULT_META in (result.meta or {})) is not is_known
        if is_known:
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource(APP_URI)
