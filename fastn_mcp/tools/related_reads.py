"""What belongs to a call: the read of its target, the read that settles a lost response, its kind and its label."""

from functools import cache
from typing import cast

from pydantic import JsonValue

from fastn_mcp.records.formats import kind_in_words
from fastn_mcp.records.labels import NO_NAMES, Label, Names, label_of
from fastn_mcp.records.rows import FastnObject, Row, row_of
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
    kind = kind_in_words(kind_of(call))
    toolset = call.toolset()
    by_name = "" if toolset == ListExecutions.toolset() else "find or "  # find knows no executions
    return (
        f"No {kind} with this id, or the server's API key has no access to it.",
        f"Find it with {by_name}list_{toolset}.",
    )


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


def own_label(call: Call, target: FastnObject | None, names: Names = NO_NAMES) -> Label | None:
    """Return the label of what a call acts on or creates. `names` are the names of the resources that it refers to.

    Raises `RefusedValue` if what would be created cannot be sent.
    """
    row = labelled_row(call, target)
    return None if row is None else label_of(kind_of(call), row, names)


def labelled_row(call: Call, target: FastnObject | None) -> Row | None:
    """Return the row that labels a call; None for an AI session, which has no label."""
    if call.toolset() == "ai":
        return None
    row = row_of(target)
    if call.target is not None:
        return row
    # What `extra` holds cannot name what is created, nor where Fastn's answer repeats it.
    row = row or fields_sent(call)
    extra = getattr(call, "extra", None)
    if not isinstance(extra, dict):
        return row
    undocumented = cast("dict[str, JsonValue]", extra).keys() - documented_fields(call)
    return {name: value for name, value in row.items() if name not in undocumented}
