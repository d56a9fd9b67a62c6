"""The floor of a server on the SDK: its low-level server, this project's tools as plain data, answers passed through.

No checks, no guard, no retries. Environment: STATIC (JSON: tools and routes), BASE_URL, KEY.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx2
import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

STATIC: dict[str, Any] = json.loads(Path(os.environ["STATIC"]).read_text(encoding="utf-8"))
ROUTES = STATIC["routes"]
TOOLS = types.ListToolsResult(tools=[types.Tool.model_validate(tool) for tool in STATIC["tools"]])
HTTP = httpx2.AsyncClient(base_url=os.environ["BASE_URL"], headers={"x-fastn-api-key": os.environ["KEY"]}, timeout=30)


async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
    return TOOLS


async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    route, arguments = ROUTES[params.name], dict(params.arguments or {})
    path = route["path"].format(**{name: quote(arguments.pop(name), safe="") for name in route["in_path"]})
    rest = {route["wire"][name]: value for name, value in arguments.items()}
    sent = {"params": rest} if route["method"] in ("GET", "DELETE") else {"json": rest}
    answer = await HTTP.request(route["method"], path, **sent)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=answer.text)], is_error=answer.status_code >= 400
    )


async def main() -> None:
    server = Server("sdk-static", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
