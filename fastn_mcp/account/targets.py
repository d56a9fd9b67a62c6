"""Labels of what calls act on or create."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.records.labels import NO_NAMES, Label, Names, label_of
from fastn_mcp.records.rows import FastnObject, Row, row_of
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.related_reads import documented_fields, fields_sent, kind_of


def own_label(call: Call, target: FastnObject | None, names: Names = NO_NAMES) -> Label | None:
    """Return the label of what a call acts on or creates. `names` are those of the resources it refers to.

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
    row, extra = row or fields_sent(call), getattr(call, "extra", None)
    if not isinstance(extra, dict):
        return row
    undocumented = cast("dict[str, JsonValue]", extra).keys() - documented_fields(call)
    return {name: value for name, value in row.items() if name not in undocumented}
