"""`fastn-mcp install`, `uninstall` and `setup`: show a change to a client's configuration, and make it."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import click

from fastn_mcp.build.startup import SANDBOX_SETTINGS, command_line_of, options_of
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.help import EnumChoice, GroupedOption, OptionGroups, completing
from fastn_mcp.cli.layout import say, warn
from fastn_mcp.cli.start_options import StartOptions, complete_profile
from fastn_mcp.config import command_line
from fastn_mcp.config.command_line import CommandLine, path_hint, this_program
from fastn_mcp.config.keys import NoKeyring, SystemKeyring
from fastn_mcp.config.model import SOURCES
from fastn_mcp.config.paths import state_dir
from fastn_mcp.errors import NoKey, nearest
from fastn_mcp.extensions.install import apply, clients
from fastn_mcp.extensions.install.clients import (
    BY_NAME,
    CLIENTS,
    KEY_VARIABLE,
    OTHER,
    Key,
    Machine,
    McpClient,
    is_present,
    place,
)
from fastn_mcp.extensions.install.edit import Addition, NotInstalled
from fastn_mcp.redaction import sanitize


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """Options of both commands: client, entry, file, and whether to ask. The last four are of `install` alone."""

    client: str
    name: str
    project: bool
    file: Path | None
    yes: bool
    dry_run: bool
    key: Key = "profile"
    uvx: bool = False
    replace: bool = False
    anyway: bool = False

    def __post_init__(self) -> None:
        if self.project and self.file is not None:
            raise click.UsageError("Give either --project or --file.")


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `InstallOptions` to a command."""
    for decorate in (
        click.option("--dry-run", is_flag=True, help="Show the change without making it."),
        click.option("--yes", is_flag=True, help="Make the change without asking."),
        click.option(
            "--file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Change this file of the client instead of its usual one.",
        ),
        click.option(
            "--project", is_flag=True, help="Use the client's project file in this folder, shared with others."
        ),
        click.option("--name", default="fastn", show_default=True, help="Name of the server in the client."),
        click.argument("client", shell_complete=completing(lambda _ctx: BY_NAME)),
    ):
        command = decorate(command)
    return command


_CLIENTS = """\b
Clients:  claude-code claude-desktop vscode cursor windsurf codex gemini zed
          json prints the entry for any other client

\b
Examples:
  fastn-mcp install cursor --sandbox
  fastn-mcp --mode read-only install claude-code --profile acme
  fastn-mcp install vscode --key prompt --dry-run
  fastn-mcp install claude-code --url http://127.0.0.1:8080/mcp
"""


_served = partial(click.option, cls=GroupedOption, group="What the client starts")


@click.command(name="install", cls=OptionGroups, epilog=_CLIENTS)
@_options
@_served("--sandbox", is_flag=True, help="Serve the sandbox: no account, no key.")
@_served("--profile", metavar="NAME", shell_complete=complete_profile, help="Serve this account.")
@_served(
    "--key",
    type=EnumChoice(["profile", "environment", "prompt"]),
    default="profile",
    show_default=True,
    help="Where the key comes from: your profile, FASTN_API_KEY, or the client, which asks for it.",
)
@_served("--url", metavar="URL", help="Reach the server that runs at URL on this machine, over HTTP.")
@_served(
    "--uvx",
    is_flag=True,
    help="Start it with uvx, from the source that this program was installed from, instead of by its path.",
)
@click.option("--replace", is_flag=True, help="Replace an entry that fastn-mcp did not write, or that was changed.")
@click.option("--anyway", is_flag=True, help="Install even if the client is not found.")
@click.pass_context
def install(
    ctx: click.Context,
    sandbox: bool,
    profile: str | None,
    url: str | None,
    **options: Any,
) -> None:
    """Add the server to CLIENT's configuration. The change is shown first, and never contains a key or a token.

    Options before install become the server's options.
    """
    wanted = InstallOptions(**options)
    if profile is not None and (sandbox or ctx.obj.sandboxed):
        raise click.UsageError("--sandbox and --profile cannot be combined.", ctx)
    own = ["--profile", profile] if profile is not None else []
    arguments = [*options_of(ctx.find_root()), *own]
    arguments += ["--sandbox"] if sandbox and "--sandbox" not in arguments else []
    if url is None:
        install_stdio(wanted, arguments, command_line_of(ctx.find_root(), os.environ).to(*own, "login"))
    else:
        _install_http(wanted, arguments, url)


_KEY_NOTES: Mapping[Key, str] = {
    "profile": "No key was written. If you have not stored it yet: {login}",
    "environment": f"The key comes from {KEY_VARIABLE}, with which {{title}} was started.",
    "prompt": "{title} asks for the key when it first starts the server, and stores it.",
}


def install_stdio(wanted: InstallOptions, arguments: Sequence[str], login_command: str | None) -> bool:
    """Install an entry with which the client starts the server. Return whether the client has it now.

    `login_command` stores the key, if the account may have none yet.
    """
    start = _program(wanted).with_(arguments)
    client = _present_client(wanted)
    is_sandbox = any(argument.startswith("--sandbox") for argument in arguments)
    settable = [
        each.variable
        for each in SOURCES
        if each.flag and each.flag not in arguments and not (is_sandbox and each.field in SANDBOX_SETTINGS)
    ]
    variables = [name for name in settable if os.environ.get(name)]
    if variables and client is not OTHER:
        only = f"The server has {', '.join(variables)} only if {client.title} is started from this shell."
        warn(f"{only} To set it for good, give the option before the command, or write it into the configuration file.")
    additions = clients.additions(client, wanted.name, start, wanted.key)
    if is_sandbox or login_command is None:
        return _apply(client, wanted, additions)
    note = _KEY_NOTES[wanted.key].format(title=client.title, login=login_command)
    return _apply(client, wanted, additions, note)


def _install_http(wanted: InstallOptions, arguments: Sequence[str], url: str) -> None:
    """Install an entry for the server that runs at `url`."""
    clients.check_url(url)
    if wanted.key != "profile" or not set(arguments) <= {"--sandbox"}:
        raise NotInstalled(
            "With --url, the server is already running with the account and options that it was started with.",
            "Leave out --key, --profile and the options before install. With --sandbox, the sandbox's token is used.",
        )
    client = _present_client(wanted)
    token = [*arguments, "http-token"]
    header = _program(wanted).with_([*token, "--header"]).line()
    additions = clients.http_additions(client, wanted.name, url, header)
    note = clients.http_of(client).note.format(title=client.title, command=this_program(os.environ).to(*token))
    _apply(client, wanted, additions, note)


def _apply(client: McpClient, wanted: InstallOptions, additions: Sequence[Addition], note: str = "") -> bool:
    if client is OTHER:
        click.echo(json.dumps({each.section: each.contents for each in additions}, indent=2))
        return False
    target = _target(client, wanted)
    compute = partial(apply.plan_install, target, additions, overwrite=wanted.replace)
    change = compute()
    if change is None:
        say(f"{client.title} has this entry already, in {target.path}.")
        return True
    if not _is_confirmed(change, wanted):
        return False
    change = apply.apply(change, compute)
    say(f"Done. {client.after}.")
    if change is not None and change.before is not None:
        say(f"A copy of the old file: {target.backup.copy}")
    options = ["--name", wanted.name] if wanted.name != "fastn" else []
    if wanted.project:
        options.append("--project")
    if wanted.file is not None:
        options += ["--file", str(wanted.file.absolute())]
    say(f"Undo: {this_program(os.environ).to('uninstall', client.name, *options)}")
    if note:
        say(note)
    return True


@click.command(name="uninstall")
@_options
def uninstall(**options: Any) -> None:
    """Remove the server from CLIENT's configuration.

    If nobody has changed the file since, it is restored byte for byte; otherwise only the entry is removed.
    """
    wanted = InstallOptions(**options)
    target = _target(_client(wanted.client), wanted)
    compute = partial(apply.plan_uninstall, target)
    change = compute()
    if change is None:
        say(f"The entry {wanted.name!r} is no longer in {target.path}. There is nothing to do.")
        return
    if not _is_confirmed(change, wanted):
        return
    change = apply.apply(change, compute)
    is_deleted = change is not None and change.new is None
    say(f"Done. {f'{target.path} is deleted' if is_deleted else f'The entry is removed from {target.path}'}.")
    if change is not None and change.keep_copy:
        say(f"The entry that was there before is in {target.backup.copy}")


def _program(wanted: InstallOptions) -> CommandLine:
    """Return the command of the entry: what runs now, by a path or a source that lasts. Raises `NotInstalled`.

    A project's file is read on other machines too, so it gets no path.
    """
    is_cached = command_line.is_in_uv_cache(sys.prefix, os.path.exists)
    if wanted.project and not wanted.uvx:
        return command_line.PROGRAM
    source = command_line.installed_from() if wanted.uvx or is_cached else None
    if source is None and (wanted.uvx or is_cached):
        raise NotInstalled(
            "uvx has no source to fetch this copy of fastn-mcp from: it was not installed from a folder, "
            "a wheel or a repository that is still there, and the package is not published under its name.",
            "Install it permanently: uv tool install FOLDER, where FOLDER is a clone of the repository. "
            "Then run its fastn-mcp install.",
        )
    if source is not None and wanted.project and Path(source).is_absolute():
        raise NotInstalled(
            f"A project's file is read on other machines, which do not have {source}.",
            "Leave out --uvx, so that the entry names only the program; or leave out --project.",
        )
    if source is not None:
        return command_line.by_uvx(source)
    return command_line.running(sys.executable, sys.prefix, os.path.exists, None)


def _client(name: str) -> McpClient:
    client = BY_NAME.get(name)
    if client is None:
        raise NotInstalled(f"There is no client {name!r}{nearest(name, BY_NAME)}.", f"One of: {', '.join(BY_NAME)}.")
    return client


def _present_client(wanted: InstallOptions) -> McpClient:
    """Return the client. Raises `NotInstalled` if this machine does not have it, unless `wanted.anyway`."""
    if wanted.client == OTHER.name:
        return OTHER
    client = _client(wanted.client)
    machine = _machine()
    if not wanted.anyway and wanted.file is None and not wanted.project and not is_present(client, machine):
        others = ", ".join(name for name in BY_NAME if name != client.name)
        raise NotInstalled(
            f"{client.title} was not found: neither {clients.sign(client, machine)} nor its program exists.",
            f"Install it and start it once, or write its file anyway: --anyway. Other clients: {others}.",
        )
    return client


def _target(client: McpClient, wanted: InstallOptions) -> apply.Target:
    state = state_dir(os.environ)
    if wanted.file is not None:
        return apply.Target.at(client, wanted.file.absolute(), wanted.name, state)
    if not wanted.project:
        return apply.Target.at(client, Path(str(place(client, _machine()))), wanted.name, state)
    if client.project is None:
        raise NotInstalled(f"{client.title} has no file for a project that lists servers.", "Leave out --project.")
    return apply.Target.at(client, Path.cwd() / client.project, wanted.name, state, project=Path.cwd())


def _is_confirmed(change: apply.FileChange, wanted: InstallOptions) -> bool:
    """Show the change, and ask whether to make it. Raises `NotInstalled` if there is no terminal to ask on."""
    if change.target.file != change.target.path:
        say(f"{change.target.path} leads to {change.target.file}.", "")
    click.echo("\n".join(sanitize(line) for line in change.diff().splitlines()) + "\n")
    if wanted.dry_run:
        say("Nothing was changed: this was a dry run.")
        return False
    if wanted.yes:
        return True
    if Terminal.here() is None:
        raise NotInstalled("There is no terminal to ask on.", "Run it again with --yes.")
    if _confirm("Apply this change?", default=False, otherwise="Nothing was changed."):
        return True
    say("Nothing was changed.")
    return False


def _machine() -> Machine:
    return Machine(
        sys.platform,
        str(Path.home()),
        os.environ,
        exists=os.path.exists,
        matching=glob,
        program=shutil.which,
    )


# --- setup -------------------------------------------------------------------------------------------------------


@click.command(name="setup")
@click.option("--sandbox/--account", default=None, help="Serve the sandbox, which needs no key, or your account.")
@click.option(
    "--client", "names", type=EnumChoice([*BY_NAME]), multiple=True, help="Connect only this client. Repeatable."
)
@click.option(
    "--yes", is_flag=True, help="Ask nothing. With an account, serve only tools that read, unless --mode is set."
)
@click.option("--replace", is_flag=True, help="With --yes: replace existing entries of that name.")
@click.pass_context
def setup(ctx: click.Context, sandbox: bool | None, names: tuple[str, ...], yes: bool, replace: bool) -> int:
    """Connect the MCP clients of this machine to the sandbox or to your account.

    It runs login if your account has no key yet, shows each change of a client's file before it asks, and ends with
    commands that check the result. Options before setup become the server's options.
    """
    start: StartOptions = ctx.obj
    if not yes and Terminal.here() is None:
        what = "Run: fastn-mcp setup --sandbox --yes; for your account: fastn-mcp login --stdin < FILE, then fastn-mcp"
        raise NotInstalled("There is no terminal to ask on.", f"{what} setup --account --yes")
    chosen = [BY_NAME[name] for name in names] or _present_clients()
    say(f"Clients to connect: {', '.join(client.title for client in chosen)}.")
    arguments = options_of(ctx.find_root())
    proof = ["call", "get-overview"]
    if not _is_sandbox(start, sandbox, yes=yes):
        _require_key(ctx, start, yes=yes)
        if "--mode" not in arguments and (yes or _confirm("Serve only tools that read, at first?")):
            arguments += ["--mode", "read-only"]
        proof = ["whoami"]
    elif not start.sandboxed:
        arguments.append("--sandbox")
        proof.insert(0, "--sandbox")
    options = partial(InstallOptions, name="fastn", project=False, file=None, dry_run=False)
    connected = list[McpClient]()
    failed = 0
    for client in chosen:
        say("", client.title)
        try:
            if install_stdio(options(client.name, yes=yes, replace=replace or not yes), arguments, None):
                connected.append(client)
        except NotInstalled as error:
            failed = 1
            warn(str(error))
    hint = path_hint(os.environ)
    if hint:
        click.echo(f"\n{hint}")
    if connected:
        click.echo(f"\nCheck that it works:\n  {start.command_line().to(*proof)}")
        say(*(f"  {client.after}" for client in connected))
    return failed


def _present_clients() -> list[McpClient]:
    present = [client for client in CLIENTS if is_present(client, _machine())]
    if present:
        return present
    raise NotInstalled(
        f"No MCP client was found. Looked for {', '.join(client.title for client in CLIENTS)}.",
        "Install one, start it once, and run setup again. The entry for any other client: fastn-mcp install json. "
        "Without a client: fastn-mcp --sandbox call get-overview",
    )


def _is_sandbox(start: StartOptions, sandbox: bool | None, *, yes: bool) -> bool:
    is_account = sandbox is False or start.flags.get("profile") is not None
    if is_account and (sandbox or start.sandboxed):
        raise click.UsageError("--sandbox and --profile cannot be combined.")
    if is_account or sandbox or start.sandboxed:
        return not is_account
    if yes:
        raise click.UsageError("With --yes, say what is served: --sandbox or --account.")
    return not _confirm("Connect your Fastn account? (No: the sandbox, with sample data)", default=False)


def _require_key(ctx: click.Context, start: StartOptions, *, yes: bool) -> None:
    """Run `login` if the account has no key. Raises `NoKey` with `yes`, which allows no prompt."""
    from fastn_mcp.cli.accounts import login  # deferred import: only setup reaches Fastn

    try:
        start.settings()
    except NoKey:
        if yes:
            raise
        in_file = False
        try:
            SystemKeyring().check()
        except NoKeyring as error:
            in_file = _confirm(f"{error.what} Keep the key in a file that only you can read?")
        if ctx.invoke(login, in_file=in_file):
            ctx.exit(1)


def _confirm(question: str, *, default: bool = True, otherwise: str = "") -> bool:
    """Ask a yes-or-no question. `otherwise` is said if it is cancelled."""
    try:
        return click.confirm(question, default=default, err=True)
    except click.Abort:
        raise click.Abort(*filter(None, [otherwise])) from None
