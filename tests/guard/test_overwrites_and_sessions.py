"""What an approval of a create, or of a message to Fastn's AI, is bound to, and what is not known of either."""

import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.faulty_sandbox import FaultMoment, Reset
from support.values import not_none
from support.world import World

from fastn_mcp.errors import Declined, TargetChanged, UnknownOutcome
from fastn_mcp.extensions.sandbox.state import slug_of
from fastn_mcp.extensions.sandbox.workflows import new_workflow
from fastn_mcp.guard.ai_sessions import NOT_HEARD, AiSessions
from fastn_mcp.guard.approval_form import Decline, form_text
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.undo import NotUndoable, Undo, changed_fields, receipt, undo_of
from fastn_mcp.ledger.change import Change
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.rows import Row
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.ai import AiChat, AiReply
from fastn_mcp.tools.connectors import CreateConnector
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.tool import Effect, Tool
from fastn_mcp.tools.workflows import CreateWorkflow, DeleteWorkflow, UpdateWorkflow

NEW = CreateWorkflow(name="Nightly import", slug="nightly-import", extra={"timezone": "UTC"})


def make(world: World, status: str) -> str:
    """Somebody else takes the slug."""
    row = {**new_workflow(world.sandbox.state, "Nightly import", "nightly-import", None), "status": status}
    return str(world.sandbox.state.put("workflows", row)["id"])


@pytest.mark.parametrize("status", ["draft", "active"])
async def test_approval_of_a_create_is_void_once_its_slug_is_taken(world: World, status: str) -> None:
    await world.approve_outside(NEW)
    make(world, status)
    await world.expect(TargetChanged, NEW)
    assert world.changes == []


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (CreateWorkflow(name="Nightly import"), "/api/v1/workflows"),
        (CreateConnector(name="Initech", slug="initech"), "/api/v1/connectors"),
    ],
)
async def test_slug_counts_as_taken_if_the_list_cannot_be_read(world: World, call: Tool[Any], path: str) -> None:
    world.refuse(path)
    form = world.form(Decline())
    await world.expect(Declined, call, form)
    assert "Its name or slug may be taken: Fastn may overwrite something." in form_text(form.asked[0])
    assert world.changes == []


async def test_row_without_a_slug_may_have_the_same(world: World) -> None:
    call = CreateWorkflow(name="Nightly import")
    verdict, _ = await world.judged(call)
    assert verdict.decision is Decision.ALLOW
    row = world.sandbox.state.all("workflows")[0]
    world.sandbox.state.put("workflows", {**row, "slug": None})
    verdict, shown = await world.judged(call)
    assert verdict.decision is Decision.CONFIRM
    assert "Its name or slug may be taken: Fastn may overwrite something." in shown.lines()[1]


def test_slug_is_taken_in_whatever_spelling_and_unknown_where_a_row_does_not_say() -> None:
    """Fastn may derive a slug from a name in a way that nobody has documented."""
    call = CreateConnector(name="Google Sheets", slug="google-sheets")
    rows = {"googleSheets": True, "GOOGLE_SHEETS": True, "hubspot": False, "": None, None: None}
    for slug, taken in rows.items():
        assert call.may_overwrite({"id": "x", "name": "Other", "slug": slug}) is taken
    assert call.may_overwrite({"name": "google sheets"}) is True


@pytest.mark.parametrize(("arguments", "is_same"), [
    ({"name": "GOOGLE_SA", "environment": "live"}, True),
    ({"name": "google_sa", "environment": "live"}, None),
    ({"name": "GOOGLE_SA\u200b", "environment": "live"}, None),
    ({"name": "GOOGLE_SA", "environment": "LIVE"}, None),
    ({"name": "GOOGLE_SA"}, None),  # for both environments
    ({"name": "GOOGLE_SA", "environment": "live", "customer_id": "c1"}, None),  # the other one is for all customers
    ({"name": "GOOGLE_SA", "environment": "test"}, False),
    ({"name": "GOOGLE_SB", "environment": "live"}, False),
])  # fmt: skip
async def test_secret_is_said_to_be_new_only_if_its_name_and_scope_rule_out_another(
    world: World, arguments: dict[str, Any], is_same: bool | None
) -> None:
    world.sandbox.state.put("customers", {**world.sandbox.state.all("customers")[0], "id": "c1"})
    _, preview = await world.judged(CreateSecret(value="hunter2", **arguments))
    sentences = " ".join(preview.summary())
    assert ("No other secret has this name" in sentences) is (is_same is False)
    assert ("Whether another secret has this name" in sentences) is (is_same is None)
    assert ("Overwrite secret" in sentences) is (is_same is True)


def test_secret_in_a_field_of_another_name_has_the_same_scope() -> None:
    call = CreateSecret(name="TOKEN", value="v", customer_id="c1")
    assert call.may_overwrite({"name": "TOKEN", "endOrgId": "c1"}) is True
    assert call.may_overwrite({"id": "s1"}) is None


@pytest.mark.parametrize("name", [
    "process-new-orders²", "Process New Orders", "process new \uff4frders", "prócess-new-orders",
    "process-new-orders\u200b", "process-new-ord\u0435rs", "process new orders\N{KELVIN SIGN}", "Заказы",
    "process & new orders",
])  # fmt: skip
async def test_look_alike_of_a_live_workflow_is_judged_as_an_update_or_as_unknown(world: World, name: str) -> None:
    evaluation = await world.judge.judge_call(CreateWorkflow(name=name, code="new()"), Asker())
    assert evaluation.effect is Effect.EXTERNAL
    assert evaluation.resolved.target is not None


async def test_name_that_no_slug_resembles_is_judged_as_new(world: World) -> None:
    for name in ("Invoices of 2027", "Rückfragen", "R&D sync"):
        evaluation = await world.judge.judge_call(CreateWorkflow(name=name, code="new()"), Asker())
        assert (evaluation.effect, evaluation.resolved.target) == (Effect.WRITE, None)


def _reduced(name: str) -> str:
    """Make a slug as many libraries do: of the ASCII forms of letters."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _spelled(name: str) -> str:
    """Make a slug by spelling out what is not ASCII."""
    spelled = {"ß": "ss", "ü": "ue", "é": "e", "&": "and", "а": "a", "²": "squared"}  # noqa: RUF001
    return _reduced("".join(spelled.get(letter, letter) for letter in name))


_LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("abZ7²éßü -_&\u0430\N{KELVIN SIGN}")


@settings(max_examples=300)
@example("process-new-orders²", slug_of)
@example("\N{KELVIN SIGN}atana", slug_of)
@example("Straße & 7²", _spelled)
@given(st.text(_LETTERS, max_size=12), st.sampled_from([slug_of, _reduced, _spelled]))
def test_name_whose_slug_exists_is_never_judged_as_new(name: str, make_slug: Callable[[str], str]) -> None:
    slug = make_slug(name)
    row: Row = {"id": "x", "name": "Something else entirely", "slug": slug}
    assert not slug or CreateWorkflow.model_construct(name=name).may_overwrite(row) is not False


def change(before: dict[str, Any] | None, target: str = "wf_1") -> Change:
    sent = {"name": "n", "slug": "s", "code": "new()"}
    return Change("chg", "local", "test", "create_workflow", {}, target, "n", before, sent, 0.0, "done")


async def test_create_that_overwrote_nothing_is_recorded_under_its_own_name(world: World) -> None:
    done = await world.expect(Done, CreateCustomer(name="Globex Two", slug="Globex Exports"), world.form())
    change = not_none(done.change)
    assert change.before is not None
    assert (change.name, changed_fields(change)) == ("Globex Two", {})
    assert receipt(change)["restores"] == "The customer can be deleted with undo_change."


def test_undo_of_an_overwrite_restores_instead_of_deleting() -> None:
    overwrote = {"id": "wf_1", "name": "n", "slug": "s", "code": "old()"}
    undo = undo_of(change(overwrote))
    assert isinstance(undo, Undo)
    assert undo.call == UpdateWorkflow(workflow_id="wf_1", code="old()")
    assert isinstance(undo_of(change({})), NotUndoable)
    made_anew = undo_of(change(overwrote, target="wf_2"))
    assert isinstance(made_anew, Undo)
    assert made_anew.call == DeleteWorkflow(workflow_id="wf_2")
    created = undo_of(change(None))
    assert isinstance(created, Undo)
    assert created.call == DeleteWorkflow(workflow_id="wf_1")


async def test_approval_is_void_once_the_ai_asks_something_else(world: World) -> None:
    asked = await world.expect(Done, AiChat(message="delete wf_0d93ee5b1f62"), world.form())
    session = str(asked.result.model_dump()["session_id"])
    answer = AiChat(message="approve", session_id=session)
    await world.approve_outside(answer)
    world.judge.ai_sessions.note(
        answer, AiReply.model_validate({"sessionId": session, "pendingApprovals": [{"tool": "wipe"}]})
    )
    await world.expect(TargetChanged, answer)
    assert len(world.changes) == 1


async def test_session_after_a_lost_response_is_unknown(world: World) -> None:
    asked = await world.expect(Done, AiChat(message="delete wf_0d93ee5b1f62"), world.form())
    answer = AiChat(message="why?", session_id=str(asked.result.model_dump()["session_id"]))
    world.sandbox.faults.add(Reset(method="POST", moment=FaultMoment.AFTER))
    await world.expect(UnknownOutcome, answer, world.form())
    form = world.form(Decline())
    await world.expect(Declined, answer.model_copy(update={"message": "approve"}), form)
    assert "seen no answer" in form_text(form.asked[0])


def test_ai_plan_is_shown_with_the_answer_to_it() -> None:
    """The plan of this session and of no other, and only while something is pending."""
    sessions = AiSessions()
    heard = {"sessionId": "s1", "plan": ["drop all"], "questions": ["Go on?"]}
    sessions.note(AiChat(message="m"), AiReply.model_validate(heard))
    sessions.note(AiChat(message="m"), AiReply.model_validate({"sessionId": "s2", "questions": ["Which?"]}))
    pending = [sessions.target(AiChat(message="m", session_id=each)) for each in ("s1", "s2")]
    assert [each.model_dump()["pending"] for each in pending if each] == [
        [{"plan": ["drop all"]}, "Go on?"],
        ["Which?"],
    ]
    ended = {"sessionId": "s1", "status": "completed", "message": "Dropped."}
    sessions.note(AiChat(message="m", session_id="s1"), AiReply.model_validate(ended))
    assert not_none(sessions.target(AiChat(message="m", session_id="s1"))).model_dump()["pending"] == [
        {"status": "completed", "message": "Dropped."}
    ]


@pytest.mark.parametrize(
    ("heard", "pending"),
    [
        ({"status": "planned", "plan": "drop all"}, [{"plan": "drop all"}, {"status": "planned"}]),
        (
            {"status": "waiting_for_user", "message": "Delete Acme?"},
            [{"status": "waiting_for_user", "message": "Delete Acme?"}],
        ),
        ({"message": "Delete Acme?"}, [{"message": "Delete Acme?"}]),
        (
            {"questions": ["Go on?"], "status": "completed", "message": "I delete Acme.", "cards": ["Acme"]},
            ["Go on?", {"status": "completed", "message": "I delete Acme.", "cards": ["Acme"]}],
        ),
        (
            {"status": "completed", "message": "Shall I delete Acme?", "plan": None},
            [{"status": "completed", "message": "Shall I delete Acme?"}],
        ),
        ({"creditsUsed": 1, "toolCalls": [{"tool": "x"}]}, []),
    ],
)
def test_whatever_the_ai_may_ask_is_shown_with_the_answer_to_it(heard: dict[str, Any], pending: list[Any]) -> None:
    """Also what stands beside the questions: "Go on?" alone does not tell what a person agrees to."""
    sessions = AiSessions()
    sessions.note(AiChat(message="m"), AiReply.model_validate({"sessionId": "s1"} | heard))
    assert not_none(sessions.target(AiChat(message="yes", session_id="s1"))).model_dump()["pending"] == pending


async def test_price_of_a_message_is_shown(world: World) -> None:
    """The last message's credits, and the balance or why it is not known."""

    async def costs() -> str:
        previewed: Any = await world.preview(AiChat(message="hello"))
        return str(previewed.data_for_agent()["costs"])

    assert (await costs()).startswith("Fastn states the price in AI credits only afterwards. ")
    assert "12 of 50 are left" in await costs()
    (billing,) = world.sandbox.state.all("billing")
    world.sandbox.state.put("billing", {name: each for name, each in billing.items() if "redits" not in name})
    assert (await costs()).endswith(". Fastn does not state the balance.")
    world.judge.ai_sessions.last_price = 1234.5
    path = "/api/v1/billing"
    world.refuse(path)
    assert (await costs()).startswith("AI credits used by the last message: 1,234.5. The balance could not be read: ")


def test_least_recently_used_session_is_forgotten_first() -> None:
    sessions, heard = AiSessions(), {"questions": ["Which?"], "plan": ["p"]}
    for name in (*map(str, range(1000)), "0", "new"):
        sessions.note(AiChat(message="m"), AiReply.model_validate({"sessionId": name, **heard}))
    kept = [sessions.target(AiChat(message="m", session_id=name)) for name in ("0", "1", "2")]
    assert [each.model_dump()["pending"] for each in kept if each] == [
        [{"plan": ["p"]}, "Which?"],
        NOT_HEARD,
        [{"plan": ["p"]}, "Which?"],
    ]
    sessions.note(AiChat(message="m"), AiReply.model_validate({"sessionId": "0", "questions": ["Go on?"]}))
    assert not_none(sessions.target(AiChat(message="m", session_id="0"))).model_dump()["pending"] == [
        {"plan": ["p"]},
        "Go on?",
    ]
