"""`fastn-mcp login` and `logout`: keep the key of an account, and forget it. A key is never an argument."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import click

from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli import StartOptions
from fastn_mcp.cli.layout import say
from fastn_mcp.cli.whoami import checked
from fastn_mcp.config.edit import put, read_or_none, unset
from fastn_mcp.config.keys import VARIABLE, Key, NoKeyring, SystemKeyring, entry
from fastn_mcp.config.load import DEFAULT, Chosen, choose, no_profile
from fastn_mcp.config.model import KEY_HOST, KEY_SETTINGS, ConfigFile, Settings
from fastn_mcp.config.paths import write_private
from fastn_mcp.errors import SettingsError

_LONGEST = 4096


@click.command(name="login")
@click.argument("profile", required=False)
@click.option("--stdin", is_flag=True, help="Read the key from the standard input instead of asking for it.")
@click.option("--file", "in_file", is_flag=True, help="Keep it in a file that only you can read, not in the keyring.")
@click.option("--no-check", is_flag=True, help="Do not try the key first.")
@click.option("--replace", is_flag=True, help="With --file: replace the key of another host without asking.")
@click.pass_obj
def login(start: StartOptions, profile: str | None, stdin: bool, in_file: bool, no_check: bool, replace: bool) -> int:
    """Ask for the API key of an account, try it by one read, and keep it in the system's keyring.

    Without PROFILE it is the key of the account that is used by default.
    """
    path = start.config_file()
    account = account_of(start, path, profile)
    at_rest = account.keyless()
    _only_one(account, in_file=in_file)
    if in_file and not replace and "api_key_file" in account.table and account.key_host != at_rest.host.lower():
        _agree_to_replace(account.key_host, at_rest)
    keyring = SystemKeyring()
    if not in_file:
        with _or_in_a_file(account.profile):
            keyring.check()  # before a person has pasted anything
    if not stdin and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise SettingsError(
            "There is no terminal to ask for the key at.", "Give it on the standard input: fastn-mcp login --stdin"
        )
    key = _read() if stdin else _asked(f"API key of {at_rest.profile} at {at_rest.host} (not shown)")
    settings = account.with_key(Key(key, "what was given"))
    if not no_check:
        result = anyio.run(checked, start.parts(settings))
        if not result.works:
            say(f"fastn-mcp: {result.said} Nothing was stored. To store it without a check: --no-check", err=True)
            return 1
        say(result.said)
    if in_file:
        place = _in_file(path, account, settings)
    else:
        with _or_in_a_file(account.profile):
            place = keyring.keep(entry(settings.profile, settings.host), key)
    kind = f"The {settings.key_kind} key" if settings.key_kind != "unknown" else "The key"
    say(f"{kind} of {settings.profile} at {settings.host} is kept in {place}.")
    if os.environ.get(VARIABLE):
        say(f"fastn-mcp: {VARIABLE} is set: unset it, or the stored key is not used.", err=True)
    return 0


@click.command(name="logout")
@click.argument("profile", required=False)
@click.pass_obj
def logout(start: StartOptions, profile: str | None) -> int:
    """Forget the API key of an account that login has kept. It is not revoked at Fastn."""
    path = start.config_file()
    account = account_of(start, path, profile)
    settings = account.keyless()
    done = forget(path, account)
    for place in done:
        say(f"The key of {settings.profile} at {settings.host} was removed from {place}.")
    if done:
        say("It still works: revoke it in the Fastn dashboard, Settings, API keys, if it is not needed.")
        return 0
    if _is_kept_in_file(path, account) and account.key_host != settings.host.lower():
        say(
            f"fastn-mcp: The key that is kept is of {settings.profile} at {account.key_host}, not at {settings.host}."
            " Nothing was changed. To forget it, leave out --base-url and FASTN_BASE_URL.",
            err=True,
        )
        return 1
    elsewhere = next((f"{name} in {path}" for name in KEY_SETTINGS if name in account.table), None)
    if elsewhere is None and account.profile is None and os.environ.get(VARIABLE):
        elsewhere = f"the environment: {VARIABLE}"
    said = f" Its key comes from {elsewhere}." if elsewhere else " Which account has one: fastn-mcp profiles"
    say(f"fastn-mcp: login has kept no key of {settings.profile} at {settings.host}.{said}", err=True)
    return 1


def forget(path: Path, account: Chosen, *, any_host: bool = False) -> list[str]:
    """Forget what login has kept of an account; from where it was taken. Raises `SettingsError`.

    A file with the key of another host stays, unless `any_host`: the account goes with all that it has.
    """
    settings, done = account.keyless(), list[str]()
    own = key_file(path, account)
    if _is_kept_in_file(path, account) and (any_host or account.key_host == settings.host.lower()):
        own.unlink(missing_ok=True)
        unset(path, account.profile, "api_key_file")
        if KEY_HOST in account.table:
            unset(path, account.profile, KEY_HOST)
        done.append(str(own))
    try:
        if SystemKeyring().drop(entry(settings.profile, settings.host)):
            done.append("the keyring")
    except NoKeyring:
        pass  # then none is kept there
    return done


def _is_kept_in_file(path: Path, account: Chosen) -> bool:
    return account.table.get("api_key_file") == key_file(path, account)


def account_of(start: StartOptions, path: Path, profile: str | None) -> Chosen:
    """The account that is meant, whatever key there is. Raises `SettingsError`."""
    if start.sandboxed:
        raise click.UsageError("The sandbox has a key of its own.")
    asked = start.flags.get("profile")
    if profile is not None and asked is not None and asked != profile:
        raise click.UsageError(f"--profile {asked} is another account than {profile}.")
    config = read_or_none(path)
    if profile is not None and not config.profiles:
        raise no_profile(profile, config)
    return choose({**start.flags, "profile": profile or asked}, without_key(os.environ), config)


def without_key(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the key of whoever is the default."""
    return {name: value for name, value in environment.items() if name != VARIABLE}


def key_file(path: Path, account: Chosen) -> Path:
    """The file in which login keeps the key of an account."""
    return path.absolute().parent / "keys" / f"{account.profile or DEFAULT}.key"


def _only_one(account: Chosen, *, in_file: bool) -> None:
    """Refuse to keep a key that would never be used."""
    file: ConfigFile = account.file
    for name in KEY_SETTINGS:
        if name in account.table and not (name == "api_key_file" and in_file):
            at = ("profiles", account.profile, name) if account.profile else (name,)
            raise SettingsError(
                f"{file.line(*at)}: {name} already says where the key is, so a stored key would not be used.",
                "Remove that line first.",
            )


def _read() -> str:
    lines = sys.stdin.read(_LONGEST).strip().splitlines()
    if len(lines) != 1:
        raise SettingsError(
            "The standard input holds no key." if not lines else "The standard input holds more than one line.",
            "Give the key and nothing else: fastn-mcp login --stdin < FILE",
        )
    return lines[0]


def _asked(text: str) -> str:
    found: str = click.prompt(text, hide_input=True, err=True)
    return found.strip()


def _agree_to_replace(host: str, new: Settings) -> None:
    """Ask whether the key of another host is given up. Raises `SettingsError` where that is not agreed to."""
    what = f"The key of {new.profile} at {host} is kept there, and would be replaced by one for {new.host}."
    terminal = Terminal.here()
    if terminal is not None and click.confirm(f"{what} Replace it?", default=False, err=True):
        return
    raise SettingsError(
        f"{what} Nothing was changed.",
        "Keep it in a profile of its own: fastn-mcp profiles add NAME --base-url URL; or replace it: --replace",
    )


def _in_file(path: Path, account: Chosen, settings: Settings) -> Path:
    own = account.table.get("api_key_file")
    file = own if isinstance(own, Path) else key_file(path, account)
    try:
        write_private(file, f"{settings.api_key}\n")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror or type(error).__name__}.") from None
    put(path, account.profile, KEY_HOST, settings.host.lower())
    if own is None:
        put(path, account.profile, "api_key_file", str(file.relative_to(path.absolute().parent)))
    return file


class _or_in_a_file:  # noqa: N801 - read as a clause of the with statement
    """Where there is no keyring, say how to do without."""

    def __init__(self, profile: str | None) -> None:
        self._command = f"fastn-mcp login {profile} --file" if profile else "fastn-mcp login --file"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NoKeyring):
            raise SettingsError(error.what, f"Keep it in a file that only you can read: {self._command}") from None
