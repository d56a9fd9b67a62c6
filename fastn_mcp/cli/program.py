"""The `fastn-mcp` program: its global options, and serving without a command. `help.COMMANDS` lists the commands."""

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from typing_extensions import override

from fastn_mcp import __version__
from fastn_mcp.cli.help import COLOR, GroupedCommands
from fastn_mcp.cli.start_options import StartOptions, setting_options

if TYPE_CHECKING:
    from fastn_mcp.build.composition import AccountParts

_VERSION = ("-V", "--version")
_WITHOUT_SETTINGS = "fastn_mcp.without_settings"
"""Key in a context's `meta` while arguments without options of settings are parsed."""

_EPILOG = """\b
Try it without an account:
  fastn-mcp demo
  fastn-mcp --sandbox call list-customers

\b
Connect a client (cursor, claude-code, vscode, codex, ...):
  fastn-mcp install cursor --sandbox
"""


class Program(GroupedCommands):
    """The root command. Its options of settings are built where options are parsed or listed, since they load pydantic.

    A command line without options before its command, such as a health check's, starts without them.
    """

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in _VERSION:
            return super().parse_args(ctx, args)
        ctx.meta[_WITHOUT_SETTINGS] = True
        try:
            return super().parse_args(ctx, args)
        finally:
            del ctx.meta[_WITHOUT_SETTINGS]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _commands_of_others(ctx).get(cmd_name)

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from fastn_mcp.errors import FastnError

        commands: dict[str, click.Command] = {}
        with suppress(FastnError, OSError):  # the help is shown with any file
            commands = _commands_of_others(ctx)
        if commands:
            with formatter.section("Extensions of others"):
                formatter.write_dl([(name, command.get_short_help_str()) for name, command in commands.items()])
        super().format_options(ctx, formatter)

    @override
    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        if ctx.meta.get(_WITHOUT_SETTINGS):
            return params
        *fixed, version, help_ = params
        return [*fixed, *setting_options(), version, help_]


def _commands_of_others(ctx: click.Context) -> dict[str, click.Command]:
    """Return the commands of extensions of others that the configuration file names. Raises `SettingsError`."""
    from fastn_mcp.build.extensions import commands_of_others
    from fastn_mcp.config.load import read_file

    start = StartOptions(ctx, {}, ctx.params.get("config"), sandboxed=False, sandbox_file=None)
    return commands_of_others(read_file(start.existing_config()))


@click.group(
    cls=Program,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    envvar="FASTN_HTTP",
    help="Serve streamable HTTP at /mcp instead of stdio. [FASTN_HTTP]",
)
@click.option(
    "--team",
    type=click.Path(path_type=Path),
    help="With --http: team file, which says who may sign in and which account serves them.",
)
@click.option(
    "--sandbox", is_flag=True, help="Use a simulated Fastn in this process, with sample data; needs no account or key."
)
@click.option(
    "--sandbox-file", type=click.Path(path_type=Path), help="Keep the sandbox's state in this file; implies --sandbox."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file of settings; by default config.toml in your configuration folder. [FASTN_CONFIG]",
)
@click.option("--color", **COLOR)
@click.version_option(__version__, *_VERSION, prog_name="fastn-mcp")
@click.pass_context
def cli(
    ctx: click.Context,
    http: str | None,
    team: Path | None,
    sandbox: bool,
    sandbox_file: Path | None,
    config: Path | None,
    **flags: object,
) -> None:
    """Administer Fastn from an agent, safely.

    Without a command, it serves agents over stdio. The API key comes from FASTN_API_KEY, or from the system's keyring,
    where fastn-mcp login stores it.
    """
    start = ctx.obj = StartOptions(
        ctx, flags, config, sandboxed=sandbox or sandbox_file is not None, sandbox_file=sandbox_file
    )
    _refuse_contradictions(ctx, team)
    if ctx.invoked_subcommand is None:
        if team is not None:
            _serve_team(start, team, http or "")
        else:
            _serve(start, http)


def _refuse_contradictions(ctx: click.Context, team: Path | None) -> None:
    if ctx.obj.sandboxed and ctx.obj.flags.get("profile") is not None:
        raise click.UsageError("--sandbox and --profile cannot be combined.")
    is_http_flag = ctx.get_parameter_source("http") is click.core.ParameterSource.COMMANDLINE
    if is_http_flag and ctx.invoked_subcommand is not None:
        raise click.UsageError("--http serves agents and cannot be combined with a command.")
    if team is not None and ctx.params["http"] is None:
        raise click.UsageError("--team needs --http: over stdio there is one account.")
    if ctx.obj.flags.get("report") is not None and ctx.invoked_subcommand not in (None, "run"):
        raise click.UsageError("--report works only with run, or when serving.")


def _serve(start: StartOptions, http: str | None) -> None:
    """Serve one account, over stdio or at `HOST:PORT`."""
    from fastn_mcp.build.startup import introduction_of
    from fastn_mcp.cli.serve import serve_http, serve_stdio
    from fastn_mcp.errors import NoKey

    no_key: NoKey | None = None
    start.state()  # before the handshake: it can fail the start
    try:
        settings = start.settings()
    except NoKey as error:
        # If the server exits, clients only report a failed connection. So serve, send nothing, and answer every call
        # with the missing setting. Any other invalid setting still stops the start.
        settings = start.keyless()
        no_key = error

    def parts() -> "AccountParts":
        try:
            return start.parts(settings, browser=True, no_key=no_key)
        finally:
            _collect_garbage()

    if http is not None:
        return serve_http(parts(), http, start.state())
    if sys.stdin.isatty():
        if no_key is not None:
            raise no_key
        click.echo("fastn-mcp: serving on stdio; this is for an MCP client. See fastn-mcp --help.", err=True)
    return serve_stdio(parts, introduction_of(settings, os.environ))


def _collect_garbage() -> None:
    """Enable garbage collection at a higher threshold, without the objects that imports created.

    The rows of one answer exceed Python's threshold of 700 new objects, and 64 calls under way exceed 10,000:
    at 50,000, they take a seventh less CPU than at 10,000, for 3 MB more memory.
    """
    gc.enable()
    gc.freeze()
    gc.set_threshold(50_000)


def _serve_team(start: StartOptions, file: Path, http: str) -> None:
    process_flags = {"log_level", "log_file"}
    for name, value in start.flags.items():
        if value is not None and name not in process_flags:
            raise click.UsageError(
                f"--{name.replace('_', '-')} belongs to one account: the team file sets it for each tenant."
            )
    from fastn_mcp.build.extensions import team_server

    _collect_garbage()
    flags = {name: start.flags.get(name) for name in process_flags}
    config = start.existing_config()
    team_server().serve(file, http, flags, config=config, state=start.state(), sandboxed=start.sandboxed)


def main() -> None:
    # Imports take nine tenths of a start. Garbage collection meanwhile finds nothing and costs a seventh of that.
    gc.disable()
    from fastn_mcp.cli.exit import run

    run(cli)
