"""MCP clients: where each keeps its servers, in what form, on each platform.

A place is a path in which `{NAME}` is a folder of the machine: see `places`. One with a `*` counts only where there is
such a folder.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath, PurePosixPath, PureWindowsPath

KEY_VARIABLE = "FASTN_API_KEY"
BEARER_VARIABLE = "FASTN_HTTP_TOKEN"


class Format(Enum):
    """How a configuration is written."""

    JSON = "JSON"
    JSONC = "JSON with comments"
    TOML = "TOML"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a file may be on each platform: the first that is there, or else the first that can be."""

    linux: tuple[str, ...]
    darwin: tuple[str, ...]
    win32: tuple[str, ...]

    def on(self, platform: str) -> tuple[str, ...]:
        """Those of a platform, as `sys.platform` calls it."""
        return {"darwin": self.darwin, "win32": self.win32}.get(platform, self.linux)


def _everywhere(place: str) -> Places:
    return Places((place,), (place,), (place,))


class TokenSource(Enum):
    """Where a client takes the bearer token of a server on this machine from. Its file never holds the token."""

    COMMAND = "headersHelper"
    """A command of ours, which it runs each time it connects."""
    PROMPT = "inputs"
    """The person, whom it asks once; it keeps the token itself."""
    REFERENCE = "headers"
    """A variable, named within a header."""
    VARIABLE = "bearer_token_env_var"
    """A variable, named by a field of its own."""


@dataclass(frozen=True, slots=True)
class Http:
    """How a client's file names a server that it reaches by streamable HTTP."""

    source: TokenSource
    address: str = "url"
    """The field of the URL."""
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    """What every such entry of it holds."""
    reference: str = ""
    """How it names the variable of the token."""


@dataclass(frozen=True, slots=True)
class McpClient:
    """One client. What it cannot do is empty."""

    name: str
    title: str
    format: Format
    servers: str
    """The key under which it keeps its servers, by name."""
    places: Places
    after: str
    """What makes it read the file."""
    http: Http | str
    """How it reaches a server by HTTP, or why its file cannot say that without holding the token."""
    programs: tuple[str, ...] = ()
    """What it is called on the command line."""
    project: str | None = None
    """Its file in the folder of a project, which others read too."""
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    """What every entry of it holds."""
    reference: str | None = None
    """How its file names the variable of the environment that holds the key."""
    forwards: bool = False
    """It passes on no variable that its file does not list by name, in `env_vars`."""
    prompts: bool = False
    """It asks for what its file lists under `inputs`, and keeps it itself."""


_DESKTOP = "claude_desktop_config.json"

CLIENTS = (
    McpClient(
        name="claude-code",
        title="Claude Code",
        format=Format.JSON,
        servers="mcpServers",
        places=_everywhere("{CLAUDE_CONFIG_DIR}/.claude.json"),
        project=".mcp.json",
        fixed={"type": "stdio"},
        # Without the default, a variable that is not set would arrive as its own name.
        reference=f"${{{KEY_VARIABLE}:-}}",
        programs=("claude",),
        http=Http(TokenSource.COMMAND, fixed={"type": "http"}),
        after="Check with: claude mcp list. In an open session: /mcp",
    ),
    McpClient(
        name="claude-desktop",
        title="Claude Desktop",
        format=Format.JSON,
        servers="mcpServers",
        places=Places(
            linux=(f"{{XDG_CONFIG_HOME}}/Claude/{_DESKTOP}",),
            darwin=(f"{{HOME}}/Library/Application Support/Claude/{_DESKTOP}",),
            # The packaged application reads a folder of its own, and never the one that its documentation names.
            win32=(
                f"{{LOCALAPPDATA}}/Claude-Data/claude*/{_DESKTOP}",
                f"{{LOCALAPPDATA}}/Packages/Claude_*/LocalCache/Roaming/Claude/{_DESKTOP}",
                f"{{APPDATA}}/Claude/{_DESKTOP}",
            ),
        ),
        http="Its file lists servers that it starts, and none that it reaches by HTTP.",
        after="Quit Claude Desktop and start it again",
    ),
    McpClient(
        name="vscode",
        title="VS Code",
        format=Format.JSONC,
        servers="servers",
        places=Places(
            linux=("{XDG_CONFIG_HOME}/Code/User/mcp.json",),
            darwin=("{HOME}/Library/Application Support/Code/User/mcp.json",),
            win32=("{APPDATA}/Code/User/mcp.json",),
        ),
        project=".vscode/mcp.json",
        fixed={"type": "stdio"},
        reference=f"${{env:{KEY_VARIABLE}}}",
        prompts=True,
        programs=("code",),
        http=Http(TokenSource.PROMPT, fixed={"type": "http"}),
        after="In VS Code: MCP: List Servers, then start it",
    ),
    McpClient(
        name="cursor",
        title="Cursor",
        format=Format.JSONC,
        servers="mcpServers",
        places=_everywhere("{HOME}/.cursor/mcp.json"),
        project=".cursor/mcp.json",
        fixed={"type": "stdio"},
        reference=f"${{env:{KEY_VARIABLE}}}",
        programs=("cursor",),
        http=Http(TokenSource.REFERENCE, reference=f"${{env:{BEARER_VARIABLE}}}"),
        after="In Cursor: Settings, MCP, and switch it on",
    ),
    McpClient(
        name="windsurf",
        title="Windsurf",
        format=Format.JSONC,
        servers="mcpServers",
        places=_everywhere("{HOME}/.codeium/windsurf/mcp_config.json"),
        reference=f"${{env:{KEY_VARIABLE}}}",
        programs=("windsurf",),
        http=Http(TokenSource.REFERENCE, "serverUrl", reference=f"${{env:{BEARER_VARIABLE}}}"),
        after="In Windsurf: refresh the list of MCP servers",
    ),
    McpClient(
        name="codex",
        title="Codex",
        format=Format.TOML,
        servers="mcp_servers",
        places=_everywhere("{CODEX_HOME}/config.toml"),
        project=".codex/config.toml",
        forwards=True,
        programs=("codex",),
        http=Http(TokenSource.VARIABLE),
        after="Check with: codex mcp list",
    ),
    McpClient(
        name="gemini",
        title="Gemini CLI",
        format=Format.JSONC,
        servers="mcpServers",
        places=_everywhere("{GEMINI_CLI_HOME}/.gemini/settings.json"),
        project=".gemini/settings.json",
        reference=f"${KEY_VARIABLE}",
        programs=("gemini",),
        http=Http(TokenSource.REFERENCE, "httpUrl", reference=f"${BEARER_VARIABLE}"),
        after="Look, in a folder that Gemini CLI trusts: gemini mcp list",
    ),
    McpClient(
        name="zed",
        title="Zed",
        format=Format.JSONC,
        servers="context_servers",
        places=Places(
            linux=("{XDG_CONFIG_HOME}/zed/settings.json",),
            darwin=("{HOME}/.config/zed/settings.json",),
            win32=("{APPDATA}/Zed/settings.json",),
        ),
        programs=("zed", "zeditor"),
        http="Its settings take the token only as plain text, and settings are shared and committed.",
        after="Zed starts it by itself: its dot in the settings of the agent panel turns green",
    ),
)

BY_NAME: Mapping[str, McpClient] = {client.name: client for client in CLIENTS}


_FOLDERS = {
    "HOME": "{HOME}",
    "XDG_CONFIG_HOME": "{HOME}/.config",
    "APPDATA": "{HOME}/AppData/Roaming",
    "LOCALAPPDATA": "{HOME}/AppData/Local",
    "CLAUDE_CONFIG_DIR": "{HOME}",
    "CODEX_HOME": "{HOME}/.codex",
    "GEMINI_CLI_HOME": "{HOME}",
}
"""Each folder is where a variable of this name says, or else here."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides where configurations are, and what there is."""

    platform: str
    """As `sys.platform` calls it."""
    home: str
    environment: Mapping[str, str]
    exists: Callable[[str], bool]
    matching: Callable[[str], Sequence[str]]
    """The paths that a pattern with `*` matches."""
    program: Callable[[str], str | None]
    """Where a program is, if it is on the PATH."""

    def path(self, text: str) -> PurePath:
        """A path as this machine writes it."""
        return PureWindowsPath(text) if self.platform == "win32" else PurePosixPath(text)


def place(client: McpClient, machine: Machine) -> PurePath:
    """The file that the client reads: the one that is there, or the one that it would make."""
    found: list[PurePath] = []
    for template in client.places.on(machine.platform):
        path = machine.path(_filled(template, machine))
        if "*" not in template:
            found.append(path)
        else:
            found += [machine.path(folder) / path.name for folder in sorted(machine.matching(str(path.parent)))]
    return next((path for path in found if machine.exists(str(path))), found[0])


def is_present(client: McpClient, machine: Machine) -> bool:
    """Whether there is anything of the client: the folder of its configuration, or its program."""
    signs = {sign(client, machine), str(place(client, machine))}
    return any(map(machine.exists, signs)) or any(map(machine.program, client.programs))


def sign(client: McpClient, machine: Machine) -> str:
    """What is there once the client has run: its folder, or its file where that lies in the user's own folder."""
    file = place(client, machine)
    return str(file if file.parent == machine.path(machine.home) else file.parent)


def _filled(template: str, machine: Machine) -> str:
    def folder(found: re.Match[str]) -> str:
        name = found[1]
        if name == "HOME":
            return machine.home
        return machine.environment.get(name) or _filled(_FOLDERS[name], machine)

    return re.sub(r"\{([A-Z_]+)\}", folder, template)
