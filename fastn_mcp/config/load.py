"""Merge flags, environment, profile and file into `Settings`.

A profile is an account, and its key is sent only where the profile says. Its key therefore never comes from the top
level of the file, and a variable for one account (its key, its address, its headers) is an error beside a profile
that does not name it: the program does not guess which was meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from fastn_mcp.config import keys
from fastn_mcp.config.addresses import named_by
from fastn_mcp.config.keys import VARIABLE, Key, NoKeyring, SystemKeyring
from fastn_mcp.config.model import (
    DEFAULT_BASE_URL,
    KEY_HOST,
    KEY_SETTINGS,
    OF_THE_PROCESS,
    REMOVED,
    SOURCES,
    ConfigFile,
    Settings,
    Trait,
    settings_with,
)
from fastn_mcp.config.paths import require_private
from fastn_mcp.config.sections import EXTENSIONS, Section, SectionReader, secrets_in, variables_in, wrong
from fastn_mcp.errors import NoKey, SettingsError, closest, nearest, reason

DEFAULT = "default"
"""Name of the account if none is chosen."""

THE_FILE = "the file"
THE_PROFILE = "its profile"

_VARIABLES = {source.field: source.variable for source in SOURCES}
_FLAGS = {source.field: source.flag for source in SOURCES if source.flag is not None}
_NO_KEY = "-"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chosen account before its key is known."""

    values: Mapping[str, object]
    file: ConfigFile
    profile: str | None
    """Profile in the file; None for the top level."""
    origins: Mapping[str, str]
    """Flag or variable of each setting that has one, or `THE_FILE` or `THE_PROFILE`."""

    @property
    def table(self) -> Mapping[str, object]:
        return self.file.table(self.profile)

    @property
    def address(self) -> str:
        """Base URL without flags and variables."""
        url = self.table.get("base_url", self.file.top.get("base_url", DEFAULT_BASE_URL))
        return str(url).rstrip("/")

    @property
    def key_host(self) -> str:
        """Host that a key in the file is bound to, whatever address flags and variables name."""
        if KEY_HOST in self.table:
            return str(self.table[KEY_HOST]).lower()
        return urlsplit(self.address).netloc.lower()

    def keyless(self) -> Settings:
        """Return the settings with a placeholder key. Raises `SettingsError`."""
        return self.with_key(Key(_NO_KEY, ""))

    def with_key(self, key: Key) -> Settings:
        """Return the settings with this key. Raises `SettingsError`."""
        try:
            settings = Settings.model_validate({**self.values, "api_key": key.value})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise self._wrong(str(problem["loc"][0]) if problem["loc"] else "settings", problem, key) from None
        return settings.with_origins({**self.origins, "api_key": key.place}, self._place)

    def _wrong(self, name: str, problem: Any, key: Key) -> SettingsError:
        if problem["type"] == "extra_forbidden":
            return SettingsError(f"There is no setting {name!r}{nearest(name, Settings.model_fields)}.")
        if name == "api_key":
            error = wrong(f"The setting api_key ({key.place})", reason(problem))
            return NoKey(error.what, "Copy the whole key, and nothing else.")
        return wrong(self._place(name), reason(problem))

    def _place(self, name: str) -> str:
        """Say where the value of a setting comes from, as the subject of a sentence."""
        origin = self.origins.get(name, "")
        if origin in (THE_FILE, THE_PROFILE):
            return f"{self.file.line_of(name, self.profile if origin == THE_PROFILE else None)}: the setting {name}"
        kind = "flag" if origin.startswith("--") else "environment"
        return f"The setting {name} ({kind} {origin})" if origin else f"The setting {name}"


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
    *,
    keyring: SystemKeyring | None = None,
    flag_names: Mapping[str, str] = _FLAGS,
    sections: SectionReader | None = None,
) -> Settings:
    """Load the settings. `flag_names` are the names of `flags` in errors. Raises `SettingsError`.

    Settings of extensions are read by `sections`, and without it left out.
    """
    account = choose(flags, environment, read_file(file), flag_names=flag_names, sections=sections)
    if flags.get("api_key") is not None:
        return account.with_key(Key(flags["api_key"], "given"))
    if account.profile is None and environment.get(VARIABLE, "") != "":
        return account.with_key(Key(environment[VARIABLE], f"environment {VARIABLE}"))
    return account.with_key(key_of(account, environment, keyring or SystemKeyring()))


def ledger_settings(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
    *,
    sandbox: bool = False,
    sections: SectionReader | None = None,
) -> Settings:
    """Load only the settings of the ledger: approvers need no key. Raises `SettingsError`."""
    account = choose(flags, environment, read_file(file), sandbox=sandbox, sections=sections)
    names = ("ledger", "state_secret", EXTENSIONS)
    return replace(account, values={name: account.values.get(name) for name in names}).keyless()


def read_file(file: Path | None) -> ConfigFile:
    if file is None:
        return ConfigFile()
    from fastn_mcp.config.file import read  # imported only if there is a file: other starts need no TOML parser

    return read(file)


def key_of(account: Chosen, environment: Mapping[str, str], keyring: SystemKeyring) -> Key:
    """Return the key of an account from the file or the keyring. Raises `SettingsError`."""
    written = keys.key_in_file(account.file, account.profile, environment)
    settings = account.keyless()
    why = ""
    if written is None:
        try:
            key = keyring.get(keys.entry(settings.profile, settings.host))
            if key is not None:
                return Key(key, "keyring")
        except NoKeyring as error:
            why = error.what
        raise _no_key(account, settings, why, environment)
    if account.key_host == settings.host.lower():
        return written
    name = f" {account.profile}" if account.profile else ""
    raise SettingsError(
        f"The key ({written.place}) was given for {account.key_host}, and is not sent to {settings.host}.",
        f"Set --base-url or FASTN_BASE_URL to the address of {account.key_host}; or use a profile of its own "
        f"(fastn-mcp --base-url URL login NAME), replace the key (fastn-mcp login{name} --file --replace), or "
        f'write {KEY_HOST} = "{settings.host}" beside it.',
    )


def choose(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    config: ConfigFile,
    *,
    sandbox: bool = False,
    flag_names: Mapping[str, str] = _FLAGS,
    sections: SectionReader | None = None,
) -> Chosen:
    """Choose the account, before its key is known. Raises `SettingsError`.

    With `sandbox` no profile is chosen: the in-process sandbox is an account of its own. Settings of extensions are
    read by `sections`, and without it left out.
    """
    _no_other_was_meant(environment, config, sections)
    set_flags = {name: value for name, value in flags.items() if value is not None}
    variables = {name: environment[v] for name, v in _VARIABLES.items() if environment.get(v, "") != ""}
    profile = None if sandbox else _profile(set_flags, variables, config)
    own = {} if profile is None else {**config.profiles[profile], "profile": profile}
    values = {name: value for name, value in {**config.top, **own}.items() if name not in (*KEY_SETTINGS, KEY_HOST)}
    if profile is not None:
        _one_account(variables, values, set_flags, profile=profile, config=config)
    values[EXTENSIONS] = {} if sections is None else _sections(config, profile, environment, sections)
    values |= {name: value for name, value in (variables | set_flags).items() if name != "api_key"}
    origins = dict.fromkeys(config.top, THE_FILE)
    origins |= dict.fromkeys({} if profile is None else config.profiles[profile], THE_PROFILE)
    origins |= {name: _VARIABLES[name] for name in variables}
    origins |= {name: flag_names.get(name, "") for name in set_flags}
    named = None if "proxy" in values else named_by(environment, str(values.get("base_url", DEFAULT_BASE_URL)))
    if named is not None:
        origins["proxy"], values["proxy"] = named
    origins = {name: origin for name, origin in origins.items() if origin and name in values}
    return Chosen(values, config, profile, origins)


def _sections(
    config: ConfigFile, profile: str | None, environment: Mapping[str, str], reader: SectionReader
) -> dict[str, Section]:
    """Read the settings of extensions. Raises `SettingsError`, also if others can read a secret in the file."""
    tables = config.tables_of_extensions(profile)
    sections = reader.read(tables, environment, partial(config.place_in_extension, profile=profile))
    secret = next(secrets_in(tables, sections), None)
    if secret is not None and config.path is not None:
        require_private(config.path, config.permissions, ".".join(secret))
    return sections


def _no_other_was_meant(environment: Mapping[str, str], config: ConfigFile, sections: SectionReader | None) -> None:
    """Reject variables of removed settings, and misspelt variables: FASTN_READ_ONY=1 would allow everything.

    Names close to the key's are ignored: they may hold keys of other accounts, and a missing key is an error anyway.
    """
    known = (*_VARIABLES.values(), *OF_THE_PROCESS)
    named = [table.get("api_key_env") for table in (config.top, *config.profiles.values())]
    for profile in (None, *config.profiles):
        named += variables_in(config.tables_of_extensions(profile))
    for setting, instead in REMOVED.items():
        variable = f"FASTN_{setting.upper()}"
        if variable in environment and variable not in named:
            raise SettingsError(f"{variable} is set, and the setting {setting} was removed.", instead)
    for name in environment:
        if not name.startswith("FASTN_") or name in known or name in named:
            continue
        if sections is not None and sections.owns(name):
            continue
        close = closest(name, known, 0.85)
        if close is not None and not close.startswith(VARIABLE):
            raise SettingsError(f"Unknown variable {name}. Did you mean {close}?", f"Unset it, or name it {close}.")


def _profile(set_flags: Mapping[str, object], variables: Mapping[str, str], config: ConfigFile) -> str | None:
    """Return the selected profile. Without profiles in the file, the name is only a label."""
    if not config.profiles:
        return None
    requested = {"--profile": set_flags.get("profile"), "FASTN_PROFILE": variables.get("profile")}
    requested["profile"] = config.top.get("profile")
    by, name = next(((by, name) for by, name in requested.items() if name is not None), ("", DEFAULT))
    if isinstance(name, str) and name in config.profiles:
        return name
    if not by:
        return None
    raise config.no_profile(str(name), f"{config.line(by)}: " if by == "profile" else "")


def _one_account(
    variables: Mapping[str, str],
    values: Mapping[str, object],
    set_flags: Mapping[str, object],
    profile: str,
    config: ConfigFile,
) -> None:
    """Reject variables that refer to an account other than the profile."""
    named = config.profiles[profile].get("api_key_env") == VARIABLE or "api_key" in set_flags
    other = [VARIABLE] if "api_key" in variables and not named else []
    for name in settings_with(Trait.ACCOUNT):
        of_profile = values.get(name, Settings.model_fields[name].default)
        if name in variables and name not in set_flags and variables[name].rstrip("/") != str(of_profile).rstrip("/"):
            other.append(_VARIABLES[name])
    if other:
        hint = f'write api_key_env = "{VARIABLE}" in [profiles.{profile}]' if VARIABLE in other else "choose no profile"
        raise SettingsError(
            f"{other[0]} is set, and the profile {profile!r} is another account: it is unclear which one you mean.",
            f"Unset {other[0]}, or {hint}.",
        )


def _no_key(account: Chosen, settings: Settings, why: str, environment: Mapping[str, str]) -> NoKey:
    if account.profile is not None:
        return NoKey(
            f"The profile {account.profile!r} has no key for {settings.host}.{f' {why}' if why else ''}",
            f"Store one: fastn-mcp login {account.profile}{' --file' if why else ''}",
        )
    if account.file.profiles:
        return NoKey(
            f"There is no API key, and no profile is chosen. Known: {', '.join(account.file.profiles)}.",
            'Choose one by --profile or FASTN_PROFILE, or at the top of the file: profile = "NAME"',
        )
    name = account.values.get("profile", DEFAULT)
    if name != DEFAULT:  # a label, if there were a key
        error = account.file.no_profile(str(name))
        return NoKey(error.what, error.next_step)
    names = (name for name in environment if name.upper().startswith("FASTN") and name not in _VARIABLES.values())
    close = closest(VARIABLE, names, 0.75)
    return NoKey(
        f"There is no API key{f'; {close} is set, but the variable is {VARIABLE}' if close else ''}.",
        "Set FASTN_API_KEY (Fastn dashboard: Settings > API keys), or store one: fastn-mcp login"
        f"{' --file' if why else ''}. Without an account: fastn-mcp --sandbox",
    )
