"""What is written for a client: how the server is started, and where its key comes from. Never a key."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from fastn_mcp.installing.addition import Addition
from fastn_mcp.installing.clients import KEY_VARIABLE, Client
from fastn_mcp.installing.refusal import NotInstalled

Key = Literal["profile", "environment", "prompt"]
"""Where the key comes from: the user's own profile, a variable, or the client, which asks for it and keeps it."""

_INPUT = "fastn-api-key"
_KEYRING = "DBUS_SESSION_BUS_ADDRESS"
"""How a program on Linux finds the keyring in which a profile has its key."""


@dataclass(frozen=True, slots=True)
class Start:
    """A command line."""

    command: str
    arguments: tuple[str, ...] = ()

    def with_(self, more: Sequence[str]) -> "Start":
        return Start(self.command, (*self.arguments, *more))


BY_UVX = Start("uvx", ("--from", "fastn-mcp", "fastn-mcp"))
BY_NAME = Start("fastn-mcp")


def running(executable: str, prefix: str, exists: Callable[[str], bool]) -> Start:
    """How the program that runs is started from anywhere: by its path, since a client may have another PATH."""
    parts = PurePath(prefix).parts
    if "uv" in parts and any(part.startswith(("archive-v", "environments-v", "builds-v")) for part in parts):
        return BY_UVX  # uv throws these folders away
    python = PurePath(executable)
    script = str(python.with_name("fastn-mcp" + python.suffix))
    return Start(script) if exists(script) else Start(executable, ("-P", "-m", "fastn_mcp"))


def additions(client: Client, name: str, start: Start, key: Key, platform: str = sys.platform) -> tuple[Addition, ...]:
    """What to put into the client's configuration."""
    entry: dict[str, Any] = {**client.fixed, "command": start.command, "args": list(start.arguments)}
    sandboxed = any(argument.startswith("--sandbox") for argument in start.arguments)
    asked: tuple[Addition, ...] = ()
    if key == "prompt":
        if not client.prompts:
            raise NotInstalled(
                f"{client.title} does not ask for keys.", "Leave out --key prompt, and store the key: fastn-mcp login"
            )
        entry["env"] = {KEY_VARIABLE: f"${{input:{_INPUT}}}"}
        asked = (
            Addition(
                ("inputs",),
                None,
                {"type": "promptString", "id": _INPUT, "description": "Fastn API key", "password": True},
            ),
        )
    elif key == "environment":
        if client.forwards:
            entry["env_vars"] = [KEY_VARIABLE]
        elif client.reference is not None:
            entry["env"] = {KEY_VARIABLE: client.reference}
        else:
            raise NotInstalled(
                f"{client.title} has no way to name a variable of the environment in its file.",
                "Leave out --key environment, and store the key: fastn-mcp login",
            )
    elif client.forwards and not sandboxed and platform not in ("darwin", "win32"):
        entry["env_vars"] = [_KEYRING]
    return (Addition((client.servers,), name, entry), *asked)


def printed(name: str, start: Start) -> dict[str, Any]:
    """The entry as most clients read it, for one that is not in the table."""
    return {"mcpServers": {name: {"command": start.command, "args": list(start.arguments)}}}
