"""Links that install the server, for the clients that have them. The person need not have it yet: uvx fetches it."""

import base64
import json
from typing import Any
from urllib.parse import quote, urlencode

from fastn_mcp.command_line import by_uvx
from fastn_mcp.installing.clients import BY_NAME, Client
from fastn_mcp.installing.entry import Key, additions
from fastn_mcp.installing.refusal import NotInstalled


def links(client: Client, name: str, arguments: tuple[str, ...], key: Key) -> dict[str, str]:
    """Each link by what it opens: one for the client itself, and one that a web page may carry."""
    entry, *asked = additions(client, name, by_uvx().with_(arguments), key)
    if client is BY_NAME["vscode"]:
        config: dict[str, Any] = {"name": name, **entry.value}
        if asked:
            config["inputs"] = [one.value for one in asked]
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
