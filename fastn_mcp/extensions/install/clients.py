"""MCP clients: what each is told of a server, by a command of its own or a link, and where its configuration is.

An entry names where the key or the token comes from, and never holds one. A place is a path in which `{NAME}` is HOME
or one of `_FOLDERS`. A place with a `*` counts only if such a folder exists.
"""

import base64
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from urllib.parse import quote, urlencode

from fastn_mcp.config.addresses import is_loopback
from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.errors import NOTHING_CHANGED, FastnError

KEY_VARIABLE = "FASTN_API_KEY"
_BEARER_VARIABLE = "FASTN_HTTP_TOKEN"
_KEYRING_VARIABLE = "DBUS_SESSION_BUS_ADDRESS"
"""Variable with which a program on Linux finds the keyring that holds a profile's key."""

Key = Literal["profile", "environment", "prompt"]
"""Source of the key: the user's own profile, a variable, or the client, which asks for it and stores it."""

Fields = Mapping[str, Any]


class NotInstalled(FastnError):
    """No client was told of the server. The message says why, and what to do."""

    outcome = "not_installed"
    certainty = NOTHING_CHANGED


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """What a client is told of a server."""

    name: str
    """Name of the server in the client."""
    entry: Fields
    """Its entry, in the client's own format."""
    inputs: Sequence[Fields] = ()
    """Values that the entry refers to, and that the client asks the person for."""


@dataclass(frozen=True, slots=True)
class Commands:
    """A client's own commands for its servers, each as the arguments of its program."""

    program: str
    add: Callable[[ServerEntry, Mapping[str, str]], Sequence[str] | None]
    """Returns what adds a server, in this environment; None if the command cannot say what the entry says."""
    remove: Callable[[str], Sequence[str]] | None = None
    """Returns what removes the server of a name. None if the client has no such command."""
    replaces: bool = True
    """Whether `add` replaces an entry of the same name. Otherwise that is removed first."""


@dataclass(frozen=True, slots=True)
class Http:
    """A client's entry for a server over streamable HTTP. The client gets the token in another way."""

    entry: Fields
    """Its fields, where `{url}` is the server's address, and `{header}` a command that prints the header."""
    note: str = f"Start {{title}} with the token: export {_BEARER_VARIABLE}=$({{command}})"
    """How the client gets the token, for people; `{command}` prints it."""


@dataclass(frozen=True, slots=True)
class McpClient:
    """One MCP client. Fields of features that it lacks are empty."""

    name: str
    title: str
    places: Mapping[str, Sequence[str]]
    """Possible places of its configuration by `sys.platform`, by default those on Linux. The first that exists counts,
    or else the first."""
    after: str
    """What the person does next, so that the client connects."""
    http: Http | str
    """Its entry over HTTP, or why it cannot have one without the token in it."""
    commands: Commands | None = None
    link: Callable[[ServerEntry], str] | None = None
    """Returns a link by which the client asks the person whether to add a server."""
    programs: tuple[str, ...] = ()
    """Programs beside that of `commands`, by which it is found on a machine."""
    servers: str = "mcpServers"
    """Key of the object that holds its servers by name."""
    is_toml: bool = False
    fixed: Fields = field(default_factory=dict[str, Any])
    """Constant fields of every entry over stdio."""
    keys: Mapping[Key, Fields] = field(default_factory=dict[Key, Fields])
    """Fields of an entry over stdio for each source of the key that the client supports."""


def _bearer(reference: str) -> Fields:
    return {"headers": {"Authorization": f"Bearer {reference}"}}


def _from_variable(reference: str) -> Mapping[Key, Fields]:
    return {"environment": {"env": {KEY_VARIABLE: reference}}}


_INPUTS = {
    f"${{input:{id_}}}": {"type": "promptString", "id": id_, "description": description, "password": True}
    for id_, description in (
        ("fastn-api-key", "Fastn API key"),
        ("fastn-http-token", "Token of fastn-mcp, as printed by: fastn-mcp http-token"),
    )
}
"""Values that a client asks the person for, once, and stores itself, by their references in an entry."""

_KEY_INPUT, _BEARER_INPUT = _INPUTS.keys()

_DESKTOP = "claude_desktop_config.json"


def _add_to_claude_code(server: ServerEntry, _environment: Mapping[str, str]) -> Sequence[str]:
    return ["mcp", "add-json", "--scope", "user", server.name, json.dumps(server.entry)]


def _add_to_codex(server: ServerEntry, environment: Mapping[str, str]) -> Sequence[str] | None:
    """Return its arguments. Of a variable it takes the value only, which is never given for a key."""
    entry = server.entry
    if "url" in entry:
        token = ["--bearer-token-env-var", entry["bearer_token_env_var"]]
        return ["mcp", "add", server.name, "--url", entry["url"], *token]
    names = entry.get("env_vars", ())
    if KEY_VARIABLE in names:
        return None
    values = [f"--env={name}={environment[name]}" for name in names if environment.get(name)]
    return ["mcp", "add", server.name, *values, "--", entry["command"], *entry["args"]]


def _add_to_gemini(server: ServerEntry, _environment: Mapping[str, str]) -> Sequence[str]:
    entry = server.entry
    add = ["mcp", "add", "--scope", "user"]
    if "httpUrl" in entry:
        headers = [f"--header={name}: {value}" for name, value in entry["headers"].items()]
        return [*add, "--transport", "http", *headers, server.name, entry["httpUrl"]]
    values = [f"--env={name}={value}" for name, value in entry.get("env", {}).items()]
    return [*add, *values, server.name, entry["command"], "--", *entry["args"]]


def _add_to_vscode(server: ServerEntry, _environment: Mapping[str, str]) -> Sequence[str] | None:
    """Return its arguments; none where it has to ask for a value, which only its link can say."""
    return None if server.inputs else ["--add-mcp", json.dumps({"name": server.name, **server.entry})]


def link_to_vscode(server: ServerEntry) -> str:
    config: dict[str, Any] = {"name": server.name, **server.entry}
    if server.inputs:
        config["inputs"] = [*server.inputs]
    return "vscode:mcp/install?" + quote(_compact(config), safe="!'()*")  # as encodeURIComponent writes it


def link_to_cursor(server: ServerEntry) -> str:
    config = base64.b64encode(_compact(server.entry).encode()).decode()
    return f"cursor://anysphere.cursor-deeplink/mcp/install?{urlencode({'name': server.name, 'config': config})}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


CLIENTS = (
    McpClient(
        name="claude-code",
        title="Claude Code",
        places={"linux": ["{CLAUDE_CONFIG_DIR}/.claude.json"]},
        fixed={"type": "stdio"},
        # Without the default, a variable that is not set would arrive as its own name.
        keys=_from_variable(f"${{{KEY_VARIABLE}:-}}"),
        commands=Commands(
            "claude",
            _add_to_claude_code,
            lambda name: ["mcp", "remove", "--scope", "user", name],
            replaces=False,
        ),
        http=Http(
            {"type": "http", "url": "{url}", "headersHelper": "{header}"},
            "{title} runs {command} --header when it connects. The token is in no other file.",
        ),
        after="Check with: claude mcp list. In an open session: /mcp",
    ),
    McpClient(
        name="claude-desktop",
        title="Claude Desktop",
        places={
            "linux": [f"{{XDG_CONFIG_HOME}}/Claude/{_DESKTOP}"],
            "darwin": [f"{{HOME}}/Library/Application Support/Claude/{_DESKTOP}"],
            # The packaged application reads a folder of its own, never the documented one.
            "win32": [
                f"{{LOCALAPPDATA}}/Claude-Data/claude*/{_DESKTOP}",
                f"{{LOCALAPPDATA}}/Packages/Claude_*/LocalCache/Roaming/Claude/{_DESKTOP}",
                f"{{APPDATA}}/Claude/{_DESKTOP}",
            ],
        },
        http="Its file lists only servers that it starts, not servers over HTTP.",
        after="Quit Claude Desktop and start it again",
    ),
    McpClient(
        name="vscode",
        title="VS Code",
        servers="servers",
        places={
            "linux": ["{XDG_CONFIG_HOME}/Code/User/mcp.json"],
            "darwin": ["{HOME}/Library/Application Support/Code/User/mcp.json"],
            "win32": ["{APPDATA}/Code/User/mcp.json"],
        },
        fixed={"type": "stdio"},
        keys={**_from_variable(f"${{env:{KEY_VARIABLE}}}"), "prompt": {"env": {KEY_VARIABLE: _KEY_INPUT}}},
        commands=Commands("code", _add_to_vscode),
        link=link_to_vscode,
        http=Http(
            {"type": "http", "url": "{url}", **_bearer(_BEARER_INPUT)},
            "{title} asks for the token when it first connects to the server, and stores it. To print it: {command}",
        ),
        after="In VS Code: MCP: List Servers, then start it",
    ),
    McpClient(
        name="cursor",
        title="Cursor",
        places={"linux": ["{HOME}/.cursor/mcp.json"]},
        fixed={"type": "stdio"},
        keys=_from_variable(f"${{env:{KEY_VARIABLE}}}"),
        programs=("cursor",),
        link=link_to_cursor,
        http=Http({"url": "{url}", **_bearer(f"${{env:{_BEARER_VARIABLE}}}")}),
        after="In Cursor, open Settings > MCP and turn it on",
    ),
    McpClient(
        name="windsurf",
        title="Windsurf",
        places={"linux": ["{HOME}/.codeium/windsurf/mcp_config.json"]},
        keys=_from_variable(f"${{env:{KEY_VARIABLE}}}"),
        programs=("windsurf",),
        http=Http({"serverUrl": "{url}", **_bearer(f"${{env:{_BEARER_VARIABLE}}}")}),
        after="In Windsurf: refresh the list of MCP servers",
    ),
    McpClient(
        name="codex",
        title="Codex",
        is_toml=True,
        servers="mcp_servers",
        places={"linux": ["{CODEX_HOME}/config.toml"]},
        # It passes on only the variables that its file lists.
        keys={"environment": {"env_vars": [KEY_VARIABLE]}, "profile": {"env_vars": [_KEYRING_VARIABLE]}},
        commands=Commands("codex", _add_to_codex, lambda name: ["mcp", "remove", name]),
        http=Http({"url": "{url}", "bearer_token_env_var": _BEARER_VARIABLE}),
        after="Check with: codex mcp list",
    ),
    McpClient(
        name="gemini",
        title="Gemini CLI",
        places={"linux": ["{GEMINI_CLI_HOME}/.gemini/settings.json"]},
        keys=_from_variable(f"${KEY_VARIABLE}"),
        commands=Commands("gemini", _add_to_gemini, lambda name: ["mcp", "remove", "--scope", "user", name]),
        http=Http({"httpUrl": "{url}", **_bearer(f"${_BEARER_VARIABLE}")}),
        after="Check in a trusted folder with: gemini mcp list",
    ),
    McpClient(
        name="zed",
        title="Zed",
        servers="context_servers",
        places={
            "linux": ["{XDG_CONFIG_HOME}/zed/settings.json"],
            "darwin": ["{HOME}/.config/zed/settings.json"],
            "win32": ["{APPDATA}/Zed/settings.json"],
        },
        programs=("zed", "zeditor"),
        http="Its settings take the token only as plain text, and settings are shared and committed.",
        after="Zed starts it by itself: its dot in the settings of the agent panel turns green",
    ),
)

BY_NAME: Mapping[str, McpClient] = {client.name: client for client in CLIENTS}

OTHER = McpClient(
    name="json",
    title="The entry for any other client",
    places={},
    after="",
    http=Http({"type": "http", "url": "{url}", **_bearer(f"${{{_BEARER_VARIABLE}}}")}),
)
"""A client that is not in the table: its entry, in the common format, is printed."""


_FOLDERS = {
    "XDG_CONFIG_HOME": "{HOME}/.config",
    "APPDATA": "{HOME}/AppData/Roaming",
    "LOCALAPPDATA": "{HOME}/AppData/Local",
    "CLAUDE_CONFIG_DIR": "{HOME}",
    "CODEX_HOME": "{HOME}/.codex",
    "GEMINI_CLI_HOME": "{HOME}",
}
"""Default of each folder. An environment variable of the same name overrides it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Platform, environment and file system, as far as the places of configurations depend on them."""

    platform: str
    """As in `sys.platform`."""
    home: str
    environment: Mapping[str, str]
    exists: Callable[[str], bool]
    matching: Callable[[str], Sequence[str]]
    """Returns the paths that match a pattern with `*`."""
    program: Callable[[str], str | None]
    """Returns the path of a program, or None if it is not on the PATH."""

    def path(self, text: str) -> PurePath:
        """Parse a path in the syntax of this machine."""
        return PureWindowsPath(text) if self.platform == "win32" else PurePosixPath(text)


def place(client: McpClient, machine: Machine) -> PurePath:
    """Return the client's file: the existing file, or the file that it would create."""
    candidates: list[PurePath] = []
    folders = {name: machine.environment.get(name) or path.format(HOME=machine.home) for name, path in _FOLDERS.items()}
    for template in client.places.get(machine.platform, client.places["linux"]):
        path = machine.path(template.format(HOME=machine.home, **folders))
        if "*" not in template:
            candidates.append(path)
        else:
            candidates += [machine.path(folder) / path.name for folder in sorted(machine.matching(str(path.parent)))]
    return next((path for path in candidates if machine.exists(str(path))), candidates[0])


def is_present(client: McpClient, machine: Machine) -> bool:
    """Whether this machine has the client: the folder of its configuration, or its program."""
    signs = {sign(client, machine), str(place(client, machine))}
    programs = [*client.programs, *([client.commands.program] if client.commands else [])]
    return any(map(machine.exists, signs)) or any(map(machine.program, programs))


def sign(client: McpClient, machine: Machine) -> str:
    """Return what exists once the client has run: its folder, or its file if that is in the home folder."""
    file = place(client, machine)
    return str(file if file.parent == machine.path(machine.home) else file.parent)


# --- entries -----------------------------------------------------------------------------------------------------


def stdio_server(
    client: McpClient, name: str, start: CommandLine, key: Key, platform: str = sys.platform
) -> ServerEntry:
    """Return what the client is told of a server that it starts. Raises `NotInstalled`."""
    fields: Fields | None = client.keys.get(key)
    if fields is None and key != "profile":
        why = f"{client.title} does not support --key {key}."
        raise NotInstalled(why, "Leave it out, and store the key: fastn-mcp login")
    sandboxed = any(argument.startswith("--sandbox") for argument in start.arguments)
    if fields is None or (key == "profile" and (sandboxed or platform in ("darwin", "win32"))):
        fields = {}
    entry = {**client.fixed, "command": start.command, "args": list(start.arguments), **fields}
    return ServerEntry(name, entry, _inputs(entry))


def http_of(client: McpClient) -> Http:
    """Return the client's entry over HTTP. Raises `NotInstalled` if it has none."""
    if isinstance(client.http, Http):
        return client.http
    raise NotInstalled(
        f"{client.title} cannot use a server over HTTP: {client.http[0].lower()}{client.http[1:]}",
        f"Let it start the server over stdio, which needs no token: fastn-mcp install {client.name}",
    )


def http_server(client: McpClient, name: str, url: str, header: str) -> ServerEntry:
    """Return what the client is told of a server that runs at `url`. `header` is a command that prints its header."""
    values = {"{url}": url, "{header}": header}
    fields = http_of(client).entry
    entry = {field: values.get(value, value) if isinstance(value, str) else value for field, value in fields.items()}
    return ServerEntry(name, entry, _inputs(entry))


def _inputs(entry: Fields) -> Sequence[Fields]:
    """Return what the client has to ask for, because the entry refers to it."""
    text = json.dumps(entry)
    return [value for reference, value in _INPUTS.items() if reference in text]


def document(client: McpClient, server: ServerEntry) -> str:
    """Return the entry as the client's configuration has it, in a document of its own."""
    content: dict[str, Any] = {client.servers: {server.name: dict(server.entry)}}
    if server.inputs:
        content["inputs"] = [*server.inputs]
    if not client.is_toml:
        return json.dumps(content, indent=2, ensure_ascii=False)
    import tomlkit  # deferred import: only for a client whose configuration is TOML

    return tomlkit.dumps(content).strip()  # pyright: ignore[reportUnknownMemberType]


def check_url(url: str) -> None:
    """Raise `NotInstalled` unless the URL has an address of this machine, since the token is sent there.

    Names are refused: `localhost` can resolve to `::1`, where another user can listen while the server has 127.0.0.1.
    """
    parts = re.fullmatch(r"http://([0-9.]+|\[[0-9a-f:]+\]):([0-9]{1,5})/mcp", url)
    if parts is None or not is_loopback(parts[1].strip("[]")) or not 0 < int(parts[2]) < 65536:
        raise NotInstalled(
            "--url is not the address of a server on this machine.",
            "For example: --url http://127.0.0.1:8080/mcp. Not localhost, which can resolve to another server's"
            " address. For a team, people sign in: docs/hosting.md",
        )
