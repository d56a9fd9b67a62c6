"""`fastn-mcp run SCRIPT`: make the calls of a script through the guard, without a model."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import anyio
import click
from pydantic_core import from_json

from fastn_mcp.audit.log import recorded_time
from fastn_mcp.build.composition import AccountParts
from fastn_mcp.cli.call import make_call
from fastn_mcp.cli.call_output import CallOutcome
from fastn_mcp.cli.exit import EXIT_CODES, Exit, strongest
from fastn_mcp.cli.layout import say, warn
from fastn_mcp.cli.serve import begin_report
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.errors import FastnError, NotSent, SettingsError, nearest
from fastn_mcp.procedures.catalog import ParsedCall, parse
from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote
from fastn_mcp.report.collector import DONE, LEFT, PREVIEWED, UNKNOWN, Attempt, OutcomeGroup, Tally, group_of
from fastn_mcp.report.writer import readable
from fastn_mcp.server.rendering import render_error, with_dashboard
from fastn_mcp.tools.tool import AnyTool, Effect

_MAX_SCRIPT = 32 * 1024 * 1024

_LISTED_ERRORS = 20
"""Errors that are listed; the rest are counted."""

MAX_CALLS = 10_000

_KEYS = ("tool", "arguments", "id")
_MAX_ID = 64


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
    """A run: its outcomes so far, and the signal that stopped it."""

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
                    outcome = CallOutcome(LEFT) if stopped else await self._make(call, dry_run=dry_run)
                    self.end(call, outcome)
                    stopped = stopped or not (outcome.outcome in (DONE, PREVIEWED) or keep_going or dry_run)
            finally:
                await self.parts.aclose()
            tasks.cancel_scope.cancel()

    async def _stop_on_signal(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.signal = number
                scope.cancel()
                return

    async def _make(self, call: ScriptCall, *, dry_run: bool) -> CallOutcome:
        self.tally.step = call.number
        wanted = call.wanted
        try:
            outcome = await make_call(self.parts, wanted, dry_run=dry_run and wanted.call.previews())
        except FastnError as error:
            body = with_dashboard(render_error(error.data()), wanted.call, self.parts.dispatch.dashboard_url)
            return CallOutcome(error.outcome, str(error), body)
        return replace(outcome, message=_previewed(outcome.body)) if outcome.outcome == PREVIEWED else outcome

    def interrupted(self, call: ScriptCall) -> CallOutcome:
        """Return the outcome of a call when the run was stopped. The call in progress may have been made."""
        attempts = self.tally.of_step(call.number)
        if any(attempt.group is OutcomeGroup.UNKNOWN for attempt in attempts):
            return CallOutcome(UNKNOWN, "The run was stopped before Fastn answered. It may have happened.")
        if attempts:
            return CallOutcome(attempts[-1].outcome, "The run was stopped in the meantime.")
        return CallOutcome(LEFT)

    def end(self, call: ScriptCall, outcome: CallOutcome) -> None:
        """Record the outcome of a call, and print it."""
        self.outcomes.append(outcome.outcome)
        tool = call.tool.tool_name()
        attempts = self.tally.of_step(call.number)
        # The audit log lacks calls that it did not see, or that ended otherwise. Reads are only counted.
        is_read = call.tool.effect is Effect.READ and outcome.outcome == DONE
        if not is_read and group_of(outcome.outcome) not in {attempt.group for attempt in attempts}:
            self.tally.add(self._attempt(call, outcome))
        if attempts:
            target = attempts[-1].target
            name = attempts[-1].name
        else:
            target = call.wanted.call.target
            name = None
        named = " ".join(quote(part) for part in (name, target) if part is not None)
        line = "  ".join(part for part in (f"{call.number:>3}", tool, named, outcome.outcome) if part)
        say(f"{line}: {outcome.message}" if outcome.message else line, err=True)
        if self.as_json:
            body = outcome.body if outcome.body is not None else {"message": outcome.message}
            row = {"number": call.number, "line": call.line, "id": call.id, "tool": tool, "outcome": outcome.outcome}
            self._print(json.dumps(row | {"result": body}, ensure_ascii=False))

    def _print(self, line: str) -> None:
        try:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()  # readers get each line as it comes
        except BrokenPipeError:
            # The reader is gone. Half of a script would be worse than a run that nobody watches.
            self.as_json = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo("fastn-mcp: The output was closed. The run continues.", err=True)

    def _attempt(self, call: ScriptCall, outcome: CallOutcome) -> Attempt:
        now = recorded_time(self.parts.stores.system.now())
        return Attempt(
            now,
            call.tool.tool_name(),
            outcome.outcome,
            step=call.number,
            settled=now,
            principal="local",
            account=self.parts.about.account,
            target=call.wanted.call.target,
            effect=call.wanted.call.effective.value,
            message=outcome.message,
        )


def _previewed(body: Mapping[str, Any] | None) -> str:
    """Return what a call would do, whether it can be undone, and whose approval it takes."""
    preview: Mapping[str, Any] = (body or {}).get("preview", {})
    approval = f"Approval: {preview['approval']}." if "approval" in preview else None
    return " ".join(filter(None, (preview.get("does"), preview.get("undo"), approval)))


@click.command(name="run", epilog=EXIT_CODES)
@click.argument("script", type=click.File("rb"))
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a report to FILE as JSON, and a readable copy as FILE.md.",
)
@click.option("--keep-going", is_flag=True, help="Continue after a call that was not done.")
@click.option("--dry-run", is_flag=True, help="Preview each change without making it.")
@click.option("--json", "as_json", is_flag=True, help="Print each result as a line of JSON.")
@click.pass_obj
def run(
    start: StartOptions, script: BinaryIO, report: Path | None, keep_going: bool, dry_run: bool, as_json: bool
) -> int:
    """Make the calls of SCRIPT in order, guarded like an agent's; - is standard input.

    A line is a call: {"tool": "create_customer", "arguments": {"name": "Acme"}}. An optional "id" names the call;
    --json repeats it. Blank lines and lines that begin with # are skipped. A script with a mistake is refused before
    its first call.
    """
    tally = Tally()
    parts = start.parts(tally=tally)
    path = report or parts.settings.report
    named = name_of(script)
    if path is not None and Path(named).resolve() in (path.resolve(), readable(path).resolve()):
        raise SettingsError("The report would overwrite the script.", "Name another file with --report.")
    write_report = None if path is None else begin_report(parts, tally, path, named)
    data = script.read(_MAX_SCRIPT + 1)
    if len(data) > _MAX_SCRIPT:
        raise SettingsError(f"{named} is larger than {_MAX_SCRIPT // 1024 // 1024} MiB.", "Split it.")
    calls, errors = read(data.split(b"\n"), {tool.tool_name(): tool for tool in parts.tools})
    if errors:
        warn(*(f"{named}, {error}" for error in errors[:_LISTED_ERRORS]))
        more = f" There are {len(errors) - _LISTED_ERRORS} more." if len(errors) > _LISTED_ERRORS else ""
        warn(f"The script has errors.{more} Nothing was sent.")
        return Exit.WRONG
    running = ScriptRun(parts, tally, as_json)
    code = Exit.FAILED
    try:
        anyio.run(partial(running.make, calls, keep_going=keep_going, dry_run=dry_run))
    finally:
        for call in calls[len(running.outcomes) :]:
            running.end(call, running.interrupted(call))
        code = strongest([*running.outcomes, *(attempt.outcome for attempt in tally.attempts)])
        say(_summary(tally), err=True)
        if write_report is not None:
            try:
                write_report()
            except SettingsError as error:
                warn(str(error))
                code = code if code is Exit.UNKNOWN else Exit.FAILED
    if running.signal is not None and code is not Exit.UNKNOWN:
        return 128 + running.signal
    return code


def name_of(script: BinaryIO) -> str:
    """Return how a message names the file of a script. The name of a closed standard input is its number."""
    return "the input" if script.name in ("<stdin>", 0) else script.name


def _summary(tally: Tally) -> str:
    """Return how many calls ended in each way."""
    groups = [attempt.group for attempt in tally.attempts]
    counts = [f"{groups.count(group)} {group.value}" for group in OutcomeGroup if group in groups]
    guard = ", including the guard's" if tally.reads else ""
    return f"{', '.join(counts) or 'Nothing changed'}; {counted(tally.reads, 'read')}{guard}."


class ScriptError(Exception):
    """A line of a script is not valid. The message never shows a value."""


def read(lines: Iterable[bytes], offered: Mapping[str, AnyTool]) -> tuple[list[ScriptCall], list[str]]:
    """Parse a script into its calls and its errors. If there is an error, no call may be made."""
    calls: list[ScriptCall] = []
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not text or text.startswith(b"#"):
            continue
        if len(calls) == MAX_CALLS:
            return calls, [*errors, f"line {number}: a script has at most {MAX_CALLS} calls"]
        try:
            calls.append(_call(len(calls) + 1, number, text, offered))
        except ScriptError as error:
            errors.append(f"line {number}: {error}")
    return calls, errors


def _call(number: int, line: int, text: bytes, offered: Mapping[str, AnyTool]) -> ScriptCall:
    try:
        from_json(text, allow_inf_nan=False)  # raises for NaN, wrong UTF-8 and deep nesting
        parsed: object = json.loads(text, object_pairs_hook=_unique)
    except ValueError:
        raise ScriptError("invalid JSON") from None
    if not isinstance(parsed, dict):
        raise ScriptError("it is not an object")
    fields = cast("dict[str, Any]", parsed)
    for key in fields:
        if key not in _KEYS:
            raise ScriptError(f"unknown field {key[:64]!r}{nearest(key, _KEYS)}")
    tool = fields.get("tool")
    arguments = fields.get("arguments", {})
    id_ = fields.get("id")
    if not isinstance(tool, str):
        raise ScriptError("its tool is missing, or is not a string")
    if not isinstance(arguments, dict):
        raise ScriptError("its arguments are not an object")
    if "id" in fields and not (isinstance(id_, str) and 0 < len(id_) <= _MAX_ID):
        raise ScriptError(f"its id is not a string of 1 to {_MAX_ID} characters")
    try:
        return ScriptCall(number, line, id_, parse(offered, tool, cast("dict[str, Any]", arguments)))
    except NotSent as error:
        raise ScriptError(error.what) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ScriptError("an object in it has the same name twice")
    return fields
