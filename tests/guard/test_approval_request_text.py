"""What a person reads before a call of any tool: no name and no value can speak for us."""

import unicodedata
from typing import Any

import pytest
from example_calls import example, properties
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.guard.policy import Decision
from fastn_mcp.guard.preview import preview
from fastn_mcp.guard.question import asked
from fastn_mcp.guard.show import LONGEST, name_of, show
from fastn_mcp.operation import Effect, Operation, Record
from fastn_mcp.procedures.dependents import Dependence, Dependents
from fastn_mcp.tools import CATALOG, AnyOperation
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.creating import Create
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.secrets import CreateSecret

CHANGING = [operation for operation in CATALOG if operation.effect is not Effect.READ]
LIES = [
    'Acme"\nApprove this one call?', "x\r\n\r\nAccount: test.", "\u202egnihton seteleD", "\x1b[2K\x1b[1A", "a\u0000b",
    "\U000e0041\U000e0042", "o\u0301" * 300, "\u2028next", "\u2029next", "\u3164", "\u115f\u1160\uffa0\u2800",
    "Trusted. " * 900, '"', "\\", "\\u{202e}", "\u200b\u200d\u2060\ufeff", "\u00ad", "\ufe0f",
]  # fmt: skip
texts = st.text() | st.sampled_from(LIES)


def unseen(text: str) -> list[str]:
    """The letters that a reader cannot see, or that move the others."""
    hidden = "\u115f\u1160\u3164\uffa0\u2800"
    categories = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    found = [letter for letter in text if unicodedata.category(letter) in categories or letter in hidden]
    # A script needs a few marks on a letter; a flood of them covers the lines around it.
    marks = "".join("m" if unicodedata.category(letter) in ("Mn", "Me") else " " for letter in text).split()
    return found + [run for run in marks if len(run) > 3]


@given(text=texts)
def test_a_text_is_shown_quoted_on_one_line_with_nothing_invisible(text: str) -> None:
    """Ours (DESIGN 5.3, THREATS T15)."""
    shown = show(text)
    assert unseen(shown) == []
    assert shown.startswith('"')
    body, quote, rest = shown[1:].rpartition('"')
    assert quote
    assert '"' not in body.replace("\\\\", "").replace('\\"', "")
    assert rest == (f" [{len(text) - LONGEST} more characters]" if len(text) > LONGEST else "")
    assert len(shown) <= LONGEST * 10 + 40


@given(first=texts, second=texts)
def test_two_texts_look_the_same_only_where_they_are(first: str, second: str) -> None:
    """Ours: an escape that somebody typed is not the letter it stands for."""
    if show(first) == show(second):
        assert (first[:LONGEST], len(first)) == (second[:LONGEST], len(second))


@given(
    value=st.dictionaries(
        texts.filter(str.isprintable), st.text(st.characters(exclude_categories=["Cs"])) | st.integers(), max_size=4
    )
)
def test_a_structure_is_shown_as_json_on_one_line(value: dict[str, Any]) -> None:
    """Ours: the same for what is no text."""
    shown = show(value)
    assert unseen(shown) == []
    assert shown.startswith("{")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Acme", '"Acme"'),
        (7, "7"),
        (None, "null"),
        (True, "true"),
        ({"a": [1.5]}, '{"a":[1.5]}'),
        (float("nan"), '"NaN"'),
        ("a\nb", '"a\\u{a}b"'),
        ("a\\nb", '"a\\\\nb"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("\u202e", '"\\u{202e}"'),
        ("Größe 字 🙂", '"Größe 字 🙂"'),
        ("x" * 203, '"' + "x" * 200 + '" [3 more characters]'),
    ],
)
def test_values_are_shown_so(value: object, shown: str) -> None:
    """Ours: examples that a person would read."""
    assert show(value) == shown


def lied_to(operation: AnyOperation, lie: str) -> Operation[Any]:
    """A call whose every text is a lie. Ids are not, where a change is shown beside what is there: they are checked."""
    lies = {
        name: [lie] if schema["type"] == "array" and schema["items"]["type"] == "string" else lie
        for name, schema in properties(operation).items()
        if (schema["type"] == "string" and not (name in operation.route.parameters and operation.route.method == "PUT"))
        or schema.get("items", {}).get("type") == "string"
    }
    return example(operation).model_copy(update=lies)


@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.tool_name())
@pytest.mark.parametrize("asks", [Decision.CONFIRM, Decision.TYPED])
def test_the_first_line_is_the_call_and_the_last_is_ours(operation: AnyOperation, asks: Decision) -> None:
    """Ours (DESIGN 5.3, THREATS T15): whatever the names hold, the lines are as many as ours and in our order."""
    plain = lied_to(operation, "plain")
    named = plain.target is not None or issubclass(operation, (Create, AiChat, AiBuild))
    honest = _asked(plain, "plain", asks)
    for lie in LIES:
        text = _asked(lied_to(operation, lie), lie, asks)
        lines = text.split("\n")
        assert unseen(text.replace("\n", "")) == []
        assert len(lines) == len(honest.split("\n"))
        assert lines[0].startswith(f"{operation.tool_name()} ")
        assert lines[2].startswith("Target: " if named else "Account: ")
        assert lines[2].endswith("Account: default at live.fastn.ai.")
        if asks is Decision.CONFIRM:
            assert lines[-1] == "Approve this one call?"
        else:
            assert lines[-1].startswith('To approve this one call, type the name between the quotes: "')
        assert [line for line in lines[:-1] if line.startswith(("Approve this", "To approve", "Account:"))] == (
            [] if named else [lines[2]]
        )


def _asked(call: Operation[Any], name: str, asks: Decision) -> str:
    target = Record.model_validate({"id": name, "name": name, "slug": name})
    users = Dependence((Dependents("connections", 2, (name, name), more=True),), ("secrets",))
    seen = preview(call, call.effective, "default at live.fastn.ai", target, users)
    return asked("grant", seen.lines(), seen.expected if asks is Decision.TYPED else None, scope=False).text


def test_a_secret_is_never_asked_about_by_its_value() -> None:
    """Ours (THREATS T4)."""
    text = _asked(CreateSecret(name="TOKEN", value="hunter2"), "TOKEN", Decision.CONFIRM)
    assert "hunter2" not in text
    assert 'value="[hidden]"' in text


def test_the_name_that_has_to_be_typed_is_the_targets() -> None:
    """Ours (DESIGN 5.5): the name, or else the id."""
    call = DeleteCustomer(customer_id="c1")
    named = preview(call, Effect.DESTROY, "a", Record.model_validate({"name": "Acme"}), Dependence())
    nameless = preview(call, Effect.DESTROY, "a", None, Dependence())
    assert named.expected == "Acme"
    assert nameless.expected == "c1"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": "Acme", "slug": "a"}, "Acme"),
        ({"name": " ", "slug": "a"}, "a"),
        ({"name": 7, "email": "a@b.c"}, "a@b.c"),
        ({"id": "x"}, None),
    ],
)
def test_what_people_call_a_record(fields: dict[str, Any], name: str | None) -> None:
    """Ours: a name that is blank is none."""
    assert name_of(Record.model_validate(fields)) == name
    assert name_of(None) is None
