"""The command line of this very program, as a person can paste it.

What a person is told to run has to reach this very server: its sandbox, its profile, its folders.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

_FILES = ("FASTN_STATE_DIR", "FASTN_CONFIG_DIR", "FASTN_CONFIG", "FASTN_POLICY")
_LEDGER = "FASTN_LEDGER"
_CARRIED = (*_FILES, "FASTN_PROFILE", "FASTN_ENV", _LEDGER)
"""Variables that decide which account is meant and where its approvals are. Only the URL of a ledger holds a secret."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A program and its arguments, with the variables that it needs besides those of the shell."""

    command: str
    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    """Names and values. An empty value is as good as none to the settings."""

    def with_(self, more: Sequence[str]) -> "CommandLine":
        """The same with more arguments."""
        return replace(self, arguments=(*self.arguments, *more))

    def line(self, platform: str = sys.platform) -> str:
        """The same for a shell: POSIX, fish, or cmd on Windows. A secret is left to the shell's own environment."""
        words = [self.command, *self.arguments]
        if platform == "win32":
            import subprocess  # only there: a start pays for each import

            shown = [f'set "{name}={value}" && ' for name, value in self.variables if not _is_secret(name, value)]
            return "".join(shown) + subprocess.list2cmdline(words)
        shown = [
            f'{name}="${{{name}:?}}"' if _is_secret(name, value) else f"{name}={shlex.quote(value) if value else ''}"
            for name, value in self.variables
        ]
        return " ".join([*shown, shlex.join(words)])

    def to(self, *more: str) -> str:
        """The line for a shell that gives the program these arguments too."""
        return self.with_(more).line()


PROGRAM = CommandLine("fastn-mcp")


def by_uvx(source: str = "fastn-mcp") -> CommandLine:
    """Start it by uvx, which fetches it from `source`."""
    return CommandLine("uvx", ("--from", source, "fastn-mcp"))


def running(executable: str, prefix: str, exists: Callable[[str], bool], source: str = "fastn-mcp") -> CommandLine:
    """The program that runs, as it is started from anywhere: by its path, since a client may have another PATH."""
    parts = PurePath(prefix).parts
    if "uv" in parts and any(part.startswith(("archive-v", "environments-v", "builds-v")) for part in parts):
        return by_uvx(source)  # uv throws these folders away
    python = PurePath(executable)
    suffix = python.suffix if python.suffix.lower() == ".exe" else ""  # python3.11 has none
    script = str(python.with_name("fastn-mcp" + suffix))
    return CommandLine(script) if exists(script) else CommandLine(executable, ("-P", "-m", "fastn_mcp"))


def typed(program: CommandLine, found: str | None, own_folder: str) -> CommandLine:
    """The program as a person types it at any shell: by its name, where that is `found` on the PATH and is the same.

    In `own_folder`, that of a virtual environment, the name is found only while the environment is activated.
    """
    if found is None or program.arguments or PurePath(found).is_relative_to(own_folder):
        return program
    return PROGRAM if os.path.realpath(found) == os.path.realpath(program.command) else program


def this_program(environment: Mapping[str, str]) -> CommandLine:
    """This program, as a person starts it again at a shell, with the variables of `environment` that matter."""
    program = running(sys.executable, sys.prefix, os.path.exists, _source(sys.prefix))
    own_folder = sys.prefix if sys.prefix != sys.base_prefix else os.devnull
    program = typed(program, shutil.which("fastn-mcp", path=environment.get("PATH")), own_folder)
    given = {name: environment[name] for name in _CARRIED if environment.get(name)}
    return replace(program, variables=tuple((name, _absolute(name, value)) for name, value in given.items()))


def kept_in(program: CommandLine, state: Path) -> CommandLine:
    """The program for what is kept in the folder `state`."""
    shared = [(name, value) for name, value in program.variables if name == _LEDGER]
    return replace(program, variables=(("FASTN_STATE_DIR", str(state)), *shared))


def _source(prefix: str) -> str:
    """What uvx was given to fetch this program, where that is no name (PEP 610)."""
    if "uv" not in PurePath(prefix).parts:
        return "fastn-mcp"
    import json  # only there: an installation keeps its path
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin: Any = json.loads(distribution("fastn-mcp").read_text("direct_url.json") or "null")
        url = str(origin["url"])
        parts = urlsplit(url)
        if "vcs_info" in origin and "@" not in parts.netloc:
            return f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
        return url2pathname(parts.path) if parts.scheme == "file" else "fastn-mcp"
    except (PackageNotFoundError, ValueError, KeyError, TypeError):
        return "fastn-mcp"


def _absolute(name: str, value: str) -> str:
    is_file = name in _FILES or (name == _LEDGER and "://" not in value)
    return str(Path(value.removeprefix("sqlite:")).expanduser().absolute()) if is_file else value


def _is_secret(name: str, value: str) -> bool:
    """The URL of a ledger is one where it holds a password."""
    return name == _LEDGER and "@" in value
