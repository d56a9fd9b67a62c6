"""Fields of rows. Fastn documents neither types nor spellings, so every field is read tolerantly."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.procedures.list_results import ConciseRows
from fastn_mcp.records.formats import age
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import (
    Row,
    connection_refers,
    number,
    owner_of,
    parse_timestamp,
    text,
    timestamp,
    value,
    word,
)
from fastn_mcp.tools.paging import condition

TIMES = st.integers(1_000_000_000, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DIGITS = st.text("0123456789", max_size=12)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "id", "at"]), inner),
    max_leaves=5,
)


@given(utc=TIMES, zone=ZONES, digits=DIGITS, separator=st.sampled_from("T t"))
def test_timestamp_is_parsed_in_every_form(utc: datetime, zone: timezone, digits: str, separator: str) -> None:
    """ISO 8601 with or without a zone and with any fraction; Unix seconds and milliseconds."""
    fraction = f".{digits}" if digits else ""
    exact = utc + timedelta(microseconds=int(digits[:6].ljust(6, "0")))
    naive = f"{utc.replace(tzinfo=None).isoformat(separator)}{fraction}"
    offset = utc.astimezone(zone)
    for iso in (naive, f"{naive}Z", f"{naive}z", f"{naive} UTC"):
        assert parse_timestamp(iso) == exact
    assert parse_timestamp(offset.isoformat()) == utc
    seconds = int(utc.timestamp())
    for epoch in (seconds, float(seconds), str(seconds), seconds * 1000, str(seconds * 1000), f"{seconds}.0"):
        assert parse_timestamp(epoch) == utc
    assert condition("since", "since", utc.isoformat())({"createdAt": seconds * 1000}) is True
    assert condition("until", "until", utc.isoformat())({"createdAt": str(seconds)}) is False


@pytest.mark.parametrize(
    "unreadable",
    [None, True, 0, -1, 5, "", "never", "2026-13-01", "30d", float("nan"), float("inf"), 10**30, "9" * 400,
     "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", [], {}, {"seconds": 5}],
)  # fmt: skip
def test_unreadable_timestamp_is_none(unreadable: Any) -> None:
    """0 and the year 1 mean never."""
    assert parse_timestamp(unreadable) is None


@given(found=JSON)
def test_any_value_is_read_without_an_error(found: Any) -> None:
    row: Row = {"name": found, "at": found, "inner": found}
    assert isinstance(text(row, "name", "inner.name"), str)
    assert isinstance(word(row, "name"), str)
    assert isinstance(name_of(row), str)
    amount, when = number(row, "name", "inner.at"), timestamp(row, "at", "inner.at")
    assert amount is None or abs(amount) <= 2**53
    assert when is None or when.tzinfo is UTC


def test_field_is_found_in_each_spelling_and_place() -> None:
    row: Row = {"workflowId": None, "workflow_id": "wf_1", "connector": {"display_name": "Slack"}, "name": " ", "n": 0}
    assert text(row, "workflowId") == "wf_1"
    assert text(row, "name", "connector.displayName") == "Slack"
    assert text(row, "connector", "connector.name", "n") == "0"
    assert value(row, "missing", "n") == 0
    assert owner_of({"customer": {"id": 7}}) == owner_of({"end_org_id": "7"}) == "7"


@pytest.mark.parametrize("spelling", ["Not Published", "NOT_PUBLISHED", " not-published "])
def test_enum_is_read_in_each_spelling(spelling: str) -> None:
    """Fastn's documentation: enums appear in upper and lower case."""
    assert word({"status": spelling}, "status") == "not published"
    assert condition("status", "status", "NOT_PUBLISHED")({"status": spelling}) is True


@pytest.mark.parametrize(
    ("raw", "amount"),
    [(5, 5), (2.5, 2.5), ("5", 5), (" 1,250.5 ", 1250.5), ("92 %", 92), ("-3", -3), (True, None), ("1,5", None),
     ("five", None), ("1e3", None), (float("nan"), None), (10**400, None), ("", None), (None, None), ([5], None)],
)  # fmt: skip
def test_number_is_parsed_from_text(raw: Any, amount: float | None) -> None:
    assert number({"used": raw}, "used") == amount


@pytest.mark.parametrize(
    ("past", "words"),
    [
        ({"seconds": 4}, "just now"),
        ({"seconds": 119}, "1 minute ago"),
        ({"hours": 23}, "23 hours ago"),
        ({"days": 6}, "6 days ago"),
        ({"days": 20}, "20 days ago"),
        ({"days": -14}, "in 14 days"),
        ({"days": 59}, "59 days ago"),
        ({"days": 61}, "2 months ago"),
        ({"days": 364}, "11 months ago"),
        ({"days": 365}, "1 year ago"),
    ],
)
def test_age_is_in_days_up_to_two_months(past: dict[str, int], words: str) -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert age(now - timedelta(**past), now) == words


def test_list_shows_a_numeric_time_with_its_age() -> None:
    now = datetime(2026, 11, 25, 9, tzinfo=UTC)
    row: dict[str, Any] = {"createdAt": (now.timestamp() - 3600) * 1000, "lastUsed": "1795597200", "count": 1795597200}
    shown = ConciseRows(("createdAt", "lastUsed", "count"), now=now)(row)
    assert shown == {
        "createdAt": "2026-11-25T08:00:00Z (1 hour ago)",
        "lastUsed": "2026-11-25T09:00:00Z (just now)",
        "count": 1795597200,
    }


def test_row_without_its_id_is_shown_with_its_own_fields() -> None:
    """Fastn may name the id differently, and without it no other tool can be called."""
    row: Row = {"name": "Acme", "_id": "c1", "status": "Active", "address": {"city": "Bonn"}}
    concise = ConciseRows(("id", "name", "status"))
    assert concise(row) == {"name": "Acme", "_id": "c1", "status": "Active"}
    assert concise({"id": "c1", **row}) == {"id": "c1", "name": "Acme", "status": "Active"}


@pytest.mark.parametrize("name", ["", ":second"])
def test_id_of_a_connection_tells_its_customer_with_or_without_a_name(name: str) -> None:
    refers = {"environment": "live", "connectorId": "c1", "endOrgId": "cust"}
    assert connection_refers(f"ucl:org:live:c1:oauth:cust{name}") == refers
    assert connection_refers(f"ucl:org:live:c1:oauth:default{name}") == refers | {"endOrgId": None}
    assert connection_refers("ucl:org:live:c1:oauth") == connection_refers("ucl:org:live:c1:oauth:cust:a:b") == {}


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-11-16T00:00:00", "9 days ago"),
        ("2026-11-16T15:00:00", "9 days ago"),
        ("2026-11-24T15:00:00", "18 hours ago"),
        ("2026-11-23T23:00:00", "2 days ago"),
        ("2026-11-27T08:00:00", "in 2 days"),
    ],
)
def test_days_are_counted_by_the_calendar(moment: str, words: str) -> None:
    """So that two times of one day, and its date, have one age."""
    now = datetime(2026, 11, 25, 9, tzinfo=UTC)
    assert age(datetime.fromisoformat(moment).replace(tzinfo=UTC), now) == words
