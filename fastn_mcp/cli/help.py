"""Commands of the program: module, short help and examples of each."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from typing_extensions import override

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class CommandEntry(NamedTuple):
    """A command's `module:attribute` below `fastn_mcp`, imported on demand, and its short help."""

    place: str
    short: str
    hidden: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether it is the core's, or its extension is installed."""
        packages = self.place.split(".")[:2]
        return packages[0] != "extensions" or find_spec(f"fastn_mcp.{'.'.join(packages)}") is not None

    def load(self, name: str) -> click.Command:
        """Import it. Raises `SettingsError` if it is of an extension that is not installed."""
        module, _, attribute = self.place.partition(":")
        room, _, inner = module.partition(".")
        imported: Any
        if room == "extensions":
            from fastn_mcp.build.extensions import opened  # deferred import: the core's own commands do not need it

            extension, _, inner = inner.partition(".")
            imported = opened(extension, inner, f"{name} is a command of an extension")
        else:
            imported = import_module(f"fastn_mcp.{module}")
        command: click.Command = getattr(imported, attribute)
        return command


COMMANDS: Mapping[str, Mapping[str, CommandEntry]] = {
    "Start": {
        "demo": CommandEntry("extensions.sandbox.demo:demo", "Watch a 30-second demonstration, without an account."),
        "setup": CommandEntry("extensions.install.command:setup", "Connect the MCP clients of this machine."),
        "install": CommandEntry("extensions.install.command:install", "Add the server to CLIENT, by its own command."),
        "uninstall": CommandEntry("extensions.install.command:uninstall", "Remove the server from CLIENT."),
        "login": CommandEntry("cli.accounts:login", "Ask for an account's API key, check it, and store it."),
        "logout": CommandEntry("cli.accounts:logout", "Delete a stored key."),
        "whoami": CommandEntry(
            "cli.accounts:whoami", "Show which account and key are used, and whether the key works."
        ),
        "profiles": CommandEntry("cli.accounts:profiles", "List the accounts in the configuration file."),
        "doctor": CommandEntry(
            "extensions.doctor.command:doctor", "Check settings, network, key and operations on your account."
        ),
        "completion": CommandEntry("cli.help:completion", "Print a shell's completion script."),
        "help": CommandEntry("cli.help:help_", "Show the help of a command."),
    },
    "Use": {
        "call": CommandEntry("cli.call:call", "Make one call; asks at the terminal if it needs approval."),
        "query": CommandEntry("cli.query:query", "Answer a question about the account with one SQL statement."),
        "run": CommandEntry("cli.run:run", "Make the calls of a file, without a model."),
        "tools": CommandEntry("cli.call:tools", "List the enabled tools, with effect, route and evidence."),
    },
    "Approvals and record": {
        "approvals": CommandEntry(
            "cli.approvals:approvals_group", "List the calls that wait for approval, and decide on them."
        ),
        "stop": CommandEntry("cli.stop:stop", "Stop all changes by all agents immediately."),
        "allow": CommandEntry("cli.stop:allow", "Allow changes again after a stop."),
        "policy": CommandEntry("cli.policy:policy_group", "Check a policy file, and explain its decision on a call."),
        "plan": CommandEntry("cli.plan:plan_group", "Write, review and sign plans for unattended runs."),
        "audit": CommandEntry("cli.audit:audit_group", "Read and verify the audit log."),
    },
    "Serve": {
        "sandbox": CommandEntry(
            "extensions.sandbox.command:sandbox", "Serve the sandbox over HTTP, for others to test against."
        ),
        "init-team": CommandEntry(
            "extensions.team.init_team:init_team", "Create the team file and secrets of a team server."
        ),
        "http-token": CommandEntry("cli.serve:http_token", "Print the bearer token that --http accepts."),
        "health": CommandEntry("cli.health:health", "Check that an HTTP server is healthy.", hidden=True),
    },
}
"""Commands by group, in the order in which a user needs them. A hidden command is for containers."""

_ENTRIES = {name: entry for group in COMMANDS.values() for name, entry in group.items()}


def completing(values: Callable[[click.Context], Iterable[str]]) -> Callable[..., list[str]]:
    """Return the `shell_complete` of a parameter that takes other values too. It shows no error to the shell."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        from fastn_mcp.errors import FastnError

        with suppress(FastnError, OSError):
            return [value for value in values(ctx) if value.startswith(incomplete)]
        return []

    return complete


class EnumChoice(click.Choice[str]):
    """Choice whose error message suggests the nearest value."""

    @override
    def get_invalid_choice_message(self, value: str, ctx: click.Context | None) -> str:
        from fastn_mcp.errors import nearest

        return f"unknown value {value!r}{nearest(value, self.choices)}. Use one of {', '.join(self.choices)}."


class GroupedOption(click.Option):
    """Option that is listed under a heading of its own."""

    def __init__(self, *declarations: Any, group: str = "Options", **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.group = group


class OptionGroups(click.Command):
    """Command whose help lists its options under their headings."""

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}  # its own first
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(option, "group", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


COLORS = {"auto": None, "always": True, "never": False}


def _set_color(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
    """Apply --color, or else NO_COLOR, to everything that the command prints."""
    if value is not None:
        ctx.color = COLORS[value]
    if os.environ.get("NO_COLOR") and value in (None, "auto") and not ctx.color:
        ctx.color = False
    return value


COLOR: Mapping[str, Any] = {
    "type": EnumChoice(list(COLORS)),
    "expose_value": False,
    "callback": _set_color,
    "help": "Use colour; auto (default): on a terminal, unless NO_COLOR is set.",
}
"""Attributes of the option --color, of the program and of each call."""


class GroupedCommands(OptionGroups, click.Group):
    """Group of all `COMMANDS`. Its help lists them under their headings, before the options."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for name, entry in _ENTRIES.items() if entry.is_installed)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ENTRIES and cmd_name not in self.commands:
            entry = _ENTRIES[cmd_name]
            command = entry.load(cmd_name)
            command.short_help = entry.short
            command.hidden = entry.hidden
            self.commands[cmd_name] = _with_examples(command, cmd_name)
        return self.commands.get(cmd_name)

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, entries in COMMANDS.items():
            with formatter.section(heading):
                shown = {name: entry for name, entry in entries.items() if entry.is_installed and not entry.hidden}
                formatter.write_dl([(name, entry.short) for name, entry in shown.items()])
        super().format_options(ctx, formatter)

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete) and not _ENTRIES[name].hidden]
        items = [CompletionItem(name, help=_ENTRIES[name].short) for name in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


@click.command(name="completion")
@click.argument("shell", type=EnumChoice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell: eval "$(fastn-mcp completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"{shell} is not known")
    click.echo(kind(ctx.find_root().command, {}, "fastn-mcp", "_FASTN_MCP_COMPLETE").source())


@click.command(name="help")
@click.argument("command", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of a command, as its option --help does; without one, of the program."""
    context = ctx.find_root()
    for name in command:
        group = context.command
        inner = group.get_command(context, name) if isinstance(group, click.Group) else None
        if inner is None:
            raise click.NoSuchCommand(name, ctx=context)
        context = click.Context(inner, parent=context, info_name=name)
    click.echo(context.get_help(), color=ctx.color)


_EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "allow": ("fastn-mcp allow",),
    "approvals": ("fastn-mcp approvals", "fastn-mcp approvals --open      # on the approval page instead"),
    "approvals keygen": ("fastn-mcp approvals keygen dana      # prints two lines for approvers.toml",),
    "approvals revoke": ("fastn-mcp approvals temporary", "fastn-mcp approvals revoke ap_3f2c   # a prefix"),
    "approvals temporary": ("fastn-mcp approvals temporary",),
    "approvals withdraw": ("fastn-mcp approvals withdraw", "fastn-mcp approvals withdraw ap_3f2c   # a prefix"),
    "audit": ("fastn-mcp audit tail", "fastn-mcp audit verify"),
    "audit report": ("fastn-mcp audit report --since 24h", "fastn-mcp audit report --since 7d --output week.json"),
    "audit show": ("fastn-mcp audit tail", "fastn-mcp audit show 12      # a number from that list"),
    "audit tail": ("fastn-mcp audit tail -n 50", "fastn-mcp audit tail --follow"),
    "audit verify": ("fastn-mcp audit verify", "fastn-mcp audit verify --head HASH      # saved elsewhere"),
    "query": (
        "fastn-mcp --sandbox query",
        'fastn-mcp --sandbox query "select name, plan from customers" --csv',
    ),
    "call": (
        "fastn-mcp --sandbox call get-overview",
        'fastn-mcp --sandbox call find "tiktok sync"',
        "fastn-mcp --sandbox call list-executions --status failed --limit 3",
        "fastn-mcp call delete-customer --help      # its arguments",
    ),
    "completion": ("fastn-mcp completion fish > ~/.config/fish/completions/fastn-mcp.fish",),
    "demo": ("fastn-mcp demo", "fastn-mcp install claude-code --sandbox      # the same in a client"),
    "doctor": (
        "fastn-mcp doctor",
        "fastn-mcp doctor --report doctor.md",
        "fastn-mcp doctor --team team.toml --token-file token",
    ),
    "help": ("fastn-mcp help login", "fastn-mcp help call find"),
    "health": ("fastn-mcp health 127.0.0.1:8080",),
    "init-team": (
        "fastn-mcp init-team deploy --url https://fastn-mcp.example.com/mcp --issuer https://login.example.com",
        "fastn-mcp init-team deploy      # again, for file modes",
    ),
    "http-token": ("fastn-mcp http-token", "fastn-mcp --sandbox http-token --header"),
    "login": ("fastn-mcp login", "fastn-mcp login acme --file", "fastn-mcp whoami      # does it work?"),
    "logout": ("fastn-mcp logout", "fastn-mcp logout acme", "fastn-mcp logout --all"),
    "plan": (
        "fastn-mcp plan new calls.jsonl --output plan.toml",
        "fastn-mcp plan approve plan.toml --as dana",
        "fastn-mcp --mode unattended --plan plan.toml run calls.jsonl",
    ),
    "plan approve": ("fastn-mcp plan approve plan.toml --as dana      # read it first: plan show",),
    "plan new": ("fastn-mcp plan new calls.jsonl --name nightly --output plan.toml",),
    "plan show": ("fastn-mcp plan show plan.toml", "fastn-mcp plan approve plan.toml --as dana"),
    "plan verify": ("fastn-mcp plan verify plan.toml",),
    "policy": (
        "fastn-mcp policy check policy.toml",
        "fastn-mcp --sandbox policy explain run_workflow workflow_id=wf_b5880b29eb25",
    ),
    "policy check": ("fastn-mcp policy check policy.toml",),
    "policy explain": (
        "fastn-mcp --sandbox policy explain run_workflow workflow_id=wf_b5880b29eb25",
        "fastn-mcp policy explain delete_customer customer_id=ID --file policy.toml",
    ),
    "policy test": ("fastn-mcp policy test policy-cases.toml --file policy.toml",),
    "profiles": ("fastn-mcp profiles", "fastn-mcp --profile acme whoami"),
    "run": ("fastn-mcp --sandbox run calls.jsonl --dry-run", "fastn-mcp run calls.jsonl --report night.json"),
    "sandbox": ("fastn-mcp sandbox      # prints how to call it", "fastn-mcp sandbox --port 9000 --file account.json"),
    "setup": ("fastn-mcp setup", "fastn-mcp setup --sandbox --yes      # without a terminal"),
    "stop": ('fastn-mcp stop --reason "agent went wrong"', "fastn-mcp stop --person ana@example.com"),
    "tools": ("fastn-mcp tools", "fastn-mcp call delete-customer --help      # its arguments"),
    "uninstall": ("fastn-mcp uninstall claude-code",),
    "whoami": ("fastn-mcp whoami", "fastn-mcp --profile acme whoami --json"),
}


def format_examples(*lines: str) -> str:
    """Format examples as the last paragraph of a help text, which click does not wrap."""
    return "\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines)


def _with_examples(command: click.Command, path: str) -> click.Command:
    """Add examples to the epilogs of a command and its subcommands; `path` is how it is called."""
    lines = format_examples(*_EXAMPLES[path]) if path in _EXAMPLES else ""
    if lines and lines not in (command.epilog or ""):
        command.epilog = f"{command.epilog}\n{lines}" if command.epilog else lines
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            _with_examples(inner, f"{path} {name}")
    return command
