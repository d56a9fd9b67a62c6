"""Every argument has a bound, which is checked before anything is computed from it."""

import json
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json
from support.oversized import MAX_ANSWER, SHAPES, every_argument

from fastn_mcp.errors import InvalidArgument, closest, first_few
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS, parse
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.server.rendering import render_error
from fastn_mcp.tools.bounds import MAX_ARGUMENTS, JsonBound, TextBound, bounds_of, message_problem
from fastn_mcp.tools.customers import UpdateCustomer
from fastn_mcp.tools.operation import RefusedValue
from fastn_mcp.tools.workflows import ListExecutions

MAX_CALLS = 150
"""Maximum number of Python functions called for one refusal, whatever the size of the arguments."""


def refusal(tool: str, arguments: dict[str, Any]) -> str:
    """Return why a call is refused. Fails if that takes work or is longer than an answer may be."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        parse(TOOLS, tool, arguments)
    except InvalidArgument as error:
        refused: InvalidArgument | None = error
    else:
        refused = None
    finally:
        sys.setprofile(None)
    assert refused is not None, f"{tool} takes it"
    assert calls <= MAX_CALLS
    assert len(to_json(render_error(refused.data()))) < MAX_ANSWER
    return str(refused)


@pytest.mark.parametrize("shape", SHAPES)
def test_oversized_argument_of_each_tool_is_refused_by_name(shape: str) -> None:
    value = SHAPES[shape]()
    for tool, name in every_argument():
        why = refusal(tool, {name: value})
        assert re.match(rf"{name}: [^;]*; at most [\d,]+( kB)? are accepted\. Nothing was sent\.", why), (tool, why)


@pytest.mark.parametrize("shape", SHAPES)
def test_oversized_json_text_is_refused_by_name(shape: str) -> None:
    text = json.dumps(SHAPES[shape]())
    for tool, name in every_argument():
        assert refusal(tool, {name: text}).startswith(f"{name}: "), tool


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tool", ["get_customer", "run_workflow", "preview_change"])
def test_oversized_unknown_argument_is_refused_by_name(tool: str, shape: str) -> None:
    assert "'unheard'" in refusal(tool, {"unheard": SHAPES[shape]()})


def test_many_unknown_arguments_are_refused() -> None:
    arguments = {f"f{number}": 0 for number in range(60_000)}
    assert refusal("get_customer", arguments).startswith(f"60,000 arguments; at most {MAX_ARGUMENTS} are accepted.")


STATUSES = "failedd," * 600
NAMES = [f"name{number}" for number in range(60_000)]
OBJECT = {f"field{number}": "value" for number in range(45_000)}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("list_executions", {"status": STATUSES}, "status: 4,800 characters; at most 256"),
    ("list_executions", {"status": "," * 200}, "status: 201 values; at most 20"),
    ("list_connections", {"status": "!" + "a," * 20}, "status: 21 values; at most 20"),
    ("create_role", {"name": "Role", "permissions": NAMES}, "permissions: 60,000 values; at most 1,000"),
    ("run_workflow", {"workflow_id": "wf_1", "input": OBJECT}, "input: 45,000 values; at most 2,000"),
    ("update_customer", {"customer_id": "org_1", "extra": OBJECT}, "extra: 45,000 values; at most 2,000"),
    ("ai_chat", {"message": "Hello", "context": OBJECT}, "context: 45,000 values; at most 2,000"),
    ("list_customers", {"fields": NAMES}, "fields: 60,000 values; at most 100"),
    ("create_trigger", {"routes": [OBJECT]}, "routes: 45,001 values; at most 2,000"),
    ("get_customer", {"customer_id": "a" * 257}, "customer_id: 257 characters; at most 256"),
    ("diagnose", {"workflow_id": "a" * 1_000_000}, "workflow_id: 1,000,000 characters; at most 256"),
    ("list_customers", {"search": "a" * 257}, "search: 257 characters; at most 256"),
    ("run_workflow", {"input": {"text": "a" * 200_000}}, "input: 200 kB; at most 200 kB"),
    ("run_workflow", {"input": {"rows": [[0] * 3] * 1_000}}, "input: 4,001 values; at most 2,000"),
    ("run_workflow", {"input": {"rows": [{}] * 3_000}}, "input: at least 3,001 values; at most 2,000"),
    ("run_workflow", {"input": json.dumps(dict.fromkeys(NAMES[:3_000]))}, "input: 3,000 values; at most 2,000"),
    ("create_trigger", {"routes": [json.dumps(dict.fromkeys(NAMES[:3_000]))]}, "routes: 3,001 values"),
    ("create_workflow", {"name": "Sync", "code": "a" * 200_001}, "code: 200,001 characters; at most 200,000"),
    (
        "create_workflow",
        {"name": "Sync", "code": "a" * 190_000, "extra": {"note": "a" * 190_000}},
        "arguments: 380 kB; at most 256 kB are accepted; the largest is 'extra'",
    ),
]


@pytest.mark.parametrize(("tool", "arguments", "expected"), REFUSED)
def test_argument_beyond_its_bound_is_refused(tool: str, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(TOOLS, tool, arguments)
    assert str(caught.value).startswith(expected)


def nested(levels: int) -> object:
    value: object = 0
    for _ in range(levels):
        value = {"in": value}
    return value


def test_depth_of_an_argument_is_bounded() -> None:
    arguments = {"workflow_id": "wf_1", "input": nested(20)}
    assert parse(TOOLS, "run_workflow", arguments)
    expected = "input: more than 20 levels of nesting; at most 20 are accepted."
    assert refusal("run_workflow", arguments | {"input": nested(21)}).startswith(expected)
    assert refusal("run_workflow", arguments | {"input": json.dumps(nested(21))}).startswith(expected)
    assert refusal("run_workflow", arguments | {"input": nested(100_000)}).startswith(expected)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("create_role", {"name": "Role", "permissions": NAMES[:1_000]}),
        ("list_customers", {"fields": NAMES[:100]}),
        ("list_executions", {"status": ",".join(NAMES[:20])}),
        ("run_workflow", {"workflow_id": "wf_1", "input": dict.fromkeys(NAMES[:2_000], 0)}),
        ("run_workflow", {"workflow_id": "wf_1", "input": json.dumps({"text": "a" * 199_000})}),
        ("create_workflow", {"name": "Sync", "code": "a" * 200_000}),
        ("get_customer", {"customer_id": "a" * 256}),
    ],
)
def test_argument_within_its_bound_is_taken(tool: str, arguments: dict[str, Any]) -> None:
    assert parse(TOOLS, tool, arguments).call.tool_name() == tool


INPUT: dict[str, Any] = {"workflow_id": "wf_1", "input": dict.fromkeys(NAMES[:3_000])}
INNER: dict[str, Any] = {"tool": "run_workflow", "arguments": INPUT}
EXCESS = "input: 3,000 values; at most 2,000 are accepted."


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("run_workflow", INPUT | {"dry_run": True}, EXCESS),
        ("preview_change", INNER, EXCESS),
        ("preview_change", INNER | {"arguments": json.dumps(INPUT)}, EXCESS),
        ("apply_changes", {"changes": [INNER]}, f"call 1, run_workflow: {EXCESS}"),
        ("apply_changes", {"changes": [json.dumps(INNER)]}, f"call 1, run_workflow: {EXCESS}"),
        ("apply_changes", {"changes": json.dumps([INNER])}, f"call 1, run_workflow: {EXCESS}"),
        ("preview_change", {"tool": "apply_changes", "arguments": {"changes": [INNER]}}, "call 1, run_workflow: "),
    ],
)
def test_argument_of_an_inner_call_has_the_same_bound(tool: str, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(TOOLS, tool, arguments)
    assert str(caught.value).startswith(expected)


def test_bound_of_each_argument_is_known() -> None:
    """An id has the bound of a path segment."""
    for tool in ALL_TOOLS:
        bounds = bounds_of(tool)
        assert bounds.keys() >= tool.input_schema()["properties"].keys()
        for name, schema in tool.input_schema()["properties"].items():
            assert isinstance(bounds[name], JsonBound) == (schema["type"] in ("array", "object")), (tool, name)
            if name.endswith("_id") and tool not in (FindDependents, Query):  # which take several
                assert bounds[name] == TextBound(256)


def test_bounds_are_documented() -> None:
    """Each number of characters or values stands in the table of the documentation."""
    table = (Path(__file__).parents[2] / "docs/answers.md").read_text(encoding="utf-8").partition("## Bounds")[2]
    for tool in ALL_TOOLS:
        for name in tool.input_schema()["properties"]:
            bound = bounds_of(tool)[name]
            most = bound.characters if isinstance(bound, TextBound) else bound.values
            assert f"{most:,} " in table, (tool, name)


def test_message_of_many_lists_is_refused_before_it_is_parsed() -> None:
    assert message_problem(b"[]" * 20_000) is None
    assert message_problem(b"[{" * 10_001) == "20,002 lists and objects; at most 20,000 are accepted."


def test_unknown_values_of_a_filter_are_named_three_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    def record(name: str, known: object, likeness: float = 0.65) -> None:  # noqa: ARG001 - the interface
        searched.append(name)

    monkeypatch.setattr("fastn_mcp.errors.closest", record)
    call = ListExecutions(status=",".join(["failedd", "failedd", *NAMES[:18]]))
    unknown = call.unknown([{"status": "failed"}] * 1_000)
    assert [each.partition(";")[0] for each in unknown[:3]] == [
        "status: unknown value 'failedd'",
        "status: unknown value 'name0'",
        "status: unknown value 'name1'",
    ]
    assert unknown[3].startswith("status: 16 more; use one of ")
    assert len(unknown) == 4
    assert searched == ["failedd", "name0", "name1"]


def test_no_nearest_name_is_looked_for_of_a_long_value() -> None:
    assert closest("a" * 64, ["a" * 60]) == "a" * 60
    assert closest("a" * 65, ["a" * 60]) is None


def test_first_few_names_and_how_many_more_there_are() -> None:
    assert first_few(["a", "b", "a", "c"]) == ["a", "b", "c"]
    assert first_few(["a", "b", "a", "c", "d", "e"], str.upper) == ["A", "B", "C", "2 more"]


def test_fields_of_extra_that_have_an_argument_are_named_three_at_most() -> None:
    spellings: dict[str, JsonValue] = {f"name{'_' * number}": "Acme" for number in range(1, 50)}
    with pytest.raises(RefusedValue) as caught:
        UpdateCustomer(customer_id="org_1", extra=spellings).request()
    assert "46 more has an argument of its own" in caught.value.problem
    assert len(caught.value.problem) < 200


def test_calls_of_a_list_that_the_server_makes_have_the_same_bounds() -> None:
    with pytest.raises(ValidationError, match="input: 3,000 values"):
        ApplyChanges.model_validate({"changes": [INNER]})
