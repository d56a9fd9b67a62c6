"""What is said of a command that there is not: the nearest, or that it is a tool."""

import click

from fastn_mcp.nearest import nearest
from fastn_mcp.procedures.catalog import BY_NAME


def unknown(name: str, context: click.Context) -> str:
    """In one sentence, or two."""
    group = context.command
    known = group.list_commands(context) if isinstance(group, click.Group) else []
    if context.command_path.endswith(" call"):
        return f"There is no tool {name!r}{nearest(name.replace('_', '-'), known)}."
    tools = [tool.replace("_", "-") for tool in BY_NAME]
    if context.parent is None and (tool := name.replace("_", "-")) in tools:
        return f"{name} is a tool and no command: fastn-mcp call {tool}."
    return f"There is no command {name!r}{nearest(name, known)}."
