"""Takes down what the real server says of itself, for `introduction.json`."""

import json
from typing import Any, cast

import anyio
from mcp.server import Server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse, jsonrpc_message_adapter

from fastn_mcp.introduction import HANDSHAKE, MODERN
from fastn_mcp.offer import AnyOffer, Effect

Json = dict[str, Any]

WHO = {"name": "surface", "version": "1"}
HELLO = ("initialize", {"protocolVersion": HANDSHAKE[-1], "capabilities": {}, "clientInfo": WHO})
META = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": WHO,
    }
}


def taken_down(server: Server[Any], offered: tuple[AnyOffer, ...]) -> str:
    """What `introduction.json` ought to hold."""
    nothing: Json = {}
    initialize, handshake = anyio.run(said, server, HELLO, ("tools/list", nothing))
    discover, modern = anyio.run(said, server, ("server/discover", META), ("tools/list", META))
    tools = {tool["name"]: tool for tool in handshake.pop("tools")}
    if handshake or modern.pop("tools") != list(tools.values()):
        raise AssertionError("the eras list tools differently: the introduction knows one list")
    initialize.pop("protocolVersion")
    of = {offer.tool_name(): {"toolset": offer.toolset(), "reads": offer.effect is Effect.READ} for offer in offered}
    text = {
        "initialize": initialize,
        "discover": discover,
        "listed": modern,
        "tools": {name: of[name] | {"tool": tool} for name, tool in tools.items()},
    }
    return json.dumps(text, indent=1, ensure_ascii=True) + "\n"


async def said(server: Server[Any], *requests: tuple[str, Json]) -> list[Json]:
    """The results of these requests, on a connection of their own."""
    to_server, incoming = create_context_streams[SessionMessage | Exception](0)
    outgoing, from_server = create_context_streams[SessionMessage](0)
    results: list[Json] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run, incoming, outgoing, server.create_initialization_options())
        async with to_server, from_server:
            for number, (method, params) in enumerate(requests):
                await to_server.send(_message({"id": number, "method": method, "params": params}))
                answer = (await from_server.receive()).message
                assert isinstance(answer, JSONRPCResponse)  # noqa: S101 - the server is ours
                results.append(
                    cast(Json, json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True)))["result"]
                )
                if method == "initialize":
                    await to_server.send(_message({"method": "notifications/initialized"}))
            tasks.cancel_scope.cancel()
    return results


def _message(body: Json) -> SessionMessage:
    return SessionMessage(jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **body}, by_name=False))
