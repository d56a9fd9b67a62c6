"""Edit the configuration file in place. Comments are preserved; an invalid result is not written."""

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import tomlkit
from tomlkit.items import Table

from fastn_mcp.config.file import check_name, parsed, read
from fastn_mcp.config.load import choose
from fastn_mcp.config.model import PROFILES, ConfigFile
from fastn_mcp.config.paths import file_errors, write_private
from fastn_mcp.config.strict_toml import without_tables
from fastn_mcp.errors import SettingsError


def read_or_none(path: Path) -> ConfigFile:
    return read(path) if path.exists() else ConfigFile(path)


def add(path: Path, name: str, values: Mapping[str, object]) -> None:
    """Append a profile. Raises `SettingsError`."""
    check_name(name)
    text = read_or_none(path).text
    gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    table = tomlkit.dumps({PROFILES: {name: dict(values)}})
    _write(path, f"{text}{gap}{table if values else f'[{PROFILES}.{tomlkit.key(name).as_string()}]'}".rstrip() + "\n")


def remove(path: Path, name: str) -> None:
    """Remove a profile; with the last one, also the default. Raises `SettingsError`."""
    text = read_or_none(path).text
    wanted = tomllib.loads(text)
    del wanted[PROFILES][name]
    left = without_tables(text, (PROFILES, name))
    if not wanted[PROFILES]:
        del wanted[PROFILES]
        if wanted.pop("profile", None) is not None:
            left = re.sub(r"(?m)^profile\s*=.*\n?", "", left)
    left = left.rstrip() + "\n"
    with suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(left) == wanted:
            return _write(path, left)
    raise SettingsError(f"{name} could not be removed from {path}.", "Remove it by hand.")  # written in an unusual way


def put(path: Path, profile: str | None, setting: str, value: str) -> None:
    """Set a setting in a profile, or at the top level. Raises `SettingsError`."""
    text = read_or_none(path).text
    document = tomlkit.parse(text)
    if profile is not None:
        cast("dict[str, dict[str, str]]", document[PROFILES])[profile][setting] = value
    elif setting in document:
        document[setting] = value
    else:
        # At the very beginning: elsewhere it might come between a table and its comment.
        gap = "\n" if text.startswith(("[", "#")) else ""
        _write(path, tomlkit.dumps({setting: value}) + gap + text)
        return
    _write(path, tomlkit.dumps(document))


def unset(path: Path, profile: str | None, setting: str) -> None:
    """Remove a setting from a profile, or from the top level. Raises `SettingsError`."""
    document = tomlkit.parse(read_or_none(path).text)
    table = document if profile is None else cast("dict[str, Table]", document[PROFILES])[profile]
    table.remove(setting)
    _write(path, tomlkit.dumps(document))


def _write(path: Path, text: str) -> None:
    """Validate the text and replace the file atomically."""
    choose({}, {}, parsed(text.encode(), path))
    real = path.resolve()
    with file_errors(path, "written"):
        write_private(real, text, mode=real.stat().st_mode & 0o777 if real.exists() else 0o600)
