"""Approval requests decided by hand, as a person, a call or a newer request would."""

import itertools
from collections.abc import Iterable
from typing import Any

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, ShownCall, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Operation
from support.begun import used
from support.questions import a_question

_NUMBERS = itertools.count()


class Killed(BaseException):
    """The process ends here."""


def allowed(call: Operation[Any], digest: str = "digest", target: FastnObject | None = None) -> Evaluation:
    """Return the evaluation of a call that the policy allows."""
    verdict, resolved = PolicyDecision(Decision.ALLOW, "rule"), by_arguments(call, target=target)
    return Evaluation(tool=call, id=digest, effect=call.effective, verdict=verdict, resolved_call=resolved)


async def answered(ledger: Ledger, principal: str, at: float, *, approves: bool = False) -> None:
    """Let a person decline a request of `principal` in a form, or approve one out of band."""
    calls = {"call 1": ShownCall("binding", {})}
    request = ApprovalRequest(
        f"by hand {next(_NUMBERS)}", principal, "default", "tool", None, "call by hand", calls, "confirm", None,
        out_of_band=approves, question=a_question(), created=at, expires=at + 600,
    )  # fmt: skip
    await ledger.open(request)
    assert await ledger.decide(request, Vote("client_form", approves, at), "client_form") is not None


async def moved(
    ledger: Ledger,
    request: str,
    before: Iterable[RequestState],
    after: RequestState,
    at: float,
    *,
    by: str | None = None,
    note: str | None = None,
) -> bool:
    """Bring a request from one of `before` to `after`; False where the ledger does not let it."""
    current = await ledger.find(request)
    if current is None or current.state not in before or after is RequestState.OPEN:
        return False
    answers = {RequestState.APPROVED: True, RequestState.DECLINED: False}
    if after is RequestState.USED and current.state is RequestState.OPEN:
        answers[after] = True
    if after in answers:
        people = range(current.needed if answers[after] else 1)
        votes = [Vote(f"{by or 'terminal'}{person or ''}", answers[after], at) for person in people]
        counted = [await ledger.decide(current, vote, by or "terminal", note) for vote in votes]
        if after is not RequestState.USED or None in counted:
            return None not in counted
    if after is RequestState.WITHDRAWN and current.state is RequestState.OPEN:
        assert await moved(ledger, request, [RequestState.OPEN], RequestState.APPROVED, at, by=by)
    if after is RequestState.WITHDRAWN:
        return await ledger.withdraw(request, Vote(by or "terminal", False, at), by or "terminal", note) is not None
    if after is RequestState.USED:
        return await used(ledger, request, next(iter(current.calls)), at)
    return await ledger.void(request, after, at, by=by, note=note) is not None
