"""The Hypothesis machine: it draws what agents, people, faults and clocks do, in any order."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.guard_machine import courses
from support.guard_machine import strategies as draws
from support.guard_machine.courses import Agent
from support.guard_machine.records import Failure, FormAnswer, FormChoice, Moment, Step
from support.guard_machine.simulation import Happening, Simulation, Whom
from support.guard_machine.vocabulary import DELETIONS, POLICIES, SUBJECTS, TENANTS, Subject
from support.guard_machine.wire import FastnFault

Result = TypeVar("Result")


class GuardMachine(RuleBasedStateMachine):
    """Draws courses of agents and people on one kind of store."""

    simulation: Simulation

    @staticmethod
    def store_address(folder: Path) -> str:
        """Return the address of an empty store, for a run in this folder."""
        return f"sqlite:{folder / 'ledger'}"

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory()

    def _run(self, course: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(course)

    @initialize(policies=draws.policy_pairs, skew=draws.skews)
    def begin(self, policies: tuple[str, str], skew: float) -> None:
        folder = Path(self._folder.name)
        address = type(self).store_address(folder)
        one, other = policies
        self.simulation = Simulation(folder, address, (POLICIES[one], POLICIES[other]), skew)

    def teardown(self) -> None:
        try:
            if hasattr(self, "simulation"):
                self._run(self.simulation.aclose())
        finally:
            self._runner.close()
            self._folder.cleanup()

    @invariant()
    def stored_is_sound(self) -> None:
        self._run(self.simulation.check_stored())

    # --- agents ----------------------------------------------------------------------------------------------------

    @rule(
        by=draws.agents,
        subject=draws.subjects,
        list_name=st.sampled_from([None, None, "again"]),
        form=st.sampled_from([None, None, "later"]),
    )
    def call(self, by: Agent, subject: Subject, list_name: str | None, form: Literal["later"] | None) -> None:
        wanted = self.simulation.account.of(subject, list_name)
        self._run(self.simulation.call(by.number, by.principal, wanted, form=form))

    @rule(
        by=draws.agents,
        subject=draws.subjects,
        choice=draws.form_choices,
        seconds=st.sampled_from([5.0, 5.0, 0.01, 700.0]),
    )
    def call_with_form(self, by: Agent, subject: Subject, choice: FormChoice, seconds: float) -> None:
        self._run(courses.call_with_form(self.simulation, subject, choice, seconds, by=by))

    @rule(
        number=draws.processes,
        which=st.integers(0, 5),
        choice=draws.form_choices,
        seconds=st.sampled_from([2.0, 0.01]),
        swapped=st.sampled_from([None, None, None, *SUBJECTS[:4]]),
        principal=st.sampled_from([None, None, *TENANTS]),
    )
    def answer_form(
        self,
        number: int,
        which: int,
        choice: FormChoice,
        seconds: float,
        swapped: str | None,
        principal: str | None,
    ) -> None:
        by = Agent(number, principal or courses.requester(self.simulation, which))
        self._run(courses.answered_form(self.simulation, which, choice, seconds, by=by, swapped=swapped))

    @rule(by=draws.agents, subject=draws.single_calls, scopes=draws.scopes)
    def call_with_scopes(self, by: Agent, subject: str, scopes: frozenset[str]) -> None:
        self._run(courses.call_with_scopes(self.simulation, subject, scopes, by=by))

    @rule(by=draws.agents, which=st.integers(0, 3), is_approved=st.booleans())
    def undo(self, by: Agent, which: int, *, is_approved: bool) -> None:
        form = FormAnswer("approve") if is_approved else None
        self._run(courses.undo(self.simulation, which, form, by=by))

    # --- agents and people -----------------------------------------------------------------------------------------

    @rule(
        by=draws.agents,
        subject=draws.subjects,
        decision=draws.decisions,
        repeats=st.lists(draws.processes, min_size=1, max_size=3),
    )
    def approved_call(self, by: Agent, subject: Subject, decision: draws.Decision, repeats: list[int]) -> None:
        course = courses.approved_call(
            self.simulation, subject, by=by, votes=decision.votes, between=decision.between, repeats=repeats
        )
        self._run(course)

    @rule(by=draws.agents, subject=draws.subjects, votes=draws.votes)
    def declined_call(self, by: Agent, subject: Subject, votes: draws.Votes) -> None:
        self._run(courses.declined_call(self.simulation, subject, votes, by=by))

    @rule(
        numbers=st.tuples(draws.processes, draws.processes),
        principal=draws.principals,
        votes=draws.votes,
        subjects=st.permutations(DELETIONS),
        seconds=st.sampled_from([0.0, 0.0, 200.0]),
    )
    def deletions(
        self, numbers: tuple[int, int], principal: str, votes: draws.Votes, subjects: list[str], seconds: float
    ) -> None:
        course = courses.deletions(
            self.simulation, subjects, numbers=numbers, principal=principal, votes=votes, seconds=seconds
        )
        self._run(course)

    @rule(
        by=draws.agents,
        votes=draws.votes,
        is_revoked=st.booleans(),
        seconds=st.sampled_from([1.0, 600.0, 890.0, 1_200.0]),
        repeats=st.lists(draws.processes, min_size=1, max_size=3),
    )
    def temporary_approval(
        self, by: Agent, votes: draws.Votes, seconds: float, repeats: list[int], *, is_revoked: bool
    ) -> None:
        if votes[0][1] == "approve":
            votes = tuple((person, "temporary") for person, _ in votes)
        course = courses.temporary_approval(
            self.simulation, seconds, by=by, votes=votes, is_revoked=is_revoked, repeats=repeats
        )
        self._run(course)

    @rule(
        which=st.integers(0, 3),
        what=st.sampled_from(["vote", "vote", "withdraw", "revoke", "allow"]),
        votes=draws.votes,
    )
    def decision(self, which: int, what: str, votes: draws.Votes) -> None:
        self._run(courses.decision(self.simulation, which, what, votes))

    @rule(whom=st.sampled_from(["everybody", "tenant", "person"]), voids=st.booleans())
    def stop(self, whom: Whom, *, voids: bool) -> None:
        self._run(self.simulation.stop(whom, voids=voids))

    # --- faults, clocks and the world outside ----------------------------------------------------------------------

    @rule(by=draws.agents, counted=draws.counted_calls, at=draws.counting_steps)
    def calls_near_a_limit(self, by: Agent, counted: draws.CountedCall, at: tuple[Step, Moment]) -> None:
        step, moment = at
        course = courses.calls_near_a_limit(
            self.simulation, counted.subject, step, moment, by=by, earlier_calls=counted.earlier_calls
        )
        self._run(course)

    @rule(
        by=draws.agents,
        subject=st.sampled_from(["create", "run", "disconnect", "invite"]),
        faults=draws.fastn_faults,
    )
    def call_while_fastn_fails(self, by: Agent, subject: str, faults: list[FastnFault]) -> None:
        self._run(courses.call_while_fastn_fails(self.simulation, subject, faults, by=by))

    @rule(
        by=draws.agents,
        subject=draws.subjects,
        step=draws.steps_of_asking,
        moment=draws.moments,
        what=st.one_of(draws.failures, draws.happenings_of_asking),
        is_approved=st.sampled_from([False, True, True]),
    )
    def interrupted_call(
        self,
        by: Agent,
        subject: Subject,
        step: Step,
        moment: Moment,
        what: Failure | Happening,
        *,
        is_approved: bool,
    ) -> None:
        form = FormAnswer("approve") if is_approved else None
        self._run(courses.interrupted_call(self.simulation, subject, step, moment, what, by=by, form=form))

    @rule(
        by=draws.agents,
        subject=draws.subjects_with_more_lists,
        step=draws.steps,
        moment=draws.moments,
        what=draws.failures,
        repeats=st.sampled_from([0, 1, 1, 2]),
    )
    def failing_approved_call(
        self, by: Agent, subject: Subject, step: Step, moment: Moment, what: Failure, repeats: int
    ) -> None:
        course = courses.interrupted_approved_call(self.simulation, subject, step, moment, what, by=by, repeats=repeats)
        self._run(course)

    @rule(
        by=draws.agents,
        subject=draws.subjects,
        step=draws.steps,
        moment=draws.moments,
        what=draws.happenings,
        repeats=st.integers(0, 1),
    )
    def approved_call_while_others_act(
        self, by: Agent, subject: Subject, step: Step, moment: Moment, what: Happening, repeats: int
    ) -> None:
        course = courses.interrupted_approved_call(self.simulation, subject, step, moment, what, by=by, repeats=repeats)
        self._run(course)

    @rule(by=draws.agents, subject=draws.subjects_sent_unasked, case=draws.damage_cases)
    def call_with_unreadable_documents(self, by: Agent, subject: Subject, case: draws.DamageCase) -> None:
        course = courses.call_with_unreadable_documents(
            self.simulation,
            subject,
            case.documents,
            by=by,
            step=case.step,
            faults=case.faults,
            is_stopped=case.is_stopped,
        )
        self._run(course)

    @rule(
        what=st.sampled_from(["time", "rename", "policy"]),
        seconds=st.sampled_from([1.0, 30.0, 301.0, 601.0, 1_200.0]),
        number=draws.processes,
        policy=draws.policies,
        which=st.integers(0, 3),
    )
    def world_changes(self, what: str, seconds: float, number: int, policy: str, which: int) -> None:
        """Time passes, somebody renames a record in the dashboard, or a process starts anew under another policy."""
        match what:
            case "time":
                self.simulation.deployment.clock.pass_(seconds)
            case "rename":
                self.simulation.rename(which)
            case _:
                self._run(self.simulation.restart(number, POLICIES[policy]))
