"""What a client is told before the SDK is loaded is what the SDK would have told it, or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.values import not_none
from surface import HELLO, META, WHO, results_of

from fastn_mcp.build.composition import assemble, policy_of
from fastn_mcp.build.startup import Process, Sandboxed, introduction_of, settings_of
from fastn_mcp.config.model import TOOLSETS
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import build
from fastn_mcp.server.handshake import APPS, HANDSHAKE, Introduction

WITH_APPS: dict[str, object] = {
    "_meta": META["_meta"] | {"io.modelcontextprotocol/clientCapabilities": {"extensions": {APPS: {}}}}
}
READY = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
SHOWS_APPS: dict[str, object] = {"extensions": {APPS: {"mimeTypes": ["text/html;profile=mcp-app"]}}}
FLAGS: list[dict[str, object]] = [
    {},
    {"mode": "read-only"},
    {"mode": "unattended"},
    {"tools": "workflows,procedures"},
    {"tools": "secrets", "mode": "unattended"},
    {"tools": "api-keys,workflows", "exclude_tools": "workflows"},
]


def line(method: str, params: object = None, id_: object = 7) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "id": id_, "method": method, **({} if params is None else {"params": params})}
    ).encode()


def hello(**changed: object) -> dict[str, object]:
    return {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": WHO} | changed


def result(introduction: Introduction, method: str, params: object) -> Any:
    reply = not_none(introduction.reply(line(method, params)))
    answer = json.loads(reply.line)
    assert (answer["jsonrpc"], answer["id"], reply.id) == ("2.0", 7, 7)
    return answer["result"]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
async def test_introduction_equals_the_sdks_answers_in_each_version(flags: dict[str, object], tmp_path: Path) -> None:
    settings = settings_of(flags, {}, None, sandboxed=True)
    environment = {"FASTN_CONFIG_DIR": str(tmp_path)}
    policy = policy_of(settings, environment)
    parts = assemble(settings, policy, tmp_path, Process(environment, Sandboxed(), has_browser=True))
    server = build(parts.dispatch, parts.tools, parts.label)
    for version in HANDSHAKE:
        introduction = not_none(introduction_of(settings, environment))
        initialized, listed = await results_of(
            server, ("initialize", hello(protocolVersion=version)), ("tools/list", {})
        )
        assert result(introduction, "initialize", hello(protocolVersion=version)) == initialized
        ready = not_none(introduction.reply(READY))
        assert (ready.line, ready.last) == (b"", False)
        assert result(introduction, "tools/list", {}) == listed
    introduction = not_none(introduction_of(settings, environment))
    discovered, listed = await results_of(server, ("server/discover", META), ("tools/list", META))
    assert result(introduction, "server/discover", META) == discovered
    assert result(introduction, "tools/list", META) == listed


def test_toolsets_of_the_settings_are_those_of_the_catalog() -> None:
    """Settings name them without loading the catalogue."""
    assert tuple(dict.fromkeys(tool.toolset() for tool in ALL_TOOLS)) == TOOLSETS


@pytest.mark.parametrize(
    "capabilities",
    [
        {"elicitation": {}},
        {"elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": True}},
        {"sampling": {"tools": {}}, "experimental": {"x": {}}, "extensions": {"a/b": {}}},
        SHOWS_APPS,
    ],
    ids=str,
)
def test_capabilities_of_real_clients_are_known(capabilities: dict[str, object]) -> None:
    introduction = Introduction(TOOLSETS, reads_only=False)
    assert introduction.reply(line("initialize", hello(capabilities=capabilities))) is not None


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"no JSON",
        b"[]",
        b"[" * 5000,
        b'{"jsonrpc":"2.0","id":1,"method":"initialize"}',
        line("initialize", hello(), None),
        line("initialize", hello(), True),
        line("initialize", hello(), 1.5),
        line("initialize", hello(), "\ud800"),
        line("initialize", hello(protocolVersion="1999-01-01")),
        line("initialize", hello(protocolVersion=["2025-11-25"])),
        line("initialize", hello(capabilities=[])),
        line("initialize", hello(capabilities={"roots": True})),
        line("initialize", hello(capabilities={"roots": {"listChanged": {}}})),
        line("initialize", hello(capabilities={"tasks": {}})),
        line("initialize", hello(clientInfo={"name": "x"})),
        line("initialize", hello(clientInfo=WHO | {"icons": None})),
        line("initialize", hello(more=1)),
        line("initialize", hello(capabilities={"experimental": {"x" * 5000: {}}})),
        line("tools/list", {}),
        READY,
        line("server/discover", {}),
        line("server/discover", {"_meta": META["_meta"] | {"progressToken": 1}}),
        line("server/discover", {"_meta": META["_meta"] | {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}}),
        line("tools/call", {"name": "find", "arguments": {}}),
        line("ping"),
    ],
    ids=lambda odd: odd[:60].decode("utf-8", "replace"),
)
def test_unknown_request_is_left_to_the_sdk(odd: bytes) -> None:
    assert Introduction(TOOLSETS, reads_only=False).reply(odd) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([line(*HELLO)], line("tools/list", {})),
        ([line("initialize", hello(capabilities=SHOWS_APPS)), READY], line("tools/list", {})),
        ([line("server/discover", META)], line("tools/list", WITH_APPS)),
        ([line(*HELLO), READY], line("tools/list", {"cursor": "x"})),
        ([line(*HELLO), READY], line("tools/list", META)),
        ([line(*HELLO)], line(*HELLO)),
        ([line(*HELLO)], line("server/discover", META)),
        ([line("server/discover", META)], line(*HELLO)),
        ([line("server/discover", META)], READY),
        ([line(*HELLO)], READY[:-1] + b',"params":{"x":1}}'),
    ],
)
def test_request_out_of_order_is_left_to_the_sdk(before: list[bytes], after: bytes) -> None:
    introduction = Introduction(TOOLSETS, reads_only=False)
    for known in before:
        assert introduction.reply(known) is not None
    assert introduction.reply(after) is None


def test_introduction_waits_for_what_can_stop_the_start(tmp_path: Path) -> None:
    environment = {"FASTN_CONFIG_DIR": str(tmp_path)}
    assert introduction_of(settings_of({}, {}, None, sandboxed=True), environment) is not None
    assert introduction_of(settings_of({"log_file": "x"}, {}, None, sandboxed=True), environment) is None
    (tmp_path / "policy.toml").touch()
    assert introduction_of(settings_of({}, {}, None, sandboxed=True), environment) is None
