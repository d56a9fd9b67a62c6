"""MCP clients: where each keeps its configuration on each platform, and in what format.

A place is a path in which `{NAME}` is HOME or one of `_FOLDERS`. A place with a `*` counts only if such a folder
exists.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath, PurePosixPath, PureWindowsPath

KEY_VARIABLE = "FASTN_API_KEY"
BEARER_VARIABLE = "FASTN_HTTP_TOKEN"


class Format(Enum):
    JSON = "JSON"
    JSONC = "JSON with comments"
    TOML = "TOML"


class TokenSource(Enum):
    """Source of the bearer token for a server on this machine. A client's file never holds the token."""

    COMMAND = "headersHelper"
    """Command of ours that the client runs each time it connects."""
    PROMPT = "inputs"
    """Prompt: the client asks the person once, and stores the token itself."""
    REFERENCE = "headers"
    """Environment variable, referenced in a header."""
    VARIABLE = "bearer_token_env_var"
    """Environment variable, named in a field of its own."""


@dataclass(frozen=True, slots=True)
class Http:
    """Format of a client's entry for a server over streamable HTTP."""

    source: TokenSource
    address: str = "url"
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Constant fields of every such entry."""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class McpClient:
    """One MCP client. Fields of features that it lacks are empty."""

    name: str
    title: str
    places: Mapping[str, Sequence[str]]
    """Possible places of its file by `sys.platform`, by default those on Linux. The first that exists is used, or else
    the first."""
    after: str
    """What the person does next, so that it reads the file."""
    http: Http | str
    """Format of its entry over HTTP, or why it cannot have one without the token in it."""
    format: Format = Format.JSONC
    servers: str = "mcpServers"
    """Key of the object that holds its servers by name."""
    programs: tuple[str, ...] = ()
    project: str | None = None
    """Its file in a project's folder, which others read too."""
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Constant fields of every entry over stdio."""
    reference: str | None = None
    """Syntax for the environment variable of the key."""
    forwards: bool = False
    """Whether it passes on only the variables that its file lists in `env_vars`."""
    prompts: bool = False
    """Whether it asks for the values listed under `inputs`, and stores them itself."""


_DESKTOP = "claude_desktop_config.json"

CLIENTS = (
    McpClient(
        name="claude-code",
        title="Claude Code",
        format=Format.JSON,
        places={"linux": ["{CLAUDE_CONFIG_DIR}/.claude.json"]},
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
        places={"linux": ["{HOME}/.cursor/mcp.json"]},
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
        places={"linux": ["{HOME}/.codeium/windsurf/mcp_config.json"]},
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
        places={"linux": ["{CODEX_HOME}/config.toml"]},
        project=".codex/config.toml",
        forwards=True,
        programs=("codex",),
        http=Http(TokenSource.VARIABLE),
        after="Check with: codex mcp list",
    ),
    McpClient(
        name="gemini",
        title="Gemini CLI",
        places={"linux": ["{GEMINI_CLI_HOME}/.gemini/settings.json"]},
        project=".gemini/settings.json",
        reference=f"${KEY_VARIABLE}",
        programs=("gemini",),
        http=Http(TokenSource.REFERENCE, "httpUrl", reference=f"${BEARER_VARIABLE}"),
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
    """Return the client's file: the one that exists, or the one that it would create."""
    candidates: list[PurePath] = []
    for template in client.places.get(machine.platform, client.places["linux"]):
        path = machine.path(_filled(template, machine))
        if "*" not in template:
            candidates.append(path)
        else:
            candidates += [machine.path(folder) / path.name for folder in sorted(machine.matching(str(path.parent)))]
    return next((path for path in candidates if machine.exists(str(path))), candidates[0])


def is_present(client: McpClient, machine: Machine) -> bool:
    """Whether this machine has the client: the folder of its configuration, or its program."""
    signs = {sign(client, machine), str(place(client, machine))}
    return any(map(machine.exists, signs)) or any(map(machine.program, client.programs))


def sign(client: McpClient, machine: Machine) -> str:
    """Return what exists once the client has run: its folder, or its file if that is in the home folder."""
    file = place(client, machine)
    return str(file if file.parent == machine.path(machine.home) else file.parent)


def _filled(template: str, machine: Machine) -> str:
    folders = {name: machine.environment.get(name) or path.format(HOME=machine.home) for name, path in _FOLDERS.items()}
    return template.format(HOME=machine.home, **folders)
