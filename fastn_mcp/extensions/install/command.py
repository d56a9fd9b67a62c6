"""`fastn-mcp install`, `uninstall` and `setup`: show what a client will be told, and tell it.

A client is told by its own command, or by a link that it opens. Of any other, the entry is printed, and where it goes.
No file of a client is read or written here.
"""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import webbrowser
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
from fastn_mcp.errors import NoKey, nearest
from fastn_mcp.extensions.install import clients
from fastn_mcp.extensions.install.clients import (
    BY_NAME,
    CLIENTS,
    KEY_VARIABLE,
    OTHER,
    Key,
    Machine,
    McpClient,
    NotInstalled,
    ServerEntry,
    document,
    is_present,
    place,
)
from fastn_mcp.redaction import sanitize

_PATIENCE = 120.0
"""Seconds that a client's command may take."""


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """Options of both commands: the client, the entry, and whether to ask. `key` is of `install` alone."""

    client: str
    name: str
    yes: bool
    dry_run: bool
    key: Key = "profile"


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `InstallOptions` to a command."""
    for decorate in (
        click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
        click.option("--yes", is_flag=True, help="Do it without asking."),
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
@click.pass_context
def install(
    ctx: click.Context,
    sandbox: bool,
    profile: str | None,
    url: str | None,
    **options: Any,
) -> None:
    """Add the server to CLIENT, by the client's own command. It is shown first, and never contains a key or a token.

    An entry of the same name is replaced. Of a client without a command, the entry is printed, and where it goes.
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
    """Tell the client of a server that it starts. Return whether it has been told, or the person has.

    `login_command` stores the key, if the account may have none yet.
    """
    start = _program().with_(arguments)
    client = OTHER if wanted.client == OTHER.name else _client(wanted.client)
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
    server = clients.stdio_server(client, wanted.name, start, wanted.key)
    if is_sandbox or login_command is None:
        return _tell(client, wanted, server)
    note = _KEY_NOTES[wanted.key].format(title=client.title, login=login_command)
    return _tell(client, wanted, server, note)


def _install_http(wanted: InstallOptions, arguments: Sequence[str], url: str) -> None:
    """Tell the client of the server that runs at `url`."""
    clients.check_url(url)
    if wanted.key != "profile" or not set(arguments) <= {"--sandbox"}:
        raise NotInstalled(
            "With --url, the server is already running with the account and options that it was started with.",
            "Leave out --key, --profile and the options before install. With --sandbox, the sandbox's token is used.",
        )
    client = OTHER if wanted.client == OTHER.name else _client(wanted.client)
    token = [*arguments, "http-token"]
    header = _program().with_([*token, "--header"]).line()
    server = clients.http_server(client, wanted.name, url, header)
    note = clients.http_of(client).note.format(title=client.title, command=this_program(os.environ).to(*token))
    _tell(client, wanted, server, note)


def _tell(client: McpClient, wanted: InstallOptions, server: ServerEntry, note: str = "") -> bool:
    """Tell the client of the server. Return whether it has been told, or the person has what to do."""
    if client is OTHER:
        click.echo(document(client, server))
        return False
    commands = _adding(client, server)
    if commands:
        is_done = _is_confirmed(f"{client.title} adds the server by its own command", commands, wanted)
        if is_done:
            _run(commands)
            say(f"Done. {client.after}.")
    elif client.link is not None:
        is_done = _open_link(client, server, client.link(server), wanted)
    else:
        say(f"{_no_command(client)}. Put this into {_place(client)}:", "")
        click.echo(f"{document(client, server)}\n")
        say(f"{client.after}.")
        is_done = True
    if is_done:
        options = ["--name", wanted.name] if wanted.name != "fastn" else []
        program = dataclasses.replace(this_program(os.environ), variables=())
        say(f"Undo: {program.to('uninstall', client.name, *options)}")
        if note:
            say(note)
    return is_done


def _adding(client: McpClient, server: ServerEntry) -> Sequence[Sequence[str]]:
    """Return the client's own commands that add the server. None if it has none, or this machine does not have it."""
    program = _program_of(client)
    if client.commands is None or program is None:
        return ()
    add = client.commands.add(server, os.environ)
    if add is None:
        return ()
    remove = client.commands.remove
    first = [] if client.commands.replaces or remove is None else [[program, *remove(server.name)]]
    return [*first, [program, *add]]


def _no_command(client: McpClient) -> str:
    """Say why the client is not told by a command of its own."""
    if client.commands is not None and _program_of(client) is None:
        return f"{client.commands.program}, the program of {client.title}, was not found, or is a batch file"
    return f"{client.title} has no command for this"


def _program_of(client: McpClient) -> str | None:
    """Return the path of the program that runs the client's own commands; None if there is none on this machine.

    A batch file is none: the shell that runs it would read what an entry contains.
    """
    program = shutil.which(client.commands.program) if client.commands is not None else None
    return None if program is None or program.lower().endswith((".cmd", ".bat")) else program


def _is_confirmed(heading: str, commands: Sequence[Sequence[str]], wanted: InstallOptions) -> bool:
    """Show the commands, and ask whether to run them. Raises `NotInstalled` if there is no terminal to ask on."""
    say(f"{heading}:", "")
    for command in commands:
        click.echo(f"  {sanitize(shlex.join([Path(command[0]).name, *command[1:]]))}")
    click.echo()
    return _is_wanted("Run this?" if len(commands) == 1 else "Run these?", wanted)


def _is_wanted(question: str, wanted: InstallOptions) -> bool:
    if wanted.dry_run:
        say("Nothing was changed: this was a dry run.")
        return False
    if wanted.yes:
        return True
    if Terminal.here() is None:
        raise NotInstalled("There is no terminal to ask on.", "Run it again with --yes.")
    if _confirm(question, default=False, otherwise="Nothing was changed."):
        return True
    say("Nothing was changed.")
    return False


def _run(commands: Sequence[Sequence[str]]) -> None:
    """Run the commands; all but the last may fail. Raises `NotInstalled` with what the last one says."""
    for command in commands:
        shown = shlex.join(command)
        try:
            done = subprocess.run(  # noqa: S603 - a client's own program, which the person has just seen
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            failed = f"{Path(command[0]).name} did not end: {type(error).__name__}."
            raise NotInstalled(failed, f"Run it yourself: {shown}", certainty="") from None
        output = (done.stderr or done.stdout).decode(errors="replace").strip()
        if done.returncode != 0 and command is commands[-1]:
            said = sanitize(output.splitlines()[-1]) if output else "It says nothing"
            failed = f"{Path(command[0]).name} ended with exit code {done.returncode}. {said.rstrip('.')}."
            raise NotInstalled(failed, f"Run it yourself: {shown}", certainty="")


def _open_link(client: McpClient, server: ServerEntry, link: str, wanted: InstallOptions) -> bool:
    """Open a link by which the client asks the person. Return whether it was opened, or shown."""
    say(f"{client.title} opens a link, and asks you itself whether to add this:", "")
    click.echo(f"{document(client, server)}\n")
    if not _is_wanted("Open the link?", wanted):
        return False
    if webbrowser.open(link):
        say(f"Done. {client.after}.")
    else:
        say(f"It could not be opened here. Open it where {client.title} is, or put the entry into {_place(client)}:")
        click.echo(f"  {link}")
    return True


def _place(client: McpClient) -> str:
    return str(place(client, _machine()))


@click.command(name="uninstall")
@_options
def uninstall(**options: Any) -> None:
    """Remove the server from CLIENT, by the client's own command. Without one, it says what to remove where."""
    wanted = InstallOptions(**options)
    client = _client(wanted.client)
    program = _program_of(client)
    remove = client.commands.remove if client.commands is not None else None
    if program is None or remove is None:
        say(f"{_no_command(client)}. Remove the entry {wanted.name!r} in {_place(client)}.")
        return
    commands = [[program, *remove(wanted.name)]]
    if _is_confirmed(f"{client.title} removes the server by its own command", commands, wanted):
        _run(commands)
        say(f"Done. {client.title} has no entry {wanted.name!r} now.")


def _program() -> CommandLine:
    """Return the command of the entry: what runs now, by a path or a source that lasts. Raises `NotInstalled`."""
    is_cached = command_line.is_in_uv_cache(sys.prefix, os.path.exists)
    source = command_line.installed_from() if is_cached else None
    if is_cached and source is None:
        raise NotInstalled(
            "uvx has no source to fetch this copy of fastn-mcp from: it was not installed from a folder, "
            "a wheel or a repository that is still there, and the package is not published under its name.",
            "Install it permanently: uv tool install FOLDER, where FOLDER is a clone of the repository. "
            "Then run its fastn-mcp install.",
        )
    return command_line.running(sys.executable, sys.prefix, os.path.exists, source)


def _client(name: str) -> McpClient:
    client = BY_NAME.get(name)
    if client is None:
        raise NotInstalled(f"There is no client {name!r}{nearest(name, BY_NAME)}.", f"One of: {', '.join(BY_NAME)}.")
    return client


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
@click.pass_context
def setup(ctx: click.Context, sandbox: bool | None, names: tuple[str, ...], yes: bool) -> int:
    """Connect the MCP clients of this machine to the sandbox or to your account.

    It runs login if your account has no key yet, shows what each client will be told before it asks, and ends with
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
    options = partial(InstallOptions, name="fastn", yes=yes, dry_run=False)
    connected = list[McpClient]()
    failed = 0
    for client in chosen:
        say("", client.title)
        try:
            if install_stdio(options(client.name), arguments, None):
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
