"""`fastn-mcp call TOOL`: make one call as an agent would, through the guard. `fastn-mcp tools`: list the tools."""

import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import anyio
import click
from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.build.composition import AccountParts, enabled_tools
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.call_output import CallOutcome, Output, WaitNotice, is_list, output_options, say_where
from fastn_mcp.cli.exit import EXIT_CODES, Exit, exit_of
from fastn_mcp.cli.help import OptionGroups, completing, format_examples
from fastn_mcp.cli.layout import CYAN, MAGENTA, ORANGE, RED, columns_of, print_table, say, warn
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.client.cost import counted_requests
from fastn_mcp.errors import NOTHING_SENT, Declined, FastnError, InvalidArgument
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, ParsedCall, parse
from fastn_mcp.redaction import quote
from fastn_mcp.report.collector import DONE, PREVIEWED, WAITING, OutcomeGroup, Tally
from fastn_mcp.runtime import Report
from fastn_mcp.server.rendering import render, render_error, render_pending, render_preview, with_dashboard
from fastn_mcp.tools.operation import NOT_AN_ID, Operation
from fastn_mcp.tools.tool import DRY_RUN, AnyTool, Effect

_OPEN_ARGUMENTS = ("detail", "permissions", "problem", "started_by", "status", "type", "visibility")
"""Arguments whose descriptions list their values. Fastn may know more, so others are sent too."""

_EXAMPLE_COLUMNS = 74
"""Width of an example's line, without its indentation and the backslash that continues it."""

_NOT_SENT = (OutcomeGroup.WAITING, OutcomeGroup.DECLINED, OutcomeGroup.PREVIEWED, OutcomeGroup.LEFT)


_EXAMPLES: Mapping[str, str] = {
    "changes": '[{"tool": "create_customer", "arguments": {"name": "Initech"}}]',
    "connector_id": "709c1143-a681-498f-a56f-b396497b2d74",
    "connection_id": "ref_kkqhfsxoqm",
    "customer_id": "c009d6af-1950-4428-ad06-a70af567801a",
    "workflow_id": "wf_b5880b29eb25",
    "trigger_id": "f014f76e-5754-4e25-a7c2-5bcffab9c00a",
    "execution_id": "exec_03d575658f76",
    "api_key_id": "4",
    "email": "sam@example.com",
    "kind": "connector",
    "message": "How are my workflows?",
    "name": "Initech",
    "permissions": "workflows:read",
    "prompt": "Post new orders to Slack",
    "sql": "select name from customers",
    "query": "acme hubspot",
    "role": "Viewer",
    "routes": '[{"routeId": "wf_b5880b29eb25"}]',
    "secret_id": "sec_80489b4dd896",
    "slug": "initech",
    "tool": "run_workflow",
    "type": "workflow",
}
"""Values of required arguments in examples, with ids of the sandbox."""

_EXAMPLES_OF: Mapping[str, Mapping[str, str]] = {
    "create_secret": {"name": "STRIPE_KEY"},
    "create_trigger": {"type": "scheduler", "schedule": "0 6 * * *"},
    "diagnose": {"workflow_id": "wf_96d1b3072c5a"},
    "find_dependents": {"connector_id": "hubspot"},
    "list_executions": {"status": "failed"},
    "preview_change": {"arguments": '{"workflow_id": "wf_b5880b29eb25"}'},
    "update_customer": {"name": "Acme Corporation"},
    "update_connector": {"description": "Makes decks."},
    "update_trigger": {"status": "Disabled"},
    "update_workflow": {"description": "Every hour."},
}

HELP: Mapping[str, str] = {
    "cursor": "Continue after a page, from its next_cursor.",
    "extra": "Fields without an option of their own; null clears one.",
    "fields": "Columns to show instead of the usual ones.",
}
"""Help of options whose descriptions are too short for people."""

_BARE = "bare"
"""Parameter of the argument that is typed without its option. No tool has an argument of this name."""

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
    bare = _bare_argument(schema)
    options = [
        _option(name, facts, required=name in required and name != bare) for name, facts in schema["properties"].items()
    ]
    if operation.previews():
        description = "Show what it would do. Nothing is changed."
        options.append(_option(DRY_RUN, {"description": description, "type": "boolean"}, required=False))

    def run(**values: Any) -> None:
        context = click.get_current_context()
        if bare is not None:
            values[bare] = _once(context, bare, values.pop(_BARE), values[bare])
        output = Output(context, values.pop("as_json"), values.pop("all", False), values.pop("watch", False))
        arguments = {
            name: [*cast("tuple[object, ...]", value)] if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in (None, ())
        }
        if "fields" in arguments:  # with commas, as --json takes them
            arguments["fields"] = ",".join(cast("list[str]", arguments["fields"])).split(",")
        tally = Tally()
        try:
            status = anyio.run(_call, context.obj.parts(tally=tally), operation, arguments, output)
        except KeyboardInterrupt:
            note = NOTHING_SENT
            if any(attempt.group not in _NOT_SENT for attempt in tally.attempts):
                note = (
                    f"See the audit log for whether a change was made: {context.obj.command_line().to('audit', 'tail')}"
                )
            click.echo(f"\nfastn-mcp: Stopped. {note}", err=True)
            status = 130
        sys.exit(status)

    return OptionGroups(
        operation.tool_name(),
        params=[*([] if bare is None else [_argument(bare)]), *options, *output_options(operation)],
        callback=run,
        help=operation.__doc__,
        epilog=_epilog(operation),
    )


def _bare_argument(schema: Mapping[str, Any]) -> str | None:
    """Return the argument that is typed without its option: the only required one, if it is a text."""
    required = schema.get("required", [])
    return required[0] if len(required) == 1 and schema["properties"][required[0]]["type"] == "string" else None


def _argument(name: str) -> click.Argument:
    return click.Argument([_BARE], required=False, metavar=f"[{name.upper()}]")


def _once(context: click.Context, name: str, bare: str | None, value: str | None) -> str:
    """Return an argument that is given bare or by its option. Raises `click.UsageError` if by both or neither."""
    option = next(each for each in context.command.params if isinstance(each, click.Option) and each.name == name)
    if bare is None and value is None:
        raise click.MissingParameter(ctx=context, param=option)
    if bare is not None and value is not None:
        raise click.UsageError(f"{_option_of(name)} and {bare!r} are the same argument. Leave out one.", context)
    return cast(str, value if bare is None else bare)


def _epilog(tool: AnyTool) -> str:
    """Exit codes, and an example that works on the sandbox and changes nothing."""
    name = tool.tool_name()
    required = tool.input_schema().get("required", [])
    values = {**{field: _EXAMPLES.get(field, field.upper()) for field in required}, **_EXAMPLES_OF.get(name, {})}
    spaced = ((field.replace("_", "-"), shlex.quote(value).replace(" ", "\xa0")) for field, value in values.items())
    bare = _bare_argument(tool.input_schema())
    words = [value if option == (bare or "").replace("_", "-") else f"--{option} {value}" for option, value in spaced]
    words += ["--dry-run"] if tool.previews() else []
    line = " ".join(["fastn-mcp --sandbox call", name.replace("_", "-"), *words])
    lines = textwrap.wrap(line, _EXAMPLE_COLUMNS, subsequent_indent="    ", break_on_hyphens=False)
    return f"{EXIT_CODES}\n" + format_examples(" \\\n  ".join(lines).replace("\xa0", " "))


def _option(name: str, facts: dict[str, Any], *, required: bool) -> click.Option:
    is_text_list = facts["type"] == "array" and facts["items"]["type"] == "string"
    kind = click.INT if facts["type"] == "integer" else click.STRING
    hint = " As JSON." if facts["type"] in ("object", "array") and not is_text_list else ""
    hint += f" One of {', '.join(facts['enum'])}." if "enum" in facts else ""
    declared = [_option_of(name), name]
    if facts["type"] == "boolean":
        return click.Option(declared, is_flag=True, default=None, help=facts["description"])
    return click.Option(
        declared,
        type=kind,
        multiple=is_text_list,
        required=required,
        help=HELP.get(name, str(facts["description"])) + hint + (" May be repeated." if is_text_list else ""),
        shell_complete=completing(lambda _ctx: _listed_values(name, facts)),
    )


def _listed_values(name: str, facts: dict[str, Any]) -> list[str]:
    """Return the values of an enum, or the values in the description of a text: "Active, Invited or Disabled."."""
    if name not in _OPEN_ARGUMENTS:
        return facts.get("enum") or facts.get("items", {}).get("enum", [])
    listed = re.split("[.;:]", re.sub(r" \(.*?\)", "", facts["description"]))[0]
    return [value for value in re.split(", | or ", listed) if " " not in value]


async def make_call(
    parts: AccountParts, wanted: ParsedCall, report: Report = say_where, *, dry_run: bool = False
) -> CallOutcome:
    """Make or preview a call as an agent would, asking for approval at the terminal. Raises `FastnError`."""

    def outcome(name: str, body: dict[str, JsonValue], message: str | None = None) -> CallOutcome:
        return CallOutcome(name, message, with_dashboard(body, wanted.call, parts.dispatch.dashboard_url))

    caller = Caller(Asker(is_by_hand=True), Terminal.here(), export_folder=parts.stores.export_folder)
    notice = WaitNotice(parts.stores.system)
    if dry_run or wanted.dry_run:
        shown = await notice.during(partial(parts.dispatch.preview, wanted.call, caller, report))
        return outcome(PREVIEWED, render_preview(await parts.dispatch.preview_body(shown)))
    with counted_requests():
        result_or_request = await notice.during(partial(parts.dispatch, wanted.call, caller, report))
    match result_or_request:
        case Done(result, change, notes):
            body = render(wanted.call, result, parts.label, receipt=parts.dispatch.receipt(change), notes=notes)
            receipt = body.get("receipt")
            if parts.process.begins_anew and isinstance(receipt, dict) and "undo" in receipt:
                rest = {name: value for name, value in receipt.items() if name not in _UNDO}
                body["receipt"] = rest | {"why": "This sandbox ends with the command; --sandbox-file keeps one."}
            return outcome(DONE, body)
        case PendingApproval() as pending:
            preview = parts.dispatch.tools.without_disabled(pending.question.data_for_agent())
            return outcome(WAITING, render_pending(pending, preview), f"Nothing was sent. {pending.where}")


async def _call(parts: AccountParts, tool: AnyTool, arguments: dict[str, Any], output: Output) -> int:
    wanted: ParsedCall | None = None
    tools = {operation.tool_name(): operation for operation in parts.tools}

    async def make(more: Mapping[str, JsonValue]) -> CallOutcome:
        nonlocal wanted
        wanted = parse(tools, tool.tool_name(), {**arguments, **more})
        return await make_call(parts, wanted, output.report)

    try:
        try:
            outcome = await output.repeated(tool, arguments, make)
        finally:
            output.end_progress()
            await parts.aclose()
    except FastnError as error:
        data = render_error(error.data())
        message = str(error)
        if sys.stdout.isatty() and sys.stderr.isatty():
            # One person reads both streams, so say nothing twice; and it is this person who declined.
            data = {name: value for name, value in data.items() if name not in ("outcome", "message", "next")}
            message = f"Declined. {error.known}" if isinstance(error, Declined) else message
        if isinstance(error, InvalidArgument):
            message = _by_option(error, tool, arguments, output.command)
        if data:
            body = with_dashboard(data, wanted and wanted.call, parts.dispatch.dashboard_url)
            output.show(tool, body, parts.stores.system.now())
        warn(message)
        return Exit.WRONG if isinstance(error, InvalidArgument) else exit_of(error.outcome)
    if outcome.message is not None and not output.is_waiting:
        warn(outcome.message)
    body = dict(outcome.body or {})
    wrong = cast("list[str]", body.get("unknown", []) if is_list(tool) else [])
    if wrong and sys.stdout.isatty():
        del body["unknown"]
    output.show(tool, body, parts.stores.system.now())
    warn(*(_with_options(problem, tool) for problem in wrong))
    return Exit.WRONG if wrong else exit_of(outcome.outcome)


def _by_option(
    error: InvalidArgument,
    tool: AnyTool,
    arguments: Mapping[str, Any],
    command: Callable[[str, Mapping[str, Any]], str],
) -> str:
    """Return an argument's error with its option; for what looks like a name in place of an id, how to look it up."""
    for name, value in arguments.items():
        if error.what.startswith(f"{name}: {NOT_AN_ID}") and (" " in value or not value.isascii()):
            look_up = command("find", {"query": value})
            return f"{_option_of(name)} takes an id; {quote(value)} looks like a name. Look it up: {look_up}"
    return " ".join(filter(None, (_with_options(error.what, tool), error.known, error.next_step)))


def _with_options(problems: str, tool: AnyTool) -> str:
    """Name options in place of arguments: `--name: must not be empty` for `name: must not be empty`."""
    names = "|".join(map(re.escape, tool.model_fields))
    return re.sub(rf"(^|; )({names})(?=[:.])", lambda match: f"{match[1]}{_option_of(match[2])}", problems)


def _option_of(argument: str) -> str:
    return f"--{argument.replace('_', '-')}"


call = Calls("call", help="Make one call. Asks at the terminal if it needs approval.")


# --- tools -------------------------------------------------------------------------------------------------------

_COLORS = {
    Effect.WRITE: CYAN,
    Effect.EXTERNAL: ORANGE,
    Effect.SPEND: ORANGE,
    Effect.ACCESS: MAGENTA,
    Effect.TRASH: RED,
    Effect.DESTROY: RED,
}


_COLUMNS = ("tool", "effect", "route", "evidence")
_WIDE = 100
"""Width of a terminal from which all of these columns are shown."""

_NARROW = 80
"""Width of a terminal from which the first three are shown."""


@click.command(name="tools")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def tools(start: StartOptions, as_json: bool) -> None:
    """List the tools that the settings enable, with effect, route and evidence."""
    enabled = enabled_tools(start.keyless())
    if as_json:
        rows = [dict(zip(_COLUMNS, _row(operation), strict=True)) for operation in enabled]
        click.echo(json.dumps(rows, indent=2))
        return
    columns = columns_of()
    if columns is None or columns >= _WIDE:
        count = len(_COLUMNS)
    elif columns >= _NARROW:
        count = 3
    else:
        count = 2
    rows = [_row(operation)[:count] for operation in enabled]
    print_table([_COLUMNS[:count], *rows], [_COLORS.get(operation.effect) for operation in enabled])
    if columns is not None:
        say("", f"{len(enabled)} tools. Arguments: fastn-mcp call TOOL --help")


def _row(tool: AnyTool) -> tuple[str, str, str, str]:
    if not issubclass(tool, Operation):
        return tool.tool_name(), tool.effect.value, "", ""  # consists of several operations
    return tool.tool_name(), tool.effect.value, str(tool.route), str(tool.evidence)
