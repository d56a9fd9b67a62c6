"""`fastn-mcp run SCRIPT`: a list of calls through the guard, without a model."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import click

from fastn_mcp.build.account import AccountParts
from fastn_mcp.cli import StartOptions
from fastn_mcp.cli.call import CallOutcome, make_call
from fastn_mcp.cli.exit import EXIT_CODES, Exit, strongest
from fastn_mcp.cli.layout import say
from fastn_mcp.cli.serve import Reporting
from fastn_mcp.errors import FastnError, NotSent, SettingsError, nearest
from fastn_mcp.procedures.catalog import ParsedCall, parse
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report.collector import DONE, LEFT, PREVIEWED, UNKNOWN, Attempt, OutcomeGroup, Tally, group_of
from fastn_mcp.report.writer import moment, readable
from fastn_mcp.server.rendering import failed, with_dashboard
from fastn_mcp.tools.tool import AnyTool, Effect

_LARGEST = 32 * 1024 * 1024
"""Bytes of a script."""

_NAMED = 20
"""Errors that are named before the rest is counted."""

MOST = 10_000
"""Calls in one script."""

_KEYS = ("tool", "arguments", "id")
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a script. `id` is the caller's own name for it."""

    number: int
    line: int
    id: str | None
    wanted: ParsedCall

    @property
    def tool(self) -> AnyTool:
        return type(self.wanted.call)


@dataclass
class ScriptRun:
    """A run as far as it has come."""

    parts: AccountParts
    tally: Tally
    as_json: bool
    outcomes: list[str] = field(default_factory=list[str])
    signal: int | None = None

    async def make(self, calls: list[ScriptCall], *, keep_going: bool, dry_run: bool) -> None:
        """Make the calls in order, until one is not done or a signal ends the run."""
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                tasks.start_soon(self._stop_on_signal, tasks.cancel_scope)
            try:
                stopped = False
                for call in calls:
                    made = CallOutcome(LEFT) if stopped else await self._make(call, dry_run=dry_run)
                    self.end(call, made)
                    stopped = stopped or not (made.outcome in (DONE, PREVIEWED) or keep_going or dry_run)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.parts.aclose()
            tasks.cancel_scope.cancel()

    async def _stop_on_signal(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.signal = number
                scope.cancel()
                return

    async def _make(self, call: ScriptCall, *, dry_run: bool) -> CallOutcome:
        self.tally.begin_step(call.number)
        wanted = call.wanted
        try:
            return await make_call(self.parts, wanted, dry_run=dry_run and wanted.call.previews())
        except FastnError as error:
            body = with_dashboard(failed(error.data()), wanted.call, self.parts.dispatch.dashboard_url)
            return CallOutcome(error.outcome, str(error), body)

    def interrupted(self, call: ScriptCall) -> CallOutcome:
        """What became of a call when the run was stopped: the one that was being made may have happened."""
        known = self.tally.of_step(call.number)
        if any(attempt.group is OutcomeGroup.UNKNOWN for attempt in known):
            return CallOutcome(UNKNOWN, "The run was stopped before the answer came: it may have happened.")
        if known:
            return CallOutcome(known[-1].outcome, "The run was stopped meanwhile.")
        return CallOutcome(LEFT)

    def end(self, call: ScriptCall, made: CallOutcome) -> None:
        """Record what became of a call, and print it."""
        self.outcomes.append(made.outcome)
        tool, known = call.tool.tool_name(), self.tally.of_step(call.number)
        # The audit knows nothing of a call that it did not see, or that ended otherwise; reads are only counted.
        is_read = call.tool.effect is Effect.READ and made.outcome == DONE
        if not is_read and group_of(made.outcome) not in {attempt.group for attempt in known}:
            self.tally.add(self._attempt(call, made))
        target, name = (known[-1].target, known[-1].name) if known else (call.wanted.call.target, None)
        named = " ".join(quote(part) for part in (name, target) if part is not None)
        line = "  ".join(part for part in (f"{call.number:>3}", tool, named, made.outcome) if part)
        say(sanitize(f"{line}: {made.message}" if made.message else line), err=True)
        if self.as_json:
            body = made.body if made.body is not None else {"message": made.message}
            row = {"number": call.number, "line": call.line, "id": call.id, "tool": tool, "outcome": made.outcome}
            self._print(json.dumps(row | {"result": body}, ensure_ascii=False))

    def _print(self, line: str) -> None:
        try:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()  # whoever reads wants each as it comes
        except BrokenPipeError:
            # The reader has gone; half of a script would be worse than one that nobody watches.
            self.as_json = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo("fastn-mcp: The output was closed. The run continues.", err=True)

    def _attempt(self, call: ScriptCall, made: CallOutcome) -> Attempt:
        now = moment(self.parts.system.now())
        return Attempt(
            now,
            call.tool.tool_name(),
            made.outcome,
            step=call.number,
            settled=now,
            principal="local",
            account=self.parts.about.account,
            target=call.wanted.call.target,
            effect=call.wanted.call.effective.value,
            message=made.message,
        )


@click.command(name="run", epilog=EXIT_CODES)
@click.argument("script", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--report", type=click.Path(path_type=Path), help="Write what was done: FILE as JSON, FILE.md to read.")
@click.option("--keep-going", is_flag=True, help="Continue after a call that was not done.")
@click.option("--dry-run", is_flag=True, help="Preview each change. Nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print each result as a line of JSON.")
@click.pass_obj
def run(start: StartOptions, script: Path, report: Path | None, keep_going: bool, dry_run: bool, as_json: bool) -> int:
    """Make the calls of SCRIPT in order, each by the same path as an agent's; - is the input.

    A line is a call: {"tool": "create_customer", "arguments": {"name": "Acme"}}. With "id" beside them it has a name of
    yours, which --json repeats. Blank lines, and those that begin with #, are passed over. A script with a mistake in
    it is refused before its first call.
    """
    tally = Tally()
    parts = start.parts(tally=tally)
    path = report or parts.settings.report
    named = "the input" if str(script) == "-" else str(script)
    if path is not None and script.resolve() in (path.resolve(), readable(path).resolve()):
        raise SettingsError("The report would be written over the script.", "Name another file with --report.")
    reporting = None if path is None else Reporting(parts, tally, path, named)
    calls, errors = read(_lines(script), {tool.tool_name(): tool for tool in parts.offered})
    if errors:
        for error in errors[:_NAMED]:
            say(sanitize(f"fastn-mcp: {named}, {error}"), err=True)
        more = f" There are {len(errors) - _NAMED} more." if len(errors) > _NAMED else ""
        say(f"fastn-mcp: The script has errors.{more} Nothing was sent.", err=True)
        return Exit.WRONG
    running = ScriptRun(parts, tally, as_json)
    code = Exit.FAILED
    try:
        anyio.run(partial(running.make, calls, keep_going=keep_going, dry_run=dry_run))
    finally:
        for call in calls[len(running.outcomes) :]:
            running.end(call, running.interrupted(call))
        code = strongest([*running.outcomes, *(attempt.outcome for attempt in tally.attempts)])
        found = [attempt.group for attempt in tally.attempts]
        counts = [f"{found.count(group)} {group.value}" for group in OutcomeGroup if group in found]
        say(f"{', '.join(counts) or 'Nothing changed'}; {tally.reads} reads.", err=True)
        if reporting is not None:
            try:
                reporting.write()
            except click.ClickException as error:
                say(f"fastn-mcp: {error.format_message()}", err=True)
                code = code if code is Exit.UNKNOWN else Exit.FAILED
    if running.signal is not None and code is not Exit.UNKNOWN:
        return 128 + running.signal
    return code


def _lines(script: Path) -> Iterable[bytes]:
    try:
        if str(script) == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with script.open("rb") as file:
                data = file.read(_LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{script} cannot be read: {error.strerror}.") from None
    if len(data) > _LARGEST:
        raise SettingsError(f"{script} is larger than {_LARGEST // 1024 // 1024} MiB.", "Split it.")
    return data.split(b"\n")


class ScriptError(Exception):
    """What is wrong with a line. Never shows a value."""


def read(lines: Iterable[bytes], offered: Mapping[str, AnyTool]) -> tuple[list[ScriptCall], list[str]]:
    """The calls of a script, and its errors. With an error in it, none of it is to be made."""
    calls: list[ScriptCall] = []
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not text or text.startswith(b"#"):
            continue
        if len(calls) == MOST:
            return calls, [*errors, f"line {number}: a script has at most {MOST} calls"]
        try:
            calls.append(_call(len(calls) + 1, number, text, offered))
        except ScriptError as error:
            errors.append(f"line {number}: {error}")
    return calls, errors


def _call(number: int, line: int, text: bytes, offered: Mapping[str, AnyTool]) -> ScriptCall:
    given = _object(text)
    for key in given:
        if key not in _KEYS:
            raise ScriptError(f"there is no {key[:64]!r} in a call{nearest(key, _KEYS)}")
    tool, arguments, id_ = given.get("tool"), given.get("arguments", {}), given.get("id")
    if not isinstance(tool, str):
        raise ScriptError("its tool is missing, or is not a text")
    if not isinstance(arguments, dict):
        raise ScriptError("its arguments are not an object")
    if "id" in given and not (isinstance(id_, str) and 0 < len(id_) <= _LONGEST_ID):
        raise ScriptError(f"its id is not a text of 1 to {_LONGEST_ID} characters")
    try:
        return ScriptCall(number, line, id_, parse(offered, tool, cast("dict[str, Any]", arguments)))
    except NotSent as error:
        raise ScriptError(error.what) from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ScriptError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ScriptError("it is not JSON") from None
    if not isinstance(found, dict):
        raise ScriptError("it is not an object")
    return cast("dict[str, Any]", found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ScriptError("an object in it has the same name twice")
    if "$from" in found:  # scripts could once do so; sent as it is, it would become data
        raise ScriptError("a call cannot take a value from the result of another ($from)")
    return found


def _no_number(name: str) -> object:
    raise ScriptError(f"{name} is not a JSON number")
