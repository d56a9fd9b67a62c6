"""Configuration entries of clients, for stdio and for HTTP."""

import re
import sys
from typing import Any, Literal

from fastn_mcp.config.addresses import is_loopback
from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.install.clients import BEARER_VARIABLE, KEY_VARIABLE, McpClient, TokenSource
from fastn_mcp.install.edit import Addition, NotInstalled

Key = Literal["profile", "environment", "prompt"]
"""Source of the key: the user's own profile, a variable, or the client, which asks for it and stores it."""

_INPUT = "fastn-api-key"
_BEARER_INPUT = "fastn-http-token"
_KEYRING = "DBUS_SESSION_BUS_ADDRESS"
"""Variable with which a program on Linux finds the keyring that holds a profile's key."""


def additions(
    client: McpClient, name: str, start: CommandLine, key: Key, platform: str = sys.platform
) -> tuple[Addition, ...]:
    """Return what to add to the client's configuration for a server over stdio. Raises `NotInstalled`."""
    entry: dict[str, Any] = {**client.fixed, "command": start.command, "args": list(start.arguments)}
    sandboxed = any(argument.startswith("--sandbox") for argument in start.arguments)
    inputs: tuple[Addition, ...] = ()
    if key == "prompt":
        if not client.prompts:
            raise NotInstalled(
                f"{client.title} does not ask for keys.", "Leave out --key prompt, and store the key: fastn-mcp login"
            )
        entry["env"] = {KEY_VARIABLE: f"${{input:{_INPUT}}}"}
        inputs = (_input(_INPUT, "Fastn API key"),)
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
    return (Addition(client.servers, name, entry), *inputs)


def http_additions(client: McpClient, name: str, url: str, command: str) -> tuple[Addition, ...]:
    """Return what to add for a server that runs at `url`. `command` is a shell command that prints its header."""
    how = client.http
    if isinstance(how, str):
        raise NotInstalled(
            f"{client.title} cannot be given a server over HTTP: {how[0].lower()}{how[1:]}",
            f"Let it start one, over stdio, which needs no token: fastn-mcp install {client.name}",
        )
    entry: dict[str, Any] = {**how.fixed, how.address: url}
    inputs: tuple[Addition, ...] = ()
    match how.source:
        case TokenSource.COMMAND:
            entry["headersHelper"] = command
        case TokenSource.VARIABLE:
            entry["bearer_token_env_var"] = BEARER_VARIABLE
        case TokenSource.REFERENCE:
            entry["headers"] = _header(how.reference)
        case TokenSource.PROMPT:
            entry["headers"] = _header(f"${{input:{_BEARER_INPUT}}}")
            inputs = (_input(_BEARER_INPUT, "Token of fastn-mcp, as printed by: fastn-mcp http-token"),)
    return (Addition(client.servers, name, entry), *inputs)


def check_url(url: str) -> None:
    """Raise `NotInstalled` unless the URL has an address of this machine, since the token is sent there.

    Names are refused: `localhost` can resolve to `::1`, where another user can listen while the server has 127.0.0.1.
    """
    parts = re.fullmatch(r"http://([0-9.]+|\[[0-9a-f:]+\]):([0-9]{1,5})/mcp", url)
    if parts is None or not is_loopback(parts[1].strip("[]")) or not 0 < int(parts[2]) < 65536:
        raise NotInstalled(
            "--url is not the address of a server on this machine.",
            "For example: --url http://127.0.0.1:8080/mcp. Not localhost, which can lead to another server's address."
            " For a team, people sign in: docs/hosting.md",
        )


def printed(name: str, start: CommandLine) -> dict[str, Any]:
    """Return the entry in the common format, for a client that is not in the table."""
    return {"mcpServers": {name: {"command": start.command, "args": list(start.arguments)}}}


def printed_http(name: str, url: str) -> dict[str, Any]:
    return {"mcpServers": {name: {"type": "http", "url": url, "headers": _header(f"${{{BEARER_VARIABLE}}}")}}}


def _header(reference: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {reference}"}


def _input(name: str, description: str) -> Addition:
    return Addition("inputs", None, {"type": "promptString", "id": name, "description": description, "password": True})
