"""Output schemas of answers whose shape is ours: lists, changes and procedures.

Fastn's own records have none, as their fields are not documented. Every schema is open, and nothing in it is required:
some clients check errors against it too, and an answer to a change that was made must never be refused for its shape.
Some clients show it to the model, so it names only what a program would use.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from fastn_mcp.procedures.preview_change import PreviewChange
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import AnyTool, Effect

_LIST = (("next_cursor", "string"), ("total", "integer"), ("left_out", "string"))
_CHANGE = (("done", "string"), ("outcome", "string"), ("message", "string"), ("preview", "object"))
_PREVIEW = (("call", "string"), ("arguments", "object"), ("undo", "string"))
_RECEIPT = (("change_id", "string"), ("changed", "object"), ("restores", "string"), ("lost", "string"))


@cache
def output_schema(tool: AnyTool) -> dict[str, Any] | None:
    """Return the output schema of a tool; None for a read of one of Fastn's records."""
    shape, reads = tool.returns.shape, tool.effect is Effect.READ
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
