"""What a preview shows of a call: the exact call, its fields before and after, and its JSON."""

from typing import Any

import pytest
from test_sentences import preview_of

from fastn_mcp.account.dependence import Dependence, Dependents
from fastn_mcp.account.outlook import Outlook
from fastn_mcp.guard.preview import FieldChange
from fastn_mcp.tools.tool import Effect


@pytest.mark.parametrize(
    ("change", "limit", "words"),
    [
        (FieldChange("plan", "Free", "Growth"), 80, '"plan": "Free" becomes "Growth"'),
        (FieldChange("plan", None, "Growth", is_shown=False), 80, '"plan" (not shown by Fastn) becomes "Growth"'),
        (FieldChange("p", "x" * 10, "y" * 9, is_shown=True), 8, f'"p": "{"x" * 8}" [2 more characters] becomes'),
        (FieldChange("f" * 61, 1, 2), 80, f'"{"f" * 60}" [1 more character]: 1 becomes 2'),
        (FieldChange("f" * 60, 1, 2), 80, f'"{"f" * 60}": 1 becomes 2'),
    ],
)
def test_words_of_a_change(change: FieldChange, limit: int, words: str) -> None:
    assert change.words(limit).startswith(words)


def test_json_of_what_would_be_made() -> None:
    data = preview_of("create_customer", {"name": "Globex"}).data()
    assert (data["makes"], data["call"], data["arguments"]) == ("Globex", "create_customer", {"name": "Globex"})
    assert not {"target", "costs", "because", "approval", "changes", "pending", "more_changes"} & data.keys()


def test_json_of_what_would_be_changed() -> None:
    data = preview_of("update_customer", {"customer_id": "c1", "plan": "Growth"}, {"id": "c1", "name": "A"}).data()
    assert data["target"] == {"id": "c1", "name": "A"}
    assert data["changes"] == [{"field": "plan", "to": "Growth"}]
    assert "makes" not in data


def test_permissions_are_shown_strongest_first_and_whole() -> None:
    given: dict[str, Any] = {"name": "R", "permissions": [f"x{n}:read" for n in range(60)] + ["*"]}
    made = preview_of("create_role", given, effect=Effect.ACCESS)
    first, *_ = made.arguments["permissions"]  # type: ignore[misc]
    assert first == "*"
    assert "x59:read" in made.line()
    assert made.line().endswith("]."), "nothing is appended"


def test_last_line_is_the_exact_call() -> None:
    made = preview_of("ai_chat", {"message": "go"})
    assert made.lines()[-1] == 'ai_chat approval_mode="manual" message="go". Account: test.'


def test_further_facts_change_the_sentences() -> None:
    made = preview_of("delete_customer", {"customer_id": "c1"}, {"id": "c1", "name": "A"})
    described = Dependence((Dependents("secrets", 1, ({"name": "TOKEN"},)),))
    further = made.with_facts(described, Outlook())
    assert "TOKEN" not in made.says.second
    assert 'Its secret "TOKEN" is lost for good.' in further.says.second
    assert further.described == described
