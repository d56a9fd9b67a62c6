"""`fastn-mcp setup`: connect the MCP clients of this machine, after login if the account has no key."""

import os
from functools import partial

import click

from fastn_mcp.build.startup import options_of
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.help import EnumChoice
from fastn_mcp.cli.install import InstallOptions, install_stdio, this_machine
from fastn_mcp.cli.layout import say, warn
from fastn_mcp.cli.login import login
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.command_line import path_hint
from fastn_mcp.config.keys import NoKeyring, SystemKeyring
from fastn_mcp.errors import NoKey
from fastn_mcp.install.clients import BY_NAME, CLIENTS, McpClient, is_present
from fastn_mcp.install.edit import NotInstalled


@click.command(name="setup")
@click.option("--sandbox/--account", default=None, help="Serve the sandbox, which needs no key, or your account.")
@click.option(
    "--client", "names", type=EnumChoice([*BY_NAME]), multiple=True, help="Connect this client alone. Repeatable."
)
@click.option(
    "--yes", is_flag=True, help="Ask nothing. Of an account, serve only tools that read, unless --mode is set."
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
    clients = [BY_NAME[name] for name in names] or _present_clients()
    say(f"To connect: {', '.join(client.title for client in clients)}.")
    arguments = options_of(ctx.find_root())
    proof = ["call", "get-overview"]
    if not _is_sandbox(start, sandbox, yes=yes):
        _require_key(ctx, start, yes=yes)
        if not {"--read-only", "--mode"} & {*arguments} and (yes or _confirm("Serve only tools that read, at first?")):
            arguments.append("--read-only")
        proof = ["whoami"]
    elif not start.sandboxed:
        arguments.append("--sandbox")
        proof.insert(0, "--sandbox")
    options = partial(InstallOptions, name="fastn", project=False, file=None, dry_run=False)
    connected, failed = list[McpClient](), 0
    for client in clients:
        say("", client.title)
        try:
            if install_stdio(options(client.name, yes=yes, replace=replace or not yes), arguments):
                connected.append(client)
        except NotInstalled as error:
            failed = 1
            warn(str(error))
    if hint := path_hint(os.environ):
        click.echo(f"\n{hint}")
    if connected:
        click.echo(f"\nThis proves that it works:\n  {start.command_line().to(*proof)}")
        say(*(f"  {client.after}" for client in connected))
    return failed


def _present_clients() -> list[McpClient]:
    if present := [client for client in CLIENTS if is_present(client, this_machine())]:
        return present
    raise NotInstalled(
        f"There is no MCP client to connect. Looked for {', '.join(client.title for client in CLIENTS)}.",
        "Install one, start it once, and run setup again. The entry for any other client: fastn-mcp install json. "
        "Without a client: fastn-mcp --sandbox call get-overview",
    )


def _is_sandbox(start: StartOptions, sandbox: bool | None, *, yes: bool) -> bool:
    is_account = sandbox is False or start.flags.get("profile") is not None
    if is_account and (sandbox or start.sandboxed):
        raise click.UsageError("The sandbox is an account of its own. Leave out one of both.")
    if is_account or sandbox or start.sandboxed:
        return not is_account
    if yes:
        raise click.UsageError("With --yes, say what is served: --sandbox or --account.")
    return not _confirm("Serve your account? Otherwise the sandbox, which has data to try it with", default=False)


def _require_key(ctx: click.Context, start: StartOptions, *, yes: bool) -> None:
    """Run `login` if the account has no key. Raises `NoKey` with `yes`, which allows no prompt."""
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


def _confirm(question: str, *, default: bool = True) -> bool:
    return click.confirm(question, default=default, err=True)
