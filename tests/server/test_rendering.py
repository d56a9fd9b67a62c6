"""Rendered results: within the budget, marked as untrusted, and explicit about what is missing."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from pydantic_core import to_json
from support.stores import grant
from support.table_rows import rows_of

from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.procedures.list_results import ListAnswer
from fastn_mcp.records.formats import counted
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import sanitize
from fastn_mcp.server.rendering import BUDGET, MAX_PAGE, render, render_error, render_pending, render_preview
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import Customer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.workflows import RunWorkflow

ACCOUNT: dict[str, JsonValue] = {"profile": "default", "host": "live.fastn.ai", "environment": "live"}
READ = GetCustomer(customer_id="acme")
LIST = ListCustomers(limit=1)

# A few characters that are long in JSON, repeated. Never empty: empty fields are left out.
_texts = st.builds(
    str.__mul__, st.sampled_from(["a", "\\", '"', "\n", "\x00", "ü", "字", "🙂", "\u202e", "</data>"]),
    st.sampled_from([1, 3, 100, 9_000]),
).map(sanitize)  # fmt: skip
_plain: st.SearchStrategy[JsonValue] = st.booleans() | st.integers() | st.just(10**40) | _texts


def _around(inner: st.SearchStrategy[JsonValue], often: int) -> st.SearchStrategy[JsonValue]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(_texts, inner, max_size=3),
        inner.map(lambda one: [one] * often),
        inner.map(lambda one: {f"k{number}": one for number in range(often)}),
    )


_values = (
    _plain | _around(_plain, 3_000) | _around(_around(_plain, 20), 20) | _around(_around(_around(_plain, 3), 3), 3)
)
_records = st.dictionaries(st.sampled_from(["id", "name", "a", "b"]) | _texts, _values, max_size=5)
hostile = settings(max_examples=40, derandomize=True)


def record(values: dict[str, JsonValue]) -> FastnObject:
    return FastnObject.model_validate(values)


def page(rows: list[dict[str, Any]], **around: Any) -> ListAnswer:
    return ListAnswer(items=rows, **around)


def outline(value: JsonValue) -> object:
    """Return the structure of a value with the texts shortened to where they were cut."""
    if isinstance(value, str):
        return value.endswith(" more characters]")
    if isinstance(value, list):
        return [outline(item) for item in value]
    if isinstance(value, dict):
        return [(outline(name), outline(item)) for name, item in value.items()]
    return value


def size(value: object) -> int:
    return len(to_json(value))


@pytest.mark.long
@hostile
@given(values=_records)
def test_record_of_any_size_fits_the_budget(values: dict[str, JsonValue]) -> None:
    for call in (READ, DeleteCustomer(customer_id="a" * 256)):
        answer = render(call, record(values), ACCOUNT)
        assert size(answer) <= BUDGET
        assert answer["untrusted"] is True
        whole = outline(answer["data"]) == outline(values)
        assert whole != ("left_out" in answer)


@settings(hostile, max_examples=4)
@given(rows=st.lists(_records, max_size=6), often=st.sampled_from([1, 20]), cursor=_texts, more=st.booleans())
def test_page_of_any_size_fits_a_budget(rows: list[dict[str, JsonValue]], often: int, cursor: str, more: bool) -> None:
    rows = rows * often
    answer = render(LIST, page(rows, next_cursor=cursor if more else None, total=len(rows)), ACCOUNT)
    kept = cast("list[JsonValue]", answer["data"])
    assert size(answer) <= BUDGET
    assert len(kept) >= min(1, len(rows))
    whole = outline(kept) == outline(cast(JsonValue, rows)) and answer.get("next_cursor") == (
        LIST.sealed(cursor) if more else None
    )
    assert whole != ("left_out" in answer)
    if len(kept) < len(rows):
        assert "next_cursor" not in answer
        missing = counted(len(rows) - len(kept), "row")
        assert f"{missing} did not fit. Call again with limit {len(kept)}" in str(answer["left_out"])


@settings(hostile, max_examples=5)
@given(rows=st.lists(_records, max_size=6), often=st.sampled_from([1, 20]))
def test_table_of_any_size_fits_the_largest_page(rows: list[dict[str, JsonValue]], often: int) -> None:
    rows = rows * often
    answer = render(ListCustomers(limit=100), page(rows), ACCOUNT)
    kept = rows_of(answer["data"])
    assert size(answer) <= MAX_PAGE
    assert len(kept) >= min(1, len(rows))
    assert (len(kept) < len(rows)) == (f"{counted(len(rows) - len(kept), 'row')} did not fit." in str(answer))
    if "left_out" not in answer:
        assert [{k: v for k, v in row.items() if v is not None} for row in kept] == [
            {k: v for k, v in row.items() if v is not None} for row in rows
        ]


def test_table_names_columns_once_and_shared_values_once() -> None:
    rows = [{"id": 1, "plan": "Free", "name": "A"}, {"id": 2, "plan": "Free", "slug": "b", "name": "B"}]
    answer = render(ListCustomers(limit=21), page(rows, total=2), ACCOUNT)
    assert answer == {
        "total": 2,
        "data": {
            "columns": ["id", "slug", "name"], "in_all_rows": {"plan": "Free"}, "rows": [[1, None, "A"], [2, "b", "B"]],
        },
        "untrusted": True,
    }  # fmt: skip
    assert render(ListCustomers(limit=20), page(rows), ACCOUNT)["data"] == rows
    assert render(ListCustomers(limit=21, detail="full"), page(rows), ACCOUNT)["data"] == rows
    assert render(ListCustomers(limit=21), page([]), ACCOUNT)["data"] == {"columns": [], "rows": []}


def test_long_row_does_not_fill_a_page() -> None:
    rows = [{"id": number, "log": "x" * (90_000 if number == 3 else 9)} for number in range(20)]
    for call in (ListCustomers(detail="full"), ListCustomers(limit=100, fields=["log"])):
        answer = render(call, page(rows), ACCOUNT)
        kept = rows_of(answer["data"])
        assert [row["id"] for row in kept] == list(range(20))
        assert [row["log"] for row in kept if row["id"] != 3] == ["x" * 9] * 19
        assert kept[3]["log"].startswith("x" * 1_000)
        assert answer["left_out"] == "Long values of 1 row are cut: get_customer shows more of one."


def test_secrets_are_redacted_in_a_table() -> None:
    rows = [{"id": 1, "token": "canary", "auth": {"clientSecret": "canary"}}, {"id": 2, "token": "canary2"}]
    answer = render(ListCustomers(limit=100), page(rows), ACCOUNT)
    assert "canary" not in str(answer)
    assert str(answer).count("[hidden-by-fastn-mcp]") == 2 + ("in_all_rows" not in str(answer))


def test_small_result_is_complete() -> None:
    assert render(READ, record({"id": 1, "x": [None]}), ACCOUNT) == {"data": {"id": 1, "x": [None]}, "untrusted": True}
    assert render(LIST, page([{"id": "a"}], next_cursor="c", total=9, not_checked=["status"]), ACCOUNT) == {
        "data": [{"id": "a"}], "next_cursor": LIST.sealed("c"), "total": 9, "not_checked": ["status"],
        "untrusted": True,
    }  # fmt: skip
    assert render(LIST, page([]), ACCOUNT) == {"data": [], "untrusted": True}


def test_long_texts_are_cut_with_a_count() -> None:
    answer = render(READ, record({"id": "a", "log": "x" * 20_000}), ACCOUNT)
    data = cast("dict[str, str]", answer["data"])
    assert data["id"] == "a"
    assert data["log"] == "x" * 4_000 + " [16000 more characters]"
    assert answer["left_out"] == "Texts are cut at 4000 characters, lists and objects at 4000 entries."


def test_long_lists_and_objects_are_cut_with_a_count() -> None:
    many: dict[str, JsonValue] = {f"k{n}": n for n in range(5_000)}
    numbers: list[JsonValue] = [7] * 9_000
    listed = cast("dict[str, list[JsonValue]]", render(READ, record({"l": numbers}), ACCOUNT)["data"])["l"]
    assert listed[-1] == f"[{9_000 - len(listed) + 1} more]"
    kept = cast("dict[str, dict[str, JsonValue]]", render(READ, record({"o": many}), ACCOUNT)["data"])["o"]
    assert list(kept)[-1] == f"[{5_000 - len(kept) + 1} more]"


def test_first_row_is_cut_not_dropped() -> None:
    answer = render(LIST, page([{"id": "a", "log": "x" * 20_000}], next_cursor="c"), ACCOUNT)
    (row,) = cast("list[dict[str, str]]", answer["data"])
    assert row["id"] == "a"
    assert row["log"].startswith("x" * 4_000)
    assert answer["left_out"] == "Long values of 1 row are cut: get_customer shows more of one."
    assert answer["next_cursor"] == LIST.sealed("c")


def test_empty_fields_of_a_record_are_left_out() -> None:
    """A dozen nulls of other types say nothing; what a run received and returned is shown as it is."""
    raw: dict[str, JsonValue] = {
        "id": 1, "schedule": None, "note": "", "routes": [{"routeId": "wf", "filter": None}, None], "count": 0,
        "output": [{"a": None}], "input": {"b": None}, "labels": [],
    }  # fmt: skip
    for call in (READ, DeleteCustomer(customer_id="a")):
        assert render(call, record(raw), ACCOUNT)["data"] == {
            "id": 1, "routes": [{"routeId": "wf"}, None], "count": 0, "output": [{"a": None}], "input": {"b": None},
            "labels": [],
        }  # fmt: skip


def test_oversized_cursor_is_explained() -> None:
    answer = render(LIST, page([{"id": "a"}], next_cursor="c" * 9_000), ACCOUNT)
    assert "next_cursor" not in answer
    assert "use filters" in str(answer["left_out"])


def test_deep_value_is_rendered_as_truncated_text() -> None:
    deep: JsonValue = "end"
    for _ in range(180):
        deep = {"k" * 60: deep, "l" * 60: [["m" * 60]]}
    answer = render(READ, record({"deep": deep}), ACCOUNT)
    assert size(answer) <= BUDGET
    assert answer["left_out"] == "Only the beginning is here, as text."
    assert str(answer["data"]).startswith('{"deep":{"kkkk')


@pytest.mark.parametrize(
    ("call", "target"),
    [
        (DeleteCustomer(customer_id="acme"), "acme"),
        (UpdateCustomer(customer_id="acme", name="A"), "acme"),
        (RunWorkflow(workflow_id="wf"), "wf"),
        (CreateSecret(name="N", value="v"), None),
        (AiChat(message="hi"), None),
    ],
)
def test_change_names_account_and_target(call: Operation[Any], target: str | None) -> None:
    answer = render(call, record({"id": "x"}), ACCOUNT)
    assert (answer["done"], answer["account"], answer.get("target")) == (call.tool_name(), ACCOUNT, target)
    big = render(call, record({"id": "x", "log": "x" * 90_000}), ACCOUNT)
    assert (big["done"], big["account"], big.get("target")) == (call.tool_name(), ACCOUNT, target)


def test_read_does_not_name_the_account() -> None:
    assert render(READ, record({"id": "x"}), ACCOUNT).keys() == {"data", "untrusted"}


@given(text=st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_text_from_fastn_appears_in_data_only(text: str) -> None:
    evil: dict[str, JsonValue] = {"id": "x", "name": text, "done": "evil", "account": "evil", "untrusted": False}
    answer = render(UpdateCustomer(customer_id="acme", name="A"), Customer.model_validate(evil), ACCOUNT)
    data = {name: value for name, value in (evil | {"name": sanitize(text, keep="\n\t")}).items() if value != ""}
    assert answer == {
        "done": "update_customer", "account": ACCOUNT, "target": "acme", "data": data, "untrusted": True,
    }  # fmt: skip


def test_invisible_characters_in_data_are_sanitized() -> None:
    hostile = "a\u202eb\u200bc\x1b[2K\r\n\tJos\u00e9 Jose\u0301 \u0939\u093f\u0928\u094d\u0926\u0940"
    answer = render(READ, record({"id": 1, "k\u202e": [hostile]}), ACCOUNT)
    seen = "a\\u{202e}b\\u{200b}c\\u{1b}[2K\\u{d}\n\tJos\u00e9 Jose\u0301 \u0939\u093f\u0928\u094d\u0926\u0940"
    assert answer["data"] == {"id": 1, "k\\u{202e}": [seen]}


def test_preview_and_pending_result_say_nothing_was_sent() -> None:
    card: dict[str, JsonValue] = {"call": "delete_customer"}
    assert render_preview(card) == {
        "status": "preview", "message": "Nothing was sent.", "preview": card, "untrusted": True,
    }  # fmt: skip
    shown: Any = SimpleNamespace(data=lambda: card)
    request = grant(expires=1_782_907_200.0)
    answer = render_pending(PendingApproval(request, shown, "See http://127.0.0.1:1/."), card)
    assert answer["status"] == answer["outcome"] == "approval_required"
    assert answer["until"] == "2026-07-01T12:00:00+00:00"
    assert str(answer["message"]) == "Nothing was sent. A person has to approve this call. See http://127.0.0.1:1/."
    assert str(answer["next"]).startswith("Tell the person. Do not poll")
    assert answer["retry_after_seconds"] == 60
    assert "exactly the same call" in str(answer["next"])
    assert (answer["preview"], answer["untrusted"]) == (card, True)


def test_values_of_secret_fields_are_redacted() -> None:
    kept: dict[str, JsonValue] = {"id": "s", "secretId": "x", "tokenType": "t", "lastTokenAt": "2026", "token": True}
    secrets: dict[str, JsonValue] = {
        "auth": [{"clientSecret": "canary"}], "headers": {"Authorization": "Bearer canary"}, "apiKey": "canary",
    }  # fmt: skip
    data = kept | secrets
    for shown in (render(READ, record(data), ACCOUNT), render(LIST, page([data]), ACCOUNT)):
        assert "canary" not in str(shown)
        assert str(shown).count("[hidden-by-fastn-mcp]") == 3
        first = shown["data"][0] if isinstance(shown["data"], list) else shown["data"]
        assert isinstance(first, dict)
        assert {name: first[name] for name in kept} == kept


def test_error_text_from_fastn_is_marked() -> None:
    fastns: JsonValue = {"status": 422, "message": "a\u202eb", "details": {"clientSecret": "canary"}}
    marked = {"status": 422, "message": "a\\u{202e}b", "details": {"clientSecret": "[hidden-by-fastn-mcp]"}}
    error: dict[str, JsonValue] = {"outcome": "invalid", "message": "ours"}
    faulty: dict[str, JsonValue] = {**error, "fastn": fastns}
    assert render_error(faulty) == error | {"fastn": marked, "untrusted": True}
    assert render_error(error | {"note": "n\u200b"}) == error | {"note": "n\\u{200b}"}
    assert render_error(error) == error
    rows: dict[str, JsonValue] = {"calls": [{"outcome": "done", "name": "Acme, approved"}]}
    assert render_error(error | rows) == error | rows | {"untrusted": True}
