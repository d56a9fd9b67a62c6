"""`fastn-mcp profiles`: list, add and remove accounts of the configuration file. It never shows a key."""

import json
import os
from pathlib import Path

import click

from fastn_mcp.build.startup import options_of
from fastn_mcp.cli.help import OptionGroups
from fastn_mcp.cli.layout import print_table, say, warn
from fastn_mcp.cli.login import StoredKey
from fastn_mcp.cli.start_options import StartOptions, complete_profile, with_settings
from fastn_mcp.config import edit
from fastn_mcp.config.command_line import this_program
from fastn_mcp.config.keys import SystemKeyring
from fastn_mcp.config.load import DEFAULT, choose, key_of, no_profile
from fastn_mcp.config.model import KEY_SETTINGS, ConfigFile, Trait, settings_with
from fastn_mcp.errors import SettingsError


@click.group(name="profiles", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def profiles_group(ctx: click.Context, as_json: bool) -> None:
    """See the accounts of the configuration file, add and remove them."""
    if ctx.invoked_subcommand is not None:
        return
    start: StartOptions = ctx.obj
    path = start.config_file()
    config = edit.read_or_none(path)
    rows = [_row(name, config, start.command_line().line()) for name in config.profiles]
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
        say(f"{path} has no profiles. Add one: fastn-mcp profiles add NAME")


def _row(name: str, config: ConfigFile, program: str) -> dict[str, str | bool | None]:
    row: dict[str, str | bool | None] = {"profile": name, "default": name == config.top.get("profile", DEFAULT)}
    row |= dict.fromkeys(("host", "environment", "mode", "key", "from", "problem"))
    try:
        account = choose({"profile": name}, {}, config)
        settings = account.keyless()
        row |= {"host": settings.host, "environment": settings.env}
        row["mode"] = "read-only" if settings.read_only else settings.mode
        key = key_of(account, os.environ, SystemKeyring())
        row |= {"key": account.with_key(key).key_kind, "from": key.place}
    except SettingsError as error:
        row |= {"key": "none", "problem": str(error.with_program(program))}
    return row


@profiles_group.command(name="add", cls=OptionGroups)
@click.argument("name")
@with_settings("base_url", "auth", "env", "space_id", "tenant_id", "end_org_id", "mode", "policy")
@click.option("--api-key-env", metavar="VARIABLE", help="The variable that holds its key.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="The file that holds its key.")
@click.option("--default", "as_default", is_flag=True, help="Use it by default.")
@click.pass_obj
def add_(start: StartOptions, name: str, as_default: bool, **options: object) -> None:
    """Add the account NAME to the configuration file. Add other settings there by hand."""
    path = start.config_file()
    config = edit.read_or_none(path)
    if name in config.profiles:
        raise SettingsError(f"There is a profile {name!r} already.", f"Change it in {path}.")
    values = {
        setting: str(Path(str(value)).absolute()) if setting in settings_with(Trait.FILE) else value
        for setting, value in options.items()
        if value is not None
    }
    without_key = {setting: value for setting, value in values.items() if setting not in KEY_SETTINGS}
    choose(without_key, {}, ConfigFile()).keyless()
    edit.add(path, name, values)
    if as_default:
        edit.put(path, None, "profile", name)
    command = this_program(os.environ).with_(options_of(start.context, ("config",)))
    say(f"Added to {path}: {name}.")
    if not options["api_key_env"] and not options["api_key_file"]:
        say(f"Next, give it a key: {command.to('login', name)}")
    if not as_default:
        chosen, by_default = ("--profile", name), ("profiles", "use", name)
        say(f"Use it: {command.to(*chosen)}, or by default: {command.to(*by_default)}")


@profiles_group.command(name="remove", short_help="Remove an account from the configuration file.")
@click.argument("name", shell_complete=complete_profile)
@click.pass_obj
def remove_(start: StartOptions, name: str) -> None:
    """Remove the account NAME from the configuration file, with its stored key."""
    path, config = _config_with(start, name)
    account = choose({"profile": name}, {}, config)
    others = [other for other in config.profiles if other != name]
    if others and config.top.get("profile") == name:
        raise SettingsError(
            f"{name!r} is the default profile.", f"Choose another first: fastn-mcp profiles use {others[0]}"
        )
    for place in StoredKey(path, account).forget(any_host=True):
        say(f"Its key was removed from {place}; it is not revoked.")
    edit.remove(path, name)
    say(f"Removed from {path}: {name}.")


@profiles_group.command(name="use")
@click.argument("name", shell_complete=complete_profile)
@click.pass_obj
def use_(start: StartOptions, name: str) -> None:
    """Use the account NAME by default."""
    path, _ = _config_with(start, name)
    edit.put(path, None, "profile", name)
    say(f"Used by default from now on: {name}.")


def _config_with(start: StartOptions, name: str) -> tuple[Path, ConfigFile]:
    """Return the configuration file and its contents. Raises `SettingsError` unless it has this profile."""
    path = start.config_file()
    config = edit.read_or_none(path)
    if name not in config.profiles:
        with start.own_commands():
            raise no_profile(name, config)
    return path, config
