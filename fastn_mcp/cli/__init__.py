"""The command line. Each command's own module is loaded when the command is run."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from fastn_mcp import IS_PUBLISHED, __version__
from fastn_mcp.cli.exit import DOCTORS_CODES, EXIT_CODES
from fastn_mcp.cli.help import GroupedCommands, exampled

if TYPE_CHECKING:
    from fastn_mcp.build.account import AccountParts
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


class EnumChoice(click.Choice[str]):
    """One of several values; of another, the nearest is said."""

    @override
    def get_invalid_choice_message(self, value: str, ctx: click.Context | None) -> str:
        from fastn_mcp.errors import nearest

        return f"unknown value {value!r}{nearest(value, self.choices)}. Use one of {', '.join(self.choices)}."


_GUISE = EnumChoice(["usual", "bearer", "test-mode", "paths", "fields", "scopes"])
"""The names of the sandbox's guises, which is not loaded before it is asked for."""


def _setting(flag: str, help_text: str, **more: Any) -> Callable[[Any], Any]:
    """A flag of a setting. The environment is read by `config`, which knows what overrules what."""
    variable = "FASTN_" + flag.lstrip("-").upper().replace("-", "_")
    return click.option(flag, help=f"{help_text} [{variable}]", default=None, **more)


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
@_setting("--base-url", "Where Fastn is.", metavar="URL")
@_setting("--auth", "How the key is sent.", type=EnumChoice(["header", "bearer"]))
@_setting("--profile", "Account to use, of those in the file; shown in questions and results.", metavar="NAME")
@_setting("--env", "Fastn environment, as test or live.", metavar="NAME")
@_setting("--mode", "What is asked first.", type=EnumChoice(["read-only", "guarded", "manual", "unattended", "auto"]))
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

    sandboxed = sandbox or sandbox_file is not None

    def resolved() -> "Resolved":
        from fastn_mcp.build.startup import resolved_of

        return resolved_of(flags, os.environ, config or _config_file(), sandboxed=sandboxed)

    def parts(
        settings: "Settings | None" = None,
        *,
        browser: bool = False,
        tally: "Tally | None" = None,
        no_key: "NoKey | None" = None,
    ) -> "AccountParts":
        from fastn_mcp.build.account import Sandboxed, assemble, begin_log, policy_of
        from fastn_mcp.build.telemetry import kinds_of

        chosen = Sandboxed(sandbox_file) if sandboxed else None
        settings = settings or resolved().settings
        if browser and settings.report is not None:
            from fastn_mcp.report.collector import Tally  # a server that keeps no report must not gather one

            tally = Tally()
        lines = begin_log(settings)
        program, state = _command_line(ctx), ctx.obj.state()
        policy = policy_of(settings, os.environ, program)
        kinds = kinds_of(os.environ, lines, ctx.call_on_close)(settings.profile)
        if no_key is not None:
            logging.getLogger("fastn_mcp").error("Every call is answered so: %s", no_key)
        return assemble(
            settings,
            chosen,
            policy,
            state,
            os.environ,
            browser=browser,
            tally=tally,
            kinds=kinds,
            no_key=no_key,
            program=program,
        )

    ctx.obj = StartOptions(parts, resolved, partial(_command_line, ctx), flags, config, sandboxed, sandbox_file)
    _refuse_contradictions(ctx, team)
    if ctx.invoked_subcommand is None:
        if team is not None:
            _team(team, http, flags, config or _config_file(), ctx.obj.state())
        else:
            _serve(ctx.obj, http)


def _refuse_contradictions(ctx: click.Context, team: Path | None) -> None:
    if ctx.obj.sandboxed and ctx.params["profile"] is not None:
        raise click.UsageError("The sandbox is an account of its own. Leave out --profile, or --sandbox and its like.")
    named = ctx.get_parameter_source("http") is click.core.ParameterSource.COMMANDLINE
    if named and ctx.invoked_subcommand is not None:
        raise click.UsageError("--http serves agents, and takes no command beside it.")
    if team is not None and ctx.params["http"] is None:
        raise click.UsageError("--team is for --http: over stdio there is one account.")
    if ctx.params["report"] is not None and ctx.invoked_subcommand not in (None, "run"):
        raise click.UsageError("--report is for serving, and for run.")


def _command_line(root: click.Context) -> "CommandLine":
    from fastn_mcp.build.startup import command_line_of

    return command_line_of(root, os.environ)


def _served(start: "StartOptions") -> "tuple[Settings, NoKey | None]":
    """The settings to serve by, and why there is no key. Raises `SettingsError` for all else that is wrong.

    A client only says of a server that ends that it could not connect: so one without a key says itself what is
    missing. It sends nothing. A setting that is wrong or unsafe still stops the start.
    """
    from fastn_mcp.errors import NoKey

    try:
        return start.resolved().settings, None
    except NoKey as error:
        return start.keyless(), error.with_program(start.command_line().line())


def _serve(start: "StartOptions", http: str | None) -> None:
    """Serve one account, over stdio or at `HOST:PORT`."""
    from fastn_mcp.build.startup import introduction_of
    from fastn_mcp.cli.serve import over_http, over_stdio

    settings, no_key = _served(start)

    def parts() -> "AccountParts":
        try:
            return start.parts(settings, browser=True, no_key=no_key)
        finally:
            _collect_garbage()

    if http is not None:
        return over_http(parts(), http, start.state())
    if sys.stdin.isatty():
        if no_key is not None:
            raise no_key
        click.echo("fastn-mcp: serving on stdio; this is for an MCP client. See fastn-mcp --help.", err=True)
    return over_stdio(parts, introduction_of(settings, os.environ))


def _collect_garbage() -> None:
    """From now on, and not in what was imported.

    The rows of one answer are more objects than the 700 after which Python looks for garbage among the new: looking
    after as many as ten answers make saves a tenth of a list's cost.
    """
    gc.enable()
    gc.freeze()
    gc.set_threshold(10_000)


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How this start was asked for: what each command begins from."""

    parts: "Callable[..., AccountParts]"
    """What a command works with, of these settings or else of the account that is chosen."""
    resolved: "Callable[[], Resolved]"
    command_line: "Callable[[], CommandLine]"
    """How a person starts this program again at a shell, on the same account and folders."""
    flags: Mapping[str, object]
    config: Path | None
    """The configuration file of --config."""
    sandboxed: bool
    sandbox_file: Path | None

    def __call__(self, tally: "Tally | None" = None) -> "AccountParts":
        return self.parts(tally=tally)

    def config_file(self) -> Path:
        """The configuration file, where it is or would be."""
        from fastn_mcp.config.paths import CONFIG, config_dir

        return self.config or _config_file() or config_dir(os.environ) / CONFIG

    def state(self) -> Path:
        """Where grants and the audit are. The sandbox's are no part of an account's."""
        from fastn_mcp.build.startup import state_of

        return state_of(os.environ, sandboxed=self.sandboxed)

    def ledger(self) -> str | None:
        """The setting of the ledger."""
        from fastn_mcp.config.load import ledger_setting

        return ledger_setting(self.flags, os.environ, self.config or _config_file(), sandbox=self.sandboxed)

    def keyless(self) -> "Settings":
        """The settings without a key, for commands that need none. Raises `SettingsError`."""
        from fastn_mcp.cli.login import without_key
        from fastn_mcp.config.edit import read_or_none
        from fastn_mcp.config.load import choose

        file = read_or_none(self.config_file())
        return choose(self.flags, without_key(os.environ), file, sandbox=self.sandboxed).keyless()


def _team(file: Path, http: str | None, flags: dict[str, object], config: Path | None, state: Path) -> None:
    own = {"log_level", "log_file"}
    for name, value in flags.items():
        if value is not None and name not in own:
            raise click.UsageError(f"--{name.replace('_', '-')} is of one account: the team file says it of each.")
    from fastn_mcp.build.team import serve

    sandboxed = click.get_current_context().obj.sandboxed
    _collect_garbage()
    serve(file, http or "", {name: flags[name] for name in own}, config, state, sandboxed=sandboxed)


def _config_file() -> Path | None:
    """The file that FASTN_CONFIG names, or the user's own. Never one in the working directory."""
    if named := os.environ.get("FASTN_CONFIG"):
        return Path(named)
    from fastn_mcp.config.paths import CONFIG, config_dir

    own = config_dir(os.environ) / CONFIG
    return own if own.exists() else None


class _Lazy(click.Group):
    """Commands whose modules are loaded when they are asked for."""

    def __init__(self, name: str, short_help: str, load: Callable[[], click.Group]) -> None:
        super().__init__(name, short_help=short_help)
        self._load = lambda: exampled(load(), name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._load().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._load().get_command(ctx, cmd_name)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return self._load().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return self._load().invoke(ctx)


def _call_group() -> click.Group:
    from fastn_mcp.cli.call import Calls

    return Calls("call", help="Make one call, asking on the terminal before anything destructive.")


def _approvals_group() -> click.Group:
    from fastn_mcp.cli.approvals import approvals_group

    return approvals_group


def _audit_group() -> click.Group:
    from fastn_mcp.cli.audit import audit_group

    return audit_group


def _policy_group() -> click.Group:
    from fastn_mcp.cli.policy import policy_group

    return policy_group


def _plan_group() -> click.Group:
    from fastn_mcp.cli.plan import plan_group

    return plan_group


def _profiles_group() -> click.Group:
    from fastn_mcp.cli.profiles import profiles_group

    return profiles_group


cli.add_command(_Lazy("call", "Make one call, asking on the terminal before anything destructive.", _call_group))
cli.add_command(_Lazy("approvals", "See what waits for an approval, and decide.", _approvals_group))
cli.add_command(_Lazy("audit", "Read the record of decisions and calls, and check it.", _audit_group))
cli.add_command(_Lazy("plan", "Write, review and sign plans for unattended runs.", _plan_group))
cli.add_command(_Lazy("policy", "Check a policy file, and ask what it says of a call.", _policy_group))
cli.add_command(_Lazy("profiles", "See the accounts of the configuration file, add and remove them.", _profiles_group))


@cli.command(name="login")
@click.argument("profile", required=False)
@click.option("--stdin", is_flag=True, help="Read the key from the standard input instead of asking for it.")
@click.option("--file", "in_file", is_flag=True, help="Keep it in a file that only you can read, not in the keyring.")
@click.option("--no-check", is_flag=True, help="Do not try the key first.")
@click.option("--replace", is_flag=True, help="With --file: replace the key of another host without asking.")
@click.pass_obj
def login_(start: StartOptions, profile: str | None, stdin: bool, in_file: bool, no_check: bool, replace: bool) -> None:
    """Ask for the API key of an account, try it by one read, and keep it in the system's keyring.

    Without PROFILE it is the key of the account that is used by default.
    """
    from fastn_mcp.cli.login import login

    raise SystemExit(login(start, profile, stdin=stdin, in_file=in_file, check=not no_check, replace=replace))


@cli.command(name="logout")
@click.argument("profile", required=False)
@click.pass_obj
def logout_(start: StartOptions, profile: str | None) -> None:
    """Forget the API key of an account that login has kept. It is not revoked at Fastn."""
    from fastn_mcp.cli.login import logout

    raise SystemExit(logout(start, profile))


@cli.command(name="whoami")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def whoami_(start: StartOptions, as_json: bool) -> None:
    """Say which account is used, where its key comes from, what is asked first, and by one read whether it works.

    \b
    Exit codes:
      0  the key works
      1  it does not, or Fastn could not be asked
      2  a setting is wrong, or there is no key
    """
    from fastn_mcp.cli.whoami import whoami

    raise SystemExit(whoami(start, as_json=as_json))


@cli.command(name="run", epilog=EXIT_CODES)
@click.argument("script", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--report", type=click.Path(path_type=Path), help="Write what was done: FILE as JSON, FILE.md to read.")
@click.option("--keep-going", is_flag=True, help="Go on after a call that was not done.")
@click.option("--dry-run", is_flag=True, help="Read, and show what each change would do. Nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print each result as a line of JSON.")
@click.pass_context
def run_(ctx: click.Context, script: Path, report: Path | None, keep_going: bool, dry_run: bool, as_json: bool) -> None:
    """Make the calls of SCRIPT in order, each by the same path as an agent's; - is the input.

    A line is a call: {"tool": "create_customer", "arguments": {"name": "Acme"}}. With "id" beside them it has a name of
    yours, which --json repeats. Blank lines, and those that begin with #, are passed over. A script with a mistake in
    it is refused before its first call.
    """
    from fastn_mcp.cli.run import run
    from fastn_mcp.report.collector import Tally

    raise SystemExit(run(ctx.obj(Tally()), script, report, keep_going=keep_going, dry_run=dry_run, as_json=as_json))


@cli.command(name="doctor", epilog=DOCTORS_CODES)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--report", type=click.Path(path_type=Path), help="Write what was found, without data: FILE.md or .json.")
@click.option("--record", type=click.Path(path_type=Path), help="Write what was observed, as JSON, for maintainers.")
@click.option("--write", type=click.Path(path_type=Path), help="Put what is proposed into this file, once you agree.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.pass_context
def doctor_(
    ctx: click.Context, as_json: bool, report: Path | None, record: Path | None, write: Path | None, yes: bool
) -> None:
    """Check the settings, the network, the key, and each operation against your account. Changes nothing there.

    Each operation that reads is made once; one that changes something is asked for by OPTIONS, and never made. What
    differs is said with what to do, and proposed as settings.
    """
    from fastn_mcp.build.account import Sandboxed
    from fastn_mcp.cli.doctor import Files, run

    start: StartOptions = ctx.obj
    files = Files(report, record, write)
    file = start.config or _config_file()
    sandbox = Sandboxed(start.sandbox_file) if start.sandboxed else None
    raise SystemExit(run(start.flags, file, sandbox, files, start.resolved, start.state(), as_json=as_json, yes=yes))


@cli.command(name="tools")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def tools_(start: StartOptions, as_json: bool) -> None:
    """List the tools of these settings: effect, evidence, route."""
    from fastn_mcp.build.account import offered
    from fastn_mcp.cli.tools import show

    show(offered(start.keyless()), as_json=as_json)


@cli.command(name="sandbox")
@click.option("--port", type=click.IntRange(1, 65535), default=8765, show_default=True, help="Port on 127.0.0.1.")
@click.option("--file", type=click.Path(path_type=Path), help="Keep the state in this file.")
@click.option("--guise", type=_GUISE, default="usual", show_default=True, help="How it differs, for doctor to find.")
def sandbox_(port: int, file: Path | None, guise: str) -> None:
    """Serve the sandbox over HTTP, for others to test against."""
    from fastn_mcp.cli.sandbox import serve

    serve(port, file, guise)


@cli.command(name="health")
@click.argument("address", metavar="[HOST:PORT]", envvar="FASTN_HTTP", default="")
def health_(address: str) -> None:
    """Ask the server that listens at HOST:PORT whether it serves; by default the one of FASTN_HTTP.

    For the health check of a container. Where neither is given it serves over stdio, and there is nothing to ask.
    """
    from fastn_mcp.cli.health import trouble

    if address and (wrong := trouble(address)):
        raise click.ClickException(f"Not healthy: {wrong}.")
    click.echo("healthy" if address else "Serving over stdio: its client sees whether it lives.")


@cli.command(name="http-token")
@click.option("--header", is_flag=True, help="As JSON of the header that clients send.")
@click.pass_obj
def http_token_(start: StartOptions, header: bool) -> None:
    """Print the bearer token that --http takes on this machine, for clients of yours. Nobody else can read it."""
    import json

    from fastn_mcp.config.keys import known_http_token

    token = known_http_token(start.keyless(), start.state()).value
    click.echo(json.dumps({"Authorization": f"Bearer {token}"}) if header else token)


@cli.command(name="demo")
@click.option("--plain", is_flag=True, help="No colour, even on a terminal.")
def demo_(plain: bool) -> None:
    """See the whole of it in half a minute, without an account."""
    from fastn_mcp.cli.demo import run

    raise SystemExit(run(plain=plain))


def _entry(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which `install` and `uninstall` name an entry, and say how to go about it."""
    for decorate in (
        click.option("--dry-run", is_flag=True, help="Show the change, and make none."),
        click.option("--yes", is_flag=True, help="Make the change without asking."),
        click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Another file of that client."),
        click.option("--project", is_flag=True, help="The client's file in this folder, which others read too."),
        click.option("--name", default="fastn", show_default=True, help="What the client calls the server."),
        click.argument("client"),
    ):
        command = decorate(command)
    return command


_INSTALL = """\b
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


@cli.command(name="install", epilog=_INSTALL)
@_entry
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
    help="Start it by uvx, which fetches it, and not by the path of this program.",
)
@click.option("--replace", is_flag=True, help="Put it in place of another entry of that name.")
@click.option("--anyway", is_flag=True, help="Even where the client does not seem to be installed.")
@click.option(
    "--link",
    is_flag=True,
    hidden=not IS_PUBLISHED,
    help="Print links that install it, for web pages. Nothing is changed.",
)
@click.pass_context
def install_(
    ctx: click.Context,
    client: str,
    name: str,
    project: bool,
    file: Path | None,
    yes: bool,
    dry_run: bool,
    sandbox: bool,
    profile: str | None,
    key: Any,
    url: str | None,
    uvx: bool,
    replace: bool,
    anyway: bool,
    link: bool,
) -> None:
    """Put the server into the configuration of CLIENT. What changes is shown first, and never holds a key or a token.

    Options that stand before install are those that the server is started with.
    """
    from fastn_mcp.build.startup import options_of
    from fastn_mcp.cli.install import How, Where, install, show_links

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
        show_links(where, arguments, key=key)
    else:
        install(where, How(yes, dry_run), arguments, url=url, key=key, uvx=uvx, replace=replace, anyway=anyway)
    if (link or uvx) and not IS_PUBLISHED:
        click.echo(f"fastn-mcp: {_UNPUBLISHED}", err=True)


@cli.command(name="uninstall")
@_entry
@click.pass_context
def uninstall_(
    ctx: click.Context, client: str, name: str, project: bool, file: Path | None, yes: bool, dry_run: bool
) -> None:
    """Take the server out of the configuration of CLIENT again.

    If nobody has changed the file since, it is byte for byte what it was; otherwise only our entry goes.
    """
    from fastn_mcp.cli.install import How, Where, uninstall

    if project and file is not None:
        raise click.UsageError("--project names a file, and so does --file. Give one.", ctx)
    uninstall(Where(client, name, project, file), How(yes, dry_run))


@cli.command(name="completion")
@click.argument("shell", type=EnumChoice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> None:
    """Print the completion script of a shell: eval "$(fastn-mcp completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"{shell} is not known")
    click.echo(kind(cli, {}, "fastn-mcp", "_FASTN_MCP_COMPLETE").source())


exampled(cli)


def main() -> None:
    """The program."""
    # Nine tenths of a start is importing; collecting garbage meanwhile finds none and costs a seventh of it.
    gc.disable()
    from fastn_mcp.cli.exit import run

    run(cli)
