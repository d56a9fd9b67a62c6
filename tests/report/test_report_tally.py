"""What the entries of an audit add up to: one call each, however many entries it took."""

from pathlib import Path
from typing import Any

import pytest
from support.audit_entries import entries
from support.clock import Clock
from support.faulty_sandbox import Reset
from support.world import FormLater, FormNow, World, yes

from fastn_mcp.client.cost import counted_requests
from fastn_mcp.guard.approval.votes import withdraw
from fastn_mcp.guard.approval_form import Approve, Decline, PendingApproval
from fastn_mcp.guard.recorder import record_expired
from fastn_mcp.guard.stops import void_approvals
from fastn_mcp.ledger.approval_request import ApprovalRequest, Vote
from fastn_mcp.ledger.ledger import Stop
from fastn_mcp.policy.policy import Policy
from fastn_mcp.report.collector import Attempt, OutcomeGroup, Tally
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer


class Watched(World):
    def __init__(
        self, folder: Path, policy: Policy | None = None, clock: Clock | None = None, tokens: str = "t"
    ) -> None:
        self.tally = Tally()
        super().__init__(folder, policy, clock, tokens, self.tally)

    def only(self) -> Attempt:
        (attempt,) = self.tally.attempts
        return attempt

    def lines(self) -> dict[Any, Any]:
        return {line["n"]: line["hash"] for line in entries(self.audit_path)}

    async def globex(self) -> str:
        return next(row.id for row in await self.rows(ListCustomers()) if row.name == "Globex Exports")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


async def test_created_resource_is_done_with_its_new_id_and_audit_entries(watched: Watched) -> None:
    done: Any = await watched.call(CreateCustomer(name="Initech"))
    attempt = watched.only()
    assert (attempt.group, attempt.target, attempt.name) == (OutcomeGroup.DONE, done.result.id, "Initech")
    assert (attempt.effect, attempt.rule, attempt.approved_by) == ("write", "mode guarded: write", "policy")
    assert attempt.change == done.change.id
    assert attempt.duration_ms == 0
    assert {link.n: link.hash for link in attempt.audit} == watched.lines()
    assert [link.event for link in attempt.audit] == ["intent", "outcome"]


async def test_call_has_the_requests_that_were_sent_for_it(watched: Watched) -> None:
    """Those of its preview too. An entry of an older version names none."""
    target = await watched.globex()
    with counted_requests() as spent:
        await watched.call(DeleteCustomer(customer_id=target), FormNow(yes, watched.clock))
        first = spent.requests
        await watched.call(CreateCustomer(name="Initech"))
    await watched.call(CreateCustomer(name="Hooli"))
    assert [attempt.requests for attempt in watched.tally.attempts] == [first, 2, None]
    assert first > 2


async def approved(watched: Watched) -> ApprovalRequest:
    """Return a request that is approved, and whose call is not repeated yet."""
    return await watched.approve_outside(DeleteCustomer(customer_id=await watched.globex()))


async def test_call_whose_approval_is_withdrawn_does_not_wait(watched: Watched) -> None:
    request = await approved(watched)
    vote = Vote("page", approves=False, at=watched.timestamp)
    await withdraw(vote, request, watched.ledger, "local_page", None, watched.recorder.decided)
    attempt = watched.only()
    assert (attempt.group, attempt.outcome) == (OutcomeGroup.DECLINED, "withdrawn")
    assert attempt.message == "Approved, but the approval was withdrawn."


@pytest.mark.parametrize("is_approved", [False, True])
async def test_call_whose_request_a_stop_made_void_does_not_wait(watched: Watched, is_approved: bool) -> None:
    call = DeleteCustomer(customer_id=await watched.globex())
    await watched.expect(PendingApproval, call)
    if is_approved:
        await watched.approve_open_request()
    stop = Stop("s1", watched.timestamp, "a person", reason="a sale")
    await void_approvals(watched.ledger, stop, watched.timestamp, watched.recorder.decided)
    attempt = watched.only()
    assert (attempt.group, attempt.outcome, attempt.message) == (OutcomeGroup.REFUSED, "stopped", "a sale")
    (entry,) = (line for line in entries(watched.audit_path) if line["event"] == "stopped")
    assert "approved_by" not in entry


async def test_call_whose_request_nobody_answered_does_not_wait(watched: Watched) -> None:
    await watched.expect(PendingApproval, DeleteCustomer(customer_id=await watched.globex()))
    watched.clock.pass_(3600)
    account = watched.journalling.account
    await record_expired(watched.ledger, account, watched.timestamp, watched.recorder.decided)
    attempt = watched.only()
    assert (attempt.group, attempt.outcome) == (OutcomeGroup.REFUSED, "expired")


async def test_reads_are_only_counted(watched: Watched) -> None:
    await watched.call(ListCustomers())
    await watched.call(ListCustomers(limit=1))
    assert (watched.tally.attempts, watched.tally.reads) == ([], 2)


async def test_change_with_a_lost_response_is_unknown(watched: Watched) -> None:
    watched.sandbox.faults.add(Reset(method="POST"))
    await watched.call(CreateCustomer(name="Initech"))
    attempt = watched.only()
    assert (attempt.group, attempt.outcome) == (OutcomeGroup.UNKNOWN, "unknown_outcome")
    assert len(attempt.audit) == 2


async def test_call_approved_in_a_form_is_one_call(watched: Watched) -> None:
    target = await watched.globex()
    await watched.call(DeleteCustomer(customer_id=target), FormNow(yes, watched.clock))
    attempt = watched.only()
    assert (attempt.group, attempt.approved_by, attempt.name) == (OutcomeGroup.DONE, "client_form", "Globex Exports")
    assert [link.event for link in attempt.audit] == ["asked", "intent", "outcome"]


async def test_form_answered_by_a_later_call_is_one_call(watched: Watched) -> None:
    """MCP 2026-07-28: the answer comes with another round of the same call."""
    call = DeleteCustomer(customer_id=await watched.globex())
    form = FormLater()
    await watched.call(call, form)
    assert watched.only().group is OutcomeGroup.WAITING
    watched.clock.pass_(5)
    question = form.asked[0]
    await watched.call(call, FormLater(submitted=(question.id, Approve(question.expected))))
    assert watched.only().group is OutcomeGroup.DONE


async def test_declined_call_is_one_call_however_often_it_is_repeated(watched: Watched) -> None:
    call = DeleteCustomer(customer_id=await watched.globex())
    await watched.call(call, FormNow(lambda _: Decline("not today"), watched.clock))
    assert watched.only().group is OutcomeGroup.DECLINED
    await watched.call(call, FormNow(lambda _: Decline("not today"), watched.clock))
    assert {attempt.group for attempt in watched.tally.attempts} == {OutcomeGroup.DECLINED}


async def test_call_requested_by_another_process_is_waiting(watched: Watched, tmp_path: Path) -> None:
    call = DeleteCustomer(customer_id=await watched.globex())
    assert isinstance(await watched.call(call), PendingApproval)
    asked = watched.only()
    assert (asked.group, asked.name, len(asked.audit)) == (OutcomeGroup.WAITING, "Globex Exports", 1)
    await watched.call(call)
    assert watched.only() == asked
    other = Watched(tmp_path, clock=watched.clock, tokens="u")
    await other.call(call)
    attempt = other.only()
    assert (attempt.group, attempt.name, attempt.audit) == (OutcomeGroup.WAITING, "Globex Exports", ())


async def test_refusal_names_its_rule(tmp_path: Path) -> None:
    watched = Watched(tmp_path, Policy("read-only"))
    await watched.call(CreateCustomer(name="Initech"))
    attempt = watched.only()
    assert (attempt.group, attempt.rule) == (OutcomeGroup.REFUSED, "mode read-only: write")


async def test_missing_target_is_failed(watched: Watched) -> None:
    await watched.call(UpdateCustomer(customer_id="nobody", name="x"))
    await watched.call(DeleteCustomer(customer_id="nobody"))
    assert {attempt.group for attempt in watched.tally.attempts} == {OutcomeGroup.FAILED}


def line(event: str, n: int, **more: Any) -> dict[str, Any]:
    made = {"n": n, "hash": f"{n:064x}", "time": f"2026-11-25T09:00:0{n}.000Z", "event": event}
    return made | {"principal": "local", "account": "a", "tool": "delete_customer", "target": "c", "digest": "d"} | more


def test_call_without_an_outcome_is_unknown() -> None:
    tally = Tally()
    tally.entry(line("intent", 1))
    assert tally.attempts[0].group is OutcomeGroup.UNKNOWN
    assert tally.head is not None
    assert tally.head.n == 1


def test_call_approved_on_the_page_waits_until_it_is_made() -> None:
    tally = Tally()
    tally.entry(line("asked", 1, grant="g"))
    tally.entry(line("approved", 2, grant="g", approved_by="local_page"))
    assert (tally.attempts[0].group, tally.attempts[0].approved_by) == (OutcomeGroup.WAITING, "local_page")
    tally.entry(line("intent", 3, grant="g", approved_by="local_page"))
    tally.entry(line("outcome", 4, of="3", outcome="done", duration_ms=2.5))
    assert (tally.attempts[0].group, tally.attempts[0].duration_ms) == (OutcomeGroup.DONE, 2.5)
    assert len(tally.attempts[0].audit) == 4


def test_decline_on_the_page_and_its_repeat_are_one_call() -> None:
    tally = Tally()
    tally.entry(line("asked", 1, grant="g"))
    tally.entry(line("declined", 2, grant="g", approved_by="local_page", message="no"))
    tally.entry(line("declined", 3, outcome="declined", message="A person declined: no"))
    (attempt,) = tally.attempts
    assert (attempt.group, attempt.message) == (OutcomeGroup.DECLINED, "A person declined: no")


def test_calls_of_different_steps_of_a_script_are_different_calls() -> None:
    tally = Tally()
    tally.step = 1
    tally.entry(line("asked", 1, grant="g"))
    tally.step = 2
    tally.entry(line("intent", 2, grant="g"))
    assert [attempt.group for attempt in tally.attempts] == [OutcomeGroup.WAITING, OutcomeGroup.UNKNOWN]


def test_unknown_entries_are_ignored() -> None:
    """An audit can begin in the middle, and hold what a later version writes."""
    tally = Tally()
    tally.entry(line("outcome", 1, of="77", outcome="done"))
    tally.entry(line("approved", 2, grant="unknown"))
    tally.entry(line("temporary_approval_revoked", 3))
    tally.entry(line("of another version", 4))
    assert tally.attempts == []
