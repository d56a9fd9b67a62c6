"""Where each setting came from: a flag, a variable, the file. Pure; never a value."""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

from fastn_mcp.doctor.verdict import Check, Group, Verdict
from fastn_mcp.errors import SettingsError
from fastn_mcp.proxies import named_by
from fastn_mcp.settings import SOURCES, Settings

_PLAIN = ("base_url", "auth", "test_mode", "mode", "env", "profile", "update")
"""The settings whose values the person at the terminal is shown."""


def origins(
    settings: Settings, flags: Mapping[str, object], environment: Mapping[str, str], in_file: Collection[str]
) -> dict[str, str]:
    """The settings that are set, in the words of whoever would change them."""
    found = dict.fromkeys(in_file, "the file")
    for source in SOURCES:
        if environment.get(source.variable):
            found[source.field] = source.variable
        if flags.get(source.field) is not None:
            found[source.field] = str(source.flag)
    named = named_by(environment, settings.base_url)
    if "proxy" not in found and named is not None:
        found["proxy"] = named[0]
    return found


def names_in(file: Path | None) -> frozenset[str]:
    """What a file of settings sets. It was read before, so that it can be."""
    return frozenset() if file is None else frozenset(tomllib.loads(file.read_text(encoding="utf-8")))


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
