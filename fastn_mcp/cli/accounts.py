"""Accounts: `login`, `logout` and `whoami` store, delete and check a key; `profiles` lists the accounts.

A key is never an argument, and never shown.
"""

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import anyio
import click
from pydantic import JsonValue

from fastn_mcp.build.composition import AccountParts, account_parts
from fastn_mcp.build.startup import options_of, policy_file
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.layout import print_table, say, warn
from fastn_mcp.cli.start_options import StartOptions, complete_profile
from fastn_mcp.config import file as config_file
from fastn_mcp.config.command_line import CommandLine, this_program
from fastn_mcp.config.keys import VARIABLE, Key, NoKeyring, SystemKeyring, entry, key_in_text, without_key
from fastn_mcp.config.load import DEFAULT, Chosen, choose, key_of
from fastn_mcp.config.model import KEY_HOST, KEY_SETTINGS, ConfigFile, Settings, Trait, kind_of, settings_with
from fastn_mcp.config.paths import file_errors, write_private
from fastn_mcp.errors import FastnError, Forbidden, SettingsError, Unauthorized
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.formats import dated
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import text, timestamp, word
from fastn_mcp.redaction import own_key_row
from fastn_mcp.tools.access import EXPIRY_FIELDS, ListApiKeys
from fastn_mcp.tools.paging import FULL

_MAX_INPUT = 4096


@click.command(name="login")
@click.argument("profile", required=False, shell_complete=complete_profile)
@click.option("--stdin", is_flag=True, help="Read the key from the standard input instead of asking for it.")
@click.option(
    "--file", "in_file", is_flag=True, help="Store the key in a file that only you can read, not in the keyring."
)
@click.option("--no-check", is_flag=True, help="Do not try the key first.")
@click.option("--replace", is_flag=True, help="With --file: replace the key for another host without asking.")
@click.pass_obj
def login(start: StartOptions, profile: str | None, stdin: bool, in_file: bool, no_check: bool, replace: bool) -> int:
    """Ask for the API key of an account, test it with one read, and store it in the system's keyring.

    Without PROFILE, it stores the key of the default account. A PROFILE that the configuration file does not have is
    added to it, with --base-url, --auth, --env, --mode and --policy, if they stand before the command.
    """
    stored = _new_profile(start, profile) or _stored_key(start, profile)
    account = stored.account
    at_rest = stored.account.keyless()
    with start.own_commands():
        stored.check(in_file=in_file, replace=replace)
    keyring = SystemKeyring()
    words = ("login", *filter(None, (account.profile,)), *(("--file",) if in_file else ()))
    command = start.command_line()
    if not in_file:
        with _file_suggested(command.to(*words, "--file")):
            keyring.check()  # before the person pastes the key
    new = ", a new profile," if stored.new_table is not None else ""
    prompt = f"API key for {at_rest.profile}{new} at {at_rest.host} (not shown)"
    key = _read_key(prompt, command.to(*words, "--stdin"), stdin=stdin)
    settings = account.with_key(Key(key, "what was given"))
    if not no_check:
        result = anyio.run(check_key, start.parts(settings))
        if not result.works:
            unchecked = command.to(*words, "--no-check")
            warn(f"{result.message} Nothing was stored. To store it without a check: {unchecked}")
            return 1
        say(result.message)
    if stored.new_table is not None:
        config_file.add(stored.config, str(account.profile), stored.new_table)
        say(f"Added the profile {account.profile} to {stored.config}.")
    if in_file:
        place = stored.write_file(settings)
    else:
        with _file_suggested(command.to(*words, "--file")):
            place = keyring.keep(entry(settings.profile, settings.host), key)
    kind = f"The {settings.key_kind} key" if settings.key_kind != "unknown" else "The key"
    say(f"{kind} for {settings.profile} at {settings.host} is stored in {place}.")
    if settings.base_url != account.address and not (in_file and stored.may_set_address):
        where = f"--base-url {settings.base_url}, or base_url in {stored.config}"
        say(f"Later commands need the address, too: {where}.")
    if os.environ.get(VARIABLE):
        warn(f"{VARIABLE} is set: unset it, or the stored key will not be used.")
    return 0


@click.command(name="logout")
@click.argument("profile", required=False, shell_complete=complete_profile)
@click.option("--all", "is_all", is_flag=True, help="Delete the stored keys of all accounts in the configuration file.")
@click.pass_obj
def logout(start: StartOptions, profile: str | None, is_all: bool) -> int:
    """Delete the stored API key of an account. It is not revoked at Fastn."""
    if is_all:
        if profile is not None:
            raise click.UsageError("--all deletes the keys of all accounts. Leave out PROFILE, or --all.")
        return _forget_all(start)
    stored = _stored_key(start, profile)
    account = stored.account
    settings = stored.account.keyless()
    whose = f"{settings.profile} at {settings.host}"
    done = stored.forget()
    if done:
        say(*(f"The key for {whose} was removed from {place}." for place in done))
        say("It still works. If it is no longer needed, revoke it in the Fastn dashboard (Settings > API keys).")
        return 0
    if stored.is_in_file and account.key_host != settings.host.lower():
        warn(
            f"The stored key is for {settings.profile} at {account.key_host}, not for {settings.host}. Nothing was"
            f" changed. To delete it, set --base-url or FASTN_BASE_URL to the address of {account.key_host}."
        )
        return 1
    source = next((f"{name} in {stored.config}" for name in KEY_SETTINGS if name in account.table), None)
    if source is None and account.profile is None and os.environ.get(VARIABLE):
        source = f"the environment: {VARIABLE}"
    hint = (
        f"Its key comes from {source}."
        if source
        else f"To see which accounts have one: {start.command_line().to('profiles')}"
    )
    warn(f"There is no stored key for {whose}. {hint}")
    return 1


def _forget_all(start: StartOptions) -> int:
    """Delete the stored keys of all profiles; without profiles, the only one."""
    names = config_file.read_or_none(start.config_file()).profiles
    kept = 1
    for profile in names or (None,):
        stored = _stored_key(start, profile)
        settings = stored.account.keyless()
        for place in stored.forget(any_host=True):
            say(f"The key for {settings.profile} at {settings.host} was removed from {place}.")
            kept = 0
    if kept:
        warn("No account has a stored key.")
    else:
        say("They still work. Revoke those that are no longer needed in the Fastn dashboard (Settings > API keys).")
    return kept


@dataclass(frozen=True, slots=True)
class StoredKey:
    """Key of one account, which login stores in the keyring or in a file beside the configuration file."""

    config: Path
    account: Chosen
    new_table: Mapping[str, object] | None = None
    """Settings of a profile that the configuration file does not have yet."""

    @property
    def file(self) -> Path:
        return self.config.absolute().parent / "keys" / f"{self.account.profile or DEFAULT}.key"

    @property
    def is_in_file(self) -> bool:
        return self.account.table.get("api_key_file") == self.file

    @property
    def may_set_address(self) -> bool:
        """Whether the file's address is of this account alone: the address of the top level is also the profiles'."""
        return self.account.profile is not None or not self.account.file.profiles

    def check(self, *, in_file: bool, replace: bool) -> None:
        """Raise `SettingsError` if a stored key would never be used. Ask before the key of another host is replaced."""
        account = self.account
        settings = self.account.keyless()
        for name in KEY_SETTINGS:
            if name in account.table and not (name == "api_key_file" and in_file):
                what = f"{name} already says where to find the key, so a stored key would not be used."
                raise SettingsError(f"{account.file.line_of(name, account.profile)}: {what}", "Remove that line first.")
        if not in_file or replace or "api_key_file" not in account.table or account.key_host == settings.host.lower():
            return
        warning = f"The key stored there is for {settings.profile} at {account.key_host}, not for {settings.host}."
        if Terminal.here() is None or not click.confirm(f"{warning} Replace it?", default=False, err=True):
            own = "Keep it in a profile of its own: fastn-mcp --base-url URL login NAME"
            raise SettingsError(f"{warning} Nothing was changed.", f"{own}; or replace it: --replace")

    def write_file(self, settings: Settings) -> Path:
        """Write the key to a file, and set it in the configuration. Raises `SettingsError` if that fails."""
        profile = self.account.profile
        named = self.account.table.get("api_key_file")
        file = named if isinstance(named, Path) else self.file
        with file_errors(file, "written"):
            write_private(file, f"{settings.api_key}\n")
        config_file.put(self.config, profile, KEY_HOST, settings.host.lower())
        if named is None:
            config_file.put(self.config, profile, "api_key_file", str(file.relative_to(self.config.absolute().parent)))
        if self.may_set_address and settings.base_url != self.account.address:
            config_file.put(self.config, profile, "base_url", settings.base_url)
        return file

    def forget(self, *, any_host: bool = False) -> list[str]:
        """Delete the stored key, and return the places that it was deleted from. Raises `SettingsError`.

        A file with the key of another host stays, unless `any_host`, for removing the whole account.
        """
        settings = self.account.keyless()
        done = list[str]()
        profile = self.account.profile
        if self.is_in_file and (any_host or self.account.key_host == settings.host.lower()):
            self.file.unlink(missing_ok=True)
            config_file.unset(self.config, profile, "api_key_file")
            if KEY_HOST in self.account.table:
                config_file.unset(self.config, profile, KEY_HOST)
            done.append(str(self.file))
        with suppress(NoKeyring):  # then no key is stored there
            if SystemKeyring().drop(entry(settings.profile, settings.host)):
                done.append("the keyring")
        return done


_NEW_PROFILE_OPTIONS = ("base_url", "auth", "env", "mode", "policy")


def _new_profile(start: StartOptions, profile: str | None) -> StoredKey | None:
    """Return the key to store for a profile that the file does not have; None if it has. Raises `SettingsError`."""
    name = _profile_name(start, profile)
    path = start.config_file()
    with start.own_commands():
        config = config_file.read_or_none(path)
        if name is None or name in config.profiles:
            return None
        if kind_of(name) != "unknown":
            raise config.no_profile(name)
        config_file.check_name(name)
        given = {option: start.flags.get(option) for option in _NEW_PROFILE_OPTIONS}
        table = {
            option: str(Path(str(value)).absolute()) if option in settings_with(Trait.FILE) else value
            for option, value in given.items()
            if value is not None
        }
        config = replace(config, path=path, profiles={**config.profiles, name: table})
        account = choose({**start.flags, "profile": name}, without_key(os.environ), config)
        account.keyless()
    return StoredKey(path, account, table)


def _profile_name(start: StartOptions, profile: str | None) -> str | None:
    """Return the profile that the command or `--profile` names. Raises `UsageError` if they differ."""
    if start.sandboxed:
        raise click.UsageError("The sandbox has a key of its own.")
    flag = start.flags.get("profile")
    if profile is not None and flag is not None and flag != profile:
        raise click.UsageError(f"--profile {flag} and PROFILE {profile} are different accounts. Leave out one.")
    name = profile or flag
    return None if name is None else str(name)


def _stored_key(start: StartOptions, profile: str | None) -> StoredKey:
    """Return the stored key of `profile`, or else of the selected account. Raises `SettingsError`."""
    named = _profile_name(start, profile)
    path = start.config_file()
    with start.own_commands():
        config = config_file.read_or_none(path)
        if named is not None and not config.profiles:
            raise config.no_profile(named)
        return StoredKey(path, choose({**start.flags, "profile": named}, without_key(os.environ), config))


def _read_key(prompt: str, command: str, *, stdin: bool) -> str:
    """Ask for the key, or read it from the standard input, as `command` does. Raises `SettingsError`."""
    if not stdin:
        if sys.stdin.isatty() and sys.stderr.isatty():
            try:
                return str(click.prompt(prompt, hide_input=True, err=True)).strip()
            except click.Abort:
                raise click.Abort("No key was stored.") from None
        raise SettingsError("There is no terminal to ask for the key.", f"Give it on the standard input: {command}")
    lines = key_in_text(sys.stdin.read(_MAX_INPUT)).splitlines()
    if len(lines) != 1:
        what = "The standard input must be one line: the key."
        raise SettingsError(what, f"Pass the key and nothing else: {command} < FILE")
    return lines[0]


@contextmanager
def _file_suggested(command: str) -> Generator[None]:
    """Turn `NoKeyring` into a `SettingsError` that suggests the command that stores the key without one."""
    try:
        yield
    except NoKeyring as error:
        raise SettingsError(error.what, f"Store the key in a file that only you can read: {command}") from None


# --- whoami ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """Whether a key works, or None if unknown, and the message for the person."""

    works: bool | None
    message: str


async def check_key(parts: AccountParts) -> KeyCheck:
    """Check the key by listing API keys, and describe it if it is among them."""
    try:
        async with aclosing(parts):
            answer = await parts.dispatch(ListApiKeys(limit=100, detail=FULL), Caller(Asker(), None))
    except Unauthorized as error:
        hint = "Copy it again: Fastn dashboard, Settings > API keys."
        return KeyCheck(False, f"The key does not work. {error.what} {hint}")
    except Forbidden:
        return KeyCheck(True, "The key works. It is not allowed to list API keys, so its permissions are unknown.")
    except FastnError as error:
        return KeyCheck(None, f"Could not check whether the key works. {error}")
    page = answer.result if isinstance(answer, Done) else None
    rows = cast("list[dict[str, JsonValue]]", getattr(page, "items", []))
    mine = own_key_row(parts.settings.api_key, rows)
    if mine is None:
        why = "which of the first 100 API keys it is cannot be told"
        return KeyCheck(True, f"The key works. Its permissions are unknown: {why}.")
    mode = text(mine, "mode").lower()
    permissions = text(mine, "permissions").lower()
    ends = "never expires"
    if word(mine, *EXPIRY_FIELDS) not in ("", "never"):
        expires = timestamp(mine, *EXPIRY_FIELDS)
        now = parts.stores.system.now()
        ends = "expires at an unknown time" if expires is None else f"expires {dated(expires, now)}"
    known = ", ".join(filter(None, (mode and f"{mode} mode", permissions, ends)))
    return KeyCheck(True, f"The key works. Key {name_of(mine)!r}: {known}.")


KINDS = {
    "live": "live",
    "test": "test (not a sandbox: it changes your live connections)",
    "unknown": "of unknown kind, so treated as live",
}
_WIDTH = 13


@click.command(name="whoami")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def whoami(start: StartOptions, as_json: bool) -> int:
    """Show the account, where its key comes from and the mode, and make one read request to see whether the key works.

    \b
    Exit codes:
      0  the key works
      1  it does not, or Fastn could not be reached
      2  invalid setting, or no key
    """
    settings = start.settings()
    parts = start.parts(settings)
    facts: dict[str, JsonValue] = {
        "sandbox": start.sandboxed,
        "profile": settings.profile,
        "host": settings.host,
        **account_parts(settings),
        "key": settings.key_kind,
        "key_from": settings.key_place,
        "mode": settings.mode,
        "policy": str(policy_file(settings, os.environ) or "") or None,
        "plan": str(settings.plan) if settings.plan else None,
    }
    if not as_json:
        lines: dict[str, JsonValue] = facts | {
            "sandbox": "in this process: nothing reaches Fastn" if start.sandboxed else None,
            "host": None if start.sandboxed else settings.host,
            "key": "the sandbox's own" if start.sandboxed else f"{KINDS[settings.key_kind]}, from {settings.key_place}",
            "key_from": None,
            "policy": facts["policy"] or "none",
        }
        say(*(f"{name:{_WIDTH}}{value}" for name, value in lines.items() if value is not None))
    result = anyio.run(check_key, parts)
    if as_json:
        click.echo(json.dumps(facts | {"works": result.works, "message": result.message}, ensure_ascii=False))
    else:
        say(result.message, err=not result.works)
    return 0 if result.works else 1


# --- profiles ----------------------------------------------------------------------------------------------------


@click.command(name="profiles")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def profiles(start: StartOptions, as_json: bool) -> None:
    """List the profiles in the configuration file, and where the key of each comes from."""
    path = start.config_file()
    config = config_file.read_or_none(path)
    program = _program(start)
    rows = [_row(name, config, program.line()) for name in config.profiles]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    elif rows:
        names = ("profile", "default", "host", "environment", "mode", "key", "from")
        cells = [
            ["default" if name == "default" and row[name] else str(row[name] or "") for name in names] for row in rows
        ]
        print_table([names, *cells])
        warn(*(str(row["problem"]) for row in rows if row["problem"]))
    else:
        say(f"{path} has no profiles. Add one: {program.to('login')} NAME")


def _row(name: str, config: ConfigFile, program: str) -> dict[str, str | bool | None]:
    row: dict[str, str | bool | None] = {"profile": name, "default": name == config.top.get("profile", DEFAULT)}
    row |= dict.fromkeys(("host", "environment", "mode", "key", "from", "problem"))
    try:
        account = choose({"profile": name}, {}, config)
        settings = account.keyless()
        row |= {"host": settings.host, "environment": settings.env}
        row["mode"] = settings.mode
        key = key_of(account, os.environ, SystemKeyring())
        row |= {"key": account.with_key(key).key_kind, "from": key.place}
    except SettingsError as error:
        row |= {"key": "none", "problem": str(error.with_program(program))}
    return row


def _program(start: StartOptions) -> CommandLine:
    """Return the command that starts this program on the same configuration file, for any of its accounts."""
    return this_program(os.environ).with_(options_of(start.context, ("config",)))
