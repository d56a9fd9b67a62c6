"""Arguments that a client can send and that must not reach Fastn unchanged, for every tool."""

from typing import Any

import pytest

from fastn_mcp.errors import NotSent
from fastn_mcp.procedures.catalog import TOOLS, parse

TEXTS = [
    (name, field)
    for name, tool in TOOLS.items()
    for field, shape in tool.input_schema()["properties"].items()
    if shape["type"] == "string"
]
OTHERS = [
    (name, field)
    for name, tool in TOOLS.items()
    for field, shape in tool.input_schema()["properties"].items()
    if shape["type"] in ("object", "array")
]


def required(name: str, field: str, value: Any) -> dict[str, Any]:
    """Return the required arguments of a call, with one of them given."""
    schema = TOOLS[name].input_schema()
    filled: dict[str, Any] = {"string": "a1", "integer": 1, "object": {}, "array": [], "boolean": True, "number": 1}
    return {key: filled[schema["properties"][key]["type"]] for key in schema.get("required", ())} | {field: value}


@pytest.mark.parametrize("letter", ["\0", "\x07", "\x1b", "\x7f", "\x9b"])
def test_control_character_is_refused_in_every_text(letter: str) -> None:
    """NUL would be sent as %00; others change the display of a terminal or a log."""
    assert len(TEXTS) > 60
    for name, field in TEXTS:
        with pytest.raises(NotSent) as refused:
            parse(TOOLS, name, required(name, field, f"a{letter}b"))
        assert letter not in str(refused.value), (name, field)


def test_line_break_is_refused_in_every_filter_and_id_of_a_read() -> None:
    for name, field in TEXTS:
        if name.startswith(("list_", "query_", "get_", "diagnose", "wait_", "find_dependents")):
            with pytest.raises(NotSent):
                parse(TOOLS, name, required(name, field, "a\nb"))
    assert parse(TOOLS, "create_customer", {"name": "Acme\nof Bern"})


@pytest.mark.parametrize("hostile", [{"a": [{"b": "\0"}]}, {"\0": 1}], ids=["value", "name"])
def test_control_character_is_refused_at_any_depth(hostile: Any) -> None:
    with pytest.raises(NotSent, match=r"input: holds the control character U\+0000"):
        parse(TOOLS, "run_workflow", {"workflow_id": "wf_1", "input": hostile})
    for name, field in OTHERS:
        with pytest.raises(NotSent):
            parse(TOOLS, name, required(name, field, hostile if field != "fields" else ["\0"]))


def test_null_is_accepted_for_every_optional_argument() -> None:
    """It counts as omitted; for `dry_run`, where that would send the call, it is refused."""
    for name, tool in TOOLS.items():
        schema = tool.input_schema()
        for field in schema["properties"].keys() - set(schema.get("required", ())) - {"dry_run"}:
            message = ""
            try:
                parse(TOOLS, name, required(name, field, None))
            except NotSent as refused:
                message = str(refused)  # about another argument, whose value is made up
            assert f"{field}: must" not in message, (name, field)
    assert getattr(parse(TOOLS, "list_customers", {"limit": None}).call, "limit", None) == 20
    with pytest.raises(NotSent, match="dry_run: must be true or false"):
        parse(TOOLS, "delete_workflow", {"workflow_id": "wf_1", "dry_run": None})
