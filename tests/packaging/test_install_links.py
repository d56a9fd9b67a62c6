"""Install links of the README hold the same entry as the client's file."""

import base64
import json
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from install_links import links

from fastn_mcp.extensions.install.clients import BY_NAME, NotInstalled


def test_links_hold_the_same_entry() -> None:
    found = links(BY_NAME["vscode"], "fastn", (), "prompt")
    for label, scheme, host in (
        ("VS Code", "vscode:", "vscode.dev"),
        ("VS Code Insiders", "vscode-insiders:", "insiders.vscode.dev"),
    ):
        link = urlsplit(found[label])
        assert (link.scheme, link.netloc, link.path) == ("https", host, "/redirect")
        target = parse_qs(link.query)["url"][0]
        assert target.startswith(f"{scheme}mcp/install?")
        config = json.loads(unquote(target.partition("?")[2]))
        assert (config["name"], config["command"], config["env"]["FASTN_API_KEY"]) == (
            *("fastn", "uvx"),
            "${input:" + config["inputs"][0]["id"] + "}",
        )
    (address,) = links(BY_NAME["cursor"], "fastn", ("--sandbox",), "profile").values()
    link = urlsplit(address)
    query = parse_qs(link.query)
    assert (link.netloc, link.path, query["name"]) == ("cursor.com", "/en/install-mcp", ["fastn"])
    assert json.loads(base64.b64decode(query["config"][0]))["args"][-1] == "--sandbox"
    with pytest.raises(NotInstalled, match="Zed has no links"):
        links(BY_NAME["zed"], "fastn", (), "profile")
