"""The tool `get_connector`: a connector whose actions are listed with their inputs, in few tokens."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.records.rows import Row, inside, objects, row_of, text
from fastn_mcp.tools.connectors import Connector, GetConnector

_SCHEMAS = ("inputSchema", "input_schema", "input", "parameters", "schema")
_MAX_DESCRIPTION = 120


async def described(call: GetConnector, context: ProcedureContext) -> Connector:
    """Read a connector, with each action's JSON Schema as one line per field."""
    row = row_of(await context.read(call))
    if actions := objects(row, "actions"):
        row["actions"] = [_action(action) for action in actions]
        row["actions_note"] = "input: type of each field, * if it is required."
    return Connector.model_validate(row)


def _action(action: Row) -> JsonValue:
    fields: dict[str, JsonValue] = {
        name: action[name] for name in ("slug", "name", "method") if action.get(name) is not None
    }
    if description := text(action, "description"):
        fields["description"] = description[:_MAX_DESCRIPTION]
    schema = next((inside(action, name) for name in _SCHEMAS if inside(action, name)), None)
    if schema is not None:
        fields["input"] = _fields(schema)
    return fields or {**action}


def _fields(schema: Row) -> JsonValue:
    """Return the type of each field of an object's schema; the schema itself if it has no fields."""
    required = schema.get("required")
    needed = cast("list[JsonValue]", required) if isinstance(required, list) else []
    fields = inside(schema, "properties")
    if not fields:
        return {**schema}
    return {name: _type(field) + "*" * (name in needed) for name, field in fields.items()}


def _type(schema: JsonValue) -> str:
    """Return a field's type in words, as `array of string` or `object {id, name}`."""
    if not isinstance(schema, dict):
        return "any"
    kind = text(schema, "type") or "any"
    if options := schema.get("enum"):
        return " | ".join(map(str, cast("list[JsonValue]", options))) if isinstance(options, list) else kind
    if kind == "array" and (items := inside(schema, "items")):
        return f"array of {_type({**items})}"
    if fields := inside(schema, "properties"):
        return f"{kind} {{{', '.join(fields)}}}"
    return kind
