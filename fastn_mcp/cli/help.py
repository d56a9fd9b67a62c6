"""Help texts of commands: their groups, short lines and examples.

One table for all commands, which a test holds complete. Pure.
"""

from collections.abc import Mapping

import click
from typing_extensions import override

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Start": ("demo", "install", "uninstall", "login", "logout", "whoami", "profiles", "doctor", "completion"),
    "Use": ("call", "run", "tools"),
    "Approvals and record": ("approvals", "policy", "plan", "audit"),
    "Serve": ("sandbox", "http-token"),
}
"""The commands in the program's help, in the order in which somebody needs them."""

_HIDDEN = ("health",)
"""Commands for containers, which the help of the program leaves out."""


class GroupedCommands(click.Group):
    """A program whose help lists its commands by groups, before its options."""

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in _GROUPS.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            width = formatter.width - 6 - max(len(name) for names in _GROUPS.values() for name in names)
            with formatter.section(heading):
                formatter.write_dl([(name, command.get_short_help_str(width)) for name, command in commands])
        click.Command.format_options(self, ctx, formatter)


_SHORT: Mapping[str, str] = {
    "call": "Make one call; it asks at the terminal where it has to.",
    "login": "Ask for an account's API key, try it, and keep it.",
    "logout": "Forget a key that login has kept.",
    "whoami": "Say which account and key are used, and whether the key works.",
    "doctor": "Check settings, network, key and operations against your account.",
    "run": "Make the calls of a file, without a model.",
    "health": "Ask a server that listens over HTTP whether it serves.",
    "completion": "Print the completion script of a shell.",
    "http-token": "Print the bearer token that --http takes.",
    "profiles": "See the accounts of the configuration file, and change them.",
    "approvals keygen": "Make the key pair of an approver, for the webhook.",
    "audit show": "All of one entry, and what belongs to the same call.",
    "audit report": "What was done, refused, declined and left.",
    "plan show": "Say in words what a plan allows.",
    "plan verify": "Check that a plan is signed, unchanged and in time.",
    "policy explain": "Say what the policy makes of a call, and why.",
    "profiles remove": "Remove an account from the configuration file.",
}
"""Where the first sentence of the help is too long for a list."""

_EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "approvals": ("fastn-mcp approvals", "fastn-mcp approvals --open      # on the approval page instead"),
    "approvals keygen": ("fastn-mcp approvals keygen dana      # prints two lines for approvers.toml",),
    "approvals revoke": ("fastn-mcp approvals scopes", "fastn-mcp approvals revoke 3f2c      # as one begins"),
    "approvals scopes": (
        "fastn-mcp approvals scopes",
        "fastn-mcp approvals revoke 3f2c      # end one",
    ),
    "audit": ("fastn-mcp audit tail", "fastn-mcp audit verify"),
    "audit report": ("fastn-mcp audit report --since 24h", "fastn-mcp audit report --since 7d --output week.json"),
    "audit show": ("fastn-mcp audit tail", "fastn-mcp audit show 12      # a number of that list"),
    "audit tail": ("fastn-mcp audit tail -n 50", "fastn-mcp audit tail --follow"),
    "audit verify": ("fastn-mcp audit verify", "fastn-mcp audit verify --head HASH      # noted elsewhere"),
    "call": (
        "fastn-mcp --sandbox call get-overview",
        "fastn-mcp --sandbox call list-executions --status failed --limit 3",
        "fastn-mcp call delete-customer --help      # the arguments of one",
    ),
    "completion": (
        'eval "$(fastn-mcp completion bash)"',
        "fastn-mcp completion fish > ~/.config/fish/completions/fastn-mcp.fish",
    ),
    "demo": ("fastn-mcp demo", "fastn-mcp install claude-code --sandbox      # the same in a client"),
    "doctor": (
        "fastn-mcp doctor",
        "fastn-mcp doctor --report doctor.md --write ~/.config/fastn-mcp/config.toml",
    ),
    "health": ("fastn-mcp health 127.0.0.1:8080",),
    "http-token": ("fastn-mcp http-token", "fastn-mcp --sandbox http-token --header"),
    "login": (
        "fastn-mcp login",
        "fastn-mcp login acme --file",
        "fastn-mcp whoami      # afterwards: which key is used, and whether it works",
    ),
    "logout": ("fastn-mcp logout", "fastn-mcp logout acme"),
    "plan": (
        "fastn-mcp plan new calls.jsonl --output plan.toml",
        "fastn-mcp plan approve plan.toml --as dana",
        "fastn-mcp --mode unattended --plan plan.toml run calls.jsonl",
    ),
    "plan approve": (
        "fastn-mcp plan approve plan.toml --as dana",
        "fastn-mcp --mode unattended --plan plan.toml run calls.jsonl",
    ),
    "plan new": (
        "fastn-mcp plan new calls.jsonl --name nightly --output plan.toml",
        "fastn-mcp plan approve plan.toml --as dana      # read it first: plan show",
    ),
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
    "policy simulate": ("fastn-mcp policy simulate --audit audit.jsonl --file policy.toml",),
    "profiles": ("fastn-mcp profiles add acme --env live", "fastn-mcp login acme", "fastn-mcp --profile acme whoami"),
    "profiles add": ("fastn-mcp profiles add acme --env live", "fastn-mcp login acme      # its key"),
    "profiles remove": ("fastn-mcp profiles remove acme",),
    "profiles use": ("fastn-mcp profiles use acme", "fastn-mcp whoami"),
    "run": ("fastn-mcp --sandbox run calls.jsonl --dry-run", "fastn-mcp run calls.jsonl --report night.json"),
    "sandbox": ("fastn-mcp sandbox      # it says how to call it", "fastn-mcp sandbox --port 9000 --file account.json"),
    "tools": ("fastn-mcp tools", "fastn-mcp call delete-customer --help      # the arguments of one"),
    "uninstall": ("fastn-mcp uninstall cursor --dry-run", "fastn-mcp uninstall claude-code"),
    "whoami": ("fastn-mcp whoami", "fastn-mcp --profile acme whoami --json"),
}


def lines_of(*lines: str) -> str:
    """The last paragraph of a help text, as click leaves it alone."""
    return "\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines)


def exampled(group: click.Group, words: str = "") -> click.Group:
    """The group, whose commands have their lines of the tables; `words` are those that call it."""
    _give(group, words)
    if isinstance(group, GroupedCommands):
        for name in _HIDDEN:
            group.commands[name].hidden = True
    for name, command in group.commands.items():
        _give(command, f"{words} {name}".strip())
    return group


def _give(command: click.Command, words: str) -> None:
    command.short_help = _SHORT.get(words, command.short_help)
    lines = lines_of(*_EXAMPLES[words]) if words in _EXAMPLES else ""
    if lines and lines not in (command.epilog or ""):
        command.epilog = f"{command.epilog}\n{lines}" if command.epilog else lines
