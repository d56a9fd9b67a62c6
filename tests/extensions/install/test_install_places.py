"""What each client is told, and the place of its file on each platform, as data: no such machine is needed."""

import base64
import json
import tomllib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from fastn_mcp.config.command_line import CommandLine, running, source_of
from fastn_mcp.extensions.install.clients import (
    BY_NAME,
    CLIENTS,
    KEY_VARIABLE,
    Key,
    Machine,
    McpClient,
    NotInstalled,
    ServerEntry,
    check_url,
    document,
    http_server,
    is_present,
    place,
    stdio_server,
)

POSSIBLE: set[tuple[str, Key]] = {
    *((client.name, "profile") for client in CLIENTS),
    *((name, "environment") for name in ("claude-code", "vscode", "cursor", "windsurf", "codex", "gemini")),
    ("vscode", "prompt"),
}
"""Where a key can come from, by client."""

HOMES = {"linux": "/h/ann", "darwin": "/u/ann", "win32": r"C:\Users\Ann"}


def machine(
    platform: str, environment: dict[str, str] | None = None, existing: Iterable[str] = (), programs: Iterable[str] = ()
) -> Machine:
    files = list(existing)
    return Machine(
        platform=platform,
        home=HOMES[platform],
        environment=environment or {},
        exists=lambda path: path in files,
        matching=lambda pattern: [path for path in files if fnmatchcase(path, pattern)],
        program=lambda name: f"/bin/{name}" if name in programs else None,
    )


@pytest.mark.parametrize(
    ("client", "linux", "darwin", "win32"),
    [
        ("claude-code", "~/.claude.json", "~/.claude.json", r"~\.claude.json"),
        (
            "claude-desktop",
            "~/.config/Claude/claude_desktop_config.json",
            "~/Library/Application Support/Claude/claude_desktop_config.json",
            r"~\AppData\Roaming\Claude\claude_desktop_config.json",
        ),
        (
            "vscode",
            "~/.config/Code/User/mcp.json",
            "~/Library/Application Support/Code/User/mcp.json",
            r"~\AppData\Roaming\Code\User\mcp.json",
        ),
        ("cursor", "~/.cursor/mcp.json", "~/.cursor/mcp.json", r"~\.cursor\mcp.json"),
        (
            "windsurf",
            "~/.codeium/windsurf/mcp_config.json",
            "~/.codeium/windsurf/mcp_config.json",
            r"~\.codeium\windsurf\mcp_config.json",
        ),
        ("codex", "~/.codex/config.toml", "~/.codex/config.toml", r"~\.codex\config.toml"),
        ("gemini", "~/.gemini/settings.json", "~/.gemini/settings.json", r"~\.gemini\settings.json"),
        ("zed", "~/.config/zed/settings.json", "~/.config/zed/settings.json", r"~\AppData\Roaming\Zed\settings.json"),
    ],
)
def test_place_of_each_client_is_the_documented_one(client: str, linux: str, darwin: str, win32: str) -> None:
    for platform, path in (("linux", linux), ("darwin", darwin), ("win32", win32)):
        assert str(place(BY_NAME[client], machine(platform))) == path.replace("~", HOMES[platform], 1)


@pytest.mark.parametrize(
    ("client", "platform", "variable", "value", "path"),
    [
        ("claude-code", "linux", "CLAUDE_CONFIG_DIR", "/x", "/x/.claude.json"),
        ("codex", "darwin", "CODEX_HOME", "/x", "/x/config.toml"),
        ("gemini", "linux", "GEMINI_CLI_HOME", "/x", "/x/.gemini/settings.json"),
        ("zed", "linux", "XDG_CONFIG_HOME", "/x", "/x/zed/settings.json"),
        ("vscode", "linux", "XDG_CONFIG_HOME", "/x", "/x/Code/User/mcp.json"),
        ("vscode", "win32", "APPDATA", r"D:\Roaming", r"D:\Roaming\Code\User\mcp.json"),
    ],
)
def test_place_follows_the_clients_variables(client: str, platform: str, variable: str, value: str, path: str) -> None:
    assert str(place(BY_NAME[client], machine(platform, {variable: value}))) == path


def test_packaged_claude_desktop_is_found_on_windows() -> None:
    local = r"C:\Users\Ann\AppData\Local"
    packaged = rf"{local}\Packages\Claude_pzs8sxrjxfjjc\LocalCache\Roaming\Claude"
    newer = rf"{local}\Claude-Data\claude_1"
    desktop = BY_NAME["claude-desktop"]
    assert str(place(desktop, machine("win32", existing=[packaged]))) == rf"{packaged}\claude_desktop_config.json"
    assert str(place(desktop, machine("win32", existing=[packaged, newer]))) == rf"{newer}\claude_desktop_config.json"
    file = rf"{packaged}\claude_desktop_config.json"
    assert str(place(desktop, machine("win32", existing=[packaged, newer, file]))) == file


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_client_is_present_by_folder_file_or_program(client: object) -> None:
    known = next(one for one in CLIENTS if one is client)
    assert not is_present(known, machine("linux", existing=[HOMES["linux"]]))
    file = place(known, machine("linux"))
    assert is_present(known, machine("linux", existing=[str(file)]))
    if str(file.parent) != HOMES["linux"]:
        assert is_present(known, machine("linux", existing=[str(file.parent)]))
    programs = [*known.programs, *([known.commands.program] if known.commands else [])]
    for program in programs:
        assert is_present(known, machine("linux", programs=[program]))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
@pytest.mark.parametrize("key", ["profile", "environment", "prompt"])
def test_no_entry_holds_a_key(client: object, key: Key) -> None:
    """It references one in a way that the client supports, or is refused."""
    known = next(one for one in CLIENTS if one is client)
    start = CommandLine("/bin/fastn-mcp", ("--profile", "acme"))
    if (known.name, key) not in POSSIBLE:
        with pytest.raises(NotInstalled, match="fastn-mcp login"):
            stdio_server(known, "fastn", start, key, "linux")
        return
    server = stdio_server(known, "fastn", start, key, "linux")
    first = server.entry
    assert (first["command"], first["args"]) == ("/bin/fastn-mcp", ["--profile", "acme"])
    references = [*first.get("env", {}).values(), *first.get("env_vars", [])]
    assert all(text.startswith("$") or text in (KEY_VARIABLE, "DBUS_SESSION_BUS_ADDRESS") for text in references)
    assert (references == []) == (key == "profile" and known.name != "codex")
    assert len(server.inputs) == (1 if key == "prompt" else 0)


def test_entry_has_the_fields_that_each_client_documents() -> None:
    shapes = {
        client.name: stdio_server(client, "fastn", CommandLine("x"), "environment", "linux").entry
        for client in CLIENTS
        if "environment" in client.keys
    }
    plain: dict[str, object] = {"command": "x", "args": []}
    assert shapes == {
        "claude-code": {"type": "stdio", **plain, "env": {KEY_VARIABLE: "${FASTN_API_KEY:-}"}},
        "vscode": {"type": "stdio", **plain, "env": {KEY_VARIABLE: "${env:FASTN_API_KEY}"}},
        "cursor": {"type": "stdio", **plain, "env": {KEY_VARIABLE: "${env:FASTN_API_KEY}"}},
        "windsurf": {**plain, "env": {KEY_VARIABLE: "${env:FASTN_API_KEY}"}},
        "codex": {**plain, "env_vars": [KEY_VARIABLE]},
        "gemini": {**plain, "env": {KEY_VARIABLE: "$FASTN_API_KEY"}},
    }


def test_http_entry_has_the_fields_that_each_client_documents() -> None:
    url, command = "http://127.0.0.1:8080/mcp", "/bin/fastn-mcp http-token --header"
    reachable = {client.name: client for client in CLIENTS if not isinstance(client.http, str)}
    servers = {name: http_server(client, "fastn", url, command) for name, client in reachable.items()}
    variable = {"Authorization": "Bearer ${env:FASTN_HTTP_TOKEN}"}
    assert {name: server.entry for name, server in servers.items()} == {
        "claude-code": {"type": "http", "url": url, "headersHelper": command},
        "vscode": {"type": "http", "url": url, "headers": {"Authorization": "Bearer ${input:fastn-http-token}"}},
        "cursor": {"url": url, "headers": variable},
        "windsurf": {"serverUrl": url, "headers": variable},
        "codex": {"url": url, "bearer_token_env_var": "FASTN_HTTP_TOKEN"},
        "gemini": {"httpUrl": url, "headers": {"Authorization": "Bearer $FASTN_HTTP_TOKEN"}},
    }
    asked = [(name, each["password"]) for name, server in servers.items() for each in server.inputs]
    assert asked == [("vscode", True)]


def added(client: McpClient, server: ServerEntry, environment: dict[str, str] | None = None) -> Sequence[str] | None:
    """Return the arguments of the client's own command that adds a server; None if it has none."""
    return client.commands.add(server, environment or {}) if client.commands else None


START = CommandLine("/bin/fastn-mcp", ("--mode", "read-only"))
SOURCES: dict[str, Key] = {"claude-code": "environment", "codex": "profile", "gemini": "environment"}
SECRETS = {KEY_VARIABLE: "fsk_live_C4N4RY", "FASTN_HTTP_TOKEN": "C4N4RY" * 6}


def test_command_of_each_client_says_what_its_entry_says() -> None:
    """As each documents it. `make clients` runs those of Claude Code, Codex and Gemini CLI."""
    words = {
        name: added(BY_NAME[name], stdio_server(BY_NAME[name], "ours", START, key, "darwin"), SECRETS)
        for name, key in SOURCES.items()
    }
    entry = {"type": "stdio", "command": "/bin/fastn-mcp", "args": ["--mode", "read-only"]}
    key = {"env": {KEY_VARIABLE: "${FASTN_API_KEY:-}"}}
    assert words == {
        "claude-code": ["mcp", "add-json", "--scope", "user", "ours", json.dumps(entry | key)],
        "codex": ["mcp", "add", "ours", "--", "/bin/fastn-mcp", "--mode", "read-only"],
        "gemini": [
            *("mcp", "add", "--scope", "user", f"--env={KEY_VARIABLE}=${KEY_VARIABLE}", "ours"),
            *("/bin/fastn-mcp", "--", "--mode", "read-only"),
        ],
    }
    vscode = stdio_server(BY_NAME["vscode"], "ours", START, "profile", "linux")
    assert added(BY_NAME["vscode"], vscode) == ["--add-mcp", json.dumps({"name": "ours", **entry})]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_neither_command_nor_link_nor_document_holds_a_key_or_a_token(client: McpClient) -> None:
    """Although both are in the environment. A command that takes only values of variables is not used for them."""
    keys: list[Key] = [key for name, key in POSSIBLE if name == client.name]
    servers = [stdio_server(client, "ours", START, key, "linux") for key in keys]
    if not isinstance(client.http, str):
        servers.append(http_server(client, "ours", "http://127.0.0.1:8080/mcp", "fastn-mcp http-token --header"))
    for server in servers:
        link = client.link(server) if client.link else ""
        told = f"{added(client, server, SECRETS)} {link} {document(client, server)}"
        assert "C4N4RY" not in told


def test_command_of_codex_is_not_used_for_a_key_from_the_environment() -> None:
    """It takes the value of a variable, and would store it."""
    codex = BY_NAME["codex"]
    assert added(codex, stdio_server(codex, "ours", START, "environment", "linux"), SECRETS) is None


def test_link_holds_the_whole_entry_and_what_the_client_asks_for() -> None:
    vscode, cursor = BY_NAME["vscode"], BY_NAME["cursor"]
    asking = stdio_server(vscode, "ours & theirs", START, "prompt", "linux")
    assert added(vscode, asking) is None
    assert vscode.link is not None
    scheme, _, text = vscode.link(asking).partition("?")
    assert scheme == "vscode:mcp/install"
    assert json.loads(unquote(text)) == {"name": "ours & theirs", **asking.entry, "inputs": [*asking.inputs]}
    server = stdio_server(cursor, "ours & theirs", START, "environment", "linux")
    assert cursor.link is not None
    link = urlsplit(cursor.link(server))
    query = parse_qs(link.query)
    assert (link.scheme, query["name"]) == ("cursor", ["ours & theirs"])
    assert json.loads(base64.b64decode(query["config"][0])) == server.entry


def test_document_is_one_that_the_client_can_read() -> None:
    for client in CLIENTS:
        server = stdio_server(client, "ours", START, "profile", "linux")
        text = document(client, server)
        read = tomllib.loads(text) if client.is_toml else json.loads(text)
        assert read == {client.servers: {"ours": server.entry}}


@pytest.mark.parametrize("client", ["claude-desktop", "zed"])
def test_client_that_would_store_the_token_is_refused_http(client: str) -> None:
    with pytest.raises(NotInstalled, match=f"over stdio, which needs no token: fastn-mcp install {client}$"):
        http_server(BY_NAME[client], "fastn", "http://127.0.0.1:8080/mcp", "x")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/mcp", "http://127.0.0.2:1/mcp", "http://[::1]:65535/mcp"])
def test_loopback_url_is_accepted(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost:8080/mcp", "http://192.0.2.1:8080/mcp", "https://mcp.example/mcp", "http://0.0.0.0:1/mcp"),
        *("http://127.0.0.1:8080@evil.example:1/mcp", "http://127.0.0.1:8080/mcp?x", "http://127.0.0.1:8080/mcp\n"),
        *("http://127.0.0.1.evil.example:80/mcp", "http://127.0.0.1/mcp", "http://127.0.0.1:0/mcp", "127.0.0.1:8080"),
        *("http://127.0.0.1:99999/mcp", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/${HOME}", "http://[::]:1/mcp"),
        *("http://127.0.0.1:٨٠/mcp", "http://127.1:80/mcp", ""),
    ],
)
def test_other_url_is_refused(url: str) -> None:
    """The token is sent there. `localhost` can resolve to `::1`, where another user may listen."""
    with pytest.raises(NotInstalled, match="not the address of a server on this machine"):
        check_url(url)


@pytest.mark.parametrize(
    ("platform", "arguments", "forwarded"),
    [("linux", (), True), ("darwin", (), False), ("win32", (), False), ("linux", ("--sandbox",), False)],
)
def test_keyring_variable_is_forwarded_on_linux(platform: str, arguments: tuple[str, ...], forwarded: bool) -> None:
    """A profile's key is found by way of the session bus. The sandbox needs none."""
    server = stdio_server(BY_NAME["codex"], "fastn", CommandLine("x", arguments), "profile", platform)
    assert ("env_vars" in server.entry) is forwarded
    add = added(BY_NAME["codex"], server, {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/bus"})
    assert ("--env=DBUS_SESSION_BUS_ADDRESS=unix:path=/run/bus" in (add or ())) is forwarded


CACHED = "/c/archive-v0/x"
CACHE = ["/c/CACHEDIR.TAG", f"{CACHED}/bin/fastn-mcp"]


@pytest.mark.parametrize(
    ("prefix", "existing", "source", "start"),
    [
        ("/v", ["/v/bin/fastn-mcp"], None, CommandLine("/v/bin/fastn-mcp")),
        ("/v", [], None, CommandLine("/v/bin/python", ("-P", "-m", "fastn_mcp"))),
        ("/v", ["/v/bin/fastn-mcp"], "/clone", CommandLine("/v/bin/fastn-mcp")),
        ("/archive-v2/v", ["/archive-v2/v/bin/fastn-mcp"], "/clone", CommandLine("/archive-v2/v/bin/fastn-mcp")),
        (CACHED, CACHE, "/clone", CommandLine("uvx", ("--from", "/clone", "fastn-mcp"))),
        (CACHED, CACHE, None, CommandLine(f"{CACHED}/bin/fastn-mcp")),
    ],
)
def test_program_is_started_by_a_path_or_a_source_that_lasts(
    prefix: str, existing: list[str], source: str | None, start: CommandLine
) -> None:
    """A desktop client has another PATH, and what uvx fetched is deleted one day."""
    assert running(f"{prefix}/bin/python", prefix, lambda path: path in existing, source) == start


GIT = {"vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ({"url": "file:///my%20clone", "dir_info": {}}, "/my clone"),
        ({"url": "file:///gone", "dir_info": {}}, None),
        ({"url": "file:///w.whl", "archive_info": {}}, "/w.whl"),
        ({"url": "https://example.com/w.whl", "archive_info": {}}, "https://example.com/w.whl"),
        ({"url": "https://example.com/w.whl?token=C4N4RY", "archive_info": {}}, None),
        ({"url": "http://example.com/w.whl", "archive_info": {}}, None),
        ({"url": "https://example.com/r", **GIT}, "git+https://example.com/r@c0ffee"),
        (
            {"url": "https://example.com/r", "subdirectory": "d", **GIT},
            "git+https://example.com/r@c0ffee#subdirectory=d",
        ),
        ({"url": "ssh://git@example.com/r", **GIT}, "git+ssh://git@example.com/r@c0ffee"),
        ({"url": "https://C4N4RY@example.com/r", **GIT}, None),
        ({"url": "https://git:C4N4RY@example.com/r", **GIT}, None),
        ({}, None),
        ([], None),
    ],
)
def test_source_is_what_the_installation_came_from(origin: Any, source: str | None) -> None:
    """PEP 610. A URL with a secret is not written into the file of a client."""
    assert source_of(json.dumps(origin), {"/my clone", "/w.whl"}.__contains__) == source
