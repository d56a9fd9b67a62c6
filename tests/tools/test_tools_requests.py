"""Requests of every operation of the catalog."""

import re
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.example_calls import as_heard, calls, example, few, ids, properties

from fastn_mcp.tools.access import CreateApiKey
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import RefusedValue
from fastn_mcp.tools.paging import List

WITH_AN_ID = [operation for operation in CATALOG if operation.route.parameters]
each = pytest.mark.parametrize("operation", CATALOG, ids=lambda operation: operation.tool_name())
each_with_an_id = pytest.mark.parametrize("operation", WITH_AN_ID, ids=lambda operation: operation.tool_name())

NOT_AN_ID = "takes an id, and this value cannot be one; find returns the id of a name"
HOSTILE = [
    "..", ".", "../api-keys/k1", "a/b", "a/../b", "a?b", "a#b", "a%2fb", "%2e%2e", "a;b", "a b", " a", "a ", "a\n",
    "\na", "a\r\nX: y", "a\x00", "ä", "\u202ea", "a\u200b", "\uff11", "a\\b", "-a", "_a", ":a", "a" * 257, "a&b", "a,b",
]  # fmt: skip


@each_with_an_id
@settings(few, max_examples=15)
@given(text=st.text(max_size=40) | st.sampled_from([*HOSTILE, "acme:hubspot:42", "A" * 256]) | ids)
def test_id_is_one_encoded_segment(operation: AnyOperation, text: str) -> None:
    (name,) = operation.route.parameters
    before, _, after = operation.route.path.partition(f"{{{name}}}")
    call = example(operation).model_copy(update={name: text})
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~:@+=-]{0,255}", text) is None:
        with pytest.raises(RefusedValue) as caught:
            call.request()
        assert str(caught.value) == f"{name}: {NOT_AN_ID}"
        return
    request = call.request()
    assert request.path == before + quote(text, safe="") + after
    assert request.path.count("/") == operation.route.path.count("/")
    assert operation.route.match(request.path) == {name: text}
    assert unquote(request.path.removeprefix(before).removesuffix(after)) == text


def test_id_that_could_leave_or_split_a_path_is_refused() -> None:
    """Quoting alone lets `..` through, so ids are of allowed characters only.

    Control characters are refused earlier: all of them if the arguments are a query, NUL in every argument.
    """
    for operation in WITH_AN_ID:
        (name,) = operation.route.parameters
        refused_early = "\x00\r\n" if operation.route.method in ("GET", "DELETE") else "\x00"
        for text in HOSTILE:
            if not set(refused_early).isdisjoint(text):
                with pytest.raises(ValidationError, match=name):
                    example(operation, **{name: text})
                continue
            with pytest.raises(RefusedValue) as caught:
                example(operation, **{name: text}).request()
            assert str(caught.value) == f"{name}: {NOT_AN_ID}"


def test_empty_id_is_refused() -> None:
    """An empty segment would name the collection."""
    for operation in WITH_AN_ID:
        (name,) = operation.route.parameters
        with pytest.raises(ValueError, match="must not be empty"):
            example(operation, **{name: ""})


@pytest.mark.parametrize(
    "argument",
    [{"expires": ""}, {"mode": " "}, {"permissions": ""}, {"customers": [""]}, {"allowed_ips": ["8.8.8.8", ""]}],
)
def test_blank_argument_of_a_key_is_refused(argument: dict[str, Any]) -> None:
    """Whether Fastn takes it for its default, for all customers or for no end at all is not known."""
    with pytest.raises(ValidationError, match="must not be empty"):
        CreateApiKey(name="BI", **argument)


@each
@few
@given(data=st.data())
def test_received_is_the_inverse_of_request(operation: AnyOperation, data: st.DataObject) -> None:
    call = data.draw(calls(operation))
    received = operation.received(as_heard(call.request()))
    assert received is not None
    assert received.request() == call.request()
    arguments = call.arguments()
    if operation.tool_name() == "run_workflow":
        arguments = {"input": {}} | arguments  # a missing input is sent as an empty one
    if isinstance(call, List):  # such a filter is not sent
        arguments = {name: value for name, value in arguments.items() if name not in call.applied_here()}
    assert received.arguments() == arguments


def test_request_is_received_by_its_own_operation_only() -> None:
    for operation in CATALOG:
        request = as_heard(example(operation).request())
        assert [other for other in CATALOG if other.received(request) is not None] == [operation]


@each
@few
@given(data=st.data())
def test_arguments_never_lower_an_effect(operation: AnyOperation, data: st.DataObject) -> None:
    assert data.draw(calls(operation)).effective.rank >= operation.effect.rank


@each
@few
@given(name=st.from_regex(r"[a-zA-Z_]{1,12}", fullmatch=True))
def test_unknown_argument_is_refused(operation: AnyOperation, name: str) -> None:
    """A silently dropped argument may be the dry run that was meant."""
    if name in operation.model_fields:
        return
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        example(operation, **{name: True})


def _is_list_of_values(operation: Any, name: str, value: object) -> bool:
    """Whether an argument of a list takes several values as a JSON list and as a text with commas."""
    if not issubclass(operation, List):
        return False
    if name == "fields":
        return value in ("text", "1")
    return bool(operation.known_values(name)) and value == ["a"]


def test_every_argument_is_strict() -> None:
    for operation in CATALOG:
        wrong: dict[str, list[object]] = {
            "string": [7, True, ["a"], {"a": 1}, b"a"],
            "integer": ["7", True, 7.0, "seven"],
            "object": [7, True, [], "[]", "text", '"text"', "null", "{"],
            "array": [7, True, {}, "{}", "text", "1", "[", [7], "[7]"],
            "boolean": [7, "true", "yes", {}, []],
        }
        for name, schema in properties(operation).items():
            an_id = name.endswith("_id")  # a number is an id that was read as one
            for value in wrong[schema["type"]][an_id:]:
                if _is_list_of_values(operation, name, value):
                    continue
                with pytest.raises(ValueError, match="validation error"):
                    example(operation, **{name: value})


def test_json_text_is_parsed_for_objects_and_arrays() -> None:
    """Some clients send an object or an array as text; nothing else is lenient."""
    for operation in CATALOG:
        for name, schema in properties(operation).items():
            if schema["type"] == "object":
                call = example(operation, **{name: '{"a": [1, "zwei", null]}'})
                assert getattr(call, name) == {"a": [1, "zwei", None]}
            if schema["type"] == "array":
                text, value = ('[{"a": 1}]', [{"a": 1}]) if schema["items"]["type"] == "object" else ('["a"]', ["a"])
                assert getattr(example(operation, **{name: text}), name) == value


def test_value_that_json_cannot_carry_is_refused_by_name() -> None:
    """It would fail only while it is sent, or be sent as invalid JSON."""
    for operation in CATALOG:
        for name, schema in properties(operation).items():
            if schema["type"] != "object":
                continue
            for value in (float("nan"), float("inf"), "\ud800", 10**5000):
                with pytest.raises(ValueError, match="JSON cannot carry"):
                    example(operation, **{name: {"a": [value]}})
            for text in ('{"a": NaN}', '{"a": -Infinity}', '{"a": "\\ud800"}'):
                with pytest.raises(ValueError, match="JSON cannot carry"):
                    example(operation, **{name: text})


def test_deeply_nested_text_is_refused() -> None:
    for operation in CATALOG:
        for name, schema in properties(operation).items():
            if schema["type"] in ("object", "array"):
                for text in ("[" * 100_000, '{"a":' * 100_000):
                    with pytest.raises(ValueError, match=name):
                        example(operation, **{name: text})


def test_update_without_a_change_is_refused() -> None:
    for operation in CATALOG:
        if operation.route.method != "PUT":
            continue
        with pytest.raises(ValueError, match="no field to change is given"):
            operation.model_validate(dict.fromkeys(operation.route.parameters, "one"))
        with pytest.raises(ValueError, match="no field to change is given"):
            operation.model_validate({**dict.fromkeys(operation.route.parameters, "one"), "extra": {}})


@each
@few
@given(data=st.data())
def test_own_arguments_do_not_change_the_request(operation: AnyOperation, data: st.DataObject) -> None:
    """Fastn never sees them, and no approval depends on them; the sandbox receives the same call."""
    call = data.draw(calls(operation))
    plain = call.model_copy(update={name: operation.model_fields[name].default for name in operation.ours()})
    assert call.request() == plain.request()
    assert call.arguments() == plain.arguments()
    assert operation.ours().isdisjoint(call.arguments())
    assert operation.received(as_heard(call.request())) == operation.received(as_heard(plain.request()))
