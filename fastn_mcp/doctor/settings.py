"""Checks of this machine: the settings and where each came from, the state folder and the ledger."""

import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from fastn_mcp.config.addresses import named_by
from fastn_mcp.config.load import Resolved
from fastn_mcp.config.model import KEY_SETTINGS, SOURCES, ConfigFile, Settings
from fastn_mcp.doctor.check import Check, CheckGroup
from fastn_mcp.errors import FastnError, SettingsError

THE_FILE, THE_PROFILE = "the file", "its profile"

_PLAIN = ("base_url", "auth", "test_mode", "mode", "env", "profile", "update")
"""The settings whose values the person at the terminal is shown."""

_FREE = 16 * 1024**2
"""Bytes that ought to be free on the disk of the state folder."""


def origins(
    resolved: Resolved, flags: Mapping[str, object], environment: Mapping[str, str], file: ConfigFile
) -> dict[str, str]:
    """The settings that are set, each with the flag, the variable or the file that it comes from."""
    settings = resolved.settings
    found = {name: THE_FILE for name in file.top if name not in KEY_SETTINGS}
    found |= {name: THE_PROFILE for name in file.profiles.get(settings.profile, {}) if name not in KEY_SETTINGS}
    for source in SOURCES:
        if environment.get(source.variable) and source.field != "api_key":
            found[source.field] = source.variable
        if flags.get(source.field) is not None:
            found[source.field] = str(source.flag)
    named = named_by(environment, settings.base_url)
    if "proxy" not in found and named is not None:
        found["proxy"] = named[0]
    # The place of a key may be a path.
    found["api_key"] = resolved.key if not {"/", "\\"} & set(resolved.key) else "a file"
    return found


def check_settings(settings: Settings, found: Mapping[str, str], file: Path | None) -> Check:
    """Which settings are set, and by what."""
    listed = ", ".join(f"{name} ({origin})" for name, origin in sorted(found.items()))
    values = ", ".join(f"{name} {getattr(settings, name)}" for name in _PLAIN if getattr(settings, name) is not None)
    here = values + (f"; the file is {file}" if file is not None else "; no file")
    return CheckGroup.SETTINGS.ok("settings", f"Set: {listed or 'nothing'}.", here=here)


def wrong_settings(error: SettingsError, file: Path | None) -> Check:
    """What is missing or wrong. The path of the file is for the person at the terminal only."""
    own = "" if file is None else str(file)
    seen, then = (text.replace(own, "the file") if own else text for text in (error.what, error.next_step))
    here = f"The file is {own}." if seen != error.what else ""
    return CheckGroup.SETTINGS.failed("settings", seen, then or "Correct it, and run doctor again.", here)


def check_folder(state: Path) -> Check:
    """Whether the state folder can be written, and only by its owner."""
    group, name, here = CheckGroup.SETTINGS, "state folder", f"The folder is {state}."
    there = next(path for path in (state, *state.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        seen = "The state folder cannot be written: nothing that changes something will be sent."
        return group.failed(name, seen, "Make it writable for this user, or set FASTN_STATE_DIR.", here)
    if shutil.disk_usage(there).free < _FREE:
        seen = "The disk of the state folder is full: nothing that changes something will be sent."
        return group.failed(name, seen, "Free space on it, or set FASTN_STATE_DIR.", here)
    if os.name != "nt" and there == state and state.stat().st_mode & 0o077:
        return group.differs(
            name, "Other users of this machine can open the state folder.", "Run chmod 700 on it.", here
        )
    return group.ok(name, "It can be written." if there == state else "It is created with the first change.", here=here)


async def check_ledger(read: Callable[[], Awaitable[object]] | None, weakness: str | None, where: str) -> Check:
    """Whether the ledger can be used. `read` reads it, `weakness` is what is wrong with how it is reached."""
    group, here = CheckGroup.SETTINGS, f"It is {where}."
    if read is None:
        return group.ok("ledger", "It is created with the first change.", here=here)
    try:
        await read()
    except FastnError as error:
        return group.failed("ledger", error.what.replace(f" {where}", ""), error.next_step, here)
    if weakness is not None:
        seen, _, then = weakness.partition(". ")
        return group.differs("ledger", f"{seen[0].upper()}{seen[1:]}.", then, here)
    return group.ok("ledger", "It can be read.", here=here)
