"""The table of an answer: what is named once, and what happens to rows that do not fit."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from fastn_mcp.records.formats import age, age_first, age_only, aged, dated, name_only, named_id
from fastn_mcp.records.sizes import size_of
from fastn_mcp.records.table import Table

NOW = datetime(2026, 12, 2, 12, 0, tzinfo=UTC)


def with_lists(plain: st.SearchStrategy[JsonValue]) -> st.SearchStrategy[JsonValue]:
    return plain | st.lists(plain, max_size=2)


_cells = with_lists(st.integers(-9, 9) | st.booleans() | st.text(max_size=4))
_records = st.lists(st.dictionaries(st.sampled_from(["id", "name", "status", "since"]), _cells, max_size=4), max_size=5)


def without_none(records: Any) -> list[dict[str, JsonValue]]:
    return [{name: cell for name, cell in record.items() if cell is not None} for record in records]


@given(records=_records)
def test_table_keeps_every_cell_of_its_records(records: list[dict[str, JsonValue]]) -> None:
    table = Table.parse(Table.of(records).to_json())
    assert table is not None
    assert without_none(table.records()) == records


@given(records=_records.filter(lambda each: len(each) > 1))
def test_table_states_no_id_and_no_list_once_for_all_rows(records: list[dict[str, JsonValue]]) -> None:
    table = Table.of(records)
    assert "id" not in table.in_all_rows
    assert not any(isinstance(value, list) for value in table.in_all_rows.values())
    assert set(table.columns).isdisjoint(table.in_all_rows)


def test_value_of_another_shape_is_no_table() -> None:
    values: list[JsonValue] = [None, "rows", [], {}, {"columns": []}, {"columns": "id", "rows": []}]
    assert [Table.parse(value) for value in values] == [None] * len(values)


@settings(derandomize=True)
@given(
    lengths=st.lists(st.lists(st.sampled_from([1, 30, 5_000]), min_size=3, max_size=3), min_size=1, max_size=40),
    budget=st.sampled_from([1_500, 4_000, 30_000]),
    long_rows=st.sampled_from([4, 12]),
)
def test_rows_fit_the_budget_and_the_long_ones_are_cut(lengths: Any, budget: int, long_rows: int) -> None:
    whole = Table(["a", "b", "c"], [["x" * length for length in row] for row in lengths])
    fitted, cut = whole.fitted(budget, long_rows)
    assert size_of(fitted.to_json()) <= budget
    assert len(fitted.rows) >= min(long_rows, len(lengths))
    differing = [number for number, row in enumerate(fitted.rows) if row != whole.rows[number]]
    assert len(differing) == cut


def test_only_the_long_cells_of_a_row_are_cut() -> None:
    whole = Table(["a", "b"], [["x" * 100, "y" * 9_000]] * 9)
    fitted, cut = whole.fitted(8_000, 9)
    assert cut == 9
    assert all(row[0] == "x" * 100 for row in fitted.rows)
    assert all("more characters]" in str(row[1]) for row in fitted.rows)


@given(seconds=st.integers(-10_000_000, 10_000_000))
def test_age_of_a_time_is_found_again(seconds: int) -> None:
    at = NOW - timedelta(seconds=seconds)
    assert age_only(aged(at, NOW)) == age(at, NOW)
    assert age_only(f"expired, {dated(at, NOW)}") == f"expired, {age(at, NOW)}"
    assert age_first(aged(at, NOW)) == f"{age(at, NOW)}, {at:%Y-%m-%d %H:%M} UTC"
    assert age_first(dated(at, NOW)) == f"{age(at, NOW)}, {at:%Y-%m-%d}"


def test_name_of_an_id_is_found_again() -> None:
    first = named_id("wf_8a1f03c2d4", "Nightly sync")
    second = named_id("8a1f03c2-aaaa-bbbb-cccc-0123456789ab", "Orders (EU)")
    assert name_only(f"workflow {first}, {second}") == "Nightly sync, Orders (EU)"
    assert name_only("a text (with brackets)") == "a text (with brackets)"


def test_age_of_a_date_is_the_number_of_days_between_the_dates() -> None:
    """The 4th was "in 1 day" on the 2nd, being less than two days away."""
    now = datetime(2026, 12, 2, 5, tzinfo=UTC)
    assert dated(datetime(2026, 12, 4, tzinfo=UTC), now) == "2026-12-04 (in 2 days)"
    assert dated(datetime(2026, 12, 3, 6, tzinfo=UTC), now) == "2026-12-03 (in 1 day)"
    assert dated(datetime(2026, 12, 3, 4, tzinfo=UTC), now) == "2026-12-03 (in 23 hours)"
    assert dated(datetime(2026, 11, 30, 23, tzinfo=UTC), now) == "2026-11-30 (2 days ago)"
    assert dated(datetime(2026, 8, 1, tzinfo=UTC), now) == f"2026-08-01 ({age(datetime(2026, 8, 1, tzinfo=UTC), now)})"
