"""Output of `fastn-mcp call`: for people at a terminal, as JSON otherwise; the pages of a list; what a call waits
for."""

import json
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar, cast

import click
from pydantic import JsonValue

from fastn_mcp.cli.help import COLOR, GroupedOption
from fastn_mcp.cli.layout import warn
from fastn_mcp.client import retry
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.guard import WAITING_FOR_PERSON
from fastn_mcp.procedures.wait_for_execution import MAX_WAIT, WaitForExecution
from fastn_mcp.runtime import System, with_background
from fastn_mcp.tools.paging import MAX_LIMIT, List
from fastn_mcp.tools.tool import AnyTool, Effect

MAX_ROWS = 1_000
"""Rows after which --all stops."""

_HEADING = "Output"


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Outcome of one call, and the body that an agent would get."""

    outcome: str
    message: str | None = None
    body: Mapping[str, JsonValue] | None = None


T = TypeVar("T")
Make = Callable[[Mapping[str, JsonValue]], Awaitable[CallOutcome]]


def output_options(tool: AnyTool) -> Iterator[click.Option]:
    """Yield the options of a call that are no arguments of its tool."""
    if is_list(tool):
        text = f"Read all pages, up to {MAX_ROWS:,} rows."
        yield GroupedOption(["--all"], is_flag=True, group=_HEADING, help=text)
    if tool is WaitForExecution:
        text = "Wait until the run ends, and show its progress."
        yield GroupedOption(["--watch"], is_flag=True, group=_HEADING, help=text)
    yield GroupedOption(
        ["--json", "as_json"],
        is_flag=False,
        flag_value="",
        metavar="[FIELD,...]",
        group=_HEADING,
        help="Print JSON (the default in a pipe); with FIELDs, only those fields of each row.",
    )
    yield GroupedOption(["--color"], group=_HEADING, **COLOR)


def _known_fields(tool: AnyTool) -> Collection[str]:
    """Return the fields that rows or records of a tool may have: a null is left out of an answer."""
    rows = tool.row_type() if issubclass(tool, List) else tool.returns
    return {*rows.columns, *rows.added_columns, *(field.alias or name for name, field in rows.model_fields.items())}


def is_list(tool: AnyTool) -> bool:
    return "cursor" in tool.model_fields and "limit" in tool.model_fields


async def say_where(message: str, done: float, total: float | None) -> None:  # noqa: ARG001 - a `Report`
    """Say on stderr, at once, where a person decides about a call that waits for them."""
    if message.startswith(WAITING_FOR_PERSON):
        warn(message)


_QUIET_SECONDS = 2.0
"""Seconds for which a call may wait for Fastn without a word."""


class WaitNotice:
    """Says on stderr why a call waits for Fastn, once it has taken two seconds: one line for each reason."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._is_late = False
        self._reason = ""
        self._said = set[str]()

    async def during(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await the work, and say meanwhile what it waits for."""
        token = retry.listener.set(self._hear)
        try:
            return await with_background(self._watch, work)
        finally:
            retry.listener.reset(token)

    async def _watch(self) -> None:
        await self._system.sleep(_QUIET_SECONDS)
        self._is_late = True
        self._say()

    async def _hear(self, why: str) -> None:
        self._reason = why.partition(" Trying again")[0]
        self._say()

    def _say(self) -> None:
        if self._is_late and self._reason and self._reason not in self._said:
            self._said.add(self._reason)
            warn(f"Waiting for Fastn. {self._reason}")


@dataclass
class Output:
    """Options of a call's output. `as_json` are the wanted fields, empty for all, and None for people."""

    context: click.Context
    as_json: str | None
    is_all: bool
    is_watched: bool
    is_waiting: bool = False
    """Whether it was said where a person decides."""
    _progress: str = field(default="", init=False)

    @property
    def fields(self) -> list[str]:
        return [name.strip() for name in (self.as_json or "").split(",") if name.strip()]

    async def report(self, message: str, done: float, total: float | None) -> None:
        await say_where(message, done, total)
        self.is_waiting = self.is_waiting or message.startswith(WAITING_FOR_PERSON)
        if not self.is_watched:
            return
        state = message.partition(" for ")[0]
        before = self._progress.partition(" for ")[0]
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{message}", nl=False, err=True)
        elif state != before:
            click.echo(message, err=True)
        self._progress = message

    def end_progress(self) -> None:
        if self._progress and sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)

    async def repeated(self, tool: AnyTool, arguments: Mapping[str, JsonValue], make: Make) -> CallOutcome:
        """Make a call; with --all for each page of its list, with --watch until its run has ended."""
        more: dict[str, JsonValue] = {}
        if self.fields and "fields" in tool.model_fields and "fields" not in arguments:
            more["fields"] = [*self.fields]
        if self.is_all:
            if "limit" in arguments:
                raise click.UsageError("--all reads whole pages. Leave out --limit, or --all.", self.context)
            return await self._all(tool, more, make)
        if self.is_watched and "seconds" not in arguments:
            more["seconds"] = MAX_WAIT
        while True:
            outcome = await make(more)
            match (outcome.body or {}).get("data"):
                case {"next": {"tool": "wait_for_execution"}} if self.is_watched:
                    continue
                case _:
                    return outcome

    async def _all(self, tool: AnyTool, more: dict[str, JsonValue], make: Make) -> CallOutcome:
        from fastn_mcp.cli.display import cursor_of, rows_in

        whole = dict[str, JsonValue]()
        rows = list[Any]()
        cursor = cast("str | None", "")
        why = ""
        ids: dict[str, dict[str, JsonValue]] = {}
        outcome = await make({**more, "limit": MAX_LIMIT})
        while True:
            page = outcome.body or {}
            rows += rows_in(page) or []
            cursor = cursor_of(page)
            for kind, names in cast("dict[str, dict[str, JsonValue]]", page.get("ids") or {}).items():
                ids[kind] = {**ids.get(kind, {}), **names}
            whole = {**page, **whole, "data": rows} | ({"ids": cast(JsonValue, ids)} if ids else {})
            if cursor is None or len(rows) >= MAX_ROWS:
                break
            try:
                outcome = await make({**more, "limit": min(MAX_LIMIT, MAX_ROWS - len(rows)), "cursor": cursor})
            except FastnError as error:
                outcome = replace(outcome, outcome=error.outcome)
                why = f"{error} "
                break
        whole.pop("left_out", None)  # of the first page
        whole.pop("next_cursor", None)
        if cursor is not None:
            whole["next_cursor"] = cursor
            words = ("call", tool.tool_name().replace("_", "-"), "--all", "--cursor", cursor)
            command = self.context.obj.command_line().to(*words)
            warn(f"{why}Stopped after {len(rows):,} rows. Go on, with your other options: {command}")
        return replace(outcome, body=whole)

    def show(self, tool: AnyTool, body: Mapping[str, JsonValue], now: datetime) -> None:
        """Print a body: for people on a terminal or in colour, otherwise its JSON on one line."""
        is_terminal = sys.stdout.isatty()
        if not (is_terminal or (self.context.color and self.as_json is None)):
            sys.stdout.write(json.dumps(self._selected(tool, body), ensure_ascii=False) + "\n")
            return
        from rich.console import Console  # only needed on a terminal

        colors = "auto" if is_terminal else "256"
        system = None if self.context.color is False else colors
        screen = Console(color_system=system, force_terminal=system == "256" or None, highlight=False, markup=False)
        if self.as_json is not None:
            screen.print_json(json.dumps(self._selected(tool, body)), indent=2)
            return
        from fastn_mcp.cli.display import Display, cursor_of

        for part in Display(screen.width, now, self.command).body(tool.tool_name(), body):
            screen.print(part)
        cursor = None if is_list(tool) else cursor_of(body)
        if cursor:  # not wrapped: it is copied
            click.echo(f"\nThere is more. Repeat the command with:\n  --cursor {cursor}")

    def command(self, tool: str, arguments: Mapping[str, JsonValue]) -> str:
        """Return the command line of a call."""
        words = ["call", tool.replace("_", "-")]
        for name, value in arguments.items():
            for each in value if isinstance(value, list) else [value]:
                if each is None or each is False:
                    continue
                words.append(f"--{name.replace('_', '-')}")
                if each is not True:
                    words.append(each if isinstance(each, str) else json.dumps(each, ensure_ascii=False))
        return self.context.obj.command_line().to(*words)

    def _selected(self, tool: AnyTool, body: Mapping[str, JsonValue]) -> JsonValue:
        """Return the wanted fields: of each row of a list, or of the data and what is around it.

        Raises `click.UsageError` for a field that a tool which reads neither returned nor is known to have.
        """
        if not self.fields or "outcome" in body:
            return dict(body)
        from fastn_mcp.cli.display import rows_in

        rows = rows_in(body)
        data = body.get("data")
        one: dict[str, JsonValue] = {**body, **data} if isinstance(data, dict) else dict(body)
        sources = [one] if rows is None else rows
        absent = [name for name in self.fields if all(name not in source for source in sources)]
        unknown = [name for name in absent if name not in _known_fields(tool)]
        if sources and unknown and tool.effect is Effect.READ:
            fields = sorted({*_known_fields(tool), *(name for source in sources for name in source)} - {*absent})
            raise click.UsageError(
                f"There is no field {', '.join(unknown)}. Fields: {', '.join(fields)}.", self.context
            )
        if sources and absent:
            warn(f"Not in the answer, so null: {', '.join(absent)}.")
        picked: list[JsonValue] = [{name: source.get(name) for name in self.fields} for source in sources]
        return picked[0] if rows is None else picked
