"""Early handshake: answers to a client's first messages from prepared text, before the SDK is loaded.

Importing the SDK takes three quarters of a start. The first messages are therefore answered from `introduction.json`,
which `make surface` records from the real server. Then the SDK is loaded and receives the same messages. Any message
that does not match exactly is left to the SDK.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any, cast

FILE = "introduction.json"

MODERN = "2026-07-28"
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

_ENVELOPE = tuple(f"io.modelcontextprotocol/{name}" for name in ("protocolVersion", "clientCapabilities", "clientInfo"))
_CAPABILITIES = {"elicitation", "experimental", "extensions", "roots", "sampling"}

APPS = "io.modelcontextprotocol/ui"
"""Extension of clients that show apps: the SDK lists the tools for them."""

_CLIENT_INFO = {"name", "version", "title", "description", "websiteUrl"}

_MAX_MESSAGE = 4096
"""Maximum bytes of a message that is parsed here."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HandshakeReply:
    """Reply to a message: the response line, if any, and whether the early handshake is over."""

    id: str | int | None = None
    line: bytes = b""
    last: bool = False


class Introduction:
    def __init__(self, toolsets: Collection[str], *, reads_only: bool) -> None:
        self._toolsets = toolsets
        self._reads_only = reads_only
        self._version: str | None = None
        self._initialized = False
        self._shows_apps = False
        """Whether the client declares an extension for which tools are listed differently."""

    def reply(self, line: bytes) -> HandshakeReply | None:
        """Return the reply to a line of input, or None if the SDK has to answer it."""
        try:
            message = json.loads(line) if len(line) < _MAX_MESSAGE and line.isascii() else None
        except (ValueError, RecursionError):
            return None
        match message:
            case {"jsonrpc": "2.0", "method": "notifications/initialized", **rest} if self._version in HANDSHAKE:
                self._initialized = rest in ({}, {"params": {}})
                return HandshakeReply() if self._initialized else None
            case {"jsonrpc": "2.0", "id": str() | int() as id_, "method": str() as method, **rest}:
                params = rest.pop("params", {})
                if rest or not _can_be_repeated(id_) or not isinstance(params, dict):
                    return None
                result = self._result(method, cast(Json, params))
                return None if result is None else HandshakeReply(id_, _answer(id_, result), method == "tools/list")
            case _:
                return None

    def _result(self, method: str, params: Json) -> Json | None:
        text = self._text
        match method:
            case "initialize" if self._version is None and _is_handshake(params):
                self._version = params["protocolVersion"]
                self._shows_apps = _shows_apps(params["capabilities"])
                return text["initialize"] | {"protocolVersion": self._version}
            case "server/discover" if self._version in (None, MODERN) and _is_modern(params):
                self._version = MODERN
                return text["discover"]
            case "tools/list" if self._initialized and params in ({}, {"_meta": {}}) and not self._shows_apps:
                return {"tools": self._listed()}
            case "tools/list" if (
                self._version in (None, MODERN)
                and _is_modern(params)
                and not _shows_apps(params["_meta"][_ENVELOPE[1]])
            ):
                return text["listed"] | {"tools": self._listed()}
            case _:
                return None

    def _listed(self) -> list[Json]:
        return [
            entry["tool"]
            for entry in self._text["tools"].values()
            if entry["toolset"] in self._toolsets and (entry["reads"] or not self._reads_only)
        ]

    @cached_property
    def _text(self) -> Json:
        return json.loads((files("fastn_mcp") / FILE).read_bytes())


def _answer(id_: str | int, result: Json) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}, separators=(",", ":")).encode() + b"\n"


def _can_be_repeated(id_: str | int) -> bool:
    """Whether an id survives a JSON round trip: not a boolean, ASCII only."""
    return not isinstance(id_, bool) and (isinstance(id_, int) or id_.isascii())


def _is_handshake(params: Json) -> bool:
    if params.keys() != {"protocolVersion", "capabilities", "clientInfo"}:
        return False
    return (
        params["protocolVersion"] in HANDSHAKE
        and _are_capabilities(params["capabilities"])
        and _is_client_info(params["clientInfo"])
    )


def _is_modern(params: Json) -> bool:
    meta = params.get("_meta")
    if len(params) != 1 or not isinstance(meta, dict) or cast(Json, meta).keys() != set(_ENVELOPE):
        return False
    version, capabilities, client = (cast(Json, meta)[name] for name in _ENVELOPE)
    return version == MODERN and _are_capabilities(capabilities) and _is_client_info(client)


def _are_capabilities(capabilities: object) -> bool:
    """Whether these are plain capabilities of the specification. Others are left to the SDK."""
    if not isinstance(capabilities, dict) or cast(Json, capabilities).keys() - _CAPABILITIES:
        return False
    return all(
        isinstance(value, dict)
        and all(isinstance(inner, bool if name == "listChanged" else dict) for name, inner in cast(Json, value).items())
        for value in cast(Json, capabilities).values()
    )


def _shows_apps(capabilities: Json) -> bool:
    return APPS in capabilities.get("extensions", {})


def _is_client_info(client: object) -> bool:
    return (
        isinstance(client, dict)
        and {"name", "version"} <= cast(Json, client).keys() <= _CLIENT_INFO
        and all(isinstance(value, str) for value in cast(Json, client).values())
    )
