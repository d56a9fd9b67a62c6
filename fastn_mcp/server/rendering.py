"""Results as the model reads them: compact JSON within a budget.

Text from Fastn stands inside `data` only, marked as untrusted: names, logs and AI replies can carry instructions.
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

_PAGES = {
    "customers": "/settings/customers",
    "connectors": "/connectors",
    "workflows": "/integrations?tab=workflows",
    "executions": "/activity",
    "ai": "/agent",
}
"""The dashboard's pages that are known, by resource."""

BUDGET = 8_000
"""Characters of one result."""

# What saying that something was left out may take of it.
_ROOM_TO_SAY = 250


def shaped(
    call: Tool[Any], result: FastnObject, account: dict[str, JsonValue], change: Change | None = None
) -> dict[str, JsonValue]:
    """The result of `call` as the model reads it, with the receipt of the change that it made."""
    if isinstance(result, Listed):
        return _page(call, cast("Listed[FastnObject]", result))
    answer: dict[str, JsonValue] = {}
    if call.effect is not Effect.READ:
        answer["done"] = call.tool_name()
        answer["account"] = account
        if call.target is not None:
            answer["target"] = call.target
    if change is not None:
        answer["receipt"] = receipt(change)
    answer |= {"data": None, "untrusted": True}
    raw = row_of(result)
    data = _with_new_key(raw) if isinstance(call, CreateApiKey) else safe(raw)
    answer["data"], left_out = _fitting(data, BUDGET - _ROOM_TO_SAY - _size(answer))
    return answer | ({"left_out": left_out} if left_out else {})


def with_dashboard(
    answer: dict[str, JsonValue], call: Tool[Any] | None, dashboard_url: str | None
) -> dict[str, JsonValue]:
    """`answer`, and the address of the dashboard's page where our words in it send a person there."""
    theirs = {"fastn"} if isinstance(call, Procedure) else {"fastn", "data"}
    ours = to_json({name: value for name, value in answer.items() if name not in theirs})
    if dashboard_url is None or b"dashboard" not in ours:
        return answer
    return answer | {"dashboard": dashboard_url + _page_of(call)}


def _page_of(call: Tool[Any] | None) -> str:
    """The page for what `call` acts on; the dashboard itself where none is known."""
    installation: object = getattr(call, "installation_id", None)
    if isinstance(installation, str):
        return f"/installations/{quote(installation, safe='')}"
    resource = "workflows" if call is not None and "workflow_id" in call.arguments() else call and call.toolset()
    return _PAGES.get(resource or "", "")


def _page(call: Tool[Any], page: Listed[FastnObject]) -> dict[str, JsonValue]:
    around = cast("dict[str, JsonValue]", page.model_dump(exclude={"items"}, exclude_none=True))
    left_out: list[str] = []
    if _size(around) > BUDGET // 2:
        around.pop("next_cursor", None)
        left_out.append("There is more, but its cursor is too long to be passed on: use filters.")
    room = BUDGET - _ROOM_TO_SAY - _size(around)
    table = isinstance(call, List) and call.detail == CSV
    kept, cut = _lines(page.items, room) if table else _rows(page.items, room)
    shown = max(len(kept) - 1, 0) if table else len(kept)  # the first line holds the names
    if (missing := len(page.items) - shown) > 0:
        # Fastn's cursor would jump over the rows that were left out.
        around.pop("next_cursor", None)
        if 0 < shown <= len(page.positions):
            around["next_cursor"] = page.positions[shown - 1].encode()
            left_out.insert(0, f"{counted(missing, 'row')} did not fit; next_cursor goes on with them.")
        else:
            more = f"Call again with limit {shown} and go on from there."
            left_out.insert(0, f"{counted(missing, 'row')} did not fit. {more}")
    answer: dict[str, JsonValue] = {"data": "\n".join(map(str, kept)) if table else cast(JsonValue, kept)}
    if said := " ".join([*left_out, *cut]):
        answer["left_out"] = said
    return answer | around | {"untrusted": True}


def _lines(records: list[FastnObject], room: int) -> tuple[list[str], list[str]]:
    """The rows as lines of CSV under a line of names, as many as fit, and at least one."""
    rows = [_row(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_line(names)] if rows else []
    left = room - _size("\n".join(lines))
    for row in rows:
        line = _line([row.get(name) for name in names])
        left -= _size(line)
        if left < 0 and len(lines) == 1:
            cut, said = _fitting(line, max(left + _size(line), room // 2))
            return [*lines, str(cut)], [said]
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
    """The answer that creates a key. Its secrets stand where the operator wants them: here, or in a file named here."""
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


def _rows(records: list[FastnObject], room: int) -> tuple[list[JsonValue], list[str]]:
    """As many rows as fit, and at least one; what was cut of that one. What does not fit is not even looked at."""
    left = room
    rows: list[JsonValue] = []
    for record in records:
        row, raw = safe_json(row_of(record))
        left -= (_size(row) if raw is None else len(raw)) + 1
        if left < 0 and not rows:
            first, cut = _fitting(row, room)
            return [first], [cut]
        if left < 0:
            break
        rows.append(row)
    return rows, []


def _row(record: FastnObject) -> dict[str, JsonValue]:
    return cast("dict[str, JsonValue]", safe(row_of(record)))


def _fitting(value: JsonValue, room: int) -> tuple[JsonValue, str]:
    """The value, cut until it fits, and in words what was cut."""
    if _size(value) <= room:
        return value, ""
    limit = BUDGET
    while limit > 1:
        limit //= 2
        cut = _cut(value, limit)
        if _size(cut) <= room:
            return cut, f"Texts are cut at {limit} characters, lists and objects at {limit} entries."
    # A letter of JSON in JSON takes up to four bytes.
    return _cut(to_json(value).decode(), room // 4 - 40), "Only the beginning is here, as text."


def _cut(value: JsonValue, limit: int) -> JsonValue:
    if isinstance(value, str):
        return shorten(value, limit)
    if isinstance(value, list):
        kept = [_cut(item, limit) for item in value[:limit]]
        return [*kept, f"[{len(value) - limit} more]"] if len(value) > limit else kept
    if isinstance(value, dict):
        entries = {shorten(name, limit): _cut(item, limit) for name, item in islice(value.items(), limit)}
        return entries | ({f"[{len(value) - limit} more]": None} if len(value) > limit else {})
    return value


def _size(value: JsonValue) -> int:
    return len(to_json(value))


_FOREIGN = ("fastn", "preview", "now")
"""What in an error Fastn has written."""


def failed(error: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """An error as the model reads it: what Fastn or a person said stands under its own name, marked and visible."""
    said = cast("dict[str, JsonValue]", safe(error))
    return said | ({"untrusted": True} if any(name in error for name in _FOREIGN) else {})


def previewed(preview: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The answer to `dry_run`."""
    shown, left_out = _fitting(safe(preview), BUDGET - _ROOM_TO_SAY)
    answer: dict[str, JsonValue] = {"status": "preview", "message": "Nothing was sent.", "preview": shown}
    return answer | ({"left_out": left_out} if left_out else {}) | {"untrusted": True}


def waiting(preview: dict[str, JsonValue], where: str, until: float) -> dict[str, JsonValue]:
    """The answer to a call about which a person is asked elsewhere; `until` is in Unix seconds."""
    return {
        "status": "approval_required",
        "outcome": "approval_required",
        "message": f"Nothing was sent. A person has to approve this call. {where}",
        "next": "Tell the person. Once they have decided, make exactly the same call again.",
        "until": datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds"),
        "preview": _fitting(safe(preview), BUDGET - 3 * _ROOM_TO_SAY)[0],
        "untrusted": True,
    }
