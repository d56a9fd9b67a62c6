"""People of the guard machine: their votes and stops, and the channels by which they are asked."""

from fastn_mcp.channels.approvers import Approver
from fastn_mcp.guard.approval.votes import NotCounted, TerminalApprovals, count_vote
from fastn_mcp.guard.approval_form import (
    APPROVE,
    APPROVE_TEMPORARILY,
    DECLINE,
    VERIFIED,
    Answer,
    form_field,
    is_typed,
    read_answer,
)
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.guard.stops import void_approvals
from fastn_mcp.ledger.approval_request import ApprovalRequest, Vote
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.tools.tool import Effect
from support.guard_machine.deployment import Deployment
from support.guard_machine.records import CURRENT_CALL, FormAnswer, FormChoice
from support.guard_machine.vocabulary import ISSUER

TERMINAL = "terminal"
"""Name of the person at the server's own terminal, who has no sign-in."""

_ANOTHER_TEXT = "something else"
"""What is typed in place of a name that approves."""

_ALL_EFFECTS = frozenset(effect.value for effect in Effect)


class People:
    """People who decide about requests, and order stops."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._ledger = deployment.ledger
        self._system = deployment.clock.system("person")
        self._terminal = TerminalApprovals(self._ledger, deployment.audit, self._system)

    async def vote(self, approval_id: str, person: str, choice: str) -> bool:
        """Have a person `approve`, approve `temporary`, type a `wrong` name or `decline`. Return whether it counted."""
        request = await self._ledger.find(approval_id)
        if request is None or not request.out_of_band:
            return False
        approves = choice != "decline"
        is_temporary = choice == "temporary"
        typed = _ANOTHER_TEXT if choice == "wrong" else request.expected
        if approves and not is_typed(request.expected, typed):
            return False
        if person == TERMINAL:
            return await self._vote_at_terminal(request, approves=approves, is_temporary=is_temporary)
        identity = ISSUER + person
        approver = Approver(person, None, identity, _ALL_EFFECTS, identity)
        if not approver.may_answer(request):
            return False
        vote = Vote(approver.person, approves, self._deployment.now, is_temporary=is_temporary)
        counted = await count_vote(vote, request, self._ledger, VERIFIED)
        return not isinstance(counted, NotCounted)

    async def _vote_at_terminal(self, request: ApprovalRequest, *, approves: bool, is_temporary: bool) -> bool:
        if approves:
            message = await self._terminal.approve(request, is_temporary=is_temporary)
        else:
            message = await self._terminal.decline(request, "")
        return message.startswith(("Approved", "Declined"))

    async def withdraw(self, approval_id: str) -> bool:
        """Take back an approval. Return whether there was one."""
        message = await self._terminal.withdraw(approval_id, "")
        return message is not None and message.startswith("Withdrawn")

    async def revoke(self, approval_id: str) -> bool:
        """End the temporary approval of a request. Return whether it held."""
        return await self._terminal.revoke(approval_id) is not None

    async def stop(self, tenant: str = "", person: str = "", *, voids: bool = True) -> Stop:
        """Stop changes. Without `voids` the process of the person who does ends before it marks approvals as void."""
        stop = Stop(self._system.token(), self._deployment.now, "a person", "", tenant, person)
        await self._ledger.add_stop(stop)
        if voids:
            await void_approvals(self._ledger, stop, self._deployment.now, self._terminal.record_event)
        return stop

    async def allow(self, stop: Stop) -> None:
        """Lift a stop."""
        await self._ledger.lift_stop(stop.lift("a person", self._deployment.now))


def submitted_response(choice: FormChoice, request: ApprovalRequest) -> tuple[str, dict[str, object] | None]:
    """Return the action and the content that a client sends for this choice."""
    name = form_field(request)
    value = APPROVE if request.expected is None else request.expected
    contents: dict[FormChoice, dict[str, object] | None] = {
        "approve": {name: value},
        "temporary": {"decision": APPROVE_TEMPORARILY},
        "decline": {"decision": DECLINE},
        "cancel": None,
        "empty": {},
        "malformed": {name: value, "more": "1"},
        "wrong": {name: _ANOTHER_TEXT},
    }
    action = "cancel" if choice == "cancel" else "accept"
    return action, contents[choice]


class ClientForm(Channel):
    """Elicitation form of a client. Without an answer it ends the call, and its answer comes with a later one."""

    name = "client_form"

    def __init__(self, deployment: Deployment, given: FormAnswer | None) -> None:
        self._deployment = deployment
        self._given = given

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities()

    async def ask(self, request: ApprovalRequest) -> Answer | None:
        if self._given is None or not self._given.is_within_call:
            return None
        self._deployment.clock.pass_(self._given.seconds)
        call = CURRENT_CALL.get()
        if call is not None:
            self._deployment.on_form_answered(call)
        action, content = submitted_response(self._given.choice, request)
        return read_answer(request, action, content)


class OutOfBandChannel(Channel):
    """Channel outside the client, where each person has a credential of their own."""

    name = "out of band"

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(identifies_people=True, notifies=True, takes_secrets=True)

    async def ask(self, request: ApprovalRequest) -> Announcement:  # noqa: ARG002 - all requests are in the ledger
        return Announcement(("outside the client",))
