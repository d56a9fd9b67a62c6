"""What every operation of the catalog puts on the wire."""

import re
from urllib.parse import quote, unquote

import pytest
from example_calls import as_heard, calls, example, few, ids, properties
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import RefusedValue
from fastn_mcp.tools.tool import Effect

WITH_AN_ID = [operation for operation in CATALOG if operation.route.parameters]
each = pytest.mark.parametrize("operation", CATALOG, ids=lambda operation: operation.tool_name())
each_with_an_id = pytest.mark.parametrize("operation", WITH_AN_ID, ids=lambda operation: operation.tool_name())

NOT_AN_ID = "not an id: letters, digits and . _ ~ : @ + = - only, beginning with a letter or digit"
HOSTILE = [
    "..", ".", "../api-keys/k1", "a/b", "a/../b", "a?b", "a#b", "a%2fb", "%2e%2e", "a;b", "a b", " a", "a ", "a\n",
    "\na", "a\r\nX: y", "a\x00", "ä", "\u202ea", "a\u200b", "\uff11", "a\\b", "-a", "_a", ":a", "a" * 257, "a&b", "a,b",
]  # fmt: skip


@each_with_an_id
@settings(few, max_examples=40)
@given(text=st.text(max_size=40) | st.sampled_from(HOSTILE) | ids)
def test_an_id_can_only_ever_be_one_encoded_segment(operation: AnyOperation, text: str) -> None:
    """Ours (THREATS T6): whatever stands in an id, the path names one resource of the template or there is none."""
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


@each_with_an_id
def test_what_could_climb_or_split_a_path_is_refused(operation: AnyOperation) -> None:
    """Ours (THREATS, fact 3): quoting alone lets `..` through, so ids are of allowed characters only.

    Control characters are refused earlier: all of them where the arguments are a query, NUL in every argument.
    """
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


@each_with_an_id
def test_an_empty_id_is_no_call_at_all(operation: AnyOperation) -> None:
    """Ours: an empty segment would name the collection."""
    (name,) = operation.route.parameters
    with pytest.raises(ValueError, match="must not be empty"):
        example(operation, **{name: ""})


@each_with_an_id
@pytest.mark.parametrize("text", ["acme:hubspot:42", "user@acme.com", "a=b+c~d", "7", "A" * 256])
def test_composite_ids_are_accepted_and_encoded(operation: AnyOperation, text: str) -> None:
    """Fastn's: real ids hold colons."""
    (name,) = operation.route.parameters
    request = example(operation, **{name: text}).request()
    assert request.path == operation.route.path.replace(f"{{{name}}}", quote(text, safe=""))
    assert operation.route.match(request.path) == {name: text}


@each
@few
@given(data=st.data())
def test_received_is_the_inverse_of_request(operation: AnyOperation, data: st.DataObject) -> None:
    """Ours: the sandbox hears what the client said."""
    call = data.draw(calls(operation))
    heard = operation.received(as_heard(call.request()))
    assert heard is not None
    assert heard.request() == call.request()
    said = call.arguments()
    if operation.tool_name() == "run_workflow":
        said = {"input": {}} | said  # no input is sent as an empty one
    assert heard.arguments() == said


@each
def test_no_other_operation_takes_its_request(operation: AnyOperation) -> None:
    """Ours: method and path name one operation."""
    request = as_heard(example(operation).request())
    assert [other for other in CATALOG if other.received(request) is not None] == [operation]


@each
@few
@given(data=st.data())
def test_arguments_never_lower_an_effect(operation: AnyOperation, data: st.DataObject) -> None:
    """Ours (DESIGN 5.1): arguments can raise an effect, never lower it."""
    assert data.draw(calls(operation)).effective.rank >= operation.effect.rank


@each
@few
@given(name=st.from_regex(r"[a-zA-Z_]{1,12}", fullmatch=True))
def test_an_unknown_argument_is_refused(operation: AnyOperation, name: str) -> None:
    """Ours (THREATS, fact 6): an argument that is dropped silently may be the dry run that was meant."""
    if name in operation.model_fields:
        return
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        example(operation, **{name: True})


@each
def test_every_argument_is_strict(operation: AnyOperation) -> None:
    """Ours (THREATS, fact 6): "7" is no number, true is no number and 7 is no text."""
    wrong: dict[str, list[object]] = {
        "string": [7, True, ["a"], {"a": 1}, b"a"],
        "integer": ["7", True, 7.0, "seven"],
        "object": [7, True, [], "[]", "text", '"text"', "null", "{"],
        "array": [7, True, {}, "{}", "text", "1", "[", [7], "[7]"],
    }
    for name, schema in properties(operation).items():
        an_id = name.endswith("_id")  # a number there is an id that was read as one
        for value in wrong[schema["type"]][an_id:]:
            with pytest.raises(ValueError, match="validation error"):
                example(operation, **{name: value})


@each
def test_json_as_text_is_taken_for_objects_and_arrays(operation: AnyOperation) -> None:
    """Ours (DESIGN 3.1): some clients send an object or an array as text; nothing else is lenient."""
    for name, schema in properties(operation).items():
        if schema["type"] == "object":
            call = example(operation, **{name: '{"a": [1, "zwei", null]}'})
            assert getattr(call, name) == {"a": [1, "zwei", None]}
        if schema["type"] == "array":
            text, value = ('[{"a": 1}]', [{"a": 1}]) if schema["items"]["type"] == "object" else ('["a"]', ["a"])
            assert getattr(example(operation, **{name: text}), name) == value


@each
def test_what_json_cannot_carry_is_refused_by_name(operation: AnyOperation) -> None:
    """Ours (THREATS, fact 7): it would fail only while it is sent, or leave as something that is not JSON."""
    for name, schema in properties(operation).items():
        if schema["type"] != "object":
            continue
        for value in (float("nan"), float("inf"), "\ud800", 10**5000):
            with pytest.raises(ValueError, match="JSON cannot carry"):
                example(operation, **{name: {"a": [value]}})
        for text in ('{"a": NaN}', '{"a": -Infinity}', '{"a": "\\ud800"}'):
            with pytest.raises(ValueError, match="JSON cannot carry"):
                example(operation, **{name: text})


@each
def test_deep_and_endless_text_gets_an_answer(operation: AnyOperation) -> None:
    """Ours (THREATS, fact 7): nesting without end is refused, not a crash."""
    for name, schema in properties(operation).items():
        if schema["type"] in ("object", "array"):
            for text in ("[" * 100_000, '{"a":' * 100_000):
                with pytest.raises(ValueError, match=name):
                    example(operation, **{name: text})


@each
def test_reads_go_by_get_and_nothing_else_does(operation: AnyOperation) -> None:
    """Ours: what the guard lets pass unasked cannot change anything."""
    assert (operation.effect is Effect.READ) == (operation.route.method == "GET")


@each
def test_only_named_changes_are_calls(operation: AnyOperation) -> None:
    """Ours: an update that names no change is a mistake, so it is told."""
    if operation.route.method != "PUT":
        return
    with pytest.raises(ValueError, match="nothing to change was given"):
        operation.model_validate(dict.fromkeys(operation.route.parameters, "one"))
    with pytest.raises(ValueError, match="nothing to change was given"):
        operation.model_validate({**dict.fromkeys(operation.route.parameters, "one"), "extra": {}})


@each
@few
@given(data=st.data())
def test_arguments_that_are_ours_change_nothing_of_the_request(operation: AnyOperation, data: st.DataObject) -> None:
    """Ours: Fastn never sees them, and no approval depends on them; the sandbox hears the same call."""
    call = data.draw(calls(operation))
    plain = call.model_copy(update={name: operation.model_fields[name].default for name in operation.ours()})
    assert call.request() == plain.request()
    assert call.arguments() == plain.arguments()
    assert operation.ours().isdisjoint(call.arguments())
    assert operation.received(as_heard(call.request())) == operation.received(as_heard(plain.request()))
