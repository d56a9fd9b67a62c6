"""The door of approval channels: how a person is asked about a call, and sees what has become of it.

A channel either asks within the call, and returns the person's answer, as the client's form and a terminal do; or it
publishes the request, and says where it is decided: the approval page, `fastn-mcp approvals`, a webhook, Slack. What
people decide there is a vote in the ledger (`guard/approval/votes.py`), which the waiting call reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval_form import Answer
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change


@dataclass(frozen=True, slots=True)
class ChannelCapabilities:
    """What an approval channel can do."""

    identifies_people: bool = False
    """Each person has a credential of their own, as four-eyes approval requires."""
    notifies: bool = False
    """It brings a request before a person by itself. A terminal waits until somebody looks."""
    takes_secrets: bool = False
    """A person can type a secret there."""
    is_terminal: bool = False
    """Even a quick answer is a person's, and a question of any length can be read there."""
    shows_outcome: bool = False
    """It keeps showing a request after it was asked, by `update`."""
    page: str | None = None
    """URL of the page where requests are decided, without a key; None if there is none."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where people decide about a request that was published. It has no secret, since the agent reads it."""

    places: tuple[str, ...] = ()
    """Where it can be approved, such as "in Slack". Empty: nowhere."""
    notes: tuple[str, ...] = ()
    """Further sentences, such as why a channel could not be reached."""
    is_in_view: bool = False
    """Whether a browser of the person shows the page where it is decided."""

    def sentence(self, request: ApprovalRequest) -> str:
        """Say where the request is decided and how many people it needs, for the agent."""
        where = f"A person has to approve {', or '.join(self.places)}."
        return " ".join(filter(None, (where, *self.notes, request.progress())))


class NobodyAble(Refused):
    """Nobody whom this channel asks may decide the request."""


class Channel(Protocol):
    """Brings approval requests before people."""

    name: str
    """Name in the audit log, for a channel whose answers come by `ask`, and in messages."""

    @property
    def capabilities(self) -> ChannelCapabilities: ...

    async def ask(self, request: ApprovalRequest) -> Answer | Announcement | None:
        """Bring a request before people.

        Return their answer; or, if they decide elsewhere, where that is; or None if the result of this call shows the
        form, and the client makes the call again with the answer. Called again whenever a waiting call is repeated.
        Raises a `Refused` if nobody could be asked: a `NobodyAble` if nobody may decide.
        """
        ...

    async def update(self, request: ApprovalRequest, changes: Sequence[Change]) -> bool:  # noqa: ARG002
        """Show what has become of a request, with the changes made by its approval, where it `shows_outcome`.

        Return whether nothing more will become of it. Called until then.
        """
        return True
