"""The `fastn-mcp` program: its global options, and serving without a command. `help.COMMANDS` lists the commands."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastn_mcp import __version__
from fastn_mcp.cli.help import EnumChoice, GroupedCommands

if TYPE_CHECKING:
    from fastn_mcp.build.composition import AccountParts
    from fastn_mcp.config.command_line import CommandLine
    from fastn_mcp.config.load import Resolved
    from fastn_mcp.config.model import Settings
    from fastn_mcp.errors import NoKey
    from fastn_mcp.report.collector import Tally

_EPILOG = """\b
Try it without an account:
  fastn-mcp demo
  fastn-mcp --sandbox call list-customers

\b
Connect a client (cursor, claude-code, vscode, codex, ...):
  fastn-mcp install cursor --sandbox
"""


def _setting(flag: str, help_text: str, **attrs: Any) -> Callable[[Any], Any]:
    """Option of one setting. `config` reads its variable and applies the precedence of flag, environment and file."""
    variable = "FASTN_" + flag.lstrip("-").upper().replace("-", "_")
    return click.option(flag, help=f"{help_text} [{variable}]", default=None, **attrs)


@click.group(
    cls=GroupedCommands,
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
    "--team", type=click.Path(path_type=Path), help="With --http: who signs in, and whose account serves them."
)
@click.option("--sandbox", is_flag=True, help="Use a Fastn in this process, with data: no account, no key.")
@click.option(
    "--sandbox-file", type=click.Path(path_type=Path), help="Keep the sandbox's state in this file; implies --sandbox."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file of settings; by default config.toml in your configuration folder. [FASTN_CONFIG]",
)
@_setting("--base-url", "Base URL of Fastn.", metavar="URL")
@_setting("--auth", "How the key is sent.", type=EnumChoice(["header", "bearer"]))
@_setting("--profile", "Account to use, from the file; shown in approval requests and results.", metavar="NAME")
@_setting("--env", "Fastn environment, as test or live.", metavar="NAME")
@_setting("--mode", "What needs approval.", type=EnumChoice(["read-only", "guarded", "manual", "unattended", "auto"]))
@_setting("--policy", "Policy file: rules, protected resources, budgets.", metavar="FILE")
@_setting("--plan", "Signed run plan: calls that are made without asking.", metavar="FILE")
@click.option("--read-only", is_flag=True, default=None, help="Offer only tools that read. [FASTN_READ_ONLY]")
@_setting("--toolsets", "Offer only these, as customers,workflows.", metavar="NAMES")
@_setting("--tools", "Offer only these, and those of --toolsets: run_workflow,list_*.", metavar="NAMES")
@_setting("--exclude-tools", "Offer none of these, whatever else is set: delete_*.", metavar="NAMES")
@_setting("--update", "Send the whole resource, or only what was given.", type=EnumChoice(["merge", "partial"]))
@_setting("--reveal", "Where a new API key is shown.", type=EnumChoice(["file", "result"]))
@_setting("--report", "When serving ends, write what was done: FILE as JSON, FILE.md to read.", metavar="FILE")
@_setting("--log-level", "What is logged.", type=EnumChoice(["debug", "info", "warning", "error"]))
@_setting("--log-file", "Log to this file instead of stderr.", metavar="FILE")
@_setting("--deadline", "Seconds for one call, with all its attempts.", type=float, metavar="SECONDS")
@_setting(
    "--approval-minutes",
    "Minutes in which a request can be answered, and the approved call made.",
    type=int,
    metavar="MINUTES",
)
@click.version_option(__version__, "-V", "--version", prog_name="fastn-mcp")
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

    Without a command it serves agents over stdio. The API key comes from the environment, FASTN_API_KEY, or is kept in
    the system's keyring: fastn-mcp login.
    """
    start = ctx.obj = StartOptions(ctx, flags, config, sandbox or sandbox_file is not None, sandbox_file)
    _refuse_contradictions(ctx, team)
    if ctx.invoked_subcommand is None:
        if team is not None:
            _serve_team(start, team, http or "")
        else:
            _serve(start, http)


def _refuse_contradictions(ctx: click.Context, team: Path | None) -> None:
    if ctx.obj.sandboxed and ctx.params["profile"] is not None:
        raise click.UsageError("The sandbox is an account of its own. Leave out --profile, or --sandbox.")
    is_http_flag = ctx.get_parameter_source("http") is click.core.ParameterSource.COMMANDLINE
    if is_http_flag and ctx.invoked_subcommand is not None:
        raise click.UsageError("--http serves agents, and takes no command beside it.")
    if team is not None and ctx.params["http"] is None:
        raise click.UsageError("--team is for --http: over stdio there is one account.")
    if ctx.params["report"] is not None and ctx.invoked_subcommand not in (None, "run"):
        raise click.UsageError("--report is for serving, and for run.")


def _serve(start: "StartOptions", http: str | None) -> None:
    """Serve one account, over stdio or at `HOST:PORT`."""
    from fastn_mcp.build.startup import introduction_of
    from fastn_mcp.cli.serve import serve_http, serve_stdio
    from fastn_mcp.errors import NoKey

    no_key: NoKey | None = None
    start.state()  # before the handshake: it can fail the start
    try:
        settings = start.resolved().settings
    except NoKey as error:
        # If the server exits, clients only report a failed connection. So serve, send nothing, and answer every call
        # with the missing setting. Any other invalid setting still stops the start.
        settings, no_key = start.keyless(), error.with_program(start.command_line().line())

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

    The rows of one answer exceed Python's threshold of 700 new objects. Collecting after those of about ten answers
    saves a tenth of a list call's time.
    """
    gc.enable()
    gc.freeze()
    gc.set_threshold(10_000)


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Options before a command, which select account, settings and folders. Methods import what they need on demand."""

    context: click.Context
    flags: Mapping[str, object]
    config: Path | None
    """The configuration file of --config."""
    sandboxed: bool
    sandbox_file: Path | None

    def with_flags(self, **flags: object) -> "StartOptions":
        """Return a copy with a command's own flags. None leaves a flag as it is."""
        overrides = {name: value for name, value in flags.items() if value is not None}
        return replace(self, flags={**self.flags, **overrides})

    def resolved(self) -> "Resolved":
        from fastn_mcp.build.startup import resolved_of

        return resolved_of(self.flags, os.environ, self.existing_config(), sandboxed=self.sandboxed)

    def parts(
        self,
        settings: "Settings | None" = None,
        *,
        browser: bool = False,
        tally: "Tally | None" = None,
        no_key: "NoKey | None" = None,
    ) -> "AccountParts":
        """Assemble the parts of an account from `settings`, by default those of the selected account."""
        from fastn_mcp.build.composition import assemble, begin_log, policy_of
        from fastn_mcp.build.process import Process, Sandboxed
        from fastn_mcp.build.telemetry import audit_outboxes, instruments_of

        settings = settings or self.resolved().settings
        if browser and settings.report is not None:
            from fastn_mcp.report.collector import Tally  # without --report nothing is collected

            tally = Tally()
        lines, program = begin_log(settings), self.command_line()
        policy = policy_of(settings, os.environ, program)
        instruments = instruments_of(os.environ, lines, self.context.call_on_close)
        outbox_of = audit_outboxes(settings, self.state(), os.environ, self.context.call_on_close)
        if no_key is not None:
            logging.getLogger("fastn_mcp").error("Every call will be answered with: %s", no_key)
        process = Process(
            os.environ,
            Sandboxed(self.sandbox_file) if self.sandboxed else None,
            program,
            has_browser=browser,
            tally=tally,
            instruments=instruments,
            outbox_of=outbox_of,
        )
        return assemble(settings, policy, self.state(), process, no_key)

    def command_line(self) -> "CommandLine":
        """Return the command that starts this program again at a shell, on the same account and folders."""
        from fastn_mcp.build.startup import command_line_of

        return command_line_of(self.context, os.environ)

    def existing_config(self) -> Path | None:
        """Return the file of --config or FASTN_CONFIG, or else the user's own. Never one in the working directory."""
        if self.config is not None:
            return self.config
        if path := os.environ.get("FASTN_CONFIG"):
            return Path(path)
        own = _own_config()
        return own if own.exists() else None

    def config_file(self) -> Path:
        """Return the path of the configuration file, which may not exist yet."""
        return self.existing_config() or _own_config()

    def state(self) -> Path:
        """Return the folder of the ledger and the audit log. Raises `SettingsError` if other users can change it."""
        from fastn_mcp.build.startup import own_state_of

        return own_state_of(os.environ, sandboxed=self.sandboxed)

    def ledger_settings(self) -> "Settings":
        """Return the settings of the ledger alone."""
        from fastn_mcp.config.load import ledger_settings

        return ledger_settings(self.flags, os.environ, self.existing_config(), sandbox=self.sandboxed)

    def keyless(self) -> "Settings":
        """Return the settings without a key, for commands that need none. Raises `SettingsError`."""
        from fastn_mcp.cli.login import without_key
        from fastn_mcp.config.edit import read_or_none
        from fastn_mcp.config.load import choose

        file = read_or_none(self.config_file())
        return choose(self.flags, without_key(os.environ), file, sandbox=self.sandboxed).keyless()


def _own_config() -> Path:
    from fastn_mcp.config.paths import CONFIG, config_dir

    return config_dir(os.environ) / CONFIG


def _serve_team(start: StartOptions, file: Path, http: str) -> None:
    process_flags = {"log_level", "log_file"}
    for name, value in start.flags.items():
        if value is not None and name not in process_flags:
            raise click.UsageError(f"--{name.replace('_', '-')} is of one account: the team file says it of each.")
    from fastn_mcp.build.team import serve

    _collect_garbage()
    flags = {name: start.flags[name] for name in process_flags}
    serve(file, http, flags, start.existing_config(), start.state(), sandboxed=start.sandboxed)


def main() -> None:
    """Run the program."""
    # Imports take nine tenths of a start. Garbage collection meanwhile finds nothing and costs a seventh of that.
    gc.disable()
    from fastn_mcp.cli.exit import run

    run(cli)
