"""Rendering of results for the model: compact JSON within a budget.

Text from Fastn appears only in `data`, marked as untrusted, since names, logs and AI replies can contain instructions.
"""

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, cast
from urllib.parse import quote

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.fastn.names import counted
from fastn_mcp.fastn.rows import row_of
from fastn_mcp.guard.changes import Change
from fastn_mcp.guard.undo import receipt
from fastn_mcp.procedures.context import Procedure
from fastn_mcp.redaction import is_issued_secret, safe, safe_json, shorten
from fastn_mcp.tools.account import CreateApiKey
from fastn_mcp.tools.paging import CSV, List, Listed
from fastn_mcp.tools.tool import Effect, FastnObject, Tool
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
"""Maximum size of one result in bytes of JSON."""

# The share of it for the note on what was left out.
_NOTE_SIZE = 250


def render(
    call: Tool[Any], result: FastnObject, account: dict[str, JsonValue], change: Change | None = None
) -> dict[str, JsonValue]:
    """Render the result of `call`, with the receipt of its change."""
    if isinstance(result, Listed):
        return _render_page(call, cast("Listed[FastnObject]", result))
    answer: dict[str, JsonValue] = {}
    if call.effect is not Effect.READ:
        answer["done"] = call.tool_name()
        answer["account"] = account
        if call.target is not None:
            answer["target"] = call.target
    if isinstance(call, RunWorkflow) and not hasattr(result, "environment"):
        answer["environment"] = call.environment or account.get("environment") or UNNAMED_ENVIRONMENT
    if change is not None:
        answer["receipt"] = safe(receipt(change))  # its names and values come from Fastn
    answer |= {"data": None, "untrusted": True}
    raw = row_of(result)
    data = _with_new_key(raw) if isinstance(call, CreateApiKey) else safe(raw)
    answer["data"], left_out = _fit(data, BUDGET - _NOTE_SIZE - _size(answer))
    return answer | ({"left_out": left_out} if left_out else {})


def with_dashboard(
    answer: dict[str, JsonValue], call: Tool[Any] | None, dashboard_url: str | None
) -> dict[str, JsonValue]:
    """Add the address of the dashboard page if our own text in the answer mentions the dashboard."""
    foreign = {"fastn"} if isinstance(call, Procedure) else {"fastn", "data"}
    own_text = to_json({name: value for name, value in answer.items() if name not in foreign})
    if dashboard_url is None or b"dashboard" not in own_text:
        return answer
    return answer | {"dashboard": dashboard_url + _page_of(call)}


def _page_of(call: Tool[Any] | None) -> str:
    """Return the path of the page for what `call` acts on, or "" for the dashboard itself."""
    installation: object = getattr(call, "installation_id", None)
    if isinstance(installation, str):
        return f"/installations/{quote(installation, safe='')}"
    resource = "workflows" if call is not None and "workflow_id" in call.arguments() else call and call.toolset()
    return _PAGES.get(resource or "", "")


def _render_page(call: Tool[Any], page: Listed[FastnObject]) -> dict[str, JsonValue]:
    envelope = cast("dict[str, JsonValue]", page.model_dump(exclude={"items"}, exclude_none=True))
    left_out: list[str] = []
    if _size(envelope) > BUDGET // 2:
        envelope.pop("next_cursor", None)
        left_out.append("There is more, but its cursor is too long to be passed on: use filters.")
    budget = BUDGET - _NOTE_SIZE - _size(envelope)
    is_csv = isinstance(call, List) and call.detail == CSV
    included, cut = _lines(page.items, budget) if is_csv else _rows(page.items, budget)
    shown = max(len(included) - 1, 0) if is_csv else len(included)  # without the header
    if (missing := len(page.items) - shown) > 0:
        # Fastn's own cursor would skip the rows that were left out.
        envelope.pop("next_cursor", None)
        if 0 < shown <= len(page.positions):
            envelope["next_cursor"] = page.positions[shown - 1].encode()
            left_out.insert(0, f"{counted(missing, 'row')} did not fit; next_cursor goes on with them.")
        else:
            more = f"Call again with limit {shown} and go on from there."
            left_out.insert(0, f"{counted(missing, 'row')} did not fit. {more}")
    answer: dict[str, JsonValue] = {"data": "\n".join(map(str, included)) if is_csv else cast(JsonValue, included)}
    if note := " ".join([*left_out, *cut]):
        answer["left_out"] = note
    return answer | envelope | {"untrusted": True}


def _lines(records: list[FastnObject], budget: int) -> tuple[list[str], list[str]]:
    """Render as many rows as fit, at least one, as CSV lines under a header. Return also what was cut."""
    rows = [_row(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_line(names)] if rows else []
    left = budget - _size("\n".join(lines))
    for row in rows:
        line = _line([row.get(name) for name in names])
        left -= _size(line)
        if left < 0 and len(lines) == 1:
            cut, note = _fit(line, max(left + _size(line), budget // 2))
            return [*lines, str(cut)], [note]
        if left < 0:
            break
        lines.append(line)
    return lines, []


def _line(values: Iterable[JsonValue]) -> str:
    writing = io.StringIO()
    csv.writer(writing, lineterminator="").writerow(
        "" if value is None else value if isinstance(value, (str, int, float)) else to_json(value).decode()
        for value in values
    )
    return writing.getvalue()


def _with_new_key(answer: JsonValue) -> JsonValue:
    """Redact the result of `create_api_key`, except the issued secret or the name of its file."""
    if isinstance(answer, list):
        return [_with_new_key(item) for item in answer]
    if not isinstance(answer, dict):
        return safe(answer)
    shown: dict[str, JsonValue] = {}
    for name, item in answer.items():
        if isinstance(item, (dict, list)):
            shown[name] = _with_new_key(item)
        else:
            shown |= {name: item} if is_issued_secret(name) else cast("dict[str, JsonValue]", safe({name: item}))
    return shown


def _rows(records: list[FastnObject], budget: int) -> tuple[list[JsonValue], list[str]]:
    """Render as many rows as fit, at least one. Return also what was cut of it. Later rows are not read."""
    left = budget
    rows: list[JsonValue] = []
    for record in records:
        row, raw = safe_json(row_of(record))
        left -= (_size(row) if raw is None else len(raw)) + 1
        if left < 0 and not rows:
            first, cut = _fit(row, budget)
            return [first], [cut]
        if left < 0:
            break
        rows.append(row)
    return rows, []


def _row(record: FastnObject) -> dict[str, JsonValue]:
    return cast("dict[str, JsonValue]", safe(row_of(record)))


def _fit(value: JsonValue, budget: int) -> tuple[JsonValue, str]:
    """Cut a value until it fits. Return it with a sentence on what was cut."""
    if _size(value) <= budget:
        return value, ""
    limit = BUDGET
    while limit > 1:
        limit //= 2
        cut = _truncate(value, limit)
        if _size(cut) <= budget:
            return cut, f"Texts are cut at {limit} characters, lists and objects at {limit} entries."
    # A character of JSON takes up to four bytes inside a JSON string.
    return _truncate(to_json(value).decode(), budget // 4 - 40), "Only the beginning is here, as text."


def _truncate(value: JsonValue, limit: int) -> JsonValue:
    if isinstance(value, str):
        return shorten(value, limit)
    if isinstance(value, list):
        included = [_truncate(item, limit) for item in value[:limit]]
        return [*included, f"[{len(value) - limit} more]"] if len(value) > limit else included
    if isinstance(value, dict):
        entries = {shorten(name, limit): _truncate(item, limit) for name, item in islice(value.items(), limit)}
        return entries | ({f"[{len(value) - limit} more]": None} if len(value) > limit else {})
    return value


def _size(value: JsonValue) -> int:
    return len(to_json(value))


_FOREIGN = ("fastn", "preview", "now")
"""Keys of an error that contain text from Fastn."""


def render_error(error: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Render an error, sanitized, and marked as untrusted if it contains text from Fastn."""
    answer = cast("dict[str, JsonValue]", safe(error))
    return answer | ({"untrusted": True} if any(name in error for name in _FOREIGN) else {})


def render_preview(preview: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Render the result of `dry_run`."""
    shown, left_out = _fit(safe(preview), BUDGET - _NOTE_SIZE)
    answer: dict[str, JsonValue] = {"status": "preview", "message": "Nothing was sent.", "preview": shown}
    return answer | ({"left_out": left_out} if left_out else {}) | {"untrusted": True}


_RETRY_AFTER = 60
"""Seconds before which calling again is no use to anybody, unless a person says that they have decided."""


def render_pending(preview: dict[str, JsonValue], where: str, until: float) -> dict[str, JsonValue]:
    """Render the result of a call that waits for out-of-band approval. `until` is in Unix seconds."""
    return {
        "status": "approval_required",
        "outcome": "approval_required",
        "message": f"Nothing was sent. A person has to approve this call. {where}",
        "next": "Tell the person. Do not poll: make exactly the same call again once they say that they have decided.",
        "retry_after_seconds": _RETRY_AFTER,
        "until": datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds"),
        "preview": _fit(safe(preview), BUDGET - 3 * _NOTE_SIZE)[0],
        "untrusted": True,
    }
