"""Links that install the server in a client with a click, for the README of a published package."""

import base64
import json
from typing import Any
from urllib.parse import quote, urlencode

from fastn_mcp.config.command_line import by_uvx
from fastn_mcp.extensions.install.clients import BY_NAME, Key, McpClient, additions
from fastn_mcp.extensions.install.edit import NotInstalled


def links(client: McpClient, name: str, arguments: tuple[str, ...], key: Key) -> dict[str, str]:
    """Return the install links for web pages, by the name of the program that each opens.

    They fetch the package by its name, which nobody may be told to do before it is published.
    """
    entry, *inputs = additions(client, name, by_uvx("fastn-mcp").with_(arguments), key)
    if client is BY_NAME["vscode"]:
        config: dict[str, Any] = {"name": name, **entry.value}
        if inputs:
            config["inputs"] = [each.value for each in inputs]
        return {
            label: f"https://{host}/redirect?url={quote(f'{scheme}:mcp/install?{_quoted(config)}', safe='')}"
            for label, host, scheme in (
                ("VS Code", "vscode.dev", "vscode"),
                ("VS Code Insiders", "insiders.vscode.dev", "vscode-insiders"),
            )
        }
    if client is BY_NAME["cursor"]:
        query = urlencode({"name": name, "config": base64.b64encode(_compact(entry.value).encode()).decode()})
        return {"Cursor": f"https://cursor.com/en/install-mcp?{query}"}
    raise NotInstalled(f"{client.title} has no links that install a server.", f"Run: fastn-mcp install {client.name}")


def _quoted(config: dict[str, Any]) -> str:
    return quote(_compact(config), safe="!'()*")  # as encodeURIComponent writes it


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
