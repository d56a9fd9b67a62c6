"""Command line of the running program, as a person can paste it.

A suggested command must reach the same server: its sandbox, its profile, its folders.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from fastn_mcp.config.addresses import absolute_ledger

_FILES = ("FASTN_STATE_DIR", "FASTN_CONFIG_DIR", "FASTN_CONFIG", "FASTN_POLICY")
_LEDGER = "FASTN_LEDGER"
_CARRIED = (*_FILES, "FASTN_PROFILE", "FASTN_ENV", _LEDGER)
"""Variables that select the account and its approvals. Only the URL of a ledger can contain a secret."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A program with its arguments and the variables it needs in addition to those of the shell."""

    command: str
    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    """Names and values. For settings, an empty value counts as unset."""

    def with_(self, more: Sequence[str]) -> "CommandLine":
        """Return the command with more arguments."""
        return replace(self, arguments=(*self.arguments, *more))

    def line(self, platform: str = sys.platform) -> str:
        """Return the command for a POSIX shell, fish, or cmd on Windows. Secrets stay in its environment."""
        words = [self.command, *self.arguments]
        if platform == "win32":
            import subprocess  # imported here to keep startup fast

            shown = [f'set "{name}={value}" && ' for name, value in self.variables if not _is_secret(name, value)]
            return "".join(shown) + subprocess.list2cmdline(words)
        shown = [
            f'{name}="${{{name}:?}}"' if _is_secret(name, value) else f"{name}={shlex.quote(value) if value else ''}"
            for name, value in self.variables
        ]
        return " ".join([*shown, shlex.join(words)])

    def to(self, *more: str) -> str:
        """Return the command for a shell, with more arguments."""
        return self.with_(more).line()


PROGRAM = CommandLine("fastn-mcp")


def by_uvx(source: str = "fastn-mcp") -> CommandLine:
    """Return the command that runs the program by uvx, which fetches it from `source`."""
    return CommandLine("uvx", ("--from", source, "fastn-mcp"))


def running(executable: str, prefix: str, exists: Callable[[str], bool], source: str = "fastn-mcp") -> CommandLine:
    """Return the command that starts the running program from anywhere: by path, since PATH varies by client."""
    parts = PurePath(prefix).parts
    if "uv" in parts and any(part.startswith(("archive-v", "environments-v", "builds-v")) for part in parts):
        return by_uvx(source)  # uv deletes these folders
    python = PurePath(executable)
    suffix = python.suffix if python.suffix.lower() == ".exe" else ""  # python3.11 has no suffix
    script = str(python.with_name("fastn-mcp" + suffix))
    return CommandLine(script) if exists(script) else CommandLine(executable, ("-P", "-m", "fastn_mcp"))


def typed(program: CommandLine, found: str | None, own_folder: str) -> CommandLine:
    """Return the command as typed at any shell: by name, if the program `found` on the PATH is the same one.

    In `own_folder`, that of a virtual environment, the name is found only while the environment is activated.
    """
    if found is None or program.arguments or PurePath(found).is_relative_to(own_folder):
        return program
    return PROGRAM if os.path.realpath(found) == os.path.realpath(program.command) else program


def this_program(environment: Mapping[str, str]) -> CommandLine:
    """Return the command that starts this program again, with the relevant variables of `environment`."""
    program = running(sys.executable, sys.prefix, os.path.exists, _source(sys.prefix))
    own_folder = sys.prefix if sys.prefix != sys.base_prefix else os.devnull
    program = typed(program, shutil.which("fastn-mcp", path=environment.get("PATH")), own_folder)
    given = {name: environment[name] for name in _CARRIED if environment.get(name)}
    return replace(program, variables=tuple((name, _absolute(name, value)) for name, value in given.items()))


def kept_in(program: CommandLine, state: Path) -> CommandLine:
    """Return the command for the state folder `state`."""
    shared = [(name, value) for name, value in program.variables if name == _LEDGER]
    return replace(program, variables=(("FASTN_STATE_DIR", str(state)), *shared))


def _source(prefix: str) -> str:
    """Return the source that uvx installed the program from, if it is not a package name (PEP 610)."""
    if "uv" not in PurePath(prefix).parts:
        return "fastn-mcp"
    import json  # imported here; a normal installation uses its path
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
    if name == _LEDGER:
        return absolute_ledger(value, Path.cwd())
    return str(Path(value).expanduser().absolute()) if name in _FILES else value


def _is_secret(name: str, value: str) -> bool:
    """Return whether a variable is secret. The URL of a ledger is if it contains a password."""
    return name == _LEDGER and "@" in value
