"""`fastn-mcp call TOOL`: make one call as an agent would, through the guard. `fastn-mcp tools`: list the tools."""

import json
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import anyio
import click
from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.build.composition import AccountParts, enabled_tools
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.exit import EXIT_CODES, exit_of
from fastn_mcp.cli.help import completing, format_examples
from fastn_mcp.cli.layout import columns_of, print_table, say
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.client.cost import counted_requests
from fastn_mcp.errors import NOTHING_SENT, Declined, FastnError
from fastn_mcp.guard.approval_form import PendingApproval, PendingForm
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, ParsedCall, parse
from fastn_mcp.report.collector import DONE, PREVIEWED, WAITING, OutcomeGroup, Tally
from fastn_mcp.server.rendering import render, render_error, render_pending, render_preview, with_dashboard
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import DRY_RUN, AnyTool, Effect

_DESCRIBED = ("detail", "permissions", "problem", "started_by", "status", "type", "visibility")
"""Arguments whose descriptions list their values. Fastn may know more, so others are sent too."""

_EXAMPLE_COLUMNS = 76
"""Width of an example's line, without its indentation and the backslash that continues it."""

_NOT_SENT = (OutcomeGroup.WAITING, OutcomeGroup.DECLINED, OutcomeGroup.PREVIEWED, OutcomeGroup.LEFT)


_UNDO = ("undo", "restores", "lost", "not_restored")
"""What a receipt says about undoing a change, which takes a later command."""


class Calls(click.Group):
    """Group with one subcommand per tool, created on demand."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        # With hyphens, as documented and completed. Underscores are accepted as well.
        return [name.replace("_", "-") for name in TOOLS]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        operation = TOOLS.get(cmd_name.replace("-", "_"))
        return None if operation is None else _command(operation)


def _command(operation: AnyTool) -> click.Command:
    schema = operation.input_schema()
    required = schema.get("required", [])
    options = [_option(name, facts, required=name in required) for name, facts in schema["properties"].items()]
    if operation.previews():
        options.append(_option(DRY_RUN, {"description": "Preview.", "type": "boolean"}, required=False))

    def run(**values: Any) -> None:
        arguments = {name: _as_list(value) for name, value in values.items() if value not in (None, ())}
        context = click.get_current_context()
        tally = Tally()
        try:
            status = anyio.run(_call, context.obj.parts(tally=tally), operation.tool_name(), arguments)
        except KeyboardInterrupt:
            note = NOTHING_SENT
            if any(attempt.group not in _NOT_SENT for attempt in tally.attempts):
                note = (
                    f"Whether a change was made is in the audit log: {context.obj.command_line().to('audit', 'tail')}"
                )
            click.echo(f"\nfastn-mcp: Stopped. {note}", err=True)
            status = 130
        sys.exit(status)

    return click.Command(
        operation.tool_name(), params=list(options), callback=run, help=operation.__doc__, epilog=_epilog(operation)
    )


def _epilog(operation: AnyTool) -> str:
    """Exit codes, and an example that changes nothing."""
    required = operation.input_schema().get("required", [])
    options = [f"--{name.replace('_', '-')} {name.rpartition('_')[2].upper()}" for name in required]
    words = ["fastn-mcp --sandbox call", operation.tool_name().replace("_", "-"), *options]
    line = " ".join([*words, "--dry-run"] if operation.previews() else words)
    lines = textwrap.wrap(line, _EXAMPLE_COLUMNS, subsequent_indent="    ", break_on_hyphens=False)
    return EXIT_CODES + "\n" + format_examples(" \\\n  ".join(lines))


def _as_list(value: object) -> object:
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def _option(name: str, facts: dict[str, Any], *, required: bool) -> click.Option:
    is_text_list = facts["type"] == "array" and facts["items"]["type"] == "string"
    kind = click.INT if facts["type"] == "integer" else click.STRING
    hint = " As JSON." if facts["type"] in ("object", "array") and not is_text_list else ""
    declared = [f"--{name.replace('_', '-')}", name]
    if facts["type"] == "boolean":
        return click.Option(declared, is_flag=True, default=None, help=facts["description"])
    return click.Option(
        declared,
        type=kind,
        multiple=is_text_list,
        required=required,
        help=facts["description"] + hint + (" May be repeated." if is_text_list else ""),
        shell_complete=completing(lambda _ctx: _listed_values(name, facts)),
    )


def _listed_values(name: str, facts: dict[str, Any]) -> list[str]:
    """Return the values of an enum, or those in the description of a text: "Active, Invited or Disabled."."""
    if name not in _DESCRIBED:
        return facts.get("enum") or facts.get("items", {}).get("enum", [])
    listed = re.split("[.;:]", re.sub(r" \(.*?\)", "", facts["description"]))[0]
    return [value for value in re.split(", | or ", listed) if " " not in value]


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Outcome of one call, and the body that an agent would get."""

    outcome: str
    message: str | None = None
    body: Mapping[str, JsonValue] | None = None


async def make_call(parts: AccountParts, wanted: ParsedCall, *, dry_run: bool = False) -> CallOutcome:
    """Make or preview a call as an agent would, asking for approval at the terminal. Raises `FastnError`."""

    def outcome(name: str, body: dict[str, JsonValue], message: str | None = None) -> CallOutcome:
        return CallOutcome(name, message, with_dashboard(body, wanted.call, parts.dispatch.dashboard_url))

    caller = Caller(Asker(), Terminal.here())
    if dry_run or wanted.dry_run:
        return outcome(PREVIEWED, render_preview((await parts.dispatch.preview(wanted.call, caller)).data()))
    with counted_requests():
        result_or_request = await parts.dispatch(wanted.call, caller)
    match result_or_request:
        case Done(result, change, notes):
            body = render(wanted.call, result, parts.label, change, notes)
            if parts.process.begins_anew and isinstance(receipt := body.get("receipt"), dict) and "undo" in receipt:
                kept = {name: value for name, value in receipt.items() if name not in _UNDO}
                body["receipt"] = kept | {"why": "This sandbox ends with the command; --sandbox-file keeps one."}
            return outcome(DONE, body)
        case PendingApproval(_, preview, where, until):
            return outcome(WAITING, render_pending(preview.data(), where, until), f"Nothing was sent. {where}")
        case PendingForm():  # a terminal answers at once
            raise TypeError("an approval request was left open")


async def _call(parts: AccountParts, name: str, arguments: dict[str, Any]) -> int:
    wanted: ParsedCall | None = None
    try:
        try:
            wanted = parse({operation.tool_name(): operation for operation in parts.tools}, name, arguments)
            outcome = await make_call(parts, wanted)
        finally:
            await parts.aclose()
    except FastnError as error:
        data, message = render_error(error.data()), str(error)
        if sys.stdout.isatty() and sys.stderr.isatty():
            # One person reads both streams, so say nothing twice; and it is this person who declined.
            data = {name: value for name, value in data.items() if name not in ("outcome", "message", "next")}
            message = f"Declined. {error.known}" if isinstance(error, Declined) else message
        if data:
            _print(with_dashboard(data, wanted and wanted.call, parts.dispatch.dashboard_url))
        say(f"fastn-mcp: {message}", err=True)
        return exit_of(error.outcome)
    _print(outcome.body)
    return exit_of(outcome.outcome)


def _print(body: object) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    from rich.console import Console  # only needed on a terminal

    Console().print_json(json.dumps(body), indent=2)


call = Calls("call", help="Make one call, asking on the terminal before anything destructive.")


# --- tools -------------------------------------------------------------------------------------------------------

_COLORS = {
    Effect.WRITE: "cyan",
    Effect.EXTERNAL: "yellow",
    Effect.SPEND: "yellow",
    Effect.ACCESS: "magenta",
    Effect.TRASH: "red",
    Effect.DESTROY: "bright_red",
}


_COLUMNS = ("tool", "effect", "route", "evidence")
_WIDE, _NARROW = 100, 80
"""Widths of a terminal from which all of these columns are shown, and from which the first three are."""


@click.command(name="tools")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def tools(start: StartOptions, as_json: bool) -> None:
    """List the tools of these settings: effect, evidence, route."""
    enabled = enabled_tools(start.keyless())
    if as_json:
        rows = [dict(zip(_COLUMNS, _row(operation), strict=True)) for operation in enabled]
        click.echo(json.dumps(rows, indent=2))
        return
    columns = columns_of()
    count = len(_COLUMNS) if columns is None or columns >= _WIDE else 3 if columns >= _NARROW else 2
    rows = [_row(operation)[:count] for operation in enabled]
    print_table([_COLUMNS[:count], *rows], [_COLORS.get(operation.effect) for operation in enabled])
    if columns is not None:
        say(f"\n{len(enabled)} tools. Arguments: fastn-mcp call TOOL --help")


def _row(tool: AnyTool) -> tuple[str, str, str, str]:
    if not issubclass(tool, Operation):
        return tool.tool_name(), tool.effect.value, "", ""  # consists of several operations
    return tool.tool_name(), tool.effect.value, str(tool.route), str(tool.evidence)
