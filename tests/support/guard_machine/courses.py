"""Courses that calls take: agents, people and faults in an order that is likely to find something.

The machine draws their arguments. `tests/guard/test_guard_machine_faults.py` has those by which each fault is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from support.guard_machine.damage import Documents
from support.guard_machine.process import Form
from support.guard_machine.records import Failure, FormAnswer, FormChoice, Interruption, Moment, Step
from support.guard_machine.simulation import APPROVED, Happening, Simulation, Vote
from support.guard_machine.vocabulary import DELETIONS, ISSUER, LIMITED, POLICIES, Subject, ToolCall
from support.guard_machine.wire import FastnFault


@dataclass(frozen=True, slots=True)
class Agent:
    """A person's agent, and the process that it calls."""

    number: int = 0
    principal: str = "anna"


ANNA = Agent()


async def call_with_form(
    simulation: Simulation, subject: Subject, choice: FormChoice, seconds: float, *, by: Agent = ANNA
) -> None:
    """A call whose client shows a form, which is answered after so many seconds."""
    await simulation.allow()
    form = FormAnswer(choice, seconds)
    await simulation.call(by.number, by.principal, simulation.account.of(subject), form=form)


async def answered_form(
    simulation: Simulation, which: int, choice: FormChoice, seconds: float, *, by: Agent, swapped: Subject | None
) -> None:
    """A call sent again with the answer to its form; or another call or another person's, with that answer."""
    if not simulation.pending_forms:
        return
    approval_id, wanted = simulation.pending_forms[which % len(simulation.pending_forms)]
    if swapped is not None:
        wanted = simulation.account.of(swapped)
    simulation.deployment.clock.pass_(seconds)
    form = FormAnswer(choice, seconds, approval_id)
    await simulation.call(by.number, by.principal, wanted, form=form)


async def call_with_scopes(
    simulation: Simulation, subject: Subject, scopes: frozenset[str], *, by: Agent = ANNA
) -> None:
    """A call of somebody whose sign-in has fewer scopes."""
    await simulation.call(by.number, by.principal, simulation.account.of(subject), scopes=scopes)


async def undo(simulation: Simulation, which: int, form: Form, *, by: Agent) -> None:
    """An undo of a change that was made."""
    made = [change for change in await simulation.deployment.changes() if change.outcome == "done"]
    if made:
        wanted = ToolCall("undo_change", {"change_id": made[which % len(made)].id})
        await simulation.call(by.number, by.principal, wanted, form=form)


async def approved_call(
    simulation: Simulation,
    subject: Subject = "run",
    *,
    by: Agent = ANNA,
    votes: Sequence[Vote] = APPROVED,
    between: Happening | Literal["policy"] | None = None,
    repeats: Sequence[int] = (0,),
) -> None:
    """The usual course: people decide outside the client, and the agent repeats its call, perhaps once too often.

    `between`: what happens after people have decided. `repeats`: the processes that it calls then.
    """
    wanted = simulation.account.of(subject)
    await simulation.ask_and_decide(by.number, by.principal, wanted, votes)
    if between == "policy":
        await simulation.change_policy(repeats[0], which=len(repeats))
    elif between is not None:
        event = simulation.event(between, number=by.number, principal=by.principal, subject=subject)
        await event()
    for number in repeats:
        await simulation.call(number, by.principal, wanted)


async def declined_call(simulation: Simulation, subject: Subject, votes: Sequence[Vote], *, by: Agent = ANNA) -> None:
    """A person declines a call, and the agent insists."""
    wanted = simulation.account.of(subject)
    await simulation.ask_and_decide(by.number, by.principal, wanted, [("kim", "decline")])
    await simulation.ask_and_decide(by.number, by.principal, wanted, votes)
    await simulation.call(by.number, by.principal, wanted)


async def deletions(
    simulation: Simulation,
    subjects: Sequence[Subject] = DELETIONS,
    *,
    numbers: Sequence[int] = (0, 1),
    principal: str = "anna",
    votes: Sequence[Vote] = APPROVED,
    seconds: float = 0.0,
) -> None:
    """People approve one deletion after another, made by the processes in turn."""
    for place, subject in enumerate(subjects):
        number = numbers[place % len(numbers)]
        wanted = simulation.account.of(subject)
        await simulation.ask_and_decide(number, principal, wanted, votes)
        await simulation.call(number, principal, wanted)
        simulation.deployment.clock.pass_(seconds)


async def temporary_approval(
    simulation: Simulation,
    seconds: float,
    *,
    by: Agent = ANNA,
    votes: Sequence[Vote] = (("dana", "temporary"), ("kim", "temporary")),
    is_revoked: bool = False,
    repeats: Sequence[int] = (0,),
) -> None:
    """People approve a call and such calls for a while, and the agent makes some, also later."""
    wanted = simulation.account.of("run")
    await simulation.ask_and_decide(by.number, by.principal, wanted, votes)
    await simulation.call(by.number, by.principal, wanted)
    simulation.deployment.clock.pass_(seconds)
    if is_revoked:
        await simulation.revoke()
    for number in repeats:
        await simulation.call(number, by.principal, wanted)


async def calls_near_a_limit(
    simulation: Simulation,
    subject: Subject,
    step: Step,
    moment: Moment,
    *,
    by: Agent = ANNA,
    earlier_calls: int = 0,
) -> None:
    """Calls that count in a limit of both processes, the last of them while the other process makes one too."""
    for number in (0, 1):
        await simulation.restart(number, POLICIES[LIMITED])
    wanted = simulation.account.of(subject)
    for _ in range(earlier_calls):
        await simulation.ask_and_decide(by.number, by.principal, wanted, APPROVED)
        await simulation.call(by.number, by.principal, wanted)
    interruption = simulation.interruption(
        step, moment, "other call", number=by.number, principal=by.principal, subject=subject
    )
    await simulation.call(by.number, by.principal, wanted, interruption=interruption)


async def call_while_fastn_fails(
    simulation: Simulation,
    subject: Subject,
    faults: Sequence[FastnFault],
    *,
    by: Agent = ANNA,
    votes: Sequence[Vote] = APPROVED,
) -> None:
    """Fastn fails, and the agent repeats its call."""
    wanted = simulation.account.of(subject)
    await simulation.ask_and_decide(by.number, by.principal, wanted, votes)
    simulation.deployment.fastn_faults[:] = faults
    for number in (by.number, by.number, 1 - by.number):
        await simulation.call(number, by.principal, wanted)
    simulation.deployment.fastn_faults.clear()


async def interrupted_call(
    simulation: Simulation,
    subject: Subject,
    step: Step,
    moment: Moment,
    what: Failure | Happening,
    *,
    by: Agent = ANNA,
    form: Form = None,
) -> None:
    """Something happens before or after one step of a call."""
    await simulation.allow()
    interruption = simulation.interruption(
        step, moment, what, number=by.number, principal=by.principal, subject=subject
    )
    wanted = simulation.account.of(subject)
    await simulation.call(by.number, by.principal, wanted, form=form, interruption=interruption)


async def interrupted_approved_call(
    simulation: Simulation,
    subject: Subject,
    step: Step,
    moment: Moment,
    what: Failure | Happening,
    *,
    by: Agent = ANNA,
    votes: Sequence[Vote] = APPROVED,
    repeats: int = 0,
) -> None:
    """People approve a call, and something happens while it is made. Then it is made again, also elsewhere."""
    wanted = simulation.account.of(subject)
    await simulation.ask_and_decide(by.number, by.principal, wanted, votes)
    interruption = simulation.interruption(
        step, moment, what, number=by.number, principal=by.principal, subject=subject
    )
    await simulation.call(by.number, by.principal, wanted, interruption=interruption)
    for repeat in range(repeats):
        number = by.number if repeat == 0 else 1 - by.number
        await simulation.ask_and_decide(number, by.principal, wanted, APPROVED)
        await simulation.call(number, by.principal, wanted)


async def call_with_unreadable_documents(
    simulation: Simulation,
    subject: Subject,
    documents: Documents,
    *,
    by: Agent = ANNA,
    step: Step | None = None,
    faults: Sequence[FastnFault] = (),
    is_stopped: bool = False,
) -> None:
    """People approve a call, and stored documents become unreadable: before the call is repeated, or before a `step`.

    `faults` are those of Fastn in a call before. `is_stopped`: a person stops changes before the documents are damaged.
    """
    wanted = simulation.account.of(subject)
    await simulation.ask_and_decide(by.number, by.principal, wanted, APPROVED)
    if faults:
        simulation.deployment.fastn_faults[:] = faults
        await simulation.call(by.number, by.principal, wanted)
        simulation.deployment.fastn_faults.clear()
    if is_stopped:
        await simulation.stop("everybody", voids=False)

    async def damage() -> None:
        await simulation.damage(documents)

    interruption = None
    if step is None:
        await damage()
    else:
        interruption = Interruption(step, "before", damage)
    for number in (by.number, 1 - by.number):
        await simulation.call(number, by.principal, wanted, interruption=interruption)
    await simulation.repair()
    await simulation.call(by.number, by.principal, wanted)


async def decision(simulation: Simulation, which: int, what: str, votes: Sequence[Vote]) -> None:
    """People decide about something that waits, or take back what they gave."""
    waiting = await simulation.waiting()
    approvals = await simulation.deployment.approvals()
    approved = sorted(record.id for record in approvals.values() if record.state == "approved")
    match what:
        case "vote" if waiting:
            for person, choice in votes:
                await simulation.vote(waiting[which % len(waiting)].id, person, choice)
        case "withdraw" if approved:
            await simulation.withdraw(approved[which % len(approved)])
        case "revoke":
            await simulation.revoke(which)
        case "allow":
            await simulation.allow()
        case _:
            pass


def requester(simulation: Simulation, which: int) -> str:
    """Return the person whose agent asked for one of the pending forms; anybody if there is none."""
    if not simulation.pending_forms:
        return ANNA.principal
    approval_id, _ = simulation.pending_forms[which % len(simulation.pending_forms)]
    return simulation.model.approvals[approval_id].call.principal.removeprefix(ISSUER)
