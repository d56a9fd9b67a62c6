"""Two processes of the server, agents that call them, people who decide, and a world that changes meanwhile.

After each call of an agent the invariants are checked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from typing_extensions import TypeIs

from support.guard_machine.damage import Documents, damage, repair
from support.guard_machine.deployment import Deployment
from support.guard_machine.invariants import Invariants
from support.guard_machine.model import GuardModel, KnownStop, call_key, key_of_call
from support.guard_machine.people import People
from support.guard_machine.process import Form, GuardProcess
from support.guard_machine.records import (
    FAILURES,
    AgentAnswer,
    AgentCall,
    ApprovalRecord,
    ChangeRecord,
    Event,
    Failure,
    FormAnswer,
    Interruption,
    Moment,
    Step,
)
from support.guard_machine.vocabulary import (
    ALL_SCOPES,
    ISSUER,
    POLICIES,
    TENANTS,
    PolicyCase,
    Subject,
    ToolCall,
    account_calls,
)

Vote = tuple[str, str]
"""A person, and what they say: `approve`, `temporary`, `decline` or `wrong` (another name than the one to type)."""

APPROVED: Sequence[Vote] = (("dana", "approve"), ("kim", "approve"))
"""Two people approve: enough for each policy."""

Whom = Literal["everybody", "tenant", "person"]

Happening = Literal["rename", "stop", "stop and allow", "other call", "approve", "decline", "withdraw"]
"""What others do while a call is made, or between two."""


def _is_failure(what: Failure | Happening) -> TypeIs[Failure]:
    return what in FAILURES


class Simulation:
    """One run: a deployment with two processes, and the machine's account of it.

    The processes have the numbers 0 and 1, also once another one has taken their place.
    """

    def __init__(
        self, folder: Path, store_address: str, policies: tuple[PolicyCase, PolicyCase], skew: float = 0.0
    ) -> None:
        """`policies` are those of the two processes; the clock of the second is ahead by `skew` seconds."""
        self.deployment = Deployment(folder, store_address)
        self.people = People(self.deployment)
        self.model = GuardModel(self.deployment)
        self.invariants = Invariants(self.deployment, self.model)
        self.account = account_calls(self.deployment.sandbox.state)
        self.pending_forms: list[tuple[str, ToolCall]] = []
        """Requests whose form a client shows, and the calls that it sends again with the answer."""
        self._started = 0
        self.processes = [self._start(policies[0], 0.0), self._start(policies[1], skew)]

    def _start(self, policy: PolicyCase, skew: float) -> GuardProcess:
        self._started += 1
        return GuardProcess(self.deployment, f"p{self._started}", policy, skew=skew)

    async def change_policy(self, number: int, which: int = 0) -> None:
        """Start a process anew under another policy."""
        others = [policy for policy in POLICIES.values() if policy != self.processes[number].policy]
        await self.restart(number, others[which % len(others)])

    async def restart(self, number: int, policy: PolicyCase | None = None) -> None:
        """Replace a process by a new one, perhaps under another policy."""
        old = self.processes[number]
        await old.aclose()
        self.processes[number] = self._start(policy or old.policy, old.skew)

    async def aclose(self) -> None:
        for process in self.processes:
            await process.aclose()
        await self.deployment.aclose()

    # --- calls of agents -------------------------------------------------------------------------------------------

    async def make(
        self,
        number: int,
        principal: str,
        wanted: ToolCall,
        *,
        scopes: frozenset[str] = ALL_SCOPES,
        form: Form = None,
        interruption: Interruption | None = None,
    ) -> AgentAnswer:
        """Have an agent call a tool, and note what that means. Nothing is checked yet."""
        process = self.processes[number]
        deployment = self.deployment
        call = AgentCall(
            process=process.name,
            policy=process.policy.name,
            skew=process.skew,
            principal=ISSUER + principal,
            scopes=scopes,
            tool=wanted.tool,
            arguments=wanted.arguments,
            began=deployment.next_number(),
            time=deployment.now,
            renames=dict(self.model.renames),
            interruption=interruption,
        )
        begun = await self._begun_changes() if call.is_list else []
        answer = await process.call(call, TENANTS[principal], form)
        if isinstance(form, FormAnswer):
            self.model.note_form(call, form, await deployment.approvals())
        if answer.outcome == "form" and answer.approval_id is not None:
            self.pending_forms.append((answer.approval_id, wanted))
        self.model.note_end(call, answer)
        if begun and "calls" in answer.data:
            still_begun = {change.id for change in await self._begun_changes()}
            unsettled = [change for change in begun if change.id in still_begun]
            self.invariants.begun_calls_are_told_as_unknown(answer, unsettled)
        if call.is_history_unread and call.opened:
            self.invariants.unread_history_is_told(call, await deployment.approvals())
        return answer

    async def call(
        self,
        number: int,
        principal: str,
        wanted: ToolCall,
        *,
        scopes: frozenset[str] = ALL_SCOPES,
        form: Form = None,
        interruption: Interruption | None = None,
    ) -> AgentAnswer:
        """Have an agent call a tool, start anew the processes that were killed, and check what was sent."""
        answer = await self.make(number, principal, wanted, scopes=scopes, form=form, interruption=interruption)
        for each, process in enumerate(self.processes):
            if process.is_dead:
                await self.restart(each)
                await self._check_listed(each, principal)
        self.invariants.check_sent()
        return answer

    async def _begun_changes(self) -> list[ChangeRecord]:
        return [change for change in await self.deployment.changes() if change.outcome == "begun"]

    async def _check_listed(self, number: int, principal: str) -> None:
        """Have an agent list the changes after a kill, and check what it is told."""
        begun = await self._begun_changes()
        answer = await self.make(number, principal, ToolCall("list_changes", {"limit": 100}))
        self.invariants.begun_changes_are_listed_as_unknown(answer, begun)

    async def check_stored(self) -> None:
        """Check all that is stored and logged."""
        await self.invariants.check_stored()

    # --- people ----------------------------------------------------------------------------------------------------

    async def vote(self, approval_id: str, person: str, choice: str) -> None:
        before = await self.deployment.approval(approval_id)
        is_counted = await self.people.vote(approval_id, person, choice)
        if before is not None and is_counted:
            self.model.note_vote(before, person, choice)

    async def withdraw(self, approval_id: str) -> None:
        before = await self.deployment.approval(approval_id)
        is_withdrawn = await self.people.withdraw(approval_id)
        if before is not None and is_withdrawn:
            self.model.note_refusal(before)

    async def revoke(self, which: int = 0) -> None:
        """End one of the temporary approvals, if there is one."""
        given = self.model.temporary_approvals
        if not given:
            return
        approval_id = given[which % len(given)]
        if await self.people.revoke(approval_id):
            self.model.approvals[approval_id].is_revoked = True

    async def stop(self, whom: Whom, *, voids: bool) -> None:
        """Stop changes, unless a stop holds."""
        if self.model.held_stop is not None:
            return
        tenant = "acme" if whom == "tenant" else ""
        person = "ben" if whom == "person" else ""
        stopped = {"everybody": ("anna", "ben"), "tenant": ("anna",), "person": ("ben",)}[whom]
        stop = await self.people.stop(tenant, person, voids=voids)
        principals = frozenset(ISSUER + name for name in stopped)
        self.model.stops.append(KnownStop(stop, self.deployment.next_number(), principals))

    async def allow(self) -> None:
        """Lift the stop that holds, if one does."""
        held = self.model.held_stop
        if held is not None:
            await self.people.allow(held.stop)
            held.lifted_at = self.deployment.next_number()

    async def waiting(self) -> list[ApprovalRecord]:
        """Return the open requests that people see outside of a client, in order of their ids."""
        records = (await self.deployment.approvals()).values()
        waiting = [record for record in records if record.state == "open" and not record.is_form]
        return sorted(waiting, key=lambda record: record.id)

    async def decide(self, principal: str, wanted: ToolCall, votes: Sequence[Vote]) -> None:
        """Have people vote on what waits of a call."""
        key = call_key(ISSUER + principal, wanted.tool, wanted.arguments)
        for record in await self.waiting():
            known = self.model.approvals.get(record.id)
            if known is not None and key_of_call(known.call) == key:
                for person, choice in votes:
                    await self.vote(record.id, person, choice)

    async def ask_and_decide(self, number: int, principal: str, wanted: ToolCall, votes: Sequence[Vote]) -> None:
        """Make a call, once changes are allowed, and have people decide if it asks."""
        await self.allow()
        await self.call(number, principal, wanted)
        await self.decide(principal, wanted, votes)

    # --- faults and the world outside ------------------------------------------------------------------------------

    def rename(self, which: int) -> None:
        """Rename a record in the dashboard, unless it was deleted."""
        record = self.account.renamed[which]
        if self.deployment.rename(record, self.model.next_name(record)):
            self.model.note_rename(record)

    async def damage(self, documents: Documents) -> None:
        """Make stored documents of a kind unreadable, until they are repaired."""
        damaged = await damage(self.deployment, self.processes, documents)
        self.model.damages.append(damaged)

    async def repair(self) -> None:
        """Make all stored documents readable again."""
        for damaged in self.model.damages:
            if damaged.repaired_at is None:
                await repair(self.deployment, damaged)

    def interruption(
        self, step: Step, moment: Moment, what: Failure | Happening, *, number: int, principal: str, subject: Subject
    ) -> Interruption:
        """Return what interrupts a call of this subject, made by this person's agent in this process."""
        if _is_failure(what):
            return Interruption(step, moment, what)
        return Interruption(step, moment, self.event(what, number=number, principal=principal, subject=subject))

    def event(self, what: Happening, *, number: int, principal: str, subject: Subject) -> Event:
        """Return what others do while a call of this subject is made."""

        async def act() -> None:
            match what:
                case "stop":
                    await self.stop("everybody", voids=False)
                case "stop and allow":
                    await self.stop("everybody", voids=False)
                    await self.allow()
                case "rename":
                    for which in range(len(self.account.renamed)):
                        self.rename(which)
                case "other call":
                    await self.make(1 - number, principal, self.account.of(subject))
                case "approve" | "decline" | "withdraw":
                    await self._decide_own(principal, what)

        return act

    async def _decide_own(self, principal: str, what: Literal["approve", "decline", "withdraw"]) -> None:
        """Have somebody vote on all that a person waits for, or take back all their approvals."""
        wanted_state = "approved" if what == "withdraw" else "open"
        for record in await self._own(principal, wanted_state):
            if what == "withdraw":
                await self.withdraw(record.id)
            else:
                await self.vote(record.id, "dana", what)

    async def _own(self, principal: str, state: str) -> list[ApprovalRecord]:
        """Return a person's requests outside of a client that are in this state."""
        records = (await self.deployment.approvals()).values()
        own = ISSUER + principal
        return [each for each in records if each.principal == own and each.state == state and not each.is_form]
