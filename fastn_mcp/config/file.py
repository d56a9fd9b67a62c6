"""Read the configuration file: strict TOML with settings at the top level and per profile.

Whoever may change it can send a key elsewhere, so only its owner may; and only the owner may read one that holds a
secret. What is wrong is named with its line, and never shown.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from fastn_mcp.config.model import FILE_ONLY, KEY_HOST, KEY_SETTINGS, PATHS, SECRETS, Settings, is_shared
from fastn_mcp.config.paths import read_regular, require_own
from fastn_mcp.errors import SettingsError, nearest

PROFILES = "profiles"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_OF_A_PROFILE = (*(name for name in Settings.model_fields if name != "profile"), *FILE_ONLY)
_OF_THE_TOP = (*Settings.model_fields, *FILE_ONLY, PROFILES)


@dataclass(frozen=True)
class ConfigFile:
    """What a file says: settings for all, and those of each profile, which go over them."""

    path: Path | None = None
    top: Mapping[str, object] = field(default_factory=dict[str, object])
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    text: str = ""

    def line(self, *at: str) -> str:
        """The file and the line where a key stands, as messages name it."""
        inside = (line for key, line in self._lines.items() if key[: len(at)] == at)
        return f"{self.path}, line {min(inside, default=1)}"

    @cached_property
    def _lines(self) -> Mapping[tuple[str | int, ...], int]:
        from fastn_mcp.config.strict_toml import places  # only where something is wrong

        return places(self.text)


def read(path: Path) -> ConfigFile:
    """What the file says. Raises `SettingsError`."""
    try:
        if str(path) == os.devnull:
            return ConfigFile(path)  # as one starts without the user's own
        data, status = read_regular(path, check=partial(require_own, path))
    except FileNotFoundError:
        raise SettingsError(f"There is no file {path}.", "Correct --config or FASTN_CONFIG.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    found = parsed(data, path)
    if os.name == "posix" and status.st_mode & 0o077:
        tables = (found.top, *found.profiles.values())
        held = next((name for table in tables for name in table if _is_secret(name, table[name])), None)
        if held is not None:
            raise SettingsError(
                f"{path} holds {held}, and others than its owner can read it.", f"Run: chmod 600 {path}"
            )
    return found


def _is_secret(name: str, value: object) -> bool:
    """The URL of a ledger is one where it holds a password."""
    return name in SECRETS and (name != "ledger" or "@" in str(value))


def parsed(data: bytes, path: Path) -> ConfigFile:
    """What this text says, as the file at `path`. Raises `SettingsError`."""
    try:
        text = data.decode()
        table = tomllib.loads(text)
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not text in UTF-8.", "Save it as UTF-8.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(
            f"{path} is not TOML: {error}.", 'Correct it there; texts stand in quotes, as in: mode = "guarded"'
        ) from None
    profiles = table.pop(PROFILES, {})
    bare = ConfigFile(path, text=text)
    if isinstance(table.get("profile"), dict):
        raise SettingsError(f"{bare.line('profile')}: the table of a profile is [profiles.NAME], with an s.")
    _strict(bare, table, _OF_THE_TOP)
    if not isinstance(profiles, dict):
        raise SettingsError(f"{bare.line(PROFILES)}: profiles are tables, as [profiles.acme].")
    named: dict[str, Mapping[str, object]] = {}
    for name, inner in cast("dict[str, object]", profiles).items():
        check_name(name, lambda name=name: f"{bare.line(PROFILES, name)}: ")
        if not isinstance(inner, dict):
            raise SettingsError(f"{bare.line(PROFILES, name)}: a profile is a table, as [profiles.acme].")
        own = cast("dict[str, object]", inner)
        _strict(bare, own, _OF_A_PROFILE, PROFILES, name)
        named[name] = _from(path, own)
    return ConfigFile(path, _from(path, table), named, text)


def check_name(name: str, where: Callable[[], str] = str) -> None:
    """Refuse what cannot be the name of a profile: it stands in every result, and must read as one word."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{where()}{name[:64]!r} is no name for a profile.",
            "Use letters, digits, dots, hyphens and underscores, at most 64, beginning with a letter or digit.",
        )


def _strict(file: ConfigFile, table: Mapping[str, object], known: tuple[str, ...], *inside: str) -> None:
    for name in table:
        if name not in known:
            where = f" in [{'.'.join(inside)}]" if inside else ""
            raise SettingsError(
                f"{file.line(*inside, name)}: there is no setting {name!r}{where}{nearest(name, known)}."
            )
    if len(both := [name for name in KEY_SETTINGS if name in table]) > 1:
        raise SettingsError(f"{file.line(*inside, both[1])}: {' and '.join(both)} are two keys for one account.")
    host = table.get(KEY_HOST, "live.fastn.ai")
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise SettingsError(
            f"{file.line(*inside, KEY_HOST)}: {KEY_HOST} must be a host, or a host and a port, as text.",
            f'As in: {KEY_HOST} = "live.fastn.ai"',
        )


def _from(path: Path, table: Mapping[str, object]) -> dict[str, object]:
    """The settings, with files found from the folder of this one: never from the working directory."""
    folder = path.absolute().parent
    found = {
        name: folder / Path(value).expanduser() if name in PATHS and isinstance(value, str) else value
        for name, value in table.items()
    }
    ledger = found.get("ledger")
    if isinstance(ledger, str) and ledger and not is_shared(ledger):
        found["ledger"] = str(folder / Path(ledger.removeprefix("sqlite:")).expanduser())
    return found
