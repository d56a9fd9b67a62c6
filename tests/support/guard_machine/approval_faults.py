"""Faults in how people are asked, in what an approval covers, and in its use."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.channels.approvers import Approver
from fastn_mcp.guard import permission
from fastn_mcp.guard.approval import obtain
from fastn_mcp.guard.approval_form import APPROVE, Answer, Approve
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.judge import Judge
from fastn_mcp.ledger import approval_request
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import Begun, ChangeStart
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.policy import Policy
from support.guard_machine import people
from support.guard_machine.planting import always


def nobody_is_asked(patch: pytest.MonkeyPatch) -> None:
    """The policy allows everything."""
    patch.setattr(Policy, "decide", always(PolicyDecision(Decision.ALLOW, "everything")))


def approval_is_not_used(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChangeStart, "_approved", always([]))


def approval_is_used_twice(patch: pytest.MonkeyPatch) -> None:
    def with_use(self: ApprovalRequest, call_id: str, now: float) -> ApprovalRequest | None:
        if self.expires <= now:
            return None
        return replace(self, used=(*self.used, call_id), decided=now)

    patch.setattr(ApprovalRequest, "with_use", with_use)


def approval_is_used_before_its_change(patch: pytest.MonkeyPatch) -> None:
    """An approval is used in a step of its own, and its change is begun in the next."""
    begin = ChangeJournal.begin

    async def used_before(self: ChangeJournal, change: Change, *, uses: str = "", **permits: Any) -> Begun:
        ledger: Ledger = self._ledger  # pyright: ignore[reportPrivateUsage]
        if uses:
            used = await ledger.change_request(uses, lambda request: request.with_use(change.call_id, change.at))
            if used is None:
                return Begun.NO_APPROVAL
        return await begin(self, change, **permits)

    patch.setattr(ChangeJournal, "begin", used_before)


def binding_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(permission, "covers_call", always(True))


def policy_is_not_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Policy, "digest", property(always("always the same")))


def principal_is_not_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Judge, "_parties", always(["anybody", "", "test", ""]))


def instant_answer_counts(patch: pytest.MonkeyPatch) -> None:
    """An answer to a form counts however fast it comes."""
    patch.setattr(obtain, "_MIN_READING_SECONDS", -1e9)


def one_person_votes_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Vote, "is_of", always(False))


def requester_votes(patch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a call may approve it where others have to."""
    patch.setattr(Approver, "may_answer", always(True))


def one_vote_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ApprovalRequest, "needed", property(always(1)))


def any_form_approves(patch: pytest.MonkeyPatch) -> None:
    """A form approves that has more fields than the one that was asked for."""
    read_answer = people.read_answer

    def lenient(request: ApprovalRequest, action: str, content: Mapping[str, object] | None) -> Answer:
        values = content or {}
        if APPROVE in values.values() and len(values) > 1:
            return Approve(request.expected)
        return read_answer(request, action, content)

    patch.setattr(people, "read_answer", lenient)


def decline_does_not_hold(patch: pytest.MonkeyPatch) -> None:
    """A call that a person declined is asked about again."""
    patch.setattr(approval_request, "REFUSED", ())


def newest_request_is_found_by_clocks(patch: pytest.MonkeyPatch) -> None:
    """Of the requests for a call the newest is found, by the clocks of the processes that opened them."""
    patch.setattr(ApprovalRequest, "found_order", property(lambda self: self.created))


def withdrawn_approval_is_used(patch: pytest.MonkeyPatch) -> None:
    with_use = ApprovalRequest.with_use

    def used(self: ApprovalRequest, call_id: str, now: float) -> ApprovalRequest | None:
        is_withdrawn = self.state is RequestState.WITHDRAWN
        usable = replace(self, state=RequestState.APPROVED) if is_withdrawn else self
        return with_use(usable, call_id, now)

    patch.setattr(ApprovalRequest, "with_use", used)


def temporary_approval_does_not_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(approval_request, "TEMPORARY_MINUTES", 600)


def temporary_approval_is_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """An approval of one call approves such calls for a while as well."""
    patch.setattr(ApprovalRequest, "gives_permit", property(lambda self: self.can_be_temporary))


def unread_history_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """People are not told that the history of a record could not be read."""
    history = ChangeJournal.history

    async def silent(self: ChangeJournal, resolved: ResolvedCall) -> tuple[tuple[str, str], ...]:
        facts = await history(self, resolved)
        return tuple((heading, fact) for heading, fact in facts if heading != "Not checked")

    patch.setattr(ChangeJournal, "history", silent)
