"""A client's arguments become a call, or an error that names the argument and the reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json
from support.example_calls import example

from fastn_mcp.errors import NotSent
from fastn_mcp.procedures.catalog import UnknownTool, parse
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.tool import DRY_RUN

CANARY = "canary-3f9a"


def refusal(name: str, arguments: dict[str, Any]) -> str:
    """Return the error for arguments that are not a valid call."""
    with pytest.raises(NotSent) as caught:
        parse(OPERATIONS, name, arguments)
    assert caught.value.known == "Nothing was sent."
    assert CANARY not in str(caught.value.data())
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value.what


def test_call_is_built_from_its_arguments() -> None:
    """Parsing is the only way from a client to a call."""
    for operation in CATALOG:
        call = example(operation)
        wanted = parse(OPERATIONS, operation.tool_name(), call.arguments())
        assert (wanted.call, wanted.dry_run) == (call, False)


def test_changing_tools_take_dry_run_and_others_do_not() -> None:
    """A silently dropped dry_run would make the change itself."""
    for operation in CATALOG:
        arguments = example(operation).arguments()
        if operation.route.method == "GET":
            assert "unknown argument 'dry_run'" in refusal(operation.tool_name(), {**arguments, DRY_RUN: True})
            continue
        assert parse(OPERATIONS, operation.tool_name(), {**arguments, DRY_RUN: True}).dry_run
        assert not parse(OPERATIONS, operation.tool_name(), {**arguments, DRY_RUN: False}).dry_run
        wrong: list[object] = ["true", 1, 0, None, [], "false"]
        for value in wrong:
            message = refusal(operation.tool_name(), {**arguments, DRY_RUN: value})
            assert message == "dry_run: must be true or false."


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("get_customer", {}, "customer_id: is required (Id/name)."),
        ("get_customer", {"customer": CANARY}, "customer_id: is required (Id/name); unknown argument 'customer'"),
        ("list_customers", {"serach": CANARY}, "unknown argument 'serach' (did you mean 'search'?)."),
        ("list_customers", {"zzz": CANARY}, "unknown argument 'zzz'."),
        ("list_customers", {"limit": CANARY}, "limit: must be a valid integer (1-100, default 20)."),
        ("list_customers", {"limit": 0}, "limit: must be greater than or equal to 1."),
        ("create_role", {"name": "a" * 201, "permissions": ["ok"]}, "name: 201 characters; at most 200 are accepted."),
        ("list_customers", {"cursor": CANARY}, "cursor: not a next_cursor of an earlier page."),
        ("update_customer", {"customer_id": "c"}, "no field to change is given."),
        ("create_secret", {"value": CANARY}, "name: is required (UPPER_SNAKE_CASE, at most 200 characters)."),
        ("create_customer", {"name": "a", "extra": {"a": float("nan"), "b": CANARY}}, "extra: holds a number or a"),
        ("create_role", {"name": "a", "permissions": [7]}, "permissions.0: must be a valid string (For example wo"),
    ],
)
def test_argument_error_names_the_field_and_the_reason_but_not_the_value(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    assert refusal(name, arguments).startswith(message)


def test_argument_errors_are_limited_to_eight() -> None:
    message = refusal("list_customers", {f"k{number}": CANARY for number in range(60)})
    assert message.count("unknown argument") == 8
    assert message.endswith("; 52 more.")


def test_disabled_tool_is_not_reported_as_unknown() -> None:
    """Filters also apply at call time, and the error says that the model made no mistake."""
    with pytest.raises(NotSent, match="is disabled here") as caught:
        parse({"get_customer": GetCustomer}, "delete_customer", {"customer_id": "c"})
    assert not isinstance(caught.value, UnknownTool)


@pytest.mark.parametrize(
    ("name", "near"), [("get_custmer", " (did you mean 'get_customer'?)"), ("zzz", ""), ("x" * 9_999, "")]
)
def test_unknown_tool_error_names_the_nearest_one(name: str, near: str) -> None:
    """MCP: an unknown tool is a protocol error; the hint is ours."""
    with pytest.raises(UnknownTool) as caught:
        parse(OPERATIONS, name, {})
    assert caught.value.what == f"There is no tool {name[:64]!r}{near}."


@given(arguments=st.dictionaries(st.text(max_size=80), st.text() | st.integers() | st.none(), max_size=4))
def test_any_request_gets_a_json_response(arguments: dict[str, Any]) -> None:
    with pytest.raises(NotSent) as caught:  # the name is not text
        parse(OPERATIONS, "create_customer", {**arguments, "name": 7})
    assert len(to_json(caught.value.data())) < 3_000
