"""How an approval request reaches a person: the client's form, or a channel outside of the client."""

from dataclasses import dataclass
from typing import Protocol

from fastn_mcp.guard.approval_form import Answer, ApprovalForm, PendingForm, Submitted
from fastn_mcp.ledger.approval_request import ApprovalRequest


class FormChannel(Protocol):
    """Elicitation form of the client, or prompt of a terminal."""

    name: str
    is_terminal: bool
    """Whether it is a terminal: even a quick answer is a person's, and they can type a secret there."""

    @property
    def submitted(self) -> tuple[str, Answer | Submitted] | None:
        """Id of the approval request that this call answers, and the answer; None if it answers none."""
        ...

    async def ask(self, form: ApprovalForm) -> Answer | PendingForm:
        """Show the form. Return the answer, or `PendingForm` if it comes with a later call."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelCapabilities:
    """What an approval channel can do."""

    identifies_people: bool = False
    """Each person has a credential of their own, as four-eyes approval requires."""
    notifies: bool = False
    """It brings a request before a person by itself. A terminal waits until somebody looks."""
    takes_secrets: bool = False
    """A person can type a secret there."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where people decide about an announced request."""

    where: str
    """A sentence for the agent, without secrets."""
    url: str | None = None
    """URL of the page where it is decided, without a key; None if it is not decided on a page."""
    is_in_view: bool = False
    """Whether a browser of the person shows that page."""


class ApprovalChannel(Protocol):
    """Brings approval requests before people outside of the client: by the approval page, a terminal or a webhook."""

    @property
    def capabilities(self) -> ChannelCapabilities: ...

    @property
    def url(self) -> str | None:
        """URL of the page where requests are decided, without a key; None if there is none."""
        ...

    async def announce(self, request: ApprovalRequest) -> Announcement:
        """Publish a request. Called again whenever its call is repeated. Raises a `Refused` if nobody can decide it."""
        ...
