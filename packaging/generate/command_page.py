"""What the page of the command line says, made of the commands themselves. The calls of `call` are the tools' pages."""

import re
from collections.abc import Iterator

import click

from fastn_mcp.cli.program import cli
from fastn_mcp.config.model import Settings


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with the words that call it, the program itself first."""
    yield from _below("fastn-mcp", cli, None)


def _below(
    words: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(command, parent, info_name=words.rpartition(" ")[2])
    yield words, command, context
    if isinstance(command, click.Group) and words != "fastn-mcp call":
        for name in command.list_commands(context):
            if (inner := command.get_command(context, name)) is not None:
                yield from _below(f"{words} {name}", inner, context)


def reference() -> str:
    """All commands: what each does, its usage, options, exit codes and examples."""
    return "\n".join(_section(words, command, context) for words, command, context in commands())


def _section(words: str, command: click.Command, context: click.Context) -> str:
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    parts = [f"## {words}\n", *_prose(command.help or ""), f"```text\n{usage}\n```\n"]
    is_program = context.parent is None
    rows = [
        row
        for parameter in command.get_params(context)
        if not (is_program and parameter.name in Settings.model_fields)
        if (row := _option(parameter, context))
    ]
    if rows:
        parts.append("\n".join(["| option | |", "|---|---|", *rows]) + "\n")
    if is_program:
        parts.append("Its other options are [settings](settings.md).\n")
    return "\n".join([*parts, *_prose((command.epilog or "").replace("\nExamples:\n", "\n"))])


def _option(parameter: click.Parameter, context: click.Context) -> str:
    if not isinstance(parameter, click.Option) or "--help" in parameter.opts:
        return ""
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    names, about = (text.replace("|", "\\|") for text in record)
    return f"| `{names}` | {re.sub(_TERMS, _code, about)} |"


_TERMS = r"\[(FASTN_\w+)\]|(--[a-z][a-z-]*)"


def _code(match: re.Match[str]) -> str:
    return f"`{match[1] or match[2]}`"


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; one that click leaves as it is, by its mark, is a block of text."""
    for paragraph in re.split(r"\n\s*\n", _dedented(text)):
        if paragraph.startswith("\b"):
            yield f"```text\n{paragraph.lstrip(chr(8)).strip(chr(10))}\n```\n"
        elif paragraph.strip():
            yield re.sub(_TERMS, _code, " ".join(paragraph.split()).replace("<", "&lt;")) + "\n"


def _dedented(text: str) -> str:
    import inspect

    return inspect.cleandoc(text)
