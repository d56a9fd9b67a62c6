"""The configuration file: strict TOML with settings at the top level and per profile. Read it, or edit it in place.

Anyone who can change the file can redirect a key, so only its owner may write it; only the owner may read one that
contains a secret. Errors name the line and never show the value. An edit preserves comments, and is not written if the
result is invalid. It alone loads tomlkit, which takes 20 ms.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastn_mcp.config import strict_toml
from fastn_mcp.config.addresses import absolute_ledger
from fastn_mcp.config.model import (
    KEY_HOST,
    KEY_SETTINGS,
    MOVED,
    PROFILES,
    REMOVED,
    SECRETS,
    ConfigFile,
    KeySettings,
    Settings,
    Trait,
    settings_with,
)
from fastn_mcp.config.paths import file_errors, require_private, write_private
from fastn_mcp.config.sections import EXTENSIONS, Tables, with_absolute_files
from fastn_mcp.config.strict_toml import ConfigError, TomlSource
from fastn_mcp.errors import SettingsError, nearest

if TYPE_CHECKING:
    from tomlkit.items import Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_OF_A_PROFILE = (*(name for name in Settings.model_fields if name != "profile"), *KeySettings.model_fields)
_FILE_SETTINGS = settings_with(Trait.FILE)
_OF_THE_TOP = (*Settings.model_fields, *KeySettings.model_fields, PROFILES)


def read(path: Path) -> ConfigFile:
    if str(path) == os.devnull:
        return ConfigFile(path)  # the null device starts without the user's own file
    data, status = strict_toml.read(path, "file", "Correct --config or FASTN_CONFIG.")
    config = parsed(data, path)
    tables = (config.top, *config.profiles.values())
    held = next((name for table in tables for name in table if _is_secret(name, table[name])), None)
    if held is not None:
        require_private(path, status.st_mode, held)
    return replace(config, permissions=status.st_mode)


def read_or_none(path: Path) -> ConfigFile:
    return read(path) if path.exists() else ConfigFile(path)


def _is_secret(name: str, value: object) -> bool:
    """Return whether a value is secret. The URL of a ledger is if it contains a password."""
    return name in SECRETS and (name != "ledger" or "@" in str(value))


def parsed(data: bytes, path: Path) -> ConfigFile:
    hint = 'Correct it there; put texts in quotes, for example mode = "guarded"'
    return strict_toml.load(data, path, "configuration file", _built, hint=hint)


def _built(table: dict[str, Any], source: TomlSource) -> ConfigFile:
    profiles = table.pop(PROFILES, {})
    if isinstance(table.get("profile"), dict):
        raise ConfigError(("profile",), "the table of a profile is [profiles.NAME], with an s")
    _check(table, _OF_THE_TOP)
    if not isinstance(profiles, dict):
        raise ConfigError((PROFILES,), "profiles are tables, for example [profiles.acme]")
    named: dict[str, Mapping[str, object]] = {}
    for name, inner in cast("dict[str, object]", profiles).items():
        try:
            check_name(name)
        except SettingsError as error:
            raise ConfigError((PROFILES, name), str(error).rstrip(".")) from None
        if not isinstance(inner, dict):
            raise ConfigError((PROFILES, name), "a profile is a table, for example [profiles.acme]")
        own = cast("dict[str, object]", inner)
        _check(own, _OF_A_PROFILE, PROFILES, name)
        named[name] = _from(source.path, own)
    return ConfigFile(source.path, _from(source.path, table), named, source)


def check_name(name: str) -> None:
    """Reject an invalid profile name: it is part of every result and must read as one word."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name[:64]!r} is not a valid profile name.",
            "Use letters, digits, dots, hyphens and underscores, at most 64, beginning with a letter or digit.",
        )


def _check(table: Mapping[str, object], known: tuple[str, ...], *inside: str) -> None:
    for name in table:
        if name in REMOVED:
            raise ConfigError((*inside, name), f"the setting {name} was removed. {REMOVED[name].rstrip('.')}")
        if name in MOVED:
            raise ConfigError((*inside, name), f"the setting {name} is now {MOVED[name]}")
        if name not in known:
            where = f" in [{'.'.join(inside)}]" if inside else ""
            raise ConfigError((*inside, name), f"there is no setting {name!r}{where}{nearest(name, known)}")
    _check_extensions(table.get(EXTENSIONS, {}), *inside)
    both = [name for name in KEY_SETTINGS if name in table]
    if len(both) > 1:
        raise ConfigError((*inside, both[1]), f"{' and '.join(both)} are two API keys for one account")
    host = table.get(KEY_HOST, "live.fastn.ai")
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise ConfigError(
            (*inside, KEY_HOST),
            f'{KEY_HOST} must be a host, or a host and a port, as text, for example {KEY_HOST} = "live.fastn.ai"',
        )


def _check_extensions(tables: object, *inside: str) -> None:
    """Check that extensions have tables. What is in them is checked by their types."""
    example = f"settings of an extension are a table, for example [{'.'.join((*inside, EXTENSIONS))}.slack]"
    if not isinstance(tables, dict):
        raise ConfigError((*inside, EXTENSIONS), example)
    for name, table in cast("dict[str, object]", tables).items():
        if not isinstance(table, dict):
            raise ConfigError((*inside, EXTENSIONS, name), example)


def _from(path: Path, table: Mapping[str, object]) -> dict[str, object]:
    """Return the settings, with relative paths resolved from the file's folder, never from the working directory."""
    folder = path.absolute().parent
    settings = {
        name: folder / Path(value).expanduser() if name in _FILE_SETTINGS and isinstance(value, str) else value
        for name, value in table.items()
    }
    ledger = settings.get("ledger")
    if isinstance(ledger, str) and ledger:
        settings["ledger"] = absolute_ledger(ledger, folder)
    tables = cast(Tables, settings.get(EXTENSIONS, {}))
    if tables:
        settings[EXTENSIONS] = {name: with_absolute_files(table, folder) for name, table in tables.items()}
    return settings


# --- edits -------------------------------------------------------------------------------------------------------


def add(path: Path, name: str, values: Mapping[str, object]) -> None:
    """Append a profile. Raises `SettingsError`."""
    import tomlkit

    check_name(name)
    text = read_or_none(path).text
    gap = ""  # to a blank line
    if text and not text.endswith("\n\n"):
        gap = "\n" if text.endswith("\n") else "\n\n"
    table = tomlkit.dumps({PROFILES: {name: dict(values)}})
    if not values:
        table = f"[{PROFILES}.{tomlkit.key(name).as_string()}]"
    _write(path, f"{text}{gap}{table}".rstrip() + "\n")


def put(path: Path, profile: str | None, setting: str, value: str) -> None:
    """Set a setting in a profile, or at the top level. Raises `SettingsError`."""
    import tomlkit

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
    import tomlkit

    document = tomlkit.parse(read_or_none(path).text)
    table = document if profile is None else cast("dict[str, Table]", document[PROFILES])[profile]
    table.remove(setting)
    _write(path, tomlkit.dumps(document))


def _write(path: Path, text: str) -> None:
    """Validate the text and replace the file atomically."""
    config = parsed(text.encode(), path)
    if config.profiles and config.top.get("profile") not in (None, *config.profiles):
        raise config.no_profile(str(config.top["profile"]), f"{config.line('profile')}: ")
    real = path.resolve()
    with file_errors(path, "written"):
        write_private(real, text, mode=real.stat().st_mode & 0o777 if real.exists() else 0o600)
