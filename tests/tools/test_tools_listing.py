"""Lists: bounded pages with the right rows, whichever parameters Fastn honours."""

import base64
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows


def rows(count: int, first: int = 0) -> list[JsonValue]:
    return [{"id": f"r{number}", "name": f"Row {number}"} for number in range(first, first + count)]


def ids(page: Any) -> list[object]:
    return [row.get("id") for row in page.rows]


class Store:
    """A Fastn that honours some of limits, offsets, cursors and totals."""

    def __init__(self, count: int, *, limit: bool = True, offset: bool = True, cursor: bool = False) -> None:
        self._rows = rows(count)
        self._limit, self._offset, self._cursor = limit, offset, cursor
        self.asked = 0

    def __call__(self, query: dict[str, JsonValue]) -> JsonValue:
        self.asked += 1
        start = cast(int, query.get("offset", 0)) if self._offset else 0
        if self._cursor:
            start = int(cast(str, query.get("cursor", "0")))
        end = start + cast(int, query["limit"]) if self._limit else None
        page: dict[str, JsonValue] = {"data": self._rows[start:end], "total": len(self._rows)}
        if self._cursor and end is not None and end < len(self._rows):
            page["pagination"] = {"nextCursor": str(end)}
        return page


def walk(store: Store, limit: int) -> list[object]:
    """Return every page, following the cursors."""
    found: list[object] = []
    cursor: str | None = None
    for _ in range(1_000):
        call = ListCustomers(limit=limit, cursor=cursor)
        page = call.result(store(call.request().query))
        assert len(page.rows) <= limit
        found += ids(page)
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("it never ends")


@pytest.mark.parametrize(
    "kind",
    [
        {"limit": True, "offset": True},
        {"limit": True, "cursor": True},
        {"limit": False, "offset": False},
        {"limit": False, "offset": True},
    ],
)
@given(count=st.integers(0, 60), limit=st.integers(1, 25))
def test_pages_hold_every_row_once_and_in_order(kind: dict[str, bool], count: int, limit: int) -> None:
    assert walk(Store(count, **kind), limit) == [f"r{number}" for number in range(count)]


def test_fastns_cursor_is_wrapped_and_sent_back_unchanged() -> None:
    page = ListCustomers(limit=2).result({"data": rows(2), "nextCursor": "theirs/+="})
    assert page.next_cursor not in (None, "theirs/+=")
    assert ListCustomers(limit=2, cursor=page.next_cursor).request().query == {"limit": 2, "cursor": "theirs/+="}


@pytest.mark.parametrize("name", ["nextCursor", "next_cursor", "nextPageToken", "next", "cursor"])
def test_cursor_is_found_under_common_names(name: str) -> None:
    cursor: dict[str, JsonValue] = {name: "c2"}
    responses: list[dict[str, JsonValue]] = [cursor, {"pagination": cursor}, {"meta": cursor}, {"page": cursor}]
    for around in responses:
        page = ListCustomers().result({"items": rows(1), **around})
        assert ListCustomers(cursor=page.next_cursor).request().query["cursor"] == "c2", around


@pytest.mark.parametrize("value", [None, "", 7, True, ["c"], {"a": 1}])
def test_invalid_cursor_of_fastn_ends_the_list(value: JsonValue) -> None:
    assert ListCustomers().result({"items": rows(1), "next": value}).next_cursor is None


@pytest.mark.parametrize(
    ("total", "expected"), [(7, 7), (0, 0), (True, None), (-1, None), ("7", None), (2**53, None), (10**400, None)]
)
def test_total_is_a_count_or_omitted(total: Any, expected: int | None) -> None:
    assert ListCustomers().result({"items": rows(1), "total": total}).total == expected


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FORGED = [
    "", "x", "ä", "%%%", "a" * 100_001, *map(_encoded, ("", "[]", "[1]", "[null,0]", "[1,0,0]", "[null,-1,0]",
    "[null,0,-1]", '[null,"x",0]', "[null,NaN,0]", "[null,Infinity,0]", "[null,0,-Infinity]", '["\\ud800",0,0]',
    "{}", '{"a":1,"b":2,"c":3}', "[" * 100_000, "[null,null,0]", "[null,[],0]", '"abc"', "123",
    f"[null,{'9' * 5000},0]")),
]  # fmt: skip


def test_foreign_cursor_is_refused() -> None:
    for cursor in FORGED:
        with pytest.raises(ValidationError, match="not a next_cursor of an earlier page"):
            ListCustomers(cursor=cursor)


@given(st.lists(st.none() | st.text() | st.integers() | st.floats() | st.booleans(), min_size=2, max_size=4))
def test_forged_cursor_is_refused_or_harmless(parts: list[Any]) -> None:
    """A cursor chooses the start of a page and nothing else."""
    try:
        call = ListCustomers(cursor=_encoded(json.dumps(parts)))
    except ValidationError:
        return
    request = call.request()
    assert request.path == "/api/v1/customers"
    assert request.query.keys() <= {"limit", "cursor", "offset"}
    assert len(call.result({"data": rows(30)}).rows) <= 20


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ([{"id": "a"}, "b", 3], ["a", None, None]),
        ({"id": "only"}, ["only"]),
        ("text", [None]),
        ({"tags": ["x"], "items": [{"id": "a"}]}, ["a"]),
        ({"things": [{"id": "a"}]}, ["a"]),
        ({"data": ["x", "y"]}, [None, None]),
    ],
)
def test_odd_responses_are_rows_nevertheless(body: JsonValue, found: list[object]) -> None:
    assert ids(ListCustomers().result(body)) == found


def test_filters_are_sent_and_applied_to_the_response() -> None:
    call = ListCustomers(search="ACME", status="active")
    assert call.request().query == {"limit": 20, "search": "ACME", "status": "active"}
    page = call.result(
        [
            {"id": "1", "name": "Acme", "status": "Active"},
            {"id": "2", "name": "Globex", "status": "Active"},
            {"id": "3", "slug": "acme-eu", "status": "ACTIVE"},
            {"id": "acme-4", "status": "Pending"},
            {"id": "5", "email": "ana@acme.example", "status": "active"},
            {"id": "6", "name": "x", "description": "for acme", "status": "active"},
        ]
    )
    assert ids(page) == ["1", "3", "5", "6"]
    assert page.not_checked is None


def test_filter_that_rows_cannot_confirm_is_reported() -> None:
    page = ListConnections(customer_id="acme", connector_id="hubspot", status="FAILED").result(
        [{"id": "1", "endOrgId": "acme", "status": "failed"}, {"id": "2", "connectorId": "x"}]
    )
    assert ids(page) == ["1"]
    assert page.not_checked == ["connector_id"]
    page = ListConnections(customer_id="acme", status="FAILED").result([{"id": "1"}])
    assert ids(page) == ["1"]
    assert page.not_checked == ["customer_id", "status"]


def test_number_matches_its_text() -> None:
    page = ListExecutions(workflow_id="7").result([{"id": "1", "workflowId": 7}, {"id": "2", "workflowId": 8}])
    assert ids(page) == ["1"]


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("2026-07-01", None, ["zulu", "berlin", "late"]),
        ("2026-07-01T00:00:00Z", "2026-07-01T10:00:00Z", ["zulu", "berlin"]),
        ("2026-07-01T02:00:00+02:00", None, ["zulu", "berlin", "late"]),
        ("2026-07-01T09:30:00+00:00", "2026-07-01T11:30:00+02:00", []),
        (None, "2026-07-01", ["early"]),
        ("2026-07-01T10:00:00Z", None, ["late"]),
    ],
)
def test_times_are_compared_in_utc(since: str | None, until: str | None, found: list[str]) -> None:
    page = QueryAuditLog(since=since, until=until).result(
        [
            {"id": "early", "timestamp": "2026-06-30T23:59:59.999Z"},
            {"id": "zulu", "createdAt": "2026-07-01T00:00:00Z"},
            {"id": "berlin", "timestamp": "2026-07-01T11:00:00+02:00"},
            {"id": "late", "startedAt": "2026-07-01T10:00:00"},
        ]
    )
    assert ids(page) == found
    assert page.not_checked is None


def test_unreadable_times_are_reported_as_unchecked() -> None:
    page = QueryAuditLog(since="2026-07-01").result([{"id": "1"}, {"id": "2", "createdAt": "yesterday"}])
    assert (ids(page), page.not_checked) == (["1", "2"], ["since"])
    page = QueryAuditLog(since="last night").result([{"id": "1", "createdAt": "2026-07-01T00:00:00Z"}])
    assert (ids(page), page.not_checked) == (["1"], ["since"])


def test_filtered_pages_continue_where_they_stopped() -> None:
    many: list[JsonValue] = [{"id": f"{n}", "name": "hit" if n % 3 == 0 else "miss"} for n in range(30)]
    found: list[object] = []
    cursor: str | None = None
    while True:
        page = ListWorkflows(search="hit", limit=4, cursor=cursor).result({"data": many})
        found += ids(page)
        if (cursor := page.next_cursor) is None:
            break
    assert found == [str(n) for n in range(0, 30, 3)]
