"""Operations that belong to a call: the read of its target, the read that settles a lost response, and its kind."""

from functools import cache

from pydantic import JsonValue

from fastn_mcp.records.formats import kind_in_words
from fastn_mcp.redaction import redact_object
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.workflows import ListExecutions, RunWorkflow

_READS = {operation.route.path: operation for operation in CATALOG if operation.route.method == "GET"}
"""GET operations by path."""


@cache
def reader_of(operation: AnyOperation) -> AnyOperation | None:
    """Return the operation that reads the target of this one: its own GET, or else its list."""
    template, brace, _ = operation.route.path.partition("}")
    own = template + brace
    return _READS.get(own) or _READS.get(own.rpartition("/")[0])


def kind_of(call: Call | AnyOperation) -> str:
    """Return the kind of resource that a call or an operation acts on or creates: `customer`, `api_key`."""
    parameters = call.route.parameters
    return parameters[-1].removesuffix("_id") if parameters else call.tool_name().partition("_")[2]


def fields_sent(call: Call) -> dict[str, JsonValue]:
    """Return the request body under Fastn's field names, without secrets. Raises `RefusedValue`."""
    return redact_object(call.model_copy(update=dict.fromkeys(call.secrets())).request().body or {})


def documented_fields(call: Call) -> set[str]:
    """Return the fields that a call may send, by Fastn's names; `extra` may send others."""
    return {call.wire(name) for name in type(call).model_fields}


def no_such(call: Call) -> tuple[str, str]:
    """Return the message and the next step for an id that does not exist."""
    kind, toolset = kind_in_words(kind_of(call)), call.toolset()
    by_name = "" if toolset == ListExecutions.toolset() else "find or "  # find knows no executions
    return f"No {kind} with this id, or this API key has no access to it.", f"Find it with {by_name}list_{toolset}."


def settling_read(call: Call) -> Call | None:
    """Return the read that shows whether `call` was applied, for use after its response was lost."""
    if isinstance(call, RunWorkflow):
        return ListExecutions(workflow_id=call.workflow_id)
    reader = reader_of(type(call))
    if reader is None:
        return None
    if reader.route.parameters:
        return reader.model_validate({reader.route.parameters[-1]: call.target})
    return reader()


def suggested_read(reading: Call) -> JsonValue:
    """Return a read as a next call, without the limit of its rows."""
    arguments = {name: value for name, value in reading.arguments().items() if name != "limit"}
    return {"tool": reading.tool_name(), "arguments": arguments}
