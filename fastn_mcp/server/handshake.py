"""Answers to the first messages of a client, from text written beforehand, without loading the SDK.

A client first asks for these, and importing the SDK to answer takes three quarters of a start. So its first messages
are answered from `introduction.json`, which `make surface` takes down from the real server; then the rest is
loaded, and hears the same messages. Whatever is not exactly what is known here is left to the SDK.
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

_CLIENT_INFO = {"name", "version", "title", "description", "websiteUrl"}

_LONGEST = 4096
"""Bytes of a message that is looked at here."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HandshakeReply:
    """What follows from a message: the line that answers it, if it wants one, and whether the introduction is over."""

    id: str | int | None = None
    line: bytes = b""
    last: bool = False


class Introduction:
    """To one client, of these toolsets. Where nobody is `attended`, clients are not told to ask a person."""

    def __init__(self, toolsets: Collection[str] | None, *, reads_only: bool, attended: bool) -> None:
        self._toolsets = toolsets
        self._reads_only = reads_only
        self._attended = attended
        self._version: str | None = None
        self._initialized = False

    def reply(self, line: bytes) -> HandshakeReply | None:
        """The reply to a line of input; None where only the SDK can tell."""
        try:
            message = json.loads(line) if len(line) < _LONGEST and line.isascii() else None
        except (ValueError, RecursionError):
            return None
        match message:
            case {"jsonrpc": "2.0", "method": "notifications/initialized", **rest} if self._version in HANDSHAKE:
                self._initialized = rest in ({}, {"params": {}})
                return HandshakeReply() if self._initialized else None
            case {"jsonrpc": "2.0", "id": str() | int() as given, "method": str() as method, **rest}:
                params = rest.pop("params", {})
                if rest or not _can_be_repeated(given) or not isinstance(params, dict):
                    return None
                result = self._result(method, cast(Json, params))
                return None if result is None else HandshakeReply(given, _answer(given, result), method == "tools/list")
            case _:
                return None

    def _result(self, method: str, params: Json) -> Json | None:
        text = self._text
        match method:
            case "initialize" if self._version is None and _is_handshake(params):
                self._version = params["protocolVersion"]
                return text["initialize"] | {"protocolVersion": self._version}
            case "server/discover" if self._version in (None, MODERN) and _is_modern(params):
                self._version = MODERN
                return text["discover"]
            case "tools/list" if self._initialized and params in ({}, {"_meta": {}}):
                return {"tools": self._listed()}
            case "tools/list" if self._version in (None, MODERN) and _is_modern(params):
                return text["listed"] | {"tools": self._listed()}
            case _:
                return None

    def _listed(self) -> list[Json]:
        left_out = () if self._attended else ("_meta",)
        return [
            {name: value for name, value in known["tool"].items() if name not in left_out}
            for known in self._text["tools"].values()
            if (self._toolsets is None or known["toolset"] in self._toolsets)
            and (known["reads"] or not self._reads_only)
        ]

    @cached_property
    def _text(self) -> Json:
        return json.loads((files("fastn_mcp") / FILE).read_bytes())


def _answer(given: str | int, result: Json) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": given, "result": result}, separators=(",", ":")).encode() + b"\n"


def _can_be_repeated(given: str | int) -> bool:
    """Whether an id can be repeated as it came: no boolean, no half of a character."""
    return not isinstance(given, bool) and (isinstance(given, int) or given.isascii())


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
    version, can, who = (cast(Json, meta)[name] for name in _ENVELOPE)
    return version == MODERN and _are_capabilities(can) and _is_client_info(who)


def _are_capabilities(capabilities: object) -> bool:
    """Whether these are capabilities as the specification has them: what is odd is for the SDK to judge."""
    if not isinstance(capabilities, dict) or cast(Json, capabilities).keys() - _CAPABILITIES:
        return False
    return all(
        isinstance(value, dict)
        and all(isinstance(inner, bool if name == "listChanged" else dict) for name, inner in cast(Json, value).items())
        for value in cast(Json, capabilities).values()
    )


def _is_client_info(client: object) -> bool:
    return (
        isinstance(client, dict)
        and {"name", "version"} <= cast(Json, client).keys() <= _CLIENT_INFO
        and all(isinstance(value, str) for value in cast(Json, client).values())
    )
