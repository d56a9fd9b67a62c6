"""Caller of a tool, with the scopes of its sign-in, and the channels by which people are asked.

A caller's scopes can only restrict what the policy allows, never extend it.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval_form import Answer, PendingApproval
from fastn_mcp.guard.journal import Delivery
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.tool import Effect


class FormChannel(Protocol):
    """Elicitation form of the client, or prompt of a terminal."""

    name: str
    is_terminal: bool
    """Whether it is a terminal: even a quick answer is a person's, and they can type a secret there."""

    @property
    def answers(self) -> str | None:
        """Id of the approval request that this call answers; None if it answers none."""
        ...

    def answer(self, request: ApprovalRequest) -> Answer:
        """Return the answer that this call brings to that request."""
        ...

    async def ask(self, request: ApprovalRequest) -> Answer | None:
        """Show the form. Return the answer; None if it comes with a later call."""
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


READ = "fastn:read"
WRITE = "fastn:write"
DESTROY = "fastn:destroy"
ADMIN = "fastn:admin"

SCOPES = {
    Effect.READ: READ,
    Effect.WRITE: WRITE,
    Effect.EXTERNAL: WRITE,
    Effect.SPEND: WRITE,
    Effect.TRASH: DESTROY,
    Effect.DESTROY: DESTROY,
    Effect.ACCESS: ADMIN,
}
"""Scope that each effect needs. No scope includes another."""

ALL_SCOPES = tuple(dict.fromkeys(SCOPES.values()))


class InsufficientScope(Refused):
    """The sign-in lacks the scope that a call needs."""

    def __init__(self, tool: str, scope: str) -> None:
        super().__init__(
            f"{tool} needs the scope {scope}, which this sign-in does not hold.",
            "Sign in again with this scope. If it is not offered, ask the operator for it.",
            facts={"scope": scope},
        )
        self.scope = scope


PageLink = Callable[[PendingApproval, Callable[[], Awaitable[bool]]], Awaitable[bool]]
"""Gets a request and the wait for its decision. Returns whether it was decided."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, with the client's form, if it has one."""

    asker: Asker
    form: FormChannel | None
    scopes: frozenset[str] | None = None
    """Scopes of the sign-in. None without sign-in: the caller then has all rights of the Fastn credentials."""
    link: PageLink | None = None
    """Leads the person to the approval page by their client, while the call waits or in place of the wait."""
    waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Context in which the call waits for a person, and holds no concurrency slot."""
    undoes: str = ""
    """Id of the change that a person undoes on the approval page. Such a call does not wait for their approval."""
    delivery: Delivery | None = None
    """Delivery of the response, if it can be lost on the way to the caller."""
    own_effects: frozenset[Effect] | None = None
    """Effects of calls that the person may approve for themselves; None: all."""

    def may_approve(self, effects: Iterable[Effect]) -> bool:
        """Whether the person may approve a call of their own with all of these effects."""
        return self.own_effects is None or self.own_effects.issuperset(effects)

    def check(self, tool: str, *effects: Effect) -> None:
        """Raise `InsufficientScope` if the sign-in does not permit a call of all of these effects."""
        for needed in (SCOPES[effect] for effect in effects):
            if self.scopes is not None and needed not in self.scopes:
                raise InsufficientScope(tool, needed)
