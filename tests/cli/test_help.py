"""Every command's help ends with commands that can be run as they are."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_page import commands
from support.command_line import Run

from fastn_mcp.cli.program import cli
from fastn_mcp.procedures.catalog import TOOLS

ALL = {words: command for words, command, _ in commands()}
BELOW = {words: command for words, command in ALL.items() if words != "fastn-mcp"}


def examples(help_text: str) -> list[str]:
    """Return the lines of a help text that are commands."""
    _, _, lines = help_text.partition("Examples:\n")
    lines = re.sub(r" \\\n +", " ", lines)
    return [line.partition(" #")[0].strip() for line in lines.splitlines() if line.strip()]


def help_of(words: list[str]) -> str:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(cli, [*words, "--help"], terminal_width=80)
    assert done.exit_code == 0, done.output
    return done.output


def parsed(line: str) -> click.Command:
    """Return the command that a line would start. Raises `UsageError` if there is none."""
    program, *rest = shlex.split(line.partition(" | ")[0].partition(" > ")[0])
    assert program == "fastn-mcp", line
    found: click.Command = cli
    context = click.Context(cli, info_name=program, **cli.context_settings)
    while isinstance(found, click.Group) and rest:
        _, rest, _ = found.make_parser(context).parse_args(args=list(rest))
        if not rest:
            break
        name, inner, rest = found.resolve_command(context, rest)
        assert inner is not None
        if rest == ["--help"]:
            return inner
        context = inner.make_context(name, list(rest), context, resilient_parsing=isinstance(inner, click.Group))
        found = context.command
    context.close()
    return found


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    for name in ("calls.jsonl", "plan.toml", "policy.toml", "audit.jsonl", "token"):
        (tmp_path / name).touch()


DEMO = pytest.param("fastn-mcp demo", marks=pytest.mark.extension("install"))
"""Its help ends with how to install the server."""


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("words", [DEMO if words in DEMO.values else words for words in BELOW])
def test_help_of_every_command_ends_with_valid_examples(words: str) -> None:
    """Every command's help says what to do next. A new command gets a line in `cli/help.py`."""
    text = help_of(words.split()[1:])
    assert max(map(len, text.partition("Examples:")[0].splitlines())) <= 80, "a terminal breaks it in mid-word"
    assert all(option.help for option in BELOW[words].params if isinstance(option, click.Option))
    lines = examples(text)
    assert lines, f"{words} has no example"
    for line in lines:
        inner = line.removeprefix('eval "$(').removesuffix(')"')
        assert parsed(inner).name is not None
    assert any(line.removeprefix('eval "$(').startswith("fastn-mcp ") for line in lines)


RUNNABLE = re.compile(r"fastn-mcp (--sandbox (call|policy explain)|tools|completion|approvals temporary)")
"""Examples that change nothing, need no account and end by themselves. Those of tools are run with their output."""


def test_examples_that_change_nothing_work(fastn: Run) -> None:
    lines = {line for words in BELOW for line in examples(help_of(words.split()[1:])) if RUNNABLE.match(line)}
    assert len(lines) >= 6
    for line in lines:
        done = fastn(*shlex.split(line.partition(" > ")[0])[1:])
        assert done.returncode == 0, (line, done.stderr)


def test_long_lists_of_options_are_grouped() -> None:
    for words, command in BELOW.items():
        options = [option for option in command.params if isinstance(option, click.Option)]
        text = help_of(words.split()[1:])
        headings = re.findall(r"^([A-Z][\w ]+):$", text, re.MULTILINE)
        assert len(options) < 10 or len([name for name in headings if name != "Commands"]) > 1, words
        assert text.index("Options:") == min(text.index(f"{name}:") for name in headings), words


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_an_example_that_changes_nothing(name: str) -> None:
    text = help_of(["call", name.replace("_", "-")])
    assert max(map(len, text.splitlines())) <= 80, "a terminal breaks it in mid-word"
    (line,) = examples(text)
    assert line.startswith(f"fastn-mcp --sandbox call {name.replace('_', '-')}")
    assert ("--dry-run" in line) == TOOLS[name].previews()


@pytest.mark.parametrize("words", [words for words, command in ALL.items() if isinstance(command, click.Group)])
def test_descriptions_in_command_lists_are_not_cut(words: str) -> None:
    if words == "fastn-mcp call":
        return
    text = help_of(words.split()[1:])
    listed = text.partition("Options:")[0] if words == "fastn-mcp" else text.partition("Commands:")[2]
    assert "..." not in listed.replace("[ARGS]...", "")


def test_program_help_lists_every_command_in_a_group_before_the_options() -> None:
    groups = help_of([]).partition("Options:")[0].split("\n\n")[-5:]
    listed = {part.split(":")[0]: re.findall(r"^  ([a-z-]+)  ", part, re.MULTILINE) for part in groups if ":\n" in part}
    assert list(listed) == ["Start", "Use", "Approvals and record", "Serve"]
    names = [name for group in listed.values() for name in group]
    assert sorted([*names, "health"]) == cli.list_commands(click.Context(cli))
    assert "health" not in help_of([])


@pytest.mark.extension("install")
def test_program_help_says_how_to_start() -> None:
    text = help_of([])
    for line in ("fastn-mcp demo", "fastn-mcp --sandbox call list-customers", "fastn-mcp install cursor --sandbox"):
        assert line in text
        parsed(line)
