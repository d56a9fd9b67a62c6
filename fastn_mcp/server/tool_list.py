"""Tools as MCP lists them: names, descriptions, hints, and schemas of their arguments and answers.

Only answers whose shape is ours have a schema: lists, changes and procedures. Fastn's own records have none, as their
fields are not documented. Every output schema is open, and nothing in it is required: some clients check errors against
it too, and an answer to a change that was made must never be refused for its shape. Some clients show it to the model,
so it names only what a program would use.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from mcp.types import ListToolsResult, Tool, ToolAnnotations

from fastn_mcp.procedures.catalog import TOOLS, PreviewChange
from fastn_mcp.server.extensions import TOOL_META
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import AnyTool, Effect


@cache
def list_tools(tools: tuple[AnyTool, ...], *, needs_prompt: bool, shows_apps: bool) -> ListToolsResult:
    """Return these tools, as `tool` makes each."""
    return ListToolsResult(tools=[tool(each, needs_prompt=needs_prompt, shows_apps=shows_apps) for each in tools])


def input_schema(name: str) -> dict[str, Any] | None:
    """Return the input schema of a tool as it is listed; None if the tool is unknown."""
    operation = TOOLS.get(name)
    return None if operation is None else _schema(operation)


_LIMITS = frozenset({"default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"})
"""Schema keywords that are not listed, since descriptions state them and the server checks them."""


@cache
def _schema(operation: AnyTool) -> dict[str, Any]:
    schema = operation.input_schema()
    arguments = {name: facts for name, facts in schema["properties"].items() if name not in operation.unlisted()}
    return schema | {"properties": {name: _listed_argument(facts) for name, facts in arguments.items()}}


def _listed_argument(facts: dict[str, Any]) -> dict[str, Any]:
    # This order takes the fewest tokens as JSON.
    return {key: facts[key] for key in ("description", "type", *facts) if key in facts and key not in _LIMITS}


ALWAYS_LOADED = frozenset({"find", "get_overview", "diagnose", "preview_change"})
"""Tools with which work begins. Clients that load tools on demand are asked to keep these loaded."""


def tool(operation: AnyTool, *, needs_prompt: bool = False, shows_apps: bool = False) -> Tool:
    """Return a tool as MCP lists it. With `shows_apps`, the client shows its approval requests by our app.

    With `needs_prompt`, clients are told to ask a person before calls that destroy or grant access. Such a client does
    not run them without a person, not even to preview them.
    """
    reads = operation.effect is Effect.READ
    hints = {
        "anthropic/alwaysLoad": operation.tool_name() in ALWAYS_LOADED,
        "anthropic/requiresUserInteraction": needs_prompt and operation.effect.rank >= Effect.ACCESS.rank,
    }
    return Tool(
        name=operation.tool_name(),
        title=operation.title(),
        description=operation.__doc__,
        input_schema=_schema(operation),
        output_schema=output_schema(operation),
        annotations=ToolAnnotations(
            title=operation.title(),
            read_only_hint=reads,
            destructive_hint=operation.destructive(),
            idempotent_hint=operation.idempotent(),
            open_world_hint=True,
        ),
        _meta={name: True for name, wanted in hints.items() if wanted} | (TOOL_META if shows_apps and not reads else {})
        or None,
    )


_LIST = (("next_cursor", "string"), ("total", "integer"), ("left_out", "string"))
_CHANGE = (("done", "string"), ("outcome", "string"), ("message", "string"), ("preview", "object"))
_PREVIEW = (("call", "string"), ("arguments", "object"), ("undo", "string"))
_RECEIPT = (("change_id", "string"), ("changed", "object"), ("restores", "string"), ("lost", "string"))


@cache
def output_schema(tool: AnyTool) -> dict[str, Any] | None:
    """Return the output schema of a tool; None for a read of one of Fastn's records."""
    shape = tool.returns.shape
    reads = tool.effect is Effect.READ
    if tool is PreviewChange:
        preview = {"type": "object", "properties": _typed(_PREVIEW)}
        return {"type": "object", "properties": {**_typed((("status", "string"),)), "preview": preview}}
    if reads and not shape and not issubclass(tool, List):
        return None
    properties: dict[str, Any] = {"data": {"properties": _typed(shape)} if shape else {}}
    if not reads:
        properties["receipt"] = {"type": "object", "properties": _typed(_RECEIPT)}
        properties |= _typed(_CHANGE)
    elif issubclass(tool, List):
        properties |= _typed(_LIST)
    return {"type": "object", "properties": properties}


def _typed(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {name: {"type": type_} for name, type_ in fields}
