"""Where each setting came from: a flag, a variable, the file. Pure; never a value."""

from collections.abc import Mapping
from pathlib import Path

from fastn_mcp.doctor.verdict import Check, Group, Verdict
from fastn_mcp.errors import SettingsError
from fastn_mcp.proxies import named_by
from fastn_mcp.settings import SOURCES, Resolved, Settings
from fastn_mcp.settings.file import ConfigFile
from fastn_mcp.settings.sources import KEY_SETTINGS

THE_FILE, THE_PROFILE = "the file", "its profile"

_PLAIN = ("base_url", "auth", "test_mode", "mode", "env", "profile", "update")
"""The settings whose values the person at the terminal is shown."""


def origins(
    resolved: Resolved, flags: Mapping[str, object], environment: Mapping[str, str], file: ConfigFile
) -> dict[str, str]:
    """The settings that are set, in the words of whoever would change them."""
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


def check(settings: Settings, found: Mapping[str, str], file: Path | None) -> Check:
    """Which settings are set, and by what."""
    said = ", ".join(f"{name} ({origin})" for name, origin in sorted(found.items()))
    values = ", ".join(f"{name} {getattr(settings, name)}" for name in _PLAIN if getattr(settings, name) is not None)
    here = values + (f"; the file is {file}" if file is not None else "; no file")
    return Check(Group.SETTINGS, "settings", Verdict.OK, f"Set: {said or 'nothing'}.", here=here)


def wrong(error: SettingsError, file: Path | None) -> Check:
    """What is missing or wrong. Where the file lies is nobody's but the person's at the terminal."""
    own = "" if file is None else str(file)
    seen, then = (text.replace(own, "the file") if own else text for text in (error.what, error.next_step))
    here = f"The file is {own}." if seen != error.what else ""
    return Check(Group.SETTINGS, "settings", Verdict.FAILED, seen, then or "Correct it, and run doctor again.", here)
