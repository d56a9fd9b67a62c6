"""Rendering of results for the model: compact JSON within a budget.

Text from Fastn appears only in `data`, marked as untrusted, since names, logs and AI replies can contain instructions.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.procedures.context import Procedure
from fastn_mcp.procedures.list_rows import ListAnswer
from fastn_mcp.procedures.overview.get_overview import Overview
from fastn_mcp.procedures.query.answer import QueryResult
from fastn_mcp.records.formats import counted
from fastn_mcp.records.platform import note_on
from fastn_mcp.records.rows import FastnObject, Row, row_of
from fastn_mcp.records.sizes import cut_to, fitting_rows, size_of
from fastn_mcp.records.table import Table
from fastn_mcp.redaction import may_hold_new_key, safe, safe_json, shorten
from fastn_mcp.tools.access import CreateApiKey
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import FULL, List
from fastn_mcp.tools.tool import Effect, Tool
from fastn_mcp.tools.workflows import UNNAMED_ENVIRONMENT, RunWorkflow

_PAGES = {
    "customers": "/settings/customers",
    "connectors": "/connectors",
    "workflows": "/integrations?tab=workflows",
    "executions": "/activity",
    "ai": "/agent",
}
"""Known dashboard pages by resource."""

BUDGET = 8_000
"""Maximum size of one result in bytes of JSON. Pages of many rows may be larger."""

_ROW = 500
"""Size of a page in bytes for each row that was asked for."""

_FULL_ROW = 1_500
"""The same with `detail=full`."""

MAX_PAGE = 30_000
"""Maximum size of a page in bytes: about 12,000 tokens, as much as clients take without cutting it themselves."""

_NOTE_SIZE = 400
"""Size of the note on what was left out."""

_LONG_ROWS = 4
"""Number of long rows that have room on a page, if not all fit."""


def render(
    call: Tool[Any],
    result: FastnObject,
    account: dict[str, JsonValue],
    receipt: Mapping[str, JsonValue] | None = None,
    notes: Mapping[str, JsonValue] | None = None,
) -> dict[str, JsonValue]:
    """Render the result of `call`, with the receipt of its change, and what the receipt says besides."""
    if isinstance(result, ListAnswer):
        return _render_page(cast("List[Any]", call), result)
    answer: dict[str, JsonValue] = {}
    if call.effect is not Effect.READ:
        answer["done"] = call.tool_name()
        answer["account"] = account
        if call.target is not None:
            answer["target"] = call.target
    if isinstance(call, RunWorkflow) and not hasattr(result, "environment"):
        answer["environment"] = call.environment or account.get("environment") or UNNAMED_ENVIRONMENT
    if receipt is not None:
        answer["receipt"] = safe({**receipt, **(notes or {})})  # its names and values come from Fastn
    raw = row_of(result)
    if "cursor" in type(call).model_fields and "next_cursor" in raw:
        raw["next_cursor"] = call.sealed(str(raw["next_cursor"]))
    note = note_on(call.tool_name(), raw)
    if note:
        answer["note"] = note
    answer |= {"data": None, "untrusted": True}
    if isinstance(call, Operation):
        raw = _without_nulls(raw)
    data = _with_new_key(raw) if isinstance(call, CreateApiKey) else safe(raw)
    budget = _budget_of(result)
    size = size_of(answer)
    cut = ""
    if size > budget // 2:
        answer, cut = _fit_fields(answer, budget // 2)
        size = size_of(answer) + len(cut)
    answer["data"], left_out = cut_to(data, budget - _NOTE_SIZE - size)
    said = " ".join(filter(None, (cut, left_out)))
    return answer | ({"left_out": said} if said else {})


def _budget_of(result: FastnObject) -> int:
    """Return the maximum size of an answer. Overviews and statements limit their rows themselves."""
    match result:
        case Overview():
            return 2 * BUDGET
        case QueryResult():
            return MAX_PAGE
        case _:
            return BUDGET


_WHOLE = ("done", "status", "outcome", "untrusted", "until", "retry_after_seconds")
"""Short fields of ours, which are never cut."""

_FIRST = ("message", "next")
"""Fields that say what happened and what to do next. They have room before all others, a quarter each."""


def bounded(answer: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Cut the longest fields of an answer that is larger than any may be, and say which."""
    if size_of(answer) <= MAX_PAGE:
        return answer
    note = shorten(str(answer.get("left_out", "")), _NOTE_SIZE)
    fields = {name: value for name, value in answer.items() if name != "left_out"}
    fitted, cut = _fit_fields(fields, MAX_PAGE - 2 * _NOTE_SIZE - len(note) * 4)
    return fitted | {"left_out": f"{note} {cut}".strip()}


def _fit_fields(fields: dict[str, JsonValue], budget: int) -> tuple[dict[str, JsonValue], str]:
    """Cut the longest fields until all fit, in the same order. Return them with a sentence on which were cut."""
    if size_of(fields) <= budget:
        return fields, ""
    room = budget - _NOTE_SIZE
    sizes = {name: size_of({name: value}) for name, value in fields.items()}
    order = sorted(fields, key=lambda name: (name not in _WHOLE, name not in _FIRST, sizes[name]))
    fitted = dict(fields)
    for number, name in enumerate(order):
        share = room // 4 if name in _FIRST else room // (len(order) - number)
        if name not in _WHOLE and sizes[name] > share:
            fitted[name], _ = cut_to(fields[name], max(share - len(name) - 6, 0))
        room -= size_of({name: fitted[name]})
    cut = [name for name in fields if fitted[name] != fields[name]]
    return fitted, f"Cut to fit: {', '.join(cut)}."


def _without_nulls(row: Row) -> dict[str, JsonValue]:
    """Leave out empty fields of a record and of the objects in its lists, other than a run's input and output."""
    fields = _non_empty(row)
    for name, value in fields.items():
        if isinstance(value, list) and name not in ("input", "output"):
            fields[name] = [_non_empty(item) if isinstance(item, dict) else item for item in value]
    return fields


def _non_empty(row: Row) -> dict[str, JsonValue]:
    return {name: value for name, value in row.items() if value is not None and value != ""}


def with_dashboard(
    answer: dict[str, JsonValue], call: Tool[Any] | None, dashboard_url: str | None
) -> dict[str, JsonValue]:
    """Add the address of the dashboard page if our own text in the answer mentions the dashboard."""
    if dashboard_url is None:
        return answer
    foreign = {"fastn"} if isinstance(call, Procedure) else {"fastn", "data"}
    own_text = to_json({name: value for name, value in answer.items() if name not in foreign})
    return answer | {"dashboard": dashboard_url + _page_of(call)} if b"dashboard" in own_text else answer


def _page_of(call: Tool[Any] | None) -> str:
    """Return the path of the page for what `call` acts on, or "" for the dashboard itself."""
    installation: object = getattr(call, "installation_id", None)
    if isinstance(installation, str):
        return f"/installations/{quote(installation, safe='')}"
    resource = "workflows" if call is not None and "workflow_id" in call.arguments() else call and call.toolset()
    return _PAGES.get(resource or "", "")


def _render_page(call: List[Any], page: ListAnswer) -> dict[str, JsonValue]:
    envelope = cast("dict[str, JsonValue]", page.model_dump(exclude={"items"}, exclude_none=True))
    cursor = envelope.pop("next_cursor", None)
    room = _page_size(call)
    envelope, cut_fields = _fit_fields({name: safe(item) for name, item in envelope.items()}, room // 3)
    left_out = [shorten(" ".join(page.gaps), room // 32)] if page.gaps else []
    if cut_fields:
        left_out.append(cut_fields)
    if cursor is not None and size_of(cursor) <= room // 3:
        envelope["next_cursor"] = cursor
    elif cursor is not None:
        left_out.append("There is more, but its cursor is too long to be passed on: use filters.")
    budget = room - _NOTE_SIZE - size_of(envelope) - size_of(" ".join(left_out))
    form = _as_table if call.is_table else _as_objects
    data, row_count, cut = form(page.items, budget)
    if cut:
        left_out.append(f"Long values of {counted(cut, 'row')} are cut: {_single_read(call)}.")
    if row_count < len(page.items):
        left_out.append(_continue_after(page, row_count, envelope))
    if "next_cursor" in envelope:
        envelope["next_cursor"] = call.sealed(str(envelope["next_cursor"]))
    note: dict[str, JsonValue] = {"left_out": " ".join(left_out)} if left_out else {}
    fact = note_on(call.tool_name(), {}) if call.cursor is None else ""
    if fact:
        note["note"] = fact
    return note | envelope | {"data": data, "untrusted": True}


def _continue_after(page: ListAnswer, row_count: int, envelope: dict[str, JsonValue]) -> str:
    """Set the cursor of the first row that did not fit, if there is one, and return how to continue."""
    # Fastn's own cursor would skip the rows that were left out.
    envelope.pop("next_cursor", None)
    way = f"Call again with limit {row_count} and continue from there"
    if 0 < row_count <= len(page.places):
        start, number = page.places[row_count - 1]
        envelope["next_cursor"] = start.after(number).encode()
        way = "Continue with next_cursor"
    missing = counted(len(page.items) - row_count, "row")
    return f"{missing} did not fit. {way}, or name the columns you need in fields."


def _page_size(call: List[Any]) -> int:
    """Return the maximum size of a page in bytes: the more, the more rows were asked for."""
    per_row = _FULL_ROW if call.detail == FULL else _ROW
    return min(max(BUDGET, call.limit * per_row), MAX_PAGE)


def _single_read(call: List[Any]) -> str:
    """Return how to read a row whose values were cut."""
    name = "get_" + call.tool_name().removeprefix("list_").removesuffix("s")
    return f"{name if name in OPERATIONS else 'limit 1'} shows more of one"


Rendered = tuple[JsonValue, int, int]
"""Rows as they are shown, how many there are, and how many of them were cut."""


def _as_objects(rows: Sequence[Row], budget: int) -> Rendered:
    included, cut = fitting_rows(
        map(_sized, rows),
        count=len(rows),
        budget=budget,
        long_rows=_LONG_ROWS,
        cut_row=lambda row, share: cut_to(row, share)[0],
    )
    return included, len(included), cut


def _sized(row: Row) -> tuple[JsonValue, int]:
    value, raw = safe_json(cast(JsonValue, row))
    return value, size_of(value) if raw is None else len(raw)


def _as_table(rows: Sequence[Row], budget: int) -> Rendered:
    """Render rows as a table, or as objects if the columns leave no room for a few long rows."""
    table = Table.of(cast("list[Row]", safe(cast(JsonValue, rows))))
    if not table.has_room_in(budget, _LONG_ROWS):
        return _as_objects(rows, budget)
    fitted, cut = table.fitted(budget, _LONG_ROWS)
    return fitted.to_json(), len(fitted.rows), cut


def _with_new_key(answer: JsonValue) -> JsonValue:
    """Redact the result of `create_api_key`, except the issued secret or the name of its file."""
    if isinstance(answer, list):
        return [_with_new_key(item) for item in answer]
    if not isinstance(answer, dict):
        return safe(answer)
    redacted: dict[str, JsonValue] = {}
    for name, item in answer.items():
        if not may_hold_new_key(name, item):
            redacted |= cast("dict[str, JsonValue]", safe({name: item}))
        else:
            redacted[name] = _with_new_key(item) if isinstance(item, (dict, list)) else item
    return redacted


_FOREIGN = ("fastn", "preview", "now", "calls")
"""Keys of an error that contain text from Fastn."""


def render_error(error: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Render an error, sanitized, and marked as untrusted if it contains text from Fastn."""
    answer = bounded(cast("dict[str, JsonValue]", safe(error)))
    return answer | ({"untrusted": True} if any(name in error for name in _FOREIGN) else {})


def render_preview(preview: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Render the result of `dry_run`."""
    fitted, left_out = cut_to(safe(preview), BUDGET - _NOTE_SIZE)
    answer: dict[str, JsonValue] = {"status": "preview", "message": "Nothing was sent.", "preview": fitted}
    return answer | ({"left_out": left_out} if left_out else {}) | {"untrusted": True}


_RETRY_AFTER = 60
"""Seconds before which calling again is no use to anybody, unless a person says that they have decided."""


def render_pending(pending: PendingApproval, preview: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Render the result of a call that waits for out-of-band approval, with its preview for the agent."""
    answer: dict[str, JsonValue] = {
        "status": "approval_required",
        "outcome": "approval_required",
        "message": f"Nothing was sent. A person has to approve this call. {pending.where}",
        "next": "Tell the person. Do not poll: make exactly the same call again once they say that they have decided.",
        "retry_after_seconds": _RETRY_AFTER,
        "until": datetime.fromtimestamp(pending.request.expires, UTC).isoformat(timespec="seconds"),
        "preview": cut_to(safe(preview), BUDGET - 3 * _NOTE_SIZE)[0],
        "untrusted": True,
    }
    return bounded(answer)
