"""What a person reads before a call of any tool: no name and no value can speak for us."""

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from support.situations import question_about

from fastn_mcp.account.dependence import Dependence, Dependents, Unchecked
from fastn_mcp.account.resolved_call import lasting
from fastn_mcp.guard.questions import question_of_list
from fastn_mcp.guard.undo import RULES
from fastn_mcp.ledger.question import FieldChange, Question
from fastn_mcp.records.labels import MAX_TYPED
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import MAX_VALUE, quote
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

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
    letters = [letter for letter in text if unicodedata.category(letter) in categories or letter in hidden]
    # A script needs a few marks on a letter; a flood of them covers the lines around it.
    marks = "".join("m" if unicodedata.category(letter) in ("Mn", "Me") else " " for letter in text).split()
    return letters + [run for run in marks if len(run) > 3]


@given(text=texts)
def test_text_is_shown_quoted_on_one_line_with_nothing_invisible(text: str) -> None:
    output = quote(text)
    assert unseen(output) == []
    assert output.startswith('"')
    body, closing, rest = output[1:].rpartition('"')
    assert closing
    assert '"' not in body.replace("\\\\", "").replace('\\"', "")
    assert rest == (f" [{len(text) - MAX_VALUE} more characters]" if len(text) > MAX_VALUE else "")
    assert len(output) <= MAX_VALUE * 10 + 40


@given(first=texts, second=texts)
def test_different_texts_are_shown_differently(first: str, second: str) -> None:
    if quote(first) == quote(second):
        assert (first[:MAX_VALUE], len(first)) == (second[:MAX_VALUE], len(second))


@given(
    value=st.dictionaries(
        texts.filter(str.isprintable), st.text(st.characters(exclude_categories=["Cs"])) | st.integers(), max_size=4
    )
)
def test_structure_is_shown_as_json_on_one_line(value: dict[str, Any]) -> None:
    output = quote(value, 1 << 20)
    assert unseen(output) == []
    assert output.startswith(("{", '"{'))  # redacted JSON is quoted as a whole


def test_structure_that_is_cut_is_quoted_as_a_whole() -> None:
    assert quote({"a": "b", "c": "Approved."}, 16) == '"{\\"a\\":\\"b\\",\\"c\\":\\"Ap" [9 more characters]'


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
def test_values_are_rendered(value: object, shown: str) -> None:
    assert quote(value) == shown


@pytest.mark.parametrize("effect", Effect)
def test_only_access_and_destroy_calls_must_fit_the_form_whole(effect: Effect) -> None:
    call = UpdateCustomer(customer_id="c1", extra={"note": "n" * 300})
    target = FastnObject.model_validate({"id": "c1", "note": "o" * 300})
    is_whole = effect in (Effect.ACCESS, Effect.DESTROY)

    def shown(because: str = "") -> Question:
        return question_about(call, effect, "a", target, Dependence(), because)

    for cut in ("[220 more characters]", "[111 more characters]"):  # a value of 300 at 80, 311 of JSON at 200
        assert (cut in shown().line()) is not is_whole
    # One letter between what fits and what does not; the first of them parts with a space.
    room = 1500 - len(shown("x").line())
    fitting, longer = shown("x" * (room + 1)), shown("x" * (room + 2))
    assert len(fitting.line()) == 1500
    assert (fitting.fits_form, longer.fits_form) == (True, not is_whole)
    together = question_of_list("apply_changes", [fitting, replace(longer, number=2)])
    assert together.fits_form is not is_whole
    assert question_of_list("apply_changes", [fitting]).fits_form


CONNECTIONS = Dependents("connections", 2, ({"name": "Katana"}, {"name": "HubSpot"}), more=True)


def test_preview_has_the_same_content_as_text_and_as_data() -> None:
    """Of fourteen changes the last is only counted."""
    fields: dict[str, JsonValue] = {f"note{n}": f"n{n}" for n in range(12)}
    call = UpdateCustomer.model_validate({"customer_id": "c1", "name": "New", "plan": "Free", "extra": fields})
    target = FastnObject.model_validate(
        {"id": "c1", "name": "Old", "plan": "Growth", "note3": "n3", "apiToken": "hunter2"}
    )
    gaps = (Unchecked("triggers", "Forbidden."), Unchecked("runs", "Forbidden."))
    users = Dependence((CONNECTIONS, Dependents("secrets", 1, ({"name": "KEY"},))), gaps)
    output = question_about(call, Effect.EXTERNAL, "test", target, users, "The same may have happened.")
    values = {"name": ("Old", "New"), "plan": ("Growth", "Free")} | {f"note{n}": (None, f"n{n}") for n in range(12)}
    del values["note3"]
    changes = [
        {"field": field, **({} if before is None else {"from": before}), "to": after}
        for field, (before, after) in sorted(values.items(), key=lambda each: [*shown_order(call)].index(each[0]))
    ]
    undo = (
        "The earlier values can be restored with undo_change. Values that Fastn did not show before cannot be restored."
    )
    assert output.data_for_agent() == {
        "call": "update_customer",
        "arguments": call.shown(),
        "account": "test",
        "effect": "external",
        "does": output.title,
        "then": output.then,
        "undo": undo,
        "because": "The same may have happened.",
        "target": {"id": "c1", "name": "Old"},
        "changes": changes[:12],
        "more_changes": 1,
        "used_by": [
            {
                "kind": "connections",
                "count": 2,
                "at_least": True,
                "examples": [{"name": "Katana"}, {"name": "HubSpot"}],
            },
            {"kind": "secrets", "count": 1, "all": [{"name": "KEY"}]},
        ],
        "not_checked": [{"what": kind, "why": "Forbidden."} for kind in ("triggers", "runs")],
    }
    changed = "; ".join(
        f"{quote(c['field'])}{': ' + quote(c['from']) if 'from' in c else ' (not shown by Fastn)'}"
        f" becomes {quote(c['to'])}"
        for c in changes[:12]
    )
    first, second, third, last = output.lines()
    assert (first, second) == (output.title, f"{output.then} {output.unchecked} The same may have happened.")
    assert third == f"{changed}; and 1 more field."
    assert last.startswith('update_customer customer_id="c1" name="New" plan="Free" extra={')
    assert last.endswith("}. Account: test.")
    assert output.line() == f"{first} {second} {third} {last.removesuffix(' Account: test.')}"
    assert output.data() == {**output.data_for_agent(), "says": output.says()}
    assert users.counts() == {"connections": 2.5, "secrets": 1, "triggers": None, "runs": None}


def shown_order(call: Operation[Any]) -> list[str]:
    """Fields as they are sent."""
    return [*(call.request().body or {})]


def test_preview_of_a_deletion_says_what_comes_back_and_what_is_lost() -> None:
    target = FastnObject.model_validate({"id": "c1", "name": "Acme"})
    connections = Dependents("connections", 1, ({"name": "HubSpot of Acme"},))
    goes = Dependence((connections, Dependents("executions", 2, ({"name": "a"}, {"name": "b"}))))
    output = question_about(DeleteCustomer(customer_id="c1"), Effect.DESTROY, "test", target, goes)
    lost, again = (
        'Its connection "HubSpot" is permanently lost.',
        "The customer itself can be created again, under a new id.",
    )
    lines = ['Delete customer "Acme".', f"{lost} Its triggers may stop. {again}"]

    assert output.lines() == [*lines, "History: 2 runs.", 'delete_customer customer_id="c1". Account: test.']
    assert output.line() == f'{" ".join(lines)} History: 2 runs. delete_customer customer_id="c1".'
    assert output.data_for_agent()["does"] == f'Delete customer "Acme". {lost}'
    output = question_about(DeleteCustomer(customer_id="c1"), Effect.DESTROY, "test", target, Dependence())
    data = output.data_for_agent()
    assert {"because", "changes", "pending", "more_changes", "used_by", "not_checked"} & data.keys() == set()
    assert data["undo"] == f"{RULES['delete_customer'].restores} {RULES['delete_customer'].lost}"


def test_change_in_the_first_sentence_is_not_listed_again() -> None:
    target = FastnObject.model_validate({"id": "c1", "name": "Acme", "plan": "Free"})
    call = UpdateCustomer(customer_id="c1", plan="Growth")
    first, second, called = question_about(call, Effect.WRITE, "test", target, Dependence()).lines()
    assert (first, second) == ('Change the plan of customer "Acme" from "Free" to "Growth".', "It can be changed back.")
    assert called == 'update_customer customer_id="c1" plan="Growth". Account: test.'
    long = UpdateCustomer(customer_id="c1", plan="x" * 90)
    lines = question_about(long, Effect.WRITE, "test", target, Dependence()).lines()
    assert lines[2] == f'"plan": "Free" becomes "{"x" * 80}" [10 more characters].'


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "Acme"}, "Acme"),
        ({"name": "Caf\u00e9 \u5b57 & Co."}, "Caf\u00e9 \u5b57 & Co."),
        ({"name": "x" * MAX_TYPED}, "x" * MAX_TYPED),
        ({"name": "x" * (MAX_TYPED + 1), "slug": "acme"}, "acme"),
        ({"name": "\u0410cme", "slug": "acme"}, "acme"),  # a Cyrillic letter that looks Latin
        ({"name": "Acme \U0001f600", "slug": "acme"}, "acme"),
        ({"name": "Acme\u200b"}, "c1"),
        ({"name": None}, "c1"),
    ],
)
def test_text_to_type_is_short_and_of_keyboard_letters(fields: dict[str, Any], expected: str) -> None:
    target = FastnObject.model_validate({"id": "c1", **fields})
    assert (
        question_about(DeleteCustomer(customer_id="c1"), Effect.DESTROY, "a", target, Dependence()).expected == expected
    )


def test_id_too_long_to_be_typed_is_typed_by_its_end() -> None:
    call = DeleteCustomer(customer_id="a" * 90 + "0123456789ab")
    assert question_about(call, Effect.DESTROY, "a", None, Dependence()).expected == "0123456789ab"


def test_overwriting_create_is_shown_as_an_update() -> None:
    call = CreateCustomer(name="Acme", plan="Free")
    there = FastnObject.model_validate({"id": "c9", "name": "Acme", "plan": "Growth"})
    taken, unknown, free = (
        question_about(call, Effect.EXTERNAL, "a", existing, Dependence(), "Why.")
        for existing in (there, FastnObject(), None)
    )
    assert taken.title == 'Overwrite the existing customer "Acme".'
    assert (taken.target, taken.name) == ("c9", "Acme")
    assert taken.changes == (FieldChange("plan", "Growth", "Free"),)
    assert unknown.unchecked == "Its name or slug may be taken: Fastn may overwrite something."
    assert (unknown.target, unknown.changes) == (None, ())
    assert (free.because, free.target, free.changes, free.unchecked) == ("Why.", None, (), "")


def test_pending_actions_of_a_session_are_shown_whole() -> None:
    call = AiChat(message="yes", session_id="s1")
    long = "Delete it? " * 99
    target = FastnObject.model_validate({"id": "s1", "pending": [long, {"tool": "x"}]})
    output = question_about(call, Effect.SPEND, "a", target, Dependence())
    assert output.data_for_agent()["pending"] == [long, {"tool": "x"}]
    assert f'Pending there: "{long}", {quote(quote({"tool": "x"}))}.' in output.lines()[1]
    quiet = question_about(
        call, Effect.SPEND, "a", FastnObject.model_validate({"id": "s1", "pending": []}), Dependence()
    )
    assert quiet.pending == ("nothing, according to the last answer that this server saw",)
    assert question_about(call, Effect.SPEND, "a", None, Dependence()).pending == ()
    assert question_about(DeleteCustomer(customer_id="c"), Effect.DESTROY, "a", target, Dependence()).pending == ()


def test_approval_is_bound_to_the_record_without_its_counters() -> None:
    fields: dict[str, Any] = {"id": "t", "status": "Active", "last": 1, "lasting": 2, "Count": 3, "statusHistories": 4}
    noise: dict[str, Any] = {
        "lastRunAt": "x",
        "next_run": "y",
        "consecutiveFailures": 1,
        "statusHistory": [],
        "runCount": 7,
    }
    assert lasting(fields | noise) == fields


def test_batch_text_lists_each_call_and_the_sum() -> None:
    target = FastnObject.model_validate({"id": "c1", "name": "Acme"})
    users = Dependence((CONNECTIONS,))
    deletion = question_about(DeleteCustomer(customer_id="c1"), Effect.DESTROY, "test", target, users)
    create = question_about(CreateCustomer(name="New"), Effect.WRITE, "test", None, Dependence(), "Nobody is there.")
    shown = [replace(deletion, number=2), replace(create, number=5, refused="no plan")]
    listed = question_of_list("apply_changes", shown)
    assert listed.effect is Effect.DESTROY
    assert listed.expected == "Acme"
    assert listed.lines() == [
        "Make 2 changes. Call 2 cannot be fully undone. The calls are sent in this order. Account: test.",
        f"2. {deletion.line()}",
        f"5. {create.line()}",
    ]
    rows = [
        {"number": each.number} | {name: value for name, value in each.data_for_agent().items() if name != "account"}
        for each in shown
    ]
    assert listed.data_for_agent() == {
        "call": "apply_changes",
        "does": "Make 2 changes. Call 2 cannot be fully undone.",
        "account": "test",
        "effect": "destroy",
        "effects": ["write", "destroy"],
        "calls": [rows[0], rows[1] | {"refused": "no plan. Nobody is there."}],
    }
    stored = listed.data()
    assert stored["says"] == listed.says()
    calls = [{**row, "says": each.says()} for row, each in zip(rows, shown, strict=True)]
    assert stored["calls"] == [calls[0], calls[1] | {"refused": "no plan. Nobody is there."}]
    assert {**stored, "calls": [], "says": None} == {**listed.data_for_agent(), "calls": [], "says": None}


def test_text_to_type_for_a_batch_is_the_name_of_what_is_lost_or_short() -> None:
    """One lossy call: its name. Several: how many. None: the number of calls."""

    def deletion(name: str) -> Question:
        target = FastnObject.model_validate({"id": "c1", "name": name})
        return question_about(DeleteCustomer(customer_id="c1"), Effect.DESTROY, "test", target, Dependence())

    plain = question_about(CreateCustomer(name="New"), Effect.WRITE, "test", None, Dependence())
    for calls, expected in (
        ([plain, deletion("Acme")], "Acme"),
        ([deletion("Acme"), plain, deletion("Globex")], "2 deletions"),
        ([plain, plain], "2 changes"),
    ):
        numbered = [replace(call, number=number) for number, call in enumerate(calls, 1)]
        assert question_of_list("apply_changes", numbered).expected == expected
