"""Suggestions for an unknown command or option: the nearest, where it belongs, or what to do instead."""

import click

from fastn_mcp.errors import nearest
from fastn_mcp.procedures.catalog import BY_NAME

_MEANT = {
    "help": "fastn-mcp --help",
    "version": "fastn-mcp --version",
    **dict.fromkeys(
        ("serve", "server", "start", "stdio", "mcp"),
        "fastn-mcp, which alone serves a client over stdio; with --http, over HTTP",
    ),
    **dict.fromkeys(("init", "setup", "configure", "auth"), "fastn-mcp login, then fastn-mcp install CLIENT"),
}
"""What other programs call it."""

_KEY = {"--api-key", "--apikey", "--api_key", "--key", "--token"}


def unknown(name: str, context: click.Context, more: str = "") -> str:
    """In a sentence or two; `more` is where to read more."""
    group = context.command
    known = group.list_commands(context) if isinstance(group, click.Group) else []
    if context.command_path.endswith(" call"):
        return f"There is no tool {name!r}{nearest(name, known)}.{more}"
    tools = [tool.replace("_", "-") for tool in BY_NAME]
    if context.parent is None and (tool := name.replace("_", "-")) in tools:
        sandbox = "--sandbox " if context.params.get("sandbox") else ""
        return f"{name} is a tool and no command: fastn-mcp {sandbox}call {tool}.{more}"
    if context.parent is None and (meant := _MEANT.get(name)) is not None:
        return f"There is no command {name!r}. Run: {meant}"
    return f"There is no command {name!r}{nearest(name, known)}.{more}"


def unknown_option(option: str, context: click.Context, more: str = "") -> str:
    """Where it should stand, or the nearest that there is."""
    if option in _KEY:
        return (
            f"There is no {option}: others can read a command line, and the shell remembers it. Keep the key by "
            "fastn-mcp login, or set FASTN_API_KEY. One that was given just now is better revoked."
        )
    root = context.find_root()
    if context is root or all(option not in parameter.opts for parameter in root.command.params):
        options = [*context.command.params, *root.command.params]
        known = [name for parameter in options for name in parameter.opts if name.startswith("--")]
        return f"There is no option {option}{nearest(option, known)}.{more}"
    return f"{option} stands before the command: fastn-mcp {option} ... {context.command_path.partition(' ')[2]} ..."
