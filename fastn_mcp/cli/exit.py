"""Start and end of the program: output streams, one-line error messages, exit codes."""

import errno
import os
import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import NoReturn

import click

from fastn_mcp.errors import FastnError, nearest


class WrongArgument(click.ClickException):
    """An argument has a wrong value, for a reason that the command's help does not say."""

    exit_code = 2


def run(command: click.Group) -> NoReturn:
    """Run the program and exit. An error is printed as one line that says what to do."""
    _open_streams()
    try:
        status = command.main(prog_name="fastn-mcp", standalone_mode=False)
    except SystemExit as ended:
        raise SystemExit(_flush_output(ended.code, command)) from None
    except FastnError as error:
        _end(2, str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(2) from None
    except click.ClickException as error:
        _end(2 if isinstance(error, click.UsageError) else error.exit_code, _format_error(error))
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SystemExit(_output_failed(error, 1, command)) from None
        if error.filename is None:
            raise
        _end(2, f"{error.filename}: {error.strerror}. Correct the path.")
    except click.Abort as error:
        # Click raises it without a cause in a prompt, and with one for a Ctrl-C elsewhere.
        if error.__cause__ is None:
            _end(130, f"Cancelled. {str(error) or 'This step was not done.'}")
        raise SystemExit(130) from None
    raise SystemExit(_flush_output(status, command))


def _end(status: int, message: str) -> NoReturn:
    from fastn_mcp.cli.layout import warn  # only after an error: each import slows the start

    warn(message)
    raise SystemExit(status) from None


def _open_streams() -> None:
    """Reopen streams that the parent closed: the next opened file would take their descriptor, and our output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif mode == "w":
            stream.reconfigure(errors="backslashreplace")  # other encodings than UTF-8 lack characters


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _flush_output(status: object, command: click.Group) -> int:
    """Flush the output, and return the exit code: not 0 if the output was lost, as on a full disk."""
    code = status if isinstance(status, int) else 0
    try:
        sys.stdout.flush()
    except OSError as error:
        return _output_failed(error, code, command)
    return code


def _output_failed(error: OSError, code: int, command: click.Group) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails again when it flushes at exit
    if isinstance(error, BrokenPipeError):  # the reader closed the pipe
        return code
    what = error.filename or "The output"
    from fastn_mcp.build.startup import command_line_of

    start = command.make_context("fastn-mcp", sys.argv[1:], resilient_parsing=True)
    record = command_line_of(start, os.environ).to("audit", "tail")
    message = f"{what} cannot be written: {error.strerror}. The changes made are in the audit log: {record}"
    click.echo(f"fastn-mcp: {message}", err=True)
    return code or 1


def _format_error(error: click.ClickException) -> str:
    """Format a click error in one line, with a hint to --help."""
    if not isinstance(error, click.UsageError):
        return " ".join(error.format_message().split())
    more = f" See {error.ctx.command_path} --help." if error.ctx else ""
    if error.ctx is not None and isinstance(error, (click.NoSuchCommand, click.NoSuchOption)):
        if isinstance(error, click.NoSuchCommand):
            return _unknown_command(error.command_name, error.ctx, more)
        return _unknown_option(error.option_name, error.ctx, more)
    message = " ".join(error.format_message().split())
    return (message if message.endswith((".", "?", ":", "?)")) else f"{message}.") + more


_KEY_OPTIONS = {"--api-key", "--apikey", "--api_key", "--key", "--token"}


def _unknown_command(name: str, context: click.Context, more: str) -> str:
    """Message for an unknown command or tool; `more` is the hint to --help."""
    from fastn_mcp.procedures.catalog import TOOLS  # only after an error

    group = context.command
    known = group.list_commands(context) if isinstance(group, click.Group) else []
    if context.command_path.endswith(" call"):
        return f"There is no tool {name!r}{nearest(name, known)}.{more}"
    tools = [tool.replace("_", "-") for tool in TOOLS]
    tool = name.replace("_", "-")
    if context.parent is None and tool in tools:
        sandbox = "--sandbox " if context.params.get("sandbox") else ""
        return f"{name} is a tool, not a command: fastn-mcp {sandbox}call {tool}.{more}"
    return f"There is no command {name!r}{nearest(name, known)}.{more}"


def _unknown_option(option: str, context: click.Context, more: str) -> str:
    """Message for an unknown option: its correct position, or the nearest option."""
    if option in _KEY_OPTIONS:
        return (
            f"There is no {option}: other users can read a command line, and the shell records it. Store the key with "
            "fastn-mcp login, or set FASTN_API_KEY. Revoke a key that was passed this way."
        )
    from fastn_mcp.config.model import REMOVED  # only after an error

    removed = option.removeprefix("--").replace("-", "_")
    if removed in REMOVED:
        return f"The option {option} was removed. {REMOVED[removed]}"
    known = context.command.get_params(context)
    group = context
    while (parent := group.parent) is not None:
        inner = context.command_path.removeprefix(parent.command_path)
        group = parent
        options = group.command.get_params(group)
        if any(option in parameter.opts for parameter in options):
            return f"{option} goes before the command: {group.command_path} {option} ...{inner} ..."
        known = [*known, *options]
    names = [name for parameter in known for name in parameter.opts if name.startswith("--")]
    return f"There is no option {option}{nearest(option, names)}.{more}"


EXIT_CODES = """\b
Exit codes:
  0  everything succeeded
  1  something failed, or was refused
  2  the command, a setting or the script is wrong: nothing was sent
  3  a call is waiting for approval
  4  an outcome is unknown: it may have happened
  5  a person declined
If several apply to a run, the first of 4, 1, 5, 3 is returned.
"""


class Exit(IntEnum):
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
    """Return the code of one outcome. A call made with an unreadable result has failed: someone has to look."""
    return _OF_OUTCOME.get(outcome, Exit.FAILED)


def strongest(outcomes: Iterable[str]) -> Exit:
    """Return the code of several outcomes, by the precedence in `EXIT_CODES`."""
    codes = {exit_of(outcome) for outcome in outcomes}
    return next((code for code in _STRONGEST if code in codes), Exit.DONE)
