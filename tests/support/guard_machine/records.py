"""Plain values of the guard machine: what is stored, what was sent, what an agent did and what interrupts it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import anyio

# --- what is stored ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """An approval request as it is stored."""

    id: str
    principal: str
    text: tuple[str, ...]
    """Lines that people read."""
    state: str
    used: tuple[str, ...]
    """Ids of the calls for which it was used."""
    required: str
    expected: str | None
    is_form: bool
    expires: float


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A change as it is stored."""

    id: str
    tool: str
    outcome: str
    approval_id: str
    call_id: str
    list_id: str
    """Empty for a single call."""
    number: int
    """Place in its list, from 1."""
    is_final: bool
    """Whether it was made or may have been."""
    unsettled_until: float


# --- what reached Fastn ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentChange:
    """A request that changes something and reached Fastn, with what was stored at that moment.

    Times in the order of everything that happened are numbers (`Deployment.next_number`).
    """

    at: int
    time: float
    """Unix seconds, by the right clock."""
    tool: str
    """Empty if nothing says which tool it is of."""
    method: str
    call: "AgentCall"
    intent: Mapping[str, Any] | None
    """Newest intent of its process in the audit log that has no outcome."""
    change: ChangeRecord | None
    """Change that this intent names."""
    approval: ApprovalRecord | None
    """Approval that this intent names."""
    stops_read_at: int
    """When the last step began in which its process could see a stop."""
    begun_at: int
    """When its change began: what people decide later comes too late."""
    response: str = ""
    """How Fastn answered: a status, or the fault that it had."""

    @property
    def grant(self) -> str:
        """What permitted it, as in the audit log: an approval's id with a place in a list or `temporary`; or empty."""
        return str((self.intent or {}).get("grant") or "")

    @property
    def grant_id(self) -> str:
        return self.grant.partition(".")[0]

    @property
    def is_temporary(self) -> bool:
        """Whether a temporary approval permitted it."""
        return self.grant.endswith(".temporary")


# --- what interrupts a call --------------------------------------------------------------------------------------

Kind = Literal["store", "commit", "audit", "read", "change"]
"""Kinds of steps: one of the ledger, a commit to the store within it, one of the audit log, a request to Fastn."""

Moment = Literal["before", "after"]

Failure = Literal["kill", "cancel", "fail", "outage"]
"""The process ends; the client cancels the call; the step fails; from now on every step of the store fails."""

FAILURES: tuple[Failure, ...] = get_args(Failure)

Event = Callable[[], Awaitable[None]]
"""Something that others do meanwhile."""


class Step(NamedTuple):
    """A step of a call, such as the second `stops` of the ledger."""

    kind: Kind
    name: str = ""
    """Name of the step; empty for any of its kind."""
    number: int = 0
    """Number of such steps before it."""


@dataclass
class Interruption:
    """What happens before or after a step of a call."""

    step: Step
    moment: Moment
    act: Failure | Event
    is_done: bool = False


# --- calls of agents ---------------------------------------------------------------------------------------------

FormChoice = Literal["approve", "temporary", "decline", "cancel", "empty", "malformed", "wrong"]


@dataclass(frozen=True, slots=True)
class FormAnswer:
    """Answer of a client's form: at once within the call, or with a later call."""

    choice: FormChoice
    seconds: float = 5.0
    """Time since the form was shown, if it is answered within the call."""
    approval_id: str | None = None
    """Request that a later call answers; None if the form is answered within the call."""

    @property
    def is_within_call(self) -> bool:
        return self.approval_id is None


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What an agent was answered."""

    outcome: str
    """`done`, `form`, `approval_required`, `killed`, `cancelled`, or the outcome of an error."""
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    approval_id: str | None = None


@dataclass
class AgentCall:
    """A call in progress, and what became of it."""

    process: str
    policy: str
    skew: float
    """Seconds by which the clock of its process is ahead."""
    principal: str
    scopes: frozenset[str] | None
    tool: str
    arguments: Mapping[str, Any]
    began: int
    time: float
    """Unix seconds, by the right clock."""
    renames: Mapping[str, int]
    """How often each record was renamed before the call was judged."""
    interruption: Interruption | None = None
    form_answered_at: float | None = None
    """When its form was answered. The call is judged again then."""
    cancelled_at: int | None = None
    is_store_down: bool = False
    failed_step: str = ""
    """Step that failed, after which nothing may be sent."""
    failed_at: int | None = None
    is_history_unread: bool = False
    """Whether what this server did to the records of the call could not be read."""
    stops_read_at: int = 0
    begun_at: int = 0
    opened: list[str] = field(default_factory=list[str])
    """Ids of the approval requests that it opened."""
    step_counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]], repr=False)
    """How many steps of a kind were begun, and of a name."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope, repr=False)
    sent_count: int = 0

    @property
    def is_list(self) -> bool:
        return self.tool == "apply_changes"


CURRENT_CALL: ContextVar[AgentCall | None] = ContextVar("current call", default=None)
"""The call that a step is of; None for what people and the machine itself do."""
