"""Approval requests, the votes on them, and the temporary approvals that they give.

A field is added to `ApprovalRequest` and nowhere else: how it is stored follows from its type (`documents`).
Times are Unix seconds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.ledger.identity import holder, may_be, who
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision, StepUp
from fastn_mcp.policy.permit import Permit


class RequestState(Enum):
    """State of an approval request. Only an OPEN one can be decided, and only an APPROVED one can be used."""

    OPEN = "open"
    APPROVED = "approved"
    USED = "used"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    STALE = "stale"
    STOPPED = "stopped"
    """It was open, or approved and not used up, when a person stopped changes."""
    WITHDRAWN = "withdrawn"
    """Approved, then taken back by a person. Calls of a list that were sent before stay sent."""


_NOTIFIED_BY = " UTC: "
"""Part of a sentence of `told`, before the names of services."""

TEMPORARY_MINUTES = 15
"""Lifetime of a temporary approval, in minutes."""

REFUSED = (RequestState.DECLINED, RequestState.WITHDRAWN)
"""States in which a person has refused the call."""


@dataclass(frozen=True, slots=True)
class ShownCall:
    """One call of an approval request, as it was shown."""

    binding: str
    """Digest of the call, its target's state and the policy. A change to any of them voids the approval."""
    dependents: Mapping[str, float | None]
    """Counts by kind (`Dependence.counts`). Fewer of them do not void the approval."""
    is_unsettled: bool = False
    """Whether people were told that the call may have been made before."""


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote of one approver: a person identified by a credential of their own, or else the channel.

    A person has one identity on every channel, which `approver` holds.
    """

    approver: str
    approves: bool
    at: float
    name: str = ""
    """Name of the person at the time, for people. It identifies nobody."""
    is_temporary: bool = False
    """Whether it also approves similar calls for a while, once the request's approval is used."""
    auth_time: float | None = None
    """When the approver was asked to sign in, as the identity provider says; None on other channels."""
    acr: str = ""
    """How they signed in: the values of `acr`, `amr` and `acrs`, separated by spaces."""

    login_names: tuple[str, ...] = ()
    """User name and e-mail address of a sign-in, by which the same person may be named on another channel."""

    def is_of(self, other: "Vote") -> bool:
        """Whether both may be of one approver. Identities that differ only in case count as one person."""
        return may_be(self.approver, self.login_names, other.approver, other.login_names)


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """What an approver typed, sealed. It is stored with their vote, and deleted with what the vote is good for."""

    approver: str
    text: str = field(repr=False)
    lifetime: float
    """Seconds for which it is kept at most."""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """Request for approval of one call or one list. It is decided once, then used once for each call."""

    id: str
    principal: str
    account: str
    tool: str
    target: str | None
    call: str
    """Digest of the call (`Evaluation.id`), or the id of the list."""
    calls: Mapping[str, ShownCall]
    """The calls as they were shown, by their ids (`Evaluation.id`)."""
    required: str
    """Policy decision: confirm, typed, out_of_band or four_eyes."""
    expected: str | None
    """Text that has to be typed to approve; None if none is required."""
    out_of_band: bool
    """Whether it is decided out of band (approval page, terminal or webhook) rather than in the client's form."""
    question: Question
    created: float
    expires: float
    state: RequestState = RequestState.OPEN
    by: str | None = None
    note: str | None = None
    decided: float | None = None
    trace: str | None = None
    """Trace in which it was opened, as `System.trace` returns it."""
    permit: Permit | None = None
    """Temporary approval that its approvers can give besides; None if there is none. It holds from the first use of
    the approval on, if all of them gave it."""
    votes: tuple[Vote, ...] = ()
    """Oldest first, one per approver. An approver can replace an approval by a decline, and whoever withdraws does."""
    used: tuple[str, ...] = ()
    """Ids of the calls for which it was used."""
    tenant: str = ""
    """As in `Asker`, like `login_names`, `client` and `client_name`."""
    login_names: tuple[str, ...] = ()
    client: str = ""
    client_name: str = ""
    stop_epoch: int = 0
    """Epoch of the stops that concern its caller when it was opened (`Stops.epoch`). A later one makes it void."""
    told: tuple[str, ...] = ()
    """When people were notified, and by which services: a sentence for each minute, oldest first."""
    step_up: StepUp | None = None
    """What each approval requires of the approver's sign-in."""

    messages: tuple[str, ...] = ()
    """Messages in Slack that show it, as `CHANNEL/TIMESTAMP`."""
    asked_by: str | None = None
    """Name of the person or the client that asked, as it was given then."""
    typed: TypedArgument | None = None
    """What a person types with their approval."""
    undoes: str = ""
    """Id of the change that it undoes, if somebody asked for that on the page."""
    records: tuple[tuple[str, ...], ...] = ()
    """Kind and id of every record that its calls name."""

    @property
    def holder(self) -> str:
        """Key under which its open requests and declines are counted."""
        return holder(self.principal, self.account)

    @property
    def person(self) -> str | None:
        """Name of the person who asked, from their sign-in; None without one."""
        return self.asked_by if "|" in self.principal else None

    @property
    def asker(self) -> Asker:
        """The person and the client that asked, without what is not stored of them."""
        return Asker(
            self.principal,
            self.person or "",
            self.login_names,
            tenant=self.tenant,
            client=self.client,
            client_name=self.client_name,
        )

    def may_be_of(self, principal: str, login_names: tuple[str, ...] = ()) -> bool:
        """Whether a sign-in may be of the person who asked."""
        return may_be(self.principal, self.login_names, principal, login_names)

    @property
    def people(self) -> list[str]:
        """Approvers who have approved it so far, each with their name."""
        return [who(vote.approver, vote.name) for vote in self.votes if vote.approves]

    @property
    def needed(self) -> int:
        return 2 if self.required == Decision.FOUR_EYES.value else 1

    def progress(self, names: Sequence[str] = ()) -> str:
        """Say how many people have to approve it, and how many have, with their names; empty if one is enough."""
        if self.needed == 1:
            return ""
        by = f" ({', '.join(names)})" if names else ""
        people = f"{self.needed} people other than the requester"
        return f"{people} have to approve this call. Approvals so far: {len(self.approvers)}{by}."

    @property
    def approvers(self) -> list[str]:
        return [vote.approver for vote in self.votes if vote.approves]

    @property
    def is_approved_enough(self) -> bool:
        """Whether enough people approved it."""
        return len(self.approvers) >= self.needed

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of it. What was typed for it is deleted then."""
        return self.state not in (RequestState.OPEN, RequestState.APPROVED)

    @property
    def can_be_temporary(self) -> bool:
        """Whether a temporary approval may be given: never where text has to be typed."""
        return self.permit is not None and self.expected is None

    @property
    def gives_permit(self) -> bool:
        """Whether its temporary approval holds once its approval is used: everybody who approved it wants that."""
        votes = [vote.is_temporary for vote in self.votes if vote.approves]
        return self.can_be_temporary and bool(votes) and all(votes)

    @property
    def permit_until(self) -> float:
        """Until when its temporary approval holds, in Unix seconds; 0 if it was not given, or was revoked."""
        return self.permit.until if self.permit is not None else 0.0

    def with_permit_until(self, until: float) -> "ApprovalRequest | None":
        """Return the request with its temporary approval until then; 0 revokes it.

        None if it has no temporary approval, or there is none to revoke.
        """
        if self.permit is None or (not until and not self.permit.until):
            return None
        return replace(self, permit=self.permit.given(until))

    def needs_sign_in(self, vote: Vote) -> bool:
        """Whether a vote approves without the sign-in that this takes."""
        lacks = self.step_up is not None and self.step_up.problem(vote.auth_time, vote.acr, vote.at) is not None
        return vote.approves and lacks

    def is_open(self, now: float) -> bool:
        """Whether people can decide it outside the client."""
        return self.out_of_band and self.state is RequestState.OPEN and self.expires > now

    def can_be_withdrawn(self, now: float) -> bool:
        """Whether it is an approval that people see outside the client, and that is not used up."""
        return self.state is RequestState.APPROVED and self.out_of_band and self.expires > now

    def is_found(self, now: float) -> bool:
        """Whether a repeated call finds it. A request in a form is found only if it is an approved list."""
        answered = self.state is RequestState.APPROVED and len(self.calls) > 1
        usable = self.state in (RequestState.OPEN, RequestState.APPROVED, *REFUSED)
        return usable and self.expires > now and (self.out_of_band or answered)

    @property
    def found_order(self) -> tuple[bool, float, bool, bool]:
        """Sort key among the requests for one call. A repeated call finds the request with the greatest key.

        The newest request is found; of two that were created at the same time, a refusal rather than an approval, and
        an approval rather than an open request. The approval of a list that was used in part is found only if there is
        no other: another request exists only because that approval no longer covers the rest.
        """
        is_approved = self.state is RequestState.APPROVED
        is_partly_used = is_approved and bool(self.used)
        is_refused = self.state in REFUSED
        return not is_partly_used, self.created, is_refused, is_approved

    def with_vote(self, vote: Vote, by: str, note: str | None, *, out_of_band: bool) -> "ApprovalRequest | None":
        """Return the request with this vote, or None if the vote does not count.

        One decline declines it; the last approval needed approves it. The lifetime of an approved list restarts then.
        """
        if self.state is not RequestState.OPEN or self.expires <= vote.at or self.out_of_band is not out_of_band:
            return None
        if self.needs_sign_in(vote):
            return None
        before = next((one for one in self.votes if one.is_of(vote)), None)
        if before is not None and (vote.approves or not before.approves):
            return None
        counted = replace(self, votes=(*(one for one in self.votes if one is not before), vote))
        if vote.approves and not counted.is_approved_enough:
            return counted
        state = RequestState.APPROVED if vote.approves else RequestState.DECLINED
        until = vote.at + self.expires - self.created if vote.approves and len(self.calls) > 1 else self.expires
        return replace(counted, state=state, by=by, note=note or self.note, decided=vote.at, expires=until)

    def with_use(self, call_id: str, now: float) -> "ApprovalRequest | None":
        """Return the request as used for one of its calls; None if it cannot be used for that."""
        if self.state is not RequestState.APPROVED or self.expires <= now:
            return None
        if call_id in self.used or call_id not in self.calls:
            return None
        used = (*self.used, call_id)
        state = RequestState.USED if len(used) == len(self.calls) else self.state
        permit = self.permit
        if permit is not None and self.gives_permit and not self.used:
            permit = permit.given(now + TEMPORARY_MINUTES * 60)
        return replace(self, used=used, state=state, decided=now, permit=permit)

    def without_effect(
        self, state: RequestState, now: float, by: str | None, note: str | None
    ) -> "ApprovalRequest | None":
        """Return the request in the final `state`; None if it was neither open nor approved, or has expired."""
        if self.is_over or self.expires <= now:
            return None
        return replace(self, state=state, by=by or self.by, note=note or self.note, decided=now)

    def withdrawn(self, vote: Vote, by: str, note: str | None) -> "ApprovalRequest | None":
        """Return the request with its approval taken back by this vote; None unless it is approved and not used up."""
        if self.state is not RequestState.APPROVED:
            return None
        others = [one for one in self.votes if not one.is_of(vote)]
        return replace(self, votes=(*others, vote)).without_effect(RequestState.WITHDRAWN, vote.at, by, note)

    def expired(self, now: float) -> "ApprovalRequest | None":
        """Return the request as UNANSWERED; None if it is not open or has not expired."""
        if self.state is not RequestState.OPEN or self.expires > now:
            return None
        return replace(self, state=RequestState.UNANSWERED, decided=self.expires)

    def with_notification(self, service: str, minute: str) -> "ApprovalRequest | None":
        """Return the open request as notified by a service, at a time such as 09:05; None if it is decided."""
        if self.state is not RequestState.OPEN:
            return None
        begin = f"Notified at {minute}{_NOTIFIED_BY}"
        if self.told and self.told[-1].startswith(begin):
            return replace(self, told=(*self.told[:-1], f"{self.told[-1].removesuffix('.')}, {service}."))
        return replace(self, told=(*self.told, f"{begin}{service}."))

    def is_notified_by(self, service: str) -> bool:
        """Whether approvers were notified by this service."""
        names = (sentence.partition(_NOTIFIED_BY)[2].removesuffix(".").split(", ") for sentence in self.told)
        return any(service in each for each in names)

    def shown_in(self, messages: Iterable[str]) -> "ApprovalRequest":
        """Return the request with further messages in Slack that show it, whatever its state."""
        return replace(self, messages=(*self.messages, *messages))

    def offered(self, expires: float) -> "ApprovalRequest | None":
        """Return the request moved from the form to the out-of-band channel; None if it is decided or moved already.

        It begins there: the lifetime of an approved list counts from then.
        """
        if self.state is not RequestState.OPEN or self.out_of_band:
            return None
        return replace(self, out_of_band=True, created=self.created + expires - self.expires, expires=expires)


def declines_after(before: ApprovalRequest, after: ApprovalRequest) -> int | None:
    """Return 1 if the change adds a decline of its holder, 0 if it resets their count, None if it does neither.

    An out-of-band approval resets the count when it is given. Any approval resets it when it is used.
    """
    if after.state is RequestState.DECLINED and before.state is RequestState.OPEN:
        return 1
    approved = after.out_of_band and after.state is RequestState.APPROVED and before.state is RequestState.OPEN
    return 0 if approved or after.used != before.used else None


Transition = Callable[[ApprovalRequest], ApprovalRequest | None]
