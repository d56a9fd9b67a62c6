"""Begin and end the program: output streams, one line for an error with what to do instead, exit codes."""

import errno
import os
import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import NoReturn

import click

from fastn_mcp.errors import FastnError, nearest


def run(command: click.Group) -> NoReturn:
    """Run the program. What goes wrong ends with one line that says what to do."""
    _open_streams()
    try:
        status = command.main(prog_name="fastn-mcp", standalone_mode=False)
    except SystemExit as ended:
        raise SystemExit(_written(ended.code, command)) from None
    except FastnError as error:
        _end(2, str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(2) from None
    except click.ClickException as error:
        _end(2 if isinstance(error, click.UsageError) else error.exit_code, _worded(error))
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SystemExit(_lost(error, 1, command)) from None
        if error.filename is None:
            raise
        _end(2, f"{error.filename}: {error.strerror}. Correct the path.")
    except click.Abort as error:
        # Raised by the question itself, or by us for a Ctrl-C elsewhere.
        if error.__cause__ is None:
            _end(130, "No answer. What was asked about was not done.")
        raise SystemExit(130) from None
    raise SystemExit(_written(status, command))


def _end(status: int, said: str) -> NoReturn:
    from fastn_mcp.cli.layout import say  # only where something went wrong: a start pays for each import

    say(f"fastn-mcp: {said}", err=True)
    raise SystemExit(status) from None


def _open_streams() -> None:
    """Open what whoever started us has closed: a file that is opened later would take its place, and be written to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif mode == "w":
            stream.reconfigure(errors="backslashreplace")  # where it is not UTF-8, it does not take every character


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _written(status: object, command: click.Group) -> int:
    """The status, or that of an output that was lost, as on a disk that is full."""
    code = status if isinstance(status, int) else 0
    try:
        sys.stdout.flush()
    except OSError as error:
        return _lost(error, code, command)
    return code


def _lost(error: OSError, code: int, command: click.Group) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails once more while it ends
    if isinstance(error, BrokenPipeError):  # whoever reads has seen enough
        return code
    what = error.filename or "The output"
    from fastn_mcp.build.startup import command_line_of

    start = command.make_context("fastn-mcp", sys.argv[1:], resilient_parsing=True)
    record = command_line_of(start, os.environ).to("audit", "tail")
    said = f"{what} cannot be written: {error.strerror}. What was changed is in the audit log: {record}"
    click.echo(f"fastn-mcp: {said}", err=True)
    return code or 1


def _worded(error: click.ClickException) -> str:
    """In one line, with where to read more."""
    if not isinstance(error, click.UsageError):
        return " ".join(error.format_message().split())
    more = f" See {error.ctx.command_path} --help." if error.ctx else ""
    if error.ctx is not None and isinstance(error, (click.NoSuchCommand, click.NoSuchOption)):
        if isinstance(error, click.NoSuchCommand):
            return _unknown(error.command_name, error.ctx, more)
        return _unknown_option(error.option_name, error.ctx, more)
    said = " ".join(error.format_message().split())
    return (said if said.endswith((".", "?", ":", ")")) else f"{said}.") + more


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


def _unknown(name: str, context: click.Context, more: str = "") -> str:
    """In a sentence or two; `more` is where to read more."""
    from fastn_mcp.procedures.catalog import BY_NAME  # only after a mistake

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


def _unknown_option(option: str, context: click.Context, more: str = "") -> str:
    """Where it should stand, or the nearest that there is."""
    if option in _KEY:
        return (
            f"There is no {option}: other users can read a command line, and the shell records it. Store the key with "
            "fastn-mcp login, or set FASTN_API_KEY. Revoke a key that was given this way."
        )
    root = context.find_root()
    if context is root or all(option not in parameter.opts for parameter in root.command.params):
        options = [*context.command.params, *root.command.params]
        known = [name for parameter in options for name in parameter.opts if name.startswith("--")]
        return f"There is no option {option}{nearest(option, known)}.{more}"
    return f"{option} stands before the command: fastn-mcp {option} ... {context.command_path.partition(' ')[2]} ..."


EXIT_CODES = """\b
Exit codes:
  0  all was done
  1  something failed, or was refused
  2  the command, a setting or the script is wrong: nothing was sent
  3  something waits for a person
  4  an outcome is unknown: it may have happened
  5  a person declined
If several apply to a run, the first of 4, 1, 5, 3 is returned.
"""


class Exit(IntEnum):
    """An exit code."""

    DONE = 0
    FAILED = 1
    WRONG = 2
    WAITING = 3
    UNKNOWN = 4
    DECLINED = 5


_STRONGEST = (Exit.UNKNOWN, Exit.FAILED, Exit.DECLINED, Exit.WAITING, Exit.DONE)
_OF_OUTCOME = {
    **dict.fromkeys(("done", "previewed", "left"), Exit.DONE),
    "approval_required": Exit.WAITING,
    "unknown_outcome": Exit.UNKNOWN,
    "declined": Exit.DECLINED,
}


def exit_of(outcome: str) -> Exit:
    """The code of one outcome. One that was done but came back unreadable has failed: somebody has to look."""
    return _OF_OUTCOME.get(outcome, Exit.FAILED)


def strongest(outcomes: Iterable[str]) -> Exit:
    """The code of several."""
    found = {exit_of(outcome) for outcome in outcomes}
    return next((code for code in _STRONGEST if code in found), Exit.DONE)
