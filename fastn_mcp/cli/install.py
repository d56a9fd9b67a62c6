"""`fastn-mcp install` and `uninstall`: the server in the configuration of a client, shown first, and out again."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from fastn_mcp import IS_PUBLISHED
from fastn_mcp.build.startup import options_of
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.help import EnumChoice
from fastn_mcp.cli.layout import say
from fastn_mcp.config.command_line import PROGRAM, by_uvx, running
from fastn_mcp.config.paths import state_dir
from fastn_mcp.errors import nearest
from fastn_mcp.install import apply, entry
from fastn_mcp.install.addition import NotInstalled
from fastn_mcp.install.clients import (
    BEARER_VARIABLE,
    BY_NAME,
    KEY_VARIABLE,
    Http,
    Machine,
    McpClient,
    TokenSource,
    is_present,
    place,
    sign,
)
from fastn_mcp.install.entry import links
from fastn_mcp.install.files import Backups
from fastn_mcp.redaction import sanitize


@dataclass(frozen=True, slots=True)
class Where:
    """Which entry of which client."""

    client: str
    name: str
    project: bool
    file: Path | None


@dataclass(frozen=True, slots=True)
class How:
    """How it is gone about."""

    yes: bool
    dry_run: bool


def _options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The options by which `install` and `uninstall` name an entry, and say how to go about it."""
    for decorate in (
        click.option("--dry-run", is_flag=True, help="Show the change without making it."),
        click.option("--yes", is_flag=True, help="Make the change without asking."),
        click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Another file of that client."),
        click.option(
            "--project", is_flag=True, help="Use the client's project file in this folder, which others share."
        ),
        click.option("--name", default="fastn", show_default=True, help="Name of the server in the client."),
        click.argument("client"),
    ):
        command = decorate(command)
    return command


_CLIENTS = """\b
Clients:  claude-code claude-desktop vscode cursor windsurf codex gemini zed
          json prints the entry, for any other

\b
Examples:
  fastn-mcp install cursor --sandbox
  fastn-mcp --read-only install claude-code --profile acme
  fastn-mcp install vscode --key prompt --dry-run
  fastn-mcp install claude-code --url http://127.0.0.1:8080/mcp
"""


_UNPUBLISHED = (
    "The package registry does not have fastn-mcp yet, so that uvx fetches it only where another index has it. "
    "Without --uvx and --link the entry starts this program by its path."
)


@click.command(name="install", epilog=_CLIENTS)
@_options
@click.option("--sandbox", is_flag=True, help="Serve the sandbox: no account, no key.")
@click.option("--profile", metavar="NAME", help="Serve this account.")
@click.option(
    "--key",
    type=EnumChoice(["profile", "environment", "prompt"]),
    default="profile",
    show_default=True,
    help="Where the key comes from: your profile, FASTN_API_KEY, or the client, which asks for it.",
)
@click.option("--url", metavar="URL", help="Reach the server that runs at URL on this machine, over HTTP.")
@click.option(
    "--uvx",
    is_flag=True,
    hidden=not IS_PUBLISHED,
    help="Start it with uvx, which fetches it, instead of this program's path.",
)
@click.option("--replace", is_flag=True, help="Replace an existing entry of that name.")
@click.option("--anyway", is_flag=True, help="Install even if the client is not found.")
@click.option(
    "--link",
    is_flag=True,
    hidden=not IS_PUBLISHED,
    help="Print links that install it, for web pages. Nothing is changed.",
)
@click.pass_context
def install(
    ctx: click.Context,
    client: str,
    name: str,
    project: bool,
    file: Path | None,
    yes: bool,
    dry_run: bool,
    sandbox: bool,
    profile: str | None,
    key: entry.Key,
    url: str | None,
    uvx: bool,
    replace: bool,
    anyway: bool,
    link: bool,
) -> None:
    """Add the server to CLIENT's configuration. What changes is shown first, and never holds a key or a token.

    Options that stand before install are those that the server is started with.
    """
    if project and file is not None:
        raise click.UsageError("--project names a file, and so does --file. Give one.", ctx)
    arguments = options_of(ctx.find_root())
    if link and url is not None:
        raise click.UsageError("--link is for web pages, and --url for this machine alone. Give one.", ctx)
    if profile is not None and (sandbox or ctx.obj.sandboxed):
        raise click.UsageError("The sandbox is an account of its own. Leave out --profile, or --sandbox.", ctx)
    arguments += ["--sandbox"] if sandbox and "--sandbox" not in arguments else []
    arguments += ["--profile", profile] if profile is not None else []
    where = Where(client, name, project, file)
    if link:
        _show_links(where, arguments, key=key)
    else:
        _install(where, How(yes, dry_run), arguments, url=url, key=key, uvx=uvx, replace=replace, anyway=anyway)
    if (link or uvx) and not IS_PUBLISHED:
        click.echo(f"fastn-mcp: {_UNPUBLISHED}", err=True)


@click.command(name="uninstall")
@_options
@click.pass_context
def uninstall(
    ctx: click.Context, client: str, name: str, project: bool, file: Path | None, yes: bool, dry_run: bool
) -> None:
    """Remove the server from CLIENT's configuration.

    If nobody has changed the file since, it is byte for byte what it was; otherwise only our entry goes.
    """
    if project and file is not None:
        raise click.UsageError("--project names a file, and so does --file. Give one.", ctx)
    _uninstall(Where(client, name, project, file), How(yes, dry_run))


def _install(
    where: Where,
    how: How,
    arguments: Sequence[str],
    *,
    url: str | None,
    key: entry.Key,
    uvx: bool,
    replace: bool,
    anyway: bool,
) -> None:
    """Put the entry in: of a server that the client starts, or of the one that runs at `url`."""
    machine = _machine()
    own = running(sys.executable, sys.prefix, machine.exists)
    program = by_uvx() if uvx else PROGRAM if where.project else own
    start = program.with_(arguments)
    token = [*(["--sandbox"] if arguments else []), "http-token"]
    if url is not None:
        _check_http(url, arguments, key)
    if where.client == "json":
        found = entry.printed(where.name, start) if url is None else entry.printed_http(where.name, url)
        click.echo(json.dumps(found, indent=2))
        return
    client = _client(where.client)
    if not anyway and where.file is None and not where.project and not is_present(client, machine):
        others = ", ".join(name for name in BY_NAME if name != client.name)
        raise NotInstalled(
            f"There is no {client.title} here: neither {sign(client, machine)} nor a program.",
            f"Install it and start it once; or write its file anyway: --anyway. Other clients: {others}.",
        )
    target = _target(client, where, machine)
    records = _records()
    if url is None:
        additions = entry.additions(client, where.name, start, key, machine.platform)
    else:
        command = program.with_([*token, "--header"]).line(machine.platform)
        additions = entry.http_additions(client, where.name, url, command)
    work_out = partial(apply.installing, target, additions, records, overwrite=replace)
    change = work_out()
    if change is None:
        say(f"{client.title} has this entry already, in {target.path}.")
        return
    if not _agreed(change, how):
        return
    change = apply.apply(change, work_out, records)
    say(f"Done. {client.after}.")
    if change is not None and change.before is not None:
        say(f"What the file was: {records.copy(target.path, target.name)}")
    options = (f" --name {where.name}" if where.name != "fastn" else "") + (" --project" if where.project else "")
    options += f" --file {where.file}" if where.file is not None else ""
    say(f"Undo: fastn-mcp uninstall {client.name}{options}")
    if url is not None:
        say(_about_the_token(client, PROGRAM.with_(token).line()))
    elif not _is_sandbox(arguments):
        say(_about_the_key(client, arguments, key))


def _uninstall(where: Where, how: How) -> None:
    """Take it out."""
    client = _client(where.client)
    target = _target(client, where, _machine())
    records = _records()
    work_out = partial(apply.uninstalling, target, records)
    change = work_out()
    if change is None:
        say(f"The entry {where.name!r} is no longer in {target.path}. There is nothing to do.")
        return
    if not _agreed(change, how):
        return
    change = apply.apply(change, work_out, records)
    gone = change is not None and change.then is None
    say(f"Done. {target.path} is {'gone, as it was before' if gone else 'without it'}.")
    if change is not None and change.keep_copy:
        say(f"The entry that ours replaced is in {records.copy(target.path, target.name)}")


def _show_links(where: Where, arguments: Sequence[str], *, key: entry.Key) -> None:
    """Print the links that install it."""
    for label, link in links(_client(where.client), where.name, tuple(arguments), key).items():
        click.echo(f"{label}: {link}")


def _client(name: str) -> McpClient:
    client = BY_NAME.get(name)
    if client is None:
        raise NotInstalled(f"There is no client {name!r}{nearest(name, BY_NAME)}.", f"One of: {', '.join(BY_NAME)}.")
    return client


def _target(client: McpClient, where: Where, machine: Machine) -> apply.Target:
    if where.file is not None:
        return apply.Target.at(client, where.file.absolute(), where.name)
    if not where.project:
        return apply.Target.at(client, Path(str(place(client, machine))), where.name)
    if client.project is None:
        raise NotInstalled(f"{client.title} has no file for a project that lists servers.", "Leave out --project.")
    return apply.Target.at(client, Path.cwd() / client.project, where.name, project=Path.cwd())


def _agreed(change: apply.FileChange, how: How) -> bool:
    if change.target.file != change.target.path:
        say(f"{sanitize(str(change.target.path))} leads to {sanitize(str(change.target.file))}.\n")
    click.echo("\n".join(sanitize(line) for line in change.diff().splitlines()) + "\n")
    if how.dry_run:
        say("Nothing was changed: this was a dry run.")
        return False
    if how.yes:
        return True
    if Terminal.here() is None:
        raise NotInstalled("There is no terminal to ask on.", "Run it again with --yes.")
    if click.confirm("Apply this change?", default=False, err=True):
        return True
    say("Nothing was changed.")
    return False


def _is_sandbox(arguments: Sequence[str]) -> bool:
    return any(argument.startswith("--sandbox") for argument in arguments)


def _check_http(url: str, arguments: Sequence[str], key: entry.Key) -> None:
    """Raise `NotInstalled` for what an entry with `url` could not keep to."""
    entry.check_url(url)
    if key != "profile" or not set(arguments) <= {"--sandbox"}:
        raise NotInstalled(
            "With --url the server runs already, and keeps the account and the options that it was started with.",
            "Leave out --key, --profile and the options before install. --sandbox says whose token is used.",
        )


def _about_the_token(client: McpClient, command: str) -> str:
    match client.http:
        case Http(source=TokenSource.COMMAND):
            return f"{client.title} runs {command} --header when it connects. The token is in no other file."
        case Http(source=TokenSource.PROMPT):
            return f"{client.title} asks for the token at the first start, and keeps it. To print it: {command}"
        case _:
            return f"Start {client.title} with the token: export {BEARER_VARIABLE}=$({command})"


def _about_the_key(client: McpClient, arguments: Sequence[str], key: entry.Key) -> str:
    if key == "prompt":
        return f"{client.title} asks for the key at the first start, and keeps it."
    if key == "environment":
        return f"The key comes from {KEY_VARIABLE}, as {client.title} was started with it."
    profile = f" --profile {arguments[arguments.index('--profile') + 1]}" if "--profile" in arguments else ""
    return f"No key was written. Store it, if you have not: fastn-mcp{profile} login"


def _records() -> Backups:
    return Backups(state_dir(os.environ) / "installed")


def _machine() -> Machine:
    return Machine(sys.platform, str(Path.home()), os.environ, os.path.exists, _matching, shutil.which)


def _matching(pattern: str) -> list[str]:
    path = Path(pattern)
    return [str(found) for found in Path(path.anchor).glob(str(path.relative_to(path.anchor)))]
