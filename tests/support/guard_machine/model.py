"""The machine's own account of what happened: who approved what, what was stopped, which calls were lost."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastn_mcp.ledger.stop import Stop
from support.guard_machine.damage import Damage
from support.guard_machine.deployment import Deployment
from support.guard_machine.people import TERMINAL
from support.guard_machine.records import AgentAnswer, AgentCall, ApprovalRecord, FormAnswer
from support.guard_machine.vocabulary import ISSUER, READING_SECONDS, NamedRecord

_LOSING = ("killed", "cancelled", "unknown_outcome")
"""Answers after which a call that was sent may have happened."""


@dataclass
class KnownApproval:
    """What the machine knows of an approval request."""

    call: AgentCall
    opened_at: int
    renames: Mapping[str, int]
    """How often each record was renamed before the request was opened."""
    process_time: float
    """When it was opened, by the clock of its process."""
    approved_by: dict[str, bool] = field(default_factory=dict[str, bool])
    """Who approved it as a person does, and whether they gave a temporary approval as well."""
    refused_at: int | None = None
    """When a person declined it or took their approval back."""
    declined_until: float = 0.0
    """Until when the same call stays declined, by the right clock; 0 if it does not."""
    is_revoked: bool = False
    """Whether its temporary approval was revoked."""
    used_at: float | None = None
    """When it was first used, by the right clock."""


@dataclass
class KnownStop:
    """A stop that a person ordered."""

    stop: Stop
    at: int
    principals: frozenset[str]
    lifted_at: int | None = None


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call that was sent and whose outcome the agent does not know."""

    at: int
    time: float


def call_key(principal: str, tool: str, arguments: Mapping[str, object]) -> str:
    """Return what makes two calls the same: who makes them, the tool and the arguments."""
    return json.dumps([principal, tool, arguments], sort_keys=True)


def key_of_call(call: AgentCall) -> str:
    return call_key(call.principal, call.tool, dict(call.arguments))


class GuardModel:
    """What the machine knows without asking the guard or the ledger."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.approvals: dict[str, KnownApproval] = {}
        self.stops: list[KnownStop] = []
        self.damages: list[Damage] = []
        self.renames: Counter[str] = Counter()
        self.lost_calls: dict[str, LostCall] = {}
        """By key of a call: the last one."""
        self.program_declines: list[str] = []
        """Requests that were declined by an answer that no person can have given."""
        self._early_votes: dict[str, list[tuple[ApprovalRecord, str, str]]] = {}
        """Votes between the commit that opened a request and the step after it, by its id."""
        deployment.on_opened = self._note_opened
        deployment.on_form_answered = self._note_form_answered

    # --- requests ------------------------------------------------------------------------------------------------

    def _note_opened(self, call: AgentCall, approval_id: str) -> None:
        if approval_id not in self.approvals:
            self.approvals[approval_id] = KnownApproval(
                call,
                opened_at=self._deployment.next_number(),
                renames=dict(self.renames),
                process_time=self._deployment.now + call.skew,
            )
            for vote in self._early_votes.pop(approval_id, []):
                self.note_vote(*vote)

    def _note_form_answered(self, call: AgentCall) -> None:
        """Note that a form was answered in the middle of a call: from here on the call is judged anew."""
        call.renames = dict(self.renames)
        call.form_answered_at = self._deployment.now

    def note_form(self, call: AgentCall, form: FormAnswer, records: Mapping[str, ApprovalRecord]) -> None:
        """Note what the person decided who answered a form. A faster answer than anybody reads is no person's."""
        for approval_id in self._answered_by(call, form):
            known = self.approvals[approval_id]
            by_clocks = call.time + call.skew - known.process_time  # of both processes, as the guard sees it
            seconds = form.seconds if form.is_within_call else by_clocks
            record = records[approval_id]
            approves = form.choice == "approve" or (form.choice == "temporary" and record.expected is None)
            if approves and seconds >= READING_SECONDS:
                known.approved_by["form"] = form.choice == "temporary"
            elif form.choice not in ("cancel", "empty") and record.state == "declined":
                known.refused_at = known.refused_at or self._deployment.next_number()
                if seconds < READING_SECONDS:
                    self.program_declines.append(approval_id)

    def _answered_by(self, call: AgentCall, form: FormAnswer) -> Iterator[str]:
        """Yield the requests that a form answers: each of the same call under the same policy."""
        answered: list[str] = []
        if form.approval_id is not None:
            answered = [form.approval_id]
        elif call.form_answered_at is not None:
            answered = call.opened
        for approval_id in answered:
            known = self.approvals.get(approval_id)
            if known is None or known.call.policy != call.policy:
                continue
            if key_of_call(known.call) == key_of_call(call):
                yield approval_id

    def note_vote(self, record: ApprovalRecord, person: str, choice: str) -> None:
        """Note a vote that counted. `record` is the request before it."""
        known = self.approvals.get(record.id)
        if known is None:
            self._early_votes.setdefault(record.id, []).append((record, person, choice))
            return
        if choice == "decline":
            self.note_refusal(record)
            return
        is_requester = ISSUER + person == record.principal
        needs_others = record.required == "four_eyes"
        if needs_others and (is_requester or person == TERMINAL):
            return
        known.approved_by.setdefault(person, choice == "temporary")

    def note_refusal(self, record: ApprovalRecord) -> None:
        """Note that a person declined a request, or took their approval back."""
        known = self.approvals.get(record.id)
        if known is None:
            return
        known.refused_at = self._deployment.next_number()
        if not record.is_form:
            known.declined_until = max(known.declined_until, record.expires)

    @property
    def temporary_approvals(self) -> list[str]:
        """Ids of the approvals with which somebody gave a temporary one that has begun, in order."""
        return sorted(
            approval_id
            for approval_id, known in self.approvals.items()
            if known.used_at is not None and any(known.approved_by.values())
        )

    # --- stops, calls and records --------------------------------------------------------------------------------

    @property
    def held_stop(self) -> KnownStop | None:
        """The stop that holds; None if none does."""
        return next((each for each in self.stops if each.lifted_at is None), None)

    def note_end(self, call: AgentCall, answer: AgentAnswer) -> None:
        """Note whether the outcome of a call is unknown to the agent."""
        if call.sent_count and answer.outcome in _LOSING and not call.is_list:
            self.lost_calls[key_of_call(call)] = LostCall(self._deployment.next_number(), self._deployment.now)

    def next_name(self, record: NamedRecord) -> str:
        """Return another name for a record."""
        return f"{record.name} {self.renames[record.id] + 1}"

    def note_rename(self, record: NamedRecord) -> None:
        self.renames[record.id] += 1
