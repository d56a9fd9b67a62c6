"""The guard machine finds each planted fault, in a course of few steps that the guard itself passes."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase
from support.guard_machine import courses
from support.guard_machine.courses import Agent
from support.guard_machine.faults import FAULTS
from support.guard_machine.invariants import Invariants
from support.guard_machine.records import Step
from support.guard_machine.search import search
from support.guard_machine.simulation import Simulation
from support.guard_machine.vocabulary import LIMITED, POLICIES, SKEW

BEGIN = Step("store", "begin")
LAST_STOPS = Step("store", "stops", 0)
SENT = Step("change")
WIDGET = "delete widget"
LIST = ("run", "invite")


@dataclass(frozen=True, slots=True)
class Course:
    """What happens, under a policy of both processes. The clock of the second is ahead by `skew` seconds."""

    run: Callable[[Simulation], Awaitable[None]]
    policy: str = "plain"
    skew: float = 0.0


async def _approval_of_another_person(simulation: Simulation) -> None:
    """An agent of one person makes the call that another person's agent asked about."""
    await courses.approved_call(simulation, repeats=())
    await simulation.call(0, "ben", simulation.account.of("run"))


async def _rest_of_a_list_is_declined(simulation: Simulation) -> None:
    """A process whose clock is ahead asks about a list, another one about its rest, which a person declines."""
    subject = ("delete widget", "delete katana")
    await courses.interrupted_approved_call(simulation, subject, SENT, "after", "rename", by=Agent(1))
    await simulation.ask_and_decide(0, "anna", simulation.account.of(subject), [("kim", "decline")])
    simulation.deployment.clock.pass_(SKEW + 1)
    await courses.approved_call(simulation, subject)


async def _killed_list(simulation: Simulation) -> None:
    """The process is killed after it has sent the first call of a list, and the list is repeated."""
    await courses.interrupted_approved_call(simulation, LIST, SENT, "after", "kill", repeats=1)


async def _list_killed_twice(simulation: Simulation) -> None:
    """So that no answer tells what became of its calls."""
    for _ in range(2):
        await courses.interrupted_approved_call(simulation, LIST, SENT, "after", "kill")


async def _calls_of_both_processes(simulation: Simulation) -> None:
    """Each process logs what people are asked, in turn."""
    for number, subject in ((0, "run"), (1, "invite"), (0, "trash")):
        await simulation.call(number, "anna", simulation.account.of(subject))


COURSES: Mapping[str, Course] = {
    "nobody is asked": Course(courses.approved_call),
    "approval is not used": Course(courses.approved_call),
    "approval is used twice": Course(
        lambda run: courses.interrupted_approved_call(run, "run", BEGIN, "before", "other call")
    ),
    "approval is used before its change": Course(
        lambda run: courses.interrupted_approved_call(run, "run", BEGIN, "before", "kill")
    ),
    "binding is not compared": Course(lambda run: courses.approved_call(run, WIDGET, between="rename")),
    "policy is not bound": Course(lambda run: courses.approved_call(run, between="policy")),
    "principal is not bound": Course(_approval_of_another_person),
    "instant approval counts": Course(lambda run: courses.call_with_form(run, "run", "approve", 0.01)),
    "instant decline counts": Course(lambda run: courses.call_with_form(run, "run", "decline", 0.01)),
    "one person votes twice": Course(
        lambda run: courses.approved_call(run, WIDGET, votes=[("dana", "approve"), ("dana", "approve")]),
        policy="four eyes",
    ),
    "requester votes": Course(
        lambda run: courses.approved_call(run, WIDGET, votes=[("anna", "approve"), ("dana", "approve")]),
        policy="four eyes",
    ),
    "one vote is enough": Course(
        lambda run: courses.approved_call(run, WIDGET, votes=[("dana", "approve")]), policy="four eyes"
    ),
    "any form approves": Course(lambda run: courses.call_with_form(run, "run", "malformed", 5.0)),
    "decline does not hold": Course(lambda run: courses.declined_call(run, "run", [("dana", "approve")])),
    "newest request is found by clocks": Course(_rest_of_a_list_is_declined, skew=SKEW),
    "withdrawn approval is used": Course(
        lambda run: courses.interrupted_approved_call(run, "run", BEGIN, "before", "withdraw")
    ),
    "temporary approval does not end": Course(lambda run: courses.temporary_approval(run, 1_200.0)),
    "temporary approval is not asked for": Course(lambda run: courses.approved_call(run, repeats=(0, 0))),
    "history that was not read is not told": Course(
        lambda run: courses.interrupted_call(run, WIDGET, Step("store", "recent_changes"), "before", "fail")
    ),
    "journal after send": Course(courses.approved_call),
    "journal after log": Course(
        lambda run: courses.interrupted_approved_call(run, "run", Step("audit", "intent"), "after", "kill")
    ),
    "intent is not logged": Course(courses.approved_call),
    "log is not chained over processes": Course(_calls_of_both_processes),
    "stop epoch is ignored": Course(lambda run: courses.approved_call(run, between="stop and allow")),
    "stops are compared by clocks": Course(
        lambda run: courses.approved_call(run, by=Agent(1), between="stop and allow", repeats=(1,)), skew=SKEW
    ),
    "stops are not read before the send": Course(
        lambda run: courses.interrupted_approved_call(run, "run", BEGIN, "after", "stop")
    ),
    "failed read of stops is ignored": Course(
        lambda run: courses.interrupted_approved_call(run, "run", LAST_STOPS, "before", "fail")
    ),
    "unreadable stop is none": Course(
        lambda run: courses.call_with_unreadable_documents(run, "run", "stops", is_stopped=True)
    ),
    "failed use is ignored": Course(lambda run: courses.interrupted_approved_call(run, "run", BEGIN, "before", "fail")),
    "unreadable use is none": Course(
        lambda run: courses.call_with_unreadable_documents(run, "run", "limits", step=BEGIN), policy=LIMITED
    ),
    "unreadable change is none": Course(
        lambda run: courses.call_with_unreadable_documents(run, "create", "changes", faults=["lost applied"])
    ),
    "limit is counted apart": Course(
        lambda run: courses.calls_near_a_limit(run, "create", BEGIN, "before"), policy=LIMITED
    ),
    "rate is not counted": Course(courses.deletions, policy=LIMITED),
    "begun call is sent again": Course(_list_killed_twice),
    "begun call is told as made": Course(_killed_list),
    "begun change is listed as it is stored": Course(_killed_list),
    "cancelled call is sent": Course(
        lambda run: courses.interrupted_approved_call(run, "run", SENT, "before", "cancel")
    ),
    "scopes are not checked": Course(lambda run: courses.call_with_scopes(run, "create", frozenset({"fastn:read"}))),
    "lost call is repeated": Course(lambda run: courses.call_while_fastn_fails(run, "create", ["lost applied"])),
    "create is sent again": Course(lambda run: courses.call_while_fastn_fails(run, "create", ["500", "500"])),
}


async def play(course: Course, store_address: Callable[[Path], str], folder: Path) -> None:
    """Take the steps of a course, and check everything."""
    policy = POLICIES[course.policy]
    simulation = Simulation(folder, store_address(folder), (policy, policy), course.skew)
    try:
        await course.run(simulation)
        await simulation.check_stored()
    finally:
        await simulation.aclose()


def test_every_fault_has_a_course() -> None:
    assert COURSES.keys() == FAULTS.keys()


def test_every_invariant_is_broken_by_a_fault() -> None:
    invariants = {
        name for name, _ in inspect.getmembers(Invariants, inspect.isfunction) if not name.startswith(("_", "check_"))
    }
    assert {fault.breaks.__name__ for fault in FAULTS.values()} == invariants


RARE = frozenset({"newest request is found by clocks", "stops are compared by clocks", "unreadable change is none"})
"""Faults that a random search finds in hundreds of runs only."""

SEARCHED_RUNS = 120


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - RARE))
def test_planted_fault_is_found_at_random(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a change of the machine hides one, draw what shows it more often (`strategies.py`)."""
    FAULTS[name].plant(monkeypatch)
    with pytest.raises(AssertionError):
        search(lambda folder: f"memory:{folder}", range(SEARCHED_RUNS), step_count=25, phases=[Phase.generate])


@pytest.mark.parametrize("name", COURSES)
async def test_guard_keeps_the_invariants_in_the_course_of_a_fault(
    name: str, store_address: Callable[[Path], str], tmp_path: Path
) -> None:
    await play(COURSES[name], store_address, tmp_path)


@pytest.mark.parametrize("name", COURSES)
async def test_planted_fault_is_found(
    name: str, store_address: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[name].plant(monkeypatch)
    with pytest.raises(AssertionError) as found:
        await play(COURSES[name], store_address, tmp_path)
    assert found.traceback[-1].name == FAULTS[name].breaks.__name__, str(found.value)[:200]
