"""Where a client's configuration is on a machine. The platform, the home and the environment are passed in."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from fastn_mcp.installing.clients import Client

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


def place(client: Client, machine: Machine) -> PurePath:
    """The file that the client reads: the one that is there, or the one that it would make."""
    found: list[PurePath] = []
    for template in client.places.on(machine.platform):
        path = machine.path(_filled(template, machine))
        if "*" not in template:
            found.append(path)
        else:
            found += [machine.path(folder) / path.name for folder in sorted(machine.matching(str(path.parent)))]
    return next((path for path in found if machine.exists(str(path))), found[0])


def is_present(client: Client, machine: Machine) -> bool:
    """Whether there is anything of the client: the folder of its configuration, or its program."""
    signs = {sign(client, machine), str(place(client, machine))}
    return any(map(machine.exists, signs)) or any(map(machine.program, client.programs))


def sign(client: Client, machine: Machine) -> str:
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
