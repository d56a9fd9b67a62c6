"""`fastn-mcp run SCRIPT`: a list of calls through the guard, without a model."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import click
from pydantic import JsonValue

from fastn_mcp.build.account import AccountParts
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli import StartOptions
from fastn_mcp.cli.exit import EXIT_CODES, Exit, strongest
from fastn_mcp.cli.layout import say
from fastn_mcp.cli.serve import Reporting
from fastn_mcp.errors import FastnError, NotSent, SettingsError, nearest
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.approval.request import PendingApproval, PendingForm
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.catalog import ParsedCall, UnknownTool, parse
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report.collector import DONE, LEFT, PREVIEWED, UNKNOWN, WAITING, Attempt, OutcomeGroup, Tally, group_of
from fastn_mcp.report.writer import moment, readable
from fastn_mcp.server.rendering import failed, previewed, shaped, waiting, with_dashboard
from fastn_mcp.tools.parsing import current
from fastn_mcp.tools.tool import AnyTool, Effect

_LARGEST = 32 * 1024 * 1024
"""Bytes of a script."""

_NAMED = 20
"""Mistakes that are named before the rest is counted."""

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


@dataclass(frozen=True, slots=True)
class _Ended:
    """What became of one call of the script."""

    outcome: str
    message: str | None = None
    body: Mapping[str, JsonValue] | None = None
    """As an agent would read it."""


@dataclass
class _Run:
    """A run as far as it has come."""

    parts: AccountParts
    tally: Tally
    as_json: bool
    outcomes: list[str] = field(default_factory=list[str])
    signal: int | None = None

    def end(self, step: ScriptCall, ended: _Ended) -> None:
        """Record what became of a call, and say it."""
        self.outcomes.append(ended.outcome)
        known = self.tally.of_step(step.number)
        if _is_told(step, ended.outcome, known):
            self.tally.add(self._attempt(step, ended))
        target, name = _target(step, known)
        named = " ".join(quote(part) for part in (name, target) if part is not None)
        said = "  ".join(part for part in (f"{step.number:>3}", step.tool.tool_name(), named, ended.outcome) if part)
        say(sanitize(f"{said}: {ended.message}" if ended.message else said), err=True)
        if self.as_json:
            line = {"number": step.number, "line": step.line, "id": step.id, "tool": step.tool.tool_name()}
            body = ended.body if ended.body is not None else {"message": ended.message}
            self._print(json.dumps(line | {"outcome": ended.outcome, "result": body}, ensure_ascii=False))

    def _print(self, line: str) -> None:
        try:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()  # whoever reads wants each as it comes
        except BrokenPipeError:
            # The reader has gone; half of a script would be worse than one that nobody watches.
            self.as_json = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo("fastn-mcp: The output was closed. The run continues.", err=True)

    def _attempt(self, step: ScriptCall, ended: _Ended) -> Attempt:
        now = moment(self.parts.system.now())
        target, _ = _target(step, [])
        return Attempt(
            now,
            step.tool.tool_name(),
            ended.outcome,
            step=step.number,
            settled=now,
            principal="local",
            account=self.parts.about.account,
            target=target,
            effect=step.wanted.call.effective.value,
            message=ended.message,
        )


def _is_told(step: ScriptCall, outcome: str, known: list[Attempt]) -> bool:
    """Whether the report has to be told of a call by itself: the audit knows nothing of it that says the same."""
    if step.tool.effect is Effect.READ and outcome == DONE:
        return False  # reads are only counted
    return group_of(outcome) not in {attempt.group for attempt in known}


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
    parts = start(tally)
    path = report or parts.settings.report
    named = "the input" if str(script) == "-" else str(script)
    if path is not None and script.resolve() in (path.resolve(), readable(path).resolve()):
        raise SettingsError("The report would be written over the script.", "Name another file with --report.")
    reporting = None if path is None else Reporting(parts, tally, path, named)
    steps, mistakes = read(_lines(script), {offer.tool_name(): offer for offer in parts.offered})
    if mistakes:
        for mistake in mistakes[:_NAMED]:
            say(sanitize(f"fastn-mcp: {named}, line {mistake.line}: {mistake.problem}"), err=True)
        more = f" There are {len(mistakes) - _NAMED} more." if len(mistakes) > _NAMED else ""
        say(f"fastn-mcp: The script has errors.{more} Nothing was sent.", err=True)
        return Exit.WRONG
    running = _Run(parts, tally, as_json)
    code = Exit.FAILED
    try:
        anyio.run(_all, running, steps, keep_going, dry_run)
    finally:
        for step in steps[len(running.outcomes) :]:
            running.end(step, _interrupted(running, step))
        code = strongest([*running.outcomes, *(attempt.outcome for attempt in tally.attempts)])
        _summarise(tally)
        if reporting is not None:
            try:
                reporting.write()
            except click.ClickException as error:
                say(f"fastn-mcp: {error.format_message()}", err=True)
                code = code if code is Exit.UNKNOWN else Exit.FAILED
    if running.signal is not None and code is not Exit.UNKNOWN:
        return 128 + running.signal
    return code


def _interrupted(running: _Run, step: ScriptCall) -> _Ended:
    """What became of a call when the run was stopped: the one that was being made may have happened."""
    known = running.tally.of_step(step.number)
    if any(attempt.group is OutcomeGroup.UNKNOWN for attempt in known):
        return _Ended(UNKNOWN, "The run was stopped before the answer came: it may have happened.")
    if known:
        return _Ended(known[-1].outcome, "The run was stopped meanwhile.")
    return _Ended(LEFT)


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


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a line. Never shows a value."""

    line: int
    problem: str


class _Wrong(Exception):
    """What is wrong with a line."""


def read(lines: Iterable[bytes], offered: Mapping[str, AnyTool]) -> tuple[list[ScriptCall], list[Mistake]]:
    """The calls of a script, and its mistakes. With a mistake in it, none of it is to be made."""
    steps: list[ScriptCall] = []
    mistakes: list[Mistake] = []
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not text or text.startswith(b"#"):
            continue
        if len(steps) == MOST:
            return steps, [*mistakes, Mistake(number, f"a script has at most {MOST} calls")]
        try:
            step = _step(len(steps) + 1, number, _object(text), offered)
        except _Wrong as wrong:
            mistakes.append(Mistake(number, str(wrong)))
            continue
        steps.append(step)
    return steps, mistakes


def _object(text: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise _Wrong("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise _Wrong("it is not JSON") from None
    if not isinstance(found, dict):
        raise _Wrong("it is not an object")
    return cast("dict[str, Any]", found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Wrong("an object in it has the same name twice")
    if "$from" in found:  # scripts could once do so; sent as it is, it would become data
        raise _Wrong("a call cannot take a value from the result of another ($from)")
    return found


def _no_number(name: str) -> object:
    raise _Wrong(f"{name} is not a JSON number")


def _step(number: int, line: int, given: dict[str, Any], offered: Mapping[str, AnyTool]) -> ScriptCall:
    tool, arguments, id_ = _parts(given)
    try:
        return ScriptCall(number, line, id_, parse(offered, current(tool), arguments))
    except (UnknownTool, NotSent) as error:
        raise _Wrong(error.what) from None


def _parts(given: dict[str, Any]) -> tuple[str, dict[str, Any], str | None]:
    for key in given:
        if key not in _KEYS:
            raise _Wrong(f"there is no {key[:64]!r} in a call{nearest(key, _KEYS)}")
    tool, arguments, id_ = given.get("tool"), given.get("arguments", {}), given.get("id")
    if not isinstance(tool, str):
        raise _Wrong("its tool is missing, or is not a text")
    if not isinstance(arguments, dict):
        raise _Wrong("its arguments are not an object")
    if "id" in given and not (isinstance(id_, str) and 0 < len(id_) <= _LONGEST_ID):
        raise _Wrong(f"its id is not a text of 1 to {_LONGEST_ID} characters")
    return tool, cast("dict[str, Any]", arguments), id_


async def _all(running: _Run, steps: list[ScriptCall], keep_going: bool, dry_run: bool) -> None:
    async with anyio.create_task_group() as tasks:
        if sys.platform != "win32":
            tasks.start_soon(_stop_on_signal, running, tasks.cancel_scope)
        try:
            await _in_order(running, steps, keep_going, dry_run)
        finally:
            with anyio.CancelScope(shield=True):
                await running.parts.aclose()
        tasks.cancel_scope.cancel()


async def _stop_on_signal(running: _Run, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            running.signal = number
            scope.cancel()
            return


async def _in_order(running: _Run, steps: list[ScriptCall], keep_going: bool, dry_run: bool) -> None:
    caller = Caller("local", Terminal.here())
    stopped = False
    for step in steps:
        if stopped:
            running.end(step, _Ended(LEFT))
            continue
        running.tally.begin_step(step.number)
        ended = await _one(running, step, caller, dry_run)
        running.end(step, ended)
        stopped = ended.outcome not in (DONE, PREVIEWED) and not keep_going and not dry_run


async def _one(running: _Run, step: ScriptCall, caller: Caller, dry_run: bool) -> _Ended:
    parts, wanted = running.parts, step.wanted

    def ended(outcome: str, message: str | None, answer: dict[str, JsonValue]) -> _Ended:
        return _Ended(outcome, message, with_dashboard(answer, wanted.call, parts.dispatch.dashboard_url))

    try:
        if wanted.dry_run or (dry_run and wanted.call.previews()):
            return ended(PREVIEWED, None, previewed((await parts.dispatch.preview(wanted.call, caller)).data()))
        outcome = await parts.dispatch(wanted.call, caller)
    except FastnError as error:
        return ended(error.outcome, str(error), failed(error.data()))
    match outcome:
        case Done(result, change):
            return ended(DONE, None, shaped(wanted.call, result, parts.label, change))
        case PendingApproval(preview, where, until):
            return ended(WAITING, f"Nothing was sent. {where}", waiting(preview.data(), where, until))
        case PendingForm():  # a terminal answers at once
            raise TypeError("an approval request was left open")


def _target(step: ScriptCall, known: list[Attempt]) -> tuple[str | None, str | None]:
    """The id and the name of what a call acts on or has made."""
    if known:
        return known[-1].target, known[-1].name
    return step.wanted.call.target, None


def _summarise(tally: Tally) -> None:
    found = [attempt.group for attempt in tally.attempts]
    counts = [f"{found.count(group)} {group.value}" for group in OutcomeGroup if group in found]
    say(f"{', '.join(counts) or 'Nothing changed'}; {tally.reads} reads.", err=True)
