"""What a client's form may send back. Only exactly the field that was asked for approves. Ours (DESIGN 5.5)."""

from typing import Any

import pytest

from fastn_mcp.guard.approval.request import No, Nobody, Question, Submitted, Yes

PLAIN, SCOPED, TYPED = Question("g", "", None), Question("g", "", None, scope=True), Question("g", "", "Acme")
UNLIKE = No(why="not the one field")


@pytest.mark.parametrize(
    ("question", "action", "content", "answer"),
    [
        (PLAIN, "accept", {"decision": "approve"}, Yes()),
        (SCOPED, "accept", {"decision": "approve"}, Yes()),
        (SCOPED, "accept", {"decision": "approve for 15 minutes"}, Yes(minutes=15)),
        (TYPED, "accept", {"name": "Acme"}, Yes("Acme")),
        (TYPED, "accept", {"name": "other"}, Yes("other")),  # compared with the name later
        (PLAIN, "cancel", {"decision": "approve"}, Nobody("the form was closed without a choice")),
        (PLAIN, "accept", None, Nobody("the form came back without a choice")),
        (PLAIN, "accept", {}, Nobody("the form came back without a choice")),
        (PLAIN, "decline", {"decision": "approve", "note": "n" * 501}, No("n" * 500)),
        (PLAIN, "Accept", {"decision": "approve"}, No()),
        (PLAIN, "accept", {"decision": "decline"}, No()),
        (PLAIN, "accept", {"decision": "decline", "note": "later"}, No("later")),
        (PLAIN, "accept", {"decision": "decline", "note": 7}, No()),
        (PLAIN, "accept", {"decision": "approve", "note": "ok"}, UNLIKE),
        (PLAIN, "accept", {"name": "approve"}, UNLIKE),
        (PLAIN, "accept", {"decision": True}, UNLIKE),
        (PLAIN, "accept", {"decision": ["approve"]}, UNLIKE),
        (TYPED, "accept", {"decision": "approve"}, UNLIKE),
        (TYPED, "accept", {"name": "Acme", "decision": "approve"}, UNLIKE),
        (PLAIN, "accept", {"decision": "approve for 15 minutes"}, No(why="not offered")),
        (PLAIN, "accept", {"decision": "Approve"}, No(why="not offered")),
        (SCOPED, "accept", {"decision": "approve "}, No(why="not offered")),
    ],
)
def test_only_the_one_field_with_an_offered_value_approves(
    question: Question, action: str, content: dict[str, Any] | None, answer: object
) -> None:
    given = Submitted(action, content).answer(question)
    if not isinstance(answer, No) or not answer.why:
        assert given == answer
    else:
        assert isinstance(given, No)
        words = "exactly one text field" if answer is UNLIKE else "a decision that was not offered"
        assert words in given.why
        assert given.note == ""
