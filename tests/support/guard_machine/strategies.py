"""What the guard machine draws, as Hypothesis strategies. What is listed more than once is drawn more often."""

from dataclasses import dataclass
from typing import Literal

import hypothesis.strategies as st

from support.guard_machine.courses import Agent
from support.guard_machine.damage import Documents
from support.guard_machine.records import FAILURES, Failure, Moment, Step
from support.guard_machine.simulation import APPROVED, Happening, Vote
from support.guard_machine.vocabulary import ALL_SCOPES, LIMITED, LISTS, POLICIES, SKEW, SUBJECTS, TENANTS
from support.guard_machine.wire import FASTN_FAULTS, FastnFault

Votes = tuple[Vote, ...]

principals = st.sampled_from(sorted(TENANTS))
processes = st.sampled_from([0, 1])
agents = st.builds(Agent, processes, principals)
single_calls = st.sampled_from(SUBJECTS)
subjects = st.sampled_from([*SUBJECTS, *LISTS])
subjects_with_more_lists = st.sampled_from([*SUBJECTS, *LISTS, *LISTS])
subjects_sent_unasked = st.sampled_from([*SUBJECTS, *LISTS, "create", "create", "create", "plan"])
"""More of what the policy allows, which is sent at once."""

scopes = st.frozensets(st.sampled_from(sorted(ALL_SCOPES)))
skews = st.sampled_from([0.0, -SKEW, SKEW, SKEW])
moments = st.sampled_from(["before", "after"])

policies = st.sampled_from([*POLICIES])
"""Names of policies."""

policy_pairs = st.sampled_from(
    [
        *[(name, name) for name in POLICIES] * 2,
        ("plain", "strict"),
        (LIMITED, "plain"),
        ("four eyes", "plain"),
    ]
)

# --- people --------------------------------------------------------------------------------------------------------

_OTHER_VOTES: list[Votes] = [
    (("dana", "approve"),),
    (("dana", "approve"), ("dana", "approve")),
    (("anna", "approve"), ("dana", "approve")),
    (("anna", "approve"), ("ben", "approve"), ("dana", "approve")),
    (("ben", "approve"), ("kim", "approve")),
    (("terminal", "approve"), ("dana", "temporary")),
    (("dana", "temporary"), ("kim", "temporary")),
    (("dana", "approve"), ("kim", "decline")),
    (("dana", "decline"),),
    (("dana", "wrong"), ("terminal", "wrong")),
]

_APPROVED: Votes = tuple(APPROVED)

votes = st.sampled_from([*[_APPROVED] * 5, *_OTHER_VOTES])

form_choices = st.sampled_from(
    ["approve", "approve", "approve", "temporary", "decline", "cancel", "empty", "malformed", "malformed", "wrong"]
)

Between = Happening | Literal["policy"] | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What people decide about a call, and what happens then."""

    votes: Votes = _APPROVED
    between: Between = None


_BETWEEN: list[Between] = [None, None, "rename", "stop", "stop and allow", "stop and allow", "withdraw", "policy"]

decisions = st.sampled_from(
    [*(Decision(between=each) for each in _BETWEEN), *(Decision(votes=each) for each in _OTHER_VOTES)]
)

# --- interruptions -------------------------------------------------------------------------------------------------

BEGIN = Step("store", "begin")

steps = st.sampled_from(
    [
        *[BEGIN] * 5,
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
        *[Step("commit", "begin")] * 4,
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
        *[Step("change")] * 3,
        Step("change", number=1),
    ]
)
"""Steps of a call that may be sent."""

steps_of_asking = st.sampled_from(
    [
        Step("store", "open"),
        *[Step("store", "recent_changes")] * 2,
        Step("store", "latest"),
        Step("store", "stops"),
        Step("store", "find"),
        Step("store", "still_open"),
        Step("commit", "open"),
        Step("audit", "asked"),
        Step("read"),
        BEGIN,
        Step("change"),
    ]
)
"""Steps of a call that a person is asked about while it is made."""

failures: st.SearchStrategy[Failure] = st.sampled_from(["kill", "kill", *FAILURES, "fail"])

happenings: st.SearchStrategy[Happening] = st.sampled_from(
    ["stop", "stop and allow", "rename", "decline", "withdraw", "withdraw", "other call", "other call"]
)
"""What others do while an approved call is made."""

happenings_of_asking: st.SearchStrategy[Happening] = st.sampled_from(
    ["stop", "stop and allow", "rename", "approve", "decline", "other call"]
)

fastn_faults = st.lists(st.sampled_from(FASTN_FAULTS), min_size=1, max_size=3)


@dataclass(frozen=True, slots=True)
class DamageCase:
    """Documents that become unreadable, and when."""

    documents: Documents
    step: Step | None = None
    """Step before which they do; None before the call."""
    faults: tuple[FastnFault, ...] = ()
    """Faults of Fastn in a call before."""
    is_stopped: bool = False


damage_cases = st.sampled_from(
    [
        DamageCase("stops"),
        DamageCase("stops", is_stopped=True),
        DamageCase("stops", BEGIN, is_stopped=True),
        DamageCase("approvals"),
        DamageCase("approvals", BEGIN),
        DamageCase("callers"),
        *[DamageCase("callers", BEGIN)] * 2,
        DamageCase("lists"),
        *[DamageCase("lists", BEGIN)] * 2,
        DamageCase("limits"),
        *[DamageCase("limits", BEGIN)] * 2,
        *[DamageCase("changes", faults=("lost applied",))] * 2,
        DamageCase("changes", faults=("lost",)),
    ]
)


@dataclass(frozen=True, slots=True)
class CountedCall:
    """A call that a budget allows once more after so many others."""

    subject: str
    earlier_calls: int


counted_calls = st.sampled_from(
    [CountedCall("create", 0), CountedCall("plan", 0), CountedCall("run", 1), CountedCall("run", 0)]
)

counting_steps: st.SearchStrategy[tuple[Step, Moment]] = st.sampled_from(
    [
        (Step("store", "spent"), "after"),
        (Step("store", "rate_uses"), "after"),
        (BEGIN, "before"),
        (BEGIN, "before"),
        (Step("commit", "begin"), "before"),
        (Step("commit", "begin"), "after"),
    ]
)
