"""What a client's form may send back. Only exactly the field that was asked for approves."""

from dataclasses import replace
from typing import Any

import pytest
from support.stores import grant, permit

from fastn_mcp.guard.approval_form import Approve, Decline, NoAnswer, read_answer
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.redaction import quote

PLAIN, SCOPED, TYPED = (
    replace(grant(), expected=None),
    replace(grant(), expected=None, permit=permit()),
    replace(grant(), expected="Acme"),
)
UNLIKE = Decline(why="not the one field")


@pytest.mark.parametrize(
    ("question", "action", "content", "answer"),
    [
        (PLAIN, "accept", {"decision": "approve"}, Approve()),
        (SCOPED, "accept", {"decision": "approve"}, Approve()),
        (SCOPED, "accept", {"decision": "approve for 15 minutes"}, Approve(is_temporary=True)),
        (TYPED, "accept", {"name": "Acme"}, Approve("Acme")),
        (TYPED, "accept", {"name": "other"}, Approve("other")),  # compared with the name later
        (PLAIN, "cancel", {"decision": "approve"}, NoAnswer("the form was closed without a choice")),
        (PLAIN, "accept", None, NoAnswer("the form came back without a choice")),
        (PLAIN, "accept", {}, NoAnswer("the form came back without a choice")),
        (PLAIN, "decline", {"decision": "approve", "note": "n" * 501}, Decline("n" * 500)),
        (PLAIN, "Accept", {"decision": "approve"}, Decline()),
        (PLAIN, "accept", {"decision": "decline"}, Decline()),
        (PLAIN, "accept", {"decision": "decline", "note": "later"}, Decline("later")),
        (PLAIN, "accept", {"decision": "decline", "note": 7}, Decline()),
        (PLAIN, "accept", {"decision": "approve", "note": "ok"}, UNLIKE),
        (PLAIN, "accept", {"name": "approve"}, UNLIKE),
        (PLAIN, "accept", {"decision": True}, UNLIKE),
        (PLAIN, "accept", {"decision": ["approve"]}, UNLIKE),
        (TYPED, "accept", {"decision": "approve"}, UNLIKE),
        (TYPED, "accept", {"name": "Acme", "decision": "approve"}, UNLIKE),
        (PLAIN, "accept", {"decision": "approve for 15 minutes"}, Decline(why="not offered")),
        (PLAIN, "accept", {"decision": "Approve"}, Decline(why="not offered")),
        (SCOPED, "accept", {"decision": "approve "}, Decline(why="not offered")),
    ],
)
def test_only_the_one_field_with_an_offered_value_approves(
    question: ApprovalRequest, action: str, content: dict[str, Any] | None, answer: object
) -> None:
    given = read_answer(question, action, content)
    if not isinstance(answer, Decline) or not answer.why:
        assert given == answer
    else:
        assert isinstance(given, Decline)
        words = "exactly one text field" if answer is UNLIKE else "a decision that was not offered"
        assert words in given.why
        assert given.note == ""


def test_value_that_was_not_offered_is_quoted_in_the_refusal_and_cut() -> None:
    given = read_answer(PLAIN, "accept", {"decision": "y" * 100})
    assert given == Decline(why=f"The form came back with a decision that was not offered: {quote('y' * 100, 60)}.")
    assert isinstance(given, Decline)
    assert f'"{"y" * 60}" [40 more characters]' in given.why
