"""Links that install the server in a client with a click, for the README of a published package."""

from urllib.parse import quote

from fastn_mcp.config.command_line import by_uvx
from fastn_mcp.extensions.install.clients import (
    BY_NAME,
    Key,
    McpClient,
    NotInstalled,
    link_to_cursor,
    link_to_vscode,
    stdio_server,
)


def links(client: McpClient, name: str, arguments: tuple[str, ...], key: Key) -> dict[str, str]:
    """Return the install links for web pages, by the name of the program that each opens.

    They fetch the package by its name, which nobody may be told to do before it is published.
    """
    server = stdio_server(client, name, by_uvx("fastn-mcp").with_(arguments), key)
    if client is BY_NAME["vscode"]:
        link = link_to_vscode(server)
        return {
            label: f"https://{host}/redirect?url={quote(link.replace('vscode:', f'{scheme}:', 1), safe='')}"
            for label, host, scheme in (
                ("VS Code", "vscode.dev", "vscode"),
                ("VS Code Insiders", "insiders.vscode.dev", "vscode-insiders"),
            )
        }
    if client is BY_NAME["cursor"]:
        return {"Cursor": f"https://cursor.com/en/install-mcp?{link_to_cursor(server).partition('?')[2]}"}
    raise NotInstalled(f"{client.title} has no links that install a server.", f"Run: fastn-mcp install {client.name}")
