"""The Hypothesis machine: it draws what agents, people, faults and clocks do, in any order."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.guard_machine import courses
from support.guard_machine.courses import Caller
from support.guard_machine.damage import DOCUMENTS, Documents
from support.guard_machine.records import FAILURES, FormAnswer, FormChoice, Moment, Step
from support.guard_machine.simulation import Happening, Simulation, Vote, Whom
from support.guard_machine.vocabulary import (
    ALL_SCOPES,
    DELETIONS,
    LIMITED,
    LISTS,
    POLICIES,
    SKEW,
    SUBJECTS,
    TENANTS,
    Subject,
)
from support.guard_machine.wire import FASTN_FAULTS, FastnFault

Result = TypeVar("Result")

Votes = tuple[Vote, ...]

# --- what is drawn. What is listed more than once is drawn more often. ---------------------------------------------

_POLICY_PAIRS = [
    *[(name, name) for name in POLICIES] * 2,
    ("plain", "strict"),
    (LIMITED, "plain"),
    ("four eyes", "plain"),
]

_VOTES: list[Votes] = [
    *[(("dana", "approve"), ("kim", "approve"))] * 4,
    (("dana", "approve"), ("dana", "approve")),
    (("anna", "approve"), ("ben", "approve"), ("dana", "approve")),
    (("ben", "approve"), ("kim", "approve")),
    (("terminal", "approve"), ("dana", "temporary")),
    (("dana", "temporary"), ("kim", "temporary")),
    (("dana", "approve"), ("kim", "decline")),
    (("dana", "decline"),),
    (("dana", "wrong"), ("terminal", "wrong")),
]

_STEPS = [
    *[Step("store", "begin")] * 4,
    Step("store", "begin", 1),
    Step("store", "stops", 0),
    Step("store", "stops", 1),
    Step("store", "stops", 2),
    Step("store", "open"),
    Step("store", "latest"),
    Step("store", "find"),
    Step("store", "settle"),
    Step("store", "spent"),
    Step("store", "rate_uses"),
    Step("store", "recent_changes"),
    *[Step("commit", "begin")] * 3,
    Step("commit", "begin", 1),
    Step("commit"),
    Step("commit", "settle"),
    Step("commit", "open"),
    Step("store", number=4),
    Step("store", number=9),
    Step("store", number=14),
    Step("store", number=20),
    *[Step("audit", "intent")] * 2,
    Step("audit", "outcome"),
    Step("audit", "asked"),
    Step("read"),
    Step("read", number=3),
    *[Step("change")] * 2,
    Step("change", number=1),
]
"""Steps that are worth an interruption."""

_COUNTING_STEPS = [
    Step("store", "spent"),
    Step("store", "rate_uses"),
    Step("store", "begin"),
    Step("commit", "begin"),
]

_HAPPENINGS: list[Happening] = [
    "stop",
    "stop",
    "stop and allow",
    "rename",
    "approve",
    "decline",
    "withdraw",
    "other call",
    "other call",
]

_CHOICES: list[FormChoice] = ["approve", "temporary", "decline", "cancel", "empty", "malformed", "wrong"]

_callers = st.builds(Caller, st.sampled_from([0, 1]), st.sampled_from(sorted(TENANTS)))
_processes = st.sampled_from([0, 1])
_single_calls = st.sampled_from(SUBJECTS)
_subjects = st.one_of(_single_calls, st.sampled_from(LISTS))
_votes = st.sampled_from(_VOTES)
_steps = st.sampled_from(_STEPS)
_moments = st.sampled_from(["before", "after"])
_interruptions = st.sampled_from(["kill", "kill", *FAILURES, "fail", *_HAPPENINGS])
_numbers = st.integers(0, 3)


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

    @initialize(policies=st.sampled_from(_POLICY_PAIRS), skew=st.sampled_from([0.0, 0.0, -SKEW, SKEW]))
    def begin(self, policies: tuple[str, str], skew: float) -> None:
        folder = Path(self._folder.name)
        self.simulation = Simulation(
            folder, type(self).store_address(folder), (POLICIES[policies[0]], POLICIES[policies[1]]), skew
        )

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
        by=_callers,
        subject=_subjects,
        list_name=st.sampled_from([None, None, "again"]),
        form=st.sampled_from([None, None, "later"]),
    )
    def call(self, by: Caller, subject: Subject, list_name: str | None, form: Literal["later"] | None) -> None:
        wanted = self.simulation.account.of(subject, list_name)
        self._run(self.simulation.call(by.number, by.principal, wanted, form=form))

    @rule(
        by=_callers,
        subject=_subjects,
        choice=st.sampled_from(["approve", "approve", "approve", *_CHOICES]),
        seconds=st.sampled_from([5.0, 5.0, 0.01, 700.0]),
    )
    def call_with_form(self, by: Caller, subject: Subject, choice: FormChoice, seconds: float) -> None:
        self._run(courses.call_with_form(self.simulation, subject, choice, seconds, by=by))

    @rule(
        number=_processes,
        which=st.integers(0, 5),
        choice=st.sampled_from(["approve", "approve", *_CHOICES]),
        seconds=st.sampled_from([2.0, 0.01]),
        swapped=st.sampled_from([None, None, None, *SUBJECTS[:4]]),
        principal=st.sampled_from([None, None, *sorted(TENANTS)]),
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
        by = Caller(number, principal or courses.requester(self.simulation, which))
        self._run(courses.answered_form(self.simulation, which, choice, seconds, by=by, swapped=swapped))

    @rule(by=_callers, subject=_single_calls, scopes=st.frozensets(st.sampled_from(sorted(ALL_SCOPES))))
    def call_with_scopes(self, by: Caller, subject: str, scopes: frozenset[str]) -> None:
        self._run(courses.call_with_scopes(self.simulation, subject, scopes, by=by))

    @rule(by=_callers, which=_numbers, is_approved=st.booleans())
    def undo(self, by: Caller, which: int, *, is_approved: bool) -> None:
        form = FormAnswer("approve") if is_approved else None
        self._run(courses.undo(self.simulation, which, form, by=by))

    # --- agents and people -----------------------------------------------------------------------------------------

    @rule(
        by=_callers,
        subject=_subjects,
        votes=_votes,
        repeats=st.lists(_processes, min_size=1, max_size=3),
        between=st.sampled_from([None, None, None, "rename", "stop", "stop and allow", "withdraw", "policy"]),
    )
    def approved_call(
        self,
        by: Caller,
        subject: Subject,
        votes: Votes,
        repeats: list[int],
        between: Happening | Literal["policy"] | None,
    ) -> None:
        course = courses.approved_call(self.simulation, subject, by=by, votes=votes, between=between, repeats=repeats)
        self._run(course)

    @rule(by=_callers, subject=_subjects, votes=_votes)
    def declined_call(self, by: Caller, subject: Subject, votes: Votes) -> None:
        self._run(courses.declined_call(self.simulation, subject, votes, by=by))

    @rule(
        numbers=st.tuples(_processes, _processes),
        principal=st.sampled_from(sorted(TENANTS)),
        votes=_votes,
        subjects=st.permutations(DELETIONS),
        seconds=st.sampled_from([0.0, 200.0]),
    )
    def deletions(
        self, numbers: tuple[int, int], principal: str, votes: Votes, subjects: list[str], seconds: float
    ) -> None:
        course = courses.deletions(
            self.simulation, subjects, numbers=numbers, principal=principal, votes=votes, seconds=seconds
        )
        self._run(course)

    @rule(
        by=_callers,
        votes=_votes,
        is_revoked=st.booleans(),
        seconds=st.sampled_from([1.0, 600.0, 890.0, 1_200.0]),
        repeats=st.lists(_processes, min_size=1, max_size=3),
    )
    def temporary_approval(
        self, by: Caller, votes: Votes, seconds: float, repeats: list[int], *, is_revoked: bool
    ) -> None:
        if votes[0][1] == "approve":
            votes = tuple((person, "temporary") for person, _ in votes)
        course = courses.temporary_approval(
            self.simulation, seconds, by=by, votes=votes, is_revoked=is_revoked, repeats=repeats
        )
        self._run(course)

    @rule(
        by=_callers,
        subject=st.sampled_from(["create", "create", "plan", "run"]),
        step=st.sampled_from(_COUNTING_STEPS),
        moment=_moments,
        earlier_calls=st.integers(0, 1),
        is_limited=st.booleans(),
    )
    def calls_near_a_limit(
        self, by: Caller, subject: str, step: Step, moment: Moment, earlier_calls: int, *, is_limited: bool
    ) -> None:
        course = courses.calls_near_a_limit(
            self.simulation, subject, step, moment, by=by, earlier_calls=earlier_calls, is_limited=is_limited
        )
        self._run(course)

    @rule(which=_numbers, what=st.sampled_from(["vote", "vote", "withdraw", "revoke", "allow"]), votes=_votes)
    def decision(self, which: int, what: str, votes: Votes) -> None:
        self._run(courses.decision(self.simulation, which, what, votes))

    @rule(whom=st.sampled_from(["everybody", "tenant", "person"]), voids=st.booleans())
    def stop(self, whom: Whom, *, voids: bool) -> None:
        self._run(self.simulation.stop(whom, voids=voids))

    # --- faults, clocks and the world outside ----------------------------------------------------------------------

    @rule(
        by=_callers,
        subject=st.sampled_from(["create", "run", "disconnect", "invite"]),
        faults=st.lists(st.sampled_from(FASTN_FAULTS), min_size=1, max_size=3),
        votes=_votes,
    )
    def call_while_fastn_fails(self, by: Caller, subject: str, faults: list[FastnFault], votes: Votes) -> None:
        self._run(courses.call_while_fastn_fails(self.simulation, subject, faults, by=by, votes=votes))

    @rule(
        by=_callers,
        subject=_subjects,
        step=_steps,
        moment=_moments,
        what=_interruptions,
        is_approved=st.sampled_from([False, True, True]),
    )
    def interrupted_call(
        self, by: Caller, subject: Subject, step: Step, moment: Moment, what: Any, *, is_approved: bool
    ) -> None:
        form = FormAnswer("approve") if is_approved else None
        self._run(courses.interrupted_call(self.simulation, subject, step, moment, what, by=by, form=form))

    @rule(
        by=_callers,
        subject=_subjects,
        step=_steps,
        moment=_moments,
        what=_interruptions,
        votes=_votes,
        repeats=st.integers(0, 2),
    )
    def interrupted_approved_call(
        self, by: Caller, subject: Subject, step: Step, moment: Moment, what: Any, votes: Votes, repeats: int
    ) -> None:
        course = courses.interrupted_approved_call(
            self.simulation, subject, step, moment, what, by=by, votes=votes, repeats=repeats
        )
        self._run(course)

    @rule(
        by=_callers,
        subject=_subjects,
        documents=st.sampled_from(DOCUMENTS),
        step=st.sampled_from([None, Step("store", "begin"), Step("commit", "begin")]),
        faults=st.sampled_from([(), ("lost applied",), ("lost",)]),
        is_stopped=st.booleans(),
    )
    def call_with_unreadable_documents(
        self,
        by: Caller,
        subject: Subject,
        documents: Documents,
        step: Step | None,
        faults: tuple[FastnFault, ...],
        *,
        is_stopped: bool,
    ) -> None:
        course = courses.call_with_unreadable_documents(
            self.simulation, subject, documents, by=by, step=step, faults=faults, is_stopped=is_stopped
        )
        self._run(course)

    @rule(seconds=st.sampled_from([1.0, 30.0, 301.0, 601.0, 1_200.0]))
    def time_passes(self, seconds: float) -> None:
        self.simulation.deployment.clock.pass_(seconds)

    @rule(which=_numbers)
    def record_is_renamed(self, which: int) -> None:
        self.simulation.rename(which)

    @rule(number=_processes, policy=st.sampled_from(sorted(POLICIES)))
    def policy_changes(self, number: int, policy: str) -> None:
        self._run(self.simulation.restart(number, POLICIES[policy]))
