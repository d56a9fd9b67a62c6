"""Command line of the running program, as a person can paste it.

A suggested command must reach the same server: its sandbox, its profile, its folders.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from fastn_mcp import IS_PUBLISHED
from fastn_mcp.config.addresses import absolute_ledger

_FILE_VARIABLES = ("FASTN_STATE_DIR", "FASTN_CONFIG_DIR", "FASTN_CONFIG", "FASTN_POLICY")
_LEDGER = "FASTN_LEDGER"
_UV_CACHE = re.compile(r"(archive|environments|builds)-v[0-9]+$")
_KEPT_VARIABLES = (*_FILE_VARIABLES, "FASTN_PROFILE", "FASTN_ENV", _LEDGER)
"""Variables that select the account and its approvals. Only the URL of a ledger can contain a secret."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A program with its arguments and the variables that it needs in addition to the shell's."""

    command: str
    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    """Names and values. For settings, an empty value counts as unset."""

    def with_(self, more: Sequence[str]) -> "CommandLine":
        return replace(self, arguments=(*self.arguments, *more))

    def line(self, platform: str = sys.platform) -> str:
        """Return the command for a POSIX shell, fish, or cmd on Windows. Secrets stay in its environment."""
        words = [self.command, *self.arguments]
        if platform == "win32":
            import subprocess  # imported here to keep startup fast

            variables = [f'set "{name}={value}" && ' for name, value in self.variables if not _is_secret(name, value)]
            return "".join(variables) + subprocess.list2cmdline(words)
        variables: list[str] = []
        for name, value in self.variables:
            if _is_secret(name, value):
                variables.append(f'{name}="${{{name}:?}}"')
            elif value:
                variables.append(f"{name}={shlex.quote(value)}")
            else:
                variables.append(f"{name}=")
        return " ".join([*variables, shlex.join(words)])

    def to(self, *more: str) -> str:
        """Return the command for a shell, with more arguments."""
        return self.with_(more).line()


PROGRAM = CommandLine("fastn-mcp")


def by_uvx(source: str) -> CommandLine:
    return CommandLine("uvx", ("--from", source, "fastn-mcp"))


def is_in_uv_cache(prefix: str, exists: Callable[[str], bool]) -> bool:
    """Return whether an environment lies in uv's cache, which uv empties: `uvx` makes them there."""
    folders = [folder for folder in PurePath(prefix).parents if _UV_CACHE.match(folder.name)]
    return any(exists(str(folder.parent / "CACHEDIR.TAG")) for folder in folders)


def running(executable: str, prefix: str, exists: Callable[[str], bool], source: str | None) -> CommandLine:
    """Return the command that starts the running program from anywhere: by path, since PATH varies by client."""
    if source is not None and is_in_uv_cache(prefix, exists):
        return by_uvx(source)
    python = PurePath(executable)
    suffix = python.suffix if python.suffix.lower() == ".exe" else ""  # python3.11 has no suffix
    script = str(python.with_name("fastn-mcp" + suffix))
    return CommandLine(script) if exists(script) else CommandLine(executable, ("-P", "-m", "fastn_mcp"))


def typed(program: CommandLine, path: str | None, own_folder: str) -> CommandLine:
    """Return the command as typed at any shell: by name, if the program on the PATH, at `path`, is the same one.

    In `own_folder`, the folder of a virtual environment, the name is found only while the environment is activated.
    """
    if path is None or program.arguments or PurePath(path).is_relative_to(own_folder):
        return program
    return PROGRAM if os.path.realpath(path) == os.path.realpath(program.command) else program


def this_program(environment: Mapping[str, str]) -> CommandLine:
    """Return the command that starts this program again, with the relevant variables of `environment`."""
    source = installed_from() if is_in_uv_cache(sys.prefix, os.path.exists) else None
    program = running(sys.executable, sys.prefix, os.path.exists, source)
    own_folder = sys.prefix if sys.prefix != sys.base_prefix else os.devnull
    program = typed(program, shutil.which("fastn-mcp", path=environment.get("PATH")), own_folder)
    carried = {name: environment[name] for name in _KEPT_VARIABLES if environment.get(name)}
    return replace(program, variables=tuple((name, _absolute(name, value)) for name, value in carried.items()))


def path_hint(environment: Mapping[str, str], started_as: str = sys.argv[0]) -> str | None:
    """Return what lets a shell find this program by its name. None if it does, or if the program was not installed."""
    program = Path(started_as).absolute()
    is_named = shutil.which("fastn-mcp", path=environment.get("PATH")) is not None
    if is_named or program.stem != "fastn-mcp" or is_in_uv_cache(sys.prefix, os.path.exists):
        return None
    folder = str(program.parent)
    shell = PurePath(environment.get("SHELL", "")).name
    line = shlex.quote(f'export PATH="{folder}:$PATH"')
    how = {
        "fish": f"fish_add_path {shlex.quote(folder)}",
        "bash": f"echo {line} >>~/.bashrc",
        "zsh": f"echo {line} >>~/.zshrc",
    }
    return f"fastn-mcp is not in your PATH. To add it for good:\n  {how.get(shell, f'put {folder} into it')}"


def kept_in(program: CommandLine, state: Path) -> CommandLine:
    shared = [(name, value) for name, value in program.variables if name == _LEDGER]
    return replace(program, variables=(("FASTN_STATE_DIR", str(state)), *shared))


def installed_from() -> str | None:
    """Return the source of this installation as pip and uvx take it. None if nothing that still exists is known."""
    from importlib.metadata import PackageNotFoundError, distribution  # imported here to keep startup fast

    try:
        origin = distribution("fastn-mcp").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    if origin is None:
        return "fastn-mcp" if IS_PUBLISHED else None
    return source_of(origin, os.path.exists)


def source_of(direct_url: str, exists: Callable[[str], bool]) -> str | None:
    """Return the source that a `direct_url.json` names (PEP 610). None for a missing path, and for a URL that may
    hold a secret: the source is written into the files of clients."""
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin: Any = json.loads(direct_url)
        url = str(origin["url"])
        parts = urlsplit(url)
        if parts.scheme == "file" and "vcs_info" not in origin:
            path = url2pathname(parts.path)
            return path if exists(path) else None
        if parts.password is not None or parts.username not in (None, "git") or parts.query or parts.fragment:
            return None
        folder = f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else ""
        if "vcs_info" in origin:
            return f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}{folder}"
        return url + folder if parts.scheme == "https" else None
    except (ValueError, KeyError, TypeError):
        return None


def _absolute(name: str, value: str) -> str:
    if name == _LEDGER:
        return absolute_ledger(value, Path.cwd())
    return str(Path(value).expanduser().absolute()) if name in _FILE_VARIABLES else value


def _is_secret(name: str, value: str) -> bool:
    """Return whether a variable is secret. The URL of a ledger is if it contains a password."""
    return name == _LEDGER and "@" in value
