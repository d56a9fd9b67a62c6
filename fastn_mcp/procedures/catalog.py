"""All tools by name, procedures first, and the parsing of a request into a call; with the tool `preview_change`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, ValidationError

from fastn_mcp.errors import InvalidArgument, nearest
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.context import Procedure
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.procedures.undo_change import ListChanges, UndoChange
from fastn_mcp.procedures.wait_for_execution import WaitForExecution
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.bounds import OF_CALLS, size_problem
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.fields import JsonObject
from fastn_mcp.tools.tool import DRY_RUN, AnyTool, Effect, Tool, problems


class ChangePreview(FastnObject):
    """What a call would do."""


class PreviewChange(Procedure[ChangePreview]):
    """What would happen if I did this: what changes, what is lost, who approves; without doing it."""

    effect = Effect.READ

    tool: Annotated[str, Field(description="For example delete_customer.")]
    values: Annotated[
        JsonObject | None, Field(description="Its arguments.", validation_alias="arguments"), OF_CALLS
    ] = None


PROCEDURES: tuple[AnyTool, ...] = (
    Find,
    GetOverview,
    Query,
    Diagnose,
    WaitForExecution,
    FindDependents,
    PreviewChange,
    ApplyChanges,
    ListChanges,
    UndoChange,
)

ALL_TOOLS: tuple[AnyTool, ...] = (*PROCEDURES, *CATALOG)

TOOLS: dict[str, AnyTool] = {tool.tool_name(): tool for tool in ALL_TOOLS}


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A validated call, and whether to only preview it."""

    call: Tool[Any]
    dry_run: bool


class UnknownTool(InvalidArgument):
    """The tool name is unknown."""


def parse(tools: Mapping[str, AnyTool], name: str, arguments: Mapping[str, Any]) -> ParsedCall:
    """Validate a tool call. Raises `NotSent` if the tool is unknown or disabled, or an argument is invalid."""
    operation = tools.get(name)
    if operation is None:
        if name in TOOLS:
            raise _disabled(name)
        raise UnknownTool(f"There is no tool {name[:64]!r}{nearest(name, tools)}.", "See tools/list.")
    problem = size_problem(operation, arguments)
    if problem:
        raise InvalidArgument(f"{problem}.", "Correct it and call again.")
    fields = dict(arguments)
    dry_run = DRY_RUN in fields and operation.previews() and fields.pop(DRY_RUN)
    if not isinstance(dry_run, bool):
        raise InvalidArgument(f"{DRY_RUN}: must be true or false.", "Correct the arguments and call again.")
    try:
        call = operation.model_validate(fields)
    except ValidationError as error:
        raise InvalidArgument(f"{problems(operation, error)}.", "Correct the arguments and call again.") from None
    for number, part in enumerate(call.inner_calls, 1):
        if part.tool_name() not in tools:
            raise _disabled(f"Call {number}: {part.tool_name()}")
    return _previewed(tools, call) if isinstance(call, PreviewChange) else ParsedCall(call, dry_run)


def _previewed(tools: Mapping[str, AnyTool], call: PreviewChange) -> ParsedCall:
    """Return the call to preview: of any toolset with an enabled tool, as read-only mode disables no previews."""
    toolsets = {tool.toolset() for tool in tools.values()}
    known = {name: tool for name, tool in TOOLS.items() if name in tools or tool.toolset() in toolsets}
    tool = known.get(call.tool)
    if tool is not None and not tool.previews():
        raise InvalidArgument(f"{tool.tool_name()} changes nothing.", "Call it directly.")
    try:
        return replace(parse(known, call.tool, call.values or {}), dry_run=True)
    except UnknownTool as error:
        raise InvalidArgument(error.what, "Name a tool that changes something.") from None


def _disabled(tool: str) -> InvalidArgument:
    by = "by tools, exclude_tools or read-only mode"
    return InvalidArgument(f"{tool} is disabled here, {by}.", "Only a person can change that.")
